"""Made-up sets of features, for the tests of distances between them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]


def features(seed: int, n: int, d: int, power: float = 1.0) -> Floats:
    """Correlated features whose variances fall as i^-power."""
    rotation = np.linalg.qr(np.random.default_rng(99).normal(size=(d, d)))[0]
    scale = np.arange(1.0, d + 1) ** (-power / 2)
    rows: Floats = (np.random.default_rng(seed).normal(size=(n, d)) * scale) @ rotation + 0.3
    return rows
