"""ROC curves with bands and reliability bins with intervals, averaged over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trabecula.metrics.bootstrap import Array, Floats, interval, ratio
from trabecula.metrics.classification import bins_of, confidence_and_event, running_sums

GRID = np.linspace(0, 1, 101)  # false positive rates


def roc(y: ArrayLike, p: ArrayLike, weights: Array | None = None) -> Floats:
    """True positive rate at the false positive rates `GRID`, (R, 101), joined linearly.

    y (n,) 0 or 1, p (n,) scores, weights (R, n). Where the curve rises straight up, its top counts.
    NaN for weights that leave a class out.
    """
    truth, score = np.asarray(y), np.asarray(p, float)
    if not truth.size:
        return np.full((1 if weights is None else len(weights), GRID.size), np.nan)
    order = np.argsort(-score, kind="stable")
    corners = np.concatenate([[0], 1 + np.flatnonzero(np.append(np.diff(score[order]) != 0, True))])
    by_image = np.ones((truth.size, 1)) if weights is None else weights.T
    in_order, positive = by_image[order], (truth[order] == 1)[:, None]
    true = running_sums(in_order * positive)[corners]  # (G + 1, R): after each distinct score
    false = running_sums(in_order * ~positive)[corners]
    result = np.full((by_image.shape[1], GRID.size), np.nan)
    kept = np.flatnonzero((true[-1] > 0) & (false[-1] > 0))
    if kept.size:
        shares = (counts.T[kept].astype(float) for counts in (true, false))
        tpr, fpr = (share / share[:, -1:] for share in shares)
        result[kept] = _joined(fpr, tpr)
    return result


def _joined(fpr: Floats, tpr: Floats) -> Floats:
    """(R, G + 1) corners -> (R, 101) rates at `GRID`; one search serves all rows, set 2 apart."""
    num, width = fpr.shape
    offset = 2.0 * np.arange(num)[:, None]
    after = np.searchsorted((fpr + offset).ravel(), (GRID + offset + 1e-9).ravel(), "right")
    left = after - 1
    right = np.minimum(after, np.repeat(np.arange(1, num + 1) * width - 1, GRID.size))
    x, y = fpr.ravel(), tpr.ravel()
    run = x[right] - x[left]
    share = np.divide(np.tile(GRID, num) - x[left], run, out=np.zeros_like(run), where=run > 0)
    return np.asarray(y[left] + np.clip(share, 0, 1) * (y[right] - y[left])).reshape(num, GRID.size)


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
    y: ArrayLike, probabilities: Sequence[Floats], patients: Array, weights: Array, level: float,
    num_bins: int = 10,
) -> list[dict[str, Any]]:  # fmt: skip
    """Stated against observed frequency in bins of equal numbers of predictions, all seeds pooled.

    y (n,), probabilities a (n,) or (n, K) for each seed, weights (R, n) draws of patients. Of each bin
    predicted, observed, low, high, num_images (a seed's mean number of images).
    """
    if not np.size(y):
        return []
    pairs = np.array([confidence_and_event(y, p) for p in probabilities])
    stated, came_true = pairs[:, 0], pairs[:, 1]  # (S, n) each
    bins = bins_of(stated.ravel(), num_bins).reshape(stated.shape)
    found: list[dict[str, Any]] = []
    for k in range(int(bins.max()) + 1):
        inside = bins == k
        count = inside.sum(axis=0).astype(np.float32)  # (n,) seeds that put the image in this bin
        events = (inside * came_true).sum(axis=0).astype(np.float32)
        draws = ratio((weights @ events).astype(float), weights @ count)
        observed = float(events.sum() / count.sum())
        bounds = interval(observed, draws, np.unique(patients[count > 0]).size - 1, level)
        found.append({
            "predicted": float(stated[inside].mean()), "observed": observed, "low": bounds.low,
            "high": bounds.high, "num_images": round(float(count.sum()) / len(pairs)),
        })  # fmt: skip
    return found
