"""Depthwise convolutions in float32 where a network is trained in bf16 on a CPU.

torch has no fast backward pass of them in bf16: in EfficientNet-Lite0 at 64 px it takes six sevenths of a
training step. They are a small part of a network's products, so float32 costs little.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from trabecula.kernels import enabled


class _InFloat32:
    """Mixed into a class of convolutions: its output is bf16 again."""

    def forward(self, x: Tensor) -> Tensor:
        slow = (
            x.device.type == "cpu"
            and torch.is_grad_enabled()
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
            and enabled("depthwise")
        )
        if not slow:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).bfloat16()  # type: ignore[misc, no-any-return]


@cache
def _in_float32(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """timm has classes of its own, such as one that pads as TensorFlow does."""
    return type(kind.__name__, (_InFloat32, kind), {})


def use_float32_depthwise(net: nn.Module) -> int:
    """Let the depthwise convolutions below `net` compute so; weights and names stay. Returns their number."""
    chosen = [part for part in net.modules() if isinstance(part, nn.Conv2d) and _is_depthwise(part)]
    for part in chosen:
        kind: Any = type(part)
        part.__class__ = _in_float32(kind)
    return len(chosen)


def _is_depthwise(conv: nn.Conv2d) -> bool:
    return 1 < conv.groups == conv.in_channels and not isinstance(conv, _InFloat32)
