"""How close fakes are to reals: all measures of one pair of feature sets, from one set of inner products.

Frechet distance (metrics/frechet.py), kernel distance with an interval over patients (metrics/kernel.py),
precision, recall, density and coverage (metrics/manifold.py). Every one of them moves with the number of
images, so only values at equal numbers compare; beside them belongs the same between two sets of reals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trabecula.errors import InputError
from trabecula.metrics import frechet
from trabecula.metrics.gram import Array, Floats, Product, Sets, shifted
from trabecula.metrics.kernel import KernelDistance, KernelSums, Subsets
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
    reals: ArrayLike,
    fakes: ArrayLike,
    patients: ArrayLike | None = None,
    nearest: int = NEAREST,
    ties: Ties = "strict",
    subsets: bool = False,
    level: float = 0.95,
    dtype: Any = None,
    product: Product | None = None,
) -> Fidelity:
    """Every measure, with each inner product made once.

    Args:
        reals: (n, d) features of real images. fakes: (m, d) features of generated ones.
        patients: (n,) patient of each real image; None takes each image for its own patient.
        nearest: k of the balls.
        ties: see metrics/manifold.py.
        subsets: give the customary 100 subsets of 1000 beside the kernel distance.
        level: of the interval.
        dtype: of the inner products; see metrics/gram.py.
        product: makes those that are float32 (`trabecula.kernels.matmul`); None takes numpy's.
    Raises:
        InputError: fewer images than a measure needs, features that are no numbers, of different length,
            or the same for all reals.
    """
    x, y = checked(reals, fakes, at_least=nearest + 1, what=f"k = {nearest} neighbours")
    sets = shifted(x, y, dtype, product)
    kernel = KernelSums(sets, Subsets.draw(len(x), len(y)) if subsets else None)
    manifold = Manifold(sets, nearest, ties)
    products = _stream(sets, [kernel, manifold], keep=_frechet_reads_products(sets))
    distance = frechet.frechet_distance(sets.reals, sets.fakes, products)
    of = _patients(patients, len(x))
    return Fidelity(distance, kernel.result(of, level), manifold.result(), len(x), len(y), len(np.unique(of)))


def frechet_distance(first: ArrayLike, second: ArrayLike) -> float:
    """Squared Frechet distance of two sets of features, (n, d) and (m, d), exact to 1e-10.

    Raises:
        InputError: fewer than 2 images, features that are no numbers or of different length.
    """
    x, y = checked(first, second, at_least=2, what="a covariance", constant=True)
    return frechet.frechet_distance(x, y)


def kernel_distance(
    reals: ArrayLike,
    fakes: ArrayLike,
    patients: ArrayLike | None = None,
    subsets: bool = False,
    level: float = 0.95,
    dtype: Any = None,
    product: Product | None = None,
) -> KernelDistance:
    """The kernel distance (KID) with its interval over patients; arguments as of `fidelity`.

    Raises:
        InputError: fewer than 2 images, features that are no numbers or of different length.
    """
    x, y = checked(reals, fakes, at_least=2, what="an unbiased estimate", constant=True)
    sets = shifted(x, y, dtype, product)
    kernel = KernelSums(sets, Subsets.draw(len(x), len(y)) if subsets else None)
    _stream(sets, [kernel], keep=False, upper=True)
    return kernel.result(_patients(patients, len(x)), level)


def manifold_scores(
    reals: ArrayLike, fakes: ArrayLike, nearest: int = NEAREST, ties: Ties = "strict", dtype: Any = np.float32
) -> ManifoldScores:
    """Precision, recall, density and coverage; arguments as of `fidelity`.

    The result does not depend on `dtype`: close calls are decided in float64.

    Raises:
        InputError: no more than `nearest` images in a set, features that are no numbers or of different
            length, or the same for all reals.
    """
    x, y = checked(reals, fakes, at_least=nearest + 1, what=f"k = {nearest} neighbours")
    sets = shifted(x, y, dtype)
    manifold = Manifold(sets, nearest, ties)
    _stream(sets, [manifold], keep=False)
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
            raise InputError(
                f"features of the {name} images have shape {x.shape}; needed is (images, features)"
            )
        if len(x) < at_least:
            raise InputError(
                f"{len(x)} {name} images: {what} needs at least {at_least}; take more images"
                + (", or a smaller k" if "neighbours" in what else "")
            )
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


def _stream(sets: Sets, readers: list[Any], keep: bool, upper: bool = False) -> Floats | None:
    """Hand every block of inner products to every reader; gives the centred ones across if `keep`.

    Args:
        upper: the readers do with the upper half of a set with itself.
    """
    across = np.empty((len(sets.reals), len(sets.fakes))) if keep else None
    for pair, left, right in (
        ("reals", sets.reals, sets.reals),
        ("fakes", sets.fakes, sets.fakes),
        ("cross", sets.reals, sets.fakes),
    ):
        for where, block in sets.blocks(left, right, upper):
            if across is not None and pair == "cross":
                across[where] = block
            for reader in readers:
                reader.add(pair, where, block)
    if across is None:
        return None
    mean_real, mean_fake = sets.reals.mean(axis=0), sets.fakes.mean(axis=0)
    across -= (sets.reals @ mean_fake)[:, None]
    across -= sets.fakes @ mean_real - mean_real @ mean_fake
    return across


def _frechet_reads_products(sets: Sets) -> bool:
    n, m, d = len(sets.reals), len(sets.fakes), sets.reals.shape[1]
    return max(n, m) - 1 < d and bool(sets.dtype == np.float64)


def _patients(patients: ArrayLike | None, num: int) -> NDArray[Any]:
    if patients is None:
        return np.arange(num)
    of = np.asarray(patients)
    if of.shape != (num,):
        raise InputError(f"{num} real images, but patients have shape {of.shape}")
    return of
