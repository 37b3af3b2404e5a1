"""A fine-tuned classifier on disk: weights, and a card with the task, the threshold and the origin.

classifier.safetensors    "encoder." and "head.": the two networks' state dicts
classifier.json           the card
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from trabecula.artifacts.encoder import EncoderCard
from trabecula.artifacts.predictions import Choice, Origin
from trabecula.artifacts.run_record import read_run
from trabecula.artifacts.tasks import Task
from trabecula.config import Record, dump, read_record
from trabecula.errors import InputError
from trabecula.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE, CARD_FILE = "classifier.safetensors", "classifier.json"

Nonlinearity = Literal["relu", "leaky_relu", "tanh", "sigmoid", "none"]


class HiddenLayer(Record):
    """One hidden layer of a head: linear, batch norm, nonlinearity, dropout, in this order.

    Source: den Boer 2025, Tables 1 and 2.
    """

    width: int = Field(ge=1)
    """Outputs of the linear map."""
    nonlinearity: Nonlinearity = "relu"
    """What follows; none in one layer of the paper's best head. leaky_relu has slope 0.2."""
    batch_norm: bool = False
    """Whether a batch norm stands between the linear map and the nonlinearity."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Part of the outputs set to 0 while training."""


HeadChoice = Annotated[
    Annotated[Literal["linear", "critic"], Tag("name")] | Annotated[tuple[HiddenLayer, ...], Tag("layers")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "layers"),
]
"""A task's head: one linear layer, the critic's own output layer, or hidden layers before a linear one."""


class ClassifierCard(Record):
    """What a classifier predicts and where it comes from."""

    format: int = 1
    """Format of the card."""
    task: Task
    """What it was trained for."""
    class_names: tuple[str, ...]
    """Its outputs."""
    origin: Origin
    """Arm, fraction and seed."""
    choice: Choice
    """Threshold and counts, fixed on validation."""
    preprocessing: str
    """Hash of the preprocessing of its images: a store of another one is refused."""
    prepared: dict[str, Any] = Field(default_factory=dict)
    """The settings of that preprocessing."""
    size: int = Field(ge=1)
    """Side of its images, px."""
    encoder: EncoderCard
    """The encoder it started from."""
    head: HeadChoice = "linear"
    """What stands on the encoder."""
    centre_crop: float = Field(default=1.0, gt=0, le=1)
    """Part of an image's side that it sees, about the centre, resized to the whole size."""


def write_classifier(folder: Path, card: ClassifierCard, state: Mapping[str, Tensor]) -> None:
    """Write the weights, then the card."""
    from trabecula.artifacts.weights import write_weights

    write_weights(folder / WEIGHTS_FILE, state)
    write_json(folder / CARD_FILE, dump(card))


def read_classifier(path: Path) -> tuple[ClassifierCard, dict[str, Tensor]]:
    """Read a classifier's card and weights: its folder, or either file in it.

    Raises:
        InputError: no classifier there, or files that this version cannot read.
    """
    from trabecula.artifacts.weights import read_weights

    folder = path if path.is_dir() else path.parent
    if not (folder / CARD_FILE).exists():
        raise InputError(f"{path}: no classifier there ({CARD_FILE} is missing); {_what_writes_one(folder)}")
    card = read_record(ClassifierCard, folder / CARD_FILE, "`trabecula finetune`")
    return card, read_weights(folder / WEIGHTS_FILE)


def _what_writes_one(folder: Path) -> str:
    """The remedy; a fine-tuning may have kept no classifier, as in a study of many."""
    with suppress(InputError):
        run = read_run(folder)
        if run.verb == "finetune" and run.settings.get("keep") is False:
            return "this fine-tuning ran with keep = false; run it again with keep = true and another --out"
    return "`trabecula finetune` writes one"
