"""Does a critic tell training images from held-out ones? Its mean scores, and the gap between them.

A Wasserstein critic is defined up to a constant and a scale, so one mean says nothing, and a gap only
beside the critic's whole range from real to fake: gap / (train - fake), which is r_v of Karras 2020
(arXiv 2006.06676, eq. 1) with the held-out images as its validation set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trabecula.metrics.bootstrap import MIN_PATIENTS

Floats = NDArray[np.float64]


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
    train: ArrayLike,
    held_out: ArrayLike,
    fakes: ArrayLike,
    train_patients: ArrayLike,
    held_out_patients: ArrayLike,
    level: float = 0.95,
) -> CriticGap:
    """Means of the scores (n,), (m,), (f,) and the gap with an interval over patients.

    The interval is Student's t with cluster-robust variances of the two means (Liang and Zeger 1986).
    """
    means, variances, num = [], [], []
    for scores, patients in ((train, train_patients), (held_out, held_out_patients)):
        x = np.asarray(scores, dtype=np.float64)
        ids, where = np.unique(np.asarray(patients), return_inverse=True)
        residuals = np.bincount(where, x - x.mean())
        means.append(float(x.mean()))
        num.append(len(ids))
        variances.append(float(np.square(residuals).sum() / len(x) ** 2 * len(ids) / max(1, len(ids) - 1)))
    fake = float(np.mean(np.asarray(fakes, dtype=np.float64)))
    gap, reach = means[0] - means[1], means[0] - fake
    step = float("nan")
    if min(num) >= MIN_PATIENTS:
        step = float(stats.t.ppf((1 + level) / 2, min(num) - 1) * np.sqrt(sum(variances)))
    relative = gap / reach if reach != 0 else float("nan")
    return CriticGap(means[0], means[1], fake, gap, gap - step, gap + step, relative)
