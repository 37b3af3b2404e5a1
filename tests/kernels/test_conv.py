"""Convolutions as matrix products: the same layer, within the rounding of bf16."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trabecula.kernels.conv import (
    SmallMapConv2d,
    convolve,
    convolve_back,
    kernel_gradient,
    use_small_map_convolutions,
)
from trabecula.nets.backbone import build_backbone

# in, out, kernel, stride, padding, side: both limits from either side
LAYERS = [
    (8, 6, 3, 1, 1, 4),
    (8, 6, 3, 2, 1, 8),
    (4, 6, 4, 2, 1, 7),
    (3, 5, 3, 1, 0, 5),
    (6, 4, 3, 1, 1, 7),
    (4, 4, 5, 1, 2, 9),
]


def make(layer: tuple[int, ...]) -> tuple[nn.Conv2d, SmallMapConv2d, Tensor]:
    torch.manual_seed(0)
    inside, out, kernel, step, edge, side = layer
    plain, net = (nn.Conv2d(inside, out, kernel, step, edge, bias=False) for _ in range(2))
    net.load_state_dict(plain.state_dict())
    assert use_small_map_convolutions(net) == 1
    assert isinstance(net, SmallMapConv2d)
    return plain, net, torch.randn(5, inside, side, side).to(memory_format=torch.channels_last)


def results(conv: nn.Conv2d, x: Tensor, bf16: bool) -> tuple[Tensor, Tensor, Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = conv(x)
    y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype))
    assert conv.weight.grad is not None
    assert x.grad is not None
    return y.detach(), conv.weight.grad, x.grad


@pytest.mark.parametrize("layer", LAYERS)
def test_output_and_gradients_are_those_of_float32_to_bf16_s_rounding(layer: tuple[int, ...]) -> None:
    plain, net, x = make(layer)
    for exact, found in zip(results(plain, x, bf16=False), results(net, x, bf16=True), strict=True):
        scale = float(exact.abs().max())
        torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.015 * scale)
        assert found.stride() == exact.stride()


@pytest.mark.parametrize("layer", LAYERS)
def test_float32_is_untouched(layer: tuple[int, ...]) -> None:
    plain, net, x = make(layer)
    for a, b in zip(results(plain, x, bf16=False), results(net, x, bf16=False), strict=True):
        assert torch.equal(a, b)


def test_small_maps_are_products_and_others_are_not() -> None:
    for layer, product in zip(LAYERS, [True, True, True, True, True, False], strict=True):
        _, net, x = make(layer)
        with torch.autocast("cpu", torch.bfloat16):
            y = net(x)
            assert ("Product" in type(y.grad_fn).__name__) == product, layer
            with torch.no_grad():
                torch.testing.assert_close(net(x), y.detach(), rtol=0.02, atol=0.02)


def test_a_gradient_s_gradient_is_that_of_torch() -> None:
    plain, net, x = make(LAYERS[0])
    found = []
    for conv in (plain, net):
        values = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = F.softplus(conv(values).float())
        (slope,) = torch.autograd.grad(y.sum(), values, create_graph=True)
        slope.square().sum().backward()
        assert conv.weight.grad is not None
        found.append(conv.weight.grad)
    torch.testing.assert_close(*found, rtol=0, atol=0.03 * float(found[0].abs().max()))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3, bias=True),
        nn.Conv2d(4, 4, 3, groups=2, bias=False),
        nn.Conv2d(4, 4, 1, bias=False),
        nn.Conv2d(4, 4, 3, dilation=2, bias=False),
        nn.Conv2d(4, 4, (3, 1), bias=False),
        nn.Conv2d(4, 4, 3, padding="same", bias=False),
        nn.Conv2d(4, 4, 3, 1, 1, padding_mode="circular", bias=False),
    ],
)
def test_layers_that_it_does_not_cover_stay_as_they_are(conv: nn.Conv2d) -> None:
    assert use_small_map_convolutions(nn.Sequential(conv)) == 0
    assert type(conv) is nn.Conv2d


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_backbones_have_them(name: str) -> None:
    assert sum(isinstance(part, SmallMapConv2d) for part in build_backbone(name, 1, 64).net.modules()) == 17


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.015)])
def test_gradients_by_hand_are_autograds(layer: tuple[int, ...], dtype: torch.dtype, most: float) -> None:
    plain, _, x = make(layer)
    *_, step, edge, _ = layer
    bias = torch.linspace(-1, 1, layer[1])
    x.requires_grad_()
    y = F.conv2d(x, plain.weight, bias, step, edge)
    grad = torch.linspace(-1, 1, y.numel()).view(y.shape)
    expected = [y.detach(), *torch.autograd.grad(y, (x, plain.weight), grad)]
    with torch.no_grad():
        a, kernel, b = (t.to(dtype) for t in (x, plain.weight, grad))
        found = [
            convolve(a, kernel, bias.to(dtype), step, edge),
            convolve_back(b, a, kernel, step, edge),
            kernel_gradient(b, a, kernel, step, edge),
        ]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=most * float(theirs.abs().max()))
