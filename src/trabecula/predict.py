"""classifier + any images -> predictions: an external cohort, new images, proxy grades.

The threshold is the one that was fixed on validation when the classifier was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from trabecula.artifacts.classifier import has_probes, read_probes
from trabecula.artifacts.features import read_features
from trabecula.artifacts.predictions import Choice, Origin, prediction_rows, write_predictions
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store, differing
from trabecula.artifacts.tasks import Task
from trabecula.config import Record
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
    found = _probes(config, folder) if has_probes(folder) else _tuned(config)
    frames = []
    for one in found:
        keep = _tested(config, one.patients)
        images, cohorts, p = np.array(one.images)[keep], np.array(one.cohorts)[keep], one.p[keep]
        frame = prediction_rows(one.origin, images, cohorts, "test", p, one.task.class_names)
        frame["called"] = called(one.task, one.choice, p)
        frames.append(frame)
    write_predictions(out.path, frames, [(one.origin, one.choice) for one in found])
    counts = frames[0]["called"].value_counts().sort_index()
    calls = ", ".join(f"{name or 'none'}: {count}" for name, count in counts.items())
    first = f"{found[0].origin.task}: {len(frames[0]):,} images called {calls}"
    return first if len(found) == 1 else f"{len(found)} classifiers; of the first, {first}"


@dataclass(frozen=True)
class _Predicted:
    """What one classifier predicts for every image."""

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


def _tuned(config: Config) -> list[_Predicted]:
    if config.store is None:
        raise InputError("predict: a fine-tuned classifier needs --store, the images to be classified")
    classifier, store = load_classifier(config.classifier), Store.open(config.store)
    card = classifier.card
    classifier.check_fit(store, config.store)
    p = classifier.probabilities(store, np.arange(len(store)), choose_device(config.device))
    images = store.index["image_id"].tolist()
    cohorts = store.index["cohort"].tolist() if "cohort" in store.index else [""] * len(images)
    patients = store.index["patient_id"].tolist()
    return [_Predicted(card.task, card.origin, card.choice, images, patients, cohorts, p)]


def _probes(config: Config, folder: Path) -> list[_Predicted]:
    if config.features is None:
        raise InputError("predict: probes need --features, those of the images to be classified")
    learned, probes = read_probes(folder)
    features = read_features(config.features)
    given = features.card
    for key in ("weights", "pool", "preprocessing", "region"):
        if getattr(given, key) != getattr(learned, key):
            lines = "; ".join(differing(given.prepared, learned.prepared))
            why = f" ({lines})" if lines and key == "preprocessing" else ""
            raise InputError(
                f"{config.features}: made with other {key} than the features the probes learned from{why}; "
                "embed these images with the same encoder, pool and region, from a store prepared alike"
            )
    images, cohorts, found = features.image_ids, [""] * len(features.image_ids), []
    for one in probes:
        weight, bias, mean, std = (
            one.tensors[name].double().numpy() for name in ("weight", "bias", "mean", "std")
        )
        logits = (features.values - mean) / std @ weight.T + bias
        p = expit(logits) if one.task.kind == "multilabel" else softmax(logits, axis=1)
        found.append(_Predicted(one.task, one.origin, one.choice, images, features.patient_ids, cohorts, p))
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
