"""Generators on disk and their samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trabecula.errors import InputError
from trabecula.nets.critic import Generator, Norm
from trabecula.nets.generator import GeneratorCard, load_generator, sample, save_generator


def made(folder: Path, norm: Norm = "batch", widths: tuple[int, ...] = (6, 5, 4, 3)) -> Generator:
    torch.manual_seed(0)
    generator = Generator(1, 32, 7, widths, norm)
    card = GeneratorCard(
        objective="wgan_gp", channels=1, size=32, latent=7, widths=widths, norm=norm, store="s",
        images_seen=64, seed=0, averaged=False,
    )  # fmt: skip
    save_generator(generator, card, folder)
    return generator


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_loaded_generator_makes_the_same_images(tmp_path: Path, norm: Norm) -> None:
    generator = made(tmp_path, norm)
    loaded, card = load_generator(tmp_path)
    assert (card.norm, card.widths, loaded.training) == (norm, (6, 5, 4, 3), False)
    assert torch.equal(sample(generator, 3, seed=1), sample(loaded, 3, seed=1))
    assert generator.training  # as it was


def test_image_i_is_the_same_whatever_their_number(tmp_path: Path) -> None:
    generator = made(tmp_path)
    many = sample(generator, 130, seed=4)
    assert many.shape == (130, 1, 32, 32)
    assert many.dtype == torch.uint8
    for num in (1, 7, 64, 65):
        assert torch.equal(sample(generator, num, seed=4), many[:num]), num
    assert not torch.equal(sample(generator, 7, seed=5), many[:7])
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
