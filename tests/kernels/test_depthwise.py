"""Depthwise convolutions in float32 within a network in bf16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trabecula.kernels import VARIABLE
from trabecula.kernels.depthwise import use_float32_depthwise
from trabecula.nets.backbone import build_backbone


def gradients(net: nn.Module, x: Tensor, bf16: bool) -> tuple[Tensor, list[Tensor]]:
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = net(x)
    y.float().square().mean().backward()
    return y, [w.grad.clone() for w in net.parameters() if w.grad is not None]


def test_a_layer_computes_in_float32_and_gives_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6)), torch.rand(2, 6, 9, 9)
    assert use_float32_depthwise(net) == 1
    assert use_float32_depthwise(net) == 0
    y, grads = gradients(net, x, bf16=True)
    exact, wanted = gradients(net, x, bf16=False)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, rtol=2**-8, atol=0)
    for a, b in zip(grads, wanted, strict=True):
        assert float((a - b).norm() / b.norm()) < 5e-3
    seen: list[torch.dtype] = []
    monkeypatch.setattr(nn.Conv2d, "forward", lambda _, x: seen.append(x.dtype) or x)
    with torch.autocast("cpu", torch.bfloat16):
        net(x)
        with torch.inference_mode():
            net(x.bfloat16())
        monkeypatch.setenv(VARIABLE, "off")
        net(x.bfloat16())
    assert seen == [torch.float32, torch.bfloat16, torch.bfloat16]


def test_plain_and_grouped_layers_stay() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(1, 4, 3, groups=1))
    assert use_float32_depthwise(net) == 0


@pytest.mark.parametrize(
    "name", ["timm:tf_efficientnet_lite0", "torchvision:mobilenet_v2", "timm:convnext_atto"]
)
def test_networks_use_them_and_keep_their_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = build_backbone(name, 3, 64).net.eval()  # fixed statistics: a batch norm would magnify rounding
    depthwise = [part for part in net.modules() if isinstance(part, nn.Conv2d) and part.groups > 1]
    assert len(depthwise) >= 12
    assert use_float32_depthwise(net) == 0  # all of them are already
    torch.manual_seed(0)
    x = torch.rand(4, 3, 64, 64)
    exact, apart = gradients(net, x, bf16=False)[1], {}
    for value in ("on", "off"):
        monkeypatch.setenv(VARIABLE, value)
        rounded = gradients(net, x, bf16=True)[1]
        apart[value] = sum(float((a - b).norm() / b.norm()) for a, b in zip(rounded, exact, strict=True))
    assert 0 < apart["on"] < 1.1 * apart["off"]
