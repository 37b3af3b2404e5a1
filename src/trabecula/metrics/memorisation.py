"""Does a generator copy its training images? Distances to the nearest one, of fakes and of held-out reals.

Held-out images of the same hospital are what a generator that learned the distribution, and no image,
would give: fakes nearer to the training images than these are copies. Three measures:

- the share of fakes nearer to a training image than all but 5 % of the held-out images are;
- authenticity (Alaa 2022, arXiv 2102.08921, section 3.3): a fake is authentic where it is farther from its
  nearest training image than that image is from its own nearest other;
- C_T (Meehan 2020, arXiv 2004.05675, section 3): in each cell of the training images the rank test of the
  two sets of distances, as a z-score, averaged with the held-out images' shares as weights. Far below 0:
  copying. Far above 0: fakes stay away from the training images, as an underfitted generator's do.

Intervals resample patients of the held-out images, and fakes.

And does a critic score training images higher than held-out ones (`critic_gap`)? A Wasserstein critic is
defined up to a constant and a scale, so a gap is given beside the critic's whole range from real to fake:
gap / (train - fake), which is r_v of Karras 2020 (arXiv 2006.06676, eq. 1) with the held-out images as its
validation set.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from trabecula.errors import InputError
from trabecula.metrics.bootstrap import MIN_PATIENTS, Estimate, Floats, Ints, ratio, resample
from trabecula.metrics.fidelity import checked, patients_of
from trabecula.metrics.manifold import squared_distances

QUANTILE = 0.05
MIN_IN_CELL = 10  # held-out images and fakes in a cell, below which its ranks say nothing
PER_CELL = 100  # held-out images a cell should have on average
MAX_CELLS = 10
_ROWS = 256


@dataclass(frozen=True)
class Memorisation:
    """What the distances to the nearest training image say."""

    fake_distances: Floats  # (m,)
    fake_nearest: Ints  # (m,) the nearest training image of each fake
    held_out_distances: Floats  # (n,)
    share_near: Estimate  # fakes nearer than all but 5 % of the held-out images; expected: 0.05
    nearer: Estimate  # chance that a fake is nearer than a held-out image; expected: 0.5
    authenticity: Estimate  # share of authentic fakes
    held_out_authenticity: float  # the same share of the held-out images: what to compare it with
    copying: Estimate  # C_T; expected: 0
    num_cells: int


def memorisation(
    train: ArrayLike, held_out: ArrayLike, fakes: ArrayLike, patients: ArrayLike | None = None,
    num_resamples: int = 500, seed: int = 0, level: float = 0.95,
) -> Memorisation:  # fmt: skip
    """Compare fakes with held-out images by their distances to the training images.

    Args:
        train: (t, d) features of the images the generator learned from. fakes: (m, d).
        held_out: (n, d) of real images of other patients; patients (n,): None takes each image for its own.
    Raises:
        InputError: fewer than 2 images in a set, features that are no numbers or of different length.
    """
    x, y = checked(train, fakes, at_least=2, what="nearest images")
    _, z = checked(train, held_out, at_least=2, what="nearest images")
    of = patients_of(patients, len(z), "held-out")
    shift = x.mean(axis=0, dtype=np.float64)
    x, y, z = (values - shift for values in (x, y, z))
    own, _ = nearest(x, x, other=True)
    fake_distances, fake_nearest = nearest(y, x)
    held_distances, held_nearest = nearest(z, x)
    cells = _cells(x, min(MAX_CELLS, max(1, len(z) // PER_CELL)), seed)
    weights_held = resample(of, num_resamples, seed).astype(np.float64)
    weights_fake = resample(np.arange(len(y)), num_resamples, seed + 1).astype(np.float64)
    least = min(len(np.unique(of)), len(y))

    def estimate(value: float, draws: Floats, lowest: float = 0.0, highest: float = 1.0) -> Estimate:
        known = draws[np.isfinite(draws)]
        if least < MIN_PATIENTS or len(known) < 2:
            return Estimate(value, nan, nan)
        step = float(stats.t.ppf((1 + level) / 2, least - 1) * known.std(ddof=1))
        return Estimate(value, max(lowest, value - step), min(highest, value + step))

    ones = np.ones((1, len(z))), np.ones((1, len(y)))
    near = fake_distances < _near_limit(held_distances, ones[0][0])
    authentic = fake_distances > own[fake_nearest]
    each = weights_fake.sum(axis=1)
    limits = np.array([_near_limit(held_distances, weights) for weights in weights_held])
    near_draws = ((fake_distances < limits[:, None]) * weights_fake).sum(axis=1) / each
    ranks = _RankTest(held_distances, fake_distances, cells[held_nearest], cells[fake_nearest])
    nearer, copying = ranks.under(*ones)
    nearer_draws, copying_draws = ranks.under(weights_held, weights_fake)
    return Memorisation(
        fake_distances, fake_nearest, held_distances,
        share_near=estimate(float(near.mean()), near_draws),
        nearer=estimate(float(nearer[0]), nearer_draws),
        authenticity=estimate(float(authentic.mean()), weights_fake @ authentic / each),
        held_out_authenticity=float((held_distances > own[held_nearest]).mean()),
        copying=estimate(float(copying[0]), copying_draws, -inf, inf), num_cells=len(ranks.cells),
    )  # fmt: skip


def nearest(points: Floats, to: Floats, other: bool = False) -> tuple[Floats, Ints]:
    """Distance to the nearest of `to`, and which it is: (n,), (n,).

    points (n, d), to (t, d); other: `points` is `to`, and none counts as its own neighbour.
    Equal points are at distance 0 exactly; of equally near ones the first is taken.
    """
    squares_to = np.square(to).sum(axis=1)
    which = np.empty(len(points), dtype=np.int64)
    for start in range(0, len(points), _ROWS):
        part = points[start : start + _ROWS]
        squares = squares_to - 2 * (part @ to.T)
        if other:
            squares[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        which[start : start + len(part)] = squares.argmin(axis=1)
    return np.sqrt(squared_distances(points, to, np.arange(len(points)), which)), which


def _near_limit(distances: Floats, weights: Floats) -> float:
    """The weighted quantile of the distances below which a fake is near."""
    order = np.argsort(distances)
    above = np.cumsum(weights[order]) > QUANTILE * weights.sum()
    return float(distances[order[int(above.argmax())]])


class _RankTest:
    """Mann-Whitney statistics of two sets of distances, whole and in cells, under weights of both sets."""

    def __init__(self, held: Floats, fake: Floats, held_cells: Ints, fake_cells: Ints) -> None:
        nearer = np.sign(held[:, None] - fake[None])  # 1: the fake is nearer to the training images
        self._nearer = (nearer + 1) / 2  # (n, m), ties are halves
        names = np.unique(held_cells)
        pairs = [(np.flatnonzero(held_cells == c), np.flatnonzero(fake_cells == c)) for c in names]
        self.cells = [(h, f) for h, f in pairs if min(len(h), len(f)) >= MIN_IN_CELL]
        self.cells = self.cells or [(np.arange(len(held)), np.arange(len(fake)))]

    def under(self, held: Floats, fake: Floats) -> tuple[Floats, Floats]:
        """(chance that a fake is nearer, C_T), each (R,), of weights (R, n) and (R, m)."""
        chance = ((held @ self._nearer) * fake).sum(axis=1) / (held.sum(axis=1) * fake.sum(axis=1))
        total, share = np.zeros((2, len(held)))
        for rows, columns in self.cells:
            h, f = held[:, rows], fake[:, columns]
            n, m = h.sum(axis=1), f.sum(axis=1)
            farther = n * m - ((h @ self._nearer[np.ix_(rows, columns)]) * f).sum(axis=1)
            z = ratio(farther - n * m / 2, np.sqrt(n * m * (n + m + 1) / 12))
            known = np.isfinite(z)
            total += np.where(known, n * np.where(known, z, 0), 0)
            share += np.where(known, n, 0)
        return chance, ratio(total, share)


def _cells(points: Floats, num: int, seed: int) -> Ints:
    """(t,) k-means cells (Lloyd's rounds from k-means++ seeds; Arthur and Vassilvitskii 2007)."""
    rng = np.random.default_rng(seed)
    centres = points[rng.integers(len(points))][None]
    for _ in range(num - 1):
        squares = np.square(nearest(points, centres)[0])
        if squares.sum() == 0:
            break
        centres = np.concatenate([centres, points[rng.choice(len(points), p=squares / squares.sum())][None]])
    cells = np.full(len(points), -1)
    for _ in range(50):
        _, found = nearest(points, centres)
        if (found == cells).all():
            break
        cells = found
        for cell in np.unique(cells):
            centres[cell] = points[cells == cell].mean(axis=0)
    return cells


@dataclass(frozen=True)
class CriticGap:
    """Mean scores; `low` and `high` bound the gap, NaN with too few patients."""

    train: float
    held_out: float
    fake: float
    gap: float  # train - held out
    low: float
    high: float
    relative: float  # gap / (train - fake); NaN where these do not differ


def critic_gap(
    train: ArrayLike, held_out: ArrayLike, fakes: ArrayLike, train_patients: ArrayLike,
    held_out_patients: ArrayLike, level: float = 0.95,
) -> CriticGap:  # fmt: skip
    """Means of the scores (n,), (m,), (f,) and the gap with an interval over patients.

    The interval is Student's t with cluster-robust variances of the two means (Liang and Zeger 1986).

    Raises:
        InputError: no score of one of the three.
    """
    if not (np.size(train) and np.size(held_out) and np.size(fakes)):
        raise InputError("the gap of a critic needs scores of training, held-out and generated images")
    means, variances, num = [], [], []
    for scores, patients in ((train, train_patients), (held_out, held_out_patients)):
        x = np.asarray(scores, dtype=np.float64)
        where = np.unique(np.asarray(patients), return_inverse=True)[1]
        residuals = np.bincount(where, x - x.mean())
        means.append(float(x.mean()))
        num.append(len(residuals))
        variances.append(float(np.square(residuals).sum() / len(x) ** 2 * num[-1] / max(1, num[-1] - 1)))
    fake = float(np.mean(np.asarray(fakes, dtype=np.float64)))
    gap, reach, step = means[0] - means[1], means[0] - fake, nan
    if min(num) >= MIN_PATIENTS:
        step = float(stats.t.ppf((1 + level) / 2, min(num) - 1) * np.sqrt(sum(variances)))
    relative = gap / reach if reach != 0 else nan
    return CriticGap(means[0], means[1], fake, gap, gap - step, gap + step, relative)
