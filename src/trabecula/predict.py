"""classifier + any images -> predictions: an external cohort, new films, proxy grades.

The threshold is the one that was fixed on validation when the classifier was trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from trabecula.artifacts.features import read_features
from trabecula.artifacts.predictions import Choice, Origin, prediction_rows, write_predictions
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store, differing
from trabecula.artifacts.tasks import Task
from trabecula.artifacts.weights import read_weights
from trabecula.config import Record, build
from trabecula.errors import InputError
from trabecula.nets.classifier import load_classifier
from trabecula.nets.devices import choose_device
from trabecula.run import Run


class Config(Record):
    """Settings of `predict`."""

    classifier: Path
    """A folder written by `finetune`, or by `probe`: then every classifier in it predicts."""
    store: Path | None = None
    """For a fine-tuned classifier: images of any cohort, prepared as the classifier's own were."""
    features: Path | None = None
    """For probes: features of any cohort, made by the probes' own encoder."""
    splits: Path | None = None
    """For one's own cohort: only its test patients are predicted. Without, every image counts as a test
    image, as it is in a cohort the classifier has never seen."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""


def run(config: Config, out: Run) -> str:
    """Write predictions.csv (with the call at the stored threshold) and choices.csv."""
    folder = config.classifier if config.classifier.is_dir() else config.classifier.parent
    found = _probes(config, folder) if (folder / "probe.json").exists() else _tuned(config)
    frames = []
    for told in found:
        keep = _tested(config, told.patients)
        images, cohorts = np.array(told.images)[keep], np.array(told.cohorts)[keep]
        told = replace(told, p=told.p[keep])
        frame = prediction_rows(told.origin, images, cohorts, "test", told.p, told.task.class_names)
        frame["called"] = called(told.task, told.choice, told.p)
        frames.append(frame)
    write_predictions(out, frames, [(told.origin, told.choice) for told in found])
    counts = frames[0]["called"].value_counts().sort_index()
    calls = ", ".join(f"{name or 'none'}: {count}" for name, count in counts.items())
    first = f"{found[0].origin.task}: {len(frames[0]):,} images called {calls}"
    return first if len(found) == 1 else f"{len(found)} classifiers; of the first, {first}"


@dataclass(frozen=True)
class _Told:
    """What one classifier says of every image."""

    task: Task
    origin: Origin
    choice: Choice
    images: Sequence[str]
    patients: Sequence[str]
    cohorts: Sequence[str]
    p: NDArray[np.float64]


def _tested(config: Config, patients: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) which images are predicted."""
    if config.splits is None:
        return np.ones(len(patients), dtype=bool)
    tested = read_splits(config.splits).rows("test", patients)
    if not tested.any():
        raise InputError(f"{config.splits}: none of these images belongs to a test patient")
    return tested


def _tuned(config: Config) -> list[_Told]:
    if config.store is None:
        raise InputError("predict: a fine-tuned classifier needs --store, the images to be classified")
    classifier, store = load_classifier(config.classifier), Store.open(config.store)
    card = classifier.card
    classifier.check_fit(store, config.store)
    p = classifier.probabilities(store, np.arange(len(store)), choose_device(config.device))
    images = store.index["image_id"].tolist()
    cohorts = store.index["cohort"].tolist() if "cohort" in store.index else [""] * len(images)
    patients = store.index["patient_id"].tolist()
    return [_Told(card.task, card.origin, card.choice, images, patients, cohorts, p)]


def _probes(config: Config, folder: Path) -> list[_Told]:
    if config.features is None:
        raise InputError("predict: probes need --features, those of the images to be classified")
    record = json.loads((folder / "probe.json").read_text())
    features = read_features(config.features)
    learned, given = ({"region": "all"} | told for told in (record["features"], features.record))
    for key in ("weights", "pool", "preprocessing", "region"):
        if given[key] != learned[key]:
            told = "; ".join(differing(given.get("prepared", {}), learned.get("prepared", {})))
            why = f" ({told})" if told and key == "preprocessing" else ""
            raise InputError(
                f"{config.features}: made with other {key} than the features the probes learned from{why}; "
                "embed these images with the same encoder, pool and region, from a store prepared alike"
            )
    state, found = read_weights(folder / "probe.safetensors"), []
    for card in record["classifiers"]:
        task = build(Task, card["task"], str(folder / "probe.json"))
        origin, choice = Origin(**card["origin"]), Choice(**card["choice"])
        weight, bias, mean, std = (
            state[f"{card['key']}.{name}"].double().numpy() for name in ("weight", "bias", "mean", "std")
        )
        logits = (features.values - mean) / std @ weight.T + bias
        p = expit(logits) if task.kind == "multilabel" else softmax(logits, axis=1)
        images = features.image_ids
        found.append(_Told(task, origin, choice, images, features.patient_ids, [""] * len(images), p))
    return found


def called(task: Task, choice: Choice, p: NDArray[np.float64]) -> list[str]:
    """The class of each image at the stored threshold; for labels those above theirs, joined by ';'."""
    names = task.class_names
    if task.kind == "binary":
        return [names[int(value >= choice.threshold[0])] for value in p[:, 1]]
    if task.kind == "multilabel":
        above = p >= np.array(choice.threshold)
        return [";".join(name for name, on in zip(names, row, strict=True) if on) for row in above]
    return [names[int(k)] for k in p.argmax(1)]
