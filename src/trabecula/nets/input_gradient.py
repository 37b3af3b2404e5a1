"""The gradient of a critic's score at its input, differentiable in the weights: what gradient penalties need.

A critic of convolutions, ReLUs and LeakyReLUs is linear in its input wherever no unit changes sign. Its
input gradient is then the output layer's weights, sent back through the transposed layers and multiplied at
each unit by a factor that depends on the sign of the unit alone. These factors have no derivative, so the
derivative of the input gradient in the weights passes through the transposed layers only. Double
differentiation by autograd also sends zeros back through the forward pass.

The critic's scores are computed by the same layers, so that small maps are matrix products there too
(docs/concepts/kernels.md). With TRABECULA_KERNELS=off autograd computes both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trabecula.kernels import enabled
from trabecula.kernels.conv import convolve, convolve_back, kernel_gradient
from trabecula.nets.critic import Critic

_FEW_CHANNELS = 4


class Layer(NamedTuple):
    """A convolution, and the derivative below zero of the activation that follows it."""

    stride: int
    padding: int
    leak: float


def scores(critic: nn.Module, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B,): the critic's scores in float32, differentiable in its weights, once.

    In the precision of autocast; `x` gets no gradient. A piecewise linear critic is computed layer by layer.
    """
    layers = piecewise_linear(critic)
    if layers is None or not isinstance(critic, Critic):
        return cast("Tensor", critic(x.detach())).float()
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    with torch.autocast(device, enabled=False):
        found = _Scores.apply(x.detach().to(dtype), layers, critic.output.weight, *_weights(critic, dtype))
        return cast("Tensor", found + critic.output.bias)


def input_gradient(critic: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The gradient of each image's score at that image, differentiable in the critic's weights.

    A piecewise linear `Critic` is computed as described above; any other module is differentiated by
    autograd, with the same result. Rows may be mixed by the module (batch norm): then this is the gradient
    of the sum of all scores. (B, C, H, W) -> (B, C, H, W) in float32, without a gradient in `x`.

    dtype: of the products in a piecewise linear critic's convolutions; sums are in float32 always.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.detach().float()
        layers = piecewise_linear(critic)
        if layers is None or not isinstance(critic, Critic):
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
            return gradient
        found = _InputGradient.apply(x.to(dtype), layers, critic.output.weight, *_weights(critic, dtype))
        return cast("Tensor", found).float()


def piecewise_linear(critic: nn.Module) -> list[Layer] | None:
    """The layers of a `Critic` whose blocks are convolutions, each with a (Leaky)ReLU; else None."""
    if not enabled("input_gradient") or type(critic) is not Critic or critic.output.out_features != 1:
        return None
    parts = list(critic.blocks)
    layers = []
    for conv, act in zip(parts[::2], parts[1::2], strict=False):
        if not isinstance(conv, nn.Conv2d) or type(act) not in (nn.LeakyReLU, nn.ReLU):
            return None
        plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
        square = all(len(set(sides)) == 1 for sides in (conv.kernel_size, conv.stride, conv.padding))
        if not plain or not square or isinstance(conv.padding, str) or conv.bias is None:
            return None
        leak = float(act.negative_slope) if isinstance(act, nn.LeakyReLU) else 0.0
        layers.append(Layer(conv.stride[0], conv.padding[0], leak))
    return layers if len(parts) == 2 * len(layers) else None


def _weights(critic: Critic, dtype: torch.dtype) -> list[Tensor]:
    """Kernel and bias of each convolution, in turn."""
    convs = [layer for layer in critic.blocks if isinstance(layer, nn.Conv2d)]
    return [w.to(dtype) for conv in convs for w in (conv.weight, cast("Tensor", conv.bias))]


class _Scores(torch.autograd.Function):
    """w . flatten(act(conv_L(... act(conv_1(x))))) and its derivative in w and in the layers' weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: list[Layer], output: Tensor, *weights: Tensor) -> Tensor:
        units = _forward(x, layers, weights)
        ctx.layers = layers
        ctx.save_for_backward(output, *weights[::2], x, *units)
        return (units[-1].flatten(1).float() @ output.t()).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (output, *saved), count = grads, ctx.saved_tensors, len(ctx.layers)
        kernels, inputs, units = saved[:count], saved[count:-1], saved[count + 1 :]
        back = _spread_over(units[-1], output) * grad.to(units[-1].dtype).view(-1, 1, 1, 1)
        found: list[Tensor] = []
        for index in reversed(range(count)):
            layer, below = ctx.layers[index], inputs[index]
            back = _factor_(back, units[index], layer.leak)
            of_kernel = kernel_gradient(back, below, kernels[index], layer.stride, layer.padding)
            found = [of_kernel, back.sum((0, 2, 3)), *found]
            if index:
                back = convolve_back(back, below, kernels[index], layer.stride, layer.padding)
        return None, None, grad.unsqueeze(0) @ units[-1].flatten(1).float(), *found


class _InputGradient(torch.autograd.Function):
    """Gradient at x of w . flatten(act(conv_L(... act(conv_1(x))))); its derivative in the kernels and w.

    With the factors m_l held fixed the input gradient is T_1 m_1 T_2 m_2 ... T_L m_L w, where T_l is the
    transpose of convolution l. The derivative along a direction h of that gradient is found by sending h
    forward through the same linear maps: convolution l meets (h sent so far) and (w sent back so far).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: list[Layer], output: Tensor, *weights: Tensor) -> Tensor:
        kernels, units = weights[::2], _forward(x, layers, weights)
        back = _spread_over(units[-1], output)
        backs: list[Tensor] = []
        below = [x, *units[:-1]]
        for layer, kernel, unit, lower in reversed(list(zip(layers, kernels, units, below, strict=True))):
            back = _factor_(back, unit, layer.leak)
            backs.append(back)
            back = _transposed(back, kernel, layer, lower)
        ctx.layers = layers
        ctx.save_for_backward(*kernels, *units, *backs[::-1])
        return back

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved, count = ctx.saved_tensors, len(ctx.layers)
        along = grads[0].to(saved[0].dtype)
        found: list[Tensor | None] = []
        kernels, units, backs = saved[:count], saved[count : 2 * count], saved[2 * count :]
        for layer, kernel, unit, back in zip(ctx.layers, kernels, units, backs, strict=True):
            of_kernel = kernel_gradient(back, along, kernel, layer.stride, layer.padding)
            found += [of_kernel, None]  # biases are in no factor
            along = convolve(along, kernel, None, layer.stride, layer.padding, signs=False)
            along = _factor_(along, unit, layer.leak)
        return None, None, along.float().sum(0).reshape(1, -1), *found


def _forward(x: Tensor, layers: list[Layer], weights: Sequence[Tensor]) -> list[Tensor]:
    """The units of every layer."""
    units: list[Tensor] = []
    for layer, kernel, bias in zip(layers, weights[::2], weights[1::2], strict=True):
        x = F.leaky_relu_(convolve(x, kernel, bias, layer.stride, layer.padding), layer.leak)
        units.append(x)
    return units


def _spread_over(units: Tensor, output: Tensor) -> Tensor:
    """The output layer's weights for each image, in the shape, layout and precision of `units`."""
    return torch.empty_like(units).copy_(output.view(1, *units.shape[1:]))


def _factor_(value: Tensor, unit: Tensor, leak: float) -> Tensor:
    """`value` times the activation's derivative, in place: 1 where the unit is above zero, else `leak`."""
    torch.ops.aten.leaky_relu_backward.grad_input(value, unit, leak, True, grad_input=value)
    return value


def _transposed(value: Tensor, kernel: Tensor, layer: Layer, below: Tensor) -> Tensor:
    """The transposed convolution that sends `value` back to the shape of `below`."""
    if kernel.shape[1] <= _FEW_CHANNELS:  # libraries are slow at convolutions with few outputs
        patches = (kernel.flatten(1).t() @ value.flatten(2)).float()
        size, window = below.shape[2:], kernel.shape[2:]
        return F.fold(patches, size, window, padding=layer.padding, stride=layer.stride).to(value.dtype)
    return convolve_back(value, below, kernel, layer.stride, layer.padding)
