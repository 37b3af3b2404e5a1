"""Classifiers on disk: a fine-tuned one with its encoder, and the linear ones of a probe.

classifier.safetensors    "encoder." and "head.": the two networks' state dicts
classifier.json           the card: the task, the threshold and the origin
probe.safetensors         of the first "0000.weight" (K, D), "0000.bias" (K,), "0000.mean" and "0000.std" (D,)
probe.json                a card for each, and the card of the features
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from trabecula.artifacts.encoder import EncoderCard
from trabecula.artifacts.features import FeaturesCard
from trabecula.artifacts.predictions import Choice, Origin
from trabecula.artifacts.run_record import read_run
from trabecula.artifacts.tasks import Task
from trabecula.artifacts.weights import read_weights, write_weights
from trabecula.config import Record, dump, read_record
from trabecula.errors import InputError
from trabecula.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE, CARD_FILE = "classifier.safetensors", "classifier.json"
_PROBE_WEIGHTS_FILE, _PROBE_CARD_FILE = "probe.safetensors", "probe.json"
_TENSORS = ("weight", "bias", "mean", "std")

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


class PredictorCard(Record):
    """What a classifier predicts and where it comes from."""

    task: Task  # what it was trained for
    class_names: tuple[str, ...]  # its outputs
    origin: Origin
    choice: Choice


class ClassifierCard(PredictorCard):
    """What a fine-tuned classifier predicts and where it comes from."""

    format: int = 1
    preprocessing: str  # hash of the preprocessing of its images: a store of another one is refused
    prepared: dict[str, Any] = Field(default_factory=dict)  # the settings of that preprocessing
    size: int = Field(ge=1)  # side of its images, px
    encoder: EncoderCard  # the encoder it started from
    head: HeadChoice = "linear"  # what stands on the encoder
    centre_crop: float = Field(default=1.0, gt=0, le=1)  # part of an image's side that it sees, resized


def write_classifier(folder: Path, card: ClassifierCard, state: Mapping[str, Tensor]) -> None:
    """Write the weights, then the card."""
    write_weights(folder / WEIGHTS_FILE, state, "classifier")
    write_json(folder / CARD_FILE, dump(card))


def read_classifier(path: Path) -> tuple[ClassifierCard, dict[str, Tensor]]:
    """Read a classifier's card and weights: its folder, or either file in it."""
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


class ProbeCard(PredictorCard):
    """What one linear classifier predicts and where it comes from."""

    key: str  # its number, in front of its tensors' names


class ProbesCard(Record):
    """The content of probe.json: what made the features, and one card for each task, fraction and seed."""

    format: int = 1
    features: FeaturesCard
    classifiers: tuple[ProbeCard, ...]


@dataclass(frozen=True)
class LinearProbe:
    """A classifier of features x: ((x - mean) / std) @ weight.T + bias are its logits, (n, K)."""

    task: Task
    origin: Origin
    choice: Choice
    tensors: Mapping[str, Tensor]  # weight (K, D), bias (K,), mean (D,), std (D,)


def has_probes(folder: Path) -> bool:
    """Whether a folder was written by `probe`."""
    return (folder / _PROBE_CARD_FILE).exists()


def write_probes(folder: Path, features: FeaturesCard, probes: Sequence[LinearProbe]) -> None:
    """Write the weights, then the card."""
    keyed = [(f"{index:04d}", probe) for index, probe in enumerate(probes)]
    tensors = {f"{key}.{name}": value for key, probe in keyed for name, value in probe.tensors.items()}
    write_weights(folder / _PROBE_WEIGHTS_FILE, tensors, "probe")
    cards = tuple(
        ProbeCard(key=key, task=p.task, class_names=p.task.class_names, origin=p.origin, choice=p.choice)
        for key, p in keyed
    )
    write_json(folder / _PROBE_CARD_FILE, dump(ProbesCard(features=features, classifiers=cards)))


def read_probes(folder: Path) -> tuple[FeaturesCard, list[LinearProbe]]:
    """Read all classifiers of a folder, and the card of the features that they learned from."""
    card = read_record(ProbesCard, folder / _PROBE_CARD_FILE, "`trabecula probe`")
    state = read_weights(folder / _PROBE_WEIGHTS_FILE)
    return card.features, [
        LinearProbe(one.task, one.origin, one.choice, {name: state[f"{one.key}.{name}"] for name in _TENSORS})
        for one in card.classifiers
    ]
