"""Products of float32 matrices on a CPU, by oneDNN.

On processors that MKL was not made for they take half of the time of torch's own, and 0.6 of that of numpy's
OpenBLAS (AMD EPYC). A matrix with its own transpose numpy makes as fast; there the gain is in leaving out
blocks of one half (metrics/gram.py).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trabecula.kernels import enabled

# No public name gives oneDNN's product as it is; where this one is missing, `@` serves.
_ONEDNN = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
)


def by_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this type faster than torch does."""
    return dtype == torch.float32 and _ONEDNN is not None and enabled("matmul")


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b on a CPU, (..., n, k) and (k, m); by oneDNN in float32 where no gradient is kept."""
    if _ONEDNN is None or torch.is_grad_enabled() or not by_onednn(a.dtype):
        return a @ b
    made: Tensor = _ONEDNN(a, b.t(), None, "none", [], "")
    return made


@torch.no_grad()
def inner_products(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, d) and (m, d) -> (n, m), in float32 throughout: for metrics that know no torch."""
    if not by_onednn(torch.float32):
        return first @ second.T
    left, right = (torch.from_numpy(np.ascontiguousarray(x)) for x in (first, second))
    products: NDArray[np.float32] = matmul(left, right.t()).numpy()
    return products
