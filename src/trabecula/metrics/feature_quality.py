"""Is a set of features of use? How many directions it has, how far apart they are, what neighbours say.

Roy & Vetterli 2007, "The effective rank" (EUSIPCO); Garrido et al. 2023, RankMe, arXiv 2210.02885,
equation 1; Chen & He 2021, SimSiam, arXiv 2011.10566, section 4.1 (standard deviation of unit outputs);
Wu et al. 2018, arXiv 1805.01978, section 3.4, with plain votes: a classifier that is never trained. A
patient's own images are not neighbours, as two images of one knee are near each other whatever its grade.
"""

from __future__ import annotations

import numpy as np

from trabecula.metrics.bootstrap import Array, Floats, Ints

_EPSILON = 1e-7  # RankMe's, for features in float32
_ROUNDING = 1e-6  # part of the features' size below which a direction is rounding


def effective_rank(features: Array) -> float:
    """exp(entropy) of the singular values of the centred features (n, d), as parts of their sum.

    r equal ones give r; features that are all the same give 0. Centred, as a mean that all images share
    would count as one more direction and hide how many the images use. NaN without an image.
    """
    if not len(features):
        return float("nan")
    gram = _gram(features)
    centred = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
    values = _singular(centred)
    return _entropy_rank(values[values > _ROUNDING * np.sqrt(max(np.trace(gram), 0.0))], 0.0)


def rankme(features: Array) -> float:
    """RankMe, arXiv 2210.02885, equation 1: as `effective_rank`, of features (n, d) that are not centred."""
    if not len(features):
        return float("nan")
    return _entropy_rank(_singular(_gram(features)), _EPSILON)


def _entropy_rank(values: Floats, epsilon: float) -> float:
    if not values.sum() > 0:
        return 0.0
    parts = values / values.sum() + epsilon
    return float(np.exp(-(parts * np.log(parts)).sum()))


def spread(features: Array) -> float:
    """Standard deviation of the unit features, mean over dimensions, times sqrt(d).

    1 where directions are drawn without order, 0 where all are the same (arXiv 2011.10566, section 4.1, where
    it stands against 1 / sqrt(d)). features (n, d); a row of zeros stays one. NaN without an image.
    """
    if not len(features):
        return float("nan")
    unit = unit_rows(features.astype(np.float64))
    return float(unit.std(0).mean() * np.sqrt(unit.shape[1]))


def unit_rows(features: Array) -> Array:
    """(n, d) with rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(norms > 0, norms, 1))


def _gram(features: Array) -> Floats:
    wide = features.astype(np.float64)
    return wide @ wide.T


def _singular(gram: Floats) -> Floats:
    return np.asarray(np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None)))


def vote(features: Array, y: Ints, patients: Array, k: int) -> Ints:
    """Each image's class by the vote of its `k` nearest images of other patients; of equal votes the first.

    Nearest by the angle between features. Where other patients have fewer than `k` images, all of them vote.
    -1 where there is no other patient. features (n, d), y (n,) classes from 0, patients (n,).
    """
    if not len(features):
        return np.empty(0, np.int64)
    unit = unit_rows(features.astype(np.float32))
    near = unit @ unit.T
    own = patients[:, None] == patients[None, :]
    near[own] = -np.inf
    order = np.argsort(-near, axis=1, kind="stable")[:, :k]  # (n, k)
    counted = ~np.take_along_axis(own, order, axis=1)
    classes = np.arange(y.max() + 1)
    votes = ((y[order][:, :, None] == classes) & counted[:, :, None]).sum(1)  # (n, K)
    return np.where(counted.any(1), votes.argmax(1), -1).astype(np.int64)


def neighbour_accuracy(features: Array, y: Ints, patients: Array, k: int) -> float:
    """Balanced accuracy of `vote`; over the findings of (n, L) labels its mean, -1 being not known.

    NaN where fewer than two classes, or two patients, are there.
    """
    if y.ndim == 2:
        known = [(label, label >= 0) for label in y.T]
        each = [neighbour_accuracy(features[at], label[at], patients[at], k) for label, at in known]
        found = [value for value in each if np.isfinite(value)]
        return float(np.mean(found)) if found else float("nan")
    classes = np.unique(y)
    if len(classes) < 2 or len(np.unique(patients)) < 2:
        return float("nan")
    voted = vote(features, y, patients, k)
    return float(np.mean([(voted[y == c] == c).mean() for c in classes]))
