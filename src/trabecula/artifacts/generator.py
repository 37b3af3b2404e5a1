"""Generators on disk: generator.safetensors (weights), generator.json (the card), samples.npy (some images).

No network is built here: `nets/generators` builds one from a card and weights. Reading a card needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

import trabecula
from trabecula.artifacts.encoder import CARD_FILE as ENCODER_CARD
from trabecula.artifacts.encoder import has_encoder, read_encoder_card
from trabecula.config import Record, build, dump
from trabecula.errors import InputError
from trabecula.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2
CARD_FILE, WEIGHTS_FILE, SAMPLES_FILE = "generator.json", "generator.safetensors", "samples.npy"


class GeneratorCard(Record):
    """What a generator is and what it has seen."""

    format: int = FORMAT
    """Format of the card; a program refuses cards of a newer one."""
    kind: str
    """The name of its class in the table of `nets/generators`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The settings of that class, such as the length of its random input."""
    name: str = ""
    """The arm's name in tables; "" outside the site."""
    objective: str
    """The method that trained it."""
    channels: int = Field(ge=1)
    """Channels of its images."""
    size: int = Field(ge=1)
    """Side of its images, px."""
    store: str
    """Id of the store it was trained on."""
    images_seen: int = Field(ge=0)
    """Real images drawn in its training."""
    seed: int
    """Seed of its training."""
    averaged: bool
    """Whether these are moving averages of the weights."""
    preprocessing: str = ""
    """Hash of the preprocessing of its store; "" where it is not known."""
    prepared: dict[str, Any] = Field(default_factory=dict)
    """The settings of that preprocessing."""
    patients: tuple[str, ...] = ()
    """Patients seen in training, as HMACs under the site's key."""
    patients_key: str = ""
    """Name of the key of these HMACs."""
    audit: dict[str, Any] = Field(default_factory=dict)
    """The memorisation audit it was exported with; {} inside the site."""

    def exported(self, audit: Mapping[str, Any]) -> GeneratorCard:
        """As it leaves the site: with its audit, without its patients and their store."""
        private = dict.fromkeys(("name", "store", "preprocessing", "patients_key"), "")
        return self.model_copy(update={**private, "prepared": {}, "patients": (), "audit": dict(audit)})


def has_generator(folder: Path) -> bool:
    """Whether the folder holds a generator's card."""
    return (folder / CARD_FILE).is_file()


def write_generator(folder: Path, card: GeneratorCard, state: Mapping[str, Tensor]) -> None:
    """Write the weights, then the card, each whole or not at all."""
    from trabecula.artifacts.weights import write_weights

    write_weights(folder / WEIGHTS_FILE, state)
    write_json(folder / CARD_FILE, dump(card))


def read_generator_card(folder: Path) -> GeneratorCard:
    """Read the card of a generator.

    Raises:
        InputError: no card there, or one that this version cannot read.
    """
    file = folder / CARD_FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: no generator there ({CARD_FILE} is missing)") from None
    except ValueError as error:
        raise InputError(f"{file}: not a card: {error}") from None
    found = values.get("format") if isinstance(values, dict) else None
    if not isinstance(found, int) or found > FORMAT:
        raise InputError(
            f"{file}: card of format {found}, this version ({trabecula.__version__}) reads up to {FORMAT}; "
            "use the newer trabecula that wrote it"
        )
    return build(GeneratorCard, values if found == FORMAT else _from_format_1(folder, values), str(file))


def _from_format_1(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Format 1 knew one kind of generator, and left its patients to the encoder's card beside it."""
    own = ("latent", "widths", "norm")
    settings = {key: values[key] for key in own if key in values}
    kept = {key: value for key, value in values.items() if key not in own}
    beside: dict[str, Any] = {}
    if not values.get("audit"):  # an exported one has no encoder beside it, on purpose
        if not has_encoder(folder):
            raise InputError(
                f"{folder}: has a generator but no {ENCODER_CARD}, which says whose images it learned from; "
                "name the folder that `trabecula pretrain` wrote"
            )
        encoder = dump(read_encoder_card(folder))
        shared = ("name", "preprocessing", "prepared", "patients", "patients_key")
        beside = {key: encoder[key] for key in shared}
    return {**kept, **beside, "format": FORMAT, "kind": "upsampling", "settings": settings}
