"""Which metrics a kind of task has, for one prediction and for all resamples of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trabecula.metrics import classification as c
from trabecula.metrics.bootstrap import MIN_PATIENTS, Scale

Array = NDArray[Any]
Floats = NDArray[np.float64]

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

_BLOCK = 8_000_000  # weights looked at together: 32 MB


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
        having = [[set(self.patients[column == v].tolist()) for v in (1, 0)] for column in self.y.T]
        return {name: (one, other) for name, (one, other) in zip(self.class_names, having, strict=True)}


def scale_of(metric: str) -> Scale:
    if metric == "quadratic_kappa":
        return "fisher"
    return "log" if metric in ("brier", "mae") else "logit"


def score(
    sample: Sample, p: Floats, threshold: float, chosen: Sequence[str], weighted: bool
) -> dict[str, Floats]:
    """Metrics of one prediction.

    Args:
        p: (n, K). threshold: of a binary task; NaN leaves what needs it NaN.
        weighted: under the sample's weights, else once on the images as they are.
    Returns:
        metric -> (R,) or (1,).
    """
    if not weighted:
        return _score(sample, p, threshold, chosen, None)
    step = max(1, _BLOCK // max(1, len(sample.y)))
    parts = [
        _score(sample, p, threshold, chosen, sample.weights[i : i + step])
        for i in range(0, len(sample.weights), step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _score(
    sample: Sample, p: Floats, threshold: float, chosen: Sequence[str], weights: Array | None
) -> dict[str, Floats]:
    if sample.kind == "binary":
        return _binary(sample.y, p[:, 1], threshold, chosen, weights)
    if sample.kind == "multilabel":
        return _multilabel(sample, p, weights)
    functions = {
        "balanced_accuracy": c.balanced_accuracy,
        "quadratic_kappa": c.quadratic_kappa,
        "auroc_macro": c.auroc_macro,
        "accuracy": c.accuracy,
        "mae": c.mean_absolute_error,
        "brier": c.brier,
        "ece": c.calibration_error,
    }
    return {name: functions[name](sample.y, p, weights) for name in chosen}


def _binary(
    y: Array, p: Floats, threshold: float, chosen: Sequence[str], weights: Array | None
) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    if "average_precision" in chosen:
        found["auroc"], found["average_precision"] = c.auroc_and_precision(y, p, weights)
    elif "auroc" in chosen:
        found["auroc"] = c.auroc(y, p, weights)
    if "brier" in chosen:
        found["brier"] = c.brier(y, p, weights)
    if "ece" in chosen:
        found["ece"] = c.calibration_error(y, p, weights)
    if {"balanced_accuracy", "sensitivity", "specificity"} & set(chosen):
        lost = np.nan if np.isnan(threshold) else 0.0
        found["sensitivity"] = c.sensitivity(y, p, threshold, weights) + lost
        found["specificity"] = c.specificity(y, p, threshold, weights) + lost
        found["balanced_accuracy"] = (found["sensitivity"] + found["specificity"]) / 2
    return {name: found[name] for name in chosen}


def _multilabel(sample: Sample, p: Floats, weights: Array | None) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    for k, label in enumerate(sample.class_names):
        known = sample.y[:, k] >= 0
        part = None if weights is None else weights.T[known].T
        found[f"auroc[{label}]"] = c.auroc(sample.y[known, k], p[known, k], part)
    there = [found[f"auroc[{label}]"] for label in averaged(sample)]
    macro = np.mean(there, axis=0) if there else np.full_like(next(iter(found.values())), np.nan)
    return {"auroc_macro": macro, **found}


def averaged(sample: Sample) -> list[str]:
    """The labels whose AUROCs the macro AUROC is the mean of; the same for every arm and resample.

    Labels that fewer than `MIN_PATIENTS` patients have, or lack, are left out: resamples without one of
    them have no mean, and its spread could not be told. Where that leaves none, all that have a value.
    """
    enough = [label for label in sample.class_names if _patients(sample, label) >= MIN_PATIENTS]
    return enough or [label for label in sample.class_names if _patients(sample, label)]


def _patients(sample: Sample, label: str) -> int:
    """Patients with the label, or without it, whichever are fewer."""
    return min(map(len, sample.sides[label]))


def smallest_class(sample: Sample, metric: str) -> int:
    """Patients of the smallest class that the metric's error depends on."""
    y, patients = sample.y, sample.patients

    def having(mask: Array) -> int:
        return int(np.unique(patients[mask]).size)

    if sample.kind == "multilabel":
        named = [label for label in sample.class_names if metric == f"auroc[{label}]"]
        return min((_patients(sample, label) for label in named or averaged(sample)), default=0)
    if metric in ("sensitivity", "specificity"):
        return having(y == (1 if metric == "sensitivity" else 0))
    if metric in ("auroc", "average_precision", "balanced_accuracy", "auroc_macro"):
        return min((having(y == k) for k in np.unique(y)), default=0)
    return sample.num_patients


def degrees_of_freedom(sample: Sample, metric: str, draws: Sequence[Mapping[str, Floats]]) -> float:
    """Degrees of freedom of a metric's spread over patients.

    One less than the patients of the smallest class; of a macro AUROC those of its labels put together
    after Satterthwaite, Biometrics Bulletin 1946; 2: 110-114: a rare label counts by its part in the spread.
    Where labels are the same patients', they are no more than these patients give.

    Args:
        draws: of each seed, metric -> (R,) under resamples of patients.
    """
    least = smallest_class(sample, metric) - 1.0
    if sample.kind != "multilabel" or metric != "auroc_macro" or least < 1:
        return least
    labels = averaged(sample)
    spread = np.mean([[np.nanvar(draw[f"auroc[{label}]"]) for label in labels] for draw in draws], axis=0)
    each = np.array([_patients(sample, label) - 1.0 for label in labels])
    if not spread.any():
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
    absent = c.missing_classes(sample.y, sample.class_names)
    if metric.startswith("auroc[") and metric[6:-1] in absent:
        return "not estimable: the test images have one class"
    if sample.kind == "binary" and absent and metric not in ("brier", "ece"):
        return f"not estimable: no test image of class {absent[0]}"
    at_threshold = ("balanced_accuracy", "sensitivity", "specificity")
    if sample.kind == "binary" and metric in at_threshold and not has_threshold:
        return "not estimable: no threshold was chosen on validation"
    if sample.kind == "multilabel" and metric == "auroc_macro":
        few = [label for label in sample.class_names if label not in (*absent, *averaged(sample))]
        left_out = (
            (absent, "test images of one class"),
            (few, f"fewer than {MIN_PATIENTS} test patients with it, or without"),
        )
        return "; ".join(f"left out, {why}: {', '.join(labels)}" for labels, why in left_out if labels)
    if absent and metric in ("balanced_accuracy", "auroc_macro"):
        return f"left out, no test image: {', '.join(absent)}"
    return ""
