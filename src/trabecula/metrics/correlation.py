"""Correlation of many units with one label, and how large the largest would be by chance.

Patients are exchanged, not images: two knees of a patient share more than a label. The p-value of a unit
compares it with the largest absolute correlation over all units in each permutation (Westfall and Young
1993, section 2.2: the max-statistic), so it holds for the one unit that was picked out of thousands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trabecula.errors import InputError
from trabecula.metrics.bootstrap import ROUNDING, Array, Floats

_TIE = 1e-7  # correlations are sums of single-precision products
_SINGLE_ROUNDING = 1e-6  # a unit that changes by less of its size does not change: activations are float32


def permuted_labels(y: Array, patient_ids: Sequence[str] | Array, num: int, seed: int) -> Floats:
    """(num, n): labels handed around whole patients, who trade only with patients of as many images.

    y (n,), patient_ids (n,): whose image each is.

    Raises:
        InputError: no two patients have equally many images, so there is nothing to exchange.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, patient in enumerate(patient_ids):
        rows_of[str(patient)].append(row)
    alike: dict[int, list[list[int]]] = defaultdict(list)
    for rows in rows_of.values():
        alike[len(rows)].append(rows)
    groups = [np.array(patients) for _, patients in sorted(alike.items())]  # (patients, images of each)
    if all(len(group) < 2 for group in groups):
        raise InputError(
            f"no two of {len(rows_of)} patients have equally many images, so no labels can be exchanged "
            "between patients"
        )
    generator, given = np.random.Generator(np.random.PCG64(seed)), np.asarray(y, dtype=np.float64)
    result = np.tile(given, (num, 1))
    for permuted in result:
        for group in groups:
            permuted[group] = given[group[generator.permutation(len(group))]]
    return result


@dataclass(frozen=True)
class Correlations:
    """`r`: (U,) Pearson correlation of each unit, nan where the unit never changes.

    `null_max`: (P,) largest absolute correlation over these units in each permutation.
    """

    r: Floats
    null_max: Floats

    @property
    def largest(self) -> int:
        """The unit of the largest absolute correlation, -1 where no unit ever changes."""
        return int(np.nanargmax(np.abs(self.r))) if np.isfinite(self.r).any() else -1


class CorrelationSums:
    """Correlations of units with a label y (n,) and its permutations (P, n); activations come in batches."""

    def __init__(self, y: Array, permuted: Floats) -> None:
        if not np.size(y):
            raise ValueError("there is no label")
        labels = np.vstack([np.asarray(y, dtype=np.float64)[None], permuted])
        centred = labels - labels[0].mean()
        norm = np.sqrt((centred[0] ** 2).sum())
        if np.ptp(labels[0]) <= ROUNDING * np.abs(labels[0]).max():
            raise ValueError("every label is the same")
        self._labels = (centred / norm).astype(np.float32)  # (P + 1, n), each with sum 0 and norm 1
        self._done = 0
        self._products: Floats = np.empty((0, 0))

    def add(self, activations: NDArray[np.float32]) -> None:
        """Take the next images' (b, U) activations, in the order of the labels."""
        values = np.asarray(activations, dtype=np.float32)
        if not self._done:
            units = values.shape[1]
            self._shift = values.mean(0)  # against cancellation; a constant changes no correlation
            self._products = np.zeros((units, len(self._labels)))
            self._sum, self._squares = np.zeros(units), np.zeros(units)
            self._low, self._high = values.min(0), values.max(0)
        stop = self._done + len(values)
        shifted = values - self._shift
        self._products += shifted.T @ self._labels[:, self._done : stop].T
        self._sum += shifted.sum(0, dtype=np.float64)
        self._squares += (shifted.astype(np.float64) ** 2).sum(0)
        self._low, self._high = np.minimum(self._low, values.min(0)), np.maximum(self._high, values.max(0))
        self._done = stop

    def result(self) -> Correlations:
        """The correlations, once every image has been taken; a ValueError where some are missing."""
        num = self._labels.shape[1]
        if self._done != num:
            raise ValueError(f"{self._done} of {num} images were taken")
        spread = np.sqrt(np.maximum(self._squares - self._sum**2 / num, 0))
        size = np.maximum(np.abs(self._low), np.abs(self._high))
        moves = (self._high - self._low > _SINGLE_ROUNDING * size) & (spread > 0)
        r = np.full((len(moves), len(self._labels)), np.nan)
        # The labels sum to 0 only up to single precision: take their part of the mean out again.
        rest = self._labels.sum(1, dtype=np.float64)
        products = self._products - np.outer(self._sum / num, rest)
        r[moves] = products[moves] / spread[moves, None]
        null = np.abs(r[moves, 1:]).max(0) if moves.any() else np.zeros(len(self._labels) - 1)
        return Correlations(r[:, 0], null)


def max_p_value(r: float, null_max: Floats) -> float:
    """(1 + permutations whose largest |r| reaches this one) / (1 + permutations).

    Source: Phipson and Smyth 2010, Stat Appl Genet Mol Biol 9:39, section 4.
    """
    return float((1 + np.count_nonzero(null_max >= abs(r) - _TIE)) / (1 + len(null_max)))
