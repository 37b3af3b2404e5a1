"""The same stem of a ResNet at less cost."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trabecula.kernels import enabled


class PoolThenReLU(nn.MaxPool2d):
    """Max pooling, then ReLU: bit for bit the other order, gradients too, on a quarter of the pixels.

    Both are monotone, and a window without a positive value has no gradient in either order.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.relu(super().forward(input), inplace=True)


def pool_before_relu(net: nn.Module, act: str, pool: str) -> None:
    """Swap the ReLU `act` and the max pooling `pool` that follows it; other modules stay as they are.

    The ReLU's name stays, as an identity; neither has weights, so a state dict keeps its keys.
    """
    old = getattr(net, pool, None)
    if not enabled("stem") or type(getattr(net, act, None)) is not nn.ReLU or type(old) is not nn.MaxPool2d:
        return
    setattr(net, act, nn.Identity())
    setattr(
        net,
        pool,
        PoolThenReLU(old.kernel_size, old.stride, old.padding, old.dilation, ceil_mode=old.ceil_mode),
    )
