"""Has an encoder collapsed? How many directions its features use, and how far apart they lie.

Roy & Vetterli 2007, "The effective rank" (EUSIPCO); Garrido et al. 2023, RankMe, arXiv 2210.02885,
equation 1; Chen & He 2021, SimSiam, arXiv 2011.10566, section 4.1 (standard deviation of unit outputs).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EPSILON = 1e-7  # RankMe's, for features in float32
_ROUNDING = 1e-6  # part of the features' size below which a direction is rounding


def effective_rank(features: NDArray[np.floating]) -> float:
    """exp(entropy) of the singular values of the centred features, as parts of their sum.

    r equal ones give r; features that are all the same give 0. Centred, as a mean that all images share
    would count as one more direction and hide how many the images use.

    Args:
        features: (n, d).
    """
    gram = _gram(features)
    centred = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
    values = _singular(centred)
    values = values[values > _ROUNDING * np.sqrt(max(np.trace(gram), 0.0))]
    if not len(values):
        return 0.0
    parts = values / values.sum()
    return float(np.exp(-(parts * np.log(parts)).sum()))


def rankme(features: NDArray[np.floating]) -> float:
    """RankMe, arXiv 2210.02885, equation 1: as `effective_rank`, of features as they are, not centred.

    Args:
        features: (n, d).
    """
    values = _singular(_gram(features))
    if not values.sum() > 0:
        return 0.0
    parts = values / values.sum() + _EPSILON
    return float(np.exp(-(parts * np.log(parts)).sum()))


def spread(features: NDArray[np.floating]) -> float:
    """Standard deviation of the unit features, mean over dimensions, times sqrt(d).

    1 where directions are drawn without order, 0 where all are the same (arXiv 2011.10566, section 4.1, where
    it stands against 1 / sqrt(d)).

    Args:
        features: (n, d); a row of zeros stays one.
    """
    unit = unit_rows(features.astype(np.float64))
    return float(unit.std(0).mean() * np.sqrt(unit.shape[1]))


def unit_rows(features: NDArray[np.floating]) -> NDArray[np.floating]:
    """(n, d) with rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    rows: NDArray[np.floating] = features / np.where(norms > 0, norms, 1)
    return rows


def _gram(features: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    return wide @ wide.T


def _singular(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
    return values
