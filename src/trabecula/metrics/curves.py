"""ROC curves with bands and reliability bins with intervals, averaged over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trabecula.metrics.bootstrap import interval
from trabecula.metrics.classification import bins_of, confidence_and_event

Array = NDArray[Any]
Floats = NDArray[np.float64]

GRID = np.linspace(0, 1, 101)  # false positive rates


def roc(y: ArrayLike, p: ArrayLike, weights: Array | None = None) -> Floats:
    """True positive rate at the false positive rates `GRID`, (R, 101), joined linearly.

    y (n,) 0 or 1, p (n,) scores, weights (R, n). Where the curve rises straight up, its top counts.
    NaN for weights that leave a class out.
    """
    truth, score = np.asarray(y), np.asarray(p, float)
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # last image of each score
    by_image = np.ones((truth.size, 1)) if weights is None else weights.T
    sorted_weights = by_image[order].astype(float)
    positive = (truth[order] == 1)[:, None]
    rates = []
    for chosen in (positive, ~positive):
        counts = np.cumsum(np.where(chosen, sorted_weights, 0), axis=0)[ends]
        with np.errstate(invalid="ignore", divide="ignore"):
            rates.append(np.vstack([np.zeros_like(counts[:1]), counts]) / counts[-1])
    tpr, fpr = rates  # (G + 1, R)
    result = np.full((fpr.shape[1], GRID.size), np.nan)
    for r in np.flatnonzero(np.isfinite(tpr[-1]) & np.isfinite(fpr[-1])):
        result[r] = _at(fpr[:, r], tpr[:, r])
    return result


def _at(fpr: Floats, tpr: Floats) -> Floats:
    after = np.searchsorted(fpr, GRID + 1e-12, "right")
    left, right = after - 1, np.minimum(after, fpr.size - 1)
    run = fpr[right] - fpr[left]
    share = np.divide(GRID - fpr[left], run, out=np.zeros_like(run), where=run > 0)
    result: Floats = tpr[left] + np.clip(share, 0, 1) * (tpr[right] - tpr[left])
    return result


def roc_band(
    y: ArrayLike, scores: Sequence[Floats], weights: Array, level: float
) -> tuple[Floats, Floats, Floats]:
    """Mean ROC over the seeds' scores and its pointwise percentile band over patients, (101,) each."""
    mean = np.mean([roc(y, p)[0] for p in scores], axis=0)
    draws = np.mean([roc(y, p, weights) for p in scores], axis=0)
    draws = draws[np.isfinite(draws).all(axis=1)]
    if np.isnan(mean).any() or not len(draws):
        nothing = np.full(GRID.size, np.nan)
        return mean, nothing, nothing
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return mean, low, high


def reliability(
    y: ArrayLike,
    probabilities: Sequence[Floats],
    patients: Array,
    weights: Array,
    level: float,
    num_bins: int = 10,
) -> list[dict[str, float | int]]:
    """Stated against observed frequency in bins of equal numbers of predictions, all seeds pooled.

    Args:
        y: (n,). probabilities: a (n,) or (n, K) for each seed. weights: (R, n) draws of patients.
    Returns:
        for each bin predicted, observed, low, high, num_images (a seed's mean number of images).
    """
    pairs = [confidence_and_event(y, p) for p in probabilities]
    stated = np.concatenate([pair[0] for pair in pairs])
    came_true = np.concatenate([pair[1] for pair in pairs])
    bins, num = bins_of(stated, num_bins), np.asarray(y).shape[0]
    found: list[dict[str, float | int]] = []
    for k in range(int(bins.max()) + 1):
        inside = (bins == k).reshape(len(pairs), num)
        count = inside.sum(axis=0).astype(np.float32)  # (n,) seeds that put the image in this bin
        events = (inside * came_true.reshape(len(pairs), num)).sum(axis=0).astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = (weights @ events).astype(float) / (weights @ count)
        observed = float(events.sum() / count.sum())
        num_patients = np.unique(patients[count > 0]).size
        bounds = interval(observed, draws, num_patients - 1, level)
        found.append(
            {
                "predicted": float(stated[bins == k].mean()),
                "observed": observed,
                "low": bounds.low,
                "high": bounds.high,
                "num_images": round(float(count.sum()) / len(pairs)),
            }
        )
    return found
