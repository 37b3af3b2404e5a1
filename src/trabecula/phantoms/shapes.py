"""Shapes on a picture (curves as tables, steps and bumps, rotation, distances inside an outline), and the
bone inside them: rim and body, trabeculae, slow uneven density."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

Floats = npt.NDArray[np.float32]

_LOW, _HIGH, _STEPS = -2.0, 2.0, 4096
PER_UNIT = _STEPS / (_HIGH - _LOW)  # steps of a table in half an image width
AXIS = np.linspace(_LOW, _HIGH, _STEPS, dtype=np.float32)


class Curve:
    """A function of one coordinate as a table, quick to look up over a whole picture."""

    def __init__(self, values: npt.NDArray[np.floating]) -> None:
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
    values = np.interp(AXIS, points[:, 0], points[:, column])
    return Curve(gaussian_filter1d(values, 0.05 * PER_UNIT))


def edge(x: npt.NDArray[np.floating], centre: float, width: float) -> npt.NDArray[np.floating]:
    """A smooth step from 0 to 1."""
    step: npt.NDArray[np.floating] = 0.5 * (1 + np.tanh((x - centre) / width))
    return step


def bump(x: npt.NDArray[np.floating], centre: float, width: float) -> npt.NDArray[np.floating]:
    bump: npt.NDArray[np.floating] = np.exp(-(((x - centre) / width) ** 2))
    return bump


def frame(size: int, shift: tuple[float, float], scale: float, rotation: float) -> tuple[Floats, Floats]:
    """(size, size) each: where the pixels of a picture lie in a joint's own frame.

    `shift` is in half image widths, `rotation` in radians.
    """
    along = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x = (along[None, :] - np.float32(shift[0])) / np.float32(scale)
    y = (along[:, None] - np.float32(shift[1])) / np.float32(scale)
    return turned(x, y, rotation)


def turned(u: Floats, v: Floats, angle: float) -> tuple[Floats, Floats]:
    """The same places in a frame that is turned by an angle, radians."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return u * cos + v * sin, v * cos - u * sin


def least(a: Floats, b: Floats, corner: float) -> Floats:
    """The smaller of two distances, with a rounded corner where they meet."""
    near = np.maximum(corner - np.abs(a - b), 0)
    least: Floats = np.minimum(a, b) - near * near * (0.25 / corner)
    return least


def limb(
    u: Floats, v: Floats, start: tuple[float, float], end: tuple[float, float], radii: tuple[float, float]
) -> Floats:
    """Distances inside a rod with round ends whose radius goes from one value to another."""
    du, dv = end[0] - start[0], end[1] - start[1]
    pu, pv = u - np.float32(start[0]), v - np.float32(start[1])
    share: Floats = np.clip((pu * du + pv * dv) / max(du * du + dv * dv, 1e-6), 0, 1)
    return radii[0] + (radii[1] - radii[0]) * share - np.hypot(pu - share * du, pv - share * dv)


def join(first: Floats, *others: Floats, corner: float) -> Floats:
    """Distances inside the union of shapes, with filled corners where their outlines meet."""
    for other in others:
        first = -least(-first, -other, corner)
    return first


def grow(
    distance: Floats, u: Floats, v: Floats, foot: tuple[float, float], length: float, angle: float, out: int
) -> None:
    """Add an osteophyte to a bone's inner distances, in place: a tapering horn outwards from its foot."""
    if length <= 0:
        return
    middle = len(u) // 2
    reach = 1.6 * length + 0.15  # the frame is turned by less than 0.15
    rows = _span(np.abs(v[:, middle] - np.float32(foot[1])) < reach)
    columns = _span(np.abs(u[middle] - np.float32(foot[0])) < reach)
    window = (rows, columns)
    along, across = turned((u[window] - np.float32(foot[0])) * out, v[window] - np.float32(foot[1]), angle)
    along = (along - np.float32(0.25 * length)) / np.float32(0.95 * length)
    half = np.float32(0.62 * length) * np.maximum(1 - 0.5 * along, 0.1)
    across = across / half
    horn = (1 - np.sqrt(along * along + across * across)) * half
    distance[window] = join(distance[window], horn, corner=0.06)


def _span(chosen: Floats) -> slice:
    places = np.flatnonzero(chosen)
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 0)


def profile(body: float, cortex: float, depth: float) -> Curve:
    """What a ray meets at a distance inside a bone's outline: cancellous body and bright cortical rim."""
    inside = edge(AXIS, 0.006, 0.008)
    shell = cortex * (bump(AXIS, 0.015, 0.016) + 0.35 * np.exp(-np.maximum(AXIS, 0) / 0.05))
    return Curve(inside * (body * (1 - 0.75 * np.exp(-np.maximum(AXIS, 0) / depth)) + shell))


def structure(texture: tuple[float, float, float], size: int, rng: np.random.Generator) -> Floats:
    """Trabeculae: fine upright streaks and fainter level ones; mean 0, spread about the strength.

    `texture`: strength, fineness, verticality.
    """
    strength, fineness, upright = texture
    unit = size / 2 * 0.0058 * fineness
    streaks = np.zeros((size, size), np.float32)
    for weight, sigma in ((1.0, (3.2 * upright * unit, 0.8 * unit)), (0.5, (0.8 * unit, 2.2 * unit))):
        grain = rng.standard_normal((size, size), dtype=np.float32)
        for axis in (0, 1):
            grain = gaussian_filter1d(grain, sigma[axis], axis=axis, truncate=2.5)
        streaks += (weight / grain.std()) * grain
    return strength * 0.4 * streaks


def clouds(size: int, knots: int, rng: np.random.Generator) -> Floats:
    """Slow uneven density: a coarse random grid, smoothly interpolated; spread about 1."""
    places = np.linspace(0, knots - 1, size, dtype=np.float32)
    weights = np.exp(-((places[:, None] - np.arange(knots, dtype=np.float32)) ** 2))
    grid = rng.standard_normal((knots, knots), dtype=np.float32)
    clouds: Floats = weights @ grid @ weights.T
    return clouds
