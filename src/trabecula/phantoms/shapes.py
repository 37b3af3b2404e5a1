"""Shapes on a picture: rotation, distances inside an outline; and the bone inside them: rim and body,
trabeculae, slow uneven density."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from trabecula.phantoms.curves import AXIS, Curve, Floats, Point, bump, edge, fade


def frame(size: int, shift: Point, scale: float, rotation: float) -> tuple[Floats, Floats]:
    """(size, size) each: where the pixels of a picture lie in a joint's own frame.

    `shift` is in half image widths, `rotation` in radians.
    """
    along = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    return turned((along[None, :] - shift[0]) / scale, (along[:, None] - shift[1]) / scale, rotation)


def turned(u: Floats, v: Floats, angle: float) -> tuple[Floats, Floats]:
    """The same places in a frame that is turned by an angle, radians."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return u * cos + v * sin, v * cos - u * sin


def window(u: Floats, v: Floats, centre: Point, reach: Point) -> tuple[slice, slice]:
    """The part of a frame's arrays that holds a box; `reach` allows for the frame's turn."""
    middle = len(u) // 2
    rows = np.flatnonzero(np.abs(v[:, middle] - centre[1]) < reach[1])
    columns = np.flatnonzero(np.abs(u[middle] - centre[0]) < reach[0])
    spans = [slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, 0) for at in (rows, columns)]
    return spans[0], spans[1]


def least(a: Floats, b: Floats, corner: float) -> Floats:
    """The smaller of two distances, with a rounded corner where they meet."""
    near = np.maximum(corner - np.abs(a - b), 0)
    return np.asarray(np.minimum(a, b) - near * near * (0.25 / corner))


def limb(u: Floats, v: Floats, start: Point, end: Point, radii: Point) -> Floats:
    """Distances inside a rod with round ends whose radius goes from one value to another."""
    du, dv = end[0] - start[0], end[1] - start[1]
    pu, pv = u - np.float32(start[0]), v - np.float32(start[1])
    share = np.clip((pu * du + pv * dv) / max(du * du + dv * dv, 1e-6), 0, 1)
    return np.asarray(radii[0] + (radii[1] - radii[0]) * share - np.hypot(pu - share * du, pv - share * dv))


def join(first: Floats, *others: Floats, corner: float) -> Floats:
    """Distances inside the union of shapes, with filled corners where their outlines meet."""
    for other in others:
        first = -least(-first, -other, corner)
    return first


def grow(distance: Floats, u: Floats, v: Floats, foot: Point, length: float, angle: float, out: int) -> None:
    """Add an osteophyte to a bone's inner distances, in place: a tapering horn outwards from its foot."""
    if length <= 0:
        return
    reach = 1.6 * length + 0.15  # the frame is turned by less than 0.15
    box = window(u, v, foot, (reach, reach))
    along, across = turned((u[box] - foot[0]) * out, v[box] - foot[1], angle)
    along = (along - 0.25 * length) / (0.95 * length)
    half = 0.62 * length * np.maximum(1 - 0.5 * along, 0.1)
    across = across / half
    horn = (1 - np.sqrt(along * along + across * across)) * half
    distance[box] = join(distance[box], horn, corner=0.06)


def profile(body: float, cortex: float, depth: float) -> Curve:
    """What a ray meets at a distance inside a bone's outline: cancellous body and bright cortical rim."""
    shell = cortex * (bump(AXIS, 0.015, 0.016) + 0.35 * fade(AXIS, 0.05))
    return Curve(edge(AXIS, 0.006, 0.008) * (body * (1 - 0.75 * fade(AXIS, depth)) + shell))


def bone(distance: Floats, look: Curve, trabeculae: Floats, extra: Floats) -> Floats:
    """A bone with its trabeculae and what else is seen inside its outline; `look` as `profile` gives it."""
    return look(distance) * (1 + trabeculae) + np.clip(distance * 60, 0, 1) * extra


def structure(texture: tuple[float, float, float], size: int, rng: np.random.Generator) -> Floats:
    """Trabeculae: fine upright streaks and fainter level ones; mean 0, spread about the strength.

    `texture`: strength, fineness, verticality.
    """
    strength, fineness, upright = texture
    unit = size / 2 * 0.0058 * fineness
    streaks = np.zeros((size, size), np.float32)
    for weight, sigma in ((1.0, (3.2 * upright * unit, 0.8 * unit)), (0.5, (0.8 * unit, 2.2 * unit))):
        grain = gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), sigma, truncate=2.5)
        streaks += (weight / grain.std()) * grain
    return strength * 0.4 * streaks


def clouds(size: int, knots: int, rng: np.random.Generator) -> Floats:
    """Slow uneven density: a coarse random grid, smoothly interpolated; spread about 1."""
    places = np.linspace(0, knots - 1, size, dtype=np.float32)
    weights = np.exp(-((places[:, None] - np.arange(knots, dtype=np.float32)) ** 2))
    return np.asarray(weights @ rng.standard_normal((knots, knots), dtype=np.float32) @ weights.T)
