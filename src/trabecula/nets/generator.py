"""Generators on disk: generator.safetensors and a card that rebuilds them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from trabecula.config import Record, build
from trabecula.errors import InputError
from trabecula.nets.critic import Generator
from trabecula.nets.weights import read_weights
from trabecula.run import Run, write_atomically

WEIGHTS_FILE = "generator.safetensors"
CARD_FILE = "generator.json"


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
    store: str
    """Id of the store it was trained on."""
    images_seen: int = Field(ge=0)
    """Real images drawn in its training."""
    seed: int
    """Seed of its training."""
    averaged: bool
    """Whether these are moving averages of the weights."""


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
    generator = Generator(card.channels, card.size, card.latent)
    try:
        generator.load_state_dict(read_weights(folder / WEIGHTS_FILE))
    except RuntimeError:
        raise InputError(f"{folder / WEIGHTS_FILE}: does not fit its card {CARD_FILE}") from None
    return generator.eval(), card


@torch.no_grad()
def sample(generator: Generator, num: int, seed: int) -> Tensor:
    """(num, C, S, S) uint8 images from seeded noise, with the norm statistics of training's end."""
    noise = torch.randn(num, generator.latent, generator=torch.Generator().manual_seed(seed))
    training = generator.training
    generator.eval()
    images = torch.cat([generator(part) for part in noise.split(64)])
    generator.train(training)
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
