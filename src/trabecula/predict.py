"""classifier + any images -> predictions: an external cohort, new images, proxy grades.

The threshold is the one that was fixed on validation when the classifier was trained.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, softmax

from trabecula.artifacts.classifier import ClassifierCard, LinearProbe, has_probes, read_probes
from trabecula.artifacts.features import read_features
from trabecula.artifacts.predictions import Choice, prediction_rows, write_predictions
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store, differing
from trabecula.artifacts.tasks import Task
from trabecula.config import Record
from trabecula.errors import InputError
from trabecula.nets.classifier import load_classifier
from trabecula.nets.devices import choose_device
from trabecula.run import Run

Predicted = tuple[pd.DataFrame, list[tuple[LinearProbe | ClassifierCard, NDArray[np.float64]]]]
"""image_id, patient_id, perhaps cohort of n images; each classifier with its (n, K) probabilities."""


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
    index, found = _probes(config, folder) if has_probes(folder) else _tuned(config)
    keep = np.ones(len(index), dtype=bool)
    if config.splits is not None:
        keep = read_splits(config.splits).rows("test", index["patient_id"])
        if not keep.any():
            raise InputError(f"{config.splits}: none of these images belongs to a test patient")
    shown = index.assign(cohort=index.get("cohort", "")).loc[keep]
    images, cohorts = shown["image_id"].to_numpy(str), shown["cohort"].to_numpy(str)
    frames = []
    for one, p in found:
        frame = prediction_rows(one.origin, images, cohorts, "test", p[keep], one.task.class_names)
        frame["called"] = called(one.task, one.choice, p[keep])
        frames.append(frame)
    write_predictions(out.path, frames, [(one.origin, one.choice) for one, _ in found])
    counts = frames[0]["called"].value_counts().sort_index()
    calls = ", ".join(f"{name or 'none'}: {count}" for name, count in counts.items())
    first = f"{found[0][0].origin.task}: {len(frames[0]):,} images called {calls}"
    return first if len(found) == 1 else f"{len(found)} classifiers; of the first, {first}"


def _tuned(config: Config) -> Predicted:
    if config.store is None:
        raise InputError("predict: a fine-tuned classifier needs --store, the images to be classified")
    classifier, store = load_classifier(config.classifier), Store.open(config.store)
    classifier.check_fit(store, config.store)
    p = classifier.probabilities(store, np.arange(len(store)), choose_device(config.device))
    return store.index, [(classifier.card, p)]


def _probes(config: Config, folder: Path) -> Predicted:
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
    found: list[tuple[LinearProbe | ClassifierCard, NDArray[np.float64]]] = []
    for one in probes:
        weight, bias, mean, std = (one.tensors[k].double().numpy() for k in ("weight", "bias", "mean", "std"))
        logits = (features.values - mean) / std @ weight.T + bias
        found.append((one, expit(logits) if one.task.kind == "multilabel" else softmax(logits, axis=1)))
    return pd.DataFrame({"image_id": features.image_ids, "patient_id": features.patient_ids}), found


def called(task: Task, choice: Choice, p: NDArray[np.float64]) -> list[str]:
    """The class of each image at the stored threshold; for labels those above theirs, joined by ';'."""
    names = task.class_names
    if task.kind == "binary":
        return [names[int(value >= choice.threshold[0])] for value in p[:, 1]]
    if task.kind == "multilabel":
        above = p >= np.array(choice.threshold)
        return [";".join(name for name, on in zip(names, row, strict=True) if on) for row in above]
    return [names[int(k)] for k in p.argmax(1)]
