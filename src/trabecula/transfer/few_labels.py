"""The labelled images of a task, and what a classifier predicts of those that it did not train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trabecula.artifacts.manifest import Manifest
from trabecula.artifacts.predictions import Choice, Origin, cohorts_of, prediction_rows
from trabecula.artifacts.splits import Splits, Subset
from trabecula.artifacts.tasks import Task, Truth
from trabecula.metrics.classification import youden_threshold

FALLBACK = 0.5
"""Where validation holds one class only, so that no threshold is better than another."""


@dataclass(frozen=True)
class LabelledImages:
    """The labelled images that a store or features have, and the part of each patient."""

    manifest: Manifest
    splits: Splits
    task: Task
    labelled: Truth


def choice_of(subset: Subset, notes: Sequence[str], **chosen: Any) -> Choice:
    """What was chosen on a few-label subset, with its counts and without a threshold yet."""
    train, val = subset.record["train"], subset.record["val"]
    return Choice(
        num_train_images=train["images"], num_train_patients=train["patients"],
        num_val_images=val["images"], num_val_patients=val["patients"],
        note="; ".join(filter(None, [subset.record["note"], *notes])), **chosen,
    )  # fmt: skip


def predict_held_out(
    images: LabelledImages, subset: Subset, origin: Origin, choice: Choice,
    probabilities: Callable[[NDArray[np.int64]], NDArray[np.float64]],
) -> tuple[Choice, list[pd.DataFrame]]:  # fmt: skip
    """Predict validation, fix the threshold on it, predict the test part.

    Gives the choice with its threshold, and the rows of predictions.csv.
    probabilities: positions among the labelled images -> (n, K).
    """
    labelled = images.labelled
    test = np.flatnonzero(images.splits.rows("test", labelled.patient_ids))
    frames = []
    for part, positions in (("val", subset.val), ("test", test)):
        p = probabilities(positions)
        if part == "val":
            threshold, note = thresholds(images.task, labelled.y[positions], p)
            notes = "; ".join(filter(None, (choice.note, note)))
            choice = choice.model_copy(update={"threshold": threshold, "note": notes})
        cohorts, ids = cohorts_of(images.manifest, labelled.rows[positions]), labelled.image_ids[positions]
        frames.append(prediction_rows(origin, ids, cohorts, part, p, labelled.class_names))
    return choice, frames


def thresholds(task: Task, y: NDArray[np.int64], p: NDArray[np.float64]) -> tuple[tuple[float, ...], str]:
    """Youden's threshold: one for a binary task, one a label for a multi-label one, none for classes.

    Also a note on those that had to be 0.5. y (n,) classes, or (n, L) labels with -1 where masked; p (n, K).
    """
    if task.kind not in ("binary", "multilabel"):
        return (), ""
    columns = y[:, None] if y.ndim == 1 else y
    scores = p[:, 1:] if task.kind == "binary" else p
    values, lacking = [], []
    for k, name in enumerate(task.class_names[-columns.shape[1] :]):
        known = columns[:, k] >= 0
        if len(np.unique(columns[known, k])) == 2:
            values.append(youden_threshold(columns[known, k], scores[known, k]))
        else:
            values.append(FALLBACK)
            lacking.append(name)
    note = f"validation has one class only ({', '.join(lacking)}): threshold {FALLBACK}" if lacking else ""
    return tuple(values), note
