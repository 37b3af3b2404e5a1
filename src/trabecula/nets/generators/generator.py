"""The contract of a generator, `sample(num, seed)`, and generators from and to disk."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from trabecula.artifacts import generator as on_disk
from trabecula.artifacts.encoder import EncoderCard
from trabecula.artifacts.generator import GeneratorCard
from trabecula.artifacts.weights import read_weights
from trabecula.config import Record, build, dump
from trabecula.errors import InputError, RunError
from trabecula.nets.generators import find
from trabecula.nets.latent import latents

_TOGETHER = 64  # images in one pass, always: their last bits depend on it


class Generator(nn.Module):
    """A network that makes images from seeds.

    A subclass names its settings in `Config`, builds its layers in `__init__(config, channels, size)` and
    writes `sample`.

    averaged: whether its weights are a moving average of those that were trained.
    """

    Config: ClassVar[type[Record]]

    def __init__(self, config: Record, channels: int, size: int) -> None:
        super().__init__()
        self.config, self.channels, self.size, self.averaged = config, channels, size, False

    @classmethod
    def kind(cls) -> str:
        """What it is called in cards: the name of its file."""
        return cls.__module__.rpartition(".")[2]

    def sample(self, num: int, seed: int, first: int = 0) -> Tensor:
        """(num, C, S, S) uint8 images `first` to `first + num` of a seed, on the CPU.

        Image i is a function of the generator, the seed and i alone: the same to the bit, whatever `num`.

        Raises:
            RunError: values that are not finite.
        """
        raise NotImplementedError

    def save(self, folder: Path, card: EncoderCard, images: int) -> None:
        """Write weights and card.

        card: of the encoder that its training starts from, with the patients and the store of the pool.
        images: real images seen in its training.
        """
        keys = ("name", "objective", "store", "seed", "preprocessing", "prepared", "patients", "patients_key")
        own = GeneratorCard(
            kind=self.kind(), settings=dump(self.config), channels=self.channels, size=self.size,
            images_seen=images, averaged=self.averaged, **{key: getattr(card, key) for key in keys},
        )  # fmt: skip
        on_disk.write_generator(folder, own, self.state_dict())


class LatentGenerator(Generator):
    """A generator whose `forward` makes images from one row of `latent` normal numbers each.

    forward: (B, latent) standard normal -> (B, C, S, S) in [-1, 1].
    """

    latent: int

    def sample(self, num: int, seed: int, first: int = 0) -> Tensor:
        rows = whole_passes(range(first, first + num))
        made = self.images(latents(rows, self.latent, seed))
        return made[first - rows.start :][:num].contiguous()

    @torch.no_grad()
    def images(self, noise: Tensor) -> Tensor:
        """(N, latent) -> (N, C, S, S) uint8 on the CPU, with the norm statistics of training's end.

        Rows go through the network 64 at a time; where N is not a multiple of 64, last bits depend on N.

        Raises:
            RunError: values that are not finite.
        """
        training, device = self.training, next(self.parameters()).device
        self.eval()
        made = torch.cat([self(part.to(device)).float().cpu() for part in noise.split(_TOGETHER)])
        self.train(training)
        if not made.isfinite().all():
            raise RunError("the generator's images are not finite: its training diverged; use an earlier one")
        return ((made + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).contiguous()


def whole_passes(rows: range) -> range:
    """These rows, and those that go through a `LatentGenerator` in one pass with them."""
    return range(rows.start // _TOGETHER * _TOGETHER, -(-rows.stop // _TOGETHER) * _TOGETHER)


def load_generator(folder: Path) -> tuple[Generator, GeneratorCard]:
    """Read a generator, ready to sample.

    Raises:
        InputError: no generator there, a kind that is not in the table, or weights that do not fit.
    """
    card, weights = on_disk.read_generator_card(folder), folder / on_disk.WEIGHTS_FILE
    kind = find(card.kind)
    where = f"{folder / on_disk.CARD_FILE}: settings of {card.kind}"
    generator = kind(build(kind.Config, card.settings, where), card.channels, card.size)
    generator.averaged = card.averaged
    try:
        generator.load_state_dict(read_weights(weights))
    except RuntimeError:
        raise InputError(f"{weights}: does not fit its card {on_disk.CARD_FILE}") from None
    return generator.eval(), card
