"""What the nearest neighbours among other patients say: a classifier that is never trained.

Wu et al. 2018, arXiv 1805.01978, section 3.4, with plain votes. A patient's own images are no neighbours, as
two films of one knee are near each other whatever its grade.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trabecula.metrics.collapse import unit_rows


def vote(
    features: NDArray[np.floating], y: NDArray[np.int64], patients: NDArray[np.str_], k: int
) -> NDArray[np.int64]:
    """Each image's class by the vote of its `k` nearest images of other patients; of equal votes the first.

    Nearest by the angle between features. Where other patients have fewer than `k` images, all of them vote.

    Args:
        features: (n, d). y: (n,) classes from 0. patients: (n,).

    Returns:
        (n,) classes; -1 where there is no other patient.
    """
    unit = unit_rows(features.astype(np.float32))
    near = unit @ unit.T
    own = patients[:, None] == patients[None, :]
    near[own] = -np.inf
    order = np.argsort(-near, axis=1, kind="stable")[:, :k]  # (n, k)
    counted = ~np.take_along_axis(own, order, axis=1)
    classes = np.arange(y.max() + 1)
    votes = ((y[order][:, :, None] == classes) & counted[:, :, None]).sum(1)  # (n, K)
    return np.where(counted.any(1), votes.argmax(1), -1).astype(np.int64)


def neighbour_accuracy(
    features: NDArray[np.floating], y: NDArray[np.int64], patients: NDArray[np.str_], k: int
) -> float:
    """Balanced accuracy of `vote`; over the findings of (n, L) labels its mean, -1 being not known.

    NaN where fewer than two classes, or two patients, are there.
    """
    if y.ndim == 2:
        known = [y[:, label] >= 0 for label in range(y.shape[1])]
        each = [
            neighbour_accuracy(features[at], y[at, label], patients[at], k) for label, at in enumerate(known)
        ]
        found = [value for value in each if np.isfinite(value)]
        return float(np.mean(found)) if found else float("nan")
    classes = np.unique(y)
    if len(classes) < 2 or len(np.unique(patients)) < 2:
        return float("nan")
    told = vote(features, y, patients, k)
    return float(np.mean([(told[y == c] == c).mean() for c in classes]))
