"""The critic and the generator of the hip GAN (paper A, section 4.2).

Images here are in [-1, 1], the range the generator's tanh makes. Sizes are 32 px times a whole
number: five blocks halve (or double) the side, so 224 px gives maps of 7 x 7.

The paper names kernels, strides and activations but no widths, padding or initialisation. Inferred:
widths 32-64-128-256-512, the only doubling that ends at the stated 512; padding 1, which halves an
even side exactly; torch's own initialisation.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from trabecula.config import Record, build
from trabecula.errors import InputError
from trabecula.nets.backbone import Backbone, Source
from trabecula.nets.weights import mismatch, read_card_file, read_weights, write_weights
from trabecula.run import Run, write_atomically

WIDTHS = (32, 64, 128, 256, 512)
LATENT = 100
FORMAT = 1
_SLOPE = 0.2


def grid_side(size: int, num_blocks: int = len(WIDTHS)) -> int:
    """Side of the coarsest maps for images of `size` px.

    Raises:
        InputError: the side cannot be halved `num_blocks` times.
    """
    step = 1 << num_blocks
    if size < step or size % step:
        nearest = max(step, round(size / step) * step)
        raise InputError(
            f"size {size}: the critic halves the side {num_blocks} times, so the size must be a multiple "
            f"of {step} px; the nearest is {nearest}"
        )
    return size // step


def critic_blocks(channels: int, widths: Sequence[int] = WIDTHS) -> nn.Sequential:
    """The critic up to its output layer: 4x4 convolutions of stride 2, each with LeakyReLU 0.2.

    No normalisation layer, as a gradient penalty is a statement about single images (Gulrajani et
    al. 2017, arXiv 1704.00028, section 4), and nothing in place, as it is differentiated twice.
    """
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (narrow, wide) in enumerate(pairwise((channels, *widths))):
        blocks[f"conv{index}"] = nn.Conv2d(narrow, wide, kernel_size=4, stride=2, padding=1)
        blocks[f"act{index}"] = nn.LeakyReLU(_SLOPE)
    return nn.Sequential(blocks)


class Critic(Backbone):
    """Images to one unbounded score each; higher means more like a real image.

    As a backbone its features are the maps before the output layer.

    Raises:
        InputError: a size that five halvings do not divide.
    """

    def __init__(self, size: int, channels: int, widths: Sequence[int] = WIDTHS) -> None:
        side = grid_side(size, len(widths))
        source = Source(critic_blocks(channels, widths), _forward, 0, (0.5,), (0.5,), (), "conv0")
        super().__init__(_name(widths), channels, size, "native", source)
        self.output = nn.Linear(side * side * widths[-1], 1)

    def features(self, x: Tensor) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B, 512 (S / 32)^2), the flattened maps."""
        return self.maps(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B,) scores."""
        scores: Tensor = self.output(self.features(x))
        return scores.squeeze(1)

    @property
    def weights(self) -> nn.Module:
        """All of it: the output layer scores images long after training."""
        return self


def named(widths: str, size: int, channels: int) -> Critic:
    """The critic of "critic" (no widths) or "critic:16-32-64-128-256".

    Raises:
        InputError: widths that are no whole numbers, or a size they do not divide.
    """
    try:
        chosen = tuple(int(width) for width in widths.split("-")) if widths else WIDTHS
    except ValueError:
        chosen = (0,)
    if min(chosen) < 1:
        raise InputError(f"architecture 'critic:{widths}': widths are whole numbers such as 16-32-64-128-256")
    return Critic(size, channels, chosen)


def _name(widths: Sequence[int]) -> str:
    return "critic" if tuple(widths) == WIDTHS else f"critic:{'-'.join(map(str, widths))}"


def _forward(net: nn.Module, x: Tensor) -> Tensor:
    raw: Tensor = net(x)
    return raw


class Generator(nn.Module):
    """Noise to images in [-1, 1]: a linear layer, then blocks of upsampling, convolution, batch norm, ReLU.

    Upsampling is nearest-neighbour and the convolutions keep their bias, both inferred; the widths
    512-256-128-64-32-16 mirror the critic's.

    Raises:
        InputError: a size that five doublings do not reach.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        latent: int = LATENT,
        widths: Sequence[int] = (512, 256, 128, 64, 32, 16),
    ) -> None:
        super().__init__()
        self.size, self.channels, self.widths = size, channels, tuple(widths)
        self.latent = latent
        self.side = grid_side(size, len(widths) - 1)
        self.width = widths[0]
        self.project = nn.Linear(latent, self.side**2 * self.width)
        self.blocks = nn.Sequential(*(_up_block(wide, narrow) for wide, narrow in pairwise(widths)))
        self.output = nn.Conv2d(widths[-1], channels, kernel_size=3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) standard normal -> (B, C, S, S) in [-1, 1]."""
        maps = self.project(z).unflatten(1, (self.width, self.side, self.side))
        return torch.tanh(self.output(self.blocks(maps)))


def _up_block(wide: int, narrow: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(wide, narrow, kernel_size=3, padding=1),
        nn.BatchNorm2d(narrow),
        nn.ReLU(),
    )


class GeneratorCard(Record):
    """What a generator is and what it has seen; it stands in generator.json."""

    format: int = FORMAT
    """Format of the card; a program refuses cards of a newer one."""
    size: int
    """Side of the images, px."""
    channels: int
    """Channels of the images."""
    latent: int
    """Length of the random input."""
    widths: tuple[int, ...]
    """Channels of the maps, coarsest first."""
    told: dict[str, Any] = Field(default_factory=dict)
    """What its training says of it: seed, store, images seen."""


def save_generator(generator: Generator, out: Run | Path, told: Mapping[str, Any]) -> None:
    """Write generator.safetensors, then generator.json, each whole or not at all."""
    folder = out.path if isinstance(out, Run) else out
    folder.mkdir(parents=True, exist_ok=True)
    card = GeneratorCard(
        size=generator.size, channels=generator.channels, latent=generator.latent,
        widths=generator.widths, told=dict(told),
    )  # fmt: skip
    write_weights(generator, folder / "generator.safetensors")
    text = json.dumps(card.model_dump(mode="json"), indent=1, sort_keys=True)
    write_atomically(folder / "generator.json", text + "\n")


def load_generator(path: Path) -> tuple[Generator, GeneratorCard]:
    """Read a generator from its folder, in evaluation mode.

    Raises:
        InputError: no generator there, a card of a newer format, or weights that do not fit it.
    """
    folder = path if path.is_dir() else path.parent
    card = build(
        GeneratorCard, read_card_file(folder / "generator.json", FORMAT), str(folder / "generator.json")
    )
    generator = Generator(card.size, card.channels, card.latent, card.widths)
    state = read_weights(folder / "generator.safetensors")
    problem = mismatch(generator.state_dict(), state)
    if problem:
        raise InputError(f"{folder / 'generator.safetensors'}: does not fit its card: {problem}")
    generator.load_state_dict(state)
    return generator.eval(), card
