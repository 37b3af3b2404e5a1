"""The shape of a phantom chest: lungs, heart and bones, how findings change
their outlines, and the attenuation of a healthy chest (soft tissue, air, bones, vessels).

Coordinates: u to the image's right, which is the patient's left; v downwards; a = |u| from the midline;
all in half image widths.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import gaussian_filter

from trabecula.phantoms.curves import AXIS, Curve, Floats, Point, bump, edge, fade, outline
from trabecula.phantoms.shapes import clouds, join, least, limb, turned, window

RIGHT, LEFT = -1, 1  # the patient's sides, by the sign of u
SIDES = (RIGHT, LEFT)

# The chest wall inside the ribs, from the lung's apex down: (v from the apex, a).
_WALL = np.array([
    (-1.0, 0.10), (0.0, 0.17), (0.06, 0.28), (0.14, 0.385), (0.28, 0.50), (0.46, 0.60), (0.70, 0.675),
    (0.95, 0.715), (1.2, 0.73), (2.4, 0.73),
])  # fmt: skip
# The edge towards the midline, behind heart and vessels.
_INNER = np.array([(-1.0, 0.05), (0.0, 0.06), (0.2, 0.09), (0.5, 0.10), (2.4, 0.09)])
# Half width of the trunk with neck and shoulders, by height.
_TRUNK = outline(np.array([
    (-2.0, 0.22), (-0.97, 0.24), (-0.88, 0.34), (-0.78, 0.62), (-0.68, 0.86), (-0.52, 1.02), (-0.30, 1.02),
    (-0.12, 0.94), (0.10, 0.90), (0.50, 0.89), (1.0, 0.93), (2.0, 0.95),
]), 1)  # fmt: skip
_BRANCHES = (
    (0.40, 0.10), (0.68, 0.16), (0.45, 0.30), (0.85, 0.36), (0.92, 0.58), (0.88, 0.80), (0.66, 0.92),
    (0.45, 0.95), (0.28, 0.86), (0.60, 0.64),
)  # fmt: skip
"""Where vessels end, in each lung: across and down, see `Lung.place`."""
_AIR = 0.74  # share of the soft tissue in a ray's way in whose place a lung is

Window = tuple[slice, slice]


class ChestAnatomy:
    """Shape and pose of one chest, drawn; lengths in half image widths, angles in radians.

    Shape is the patient's, pose and depth of breath are the radiograph's.
    """

    def __init__(self, patient: np.random.Generator, image: np.random.Generator, male: bool) -> None:
        def own(mean: float, sd: float) -> float:
            return mean + sd * patient.standard_normal()

        def now(mean: float, sd: float) -> float:
            return mean + sd * image.standard_normal()

        breath = now(0.0, 0.035)
        right = own(0.44, 0.03) + breath
        lower = abs(own(0.05, 0.02)) + abs(now(0.0, 0.01))
        apex = own(-0.74, 0.02)
        self.bubble = image.uniform(0.04, 0.10) if image.random() < 0.6 else 0.0  # radius: the stomach's air
        self.scale = now(1.0, 0.03) * own(1.0, 0.03)
        self.rotation = now(0.0, 0.025)
        self.shift = (now(0.0, 0.03), now(0.0, 0.04))
        self.turn = now(0.0, 0.015)  # of the patient on her axis: the spine's shadow against the midline
        self.apex = (apex, apex + own(0.0, 0.01))  # v, right and left
        self.width = own(1.0 if male else 0.96, 0.04)  # of the lungs, a factor
        self.domes = (right, right + lower)  # v of the top of the diaphragm, right and left
        self.doming = own(0.20, 0.04) - breath  # how much deeper the angle at the wall lies
        # Half width of the trunk, thickness of the soft tissue.
        self.body = (max(0.80, own(0.94, 0.07)), max(0.6, own(1.0, 0.15)))
        # Centre u, v; half width, half height.
        self.heart = (own(0.10, 0.02), own(0.22, 0.02) + 0.6 * breath, own(0.295, 0.02), own(0.25, 0.02))
        self.lean = own(0.50, 0.08)  # of the heart's axis
        self.arch = (own(-0.36, 0.03), max(0.04, own(0.085, 0.014)))  # v of the aortic knob, its radius
        self.vessels = (own(0.115, 0.012), own(0.105, 0.012))  # upper mediastinum: half width right, left
        self.hila = (own(-0.02, 0.02), own(-0.06, 0.02))  # v of the lung roots, right and left
        # Half width, length of a vertebra with its disc, density.
        self.spine = (own(0.085, 0.006), own(0.118, 0.006), max(0.08, own(0.15, 0.03)))
        # v of the first, distance, slope, density.
        self.ribs = (own(-0.66, 0.015), own(0.122, 0.006), own(0.30, 0.04), max(0.08, own(0.155, 0.035)))
        # v at the sternum, rise to the shoulder, radius.
        self.clavicles = (now(-0.58, 0.025), now(0.07, 0.03), own(0.030, 0.003))
        self.shoulders = now(0.0, 0.03)  # how far the blades reach over the lungs
        # a, v, radius; 0: none.
        self.breasts = (own(0.40, 0.03), own(0.34, 0.06), 0.0 if male else max(0.1, own(0.27, 0.05)))
        self.branching: list[float] = patient.normal(0, 0.14, 60).tolist()  # turns of the lungs' vessels
        self.grain = max(0.3, own(1.0, 0.2))  # strength of the lungs' fine structure

    def turn_to_front(self) -> None:
        """Lying or sitting, tube before the chest: heart and mediastinum larger, blades over the lungs."""
        at_u, at_v, wide, high = self.heart
        self.heart = (at_u, at_v, 1.10 * wide, 1.03 * high)
        self.vessels = (1.15 * self.vessels[0], 1.15 * self.vessels[1])
        self.shoulders += 0.09
        self.domes = (self.domes[0] - 0.04, self.domes[1] - 0.04)

    def change(self, strengths: Mapping[str, float], collapsed: int) -> None:
        """The outlines that findings change: the heart's size, the diaphragm's height, the lungs' width.

        Args:
            strengths: size of each finding that is there; about 1.
            collapsed: the side on which atelectasis raises the diaphragm.
        """
        large, shrunk = strengths.get("Cardiomegaly", 0.0), strengths.get("Fibrosis", 0.0)
        open_, raised = strengths.get("Emphysema", 0.0), 0.09 * strengths.get("Atelectasis", 0.0)
        at_u, at_v, wide, high = self.heart
        wide, high = wide * (1 + 0.42 * large), high * (1 + 0.22 * large)
        at_u, at_v = at_u + 0.05 * large - 0.015 * open_, at_v + 0.02 * large
        self.heart = (at_u, at_v, wide * (1 - 0.13 * open_), high * (1 + 0.08 * open_))
        right, left = (dome + 0.09 * open_ - 0.05 * shrunk for dome in self.domes)
        self.domes = (right - raised, left) if collapsed == RIGHT else (right, left - raised)
        self.doming *= max(0.25, 1 - 0.6 * open_)
        self.width *= 1 + 0.035 * open_ - 0.02 * shrunk


class Lung:
    """One lung: its outline, and the pixels (u, v) within it."""

    def __init__(self, anatomy: ChestAnatomy, side: int, u: Floats, v: Floats) -> None:
        number = SIDES.index(side)
        self.side, self.apex, self.root = side, anatomy.apex[number], anatomy.hila[number]  # v of both
        down = np.array((self.apex, 0))
        self.wall = outline(_WALL * (1, anatomy.width) + down, 1)  # a by v
        self.inner = outline(_INNER + down, 1)  # a by v
        outer, middle = 0.73 * anatomy.width, 0.36
        away = AXIS - middle
        bend = np.where(away > 0, anatomy.doming / (outer - middle) ** 2, 0.55 * anatomy.doming / 0.07)
        self.dome = Curve(anatomy.domes[number] + bend * away**2)  # v of the diaphragm by a
        a = np.abs(u)
        across = least(self.wall(v) - a, a - self.inner(v), 0.05)
        # Distances inside the outline; the angle between wall and diaphragm stays sharp.
        self.depth = least(least(across, v - self.apex, 0.16), self.dome(a) - v, 0.03)
        half = u < 0 if side == RIGHT else u >= 0
        self.within = Curve(edge(AXIS, 0.0, 0.008))(self.depth) * half  # 0 outside .. 1 inside

    def place(self, across: float, down: float) -> Point:
        """(u, v) of a place in the lung: 0 to 1 from the inner edge to the wall, from apex to diaphragm."""
        a = 0.35
        for _ in range(3):
            v = self.apex + down * (self.dome.at(a) - self.apex)
            inner = self.inner.at(v)
            a = inner + across * (self.wall.at(v) - inner)
        return self.side * a, v


class Scene:
    """A chest while it is drawn, all arrays (size, size); `picture` and `vessels` are changed in place."""

    def __init__(self, anatomy: ChestAnatomy, u: Floats, v: Floats) -> None:
        self.anatomy, self.u, self.v, self.a = anatomy, u, v, np.abs(u)
        right, left = self.lungs = Lung(anatomy, RIGHT, u, v), Lung(anatomy, LEFT, u, v)
        self.inside = right.within + left.within
        self.lowest = min(lung.dome.at(0.36) for lung in self.lungs)  # top of the higher dome
        self.heart = _heart(anatomy, u, v)
        self.picture = _soft_tissue(anatomy, self.a, v)
        lost = Curve(_AIR * (1 - 0.55 * fade(AXIS, 0.11)))
        # What the lungs take away.
        self.air = lost(right.depth) * right.within + lost(left.depth) * left.within
        self.air *= self.picture * (1 - 0.80 * self.heart)
        self.picture += 0.05 * self.heart - self.air
        self.vessels = np.zeros_like(u)

    def window(self, one: Point, other: Point, around: float = 0.0) -> Window:
        """The part of the arrays that holds two places and what is around them."""
        low = min(one[0], other[0]) - around, min(one[1], other[1]) - around
        high = max(one[0], other[0]) + around, max(one[1], other[1]) + around
        centre = ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2)
        margin = 0.12  # the frame is turned by less than 0.1
        reach = ((high[0] - low[0]) / 2 + margin, (high[1] - low[1]) / 2 + margin)
        return window(self.u, self.v, centre, reach)

    def around(self, centre: Point, radius: float) -> tuple[Window, Floats, Floats]:
        """The window about a place, and (du, dv) from it there."""
        box = self.window(centre, centre, radius)
        return box, self.u[box] - centre[0], self.v[box] - centre[1]

    def rod(self, start: Point, end: Point, radii: Point, soft: float) -> tuple[Window, Floats]:
        """A window and in it a soft rod, 0 to 1."""
        box = self.window(start, end, max(radii) + 2 * soft)
        inside = limb(self.u[box], self.v[box], start, end, radii)
        return box, edge(inside, 0.0, soft).astype(np.float32)

    def oval(self, centre: Point, radii: Point, look: Curve) -> Floats:
        """A shade by the distance from a place in radii, from 0 to 2."""
        far = np.hypot((self.u - centre[0]) / radii[0], (self.v - centre[1]) / radii[1])
        return look(np.minimum(far, 1.99))


def build(anatomy: ChestAnatomy, u: Floats, v: Floats, rng: np.random.Generator) -> Scene:
    """The chest without signs; `rng` draws its fine structure."""
    scene = Scene(anatomy, u, v)
    for part in (_below, _middle, _bones, _branch):
        part(scene)
    scene.vessels *= 1 - 0.75 * scene.heart
    size, picture = len(u), scene.picture
    fine = rng.standard_normal((size, size), dtype=np.float32)
    fine = gaussian_filter(fine, 0.011 * size / 2, truncate=2.5)
    picture += 0.022 * anatomy.grain * scene.inside * fine / fine.std()
    picture += (0.06 * clouds(size, 4, rng) + 0.025 * clouds(size, 12, rng)) * np.clip(picture, 0, 1)
    return scene


def _soft_tissue(anatomy: ChestAnatomy, a: Floats, v: Floats) -> Floats:
    """Muscle and fat, thick in the middle, out to the skin; shoulders, breasts."""
    wide, thick = anatomy.body
    share = a / (_TRUNK(v) * (wide / 0.94))
    inner = np.where(AXIS < 1, 0.50 + 0.42 * np.sqrt(np.clip(1 - AXIS**2, 0, 1)), 0)
    body = thick * Curve(inner * edge(-AXIS, -0.995, 0.012))(share)
    body *= Curve(1 - 0.20 * edge(-AXIS, 0.70, 0.10))(v)
    at_a, at_v, radius = anatomy.breasts
    if radius:
        off = np.hypot(a - at_a, (v - at_v) * 0.95)
        fold = Curve(edge(AXIS, at_v - 0.08, 0.18))(v)
        body += 0.10 * Curve(edge(-AXIS, -radius, 0.012))(off) * fold
    return body


def _heart(anatomy: ChestAnatomy, u: Floats, v: Floats) -> Floats:
    """0 outside .. 1 inside the heart's shadow: an egg, its tip to the patient's left and below."""
    at_u, at_v, wide, high = anatomy.heart
    along, across = turned(u - at_u, v - at_v, anatomy.lean)
    across = across * (1 + 0.18 * along / wide)
    egg = (1 - np.sqrt((along / wide) ** 2 + (across / high) ** 2)) * high
    root = limb(u, v, (0.0, -0.30), (0.02, 0.12), (anatomy.vessels[0], 0.20))
    return Curve(edge(AXIS, 0.0, 0.012))(join(egg, root, corner=0.10))


def _below(scene: Scene) -> None:
    """Liver, stomach and their air under the diaphragm."""
    outside, bubble = 1 - scene.inside, scene.anatomy.bubble
    liver = Curve(edge(AXIS, scene.lowest + 0.05, 0.05))(scene.v)
    scene.picture += 0.16 * liver * outside * (scene.picture > 0.2)
    if bubble:
        box, du, dv = scene.around((0.33, scene.lungs[1].dome.at(0.33) + 1.15 * bubble), 2.2 * bubble)
        air = Curve(edge(-AXIS, -bubble, 0.014))(np.hypot(du * 0.62, dv))
        scene.picture[box] -= 0.30 * air * outside[box]


def _middle(scene: Scene) -> None:
    """Spine, great vessels, aortic knob, windpipe, lung roots."""
    anatomy, picture, u, v = scene.anatomy, scene.picture, scene.u, scene.v
    half, length, dense = anatomy.spine
    column = Curve(edge(-AXIS, -half, 0.016) * (1 - 0.25 * bump(AXIS, 0.0, 0.5 * half)))
    discs = Curve(1 - 0.35 * (np.abs(((AXIS / length) % 1.0) - 0.5) < 0.10))(v)
    picture += dense * column(np.abs(u - anatomy.turn)) * discs
    right, left = anatomy.vessels
    band = Curve(edge(AXIS, 0.0, 0.014))(np.where(u < 0, right + u, left - u))
    picture += 0.24 * band * Curve(edge(-AXIS, 0.05, 0.10))(v)
    knob, radius = anatomy.arch
    box, du, dv = scene.around((left - 0.02, knob), radius)
    picture[box] += 0.20 * Curve(edge(-AXIS, -radius, 0.012))(np.hypot(du, dv))
    box, aorta = scene.rod((left - 0.01, knob + 0.05), (0.03, 0.45), (0.045, 0.04), 0.012)
    picture[box] += 0.07 * aorta
    fork = (anatomy.turn, -0.16)
    pipes = (
        ((anatomy.turn, -1.3), fork, (0.040, 0.034), 0.17), (fork, (-0.13, -0.04), (0.026, 0.02), 0.09),
        (fork, (0.15, -0.06), (0.024, 0.018), 0.09),
    )  # fmt: skip
    for start, end, radii, thin in pipes:
        box, pipe = scene.rod(start, end, radii, 0.010)
        picture[box] -= thin * pipe
    for lung in scene.lungs:
        box, du, dv = scene.around((lung.side * 0.165, lung.root), 0.16)
        picture[box] += 0.13 * np.exp(-((du / 0.055) ** 2) - (dv / 0.085) ** 2)


def _bones(scene: Scene) -> None:
    """Ribs behind and in front, collar bones, shoulder blades and heads of the arms."""
    anatomy, a, v, low = scene.anatomy, scene.a, scene.v, scene.lowest
    first, distance, slope, dense = anatomy.ribs
    # Only on the cage of the chest, and less in what is dense.
    seen = Curve(edge(AXIS, -0.03, 0.015))(scene.lungs[0].wall(v) - a)
    through = 0.30 + 0.70 * np.clip(scene.air / 0.45, 0, 1)
    behind = Curve(slope * AXIS**2 + 1.3 * np.maximum(AXIS - 0.45, 0) ** 2)(a)
    line = v - first - behind * Curve(1 + 0.9 * fade(AXIS - first, 0.22))(v)
    height = Curve(edge(AXIS, first - 0.05, 0.02) * edge(-AXIS, -low - 0.25, 0.1))(v)
    shown = seen * Curve(edge(AXIS, 0.07, 0.015))(a) * height
    scene.picture += dense * _rib(line, distance, 0.027) * shown * through
    line = v - (first + 0.14) + 0.50 * (a - 0.70)  # in front
    height = Curve(edge(AXIS, first + 0.1, 0.05) * edge(-AXIS, -low - 0.02, 0.06))(v)
    shown = seen * Curve(edge(AXIS, 0.27, 0.03))(a) * height
    scene.picture += 0.60 * dense * _rib(line, 1.25 * distance, 0.030) * shown * through
    level, rise, radius = anatomy.clavicles
    shell = Curve(edge(AXIS, 0.0, 0.006) * (0.24 + 0.10 * bump(AXIS, 0.007, 0.010)))
    over = 0.80 - anatomy.shoulders
    for side in SIDES:
        bend = (side * 0.38, level - 0.25 * rise)
        box = scene.window((side * 0.06, level + 0.05), (side * 0.90, level - rise - 0.05))
        u, w = scene.u[box], scene.v[box]
        inner = limb(u, w, (side * 0.095, level + 0.01), bend, (1.1 * radius, 0.80 * radius))
        outer = limb(u, w, bend, (side * 0.84, level - rise), (0.85 * radius, radius))
        scene.picture[box] += shell(join(inner, outer, corner=0.05))
        box, blade = scene.rod((side * (over + 0.10), -0.56), (side * over, -0.04), (0.085, 0.025), 0.012)
        scene.picture[box] += 0.11 * blade
        box, head = scene.rod((side * 0.99, -0.60), (side * 1.08, -0.25), (0.105, 0.075), 0.012)
        scene.picture[box] += 0.26 * head


def _rib(line: Floats, distance: float, half: float) -> Floats:
    """Bands at whole multiples of a distance, brighter at their rims."""
    off = np.abs((line / distance + 0.5) % 1.0 - 0.5)
    profile = edge(-AXIS, -half, 0.007) * (0.75 + 0.45 * bump(AXIS, 0.85 * half, 0.35 * half))
    return Curve(profile)(off * distance)


def _branch(scene: Scene) -> None:
    """Vessels from the lung roots outwards, thinner and thinner."""
    turns = iter(scene.anatomy.branching)
    for lung in scene.lungs:
        for across, down in _BRANCHES:
            root, end = (lung.side * 0.15, lung.root + 0.05 * (down - 0.5)), lung.place(across, down)
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
    scene.vessels *= scene.inside
