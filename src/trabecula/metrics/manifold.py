"""Precision, recall, density and coverage: are fakes where reals are, and reals where fakes are?

A ball stands around each image of a set, its radius r_k the distance to the k-th nearest other image of
the set. Precision is the share of fakes in some ball of the reals, recall that of reals in some ball of
the fakes (Kynkaanniemi 2019, arXiv 1904.06991, eq. 1-3); density the number of real balls that a fake
is in, over k; coverage the share of reals with a fake in their ball (Naeem 2020, arXiv 2002.09797, eq. 5-6).

Ties. "strict" (the default, as in Naeem's code): a ball is open, d < r. "weak" (as in Kynkaanniemi's): it is
closed, d <= r. They differ only where distances are exactly equal: for a set compared with its own copy,
density is 1 under strict and (k + 1) / k under weak; where k + 1 reals are equal their radius is 0, and
only weak finds an equal fake inside. An image is no neighbour of itself, by its place, not by distance 0;
two equal images are neighbours. Equal means: equal after summing the float64 squares of differences, so the
same two vectors are equally far apart in every set. Such close calls are recomputed so; all others are
decided by inner products, whose rounding error is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trabecula.metrics.bootstrap import Array, Floats, Ints
from trabecula.metrics.gram import Sets, rounding_of

Ties = Literal["strict", "weak"]
_CROWDED = 1e-3  # share of close calls in a float32 block above which it is made again in float64
_MANY = 20_000  # close calls above which equal ones are looked for first
_PAIRS = 4096  # pairs whose differences are held at a time


@dataclass(frozen=True)
class ManifoldScores:
    """The four scores, each a mean over images."""

    precision: float
    recall: float
    density: float
    coverage: float


class Radii:
    """Squared radii of one set, as estimates; `exact` gives some of them without rounding."""

    def __init__(self, features: Floats, raw: Array, k: int) -> None:
        self.features, self.raw, self.k = features, raw, k  # (n, d), shifted and as given
        self.squares = np.square(features).sum(axis=1)
        self.estimates, self.slack = np.zeros(len(raw)), np.zeros(len(raw))  # and how wrong these may be
        self.candidates: list[Ints] = []  # of each row: who may be the k-th
        self.known: dict[int, float] = {}

    def exact(self, owners: Ints) -> Floats:
        """Squared radii of the images `owners`, in their order."""
        new = sorted(set(owners.tolist()) - self.known.keys())
        if new:
            lists = [self.candidates[row] for row in new]
            num = [len(some) for some in lists]
            squares = squared_distances(self.raw, self.raw, np.repeat(new, num), np.concatenate(lists))
            for row, its in zip(new, np.split(squares, np.cumsum(num)[:-1]), strict=True):
                self.known[row] = float(np.partition(its, self.k - 1)[self.k - 1])
        return np.array([self.known[owner] for owner in owners.tolist()])


class Manifold:
    """Neighbours within each set, then hits across: gathered block by block, in this order."""

    def __init__(self, sets: Sets, k: int, ties: Ties) -> None:
        self.sets, self.k, self.ties = sets, k, ties
        reals, fakes = Radii(sets.reals, sets.raw_reals, k), Radii(sets.fakes, sets.raw_fakes, k)
        self._radii = {"reals": reals, "fakes": fakes}
        self._balls_around_fake = np.zeros(len(sets.fakes), dtype=np.int64)  # real balls that hold the fake
        self._fake_in_ball = np.zeros(len(sets.reals), dtype=bool)
        self._in_fake_ball = np.zeros(len(sets.reals), dtype=bool)

    def add(self, pair: str, where: slice, block: Array) -> None:
        """Take a block of inner products: `pair` is "reals", "fakes" (each with itself), then "cross"."""
        if pair == "cross":
            self._hits(where, block)
        else:
            self._neighbours(pair, where, block)

    def result(self) -> ManifoldScores:
        """The scores, once all blocks are in."""
        inside = self._balls_around_fake
        return ManifoldScores(
            precision=float((inside > 0).mean()), recall=float(self._in_fake_ball.mean()),
            density=float(inside.mean() / self.k), coverage=float(self._fake_in_ball.mean()),
        )  # fmt: skip

    def _estimate(self, left: str, right: str, where: slice, block: Array) -> tuple[Array, Floats]:
        """Squared distances of a block, in its type, and how wrong those of each row may be."""
        own, other = self._radii[left].squares[where], self._radii[right].squares
        squares = block * block.dtype.type(-2)
        squares += own.astype(block.dtype)[:, None]
        squares += other.astype(block.dtype)
        rounding = rounding_of(block.dtype, self.sets.reals.shape[1])
        longest = float(np.sqrt(other.max(initial=0.0)))
        return squares, rounding * (np.sqrt(own) + longest) ** 2  # which is 2 |a| |b| at least twice

    def _neighbours(self, name: str, where: slice, block: Array) -> None:
        radii = self._radii[name]
        squares, slack = self._estimate(name, name, where, block)
        squares[np.arange(len(block)), np.arange(where.start, where.start + len(block))] = np.inf
        kth = np.partition(squares, self.k - 1, axis=1)[:, self.k - 1].astype(np.float64)
        rows, columns = _where(squares <= (kth + 2 * slack).astype(block.dtype)[:, None])
        if block.dtype != np.float64 and len(rows) > len(block) * self.k + _CROWDED * block.size:
            return self._neighbours(name, where, radii.features[where] @ radii.features.T)
        radii.estimates[where], radii.slack[where] = kth, slack
        radii.candidates += np.split(columns, np.cumsum(np.bincount(rows, minlength=len(block)))[:-1])
        return None

    def _hits(self, where: slice, block: Array) -> None:
        squares, slack = self._estimate("reals", "fakes", where, block)
        real, fake = self._radii["reals"], self._radii["fakes"]
        in_real, close_real = _compare(squares, real.estimates[where], slack + real.slack[where], axis=0)
        in_fake, close_fake = _compare(squares, fake.estimates, slack.max() + fake.slack, axis=1)
        num_close = np.count_nonzero(close_real) + np.count_nonzero(close_fake)
        if block.dtype != np.float64 and num_close > _CROWDED * block.size:
            return self._hits(where, self.sets.reals[where] @ self.sets.fakes.T)
        self._decide("reals", where.start, in_real, close_real)
        self._decide("fakes", where.start, in_fake, close_fake)
        self._balls_around_fake += in_real.sum(axis=0)
        self._fake_in_ball[where] = in_real.any(axis=1)
        self._in_fake_ball[where] = in_fake.any(axis=1)
        return None

    def _decide(self, balls: str, first_row: int, inside: Array, close: Array) -> None:
        """Settle close calls: whether a pair is within the ball of its real, or of its fake."""
        rows, columns = _where(close)
        if not len(rows):
            return
        squares = squared_distances(self.sets.raw_reals, self.sets.raw_fakes, rows + first_row, columns)
        owners = rows + first_row if balls == "reals" else columns
        limits = self._radii[balls].exact(owners)
        inside[rows, columns] = squares < limits if self.ties == "strict" else squares <= limits


def _compare(squares: Array, limits: Floats, slack: Floats, axis: int) -> tuple[Array, Array]:
    """(inside for sure, too close to call): `limits` and `slack` stand along the rows (axis 0) or columns."""
    low, high = ((limits + sign * slack).astype(squares.dtype) for sign in (-1, 1))
    inside = squares < (low[:, None] if axis == 0 else low)
    close = squares <= (high[:, None] if axis == 0 else high)
    close ^= inside
    return inside, close


def _where(marks: Array) -> tuple[Ints, Ints]:
    """Rows and columns of the few that are true."""
    return np.divmod(np.flatnonzero(marks), marks.shape[1])


def squared_distances(first: Array, second: Array, rows: Ints, columns: Ints) -> Floats:
    """(p,) sums of float64 squares of the differences of `first[rows]` and `second[columns]`."""
    if len(rows) > _MANY:  # equal vectors, as of a collapsed generator, make the same pair again and again
        pairs = _kinds(first)[rows] * np.int64(len(second)) + _kinds(second)[columns]
        _, once, again = np.unique(pairs, return_index=True, return_inverse=True)
        if len(once) < len(rows):
            return squared_distances(first, second, rows[once], columns[once])[again]
    squares = np.empty(len(rows))
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        difference = np.subtract(first[rows[part]], second[columns[part]], dtype=np.float64)
        squares[part] = np.square(difference).sum(axis=1)
    return squares


def _kinds(features: Array) -> Ints:
    """(n,) the first row that is equal to each row."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(row.tobytes(), i) for i, row in enumerate(features)], dtype=np.int64)
