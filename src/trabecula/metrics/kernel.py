"""Kernel distance (KID): the squared maximum mean discrepancy under k(a, b) = (a.b / d + 1)^3.

Binkowski 2018, arXiv 1801.01401, section 4. The value is the whole unbiased U-statistic: the mean of
k over pairs within the reals, plus that within the fakes, minus twice that across. The customary mean
over 100 subsets of 1000 is this number plus noise; it is given too, for comparison with older tables
(`Subsets`). A negative value is valid: the statistic is unbiased, and 0 is its smallest mean.

The interval is Student's t over a delete-one-patient jackknife of the reals plus a delete-one-image one
of the fakes, read off the row sums of the same products. Where both sets have one distribution the
statistic is degenerate, and the jackknife then errs to the wide side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trabecula.metrics.bootstrap import MIN_PATIENTS
from trabecula.metrics.gram import Array, Floats, Sets

TOO_FEW = f"fewer than {MIN_PATIENTS} patients or fakes: no interval"


@dataclass(frozen=True)
class KernelDistance:
    """The unbiased estimate with its interval; NaN bounds where there is none, and `note` says why."""

    value: float
    low: float
    high: float
    error: float  # standard error
    subsets_mean: float  # over random subsets, NaN where none were asked for
    subsets_sd: float  # over overlapping subsets: no standard error
    note: str = ""


@dataclass(frozen=True)
class Subsets:
    """Random subsets as torch-fidelity draws them: the first set's, then the second's, in turns."""

    first: NDArray[np.int64]  # (num, size) rows of the first set
    second: NDArray[np.int64]  # (num, size)

    @staticmethod
    def draw(num_first: int, num_second: int, num: int = 100, size: int = 1000, seed: int = 2020) -> Subsets:
        """`num` subsets of min(size, the smaller set) images, without replacement."""
        size = min(size, num_first, num_second)
        rng = np.random.RandomState(seed)
        rows = [[rng.choice(n, size, replace=False) for n in (num_first, num_second)] for _ in range(num)]
        return Subsets(np.array([r[0] for r in rows]), np.array([r[1] for r in rows]))

    def weights(self, which: str, num_rows: int) -> Floats:
        """(num, num_rows): 1 for the rows in each subset."""
        rows = getattr(self, which)
        marks = np.zeros((len(rows), num_rows))
        np.put_along_axis(marks, rows, 1.0, axis=1)
        return marks


@dataclass
class KernelSums:
    """Sums of k over rows and columns, gathered block by block."""

    sets: Sets
    subsets: Subsets | None = None
    rows: dict[str, Floats] = field(default_factory=dict)
    columns: Floats = field(default_factory=lambda: np.zeros(0))
    of_subsets: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_reals, num_fakes = len(self.sets.reals), len(self.sets.fakes)
        self.columns = np.zeros(num_fakes)
        sizes = {"reals": num_reals, "fakes": num_fakes, "cross": num_reals}
        self.rows = {name: np.zeros(num) for name, num in sizes.items()}
        self._offsets = {name: _offsets(self.sets, name) for name in ("reals", "fakes")}
        self._marks: dict[str, Floats] = {}
        if self.subsets is not None:
            for name, which in (("reals", "first"), ("fakes", "second")):
                self._marks[name] = self.subsets.weights(which, sizes[name])
            self.of_subsets = {name: np.zeros(len(self.subsets.first)) for name in sizes}

    def add(self, pair: str, where: slice, block: Array) -> None:
        """Take a block of inner products: `pair` is "reals", "fakes" (each with itself) or "cross".

        Of a set with itself each pair is taken once: columns left of the block's rows may be lacking.
        """
        left, right = ("reals", "fakes") if pair == "cross" else (pair, pair)
        first = 0 if pair == "cross" else where.start
        taken = len(self._offsets[right]) - first
        k = np.multiply(block[:, -taken:], 1 / self.sets.reals.shape[1], dtype=np.float64)
        k += self._offsets[left][where][:, None]
        k += self._offsets[right][first:]
        k *= np.square(k)
        if pair == "cross":
            self.rows[pair][where] = k.sum(axis=1)
            self.columns += k.sum(axis=0)
        else:
            np.fill_diagonal(k, 0)
            self.rows[pair][where] += k.sum(axis=1)
            self.rows[pair][where.stop :] += k[:, len(k) :].sum(axis=0)
        if self._marks:
            inside = (self._marks[left][:, where] @ k) * self._marks[right][:, first:]
            again = inside[:, len(k) :].sum(axis=1) if pair != "cross" else 0.0
            self.of_subsets[pair] += inside.sum(axis=1) + again

    def result(self, patients: Array, level: float = 0.95) -> KernelDistance:
        """The distance, once all blocks are in.

        Args:
            patients: (n,) patient of each real image.
        """
        n, m = len(self.sets.reals), len(self.sets.fakes)
        sums = {name: float(rows.sum()) for name, rows in self.rows.items()}
        value = unbiased(sums["reals"], sums["fakes"], sums["cross"], n, m)
        mean = sd = nan = float("nan")
        if self.subsets is not None:
            size, of = self.subsets.first.shape[1], self.of_subsets
            each = unbiased(of["reals"], of["fakes"], of["cross"], size, size)
            mean, sd = float(np.mean(each)), float(np.std(each))
        clusters = np.unique(patients, return_inverse=True)[1]
        variance, num_left_out = 0.0, []
        for own, groups in (("reals", clusters), ("fakes", np.arange(m))):
            left_out = self._without(own, groups, sums)
            variance += (
                (len(left_out) - 1) / len(left_out) * float(np.square(left_out - left_out.mean()).sum())
            )
            num_left_out.append(len(left_out))
        if min(num_left_out) < MIN_PATIENTS:
            return KernelDistance(value, nan, nan, nan, mean, sd, TOO_FEW)
        error = float(np.sqrt(variance))
        step = float(stats.t.ppf((1 + level) / 2, min(num_left_out) - 1)) * error
        return KernelDistance(value, value - step, value + step, error, mean, sd)

    def _without(self, own: str, groups: NDArray[np.int64], sums: dict[str, float]) -> Floats:
        """(groups,) the distance without each group of the reals or the fakes."""
        other = "fakes" if own == "reals" else "reals"
        sizes = {"reals": len(self.sets.reals), "fakes": len(self.sets.fakes)}
        num = np.bincount(groups)
        cross = self.rows["cross"] if own == "reals" else self.columns
        inner = sums[own] - 2 * np.bincount(groups, self.rows[own]) + self._within(own, groups, num)
        left, rest = sizes[own] - num, sizes[other]
        with np.errstate(divide="ignore", invalid="ignore"):  # one group holds all: too few for an interval
            result: Floats = (
                inner / (left * (left - 1.0))
                + sums[other] / (rest * (rest - 1.0))
                - 2 * (sums["cross"] - np.bincount(groups, cross)) / (left * float(rest))
            )
        return result

    def _within(self, own: str, groups: NDArray[np.int64], num: NDArray[np.int64]) -> Floats:
        """(groups,) sum of k over pairs of two images of one group."""
        features, offsets = getattr(self.sets, own), self._offsets[own]
        order = np.argsort(groups, kind="stable")
        ends = np.cumsum(num)
        inside = np.zeros(len(num))
        for group in np.flatnonzero(num > 1):
            rows = order[ends[group] - num[group] : ends[group]]
            x = features[rows]
            k = (x @ x.T / x.shape[1] + offsets[rows][:, None] + offsets[rows]) ** 3
            inside[group] = k.sum() - np.trace(k)
        return inside


def _offsets(sets: Sets, name: str) -> Floats:
    """What the shift adds to a.b / d + 1, as one half an image: (a + s).(b + s) = a.b + a.s + b.s + s.s."""
    features: Floats = getattr(sets, name)
    offsets: Floats = 0.5 + (features @ sets.shift + sets.shift @ sets.shift / 2) / features.shape[1]
    return offsets


def unbiased(reals: Any, fakes: Any, cross: Any, n: int, m: int) -> Any:
    """The U-statistic from sums of k off the diagonals and across (Gretton 2012, JMLR 13, eq. 3)."""
    return reals / (n * (n - 1.0)) + fakes / (m * (m - 1.0)) - 2 * cross / (float(n) * m)
