"""Encoders: what they compute, and what survives the disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from trabecula.artifacts.encoder import EncoderCard, read_encoder_card
from trabecula.artifacts.weights import read_weights
from trabecula.errors import InputError
from trabecula.nets.encoder import Encoder, load_encoder, make_encoder


def small(**changes: Any) -> Encoder:
    return make_encoder(
        **{"architecture": "critic:4-8", "channels": 1, "size": 16, "seed": 1, **changes}
    ).eval()


def rewrite(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**card, **changes}))


def test_images_are_normalised_with_the_cards_mean_and_std() -> None:
    critic = small()
    assert (critic.card.mean, critic.card.std) == ((0.5,), (0.5,))
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 16, 16)
    assert critic.normalise(images)[:, 0, 0, 0].tolist() == [-1, 0, 1]
    rgb = make_encoder("torchvision:resnet18", 3, 64)
    x = torch.rand(2, 3, 64, 64)
    expected = torchvision.transforms.functional.normalize(x, rgb.card.mean, rgb.card.std)
    torch.testing.assert_close(rgb.normalise(x), expected)


def test_repeat_shows_a_grey_image_three_times_with_rgb_normalisation() -> None:
    encoder = make_encoder("torchvision:squeezenet1_1", 1, 64, stem="repeat")
    x = torch.rand(2, 1, 64, 64)
    got = encoder.normalise(x)
    assert got.shape == (2, 3, 64, 64)
    torch.testing.assert_close(got[:, 2], (x[:, 0] - 0.406) / 0.225)


def test_pools_are_what_they_are_called() -> None:
    encoder = small()
    images = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        maps = encoder.maps(images)
        assert maps.shape == (3, 8, 4, 4)
        by_pool = {pool: encoder.with_pool(pool)(images) for pool in ("mean", "mean+max", "flatten")}  # type: ignore[arg-type]
    torch.testing.assert_close(by_pool["mean"], maps.mean((2, 3)))
    torch.testing.assert_close(
        by_pool["mean+max"], torch.cat([maps.mean((2, 3)), maps.flatten(2).amax(2)], 1)
    )
    assert torch.equal(by_pool["flatten"], maps.reshape(3, -1))


@pytest.mark.parametrize(
    ("architecture", "pool", "expected", "width"),
    [
        ("critic", "auto", "flatten", 512 * 4),
        ("torchvision:squeezenet1_1", "auto", "mean", 512),
        ("torchvision:squeezenet1_1", "mean+max", "mean+max", 1024),
        ("timm:vit_tiny_patch16_224", "auto", "mean", 192),
        ("timm:vit_tiny_patch16_224", "token", "token", 192),
        ("timm:vit_tiny_patch16_224", "flatten", "flatten", 192 * 16),
    ],
)
def test_card_says_the_pool_and_the_width_there_is(
    architecture: str, pool: Any, expected: str, width: int
) -> None:
    encoder = make_encoder(architecture, 1, 64, pool=pool).eval()
    assert (encoder.card.pool, encoder.card.num_features) == (expected, width)
    with torch.no_grad():
        assert encoder(torch.rand(2, 1, 64, 64)).shape == (2, width)


def test_token_is_the_class_token_and_not_the_patches() -> None:
    encoder = make_encoder("timm:vit_tiny_patch16_224", 1, 64, pool="token").eval()
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        tokens = encoder.backbone.net(encoder.normalise(images))
        torch.testing.assert_close(encoder(images), tokens[:, 0])
        torch.testing.assert_close(encoder.with_pool("mean")(images), tokens[:, 1:].mean(1))


def test_a_pool_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="has no token; use 'mean'"):
        small(pool="token")


def test_channels_last_gives_the_same_features() -> None:
    encoder = make_encoder("torchvision:resnet18", 1, 64).double().eval()
    images = torch.rand(2, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        plain = encoder(images)
        last = encoder.to(memory_format=torch.channels_last)(
            images.contiguous(memory_format=torch.channels_last)
        )
    torch.testing.assert_close(plain, last)


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 16, 16)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"takes images of 1 channels as \(B, C, H, W\)"):
        small()(torch.rand(shape))


# --- on disk ---


@pytest.mark.parametrize(
    ("architecture", "stem", "pool"),
    [
        ("critic", "native", "auto"),
        ("timm:resnet10t", "sum", "mean+max"),
        ("torchvision:squeezenet1_1", "repeat", "flatten"),
        ("timm:vit_tiny_patch16_224", "native", "token"),
    ],
)
def test_what_is_saved_comes_back(architecture: str, stem: Any, pool: Any, tmp_path: Path) -> None:
    encoder = make_encoder(architecture, 1, 64, stem=stem, pool=pool, seed=7).eval()
    encoder.card = encoder.card.model_copy(
        update={"objective": "moco", "settings": {"queue": 64}, "images_seen": 640, "patients": ("ab", "cd")}
    )
    encoder.save(tmp_path)
    images = torch.rand(2, 1, 64, 64)
    for path in (tmp_path, tmp_path / "encoder.json", tmp_path / "encoder.safetensors"):
        back = load_encoder(path).eval()
        assert back.card == encoder.card
        with torch.no_grad():
            assert torch.equal(back(images), encoder(images))


def test_files_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        small().to(memory_format=torch.channels_last).save(tmp_path / name)
    for file in ("encoder.safetensors", "encoder.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["encoder.json", "encoder.safetensors"]


def test_saving_leaves_the_encoder_as_it_was(tmp_path: Path) -> None:
    encoder = small().train()
    encoder.save(tmp_path)
    assert encoder.training
    assert load_encoder(tmp_path).card == encoder.card


def test_weights_keep_their_librarys_own_keys(tmp_path: Path) -> None:
    make_encoder("torchvision:resnet18", 3, 64).save(tmp_path)
    whole = torchvision.models.resnet18(weights=None)
    result = whole.load_state_dict(read_weights(tmp_path / "encoder.safetensors"), strict=False)
    assert set(result.missing_keys) == {"fc.weight", "fc.bias"}
    assert result.unexpected_keys == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "card of format 2, this version .* reads up to 1; use the newer trabecula"),
        ({"format": "x"}, "card of format x"),
        ({"architecture": "critic:4-9"}, "encoder.safetensors: does not fit critic:4-9: .*needed"),
        ({"architecture": "timm:resnet10t", "size": 64}, "does not fit timm:resnet10t: .* missing"),
        ({"num_features": 3}, "says 3 features, the network gives 128"),
        ({"pools": "mean"}, "unknown key 'pools', did you mean 'pool'"),
        ({"mean": [0.5, 0.5]}, r"mean needs 1 values, has \(0.5, 0.5\)"),
        ({"pool": "token"}, "has no token"),
    ],
)
def test_cards_that_cannot_be_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    small().save(tmp_path)
    rewrite(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_encoder(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no encoder there"):
        load_encoder(tmp_path)
    small().save(tmp_path)
    weights = (tmp_path / "encoder.safetensors").read_bytes()
    (tmp_path / "encoder.safetensors").write_bytes(weights[:-5])
    with pytest.raises(InputError, match="cut short"):
        load_encoder(tmp_path)
    (tmp_path / "encoder.safetensors").unlink()
    with pytest.raises(InputError, match="no such weights file"):
        load_encoder(tmp_path)
    (tmp_path / "encoder.json").write_text("{")
    with pytest.raises(InputError, match="not a card"):
        read_encoder_card(tmp_path)
    (tmp_path / "encoder.json").write_text("[]")
    with pytest.raises(InputError, match="not a card"):
        read_encoder_card(tmp_path)


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        EncoderCard,
        name=st.text(max_size=8),
        architecture=st.just("critic"),
        channels=st.integers(1, 4),
        size=st.integers(1, 512),
        mean=st.lists(st.floats(0, 1), min_size=1, max_size=3).map(tuple),
        std=st.lists(st.floats(0.1, 1), min_size=1, max_size=3).map(tuple),
        pool=st.sampled_from(["mean", "flatten"]),
        num_features=st.integers(1, 9),
        settings=st.dictionaries(st.text(max_size=3), st.integers() | st.floats(0, 1) | st.text(max_size=3)),
        patients=st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), max_size=3).map(tuple),
    )
)
def test_any_card_survives_json(card: EncoderCard) -> None:
    assert EncoderCard.model_validate(json.loads(json.dumps(card.model_dump(mode="json")))) == card


# --- where weights start ---


def test_a_random_arm_is_a_function_of_its_seed() -> None:
    images = torch.rand(1, 1, 16, 16)
    one, same, other = (small(seed=seed)(images) for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    card = small(seed=3).card
    assert (card.family, card.init, card.objective, card.seed, card.name) == (
        "random", "random", "none", 3, "critic-4-8-random",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "name", "family"),
    [
        ("imagenet", "imagenet", "imagenet"),
        ("radimagenet", "radimagenet", "weights"),
        ("", "net-imagenet", "weights"),  # a file's own name makes no baseline
    ],
)
def test_a_weights_arm_names_its_file(given: str, name: str, family: str, tmp_path: Path) -> None:
    file = tmp_path / "net-imagenet.safetensors"
    save_file(small(seed=9).backbone.net.state_dict(), file)
    encoder = small(init="weights", weights=file, weights_name=given)
    assert encoder.card.name == f"critic-4-8-{name}"
    assert torch.equal(encoder(torch.ones(1, 1, 16, 16)), small(seed=9)(torch.ones(1, 1, 16, 16)))
    assert encoder.card.family == family
    assert encoder.card.weights == f"{name} sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def test_an_encoder_started_from_another_has_seen_its_patients(tmp_path: Path) -> None:
    parent = small(seed=9)
    history = {
        "objective": "wgan_gp",
        "patients": ("ab",),
        "patients_key": "k",
        "images_seen": 64,
        "store": "s",
    }
    parent.card = parent.card.model_copy(update=history)
    parent.save(tmp_path)
    child = small(init="encoder", weights=tmp_path, pool="mean")
    assert {key: getattr(child.card, key) for key in history} == history
    assert (child.card.family, child.card.init, child.card.pool) == ("pretrained", "encoder", "mean")
    images = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(child(images), parent.maps(images).mean((2, 3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "weights"}, "needs a weights file: set 'weights'"),
        ({"init": "encoder"}, "needs an encoder's folder: set 'weights'"),
        ({"init": "random", "weights": Path("x")}, "takes no weights: leave 'weights' out"),
        ({"init": "weights", "weights": Path("x.pth")}, "x.pth: no such weights file"),
        ({"init": "encoder", "weights": Path("x")}, "x: no encoder there"),
    ],
)
def test_starts_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**changes)


def test_an_encoder_of_another_network_is_refused(tmp_path: Path) -> None:
    small().save(tmp_path)
    with pytest.raises(InputError, match="architecture is critic:4-8, wanted critic:4-9"):
        small(architecture="critic:4-9", init="encoder", weights=tmp_path)
    with pytest.raises(InputError, match="channels is 1, wanted 3"):
        small(channels=3, init="encoder", weights=tmp_path)
