"""The shape of a phantom chest: lungs, heart and bones, how findings change
their outlines, and the attenuation of a healthy chest (soft tissue, air, bones, vessels).

Coordinates: u to the image's right, which is the patient's left; v downwards; a = |u| from the midline;
all in half image widths.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter

from trabecula.phantoms.shapes import (
    AXIS,
    Curve,
    Floats,
    bump,
    clouds,
    edge,
    join,
    least,
    limb,
    outline,
    turned,
)

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
class ChestAnatomy:
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


def draw_anatomy(patient: np.random.Generator, image: np.random.Generator, male: bool) -> ChestAnatomy:
    """Draw a chest: shape is the patient's, pose and depth of breath are the radiograph's."""

    def own(mean: float, sd: float) -> float:
        return mean + sd * float(patient.standard_normal())

    def now(mean: float, sd: float) -> float:
        return mean + sd * float(image.standard_normal())

    breath = now(0.0, 0.035)
    right = own(0.44, 0.03) + breath
    lower = abs(own(0.05, 0.02)) + abs(now(0.0, 0.01))
    apex = own(-0.74, 0.02)
    bubble = float(image.uniform(0.04, 0.10)) if image.random() < 0.6 else 0.0
    return ChestAnatomy(
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


def changed(anatomy: ChestAnatomy, strengths: Mapping[str, float], collapsed: int) -> ChestAnatomy:
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


def lungs(anatomy: ChestAnatomy) -> tuple[Lung, Lung]:
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


Point = tuple[float, float]

# Half width of the trunk with neck and shoulders, by height.
_TRUNK = np.array([
    (-2.0, 0.22), (-0.97, 0.24), (-0.88, 0.34), (-0.78, 0.62), (-0.68, 0.86), (-0.52, 1.02), (-0.30, 1.02),
    (-0.12, 0.94), (0.10, 0.90), (0.50, 0.89), (1.0, 0.93), (2.0, 0.95),
])  # fmt: skip
_BRANCHES = (
    (0.40, 0.10), (0.68, 0.16), (0.45, 0.30), (0.85, 0.36), (0.92, 0.58), (0.88, 0.80), (0.66, 0.92),
    (0.45, 0.95), (0.28, 0.86), (0.60, 0.64),
)  # fmt: skip
"""Where vessels end, in each lung: across and down, see `Lung.place`."""
_AIR = 0.74  # share of the soft tissue in a ray's way in whose place a lung is


@dataclass
class Scene:
    """A chest while it is drawn, all arrays (size, size); `picture` and `vessels` are changed in place."""

    u: Floats
    v: Floats
    a: Floats
    anatomy: ChestAnatomy
    lungs: tuple[Lung, Lung]
    depth: tuple[Floats, Floats]  # distances inside each lung
    within: tuple[Floats, Floats]  # 0 outside .. 1 inside each lung
    air: Floats  # what the lungs take away
    picture: Floats
    vessels: Floats

    def of(self, side: int) -> tuple[Lung, Floats, Floats]:
        """A side's lung, distances inside it, and where it is."""
        number = SIDES.index(side)
        return self.lungs[number], self.depth[number], self.within[number]

    def window(self, low: Point, high: Point) -> tuple[slice, slice]:
        """The part of the arrays that holds a box of (u, v); the frame is turned by less than 0.1."""
        margin, middle = 0.12, len(self.u) // 2
        rows = np.flatnonzero(
            np.abs(self.v[:, middle] - (low[1] + high[1]) / 2) < (high[1] - low[1]) / 2 + margin
        )
        columns = np.flatnonzero(
            np.abs(self.u[middle] - (low[0] + high[0]) / 2) < (high[0] - low[0]) / 2 + margin
        )
        first = [slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, 0) for at in (rows, columns)]
        return first[0], first[1]

    def around(self, centre: Point, radius: float) -> tuple[tuple[slice, slice], Floats, Floats]:
        """The window about a place, and (du, dv) from it there."""
        box = self.window((centre[0] - radius, centre[1] - radius), (centre[0] + radius, centre[1] + radius))
        return box, self.u[box] - np.float32(centre[0]), self.v[box] - np.float32(centre[1])

    def rod(self, start: Point, end: Point, radii: Point, soft: float) -> tuple[tuple[slice, slice], Floats]:
        """A window and in it a soft rod, 0 to 1."""
        widest = max(radii) + 2 * soft
        low = min(start[0], end[0]) - widest, min(start[1], end[1]) - widest
        high = max(start[0], end[0]) + widest, max(start[1], end[1]) + widest
        box = self.window(low, high)
        inside = limb(self.u[box], self.v[box], start, end, radii)
        return box, edge(inside, 0.0, soft).astype(np.float32)


def build(anatomy: ChestAnatomy, u: Floats, v: Floats, rng: np.random.Generator) -> Scene:
    """The chest without signs; `rng` draws its fine structure."""
    a, pair = np.abs(u), lungs(anatomy)
    depth = pair[0].inside(a, v), pair[1].inside(a, v)
    sides = (u < 0).astype(np.float32), (u >= 0).astype(np.float32)
    within = tuple(Curve(edge(AXIS, 0.0, 0.008))(d) * side for d, side in zip(depth, sides, strict=True))
    picture = _soft_tissue(anatomy, a, v)
    heart = _heart(anatomy, u, v)
    lost = Curve(_AIR * (1 - 0.55 * np.exp(-np.maximum(AXIS, 0) / 0.11)))
    air = sum((lost(d) * where for d, where in zip(depth, within, strict=True)), np.zeros_like(u))
    air *= picture * (1 - np.float32(0.80) * heart)
    picture += np.float32(0.05) * heart - air
    scene = Scene(u, v, a, anatomy, pair, depth, (within[0], within[1]), air, picture, np.zeros_like(u))
    _below(scene)
    _middle(scene)
    _bones(scene)
    _branch(scene)
    scene.vessels *= 1 - np.float32(0.75) * heart
    size = len(u)
    fine = rng.standard_normal((size, size), dtype=np.float32)
    fine = gaussian_filter(fine, 0.011 * size / 2, truncate=2.5)
    lung = within[0] + within[1]
    picture += np.float32(0.022 * anatomy.grain) * lung * fine / fine.std()
    picture += (0.06 * clouds(size, 4, rng) + 0.025 * clouds(size, 12, rng)) * np.clip(picture, 0, 1)
    return scene


def _soft_tissue(anatomy: ChestAnatomy, a: Floats, v: Floats) -> Floats:
    """Muscle and fat, thick in the middle, out to the skin; shoulders, breasts."""
    wide, thick = anatomy.body
    share = a / (_skin()(v) * np.float32(wide / 0.94))
    across = np.where(AXIS < 1, 0.50 + 0.42 * np.sqrt(np.clip(1 - AXIS**2, 0, 1)), 0) * edge(
        -AXIS, -0.995, 0.012
    )
    body: Floats = np.float32(thick) * Curve(across)(share)
    body *= Curve(1 - 0.20 * edge(-AXIS, 0.70, 0.10))(v)
    at_a, at_v, radius = anatomy.breasts
    if radius:
        off = np.hypot(a - np.float32(at_a), (v - np.float32(at_v)) * np.float32(0.95))
        fold = Curve(edge(AXIS, at_v - 0.08, 0.18))(v)
        body += np.float32(0.10) * Curve(edge(-AXIS, -radius, 0.012))(off) * fold
    return body


@cache
def _skin() -> Curve:
    return outline(_TRUNK.astype(np.float32), 1)


def _heart(anatomy: ChestAnatomy, u: Floats, v: Floats) -> Floats:
    """0 outside .. 1 inside the heart's shadow: an egg, its tip to the patient's left and below."""
    at_u, at_v, wide, high = anatomy.heart
    along, across = turned(u - np.float32(at_u), v - np.float32(at_v), anatomy.lean)
    across = across * (1 + np.float32(0.18) * along / np.float32(wide))
    egg = (1 - np.sqrt((along / np.float32(wide)) ** 2 + (across / np.float32(high)) ** 2)) * np.float32(high)
    root = limb(u, v, (0.0, -0.30), (0.02, 0.12), (anatomy.vessels[0], 0.20))
    shadow: Floats = Curve(edge(AXIS, 0.0, 0.012))(join(egg, root, corner=0.10))
    return shadow


def _below(scene: Scene) -> None:
    """Liver, stomach and their air under the diaphragm."""
    anatomy, v = scene.anatomy, scene.v
    lowest = min(lung.dome.at(0.36) for lung in scene.lungs)
    lung = scene.within[0] + scene.within[1]
    scene.picture += (
        np.float32(0.16) * Curve(edge(AXIS, lowest + 0.05, 0.05))(v) * (1 - lung) * (scene.picture > 0.2)
    )
    if anatomy.bubble:
        dome = scene.lungs[1].dome.at(0.33)
        box, du, dv = scene.around((0.33, dome + 1.15 * anatomy.bubble), 2.2 * anatomy.bubble)
        off = np.hypot(du * np.float32(0.62), dv)
        scene.picture[box] -= (
            np.float32(0.30) * Curve(edge(-AXIS, -anatomy.bubble, 0.014))(off) * (1 - lung[box])
        )


def _middle(scene: Scene) -> None:
    """Spine, great vessels, aortic knob, windpipe, lung roots."""
    anatomy, u, v = scene.anatomy, scene.u, scene.v
    half, length, dense = anatomy.spine
    off = np.abs(u - np.float32(anatomy.turn))
    column = Curve(edge(-AXIS, -half, 0.016) * (1 - 0.25 * bump(AXIS, 0.0, 0.5 * half)))(off)
    discs = Curve(1 - 0.35 * (np.abs(((AXIS / length) % 1.0) - 0.5) < 0.10))(v)
    scene.picture += np.float32(dense) * column * discs
    right, left = anatomy.vessels
    band = np.where(u < 0, np.float32(right) + u, np.float32(left) - u)
    upper = Curve(edge(-AXIS, 0.05, 0.10))(v)
    scene.picture += np.float32(0.24) * Curve(edge(AXIS, 0.0, 0.014))(band) * upper
    knob, radius = anatomy.arch
    box, du, dv = scene.around((left - 0.02, knob), radius)
    scene.picture[box] += np.float32(0.20) * Curve(edge(-AXIS, -radius, 0.012))(np.hypot(du, dv))
    box, aorta = scene.rod((left - 0.01, knob + 0.05), (0.03, 0.45), (0.045, 0.04), 0.012)
    scene.picture[box] += np.float32(0.07) * aorta
    fork = (anatomy.turn, -0.16)
    pipes = (
        ((anatomy.turn, -1.3), fork, (0.040, 0.034), 0.17), (fork, (-0.13, -0.04), (0.026, 0.02), 0.09),
        (fork, (0.15, -0.06), (0.024, 0.018), 0.09),
    )  # fmt: skip
    for start, end, radii, thin in pipes:
        box, pipe = scene.rod(start, end, radii, 0.010)
        scene.picture[box] -= np.float32(thin) * pipe
    for side, root in zip(SIDES, anatomy.hila, strict=True):
        box, du, dv = scene.around((side * 0.165, root), 0.16)
        scene.picture[box] += np.float32(0.13) * np.exp(-((du / 0.055) ** 2) - (dv / 0.085) ** 2)


def _bones(scene: Scene) -> None:
    """Ribs behind and in front, collar bones, shoulder blades and heads of the arms."""
    anatomy, a, v = scene.anatomy, scene.a, scene.v
    first, distance, slope, dense = anatomy.ribs
    wall = scene.lungs[0].wall
    cage = Curve(edge(AXIS, -0.03, 0.015))(wall(v) - a)
    high, low = first - 0.05, min(lung.dome.at(0.36) for lung in scene.lungs)
    behind = slope * AXIS**2 + 1.3 * np.maximum(AXIS - 0.45, 0) ** 2
    steeper = Curve(1 + 0.9 * np.exp(-np.maximum(AXIS - first, 0) / 0.22))(v)
    through = 0.30 + 0.70 * np.clip(scene.air / np.float32(0.45), 0, 1)  # less is seen in what is dense
    line = v - np.float32(first) - Curve(behind)(a) * steeper
    shown = (
        cage
        * Curve(edge(AXIS, 0.07, 0.015))(a)
        * Curve(edge(AXIS, high, 0.02) * edge(-AXIS, -low - 0.25, 0.1))(v)
    )
    scene.picture += np.float32(dense) * _rib(line, distance, 0.027) * shown * through
    front = v - np.float32(first + 0.14) + np.float32(0.50) * (a - np.float32(0.70))
    shown = (
        cage
        * Curve(edge(AXIS, 0.27, 0.03))(a)
        * Curve(edge(AXIS, first + 0.1, 0.05) * edge(-AXIS, -low - 0.02, 0.06))(v)
    )
    scene.picture += np.float32(0.60 * dense) * _rib(front, 1.25 * distance, 0.030) * shown * through
    level, rise, radius = anatomy.clavicles
    for side in SIDES:
        bend = (side * 0.38, level - 0.25 * rise)
        box = scene.window(*_box((side * 0.06, level + 0.05), (side * 0.90, level - rise - 0.05)))
        u, w = scene.u[box], scene.v[box]
        rod = join(
            limb(u, w, (side * 0.095, level + 0.01), bend, (1.1 * radius, 0.80 * radius)),
            limb(u, w, bend, (side * 0.84, level - rise), (0.85 * radius, radius)), corner=0.05,
        )  # fmt: skip
        shell = edge(AXIS, 0.0, 0.006) * (0.24 + 0.10 * bump(AXIS, 0.007, 0.010))
        scene.picture[box] += Curve(shell)(rod)
        over = 0.80 - anatomy.shoulders
        box, blade = scene.rod((side * (over + 0.10), -0.56), (side * over, -0.04), (0.085, 0.025), 0.012)
        scene.picture[box] += np.float32(0.11) * blade
        box, head = scene.rod((side * 0.99, -0.60), (side * 1.08, -0.25), (0.105, 0.075), 0.012)
        scene.picture[box] += np.float32(0.26) * head


def _rib(line: Floats, distance: float, half: float) -> Floats:
    """Bands at whole multiples of a distance, brighter at their rims."""
    off = np.abs((line / np.float32(distance) + np.float32(0.5)) % np.float32(1.0) - np.float32(0.5))
    profile = edge(-AXIS, -half, 0.007) * (0.75 + 0.45 * bump(AXIS, 0.85 * half, 0.35 * half))
    return Curve(profile)(off * np.float32(distance))


def _box(one: Point, other: Point) -> tuple[Point, Point]:
    return (min(one[0], other[0]), min(one[1], other[1])), (max(one[0], other[0]), max(one[1], other[1]))


def _branch(scene: Scene) -> None:
    """Vessels from the lung roots outwards, thinner and thinner."""
    turns = iter(scene.anatomy.branching)
    for side, height in zip(SIDES, scene.anatomy.hila, strict=True):
        lung, _, _ = scene.of(side)
        for across, down in _BRANCHES:
            root = (side * 0.15, height + 0.05 * (down - 0.5))
            end = lung.place(across, down)
            turn, fork, other = next(turns), next(turns), next(turns)
            du, dv = end[0] - root[0], end[1] - root[1]
            middle = (root[0] + 0.5 * du - turn * dv, root[1] + 0.5 * dv + turn * du)
            twigs = [(root, middle, (0.019, 0.012)), (middle, end, (0.012, 0.004))]
            for bend in (0.45 + fork, -0.45 + other):
                tip = (middle[0] + 0.40 * (du - bend * dv), middle[1] + 0.40 * (dv + bend * du))
                twigs.append((middle, tip, (0.009, 0.003)))
            for start, tip, radii in twigs:
                box, twig = scene.rod(start, tip, radii, 0.007)
                scene.vessels[box] = np.maximum(scene.vessels[box], (0.05 + 7.5 * radii[0]) * twig)
    scene.vessels *= scene.within[0] + scene.within[1]
