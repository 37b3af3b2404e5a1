"""Phantom photographs: one coloured object of a plain kind before a coloured background.

Stand-ins for natural images whose objects are easy to tell, as those of Imagenette are (ten classes of
ImageNet; https://github.com/fastai/imagenette), in its folders: `train/star/1000019.png`. The kind is the
outline. As tench are green and golf balls white, most objects of a kind also share a hue and a pattern, the
others have any. Place, size, turn, light and background are drawn without knowing the kind.
"""

from __future__ import annotations

from collections.abc import Callable
from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trabecula.phantoms.curves import Floats
from trabecula.phantoms.patients import stream
from trabecula.phantoms.radiograph import halved
from trabecula.phantoms.shapes import frame, turned

_OBJECTS = 7  # the random stream
_VAL_OF_TEN = 3  # as many in ten are in val; Imagenette: 3,925 of 13,394
_USUAL = 0.7  # of a kind's objects have its hue and pattern


@dataclass(frozen=True)
class Photograph:
    """One picture (S, S, 3) of an object of a kind."""

    image: npt.NDArray[np.uint8]
    kind: str


def _disc(u: Floats, v: Floats) -> Floats:
    return 0.9 - np.hypot(u, v)


def _ring(u: Floats, v: Floats) -> Floats:
    return 0.22 - np.abs(np.hypot(u, v) - 0.72)


def _square(u: Floats, v: Floats) -> Floats:
    return 0.76 - np.maximum(np.abs(u), np.abs(v))


def _bar(u: Floats, v: Floats) -> Floats:
    return -np.maximum(np.abs(u) - 0.95, np.abs(v) - 0.28)


def _triangle(u: Floats, v: Floats) -> Floats:
    return 0.5 - np.maximum(v, np.maximum(-0.5 * v + 0.866 * u, -0.5 * v - 0.866 * u))


def _cross(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.maximum(_bar(u, v), _bar(v, u)))


def _star(u: Floats, v: Floats) -> Floats:
    angle = np.mod(np.arctan2(v, u), 2 * np.pi / 5) - np.pi / 5
    radius = np.hypot(u, v)
    return 0.42 - radius * (np.cos(angle) - 0.65 * np.abs(np.sin(angle)))


def _crescent(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.minimum(_disc(u, v), np.hypot(u - 0.45, v) - 0.72))


def _arrow(u: Floats, v: Floats) -> Floats:
    shaft = -np.maximum(np.abs(u + 0.35) - 0.6, np.abs(v) - 0.18)
    head = np.minimum(u - 0.15, 0.9 - u - 1.1 * np.abs(v))
    return np.asarray(np.maximum(shaft, head))


def _heart(u: Floats, v: Floats) -> Floats:
    lobes = np.maximum(0.48 - np.hypot(u - 0.4, v + 0.3), 0.48 - np.hypot(u + 0.4, v + 0.3))
    return np.asarray(np.maximum(lobes, np.minimum(0.62 - np.abs(u) - 0.75 * v, v + 0.3)))


KINDS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "arrow": _arrow, "bar": _bar, "crescent": _crescent, "cross": _cross, "disc": _disc, "heart": _heart,
    "ring": _ring, "square": _square, "star": _star, "triangle": _triangle,
}  # fmt: skip
"""By name: how far a place (u, v) lies inside the outline, roughly; above 0 inside."""


def object_of(number: int) -> tuple[str, str]:
    """The part ("train" or "val") and the kind of object 0, 1, ...: each kind as often as the others."""
    turn, place = divmod(number, len(KINDS))
    return ("val" if _VAL_OF_TEN * turn % 10 < _VAL_OF_TEN else "train"), list(KINDS)[place]


def draw_object(size: int, seed: int, number: int) -> Photograph:
    """Draw one object; a function of size, seed and number only."""
    rng, kind = stream(seed, _OBJECTS, number), object_of(number)[1]
    x, y = frame(2 * size, (0, 0), scale=1, rotation=0)
    radius, shift = rng.uniform(0.4, 0.75), rng.uniform(-0.3, 0.3, 2)
    u, v = turned((x - shift[0]) / radius, (y - shift[1]) / radius, rng.uniform(0, 2 * np.pi))
    u = u * rng.uniform(0.85, 1.2)
    inside = KINDS[kind](u.astype(np.float32), v.astype(np.float32))
    cover = np.clip(0.5 + inside * radius * size / 2, 0, 1)[..., None]  # soft over one pixel
    behind, front = _background(x, y, rng), _surface(u, v, list(KINDS).index(kind), rng)
    picture = (1 - cover) * behind + cover * front
    light = 1 + rng.uniform(0, 0.35) * np.cos(rng.uniform(0, 2 * np.pi) + 1.5 * x + rng.uniform(-1, 1) * y)
    picture = picture * light[..., None] + rng.normal(0, rng.uniform(0.01, 0.05), picture.shape)
    return Photograph((255 * np.clip(halved(picture), 0, 1)).round().astype(np.uint8), kind)


def _background(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """(S, S, 3) two colours in slow waves, and a few blurred patches of others."""
    first, second = rng.uniform(0.1, 0.9, (2, 3))
    waves = [
        np.cos(rng.uniform(1, 7) * turned(x, y, rng.uniform(0, np.pi))[0] + rng.uniform(0, 7))
        for _ in range(3)
    ]
    share = (0.5 + (waves[0] + waves[1] + waves[2]) / 6)[..., None]
    picture = share * first + (1 - share) * second
    for _ in range(int(rng.integers(0, 4))):
        place, width = rng.uniform(-1, 1, 2), rng.uniform(0.1, 0.3)
        patch = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / width**2)[..., None]
        picture = (1 - 0.8 * patch) * picture + 0.8 * patch * rng.uniform(0.1, 0.9, 3)
    return np.asarray(picture)


def _surface(u: Floats, v: Floats, habit: int, rng: np.random.Generator) -> Floats:
    """(S, S, 3) one colour, or two in stripes or spots: those of the kind, or any."""
    usual = rng.random() < _USUAL
    hue = (habit / len(KINDS) + rng.normal(0, 0.03)) % 1 if usual else rng.random()
    first = np.array(hsv_to_rgb(hue, rng.uniform(0.5, 1), rng.uniform(0.4, 0.95)))
    second = rng.uniform(0.05, 0.95, 3)
    pattern, rate = habit % 3 if usual else int(rng.integers(3)), rng.uniform(6, 14)
    mark = {0: 0 * u, 1: np.sin(rate * u), 2: np.sin(rate * u) * np.sin(rate * v)}[pattern]
    share = (0.5 + 0.5 * np.tanh(4 * mark))[..., None] if pattern else np.zeros((*u.shape, 1))
    return np.asarray((1 - share) * first + share * second)
