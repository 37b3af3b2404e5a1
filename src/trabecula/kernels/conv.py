"""Convolutions as matrix products, where that is faster: on a CPU.

On maps of a few pixels a convolution kernel runs at two thirds of the speed of a matrix product, and its
weight gradient at half of it or less. The last stage of a ResNet is made of such layers, and so is the end
of a critic. A layer is a product in bf16 alone; `convolve`, `convolve_back` and `kernel_gradient`, for
gradients written by hand, take the faster way in float32 too. They carry no gradient themselves.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from trabecula.kernels import enabled
from trabecula.kernels.matmul import matmul

_OUTPUT = 16  # pixels of the output map up to which the product is the faster forward pass
_WEIGHT = 49  # and the faster weight gradient
_WEIGHT_OF_4 = 64  # the same in bf16 with kernels of 4


class SmallMapConv2d(nn.Conv2d):
    """`nn.Conv2d` with a square kernel and no groups, dilation or bias; weights and names stay."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        most = _WEIGHT if torch.is_grad_enabled() and self.weight.requires_grad else _OUTPUT
        step, edge = self.stride[0], int(self.padding[0])
        if not _is_bf16(input) or _pixels(input, self.kernel_size[0], step, edge) > most:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _ConvolutionProduct.apply(input.bfloat16(), self.weight.bfloat16(), step, edge)
        return y


class _ConvolutionProduct(torch.autograd.Function):
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
            dweight = _kernel_product(grad, x, weight, ctx.step, ctx.edge)
        return dx, dweight, None, None


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, step: int, edge: int) -> Tensor:
    """`F.conv2d` of a square kernel."""
    if not _is_quick(x) or _pixels(x, kernel.shape[-1], step, edge) > _OUTPUT:
        return F.conv2d(x, kernel, bias, step, edge)
    made = matmul(_patches(x, kernel.shape[-1], step, edge), kernel.permute(0, 2, 3, 1).flatten(1).t())
    return (made if bias is None else made.add_(bias)).permute(0, 3, 1, 2)


def convolve_back(grad: Tensor, x: Tensor, kernel: Tensor, step: int, edge: int) -> Tensor:
    """The gradient in `x` of a convolution, from that in its output."""
    if not _is_quick(grad) or grad[0, 0].numel() > _OUTPUT or grad.dtype != torch.float32:
        return _library_gradients(grad, x, kernel, step, edge, (True, False, False))[0]
    (batch, channels, height, width), size = x.shape, kernel.shape[-1]
    parts = matmul(grad.permute(0, 2, 3, 1), kernel.permute(0, 2, 3, 1).flatten(1))
    parts = parts.unflatten(3, (size, size, channels))  # (B, h, w, kernel, kernel, C)
    padded = parts.new_zeros(batch, height + 2 * edge, width + 2 * edge, channels)
    for i, j in product(range(size), repeat=2):
        rows, columns = (slice(k, k + step * n, step) for k, n in zip((i, j), grad.shape[2:], strict=True))
        padded[:, rows, columns] += parts[:, :, :, i, j]
    inner: Tensor = padded[:, edge : edge + height, edge : edge + width].contiguous()
    return inner.permute(0, 3, 1, 2)


def kernel_gradient(grad: Tensor, x: Tensor, kernel: Tensor, step: int, edge: int) -> Tensor:
    """The gradient in the kernel of a convolution, from that in its output."""
    most = _OUTPUT if grad.dtype == torch.float32 else _WEIGHT_OF_4
    if not _is_quick(grad) or grad[0, 0].numel() > most:
        return _library_gradients(grad, x, kernel, step, edge, (False, True, False))[1]
    return _kernel_product(grad, x, kernel, step, edge)


def _kernel_product(grad: Tensor, x: Tensor, kernel: Tensor, step: int, edge: int) -> Tensor:
    out, channels, size, _ = kernel.shape
    rows = grad.permute(0, 2, 3, 1).reshape(-1, out)
    found = matmul(rows.t(), _patches(x, size, step, edge).flatten(0, 2))
    return found.view(out, size, size, channels).permute(0, 3, 1, 2)


def _library_gradients(
    grad: Tensor, x: Tensor, kernel: Tensor, step: int, edge: int, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, ...]:
    strides, edges = (step, step), (edge, edge)
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad, x, kernel, None, strides, edges, (1, 1), False, (0, 0), 1, wanted
    )
    return found


def _patches(x: Tensor, kernel: int, step: int, edge: int) -> Tensor:
    """(B, C, H, W) -> (B, h, w, kernel * kernel * C): what each output pixel sees."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, edge, edge, edge, edge))
    windows = padded.unfold(1, kernel, step).unfold(2, kernel, step)  # (B, h, w, C, kernel, kernel)
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3)


def _pixels(x: Tensor, kernel: int, step: int, edge: int) -> int:
    height, width = ((side + 2 * edge - kernel) // step + 1 for side in x.shape[-2:])
    return height * width


def _is_quick(x: Tensor) -> bool:
    return x.device.type == "cpu" and enabled("convolution")


def _is_bf16(x: Tensor) -> bool:
    return (
        _is_quick(x)
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
