"""The labelled images of a task, and what a classifier predicts of those that it did not train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trabecula.artifacts.manifest import Manifest
from trabecula.artifacts.predictions import Choice, Origin, cohorts_of, prediction_rows
from trabecula.artifacts.splits import Splits, Subset
from trabecula.artifacts.tasks import Task, Truth
from trabecula.metrics.classification import youden_threshold

ClassWeight = Literal["auto", "none", "balanced"]
FALLBACK = 0.5
"""Where validation holds one class only, so that no threshold is better than another."""


@dataclass(frozen=True)
class LabelledImages:
    """The labelled images that a store or features have, and the part of each patient."""

    manifest: Manifest
    splits: Splits
    task: Task
    labelled: Truth


def is_balanced(class_weight: ClassWeight, task: Task) -> bool:
    """Whether the loss weighs all classes alike.

    auto: where arms are compared by balanced accuracy and kappa, for which no class counts more than
    another; AUROC, of a binary or multi-label task, does not depend on how often a class is.
    """
    return class_weight == "balanced" or (class_weight == "auto" and task.kind in ("multiclass", "ordinal"))


def balanced_weights(y: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Weight of each class (K,): n / (number of present classes * n_class), scikit-learn's "balanced".

    An absent class has the weight of one with a single image. For labels, y (n, L): the odds of a negative
    (L,), which weigh the positives.
    """
    if y.ndim == 2:
        odds: NDArray[np.float64] = (y == 0).sum(0) / np.maximum((y == 1).sum(0), 1)
        return odds
    counts = np.bincount(y, minlength=num_classes)
    weights: NDArray[np.float64] = len(y) / (max((counts > 0).sum(), 1) * np.maximum(counts, 1))
    return weights


def class_frequencies(task: Task, y: NDArray[np.int64]) -> tuple[float, ...]:
    """Of the (n,) training labels; () for labels that are no classes."""
    if task.kind == "multilabel" or not len(y):
        return ()
    return tuple(float(part) for part in np.bincount(y, minlength=task.num_outputs) / len(y))


def choice_of(
    images: LabelledImages, subset: Subset, notes: Sequence[str], class_weight: ClassWeight, **chosen: Any
) -> Choice:
    """What was chosen on a few-label subset, with its counts and without a threshold yet."""
    train, val = subset.record["train"], subset.record["val"]
    if is_balanced(class_weight, images.task):
        chosen["class_frequencies"] = class_frequencies(images.task, images.labelled.y[subset.train])
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
