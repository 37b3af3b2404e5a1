"""Kernel distance (KID): the squared maximum mean discrepancy under k(a, b) = (a.b / d + 1)^3.

Binkowski 2018, arXiv 1801.01401, section 4. The value is the whole unbiased U-statistic: the mean of k over
pairs within the reals, plus that within the fakes, minus twice that across. The customary mean over 100
subsets of 1000 is this number plus noise; it is given too, for comparison with older tables. A negative value
is valid: the statistic is unbiased, and 0 is its smallest mean.

The interval is Student's t over a delete-one-patient jackknife of the reals plus a delete-one-image one
of the fakes, read off the row sums of the same products. Where both sets have one distribution the
statistic is degenerate, and the jackknife then errs to the wide side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from scipy import stats

from trabecula.metrics.bootstrap import MIN_PATIENTS, Array, Estimate, Floats, Ints, ratio
from trabecula.metrics.gram import Sets

_SUBSETS, _SUBSET_SIZE = 100, 1000
TOO_FEW = f"fewer than {MIN_PATIENTS} patients or fakes: no interval"


@dataclass(frozen=True)
class KernelDistance(Estimate):
    """The unbiased estimate with its interval."""

    error: float  # standard error
    subsets_mean: float  # over random subsets, NaN where none were asked for
    subsets_sd: float  # over overlapping subsets: no standard error
    note: str = ""


def _subset_marks(sizes: Mapping[str, int], size: int) -> dict[str, Floats]:
    """Of each set (100, images), 1 for those of a subset: drawn as torch-fidelity does, the sets in turns."""
    marks = {name: np.zeros((_SUBSETS, num)) for name, num in sizes.items()}
    rng = np.random.RandomState(2020)
    for row in range(_SUBSETS):
        for of_set in marks.values():
            of_set[row, rng.choice(of_set.shape[1], size, replace=False)] = 1
    return marks


class KernelSums:
    """Sums of k over rows and columns, gathered block by block; `subsets`: over random subsets too."""

    def __init__(self, sets: Sets, subsets: bool) -> None:
        self.sets = sets
        self.sizes = {"reals": len(sets.reals), "fakes": len(sets.fakes)}
        rows = self.sizes | {"cross": len(sets.reals)}
        self.rows = {name: np.zeros(num) for name, num in rows.items()}
        self.columns = np.zeros(len(sets.fakes))
        # what the shift adds to a.b / d + 1, as one half an image: (a + s).(b + s) = a.b + a.s + b.s + s.s
        added = {"reals": sets.reals @ sets.shift, "fakes": sets.fakes @ sets.shift}
        half, num_features = sets.shift @ sets.shift / 2, len(sets.shift)
        self._offsets = {name: 0.5 + (product + half) / num_features for name, product in added.items()}
        self._subset_size = min(_SUBSET_SIZE, *self.sizes.values())
        self._marks = _subset_marks(self.sizes, self._subset_size) if subsets else {}
        self.of_subsets = {name: np.zeros(_SUBSETS) for name in rows}

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

    def result(self, patients: Array, level: float) -> KernelDistance:
        """The distance, once all blocks are in; patients: (n,) of the real images."""
        n, m = self.sizes.values()
        sums = {name: float(rows.sum()) for name, rows in self.rows.items()}
        value = unbiased(**sums, n=n, m=m)
        mean = sd = nan
        if self._marks:
            each = unbiased(**self.of_subsets, n=self._subset_size, m=self._subset_size)
            mean, sd = float(np.mean(each)), float(np.std(each))
        names, clusters = np.unique(patients, return_inverse=True)
        least = min(len(names), m)
        if least < MIN_PATIENTS:  # without one of two there is no pair left
            return KernelDistance(value, nan, nan, nan, mean, sd, TOO_FEW)
        without = [self._without("reals", clusters, sums), self._without("fakes", np.arange(m), sums)]
        spreads = [(len(x) - 1) / len(x) * float(np.square(x - x.mean()).sum()) for x in without]
        error = float(np.sqrt(sum(spreads)))
        step = float(stats.t.ppf((1 + level) / 2, least - 1)) * error
        return KernelDistance(value, value - step, value + step, error, mean, sd)

    def _without(self, own: str, groups: Ints, sums: dict[str, float]) -> Floats:
        """(groups,) the distance without each group of the reals or the fakes; NaN where one holds all."""
        other = "fakes" if own == "reals" else "reals"
        num = np.bincount(groups)
        cross = self.rows["cross"] if own == "reals" else self.columns
        inner = sums[own] - 2 * np.bincount(groups, self.rows[own]) + self._within(own, groups, num)
        left, rest = self.sizes[own] - num, self.sizes[other]
        across = 2 * (sums["cross"] - np.bincount(groups, cross))
        apart = ratio(inner, left * (left - 1.0)) + sums[other] / (rest * (rest - 1.0))
        return apart - ratio(across, left * float(rest))

    def _within(self, own: str, groups: Ints, num: Ints) -> Floats:
        """(groups,) sum of k over pairs of two images of one group."""
        features, offsets = getattr(self.sets, own), self._offsets[own]
        order, ends = np.argsort(groups, kind="stable"), np.cumsum(num)
        inside = np.zeros(len(num))
        for group in np.flatnonzero(num > 1):
            rows = order[ends[group] - num[group] : ends[group]]
            x = features[rows]
            k = (x @ x.T / x.shape[1] + offsets[rows][:, None] + offsets[rows]) ** 3
            inside[group] = k.sum() - np.trace(k)
        return inside


def unbiased(reals: Any, fakes: Any, cross: Any, n: int, m: int) -> Any:
    """The U-statistic from sums of k off the diagonals and across (Gretton 2012, JMLR 13, eq. 3)."""
    return reals / (n * (n - 1.0)) + fakes / (m * (m - 1.0)) - 2 * cross / (float(n) * m)
