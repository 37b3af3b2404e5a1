"""Generators on disk: generator.safetensors (weights), generator.json (the card), samples.npy (some images).

No network is built here: `nets/generators` builds one from a card and weights. Reading a card needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trabecula.artifacts import encoder
from trabecula.artifacts.weights import write_weights
from trabecula.config import build, dump
from trabecula.errors import InputError
from trabecula.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2
CARD_FILE, WEIGHTS_FILE, SAMPLES_FILE = "generator.json", "generator.safetensors", "samples.npy"


class GeneratorCard(encoder.NetworkCard):
    """What a generator is and what it has seen. A program refuses cards of a newer format."""

    format: int = FORMAT
    kind: str  # the name of its class in the table of `nets/generators`
    settings: dict[str, Any] = Field(default_factory=dict)  # of that class, such as `latent`
    name: str = ""  # the arm's name in tables; "" outside the site
    objective: str  # the method that trained it
    store: str  # id of the store it was trained on
    images_seen: int = Field(ge=0)  # real images drawn in its training
    seed: int  # seed of its training
    averaged: bool  # whether these are moving averages of the weights
    audit: dict[str, Any] = Field(default_factory=dict)  # of memorisation, of an export; {} inside the site

    def exported(self, audit: Mapping[str, Any]) -> GeneratorCard:
        """As it leaves the site: with its audit, without its patients and their store."""
        private = dict.fromkeys(("name", "store", "preprocessing", "patients_key"), "")
        return self.model_copy(update={**private, "prepared": {}, "patients": (), "audit": dict(audit)})


def has_generator(folder: Path) -> bool:
    """Whether the folder holds a generator's card."""
    return (folder / CARD_FILE).is_file()


def write_generator(folder: Path, card: GeneratorCard, state: Mapping[str, Tensor]) -> None:
    """Write the weights, then the card, each whole or not at all."""
    write_weights(folder / WEIGHTS_FILE, state, "generator")
    write_json(folder / CARD_FILE, dump(card))


def read_generator_card(folder: Path) -> GeneratorCard:
    """Read the card of a generator."""
    file = folder / CARD_FILE
    values = encoder.read_card(file, FORMAT, f"{folder}: no generator there ({CARD_FILE} is missing)")
    if values["format"] != FORMAT:
        values = _from_format_1(folder, values)
    return build(GeneratorCard, values, str(file))


def _from_format_1(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Format 1 knew one kind of generator, and left its patients to the encoder's card beside it."""
    own = ("latent", "widths", "norm")
    settings = {key: values[key] for key in own if key in values}
    kept = {key: value for key, value in values.items() if key not in own}
    beside: dict[str, Any] = {}
    if not values.get("audit"):  # an exported one has no encoder beside it, on purpose
        if not encoder.has_encoder(folder):
            raise InputError(
                f"{folder}: has a generator but no {encoder.CARD_FILE}, which says whose images it learned "
                "from; name the folder that `trabecula pretrain` wrote"
            )
        card = dump(encoder.read_encoder_card(folder))
        shared = ("name", "preprocessing", "prepared", "patients", "patients_key")
        beside = {key: card[key] for key in shared}
    return {**kept, **beside, "format": FORMAT, "kind": "upsampling", "settings": settings}
