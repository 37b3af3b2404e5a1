"""Metrics of class probabilities, each for many weight vectors at once, and which kind of task has which.

Every function takes the truth `y` (n,), the predictions `p` (n,) or (n, K) and `weights` (R, n) or
None (all ones, R = 1), and returns (R,) values. A resample of patients is a weight vector: how
often each patient was drawn, repeated for the patient's images. A value that a weight vector
leaves undefined (a class without weight) is NaN; `missing_classes` names the classes.

`weights` are fastest as float32 counts with `weights.T` contiguous, as `bootstrap.resample` makes
them: images are sorted once and the ranks of all resamples are running sums over rows of R values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trabecula.metrics.bootstrap import MIN_PATIENTS, ROUNDING, Array, Floats, Ints, Scale, ratio

Weights = Array | None
"""(R, n); None: all ones, R = 1."""
Scores = dict[str, Floats]

COMPARED: Mapping[str, tuple[str, ...]] = {
    "binary": ("auroc",),
    "multiclass": ("balanced_accuracy", "quadratic_kappa"),
    "ordinal": ("quadratic_kappa", "balanced_accuracy"),
    "multilabel": ("auroc_macro",),
}
"""The metrics that arms are compared by; higher is better in all of them."""

METRICS: Mapping[str, tuple[str, ...]] = {
    "binary": (
        "auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "brier", "ece",
    ),
    "multiclass": ("balanced_accuracy", "quadratic_kappa", "auroc_macro", "accuracy", "brier", "ece"),
    "ordinal": ("quadratic_kappa", "balanced_accuracy", "auroc_macro", "accuracy", "mae", "brier", "ece"),
    "multilabel": ("auroc_macro", "auroc"),
}  # fmt: skip
"""The metrics of each kind; `auroc` of a multilabel task stands for one `auroc[label]` a label."""

CALIBRATION = ("brier", "ece")
"""Metrics of the probabilities themselves, at the class frequencies of the images as they come."""
NUM_BINS = 15  # of calibration, as in Guo et al. 2017, arXiv 1706.04599, section 2
_BLOCK = 8_000_000  # weights in memory together: 32 MB
_AT_THRESHOLD = ("balanced_accuracy", "sensitivity", "specificity")  # of a binary task


@dataclass(frozen=True)
class Sample:
    """The test images of a task, or of one cohort or stratum of it.

    `patients`: (n,) ids. `y`: (n,) class numbers or (n, L) labels of 0, 1, -1. `weights`: (R, n).
    """

    kind: str
    class_names: tuple[str, ...]
    patients: Array
    y: Array
    weights: Array

    def only(self, mask: Array) -> Sample:
        """The images where the (n,) mask is true, under the same draws."""
        return Sample(self.kind, self.class_names, self.patients[mask], self.y[mask], self.weights.T[mask].T)

    @property
    def num_patients(self) -> int:
        return int(np.unique(self.patients).size)

    @cached_property
    def sides(self) -> dict[str, tuple[set[Any], set[Any]]]:
        """Of each label the patients with an image that has it, and with one that lacks it."""
        with_it, without = ([set(self.patients[column == v]) for column in self.y.T] for v in (1, 0))
        return dict(zip(self.class_names, zip(with_it, without, strict=True), strict=True))


def scale_of(metric: str) -> Scale:
    if metric == "quadratic_kappa":
        return "fisher"
    return "log" if metric in ("brier", "mae") else "logit"


def score(
    sample: Sample, p: Floats, threshold: float, chosen: Sequence[str], weighted: bool,
    calibrated: Floats | None = None,
) -> Scores:  # fmt: skip
    """Metrics of one prediction: metric -> (R,), or (1,) where not weighted.

    p (n, K). threshold: of a binary task; NaN leaves what needs it NaN. weighted: under the sample's weights,
    else once on the images as they are. calibrated: (n, K) for the metrics of calibration, where these are
    other probabilities than those by which classes are called.
    """
    if calibrated is not None and sample.kind != "multilabel":
        stated = [name for name in chosen if name in CALIBRATION]
        called = score(sample, p, threshold, [name for name in chosen if name not in stated], weighted)
        found = called | score(sample, calibrated, threshold, stated, weighted)
        return {name: found[name] for name in chosen}
    if not weighted or not chosen:
        return _score(sample, p, threshold, chosen, None)
    step = max(1, _BLOCK // max(1, len(sample.y)))
    blocks = [sample.weights[i : i + step] for i in range(0, len(sample.weights), step)]
    parts = [_score(sample, p, threshold, chosen, block) for block in blocks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _score(sample: Sample, p: Floats, threshold: float, chosen: Sequence[str], weights: Weights) -> Scores:
    if sample.kind == "multilabel":
        return _multilabel(sample, p, weights)
    functions = {
        "balanced_accuracy": balanced_accuracy, "quadratic_kappa": quadratic_kappa,
        "auroc_macro": auroc_macro, "accuracy": accuracy, "mae": mean_absolute_error, "brier": brier,
        "ece": calibration_error,
    }  # fmt: skip
    found: Scores = {}
    if sample.kind == "binary":
        p = p[:, 1]
        found = _of_two_classes(sample.y, p, threshold, chosen, weights)
    return {name: found[name] if name in found else functions[name](sample.y, p, weights) for name in chosen}


def _of_two_classes(y: Array, p: Floats, threshold: float, chosen: Sequence[str], weights: Weights) -> Scores:
    """Those metrics that share a sort, or the threshold."""
    found: Scores = {}
    if {"auroc", "average_precision"} & set(chosen):
        found["auroc"], found["average_precision"] = _ranked(y, p, weights, "average_precision" in chosen)
    if set(_AT_THRESHOLD) & set(chosen):
        lost = np.nan if np.isnan(threshold) else 0.0
        found["sensitivity"] = sensitivity(y, p, threshold, weights) + lost
        found["specificity"] = specificity(y, p, threshold, weights) + lost
        found["balanced_accuracy"] = (found["sensitivity"] + found["specificity"]) / 2
    return found


def _multilabel(sample: Sample, p: Floats, weights: Weights) -> Scores:
    found: Scores = {}
    for k, label in enumerate(sample.class_names):
        known = sample.y[:, k] >= 0
        part = None if weights is None else weights.T[known].T
        found[f"auroc[{label}]"] = auroc(sample.y[known, k], p[known, k], part)
    there = [found[f"auroc[{label}]"] for label in averaged(sample)]
    macro = np.mean(there, axis=0) if there else np.full_like(next(iter(found.values())), np.nan)
    return {"auroc_macro": macro, **found}


def averaged(sample: Sample) -> list[str]:
    """The labels whose AUROCs the macro AUROC is the mean of; the same for every arm and resample.

    Labels that fewer than `MIN_PATIENTS` patients have, or lack, are left out: resamples without one of
    them have no mean, so its spread is unknown. Where that leaves none, all that have a value.
    """
    enough = [label for label in sample.class_names if _patients(sample, label) >= MIN_PATIENTS]
    return enough or [label for label in sample.class_names if _patients(sample, label)]


def _patients(sample: Sample, label: str) -> int:
    """Patients with the label, or without it, whichever are fewer."""
    return min(map(len, sample.sides[label]))


def smallest_class(sample: Sample, metric: str) -> int:
    """Patients of the smallest class that the metric's error depends on."""
    if sample.kind == "multilabel":
        named = [label for label in sample.class_names if metric == f"auroc[{label}]"]
        return min((_patients(sample, label) for label in named or averaged(sample)), default=0)
    if metric in ("sensitivity", "specificity"):
        classes: Sequence[int] = [1 if metric == "sensitivity" else 0]
    elif metric in ("auroc", "average_precision", "balanced_accuracy", "auroc_macro"):
        classes = np.unique(sample.y).tolist()
    else:
        return sample.num_patients
    return min((np.unique(sample.patients[sample.y == k]).size for k in classes), default=0)


def degrees_of_freedom(sample: Sample, metric: str, draws: Sequence[Mapping[str, Floats]]) -> float:
    """Degrees of freedom of a metric's spread over patients; draws: of each seed, metric -> (R,) resamples.

    One less than the patients of the smallest class; of a macro AUROC those of its labels put together
    after Satterthwaite, Biometrics Bulletin 1946; 2: 110-114: a rare label counts by its part in the spread.
    Where labels are the same patients', they are no more than these patients give.
    """
    least = smallest_class(sample, metric) - 1.0
    if sample.kind != "multilabel" or metric != "auroc_macro" or least < 1:
        return least
    labels = averaged(sample)
    spread = np.mean([[np.nanvar(draw[f"auroc[{label}]"]) for label in labels] for draw in draws], axis=0)
    each = np.array([_patients(sample, label) - 1.0 for label in labels])
    if not (spread > ROUNDING**2).any():
        return least
    carrying = {patient for label in labels for patient in min(sample.sides[label], key=len)}
    return min(float(spread.sum() ** 2 / (spread**2 / each).sum()), len(carrying) - 1.0)


def num_events(sample: Sample, metric: str) -> int | None:
    """Images of the positive class; None where a metric has no such class."""
    if sample.kind == "binary":
        return int((sample.y == 1).sum())
    for k, label in enumerate(sample.class_names):
        if metric == f"auroc[{label}]":
            return int((sample.y[:, k] == 1).sum())
    return None


def remark(sample: Sample, metric: str, has_threshold: bool) -> str:
    """What a reader must know of the value: classes left out, or why there is none."""
    absent = missing_classes(sample.y, sample.class_names)
    if metric.startswith("auroc[") and metric[6:-1] in absent:
        return "not estimable: the test images have one class"
    if sample.kind == "binary" and absent and metric not in ("brier", "ece"):
        return f"not estimable: no test image of class {absent[0]}"
    if sample.kind == "binary" and metric in _AT_THRESHOLD and not has_threshold:
        return "not estimable: no threshold was chosen on validation"
    if sample.kind == "multilabel" and metric == "auroc_macro":
        few = [label for label in sample.class_names if label not in (*absent, *averaged(sample))]
        too_few = f"fewer than {MIN_PATIENTS} test patients with it, or without"
        left_out = (absent, "test images of one class"), (few, too_few)
        return "; ".join(f"left out, {why}: {', '.join(labels)}" for labels, why in left_out if labels)
    if absent and metric in ("balanced_accuracy", "auroc_macro"):
        return f"left out, no test image: {', '.join(absent)}"
    return ""


def auroc(y: ArrayLike, p: ArrayLike, weights: Weights = None) -> Floats:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties one half.

    y (n,) 0 or 1, p (n,) scores, higher for 1, weights (R, n), not negative.
    Source: Hanley and McNeil, Radiology 1982; 143: 29-36.
    """
    return _ranked(y, p, weights, precision=False)[0]


def average_precision(y: ArrayLike, p: ArrayLike, weights: Weights = None) -> Floats:
    """Precision summed over the steps of recall, thresholds at the distinct scores, no interpolation.

    y (n,) 0 or 1, p (n,) scores. The definition is scikit-learn's `average_precision_score`.
    """
    return _ranked(y, p, weights, precision=True)[1]


def _ranked(y: ArrayLike, p: ArrayLike, weights: Weights, precision: bool) -> tuple[Floats, Floats]:
    """`auroc` and, if asked for, `average_precision` from one sort and one pass."""
    truth, score = _checked(y, p)
    by_image = _by_image(weights, truth.size)  # (n, R)
    order = np.argsort(-score, kind="stable")
    is_positive = truth[order] == 1
    positives, negatives = order[is_positive], order[~is_positive]
    if not positives.size or not negatives.size:
        nothing = np.full(by_image.shape[1], np.nan)
        return nothing, nothing
    s_pos, s_neg = -score[positives], -score[negatives]  # ascending
    above = running_sums(by_image[negatives])  # (m + 1, R): weight of the negatives before row i
    weight = np.ascontiguousarray(by_image[positives])  # (k, R)
    first, last = np.searchsorted(s_neg, s_pos, "left"), np.searchsorted(s_neg, s_pos, "right")
    before, through = above[first], above[last]
    total_neg = above[-1].astype(np.float64)
    total_pos = weight.sum(axis=0, dtype=np.float64)
    # 2 * (negatives below + half of the tied): stays a whole number, so sums of counts are exact
    below = 2 * above[-1] - before - through
    area = ratio(_dot(weight, below), 2 * total_pos * total_neg)
    if not precision:
        return area, np.empty(0)
    true = running_sums(weight)[np.searchsorted(s_pos, s_pos, "right")]
    called = true + through
    share = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
    return area, ratio(_dot(weight, share), total_pos)


def running_sums(rows: Array) -> Array:
    """(m, R) -> (m + 1, R) sums of the rows before each; a loop over rows of R keeps to the cache."""
    total = np.zeros((rows.shape[0] + 1, rows.shape[1]), rows.dtype)
    for i in range(rows.shape[0]):
        np.add(total[i], rows[i], out=total[i + 1])
    return total


def _dot(a: Array, b: Array) -> Floats:
    """Column-wise sum of products (k, R), (k, R) -> (R,), summed in float64."""
    return np.asarray(np.multiply(a, b).sum(axis=0, dtype=np.float64))


def auroc_macro(y: ArrayLike, p: ArrayLike, weights: Weights = None) -> Floats:
    """Mean of the one-versus-rest AUROCs over the classes (or labels) that some but not all images have.

    y (n,) class numbers, or (n, L) labels of 0, 1 and -1 (left out of that label); p (n, K) or (n, L).
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
    return np.asarray(np.mean(areas, axis=0))


def accuracy(y: ArrayLike, p: ArrayLike, weights: Weights = None) -> Floats:
    """Share of images whose most probable class is the true one; y (n,), p (n, K)."""
    return _mean(weights, (_called(p) == np.asarray(y)).astype(np.float64))


def balanced_accuracy(y: ArrayLike, p: ArrayLike, weights: Weights = None) -> Floats:
    """Mean over the classes with images of the share called right (argmax); y (n,), p (n, K)."""
    truth = np.asarray(y)
    if not truth.size:
        return np.full(1 if weights is None else len(weights), np.nan)
    hit = (_called(p) == truth).astype(np.float64)
    members = (truth[:, None] == np.unique(truth)).astype(np.float64)  # (n, K)
    num = members.shape[1]
    sums = _sums(weights, np.hstack([members * hit[:, None], members]))
    return np.asarray(ratio(sums[:, :num], sums[:, num:]).mean(axis=1))


def sensitivity(y: ArrayLike, p: ArrayLike, threshold: float, weights: Weights = None) -> Floats:
    """Share of the positives with p >= threshold; y (n,) 0 or 1, p (n,)."""
    truth, score = _checked(y, p)
    return _mean(weights, (score >= threshold).astype(np.float64), truth == 1)


def specificity(y: ArrayLike, p: ArrayLike, threshold: float, weights: Weights = None) -> Floats:
    """Share of the negatives with p < threshold; y (n,) 0 or 1, p (n,)."""
    truth, score = _checked(y, p)
    return _mean(weights, (score < threshold).astype(np.float64), truth == 0)


def youden_threshold(y: ArrayLike, p: ArrayLike) -> float:
    """The threshold t (positive where p >= t) with the largest sensitivity + specificity.

    To be chosen on validation images, y (n,) 0 or 1 and p (n,), and applied unchanged to test images. It lies
    half-way between two neighbouring scores; of equally good ones it is that nearest to 0.5, then the lower.

    Raises:
        ValueError: only one class is there, so that no threshold is better than another.
    Source: Youden, Cancer 1950; 3: 32-35.
    """
    truth, score = _checked(y, p)
    values, pos, neg = np.unique(score), np.sort(score[truth == 1]), np.sort(score[truth == 0])
    if not pos.size or not neg.size:
        raise ValueError("a threshold needs images of both classes")
    cuts = np.concatenate([values[:1], (values[:-1] + values[1:]) / 2])
    hits, rejected = pos.size - np.searchsorted(pos, cuts), np.searchsorted(neg, cuts)
    gain = hits * neg.size + rejected * pos.size  # whole numbers, so that ties are ties
    best = cuts[gain == gain.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def quadratic_kappa(y: ArrayLike, p: ArrayLike, weights: Weights = None) -> Floats:
    """Cohen's kappa with quadratic weights between the true and the most probable class.

    y (n,) class numbers in their order, p (n, K). With quadratic weights kappa needs only moments:
    1 - E(a - b)^2 / (E a^2 + E b^2 - 2 E a E b).
    Source: Cohen, Psychological Bulletin 1968; 70: 213-220.
    """
    a, b = np.asarray(y, np.float64), _called(p).astype(np.float64)
    sums = _sums(weights, np.stack([np.ones_like(a), a, b, a * a, b * b, (a - b) ** 2], axis=1))
    _, ea, eb, eaa, ebb, observed = ratio(sums, sums[:, :1]).T
    expected = eaa + ebb - 2 * ea * eb
    return np.where(expected > ROUNDING * (eaa + ebb), 1 - ratio(observed, expected), np.nan)


def mean_absolute_error(y: ArrayLike, p: ArrayLike, weights: Weights = None) -> Floats:
    """Mean distance in classes between the true and the most probable class; y (n,), p (n, K)."""
    return _mean(weights, np.abs(np.asarray(y) - _called(p)).astype(np.float64))


def brier(y: ArrayLike, p: ArrayLike, weights: Weights = None) -> Floats:
    """Mean squared error of the probabilities.

    Binary, p (n,): (p - y)^2, in [0, 1]. Classes, p (n, K): summed over the classes, in [0, 2].
    Source: Brier, Monthly Weather Review 1950; 78: 1-3 (the sum over classes).
    """
    truth, score = np.asarray(y), np.asarray(p, np.float64)
    if score.ndim == 1:
        return _mean(weights, (score - truth) ** 2)
    return _mean(weights, ((score - (truth[:, None] == np.arange(score.shape[1]))) ** 2).sum(axis=1))


def calibration_error(
    y: ArrayLike, p: ArrayLike, weights: Weights = None, num_bins: int = NUM_BINS
) -> Floats:
    """Expected calibration error over bins of equal numbers of images.

    Binary, p (n,): |share of positives - mean probability|. Classes, p (n, K): |share called right -
    mean probability of the called class|. Averaged over `num_bins` bins by their weight. The bins are
    cut once at quantiles of the unweighted predictions; images of one score share a bin.
    Source: Guo et al. 2017, arXiv 1706.04599, equation 3, with bins of equal mass (Nixon et al. 2019,
    arXiv 1904.01685, section 3.2): bins of equal width are nearly empty in a small test part.
    """
    confidence, event = confidence_and_event(y, p)
    if not confidence.size:
        return np.full(1 if weights is None else len(weights), np.nan)
    bins = bins_of(confidence, num_bins)
    gap = np.zeros((confidence.size, bins.max() + 1))
    gap[np.arange(confidence.size), bins] = event - confidence
    sums = _sums(weights, np.hstack([gap, np.ones((confidence.size, 1))]))
    return ratio(np.abs(sums[:, :-1]).sum(axis=1), sums[:, -1])


def confidence_and_event(y: ArrayLike, p: ArrayLike) -> tuple[Floats, Floats]:
    """(n,) probability stated and (n,) whether it came true (1.0 or 0.0), for calibration."""
    truth, score = np.asarray(y), np.asarray(p, np.float64)
    if score.ndim == 1:
        return score, truth.astype(np.float64)
    return score.max(axis=1), (score.argmax(axis=1) == truth).astype(np.float64)


def bins_of(confidence: Floats, num_bins: int) -> Ints:
    """(n,) bin numbers 0..B-1 (B <= num_bins) of equal numbers of images; equal scores share a bin."""
    ranks = np.searchsorted(np.sort(confidence), confidence, "left")  # ties take their lowest rank
    return np.unique(ranks * num_bins // confidence.size, return_inverse=True)[1].astype(np.int64)


def missing_classes(y: ArrayLike, class_names: tuple[str, ...]) -> list[str]:
    """Names of the classes that no image has; of labels (n, L): those not seen both as 0 and as 1."""
    truth = np.asarray(y)
    if truth.ndim == 1:
        seen = [(truth == k).any() for k in range(len(class_names))]
    else:
        seen = [(column == 0).any() and (column == 1).any() for column in truth.T]
    return [name for name, found in zip(class_names, seen, strict=True) if not found]


def _checked(y: ArrayLike, p: ArrayLike) -> tuple[Array, Floats]:
    truth, score = np.asarray(y), np.asarray(p, np.float64)
    if truth.ndim != 1 or truth.shape != score.shape:
        raise ValueError(f"y {truth.shape} and p {score.shape} must both be (n,)")
    return truth, score


def _called(p: ArrayLike) -> Array:
    """(n, K) probabilities -> (n,) most probable class."""
    return np.asarray(np.asarray(p).argmax(axis=1))


def _by_image(weights: Weights, num: int) -> Array:
    """(R, n) weights -> (n, R) floats, ones if there are none."""
    if weights is None:
        return np.ones((num, 1))
    if weights.ndim != 2 or weights.shape[1] != num:
        raise ValueError(f"weights {weights.shape} must be (resamples, {num})")
    return weights.T if weights.dtype.kind == "f" else weights.T.astype(np.float64)


def _sums(weights: Weights, columns: Floats) -> Floats:
    """Weighted sums of the (n, C) columns under each weight vector: one product, (R, C).

    Single precision is exact for counts of whole numbers; anything else is summed in double precision, or
    rounding would look like a spread over patients.
    """
    if weights is None:
        return np.asarray(columns.sum(axis=0, keepdims=True))
    by_image = _by_image(weights, columns.shape[0])
    if (columns != np.rint(columns)).any():
        by_image = by_image.astype(np.float64)
    return np.asarray((columns.astype(by_image.dtype).T @ by_image).T.astype(np.float64))


def _mean(weights: Weights, values: Floats, among: Array | None = None) -> Floats:
    """Weighted mean of (n,) values, among those chosen; (R,)."""
    chosen = np.ones_like(values) if among is None else among.astype(np.float64)
    sums = _sums(weights, np.stack([values * chosen, chosen], axis=1))
    return ratio(sums[:, 0], sums[:, 1])
