"""Generators on disk: generator.safetensors and a card that rebuilds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from trabecula.artifacts.weights import read_weights
from trabecula.config import Record, build
from trabecula.errors import InputError
from trabecula.files import write_atomically
from trabecula.nets.critic import GENERATOR_WIDTHS, Generator, Norm
from trabecula.nets.latent import latents
from trabecula.run import Run

WEIGHTS_FILE = "generator.safetensors"
CARD_FILE = "generator.json"
_CHUNK = 64


class GeneratorCard(Record):
    """What a generator is and what it has seen."""

    format: int = 1
    """Format of the card."""
    objective: str
    """The method that trained it."""
    channels: int = Field(ge=1)
    """Channels of its images."""
    size: int = Field(ge=32)
    """Side of its images, px."""
    latent: int = Field(ge=1)
    """Length of its random input."""
    widths: tuple[int, ...] = GENERATOR_WIDTHS
    """Channels from its coarsest maps to its finest."""
    norm: Norm = "batch"
    """Norm in its blocks."""
    store: str
    """Id of the store it was trained on."""
    images_seen: int = Field(ge=0)
    """Real images drawn in its training."""
    seed: int
    """Seed of its training."""
    averaged: bool
    """Whether these are moving averages of the weights."""
    audit: dict[str, Any] = Field(default_factory=dict)
    """The memorisation audit it was exported with; {} inside the site."""


def save_generator(generator: Generator, card: GeneratorCard, out: Run | Path) -> None:
    """Write the weights, then the card."""
    state = {k: v.detach().cpu().contiguous().clone() for k, v in generator.state_dict().items()}
    folder = out.path if isinstance(out, Run) else out
    write_atomically(folder / WEIGHTS_FILE, safetensors_bytes(state))
    text = json.dumps(card.model_dump(mode="json"), indent=1, sort_keys=True)
    write_atomically(folder / CARD_FILE, text + "\n")


def load_generator(folder: Path) -> tuple[Generator, GeneratorCard]:
    """Read a generator, ready to sample.

    Raises:
        InputError: no generator there, or weights that do not fit the card.
    """
    file = folder / CARD_FILE
    if not file.exists():
        raise InputError(f"{folder}: no generator there ({CARD_FILE} is missing)")
    card = build(GeneratorCard, json.loads(file.read_text()), str(file))
    generator = Generator(card.channels, card.size, card.latent, card.widths, card.norm)
    try:
        generator.load_state_dict(read_weights(folder / WEIGHTS_FILE))
    except RuntimeError:
        raise InputError(f"{folder / WEIGHTS_FILE}: does not fit its card {CARD_FILE}") from None
    return generator.eval(), card


@torch.no_grad()
def sample(generator: Generator, num: int, seed: int) -> Tensor:
    """(num, C, S, S) uint8 images from seeded noise, with the norm statistics of training's end.

    Image i is a function of the generator, the seed and i alone: it is the same, to the bit, whatever `num`.
    """
    training = generator.training
    generator.eval()
    made = []
    for start in range(0, num, _CHUNK):  # whole chunks: bits may depend on how many rows there are
        noise = latents(range(start, start + _CHUNK), generator.latent, seed)
        made.append(generator(noise.to(generator.project.weight.device))[: num - start])
    generator.train(training)
    return ((torch.cat(made) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).contiguous()
