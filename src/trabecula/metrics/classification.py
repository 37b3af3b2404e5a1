"""Metrics of class probabilities, each for many weight vectors at once.

Every function takes the truth `y` (n,), the predictions `p` (n,) or (n, K) and `weights` (R, n) or
None (all ones, R = 1), and returns (R,) values. A resample of patients is a weight vector: how
often each patient was drawn, repeated for the patient's images. A value that a weight vector
leaves undefined (a class without weight) is NaN; `missing_classes` names the classes.

`weights` are fastest as float32 counts with `weights.T` contiguous, as `bootstrap.resample` makes
them: images are sorted once and the ranks of all resamples are running sums over rows of R values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

NUM_BINS = 15  # calibration bins, as in Guo et al. 2017, arXiv 1706.04599, section 2


def auroc(y: ArrayLike, p: ArrayLike, weights: Array | None = None) -> Floats:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties one half.

    Args:
        y: (n,) 0 or 1. p: (n,) scores, higher for 1. weights: (R, n), not negative.
    Source: Hanley and McNeil, Radiology 1982; 143: 29-36.
    """
    return _ranked(y, p, weights, precision=False)[0]


def average_precision(y: ArrayLike, p: ArrayLike, weights: Array | None = None) -> Floats:
    """Precision summed over the steps of recall, thresholds at the distinct scores, no interpolation.

    y (n,) 0 or 1, p (n,) scores. The definition is scikit-learn's `average_precision_score`.
    """
    return _ranked(y, p, weights, precision=True)[1]


def auroc_and_precision(y: ArrayLike, p: ArrayLike, weights: Array | None = None) -> tuple[Floats, Floats]:
    """`auroc` and `average_precision` from one sort and one pass."""
    return _ranked(y, p, weights, precision=True)


def _ranked(y: ArrayLike, p: ArrayLike, weights: Array | None, precision: bool) -> tuple[Floats, Floats]:
    truth, score = _binary(y, p)
    by_image = _by_image(weights, truth.size)  # (n, R)
    order = np.argsort(-score, kind="stable")
    is_positive = truth[order] == 1
    positives, negatives = order[is_positive], order[~is_positive]
    num_resamples = by_image.shape[1]
    if not positives.size or not negatives.size:
        return np.full(num_resamples, np.nan), np.full(num_resamples, np.nan)
    s_pos, s_neg = -score[positives], -score[negatives]  # ascending
    above = running_sums(by_image[negatives])  # (m + 1, R): weight of the negatives before row i
    weight = np.ascontiguousarray(by_image[positives])  # (k, R)
    first, last = np.searchsorted(s_neg, s_pos, "left"), np.searchsorted(s_neg, s_pos, "right")
    before, through = above[first], above[last]
    total_neg = above[-1].astype(np.float64)
    total_pos = weight.sum(axis=0, dtype=np.float64)
    # 2 * (negatives below + half of the tied): stays a whole number, so sums of counts are exact
    below = 2 * above[-1] - before - through
    with np.errstate(invalid="ignore", divide="ignore"):
        area = _dot(weight, below) / (2 * total_pos * total_neg)
        if not precision:
            return area, np.empty(0)
        true = running_sums(weight)[np.searchsorted(s_pos, s_pos, "right")]
        called = true + through
        share = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
        return area, _dot(weight, share) / total_pos


def running_sums(rows: Array) -> Array:
    """(m, R) -> (m + 1, R) sums of the rows before each; a loop over rows of R keeps to the cache."""
    total = np.zeros((rows.shape[0] + 1, rows.shape[1]), rows.dtype)
    for i in range(rows.shape[0]):
        np.add(total[i], rows[i], out=total[i + 1])
    return total


def _dot(a: Array, b: Array) -> Floats:
    """Column-wise sum of products (k, R), (k, R) -> (R,), summed in float64."""
    result: Floats = np.multiply(a, b).sum(axis=0, dtype=np.float64)
    return result


def auroc_macro(y: ArrayLike, p: ArrayLike, weights: Array | None = None) -> Floats:
    """Mean of the one-versus-rest AUROCs over the classes (or labels) that have images.

    Args:
        y: (n,) class numbers, or (n, L) labels of 0, 1 and -1 (masked, left out of that label).
        p: (n, K) or (n, L).
    A class that all or no images have is left out of the mean.
    """
    truth, score = np.asarray(y), np.asarray(p, np.float64)
    areas = []
    for k in range(score.shape[1]):
        known = truth[:, k] >= 0 if truth.ndim == 2 else np.ones(len(truth), bool)
        label = truth[known, k] if truth.ndim == 2 else (truth == k).astype(np.int64)
        if np.unique(label).size == 2:
            areas.append(auroc(label, score[known, k], None if weights is None else weights.T[known].T))
    if not areas:
        return np.full(1 if weights is None else len(weights), np.nan)
    result: Floats = np.mean(areas, axis=0)
    return result


def accuracy(y: ArrayLike, p: ArrayLike, weights: Array | None = None) -> Floats:
    """Share of images whose most probable class is the true one; y (n,), p (n, K)."""
    truth = np.asarray(y)
    return _mean(weights, (_called(p) == truth).astype(np.float64))


def balanced_accuracy(y: ArrayLike, p: ArrayLike, weights: Array | None = None) -> Floats:
    """Mean over the classes with images of the share called right (argmax); y (n,), p (n, K)."""
    truth = np.asarray(y)
    return recall_by_class(truth, _called(p) == truth, weights)[1]


def recall_by_class(y: ArrayLike, right: ArrayLike, weights: Array | None = None) -> tuple[Floats, Floats]:
    """(R, K) share of each class called right, and its (R,) mean over classes.

    Args:
        y: (n,) class numbers; K are those that occur. right: (n,) bool.
    """
    truth, hit = np.asarray(y), np.asarray(right, np.float64)
    members = (truth[:, None] == np.unique(truth)).astype(np.float64)  # (n, K)
    num = members.shape[1]
    sums = _sums(weights, np.hstack([members * hit[:, None], members]))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = sums[:, :num] / sums[:, num:]
    return shares, shares.mean(axis=1)


def sensitivity(y: ArrayLike, p: ArrayLike, threshold: float, weights: Array | None = None) -> Floats:
    """Share of the positives with p >= threshold; y (n,) 0 or 1, p (n,)."""
    truth, score = _binary(y, p)
    return _mean(weights, (score >= threshold).astype(np.float64), truth == 1)


def specificity(y: ArrayLike, p: ArrayLike, threshold: float, weights: Array | None = None) -> Floats:
    """Share of the negatives with p < threshold; y (n,) 0 or 1, p (n,)."""
    truth, score = _binary(y, p)
    return _mean(weights, (score < threshold).astype(np.float64), truth == 0)


def youden_threshold(y: ArrayLike, p: ArrayLike) -> float:
    """The threshold t (positive where p >= t) with the largest sensitivity + specificity.

    To be chosen on validation images and applied unchanged to test images. It lies half-way between
    two neighbouring scores; of equally good ones the one nearest to 0.5 is taken, then the lower.

    Args:
        y: (n,) 0 or 1. p: (n,) probabilities.
    Raises:
        ValueError: only one class is there, so that no threshold is better than another.
    Source: Youden, Cancer 1950; 3: 32-35.
    """
    truth, score = _binary(y, p)
    values = np.unique(score)
    num_pos, num_neg = int((truth == 1).sum()), int((truth == 0).sum())
    if not num_pos or not num_neg:
        raise ValueError("a threshold needs images of both classes")
    cuts = np.concatenate([values[:1], (values[:-1] + values[1:]) / 2])
    pos, neg = np.sort(score[truth == 1]), np.sort(score[truth == 0])
    hits = num_pos - np.searchsorted(pos, cuts, "left")
    rejected = np.searchsorted(neg, cuts, "left")
    # whole numbers, so that ties are ties
    gain = hits.astype(np.int64) * num_neg + rejected.astype(np.int64) * num_pos
    best = cuts[gain == gain.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def quadratic_kappa(y: ArrayLike, p: ArrayLike, weights: Array | None = None) -> Floats:
    """Cohen's kappa with quadratic weights between the true and the most probable class.

    y (n,) class numbers in their order, p (n, K). With quadratic weights kappa needs only moments:
    1 - E(a - b)^2 / (E a^2 + E b^2 - 2 E a E b).
    Source: Cohen, Psychological Bulletin 1968; 70: 213-220.
    """
    a, b = np.asarray(y, np.float64), _called(p).astype(np.float64)
    sums = _sums(weights, np.stack([np.ones_like(a), a, b, a * a, b * b, (a - b) ** 2], axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        _, ea, eb, eaa, ebb, observed = (sums / sums[:, :1]).T
        expected = eaa + ebb - 2 * ea * eb
        return np.where(expected > 1e-12, 1 - observed / expected, np.nan)


def mean_absolute_error(y: ArrayLike, p: ArrayLike, weights: Array | None = None) -> Floats:
    """Mean distance in classes between the true and the most probable class; y (n,), p (n, K)."""
    return _mean(weights, np.abs(np.asarray(y) - _called(p)).astype(np.float64))


def brier(y: ArrayLike, p: ArrayLike, weights: Array | None = None) -> Floats:
    """Mean squared error of the probabilities.

    Binary, p (n,): (p - y)^2, in [0, 1]. Classes, p (n, K): summed over the classes, in [0, 2].
    Source: Brier, Monthly Weather Review 1950; 78: 1-3 (the sum over classes).
    """
    truth, score = np.asarray(y), np.asarray(p, np.float64)
    if score.ndim == 1:
        return _mean(weights, (score - truth) ** 2)
    return _mean(weights, ((score - (truth[:, None] == np.arange(score.shape[1]))) ** 2).sum(axis=1))


def calibration_error(
    y: ArrayLike, p: ArrayLike, weights: Array | None = None, num_bins: int = NUM_BINS
) -> Floats:
    """Expected calibration error over bins of equal numbers of images.

    Binary, p (n,): |share of positives - mean probability|. Classes, p (n, K): |share called right -
    mean probability of the called class|. Averaged over `num_bins` bins by their weight. The bins are
    cut once at quantiles of the unweighted predictions; images of one score share a bin.
    Source: Guo et al. 2017, arXiv 1706.04599, equation 3, with bins of equal mass (Nixon et al. 2019,
    arXiv 1904.01685, section 3.2): bins of equal width are nearly empty in a small test part.
    """
    confidence, event = confidence_and_event(y, p)
    bins = bins_of(confidence, num_bins)
    gap = np.zeros((confidence.size, bins.max() + 1))
    gap[np.arange(confidence.size), bins] = event - confidence
    sums = _sums(weights, np.hstack([gap, np.ones((confidence.size, 1))]))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]
    return result


def confidence_and_event(y: ArrayLike, p: ArrayLike) -> tuple[Floats, Floats]:
    """(n,) probability stated and (n,) whether it came true (1.0 or 0.0), for calibration."""
    truth, score = np.asarray(y), np.asarray(p, np.float64)
    if score.ndim == 1:
        return score, truth.astype(np.float64)
    return score.max(axis=1), (score.argmax(axis=1) == truth).astype(np.float64)


def bins_of(confidence: Floats, num_bins: int) -> NDArray[np.int64]:
    """(n,) bin numbers 0..B-1 (B <= num_bins) of equal numbers of images; equal scores share a bin."""
    ranks = np.searchsorted(np.sort(confidence), confidence, "left")  # ties take their lowest rank
    return np.unique(ranks * num_bins // confidence.size, return_inverse=True)[1].astype(np.int64)


def missing_classes(y: ArrayLike, class_names: tuple[str, ...]) -> list[str]:
    """Names of the classes that no image has; of labels (n, L): those not seen both as 0 and as 1."""
    truth = np.asarray(y)
    if truth.ndim == 1:
        return [name for k, name in enumerate(class_names) if not (truth == k).any()]
    return [
        name
        for k, name in enumerate(class_names)
        if not ((truth[:, k] == 0).any() and (truth[:, k] == 1).any())
    ]


def _binary(y: ArrayLike, p: ArrayLike) -> tuple[Array, Floats]:
    truth, score = np.asarray(y), np.asarray(p, np.float64)
    if truth.ndim != 1 or truth.shape != score.shape:
        raise ValueError(f"y {truth.shape} and p {score.shape} must both be (n,)")
    return truth, score


def _called(p: ArrayLike) -> Array:
    """(n, K) probabilities -> (n,) most probable class."""
    called: Array = np.asarray(p).argmax(axis=1)
    return called


def _by_image(weights: Array | None, num: int) -> Array:
    """(R, n) weights -> (n, R) floats, ones if there are none."""
    if weights is None:
        return np.ones((num, 1))
    if weights.ndim != 2 or weights.shape[1] != num:
        raise ValueError(f"weights {weights.shape} must be (resamples, {num})")
    by_image: Array = weights.T
    return by_image if by_image.dtype.kind == "f" else by_image.astype(np.float64)


def _sums(weights: Array | None, columns: Floats) -> Floats:
    """Weighted sums of the (n, C) columns under each weight vector: one product, (R, C)."""
    if weights is None:
        return np.asarray(columns.sum(axis=0, keepdims=True))
    by_image = _by_image(weights, columns.shape[0])
    result: Floats = (columns.astype(by_image.dtype).T @ by_image).T.astype(np.float64)
    return result


def _mean(weights: Array | None, values: Floats, among: Array | None = None) -> Floats:
    """Weighted mean of (n,) values, among those chosen; (R,)."""
    chosen = np.ones_like(values) if among is None else among.astype(np.float64)
    sums = _sums(weights, np.stack([values * chosen, chosen], axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = sums[:, 0] / sums[:, 1]
    return result
