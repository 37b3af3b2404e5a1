"""Convolutions on small maps as matrix products, where that is faster: in bf16 on a CPU.

On maps of a few pixels a convolution kernel runs at two thirds of the speed of a matrix product, and its
weight gradient at half of it or less. The last stage of a ResNet is made of such layers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

_OUTPUT = 16  # pixels of the output map up to which the product is the faster forward pass
_WEIGHT = 49  # and the faster weight gradient


class SmallMapConv2d(nn.Conv2d):
    """`nn.Conv2d` with a square kernel and no groups, dilation or bias; weights and names stay."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        most = _WEIGHT if torch.is_grad_enabled() and self.weight.requires_grad else _OUTPUT
        step, edge = self.stride[0], int(self.padding[0])
        if not _is_bf16(input) or _pixels(input, self.kernel_size[0], step, edge) > most:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _Product.apply(input.bfloat16(), self.weight.bfloat16(), step, edge)
        return y


class _Product(torch.autograd.Function):
    """Each operation of `backward` has a gradient of its own, for penalties on gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, step: int, edge: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.step, ctx.edge = step, edge
        if _pixels(x, weight.shape[-1], step, edge) > _OUTPUT:
            return F.conv2d(x, weight, None, step, edge)
        patches = _patches(x, weight.shape[-1], step, edge)  # (B, h, w, kernel ** 2 * C)
        return (patches @ weight.permute(0, 2, 3, 1).flatten(1).t()).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = conv2d_input(x.shape, weight, grad, ctx.step, ctx.edge)
        if ctx.needs_input_grad[1]:
            out, channels, kernel, _ = weight.shape
            patches = _patches(x, kernel, ctx.step, ctx.edge).flatten(0, 2)
            rows = grad.permute(0, 2, 3, 1).reshape(-1, out)
            dweight = (rows.t() @ patches).view(out, kernel, kernel, channels).permute(0, 3, 1, 2)
        return dx, dweight, None, None


def _patches(x: Tensor, kernel: int, step: int, edge: int) -> Tensor:
    """(B, C, H, W) -> (B, h, w, kernel * kernel * C): what each output pixel sees."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, edge, edge, edge, edge))
    windows = padded.unfold(1, kernel, step).unfold(2, kernel, step)  # (B, h, w, C, kernel, kernel)
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3)


def _pixels(x: Tensor, kernel: int, step: int, edge: int) -> int:
    height, width = ((side + 2 * edge - kernel) // step + 1 for side in x.shape[-2:])
    return height * width


def _is_bf16(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def use_small_map_convolutions(net: nn.Module) -> int:
    """Make the convolutions below `net` that can be one a `SmallMapConv2d`; returns how many there are."""
    chosen = [part for part in net.modules() if type(part) is nn.Conv2d and _can_be_product(part)]
    for part in chosen:
        part.__class__ = SmallMapConv2d
    return len(chosen)


def _can_be_product(conv: nn.Conv2d) -> bool:
    square = all(len(set(sides)) == 1 for sides in (conv.kernel_size, conv.stride, conv.padding))
    plain = conv.groups == 1 and set(conv.dilation) == {1} and conv.bias is None
    return square and plain and conv.kernel_size[0] > 1 and conv.padding_mode == "zeros"
