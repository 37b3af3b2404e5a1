"""How close fakes are to reals: all measures of one pair of feature sets, from one set of inner products.

Frechet distance (metrics/frechet.py), kernel distance with an interval over patients (metrics/kernel.py),
precision, recall, density and coverage (metrics/manifold.py). Every one of them moves with the number of
images, so only values at equal numbers compare; beside them belongs the same between two sets of reals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trabecula.errors import InputError
from trabecula.metrics import frechet
from trabecula.metrics.bootstrap import Array, Floats
from trabecula.metrics.gram import Product, Sets, shifted
from trabecula.metrics.kernel import KernelDistance, KernelSums
from trabecula.metrics.manifold import Manifold, ManifoldScores, Ties

NEAREST = 5  # Naeem 2020, section 5


@dataclass(frozen=True)
class Fidelity:
    """All measures of one pair of sets."""

    frechet: float
    kernel: KernelDistance
    manifold: ManifoldScores
    num_reals: int
    num_fakes: int
    num_patients: int


def fidelity(
    reals: ArrayLike, fakes: ArrayLike, patients: ArrayLike | None = None, nearest: int = NEAREST,
    ties: Ties = "strict", subsets: bool = False, level: float = 0.95, dtype: Any = None,
    product: Product | None = None,
) -> Fidelity:  # fmt: skip
    """Every measure, with each inner product made once.

    Args:
        reals: (n, d) features of real images. fakes: (m, d) features of generated ones.
        patients: (n,) patient of each real image; None takes each image for its own patient.
        nearest: k of the balls. ties: see metrics/manifold.py. level: of the interval.
        subsets: give the customary 100 subsets of 1000 beside the kernel distance.
        dtype: of the inner products; see metrics/gram.py.
        product: makes those that are float32 (`trabecula.kernels.matmul`); None takes numpy's.
    Raises:
        InputError: fewer images than a measure needs, features that are no numbers, of different length,
            or the same for all reals.
    """
    x, y = checked(reals, fakes, at_least=nearest + 1, what=f"k = {nearest} neighbours")
    sets = shifted(x, y, dtype, product)
    kernel, manifold = KernelSums(sets, subsets), Manifold(sets, nearest, ties)
    reads_products = max(len(x), len(y)) - 1 < x.shape[1] and sets.dtype == np.float64
    products = _stream(sets, [kernel, manifold], keep=reads_products)
    distance = frechet.frechet_distance(sets.reals, sets.fakes, products)
    of = patients_of(patients, len(x), "real")
    return Fidelity(distance, kernel.result(of, level), manifold.result(), len(x), len(y), len(np.unique(of)))


def frechet_distance(first: ArrayLike, second: ArrayLike) -> float:
    """Squared Frechet distance of two sets of features, (n, d) and (m, d), exact to 1e-10.

    Raises:
        InputError: fewer than 2 images, features that are no numbers or of different length.
    """
    x, y = checked(first, second, at_least=2, what="a covariance", constant=True)
    return frechet.frechet_distance(x, y)


def kernel_distance(
    reals: ArrayLike, fakes: ArrayLike, patients: ArrayLike | None = None, subsets: bool = False,
    level: float = 0.95, dtype: Any = None, product: Product | None = None,
) -> KernelDistance:  # fmt: skip
    """The kernel distance (KID) with its interval over patients; arguments and errors as of `fidelity`."""
    x, y = checked(reals, fakes, at_least=2, what="an unbiased estimate", constant=True)
    sets = shifted(x, y, dtype, product)
    kernel = KernelSums(sets, subsets)
    _stream(sets, [kernel], upper=True)
    return kernel.result(patients_of(patients, len(x), "real"), level)


def manifold_scores(
    reals: ArrayLike, fakes: ArrayLike, nearest: int = NEAREST, ties: Ties = "strict", dtype: Any = np.float32
) -> ManifoldScores:
    """Precision, recall, density and coverage; arguments and errors as of `fidelity`.

    The result does not depend on `dtype`: close calls are decided in float64.
    """
    x, y = checked(reals, fakes, at_least=nearest + 1, what=f"k = {nearest} neighbours")
    sets = shifted(x, y, dtype)
    manifold = Manifold(sets, nearest, ties)
    _stream(sets, [manifold])
    return manifold.result()


def checked(
    reals: ArrayLike, fakes: ArrayLike, at_least: int, what: str, constant: bool = False
) -> tuple[Array, Array]:
    """The two sets as arrays that can be compared.

    Raises:
        InputError: see `fidelity`; `constant` lets equal features of all reals pass.
    """
    sets = []
    for name, values in (("real", reals), ("fake", fakes)):
        x = np.asarray(values)
        if x.ndim != 2 or x.shape[1] == 0:
            raise InputError(f"features of {name} images have shape {x.shape}; needed is (images, features)")
        if len(x) < at_least:
            advice = "take more images" + (", or a smaller k" if "neighbours" in what else "")
            raise InputError(f"{len(x)} {name} images: {what} needs at least {at_least}; {advice}")
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if len(bad):
            raise InputError(
                f"features of {len(bad)} of {len(x)} {name} images are no numbers, first in row {bad[0]}; "
                "extract them again"
            )
        sets.append(x)
    x, y = sets
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"real images have {x.shape[1]} features, fake ones {y.shape[1]}: these are of two extractors; "
            "extract both with the same one"
        )
    if not constant and (x == x[0]).all():
        raise InputError(
            f"all {len(x)} real images have the same features: nothing can be compared with them; "
            "look at the images, or take another extractor"
        )
    return x, y


def _stream(sets: Sets, readers: list[Any], keep: bool = False, upper: bool = False) -> Floats | None:
    """Hand every block of inner products to every reader; gives the centred ones across if `keep`.

    upper: the readers do with the upper half of a set with itself.
    """
    across = np.empty((len(sets.reals), len(sets.fakes))) if keep else None
    x, y = sets.reals, sets.fakes
    for pair, left, right in (("reals", x, x), ("fakes", y, y), ("cross", x, y)):
        for where, block in sets.blocks(left, right, upper):
            if across is not None and pair == "cross":
                across[where] = block
            for reader in readers:
                reader.add(pair, where, block)
    if across is None:
        return None
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    across -= (x @ mean_y)[:, None]
    across -= y @ mean_x - mean_x @ mean_y
    return across


def patients_of(patients: ArrayLike | None, num: int, kind: str) -> Array:
    """(num,) patients of some kind of images; None: each image is its own.

    Raises:
        InputError: of another number of images.
    """
    of = np.arange(num) if patients is None else np.asarray(patients)
    if of.shape != (num,):
        raise InputError(f"{num} {kind} images, but patients have shape {of.shape}")
    return of
