"""Linear layers by oneDNN's product while they learn on a CPU in float32.

torch makes these products by MKL, with which a pass takes 1.6 to 2.5 times as long on processors that it was
not made for (`bench/linear.py`): the projectors of Barlow Twins and VICReg, and most of a vision transformer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trabecula.kernels import enabled
from trabecula.kernels.matmul import by_onednn, matmul

_MANY = 1 << 22  # multiplications of a layer from which its gain is more than what calling it costs


class ProductLinear(nn.Linear):
    """`nn.Linear`; weights and names stay. In evaluation it is the library's layer, which exports know."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not self.training or not _is_quicker(input, self.weight):
            return super().forward(input)
        made: Tensor = _LinearProduct.apply(input, self.weight, self.bias)
        return made


class _LinearProduct(torch.autograd.Function):
    """Each operation of `backward` has a gradient of its own, for penalties on gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        rows = matmul(x.reshape(-1, x.shape[-1]).contiguous(), weight.t())
        made = rows if bias is None else rows.add_(bias)
        return made.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, len(weight)).contiguous()
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            matmul(grad, weight).view(x.shape) if of_x else None,
            matmul(grad.t(), x.reshape(-1, x.shape[-1]).contiguous()) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def _is_quicker(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or x.numel() * len(weight) < _MANY:
        return False
    return x.dtype == weight.dtype and by_onednn(x.dtype) and enabled("linear")


def use_product_linears(net: nn.Module) -> int:
    """Make each plain `nn.Linear` in `net` a `ProductLinear`; returns how many there were."""
    chosen = [part for part in net.modules() if type(part) is nn.Linear]
    for part in chosen:
        part.__class__ = ProductLinear
    return len(chosen)
