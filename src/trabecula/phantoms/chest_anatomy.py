"""The shape of a make-believe chest: lungs, heart and bones, and how findings change their outlines.

Coordinates: u to the image's right, which is the patient's left; v downwards; a = |u| from the midline;
all in half image widths.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from trabecula.phantoms.shapes import AXIS, Curve, Floats, least, outline

RIGHT, LEFT = -1, 1  # the patient's sides, by the sign of u
SIDES = (RIGHT, LEFT)

# The chest wall inside the ribs, from the lung's apex down: (v from the apex, a).
_WALL = np.array([
    (-1.0, 0.10), (0.0, 0.17), (0.06, 0.28), (0.14, 0.385), (0.28, 0.50), (0.46, 0.60), (0.70, 0.675),
    (0.95, 0.715), (1.2, 0.73), (2.4, 0.73),
])  # fmt: skip
# The edge towards the midline, behind heart and vessels.
_INNER = np.array([(-1.0, 0.05), (0.0, 0.06), (0.2, 0.09), (0.5, 0.10), (2.4, 0.09)])


@dataclass(frozen=True)
class Lung:
    """One lung's outline."""

    side: int
    apex: float  # v
    wall: Curve  # a by v
    inner: Curve  # a by v
    dome: Curve  # v of the diaphragm by a

    def inside(self, a: Floats, v: Floats) -> Floats:
        """Distances inside the outline; the angle between wall and diaphragm stays sharp."""
        across = least(self.wall(v) - a, a - self.inner(v), 0.05)
        return least(least(across, v - np.float32(self.apex), 0.16), self.dome(a) - v, 0.03)

    def place(self, across: float, down: float) -> tuple[float, float]:
        """(u, v) of a place in the lung: 0 to 1 from the inner edge to the wall, from apex to diaphragm."""
        a = 0.35
        for _ in range(3):
            v = self.apex + down * (self.dome.at(a) - self.apex)
            inner = self.inner.at(v)
            a = inner + across * (self.wall.at(v) - inner)
        return self.side * a, v


@dataclass(frozen=True)
class Anatomy:
    """Shape and pose of one chest; lengths in half image widths, angles in radians."""

    scale: float
    rotation: float
    shift: tuple[float, float]
    turn: float  # of the patient on her axis: the spine's shadow against the midline
    apex: tuple[float, float]  # v, right and left
    width: float  # of the lungs, a factor
    domes: tuple[float, float]  # v of the top of the diaphragm, right and left
    doming: float  # how much deeper the angle at the wall lies
    body: tuple[float, float]  # half width of the trunk, thickness of the soft tissue
    heart: tuple[float, float, float, float]  # centre u, v; half width, half height
    lean: float  # of the heart's axis
    arch: tuple[float, float]  # v of the aortic knob, its radius
    vessels: tuple[float, float]  # half width of the upper mediastinum right, left
    hila: tuple[float, float]  # v of the lung roots, right and left
    spine: tuple[float, float, float]  # half width, length of a vertebra with its disc, density
    ribs: tuple[float, float, float, float]  # v of the first, distance, slope, density
    clavicles: tuple[float, float, float]  # v at the sternum, rise to the shoulder, radius
    shoulders: float  # how far the blades reach over the lungs
    breasts: tuple[float, float, float]  # a, v, radius; 0: none
    bubble: float  # radius of the stomach's air; 0: none to be seen
    branching: tuple[float, ...]  # turns of the vessels in the lungs
    grain: float  # strength of the lungs' fine structure


def draw_anatomy(patient: np.random.Generator, film: np.random.Generator, male: bool) -> Anatomy:
    """Draw a chest: shape is the patient's, pose and depth of breath are the film's."""

    def own(mean: float, sd: float) -> float:
        return mean + sd * float(patient.standard_normal())

    def now(mean: float, sd: float) -> float:
        return mean + sd * float(film.standard_normal())

    breath = now(0.0, 0.035)
    right = own(0.44, 0.03) + breath
    lower = abs(own(0.05, 0.02)) + abs(now(0.0, 0.01))
    apex = own(-0.74, 0.02)
    bubble = float(film.uniform(0.04, 0.10)) if film.random() < 0.6 else 0.0
    return Anatomy(
        scale=now(1.0, 0.03) * own(1.0, 0.03),
        rotation=now(0.0, 0.025),
        shift=(now(0.0, 0.03), now(0.0, 0.04)),
        turn=now(0.0, 0.015),
        apex=(apex, apex + own(0.0, 0.01)),
        width=own(1.0 if male else 0.96, 0.04),
        domes=(right, right + lower),
        doming=own(0.20, 0.04) - breath,
        body=(max(0.80, own(0.94, 0.07)), max(0.6, own(1.0, 0.15))),
        heart=(own(0.10, 0.02), own(0.22, 0.02) + 0.6 * breath, own(0.295, 0.02), own(0.25, 0.02)),
        lean=own(0.50, 0.08),
        arch=(own(-0.36, 0.03), max(0.04, own(0.085, 0.014))),
        vessels=(own(0.115, 0.012), own(0.105, 0.012)),
        hila=(own(-0.02, 0.02), own(-0.06, 0.02)),
        spine=(own(0.085, 0.006), own(0.118, 0.006), max(0.08, own(0.15, 0.03))),
        ribs=(own(-0.66, 0.015), own(0.122, 0.006), own(0.30, 0.04), max(0.08, own(0.155, 0.035))),
        clavicles=(now(-0.58, 0.025), now(0.07, 0.03), own(0.030, 0.003)),
        shoulders=now(0.0, 0.03),
        breasts=(own(0.40, 0.03), own(0.34, 0.06), 0.0 if male else max(0.1, own(0.27, 0.05))),
        bubble=bubble,
        branching=tuple(float(turn) for turn in patient.normal(0, 0.14, 60)),
        grain=max(0.3, own(1.0, 0.2)),
    )


def changed(anatomy: Anatomy, strengths: Mapping[str, float], collapsed: int) -> Anatomy:
    """The outlines that findings change: the heart's size, the diaphragm's height, the lungs' width.

    Args:
        strengths: size of each finding that is there; about 1.
        collapsed: the side on which atelectasis raises the diaphragm.
    """
    at_u, at_v, wide, high = anatomy.heart
    large = strengths.get("Cardiomegaly", 0.0)
    open_, shrunk = strengths.get("Emphysema", 0.0), strengths.get("Fibrosis", 0.0)
    raised = [0.09 * strengths.get("Atelectasis", 0.0) * (side == collapsed) for side in SIDES]
    right, left = (
        dome + 0.09 * open_ - 0.05 * shrunk - up for dome, up in zip(anatomy.domes, raised, strict=True)
    )
    return replace(
        anatomy,
        heart=(
            at_u + 0.05 * large - 0.015 * open_,
            at_v + 0.02 * large,
            wide * (1 + 0.42 * large) * (1 - 0.13 * open_),
            high * (1 + 0.22 * large) * (1 + 0.08 * open_),
        ),
        domes=(right, left),
        doming=anatomy.doming * max(0.25, 1 - 0.6 * open_),
        width=anatomy.width * (1 + 0.035 * open_ - 0.02 * shrunk),
    )


def lungs(anatomy: Anatomy) -> tuple[Lung, Lung]:
    """The patient's right and left lung."""
    pair = []
    for number, side in enumerate(SIDES):
        apex, level = anatomy.apex[number], anatomy.domes[number]
        wall, inner = _WALL.copy(), _INNER.copy()
        wall[:, 1] *= anatomy.width
        for points in (wall, inner):
            points[:, 0] += apex
        outer, middle = 0.73 * anatomy.width, 0.36
        away = AXIS - middle
        slope = np.where(away > 0, anatomy.doming / (outer - middle) ** 2, 0.55 * anatomy.doming / 0.07)
        dome = Curve(level + slope * away**2)
        pair.append(
            Lung(side, apex, outline(wall.astype(np.float32), 1), outline(inner.astype(np.float32), 1), dome)
        )
    return pair[0], pair[1]


def side_of(sides: Collection[int], number: float) -> tuple[int, ...]:
    """One of the sides, or both in one of six, by a number in [0, 1)."""
    ordered = sorted(sides)
    return tuple(ordered) if number >= 5 / 6 else (ordered[int(number * 6 / 5 * len(ordered))],)
