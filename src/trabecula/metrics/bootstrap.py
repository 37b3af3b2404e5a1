"""Intervals over patients, and over patients and seeds.

Images of a patient are alike, so patients are resampled, never images. A resample is a count for
each patient; the same counts serve every arm, seed and metric of a task, which makes differences
paired. Why this interval and not another: docs/concepts/evaluation.md, from bench/coverage.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trabecula.metrics.seeds import MIN_SEEDS, Layout, Unit, layout_of

Array = NDArray[Any]
Floats = NDArray[np.float64]
Scale = Literal["logit", "fisher", "log", "identity"]

MIN_PATIENTS = 5  # of the smaller class: below, a spread over patients cannot be estimated
TOO_FEW = f"fewer than {MIN_PATIENTS} patients in a class: no interval"
MIN_RESAMPLES = 20  # of those in which the value exists


def resample(patients: ArrayLike, num_resamples: int, seed: int) -> Array:
    """Weights of the images in `num_resamples` draws of patients with replacement.

    Args:
        patients: (n,) patient id of each image.
    Returns:
        (num_resamples, n) float32 counts; its transpose is contiguous. Depends on the set of patients
        and the seed only: an image's weight does not change with the order of the images.
    """
    ids, position = np.unique(np.asarray(patients), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(ids.size, size=(num_resamples, ids.size), dtype=np.int32)
    cells = drawn.astype(np.int64) * num_resamples + np.arange(num_resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=ids.size * num_resamples)
    by_patient = counts.reshape(ids.size, num_resamples).astype(np.float32)
    weights: Array = by_patient[position].T
    return weights


def resample_seeds(num_seeds: int, num_resamples: int, seed: int, stream: int = 1) -> Floats:
    """(num_resamples, num_seeds) weights, rows summing to 1, of draws of seeds with replacement.

    The deviations from 1 / S are stretched by sqrt(S / (S - 1)): S seeds drawn from S spread less, by
    that factor, than the means of S new seeds do. Fewer than `MIN_SEEDS` are not resampled.
    """
    if num_seeds < MIN_SEEDS:
        return np.full((num_resamples, num_seeds), 1 / num_seeds)
    rng = np.random.default_rng([seed, stream])
    drawn = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=num_resamples)
    stretch = np.sqrt(num_seeds / (num_seeds - 1))
    result: Floats = 1 / num_seeds + stretch * (drawn / num_seeds - 1 / num_seeds)
    return result


def resample_units(units: Sequence[Unit], num_resamples: int, seed: int) -> Floats:
    """(num_resamples, S) weights, rows summing to 1, of draws of the seeds that an interval is over.

    Label seeds and pretrainings are drawn apart where both are crossed, and the weights of a pair multiplied.
    """
    layout = layout_of(units)
    if layout.kind == "plain":
        return resample_seeds(len(units), num_resamples, seed)
    num_pretrainings, num_labels = layout.order.shape
    labels, pretrainings = (np.full((num_resamples, n), 1 / n) for n in (num_labels, num_pretrainings))
    if layout.kind in ("encoders", "crossed"):
        labels = resample_seeds(num_labels, num_resamples, seed)
    if layout.kind in ("labels", "crossed"):
        pretrainings = resample_seeds(num_pretrainings, num_resamples, seed, stream=2)
    weights = np.empty((num_resamples, len(units)))
    weights[:, layout.order.ravel()] = (pretrainings[:, :, None] * labels[:, None, :]).reshape(
        num_resamples, -1
    )
    return weights


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; NaN where it cannot be estimated, and `note` says why."""

    value: float
    low: float
    high: float
    error: float  # standard error
    df: float  # degrees of freedom of the error
    sd_seeds: float  # standard deviation over seeds; NaN for one seed
    num_seeds: int
    note: str = ""


def degrees_of_freedom(class_patients: Sequence[int]) -> float:
    """Degrees of freedom of a spread over patients: one less than the patients of the smallest class.

    Args:
        class_patients: patients with an image of each class; one number for a metric without classes.
    """
    return float(min(class_patients) - 1)


def variance(values: Floats, draws: Floats, df_patients: float) -> tuple[float, float]:
    """Variance of the mean over seeds, and its degrees of freedom.

    Args:
        values: (S,) the metric of each seed. draws: (R, S) the same under R resamples of patients.
    With fewer than `MIN_SEEDS` seeds: over patients, for these seeds. Otherwise seeds and patients
    are crossed: patients + seeds - (their interaction, which both of them hold), after the analysis of
    variance of a two-way layout (Owen, Ann. Appl. Stat. 2007; 1: 386-411, shows that draws of both
    together count the interaction up to three times). Degrees of freedom after Satterthwaite,
    Biometrics Bulletin 1946; 2: 110-114.
    """
    num = values.size
    over_patients = float(draws.mean(axis=1).var(ddof=1))
    if num < MIN_SEEDS:
        return over_patients, df_patients
    each = float(draws.var(axis=0, ddof=1).mean())
    interaction = max(0.0, (each - over_patients) / (num - 1))
    between = float(values.var(ddof=1)) / num  # seeds and interaction
    if between <= interaction:
        return over_patients, df_patients
    total = over_patients + between - interaction
    # the two estimates whose sum this is: one over patients only, one over seeds
    df = total**2 / ((over_patients - interaction) ** 2 / df_patients + between**2 / (num - 1))
    return total, df


def crossed_variance(values: Floats, draws: Floats, df_patients: float) -> tuple[float, float]:
    """Variance of the mean over crossed pretraining and label seeds, and its degrees of freedom.

    Args:
        values: (P, L). draws: (R, P, L) under R resamples of patients.
    Patients + seeds - interaction as in `variance`, with seeds in a random-effects two-way layout:
    (MS_pretraining + MS_label - MS_residual) / (P L). What patients add to each mean square is estimated
    from the same layout of the draws' variances. Chance may make the difference smaller than one of its
    terms: it is never taken smaller than the larger of the two.
    """
    num, df = np.array(values.shape), np.array(values.shape) - 1.0
    over_patients = float(draws.mean(axis=(1, 2)).var(ddof=1))
    each = float(draws.var(axis=0, ddof=1).mean())
    pretraining, label = (float(draws.mean(axis=axis).var(axis=0, ddof=1).mean()) for axis in (2, 1))
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    square = (rest**2).sum() / df.prod() / num.prod()
    squares = np.array([values.mean(axis=1 - i).var(ddof=1) / num[i] for i in (0, 1)])
    of_patients = np.maximum((np.array([pretraining, label]) - over_patients) / df, 0)
    of_both = max(0.0, (each - pretraining - label + over_patients) / df.prod())
    found = [
        (*(float(v) for v in (squares.sum() - square, of_patients.sum() - of_both)),
         float((squares**2 / df).sum() + square**2 / df.prod())),
        *((float(squares[i]), float(of_patients[i]), float(squares[i] ** 2 / df[i])) for i in (0, 1)),
    ]  # fmt: skip
    between, interaction, spread = max(found, key=lambda one: one[0] - one[1])
    if between <= interaction:
        return over_patients, df_patients
    total = over_patients + between - interaction
    return total, total**2 / ((over_patients - interaction) ** 2 / df_patients + spread)


def interval(
    values: ArrayLike,
    draws: ArrayLike,
    df_patients: float,
    level: float = 0.95,
    scale: Scale = "logit",
    units: Sequence[Unit] | None = None,
) -> Interval:
    """Student's t interval on a transformed scale with a bootstrap standard error.

    Args:
        values: (S,) the metric of each seed on the data. draws: (R, S) under resamples of patients;
            resamples with a NaN are left out.
        df_patients: see `degrees_of_freedom`.
        scale: "logit" for metrics in [0, 1], "fisher" (atanh) in [-1, 1], "log" for errors from 0 up,
            "identity" for differences.
        units: (S,) pretraining and label seed of each; None takes seeds that share nothing.
    """
    point, table = np.atleast_1d(np.asarray(values, float)), np.asarray(draws, float)
    table = table.reshape(len(table), point.size)
    value, sd = float(point.mean()), float(point.std(ddof=1)) if point.size > 1 else float("nan")
    nan = float("nan")
    if not np.isfinite(point).all():
        return Interval(nan, nan, nan, nan, nan, nan, point.size, "not estimable")
    table = table[np.isfinite(table).all(axis=1)]
    if df_patients < MIN_PATIENTS - 1 or len(table) < MIN_RESAMPLES:
        return Interval(value, nan, nan, nan, nan, sd, point.size, TOO_FEW)
    layout = Layout("plain", np.arange(point.size)[None]) if units is None else layout_of(units)
    estimate = crossed_variance if layout.kind == "crossed" else variance
    total, df = estimate(layout.averaged(point), layout.averaged(table), df_patients)
    error = float(np.sqrt(total))
    quantile = float(stats.t.ppf((1 + level) / 2, df))
    low, high, note = _bounds(value, error, quantile, scale, (1 - level) / 2, df_patients + 1)
    note = "; ".join(filter(None, [layout.note, note]))
    return Interval(value, low, high, error, df, sd, point.size, note)


def _bounds(
    value: float, error: float, quantile: float, scale: Scale, tail: float, num_patients: float
) -> tuple[float, float, str]:
    if scale == "identity":
        return value - quantile * error, value + quantile * error, ""
    if scale == "log":
        if value <= 0 or error == 0:
            return value, value, "no spread over patients"
        step = quantile * error / value
        return value * float(np.exp(-step)), value * float(np.exp(step)), ""
    # work on [0, 1]: atanh(v) is half the logit of (1 + v) / 2
    share, spread = (value, error) if scale == "logit" else ((1 + value) / 2, error / 2)
    if share <= 0 or share >= 1 or error == 0:
        low, high, note = _at_bound(share, tail, num_patients)
    else:
        centre, step = np.log(share / (1 - share)), quantile * spread / (share * (1 - share))
        low, high = (float(1 / (1 + np.exp(-(centre + sign * step)))) for sign in (-1, 1))
        note = ""
    return (low, high, note) if scale == "logit" else (2 * low - 1, 2 * high - 1, note)


def _at_bound(share: float, tail: float, num_patients: float) -> tuple[float, float, str]:
    """No resample differs: the exact binomial limits for as many patients, each all right or wrong."""
    right = round(share * num_patients)
    wrong = num_patients - right
    low = float(stats.beta.ppf(tail, right, wrong + 1)) if right > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, right + 1, wrong)) if wrong > 0 else 1.0
    return low, high, "no spread over patients: exact binomial limits"
