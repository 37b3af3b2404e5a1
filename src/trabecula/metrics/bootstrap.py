"""Intervals over patients and seeds, paired differences with their p, label multipliers.

Images of a patient are alike, so patients are resampled, never images. A resample is a count for
each patient; the same counts serve every arm, seed and metric of a task, which makes differences
paired: what two arms share cancels. Why this interval and not another: docs/concepts/evaluation.md, from
bench/coverage.py.

A unit is (pretraining seed, label seed). Where each pretraining has several label seeds, the units of one
pretraining are alike: they are not independent draws. `Layout` says what an interval over units is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Scale = Literal["logit", "fisher", "log", "identity"]
Unit = tuple[int, int]
"""(pretraining seed, label seed): what is called a seed in intervals."""
Kind = Literal["plain", "crossed", "encoders", "labels", "models"]

MIN_SEEDS = 5
"""Fewer seeds say too little of the seeds' spread: an interval is over patients only, for these seeds."""
MIN_PATIENTS = 5  # of the smaller class: below, a spread over patients cannot be estimated
TOO_FEW = f"fewer than {MIN_PATIENTS} patients in a class: no interval"
MIN_RESAMPLES = 20  # of those in which the value exists
NO_SPREAD = "not estimable: no resample differs"
NO_INTERVAL = "no resample differs: no interval"
FEW_SEEDS = f"fewer than {MIN_SEEDS} seeds: no interval"
SPEAKS_OF = "speaks of "
"""How a note begins whose interval and claim are for the very models that were trained."""
ROUNDING = 1e-12
"""A spread at most this part of the values that it is of is rounding: it counts as none."""


@np.errstate(invalid="ignore", divide="ignore")
def ratio(above: Array, below: Array) -> Floats:
    """NaN or infinite without a warning where nothing is divided by."""
    return np.asarray(above / below)


@dataclass(frozen=True)
class Layout:
    """How S units are laid out.

    kind: "plain": one pretraining, or one label seed in each; "crossed": enough of both; "encoders":
        enough label seeds for an interval, for these few pretrainings; "labels": the other way round;
        "models": too few of both, or not the same label seeds in each pretraining.
    order: (P, L) positions of the units by pretraining and label seed; (1, S) where they are not crossed.
    """

    kind: Kind
    order: Ints

    @property
    def note(self) -> str:
        """What the interval is for, in words; "" for plain seeds."""
        pretrainings, labels = self.order.shape
        return {
            "plain": "",
            "crossed": "over new pretrainings, label seeds and patients",
            "encoders": f"{SPEAKS_OF}these {pretrainings} encoders: over new label seeds and patients",
            "labels": f"{SPEAKS_OF}these {labels} label seeds: over new pretrainings and patients",
            "models": f"{SPEAKS_OF}these {self.order.size} trained models: over new patients",
        }[self.kind]

    def averaged(self, table: Array) -> Floats:
        """(..., S) -> (..., seeds that the interval is over); (..., P, L) where both are crossed."""
        if self.kind == "plain":
            return table
        grid: Floats = table[..., self.order]
        if self.kind == "models":
            return np.asarray(grid.mean(axis=(-2, -1)))[..., None]
        return grid if self.kind == "crossed" else grid.mean(axis=-2 if self.kind == "encoders" else -1)


def layout_of(units: Sequence[Unit]) -> Layout:
    """How units are laid out, whatever their order."""
    pretrainings, labels = (sorted({unit[i] for unit in units}) for i in (0, 1))
    flat = np.arange(len(units))[None]
    if len(pretrainings) in (1, len(units)):
        return Layout("plain", flat)
    at = {unit: i for i, unit in enumerate(units)}
    if len(units) != len(pretrainings) * len(labels) or len(at) != len(units):
        return Layout("models", flat)
    enough = len(pretrainings) >= MIN_SEEDS, len(labels) >= MIN_SEEDS
    kinds: dict[tuple[bool, bool], Kind] = {
        (True, True): "crossed", (False, True): "encoders", (True, False): "labels", (False, False): "models",
    }  # fmt: skip
    return Layout(kinds[enough], np.array([[at[p, s] for s in labels] for p in pretrainings]))


def has_enough_seeds(units: Sequence[Unit]) -> bool:
    """Whether resamples of these units say how far new seeds would move a mean."""
    return len(units) >= MIN_SEEDS and layout_of(units).kind != "models"


def resample(patients: ArrayLike, num_resamples: int, seed: int) -> Array:
    """Weights of the images of patients (n,) in `num_resamples` draws of patients with replacement.

    (num_resamples, n) float32 counts; its transpose is contiguous. They depend on the set of patients and the
    seed only: an image's weight does not change with the order of the images.
    """
    ids, position = np.unique(np.asarray(patients), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(ids.size, size=(num_resamples, ids.size), dtype=np.int32)
    cells = drawn.astype(np.int64) * num_resamples + np.arange(num_resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=ids.size * num_resamples)
    return np.asarray(counts.reshape(ids.size, num_resamples).astype(np.float32)[position].T)


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
    return np.asarray(1 / num_seeds + stretch * (drawn / num_seeds - 1 / num_seeds))


def resample_units(units: Sequence[Unit], num_resamples: int, seed: int) -> Floats:
    """(num_resamples, S) weights, rows summing to 1, of draws of the seeds that an interval is over.

    Label seeds and pretrainings are drawn apart where both are crossed, and the weights of a pair multiplied.
    """
    layout = layout_of(units)
    if layout.kind == "plain":
        return resample_seeds(len(units), num_resamples, seed)
    if layout.kind == "models":
        return np.full((num_resamples, len(units)), 1 / len(units))
    num_pretrainings, num_labels = layout.order.shape  # too few of one are not resampled
    labels = resample_seeds(num_labels, num_resamples, seed)
    pretrainings = resample_seeds(num_pretrainings, num_resamples, seed, stream=2)
    weights = np.empty((num_resamples, len(units)))
    weights[:, layout.order] = pretrainings[:, :, None] * labels[:, None, :]
    return weights


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; NaN where it cannot be estimated, and `note`, where given, says why."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Interval(Estimate):
    """An estimate, and how sure it is."""

    spread: Spread | None  # None where there is no interval
    sd_seeds: float  # standard deviation over seeds; NaN for one seed
    num_seeds: int
    note: str = ""


def degrees_of_freedom(class_patients: Sequence[int]) -> float:
    """One less than the patients of the smallest class, or, for a metric without classes, than all."""
    return float(min(class_patients) - 1)


Part = tuple[float, float]
"""A variance and its degrees of freedom."""


@dataclass(frozen=True)
class Spread:
    """Variance of a mean, and how well it is known.

    sums: of independent parts, that over patients and that over seeds. The largest of them counts, at every
    level: the estimate over patients alone, and the two parts together.
    """

    sums: tuple[tuple[Part, ...], ...]

    @property
    def error(self) -> float:
        """Standard error."""
        return float(np.sqrt(max(sum(variance for variance, _ in parts) for parts in self.sums)))

    def half_width(self, tail: float) -> float:
        """Half the width of an interval that leaves out `tail` on either side: sqrt(sum_i t_i^2 v_i).

        t_i is the quantile of Student's t with the part's own degrees of freedom. This interval holds the
        truth at least as often as it says (Banerjee, Sankhya 1960; 22: 357-358). One t
        with Satterthwaite's degrees of freedom holds it as often at 95 %, and too seldom far out, where p of
        many comparisons is read: chance may make five seeds look alike.
        """
        return float(
            np.sqrt(max(sum(v * stats.t.isf(tail, df) ** 2 for v, df in parts) for parts in self.sums))
        )

    def p(self, value: float) -> float:
        """Two-sided p of a value: 1 - the level of the interval about it that just reaches 0."""
        if value == 0:
            return 1.0
        low, high = -150.0, float(np.log10(0.5))  # of the logarithm of one tail; its t squared is finite
        if self.half_width(10**low) <= abs(value):
            return 0.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.half_width(10**middle) > abs(value) else (low, middle)
        return float(2 * 10**high)


def variance(values: Floats, draws: Floats, df_patients: float) -> Spread:
    """Variance of the mean over seeds.

    values (S,) of each seed, draws (R, S) the same under R resamples of patients.
    With fewer than `MIN_SEEDS` seeds: over patients, for these seeds. Otherwise seeds and patients
    are crossed: patients + seeds - (their interaction, which both of them hold), after the analysis of
    variance of a two-way layout (Owen, Ann. Appl. Stat. 2007; 1: 386-411, shows that draws of both
    together count the interaction up to three times), and never less than over patients alone.
    """
    num = values.size
    over_patients = float(draws.mean(axis=1).var(ddof=1))
    alone = ((over_patients, df_patients),)
    if num < MIN_SEEDS:
        return Spread((alone,))
    each = float(draws.var(axis=0, ddof=1).mean())
    interaction = max(0.0, (each - over_patients) / (num - 1))
    between = float(values.var(ddof=1)) / num  # seeds and interaction
    rest = max(over_patients - interaction, 0.0)
    return Spread((alone, ((rest, df_patients), (between, num - 1.0))))


def crossed_variance(values: Floats, draws: Floats, df_patients: float) -> Spread:
    """Variance of the mean over crossed pretraining and label seeds.

    values (P, L), draws (R, P, L) under R resamples of patients.
    Patients + seeds - interaction as in `variance`, with seeds in a random-effects two-way layout:
    (MS_pretraining + MS_label - MS_residual) / (P L). What patients add to each mean square is estimated
    from the same layout of the draws' variances. Chance may make the difference smaller than one of its
    terms: it is never taken smaller than the larger of the two. Degrees of freedom of the seeds' part after
    Satterthwaite, Biometrics Bulletin 1946; 2: 110-114, no fewer than pretrainings or label seeds have.
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
    of_squares = (squares**2 / df).sum() + square**2 / df.prod()
    found: list[tuple[Any, ...]] = [(squares.sum() - square, of_patients.sum() - of_both, of_squares)]
    found += [(squares[i], of_patients[i], squares[i] ** 2 / df[i]) for i in (0, 1)]
    largest = max(found, key=lambda one: float(one[0] - one[1]))
    between, interaction, spread = map(float, largest)
    alone = ((over_patients, df_patients),)
    if between <= 0:
        return Spread((alone,))
    of_seeds = (between, max(between**2 / spread, float(df.min())))
    return Spread((alone, ((max(over_patients - interaction, 0.0), df_patients), of_seeds)))


def interval(
    values: ArrayLike, draws: ArrayLike, df_patients: float, level: float = 0.95,
    scale: Scale = "logit", units: Sequence[Unit] | None = None, magnitude: float = 0.0,
) -> Interval:  # fmt: skip
    """Student's t interval on a transformed scale with a bootstrap standard error.

    A value at the end of its range (all right, all wrong) has exact binomial limits. Any other value that no
    resample changes has no interval: the draws tell nothing of its spread, and a width of zero would read as
    a proof.

    Args:
        values: (S,) the metric of each seed on the data. draws: (R, S) under resamples of patients;
            resamples with a NaN are left out.
        df_patients: see `degrees_of_freedom`.
        scale: "logit" for metrics in [0, 1], "fisher" (atanh) in [-1, 1], "log" for errors from 0 up,
            "identity" for differences.
        units: (S,) pretraining and label seed of each; None takes seeds that share nothing.
        magnitude: of the numbers that the values are differences of, whose rounding is no spread.
    """
    point, table = np.atleast_1d(np.asarray(values, float)), np.asarray(draws, float)
    table = table.reshape(len(table), point.size)
    value, sd = float(point.mean()), float(point.std(ddof=1)) if point.size > 1 else nan
    if not np.isfinite(point).all():
        return Interval(nan, nan, nan, None, nan, point.size, "not estimable")
    table = table[np.isfinite(table).all(axis=1)]
    if df_patients < MIN_PATIENTS - 1 or len(table) < MIN_RESAMPLES:
        return Interval(value, nan, nan, None, sd, point.size, TOO_FEW)
    layout = Layout("plain", np.arange(point.size)[None]) if units is None else layout_of(units)
    estimate = crossed_variance if layout.kind == "crossed" else variance
    spread, tail = estimate(layout.averaged(point), layout.averaged(table), df_patients), (1 - level) / 2
    if scale == "fisher":
        magnitude = 1.0  # a kappa is a difference from 1
    varies = spread.error > ROUNDING * max(magnitude, _largest(point, table))
    step = spread.half_width(tail) if varies else nan
    low, high, note = _bounds(value, step, scale, tail, df_patients + 1)
    note = "; ".join(filter(None, [layout.note, note]))
    return Interval(value, low, high, spread, sd, point.size, note)


def _largest(*tables: Floats) -> float:
    """The largest absolute value that is a number; 0 where there is none."""
    return max((float(np.abs(t[np.isfinite(t)]).max(initial=0)) for t in tables), default=0.0)


def _bounds(
    value: float, step: float, scale: Scale, tail: float, num_patients: float
) -> tuple[float, float, str]:
    """Limits of a value and a note; `step`: half the width as it stands, NaN where no resample differs."""
    if scale in ("logit", "fisher"):  # work on [0, 1]: atanh(v) is half the logit of (1 + v) / 2
        share, width = (value, step) if scale == "logit" else ((1 + value) / 2, step / 2)
        if share <= ROUNDING or share >= 1 - ROUNDING:  # all patients right, or all wrong
            low, high = (
                (0.0, 1 - tail ** (1 / num_patients)) if share < 0.5 else (tail ** (1 / num_patients), 1.0)
            )
            note = "at the end of its range: exact binomial limits"
        else:
            centre, width = np.log(share / (1 - share)), width / (share * (1 - share))
            low, high = (float(1 / (1 + np.exp(-(centre + sign * width)))) for sign in (-1, 1))
            note = NO_INTERVAL if np.isnan(step) else ""
        return (low, high, note) if scale == "logit" else (2 * low - 1, 2 * high - 1, note)
    if np.isnan(step) or (scale == "log" and value <= 0):
        return nan, nan, NO_INTERVAL
    if scale == "log":
        return value * float(np.exp(-step / value)), value * float(np.exp(step / value)), ""
    return value - step, value + step, ""


@dataclass(frozen=True)
class Difference(Estimate):
    """Arm minus baseline; `p` is two-sided and below 1 - level exactly where the interval excludes 0."""

    p: float
    num_seeds: int
    note: str = ""


def difference(
    values: ArrayLike, draws: ArrayLike, baseline_values: ArrayLike, baseline_draws: ArrayLike,
    df_patients: float, level: float = 0.95, units: Sequence[Unit] | None = None,
) -> Difference:  # fmt: skip
    """Paired difference of a metric: `interval` on the scale "identity", and p (`Spread.p`).

    Args:
        values, baseline_values: (S,) of the same seeds in the same order.
        draws, baseline_draws: (R, S) under the same draws of patients.
    Where no resample differs (both arms all right, say, or both call one class) the data tell nothing of the
    spread: a width of zero would read as a proof. With fewer than `MIN_SEEDS` seeds the note says that claim
    and interval are for these trained networks.
    """
    own, base = np.atleast_1d(np.asarray(values, float)), np.atleast_1d(np.asarray(baseline_values, float))
    if own.shape != base.shape:
        raise ValueError(f"{own.size} seeds against {base.size}: pair the seeds first")
    drawn, base_drawn = np.asarray(draws, float), np.asarray(baseline_draws, float)
    magnitude = _largest(own, base, drawn, base_drawn)
    found = interval(own - base, drawn - base_drawn, df_patients, level, "identity", units, magnitude)
    if found.spread is None:
        return Difference(found.value, found.low, found.high, nan, found.num_seeds, found.note)
    if found.spread.error <= ROUNDING * magnitude:
        return Difference(found.value, nan, nan, nan, found.num_seeds, NO_SPREAD)
    p = found.spread.p(found.value)
    note = found.note or (these_networks(found.num_seeds) if found.num_seeds < MIN_SEEDS else "")
    return Difference(found.value, found.low, found.high, p, found.num_seeds, note)


def these_networks(num_seeds: int) -> str:
    """The note of a comparison of few seeds: whom interval and claim are for."""
    whom = "this 1 trained network" if num_seeds == 1 else f"these {num_seeds} trained networks"
    return f"{SPEAKS_OF}{whom} of each arm: over new patients, not new seeds"


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
    num = y.shape[-1]
    w = np.ones(num) if weights is None else np.asarray(weights, float)
    mean = np.full((num, num, *y.shape[:-1]), np.inf)
    for a in range(num):
        for b in range(a, num):
            mean[a, b] = (y[..., a : b + 1] * w[a : b + 1]).sum(axis=-1) / w[a : b + 1].sum()
    return np.stack([mean[: i + 1, i:].min(axis=1).max(axis=0) for i in range(num)], axis=-1)


@dataclass(frozen=True)
class Multiplier(Estimate):
    """How many times the labels; censored "above" or "below" where the baseline's curve ends first.

    A censored value stands at the end of the curve. `low` is 0 and `high` infinite where the curve
    ends before that bound is reached.
    """

    censored: str
    note: str = ""


def label_multiplier(
    num_patients: Sequence[float], baseline: ArrayLike, baseline_draws: ArrayLike, at: float, value: float,
    draws: ArrayLike, df_patients: float, level: float = 0.95,
) -> Multiplier:  # fmt: skip
    """The baseline's labels for the arm's value, divided by the arm's labels.

    Args:
        num_patients: (F,) labelled training patients at the baseline's fractions, increasing.
        baseline: (F,) its metric (higher is better). baseline_draws: (R, F) under the draws.
        at: the arm's labelled training patients. value, draws (R,): the arm's metric there.
    The baseline's curve is made non-decreasing and joined linearly over the logarithm of the
    patients. The interval is the percentile interval of the same reading under each draw;
    there is none where a difference has none.
    """
    x = np.log(np.asarray(num_patients, float))
    point = float(_read(x, isotonic(baseline)[None], np.array([value]))[0])
    own, base = np.asarray(draws, float), np.asarray(baseline_draws, float)
    each = _read(x, isotonic(base), own)
    each = each[~np.isnan(each)]
    if np.isnan(point) or not each.size:
        return Multiplier(nan, nan, nan, "", "not estimable")
    ratio = float(np.exp(np.clip(point, x[0], x[-1])) / at)
    censored = "above" if point == inf else "below" if point == -inf else ""
    if df_patients < MIN_PATIENTS - 1 or each.size < MIN_RESAMPLES:
        return Multiplier(ratio, nan, nan, censored, TOO_FEW)
    tail = (1 - level) / 2
    low, high = (float(v) for v in np.quantile(each, [tail, 1 - tail], method="nearest"))
    table = np.column_stack([own, base])
    table = table[np.isfinite(table).all(axis=1)]
    alike = np.isfinite([low, high]).all() and high - low <= ROUNDING * abs(high)
    if alike or np.ptp(table, axis=0).max() <= ROUNDING * _largest(table):
        return Multiplier(nan, nan, nan, "", NO_SPREAD)
    first, last = (float(np.exp(np.clip(v, x[0], x[-1])) / at) for v in (low, high))
    return Multiplier(ratio, 0.0 if low == -inf else first, inf if high == inf else last, censored)


def _read(x: Floats, curves: Floats, values: Floats) -> Floats:
    """First x at which each (R, F) non-decreasing curve reaches its (R,) value; -inf, inf outside."""
    rounding = ROUNDING * np.abs(values)  # a value that equals a point of the curve reaches it
    position = (curves < (values - rounding)[:, None]).sum(axis=1)  # first point that reaches the value
    upper = np.clip(position, 1, x.size - 1) if x.size > 1 else np.zeros_like(position)
    rows, lower = np.arange(len(curves)), np.maximum(upper - 1, 0)
    rise = curves[rows, upper] - curves[rows, lower]
    share = np.divide(values - curves[rows, lower], rise, out=np.zeros_like(rise), where=rise > 0)
    inside = x[lower] + np.clip(share, 0, 1) * (x[upper] - x[lower])
    found = np.where(position >= x.size, inf, inside)
    found = np.where(values < curves[:, 0] - rounding, -inf, found)
    return np.where(np.isnan(curves).any(axis=1) | np.isnan(values), nan, found)
