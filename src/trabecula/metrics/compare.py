"""Does an arm beat its baseline, and what is that worth in labels?

Arms are compared on the same patients and seeds under the same draws, so what the arms share
cancels. A learning curve is read backwards for the label multiplier: with how many times the labels
the baseline reaches what the arm reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trabecula.metrics.bootstrap import MIN_PATIENTS, MIN_RESAMPLES, TOO_FEW, interval
from trabecula.metrics.seeds import Unit

Array = NDArray[Any]
Floats = NDArray[np.float64]

NO_SPREAD = "not estimable: no resample differs"
_ROUNDING = 1e-12  # a spread below it is arithmetic, not patients


@dataclass(frozen=True)
class Difference:
    """Arm minus baseline; `p` is two-sided and below 1 - level exactly where the interval excludes 0.

    `low`, `high` and `p` are NaN where they cannot be estimated, and `note` says why.
    """

    value: float
    low: float
    high: float
    p: float
    num_seeds: int
    note: str = ""


def difference(
    values: ArrayLike,
    draws: ArrayLike,
    baseline_values: ArrayLike,
    baseline_draws: ArrayLike,
    df_patients: float,
    level: float = 0.95,
    units: Sequence[Unit] | None = None,
) -> Difference:
    """Paired difference of a metric.

    Args:
        values, baseline_values: (S,) of the same seeds in the same order.
        draws, baseline_draws: (R, S) under the same draws of patients.
        units: (S,) pretraining and label seed of each; None takes seeds that share nothing.
    The interval is Student's t with the bootstrap standard error of the difference
    (`bootstrap.interval`, scale "identity") and p is that t's two-sided tail.
    Where no resample differs (both arms all right, say) the data tell nothing of the spread: a width of
    zero would read as a proof.
    """
    own, base = np.atleast_1d(np.asarray(values, float)), np.atleast_1d(np.asarray(baseline_values, float))
    if own.shape != base.shape:
        raise ValueError(f"{own.size} seeds against {base.size}: pair the seeds first")
    apart = np.asarray(draws, float) - np.asarray(baseline_draws, float)
    found = interval(own - base, apart, df_patients, level, "identity", units)
    nan = float("nan")
    if found.error <= _ROUNDING:
        return Difference(found.value, nan, nan, nan, found.num_seeds, NO_SPREAD)
    p = float(2 * stats.t.sf(abs(found.value) / found.error, found.df)) if np.isfinite(found.error) else nan
    return Difference(found.value, found.low, found.high, p, found.num_seeds, found.note)


def holm(p_values: ArrayLike) -> Floats:
    """(m,) p-values adjusted for m comparisons; NaN stay NaN and are not counted.

    Source: Holm, Scandinavian Journal of Statistics 1979; 6: 65-70.
    """
    p = np.asarray(p_values, float)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1) if order.size else steps
    return adjusted


def isotonic(values: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Non-decreasing least-squares fit along the last axis, (..., F) -> (..., F).

    Pool adjacent violators in its min-max form, max over a <= i of min over b >= i of the mean of
    a..b, which serves all resamples at once; curves have few points.
    Source: Barlow et al., Statistical Inference under Order Restrictions, 1972, equation 1.9.
    """
    y = np.asarray(values, float)
    w = np.ones(y.shape[-1]) if weights is None else np.asarray(weights, float)
    num = y.shape[-1]
    mean = np.full((num, num, *y.shape[:-1]), np.inf)
    for a in range(num):
        for b in range(a, num):
            mean[a, b] = (y[..., a : b + 1] * w[a : b + 1]).sum(axis=-1) / w[a : b + 1].sum()
    fit = [mean[: i + 1, i:].min(axis=1).max(axis=0) for i in range(num)]
    result: Floats = np.stack(fit, axis=-1)
    return result


@dataclass(frozen=True)
class Multiplier:
    """How many times the labels; censored "above" or "below" where the baseline's curve ends first.

    A censored value stands at the end of the curve. `low` is 0 and `high` infinite where the curve
    ends before that bound is reached. Both are NaN where they cannot be estimated, and `note` says why.
    """

    value: float
    low: float
    high: float
    censored: str
    note: str = ""


def label_multiplier(
    num_patients: Sequence[float],
    baseline: ArrayLike,
    baseline_draws: ArrayLike,
    at: float,
    value: float,
    draws: ArrayLike,
    df_patients: float,
    level: float = 0.95,
) -> Multiplier:
    """The baseline's labels for the arm's value, divided by the arm's labels.

    Args:
        num_patients: (F,) labelled training patients at the baseline's fractions, increasing.
        baseline: (F,) its metric (higher is better). baseline_draws: (R, F) under the draws.
        at: the arm's labelled training patients. value, draws (R,): the arm's metric there.
        df_patients: see `bootstrap.degrees_of_freedom`.
    The baseline's curve is made non-decreasing and joined linearly over the logarithm of the
    patients. The interval is the percentile interval of the same reading under each draw;
    there is none where a difference has none.
    """
    x = np.log(np.asarray(num_patients, float))
    curve = isotonic(baseline)
    point = float(_read(x, curve[None], np.array([value]))[0])
    nan, own, base = float("nan"), np.asarray(draws, float), np.asarray(baseline_draws, float)
    each = _read(x, isotonic(base), own)
    each = each[~np.isnan(each)]
    if np.isnan(point) or not each.size:
        return Multiplier(nan, nan, nan, "", "not estimable")
    ratio = float(np.exp(np.clip(point, x[0], x[-1])) / at)
    censored = "above" if point == np.inf else "below" if point == -np.inf else ""
    if df_patients < MIN_PATIENTS - 1 or each.size < MIN_RESAMPLES:
        return Multiplier(ratio, nan, nan, censored, TOO_FEW)
    tail = (1 - level) / 2
    low, high = (float(v) for v in np.quantile(each, [tail, 1 - tail], method="nearest"))
    table = np.column_stack([own, base])
    table = table[np.isfinite(table).all(axis=1)]
    alike = np.isfinite(low) and high - low <= _ROUNDING
    if alike or np.ptp(table, axis=0).max() <= _ROUNDING:
        return Multiplier(nan, nan, nan, "", NO_SPREAD)
    bounds = [float(np.exp(np.clip(v, x[0], x[-1])) / at) for v in (low, high)]
    return Multiplier(
        ratio,
        0.0 if low == -np.inf else bounds[0],
        float("inf") if high == np.inf else bounds[1],
        censored,
    )


def _read(x: Floats, curves: Floats, values: Floats) -> Floats:
    """First x at which each (R, F) non-decreasing curve reaches its (R,) value; -inf, inf outside."""
    position = (curves < values[:, None]).sum(axis=1)  # first point that reaches the value
    upper = np.clip(position, 1, x.size - 1) if x.size > 1 else np.zeros_like(position)
    rows, lower = np.arange(len(curves)), np.maximum(upper - 1, 0)
    rise = curves[rows, upper] - curves[rows, lower]
    share = np.divide(values - curves[rows, lower], rise, out=np.zeros_like(rise), where=rise > 0)
    inside = x[lower] + np.clip(share, 0, 1) * (x[upper] - x[lower])
    found = np.where(position >= x.size, np.inf, inside)
    found = np.where(values < curves[:, 0], -np.inf, found)
    result: Floats = np.where(np.isnan(curves).any(axis=1) | np.isnan(values), np.nan, found)
    return result
