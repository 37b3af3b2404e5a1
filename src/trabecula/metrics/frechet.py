"""Frechet distance between two sets of features, exact also where there are fewer images than features.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)                 (Heusel 2017, arXiv 1706.08500, eq. 6)

With factors F1 and F2 such that S = F^T F, the last trace is the nuclear norm of F1 F2^T: no square
root of a matrix is taken, and no root of the rounding noise on directions without images. A factor is
the centred features themselves over sqrt(n - 1) where n - 1 < d, else the Cholesky factor of the
covariance (then the norm is that of the roots of the eigenvalues of S1 S2, symmetrically reduced), or R
of a QR of the features where a covariance is too near to singular for 1e-10.

It is called FID only for the features of Inception v3 with its known weights; otherwise FD[extractor].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import eigh

from trabecula.metrics.bootstrap import Array, Floats

RELATIVE = 1e-10  # error allowed in a distance, of itself
FLOOR = 1e-4  # a distance smaller than this share of the traces counts as this share
ALWAYS_SVD = 1000  # smaller side up to which singular values are found directly
# Over spectra from flat to i^-3, of normal, rectified and heavy-tailed features, the error of a distance was
# at most 8.2 of the estimate below.
_SAFETY = 10
# Values alone, in place; "gv" takes three quarters of the time of the default, which is for vectors.
_ROOTS: dict[str, Any] = {
    "eigvals_only": True, "driver": "gv", "overwrite_a": True, "overwrite_b": True, "check_finite": False
}  # fmt: skip


def frechet_distance(first: Array, second: Array, product: Floats | None = None) -> float:
    """The squared 2-Wasserstein distance of the Gaussians with the sets' means and covariances (N - 1).

    In squared units of the features; its error is below 1e-10 of it, or of 1e-4 of the two traces where that
    is more.

    Args:
        first: (n, d) finite features, n >= 2; all is computed in float64. second: (m, d), m >= 2.
        product: (n, m) inner products of the two sets, each centred on its own mean, where they are
            known already; read only where n - 1 < d and m - 1 < d.
    """
    means = [x.mean(axis=0, dtype=np.float64) for x in (first, second)]
    gap = means[0] - means[1]
    a, b = _scaled(first, means[0]), _scaled(second, means[1])
    total = float(gap @ gap + np.vdot(a, a) + np.vdot(b, b))
    wide = [len(x) - 1 < x.shape[1] for x in (a, b)]
    if all(wide):
        if product is None:
            cross = spread(a) @ spread(b).T
        else:
            cross = spread(spread(product).T).T / np.sqrt((len(a) - 1.0) * (len(b) - 1.0))
        norm = _by_squares(cross, total) if min(cross.shape) > ALWAYS_SVD else None
    else:
        alive = a.any(axis=0) & b.any(axis=0)  # other columns add nothing to the product
        if not alive.any():
            return total
        a, b = (x if alive.all() else x[:, alive] for x in (a, b))
        norm = _by_covariance(a, b, total)
        if norm is None:
            cross = _triangle(a) @ _triangle(b).T
    if norm is None:
        norm = float(np.linalg.svd(cross, compute_uv=False).sum())
    return total - 2 * norm


def _scaled(features: Array, mean: Floats) -> Floats:
    centred: Floats = features - mean
    centred /= np.sqrt(len(centred) - 1)
    return centred


def spread(centred: Floats) -> Floats:
    """(n, d) rows that sum to 0 -> (n - 1, d) rows with the same A^T A: a reflection takes 1 to an axis."""
    return np.asarray(centred[1:] - centred[:1] / (1 + np.sqrt(len(centred))))


def _by_squares(product: Floats, total: float) -> float | None:
    """Nuclear norm from the eigenvalues of the product's Gram matrix; None where that loses digits."""
    short = product if len(product) <= product.shape[1] else product.T
    values = np.sqrt(np.linalg.eigvalsh(short @ short.T).clip(0))
    return float(values.sum()) if _exact_enough(values, total) else None


def _exact_enough(values: Floats, total: float) -> bool:
    """Whether singular values read off squares are right to 1e-10.

    Rounding moves a square by about eps times the mean square, in a direction of its own, so a small value
    s by eps mean(s^2) / 2 s.
    """
    if values.min() <= 0:
        return False
    wrong = np.finfo(np.float64).eps * np.square(values).mean() / (2 * values)
    error = _SAFETY * 2 * float(np.sqrt(np.square(wrong).sum()))
    distance = abs(total - 2 * float(values.sum()))
    return error <= RELATIVE * max(distance, FLOOR * total)


def _by_covariance(a: Floats, b: Floats, total: float) -> float | None:
    """Nuclear norm from the eigenvalues of S1 S2; None where a covariance is singular, or nearly."""
    if len(a) > len(b):
        a, b = b, a
    covariance = b.T @ b
    try:
        if len(a) - 1 < a.shape[1]:
            rows = spread(a)
            squares = np.linalg.eigvalsh(rows @ covariance @ rows.T)
        else:  # L^T S2 L with S1 = L L^T
            squares = eigh(covariance.T, (a.T @ a).T, type=2, **_ROOTS)
    except np.linalg.LinAlgError:
        return None
    values = np.sqrt(squares.clip(0))
    return float(values.sum()) if _exact_enough(values, total) else None


def _triangle(centred: Floats) -> Floats:
    """The shorter of the rows and their R factor: the same covariance, formed without squares."""
    if len(centred) - 1 < centred.shape[1]:
        return spread(centred)
    return np.asarray(np.linalg.qr(centred, mode="r"))
