"""classifier + any store -> predictions: an external cohort, new films, proxy grades.

The threshold is the one that was fixed on validation when the classifier was trained.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trabecula.config import Record
from trabecula.data.predictions import prediction_rows, write_predictions
from trabecula.data.store import Store
from trabecula.errors import InputError
from trabecula.nets.classifier import Classifier, load_classifier
from trabecula.nets.devices import choose_device
from trabecula.run import Run


class Config(Record):
    """Settings of `predict`."""

    classifier: Path
    """A folder written by `finetune`."""
    store: Path
    """Prepared images, of any cohort, prepared as the classifier's own were."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""


def run(config: Config, out: Run) -> str:
    """Write predictions.csv (with the call at the stored threshold) and choices.csv."""
    classifier, store = load_classifier(config.classifier), Store.open(config.store)
    card = classifier.card
    if store.preprocessing != card.preprocessing:
        raise InputError(
            f"{config.store}: prepared otherwise than the classifier's own images (preprocessing "
            f"{store.preprocessing[:8]}, wanted {card.preprocessing[:8]}, {card.size} px): prepare it with "
            "the same settings"
        )
    rows = np.arange(len(store))
    p = classifier.probabilities(store, rows, choose_device(config.device))
    index = store.index
    cohorts = index["cohort"].to_numpy(dtype=str) if "cohort" in index else np.full(len(rows), "")
    frame = prediction_rows(
        card.origin, index["image_id"].to_numpy(dtype=str), cohorts, "test", p, card.class_names
    )
    frame["called"] = called(classifier, p)
    write_predictions(out, [frame], [(card.origin, card.choice)])
    counts = frame["called"].value_counts().sort_index()
    told = ", ".join(f"{name or 'none'}: {count}" for name, count in counts.items())
    return f"{card.task.name}: {len(frame):,} images called {told}"


def called(classifier: Classifier, p: NDArray[np.float64]) -> list[str]:
    """The class of each image at the stored threshold; for labels those above theirs, joined by ';'."""
    card, names = classifier.card, classifier.card.class_names
    if card.task.kind == "binary":
        return [names[int(value >= card.choice.threshold[0])] for value in p[:, 1]]
    if card.task.kind == "multilabel":
        above = p >= np.array(card.choice.threshold)
        return [";".join(name for name, on in zip(names, row, strict=True) if on) for row in above]
    return [names[int(k)] for k in p.argmax(1)]
