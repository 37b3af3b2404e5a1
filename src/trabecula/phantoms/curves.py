"""Functions of one coordinate: as tables, quick to look up over a picture; steps, bumps, outlines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

Floats = npt.NDArray[np.floating]
Point = tuple[float, float]

_LOW, _HIGH, _STEPS = -2.0, 2.0, 4096
PER_UNIT = _STEPS / (_HIGH - _LOW)  # steps of a table in half an image width
AXIS = np.linspace(_LOW, _HIGH, _STEPS, dtype=np.float32)


class Curve:
    """A function of one coordinate as a table, quick to look up over a whole picture."""

    def __init__(self, values: Floats) -> None:
        self.values = values.astype(np.float32)

    def __call__(self, x: Floats) -> Floats:
        index = ((x - _LOW) * ((_STEPS - 1) / (_HIGH - _LOW))).astype(np.int32)
        return self.values.take(index, mode="clip")

    def at(self, x: float) -> float:
        return float(np.interp(x, AXIS, self.values))

    def steepness(self) -> Curve:
        """1 / sqrt(1 + slope^2): turns a distance along an axis into one across the curve."""
        slope = np.gradient(self.values, AXIS)
        return Curve(1 / np.sqrt(1 + np.minimum(slope**2, 9)))


def outline(points: Floats, column: int) -> Curve:
    """A smooth curve through points (n, 1 + columns), the first column its argument."""
    points = points.astype(np.float32)
    values = np.interp(AXIS, points[:, 0], points[:, column])
    return Curve(gaussian_filter1d(values, 0.05 * PER_UNIT))


def edge(x: Floats, centre: float, width: float) -> Floats:
    """A smooth step from 0 to 1."""
    return np.asarray(0.5 * (1 + np.tanh((x - centre) / width)))


def bump(x: Floats, centre: float, width: float) -> Floats:
    return np.asarray(np.exp(-(((x - centre) / width) ** 2)))


def fade(x: Floats, width: float) -> Floats:
    """1 up to 0, then less and less."""
    return np.asarray(np.exp(-np.maximum(x, 0) / width))
