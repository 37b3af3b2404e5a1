"""Inner products of features, made once, block of rows by block of rows, for all that read them.

Features are shifted by the mean of both sets first: inner products of shifted features are small where
those of raw ones are large and nearly equal, and squared distances do not change. Products are float64
up to `EXACT_ROWS` rows. Above that they are float32 products of the shifted features, for speed; sums
over them are float64, and a comparison of distances too close to call is made again in float64. A
caller with a faster product than numpy's hands it on (`Product`): metrics know no other library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from trabecula.metrics.bootstrap import Array, Floats

Product = Callable[[Array, Array], Array]  # (n, d) and (m, d) in float32 -> (n, m) inner products

EXACT_ROWS = 4096
MEMORY = 2**28  # bytes of inner products held at a time
BLOCK_ROWS = 128  # rows handed on at a time: few enough to stay in a processor's cache
UPPER_PARTS = 5  # blocks of rows for the upper half of a set with itself: 60 % of the products


@dataclass(frozen=True)
class Sets:
    """Two sets of features, both shifted by the mean of all.

    reals (n, d), fakes (m, d), shift (d,): raw features are `reals + shift` up to rounding, and as they were
    given, whose equal distances stay equal, in raw_reals and raw_fakes.
    """

    reals: Floats
    fakes: Floats
    shift: Floats
    dtype: Any  # of the inner products
    raw_reals: Array
    raw_fakes: Array
    product: Product | None = None  # of float32 features; None takes numpy's

    @cached_property
    def _narrow(self) -> dict[int, Array]:
        return {id(x): x.astype(self.dtype, copy=False) for x in (self.reals, self.fakes)}

    def blocks(self, first: Floats, second: Floats, upper: bool = False) -> Iterator[tuple[slice, Array]]:
        """Inner products of `first` (rows) and `second`, each `reals` or `fakes`: (rows, block).

        upper: of a set with itself a block may lack columns left of its first row's own; its last is always
        the last of `second`.
        """
        left, right = self._narrow[id(first)], self._narrow[id(second)]
        product = self.product if np.dtype(self.dtype) == np.float32 else None
        upper = upper and first is second and product is not None
        rows = max(BLOCK_ROWS, MEMORY // (len(right) * right.itemsize))
        if upper:
            rows = min(rows, max(BLOCK_ROWS, -(-len(left) // UPPER_PARTS)))
        for start in range(0, len(left), rows):
            part = left[start : start + rows]
            if product is not None:
                products = product(part, right[start if upper else 0 :])
            else:  # numpy makes half of the products where a whole matrix meets its own transpose
                products = part @ (part if part.shape == left.shape and first is second else right).T
            for top in range(0, len(products), BLOCK_ROWS):
                block = products[top : top + BLOCK_ROWS]
                yield slice(start + top, start + top + len(block)), block


def rounding_of(dtype: Any, num_features: int) -> float:
    """Bound of the error of |a|^2 + |b|^2 - 2 a.b from inner products, as a share of (|a| + |b|)^2.

    A sum of d rounded terms is off by d roundings at most, and by more than 8 sqrt(d) with a probability of
    2e-14 (Higham and Mary 2019, SIAM J. Sci. Comput. 41, theorem 2.4); 2 |a| |b| is half of the square. Six
    more roundings are those of the squares, of the sum and of the shift to the mean.
    """
    of_product = min(float(num_features), 8 * num_features**0.5)
    return float((of_product / 2 + 6) * np.finfo(dtype).eps / 2)


def shifted(reals: Array, fakes: Array, dtype: Any = None, product: Product | None = None) -> Sets:
    """Two sets, (n, d) and (m, d), brought to their common mean in float64.

    dtype: of the inner products; None takes float64 up to `EXACT_ROWS` rows, float32 above.
    """
    num = len(reals) + len(fakes)
    shift: Floats = (reals.sum(axis=0, dtype=np.float64) + fakes.sum(axis=0, dtype=np.float64)) / num
    if dtype is None:
        dtype = np.float64 if max(len(reals), len(fakes)) <= EXACT_ROWS else np.float32
    return Sets(reals - shift, fakes - shift, shift, dtype, reals, fakes, product)
