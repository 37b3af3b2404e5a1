"""A stem at less cost is the same stem, to the last bit."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

from trabecula.kernels.stem import PoolThenReLU, pool_before_relu
from trabecula.nets.backbone import build_backbone


def grads(net: nn.Module, x: Tensor) -> list[Tensor]:
    net.zero_grad()
    x = x.detach().requires_grad_()
    y = net(x)
    y.square().sum().backward()
    return [y.detach(), *(w.grad.clone() for w in net.parameters() if w.grad is not None), x.grad]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("act", "library"), [("act1", "timm"), ("relu", "torchvision")])
def test_outputs_and_gradients_are_equal_and_keys_stay(act: str, library: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = timm.create_model("resnet10t", num_classes=0) if library == "timm" else models.resnet18()
    plain = plain.to(dtype)
    swapped = copy.deepcopy(plain)
    pool_before_relu(swapped, act, "maxpool")
    assert isinstance(swapped.maxpool, PoolThenReLU)
    assert list(plain.state_dict()) == list(swapped.state_dict())
    x = torch.randn(4, 3, 64, 64, dtype=dtype)
    for a, b in zip(grads(plain, x), grads(swapped, x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_backbones_have_it(name: str) -> None:
    net = build_backbone(name, 1, 64).net
    assert isinstance(net.maxpool, PoolThenReLU)


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.Sequential(nn.MaxPool2d(2))])
def test_another_stem_stays_as_it_is(pool: nn.Module) -> None:
    net = nn.Sequential()
    net.add_module("act", nn.ReLU())
    net.add_module("pool", pool)
    pool_before_relu(net, "act", "pool")
    assert type(net.act) is nn.ReLU
    assert net.pool is pool
