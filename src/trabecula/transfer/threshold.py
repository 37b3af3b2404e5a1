"""Thresholds of a classifier, fixed on the few-label validation part."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trabecula.artifacts.tasks import Task
from trabecula.metrics.classification import youden_threshold

FALLBACK = 0.5
"""Where validation holds one class only, so that no threshold is better than another."""


def thresholds(task: Task, y: NDArray[np.int64], p: NDArray[np.float64]) -> tuple[tuple[float, ...], str]:
    """Youden's threshold: one for a binary task, one a label for a multi-label one, none for classes.

    Args:
        y: (n,) classes, or (n, L) labels with -1 where masked. p: (n, K).

    Returns:
        The thresholds, and a note on those that had to be 0.5.
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
