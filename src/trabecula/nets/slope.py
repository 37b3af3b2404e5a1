"""The slope of a critic at its input, differentiable in the critic's weights: what gradient penalties need.

A critic of convolutions, ReLUs and LeakyReLUs is linear in its input wherever no unit changes sign, so its
slope is the output layer's weights sent back through the transposed layers, with a factor for each unit
that depends on the sign of the unit alone. A derivative of the slope in the weights therefore passes
through these transposed layers and nowhere else: the factors have none. Plain double differentiation
does not know that and sends zeros back through the forward pass too.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trabecula.nets.critic import Critic

_FEW_CHANNELS = 4


class Layer(NamedTuple):
    """A convolution and the slope of the activation that follows it, left of zero."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    leak: float


def input_slope(critic: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The gradient of each image's score at that image, differentiable in the critic's weights.

    A piecewise linear `Critic` takes the short way described above; any other module is differentiated
    by autograd, with the same result. Rows may be mixed by the module (batch norm): then this is the
    gradient of the sum of all scores.

    Args:
        critic: (B, C, H, W) -> (B,).
        x: (B, C, H, W).
        dtype: of the products in a piecewise linear critic's convolutions; sums are in float32 always.

    Returns:
        (B, C, H, W) in float32. It carries no gradient in `x`.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.detach().float()
        layers = piecewise_linear(critic)
        if layers is None or not isinstance(critic, Critic):
            x.requires_grad_()
            (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
            return slope
        weights = [
            tensor
            for layer in critic.blocks
            if isinstance(layer, nn.Conv2d)
            for tensor in (layer.weight, cast("Tensor", layer.bias))
        ]
        slope = _Slope.apply(x.to(dtype), layers, critic.output.weight, *(w.to(dtype) for w in weights))
        return cast("Tensor", slope).float()


def piecewise_linear(critic: nn.Module) -> list[Layer] | None:
    """The layers of a `Critic` whose blocks are convolutions, each with a (Leaky)ReLU; else None."""
    if type(critic) is not Critic or critic.output.out_features != 1:
        return None
    parts = list(critic.blocks)
    layers = []
    for conv, act in zip(parts[::2], parts[1::2], strict=False):
        if not isinstance(conv, nn.Conv2d) or type(act) not in (nn.LeakyReLU, nn.ReLU):
            return None
        plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
        if not plain or isinstance(conv.padding, str) or conv.bias is None:
            return None
        leak = float(act.negative_slope) if isinstance(act, nn.LeakyReLU) else 0.0
        layers.append(Layer(cast("Any", conv.stride), cast("Any", conv.padding), leak))
    return layers if len(parts) == 2 * len(layers) else None


class _Slope(torch.autograd.Function):
    """Slope at x of w . flatten(act(conv_L(... act(conv_1(x))))); its derivative in the kernels and w.

    With the factors m_l held fixed the slope is T_1 m_1 T_2 m_2 ... T_L m_L w, where T_l is the transpose
    of convolution l. The derivative along a direction h of the slope is found by sending h forward through
    the same linear maps: convolution l meets (h sent so far) and (w sent back so far).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: list[Layer], output: Tensor, *weights: Tensor) -> Tensor:
        kernels, biases = weights[::2], weights[1::2]
        inputs = [x]
        for layer, kernel, bias in zip(layers, kernels, biases, strict=True):
            made = F.conv2d(inputs[-1], kernel, bias, layer.stride, layer.padding)
            inputs.append(F.leaky_relu_(made, layer.leak))
        units = inputs[1:]
        last = units[-1]
        back = torch.empty_like(last).copy_(output.view(1, *last.shape[1:]))
        backs: list[Tensor] = []
        for layer, kernel, unit, below in reversed(
            list(zip(layers, kernels, units, inputs[:-1], strict=True))
        ):
            back = _factor_(back, unit, layer.leak)
            backs.append(back)
            back = _transposed(back, kernel, layer, below)
        ctx.layers = layers
        ctx.save_for_backward(*kernels, *units, *backs[::-1])
        return back

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved, count = ctx.saved_tensors, len(ctx.layers)
        along = grads[0].to(saved[0].dtype)
        found: list[Tensor | None] = []
        for layer, kernel, unit, back in zip(
            ctx.layers, saved[:count], saved[count : 2 * count], saved[2 * count :], strict=True
        ):
            found += [_kernel_gradient(along, back, kernel, layer), None]  # biases are in no factor
            along = F.conv2d(along, kernel, None, layer.stride, layer.padding)
            along = _factor_(along, unit, layer.leak)
        return None, None, along.float().sum(0).reshape(1, -1), *found


def _factor_(value: Tensor, unit: Tensor, leak: float) -> Tensor:
    """`value` times the activation's derivative, in place: 1 where the unit is above zero, else `leak`."""
    torch.ops.aten.leaky_relu_backward.grad_input(value, unit, leak, True, grad_input=value)
    return value


def _transposed(value: Tensor, kernel: Tensor, layer: Layer, below: Tensor) -> Tensor:
    """The transposed convolution that sends `value` back to the shape of `below`."""
    if kernel.shape[1] <= _FEW_CHANNELS:  # libraries are slow at convolutions with few outputs
        patches = kernel.flatten(1).t() @ value.flatten(2)
        folded = F.fold(
            patches.float(), below.shape[2:], kernel.shape[2:], padding=layer.padding, stride=layer.stride
        )
        return folded.to(value.dtype)
    wanted = (True, False, False)
    grads = torch.ops.aten.convolution_backward(
        value, below, kernel, None, layer.stride, layer.padding, (1, 1), False, (0, 0), 1, wanted
    )
    return cast("Tensor", grads[0])


def _kernel_gradient(value: Tensor, back: Tensor, kernel: Tensor, layer: Layer) -> Tensor:
    """The derivative in the kernel of <conv(value), back>."""
    wanted = (False, True, False)
    grads = torch.ops.aten.convolution_backward(
        back, value, kernel, None, layer.stride, layer.padding, (1, 1), False, (0, 0), 1, wanted
    )
    return cast("Tensor", grads[1])
