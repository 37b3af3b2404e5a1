"""Generators on disk and their samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trabecula.artifacts.encoder import EncoderCard, write_encoder_card
from trabecula.artifacts.generator import read_generator_card
from trabecula.errors import InputError, RunError
from trabecula.nets.critic import Norm
from trabecula.nets.generators.generator import load_generator
from trabecula.nets.generators.upsampling import UpsamplingConfig, UpsamplingGenerator

CARD = EncoderCard(
    name="critic-wgan_gp", architecture="critic", channels=1, size=32, mean=(0.5,), std=(0.5,),
    pool="flatten", num_features=4, objective="wgan_gp", store="s", preprocessing="p", prepared={"size": 32},
    patients=("ab",), patients_key="k",
)  # fmt: skip


def made(folder: Path, norm: Norm = "batch", widths: tuple[int, ...] = (6, 5, 4, 3)) -> UpsamplingGenerator:
    torch.manual_seed(0)
    generator = UpsamplingGenerator(UpsamplingConfig(latent=7, widths=widths, norm=norm), 1, 32)
    generator.save(folder, CARD, 64)
    return generator


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_loaded_generator_makes_the_same_images(tmp_path: Path, norm: Norm) -> None:
    generator = made(tmp_path, norm)
    loaded, card = load_generator(tmp_path)
    assert card.settings == {"latent": 7, "widths": [6, 5, 4, 3], "norm": norm}
    assert (card.kind, card.images_seen, card.patients) == ("upsampling", 64, ("ab",))
    assert not loaded.training
    assert torch.equal(generator.sample(3, seed=1), loaded.sample(3, seed=1))
    assert generator.training  # as it was


def test_image_i_is_the_same_whatever_their_number(tmp_path: Path) -> None:
    generator = made(tmp_path)
    many = generator.sample(130, seed=4)
    assert many.shape == (130, 1, 32, 32)
    assert many.dtype == torch.uint8
    for num in (1, 7, 64, 65):
        assert torch.equal(generator.sample(num, seed=4), many[:num]), num
    assert not torch.equal(generator.sample(7, seed=5), many[:7])
    for first, num in ((0, 64), (3, 2), (60, 70)):
        assert torch.equal(generator.sample(num, seed=4, first=first), many[first : first + num])
    assert len({image.numpy().tobytes() for image in many}) == 130


def test_what_is_missing_or_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no generator there"):
        load_generator(tmp_path)
    made(tmp_path)
    weights = (tmp_path / "generator.safetensors").read_bytes()
    made(tmp_path, widths=(6, 5, 4, 2))
    (tmp_path / "generator.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="does not fit its card"):
        load_generator(tmp_path)


def test_images_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    generator = made(tmp_path)
    with torch.no_grad():
        generator.output.weight.fill_(float("nan"))
    with pytest.raises(RunError, match="not finite"):
        generator.sample(1, seed=0)


def changed(folder: Path, **values: object) -> None:
    card = json.loads((folder / "generator.json").read_text())
    (folder / "generator.json").write_text(json.dumps({**card, **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "upsamplin"}, "unknown generator 'upsamplin', did you mean 'upsampling'"),
        ({"settings": {"latents": 7}}, "generator.json: settings of upsampling: unknown key 'latents'"),
        ({"format": 3}, r"card of format 3, this version .* reads up to 2"),
        ({"size": "x"}, "generator.json: 'size'"),
    ],
)
def test_a_card_that_cannot_be_read_says_why(tmp_path: Path, values: dict[str, object], message: str) -> None:
    made(tmp_path)
    changed(tmp_path, **values)
    with pytest.raises(InputError, match=message):
        load_generator(tmp_path)


def test_a_card_of_format_1_is_read_with_the_encoder_beside_it(tmp_path: Path) -> None:
    generator = made(tmp_path)
    old = {
        "format": 1, "objective": "wgan_gp", "channels": 1, "size": 32, "latent": 7, "widths": [6, 5, 4, 3],
        "norm": "batch", "store": "s", "images_seen": 64, "seed": 0, "averaged": False, "audit": {},
    }  # fmt: skip
    now = read_generator_card(tmp_path)
    (tmp_path / "generator.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match=r"encoder\.json, which says whose images it learned from"):
        load_generator(tmp_path)
    write_encoder_card(tmp_path, CARD)
    loaded, card = load_generator(tmp_path)
    assert card == now
    assert torch.equal(loaded.sample(3, seed=1), generator.sample(3, seed=1))
    changed(tmp_path, audit={"finding": "no sign of copying"})
    assert load_generator(tmp_path)[1].patients == ()  # an exported one lists none


def test_what_leaves_the_site_names_nobody(tmp_path: Path) -> None:
    made(tmp_path)
    card = read_generator_card(tmp_path).exported({"finding": "no sign of copying"})
    assert (card.name, card.store, card.preprocessing, card.prepared) == ("", "", "", {})
    assert (card.patients, card.patients_key, card.kind) == ((), "", "upsampling")
