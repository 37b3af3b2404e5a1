"""Inner products of many features on a processor, for metrics that know no torch.

oneDNN's product of float32 matrices takes about 0.6 of the time of numpy's OpenBLAS and half of that of
torch's own (2,048 features, AMD EPYC). A matrix with its own transpose numpy makes as fast; there the gain
is in leaving out blocks of one half (metrics/gram.py).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional


def inner_products(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, d) and (m, d) -> (n, m), in float32 throughout."""
    if not torch.backends.mkldnn.is_available():
        return first @ second.T
    left, right = (torch.from_numpy(np.ascontiguousarray(x)).to_mkldnn() for x in (first, second))
    products: NDArray[np.float32] = functional.linear(left, right).to_dense().numpy()
    return products
