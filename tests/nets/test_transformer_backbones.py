"""Vision transformers: patch sizes by name, and weights of another image size."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from trabecula.errors import InputError
from trabecula.nets.backbone import build_backbone
from trabecula.nets.weights import load_weights


@pytest.mark.parametrize(
    ("name", "size", "grid", "timm_name"),
    [
        ("vit_tiny_patch8_224", 64, (8, 8), "vit_tiny_patch16_224"),
        ("timm:test_vit_patch4", 32, (8, 8), "test_vit"),
        ("timm:vit_small_patch8_224", 64, (8, 8), ""),
    ],
)
def test_a_patch_size_is_written_into_the_name(
    name: str, size: int, grid: tuple[int, int], timm_name: str
) -> None:
    backbone = build_backbone(name, 1, size)
    assert (backbone.grid, backbone.architecture) == (grid, f"timm:{name.removeprefix('timm:')}")
    if timm_name:  # timm builds it from its own name and the option, and takes its weights
        options = {"patch_size": size // grid[0], "img_size": size, "in_chans": 1, "num_classes": 0}
        timm.create_model(timm_name, **options).load_state_dict(backbone.net.state_dict(), strict=True)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_tiny_patch16_224", 60, "patches of 16 px, and 60 px is not a multiple of it"),
        ("vit_tiny_patch0_224", 64, "did you mean 'vit_tiny_patch16_224'"),
        ("resnet18_patch8", 64, "cannot be built .* unexpected keyword argument 'patch_size'"),
    ],
)
def test_patches_that_cannot_be_are_refused(name: str, size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_backbone(name, 1, size)


@pytest.mark.parametrize(
    ("library", "key"), [("timm:test_vit", "pos_embed"), ("torchvision:vit_b_32", "encoder.pos_embedding")]
)
def test_positions_of_another_image_size_are_resampled(library: str, key: str, tmp_path: Path) -> None:
    """Positions that change evenly over the image change evenly at another size too; the rest is kept."""
    large, small = (build_backbone(library, 3, size, seed=size) for size in (128, 64))
    patch = 128 // (large.grid or (1, 1))[0]
    state = {k: v.clone() for k, v in large.net.state_dict().items()}
    places = torch.arange(128 // patch).double() * patch + patch / 2
    slope = (places[:, None] + 2 * places[None]).float().reshape(1, -1, 1) / 128
    state[key][:, 1:] = slope
    save_file(state, tmp_path / "large.safetensors")
    load_weights(small, tmp_path / "large.safetensors")
    loaded = small.net.state_dict()
    assert all(torch.equal(loaded[k], state[k]) for k in state if k != key)
    assert torch.equal(loaded[key][:, :1], state[key][:, :1])
    side = 64 // patch
    places = (torch.arange(side).double() + 0.5) * 128 / side
    expected = (places[:, None] + 2 * places[None]).float().reshape(1, -1, 1) / 128
    torch.testing.assert_close(loaded[key][:, 1:].mean(2), expected[..., 0], rtol=0, atol=0.12)
    assert loaded[key].shape[1] == side**2 + 1


def test_positions_of_the_same_size_are_not_touched(tmp_path: Path) -> None:
    one, other = (build_backbone("timm:test_vit_patch8", 1, 32, seed=seed) for seed in (1, 2))
    save_file(one.net.state_dict(), tmp_path / "one.safetensors")
    load_weights(other, tmp_path / "one.safetensors")
    assert torch.equal(other.net.get_parameter("pos_embed"), one.net.get_parameter("pos_embed"))
