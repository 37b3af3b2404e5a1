"""The linear classifiers of a probe on disk: weights of each, and what they predict from which features.

probe.safetensors    of the first "0000.weight" (K, D), "0000.bias" (K,), "0000.mean" and "0000.std" (D,)
probe.json           a card for each, and the card of the features
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from trabecula.artifacts.features import FeaturesCard
from trabecula.artifacts.predictions import Choice, Origin
from trabecula.artifacts.tasks import Task
from trabecula.artifacts.weights import read_weights, write_weights
from trabecula.config import Record, dump, read_record
from trabecula.files import write_json

_WEIGHTS_FILE, _CARD_FILE = "probe.safetensors", "probe.json"
_TENSORS = ("weight", "bias", "mean", "std")


class ProbeCard(Record):
    """What one linear classifier predicts and where it comes from."""

    key: str
    """Its number, in front of its tensors' names."""
    task: Task
    """What it was trained for."""
    class_names: tuple[str, ...]
    """Its outputs."""
    origin: Origin
    """Arm, fraction and seed."""
    choice: Choice
    """Strength, threshold and counts, fixed on validation."""


class ProbesCard(Record):
    """The content of probe.json."""

    format: int = 1
    """Format of the card."""
    features: FeaturesCard
    """What made the features that the classifiers learned from."""
    classifiers: tuple[ProbeCard, ...]
    """One for each task, fraction and seed."""


@dataclass(frozen=True)
class LinearProbe:
    """A classifier of features x: ((x - mean) / std) @ weight.T + bias are its logits, (n, K)."""

    task: Task
    origin: Origin
    choice: Choice
    tensors: Mapping[str, Tensor]  # weight (K, D), bias (K,), mean (D,), std (D,)


def has_probes(folder: Path) -> bool:
    """Whether a folder was written by `probe`."""
    return (folder / _CARD_FILE).exists()


def write_probes(folder: Path, features: FeaturesCard, probes: Sequence[LinearProbe]) -> None:
    """Write the weights, then the card."""
    keyed = [(f"{index:04d}", probe) for index, probe in enumerate(probes)]
    write_weights(
        folder / _WEIGHTS_FILE,
        {f"{key}.{name}": value for key, probe in keyed for name, value in probe.tensors.items()},
    )
    cards = tuple(
        ProbeCard(key=key, task=p.task, class_names=p.task.class_names, origin=p.origin, choice=p.choice)
        for key, p in keyed
    )
    write_json(folder / _CARD_FILE, dump(ProbesCard(features=features, classifiers=cards)))


def read_probes(folder: Path) -> tuple[FeaturesCard, list[LinearProbe]]:
    """Read all classifiers of a folder, and the card of the features that they learned from.

    Raises:
        InputError: a file is missing, or not what `probe` writes.
    """
    card = read_record(ProbesCard, folder / _CARD_FILE, "`trabecula probe`")
    state = read_weights(folder / _WEIGHTS_FILE)
    return card.features, [
        LinearProbe(one.task, one.origin, one.choice, {name: state[f"{one.key}.{name}"] for name in _TENSORS})
        for one in card.classifiers
    ]
