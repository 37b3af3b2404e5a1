"""Layers with maps: found in the order in which they run, whatever library built the network."""

from __future__ import annotations

import pytest
import torch

from trabecula.errors import InputError
from trabecula.interpretability.layers import as_maps, captured, check_layers, map_layers, stages
from trabecula.nets.backbone import build_backbone


def test_the_critics_stages_are_its_blocks_after_their_nonlinearity() -> None:
    critic = build_backbone("critic", 1, 64)
    assert stages(critic) == [f"act{k}" for k in range(5)]
    shapes = map_layers(critic)
    assert list(shapes) == [f"{kind}{k}" for k in range(5) for kind in ("conv", "act")]
    assert (shapes["act0"], shapes["act4"]) == ((32, 32, 32), (512, 2, 2))


@pytest.mark.parametrize(
    ("architecture", "last"),
    [
        ("torchvision:resnet18", ["layer2", "layer3", "layer4"]),
        ("timm:resnet18", ["layer2", "layer3", "layer4"]),
        ("torchvision:squeezenet1_0", ["features.10", "features.11", "features.12"]),
    ],
)
def test_stages_of_library_networks(architecture: str, last: list[str]) -> None:
    backbone = build_backbone(architecture, 1, 64)
    assert stages(backbone)[-3:] == last
    assert backbone.net.training  # looked at, not changed


def test_captured_activations_are_those_of_the_layer() -> None:
    critic = build_backbone("critic", 1, 32).eval()
    x = torch.randn(2, 1, 32, 32)
    with captured(critic, ["act1", "act4"]) as outputs, torch.no_grad():
        maps = critic.maps(x)
    assert torch.equal(outputs["act4"], maps)
    with torch.no_grad():
        assert torch.equal(outputs["act1"], critic.net[:4](x))  # type: ignore[index]
    outputs.clear()
    critic.maps(x)
    assert outputs == {}  # the hooks are gone


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(
        InputError, match="layer 'act9' of critic gives no maps or is not there, did you mean"
    ):
        check_layers(build_backbone("critic", 1, 32), ["act0", "act9"])


@pytest.mark.parametrize(
    ("architecture", "name", "number"),
    [
        ("timm:test_vit_patch8", "blocks.{}", 6),
        ("torchvision:vit_b_32", "encoder.layers.encoder_layer_{}", 12),
    ],
)
def test_a_transformers_stages_are_its_blocks(architecture: str, name: str, number: int) -> None:
    backbone = build_backbone(architecture, 1, 64)
    blocks = stages(backbone)
    assert blocks == [name.format(i) for i in range(number)]
    assert {map_layers(backbone)[block] for block in blocks} == {
        (backbone.num_features, *(backbone.grid or ()))
    }


def test_tokens_are_maps_without_their_prefix() -> None:
    backbone = build_backbone("timm:test_vit_patch8", 1, 32).eval()
    x = torch.randn(2, 1, 32, 32)
    with captured(backbone, ["norm"]) as outputs, torch.no_grad():
        maps = backbone.maps(x)
    assert outputs["norm"].shape == (2, 17, 64)
    assert torch.equal(as_maps(backbone, outputs["norm"]), maps)
    assert torch.equal(as_maps(backbone, maps), maps)
