"""Phantom anteroposterior hip radiographs with a Kellgren-Lawrence grade whose signs are drawn.

Grades: Kellgren & Lawrence, Ann Rheum Dis 1957;16:494, table of the hip: 0 none, 1 doubtful,
2 minimal (definite narrowing and osteophytes, slight sclerosis), 3 moderate (marked narrowing, some
sclerosis and cysts, deformity), 4 severe (gross loss of joint space, marked deformity, large
osteophytes).

Coordinates: u to lateral, v downwards, both in half image widths, the origin in the centre of the
socket.
"""

from __future__ import annotations

import numpy as np

from trabecula.phantoms import patients
from trabecula.phantoms.curves import AXIS, Curve, Floats, Point, bump, edge, fade, outline
from trabecula.phantoms.patients import Joints, Radiograph, Rng, Side, alike, varied
from trabecula.phantoms.shapes import bone, clouds, frame, grow, join, least, limb, profile, structure, turned

# Edges of the ilium by height: (v, lateral edge beyond the rim of the socket, medial edge).
_ILIUM = np.array([
    (-2.0, 0.80, -1.60), (-1.20, 0.50, -1.22), (-0.95, 0.27, -1.04), (-0.75, 0.07, -0.90),
    (-0.58, -0.02, -0.80), (-0.42, 0.0, -0.73), (-0.10, 0.0, -0.67), (0.20, 0.0, -0.62), (2.0, 0.0, -0.60),
])  # fmt: skip

_NARROWING = (0.0, 0.05, 0.15, 0.50, 1.0)  # lost share of the joint space where the load is, by grade
_OSTEOPHYTE = (0.0, 0.036, 0.063, 0.095, 0.148)  # length, half image widths, by grade
_CYSTS = (0, 0, 0, 1, 3)
_LOADS = (0.42, 0.0, -0.95)  # where the space goes: superolateral, superior, medial; radians from upwards
_LOAD_SHARES = (0.5, 0.3, 0.2)


class HipSigns:
    """Signs of osteoarthritis of a grade; all zero in a healthy hip but for the direction of the load.

    The same numbers are drawn whatever the grade and the effect.
    """

    def __init__(self, rng: Rng, grade: int, effect: float) -> None:
        load = _LOADS[int(np.searchsorted(np.cumsum(_LOAD_SHARES), rng.random() * 0.999_999))]
        spread = rng.standard_normal(19)
        sites = rng.permutation(4)
        if sites[0] == 3:  # the first osteophyte seldom stands on the socket's floor
            sites = sites[[1, 0, 2, 3]]
        # Lost share of the joint space.
        self.narrowing = float(np.clip(_NARROWING[grade] * (1 + 0.2 * spread[0]), 0, 1.1)) * effect
        # Direction in which the head moves into the socket, radians from upwards to lateral.
        self.load = load + 0.15 * float(spread[9])
        # Lengths: socket's rim, head lateral, head medial, floor; how far each turns, radians.
        self.osteophytes = patients.osteophytes(_OSTEOPHYTE[grade], grade, effect, sites, spread[1:5])
        self.tilt = [0.2 * float(number) for number in spread[5:9]]
        self.sclerosis = varied(patients.SCLEROSIS[grade], spread[12]) * effect
        # Dark round holes with a bright rim: angle from the load's direction, radians; depth below the
        # surface of the head (negative) or above that of the socket; radius.
        self.cysts = []
        for number in range(_CYSTS[grade]):
            angle, depth, radius = (float(one) for one in spread[10 + 3 * number : 13 + 3 * number])
            depth = (0.10 + 0.03 * abs(depth)) * (1 if number == 1 else -1)
            radius = effect * float(np.clip(0.068 + 0.016 * radius, 0.035, 0.10))
            self.cysts.append((0.3 * angle, depth, radius))
        # Of the head: flat above, mushroomed at its margin.
        self.deformity = varied(patients.DEFORMITY[grade], spread[15]) * effect


class HipAnatomy:
    """Shape and pose of one hip, drawn; lengths in half image widths, angles in radians.

    The two of a patient resemble each other, pose and joint space differ.
    """

    def __init__(self, patient: Rng, hip: Rng, male: bool) -> None:
        both = alike(patient, hip)
        self.ilium = _ILIUM.astype(np.float32)  # (9, 3) edges by height
        shape = (len(self.ilium), 2)
        self.ilium[:, 1:] += 0.8 * patient.normal(0, 0.03, shape) + 0.6 * hip.normal(0, 0.03, shape)
        self.head = both(0.425 if male else 0.395, 0.018)  # radius
        self.scale = hip.normal(1.0, 0.04)
        self.rotation = hip.normal(0, 0.05)
        self.shift = (hip.normal(-0.10, 0.05), hip.normal(-0.10, 0.05))
        self.stance = hip.normal(0, 0.07)  # of the femur to the pelvis
        self.space = float(np.clip(both(0.098, 0.018), 0.06, 0.14))  # between head and socket
        self.seat = (both(0.0, 0.010), both(0.006, 0.010))  # of the head in the socket, off its centre
        # Lateral and medial end of the roof, radians from upwards; thickness of the sourcil.
        self.roof = (both(0.60, 0.10), both(-0.75, 0.10), abs(both(0.060, 0.015)))
        # How far the posterior and the anterior wall reach over the head.
        self.walls = (both(0.0, 0.05), both(0.0, 0.06))
        self.teardrop = (both(-0.53, 0.02), both(0.36, 0.03), both(0.13, 0.02))  # u, v, height
        # v at the socket, slope, radius; of its lower branch (`arch`) v at the midline, radius.
        self.pubis = (both(0.05, 0.03), both(0.36, 0.06), both(0.145, 0.015))
        self.ischium = (both(-0.46, 0.04), both(0.165, 0.02))  # u of its lower end, radius
        self.arch = (both(0.80, 0.06), both(0.115, 0.015))
        # Angle of the neck below the horizontal, length, least half width.
        self.neck = (both(0.70, 0.06), both(0.84 if male else 0.80, 0.05), both(0.255, 0.018))
        # u, v of the tip, radius, lean.
        self.trochanter = (both(0.90, 0.04), both(0.06, 0.06), both(0.150, 0.015), both(0.06, 0.05))
        # How far inside the shaft's edge, v, radius.
        self.lesser = (both(0.05, 0.03), both(0.90, 0.05), max(0.04, both(0.10, 0.03)))
        # Half width, lean, cortex.
        self.shaft = (both(0.255, 0.015), both(0.04, 0.03), max(0.5, both(1.0, 0.2)))
        self.fovea = (both(-1.25, 0.15), max(0.0, both(0.035, 0.015)))  # angle, depth
        self.cam = max(0.0, both(0.02, 0.05))  # bulge where head and neck meet, in health too
        self.thigh = (both(1.25, 0.16), both(0.15, 0.12))  # place of the skin, and its lean
        # Stripes of fat beside the joint: place, strength.
        self.fat = (both(0.20, 0.04), max(0.0, both(0.035, 0.02)))
        self.spots = _spots(patient, hip)
        self.cortex = max(0.5, both(1.0, 0.18))
        # Strength, fineness, verticality.
        self.texture = (max(0.2, both(1.1, 0.45)), max(0.6, both(1.05, 0.22)), max(0.3, both(1.0, 0.3)))
        # Strength of the compressive and the tensile bundle of trabeculae.
        self.bands = (max(0.0, both(0.14, 0.06)), max(0.0, both(0.10, 0.05)))


def _spots(patient: Rng, hip: Rng) -> list[tuple[float, float, float, float]]:
    """u, v, radius, strength of what is harmless."""
    spots = []
    for rng, (left, right), (top, bottom), strength in (
        (patient, (-1.0, -0.7), (-0.1, 0.5), 0.35),  # calcified veins in the pelvis
        (patient, (-1.0, -0.7), (-0.1, 0.5), 0.35),
        (hip, (-0.2, 0.8), (-0.9, 0.9), 0.18),  # an islet of dense bone
        (hip, (0.24, 0.38), (-0.46, -0.34), 0.30),  # a flake beside the socket's rim
    ):
        u, v, radius = rng.uniform(left, right), rng.uniform(top, bottom), rng.uniform(0.015, 0.035)
        if rng.random() < 0.25:
            spots.append((u, v, radius, strength))
    return spots


def _at(radius: float, angle: float) -> Point:
    """The place at a distance from the centre, its angle from upwards to lateral."""
    return radius * float(np.sin(angle)), -radius * float(np.cos(angle))


def render(anatomy: HipAnatomy, signs: HipSigns, size: int, rng: Rng) -> Floats:
    """Attenuation (size, size) of a left hip, in arbitrary units; `rng` draws its fine structure."""
    u, v = frame(size, anatomy.shift, anatomy.scale, anatomy.rotation)
    off_u, off_v = _at(signs.narrowing * anatomy.space, signs.load)
    femur_u, femur_v = turned(u - (anatomy.seat[0] + off_u), v - (anatomy.seat[1] + off_v), anatomy.stance)
    trabeculae = structure(anatomy.texture, size, rng)
    picture = _soft_tissue(anatomy, u, v) + _pelvis(anatomy, signs, u, v, trabeculae)
    picture += _femur(anatomy, signs, femur_u, femur_v, trabeculae)
    for at_u, at_v, radius, strength in anatomy.spots:
        picture += strength * Curve(edge(-AXIS, -radius, 0.008))(np.hypot(u - at_u, v - at_v))
    picture += (0.10 * clouds(size, 5, rng) + 0.05 * clouds(size, 14, rng)) * np.minimum(picture, 1)
    return picture


def _femur(anatomy: HipAnatomy, signs: HipSigns, u: Floats, v: Floats, trabeculae: Floats) -> Floats:
    from_centre, angle = np.hypot(u, v), np.arctan2(u, -v)  # from upwards to lateral
    head = _head(anatomy, signs)(0.5 * angle) - from_centre
    below, length, narrow = anatomy.neck
    base = (length * float(np.cos(below)), length * float(np.sin(below)))
    middle = (0.55 * base[0], 0.55 * base[1])
    upper = limb(u, v, (0, 0), middle, (0.85 * anatomy.head, narrow))
    neck = join(upper, limb(u, v, middle, base, (narrow, 0.30)), corner=0.05)
    half, lean, cortex = anatomy.shaft
    shaft = least(half - np.abs(u - (base[0] + 0.06 - lean * v)), v - (base[1] - 0.1), 0.15)
    tip_u, tip_v, radius, tipped = anatomy.trochanter
    top, foot = (tip_u - tipped, tip_v + radius), (tip_u - 0.08, base[1] + 0.05)
    trochanter = limb(u, v, top, foot, (radius, radius + 0.06))
    sunk, level, knob = anatomy.lesser
    at = base[0] + 0.06 - lean * level - half + sunk
    lesser = limb(u, v, (at + 0.06, level - 0.14), (at, level), (knob, knob))
    distance = join(head, join(neck, shaft, trochanter, lesser, corner=0.10), corner=0.04)
    rim = 0.97 * (anatomy.head * (1 + 0.06 * signs.deformity))
    for site, at, usual, out in ((1, 1.15, 0.35, 1), (2, -2.45, -0.55, -1)):
        grow(distance, u, v, _at(rim, at), signs.osteophytes[site], usual + signs.tilt[site], out)
    ball = 0.11 * np.sqrt(np.clip(1 - (from_centre / anatomy.head) ** 2, 0, 1))
    thick = 0.42 * cortex * Curve(bump(AXIS, 0.055, 0.045))(distance) * Curve(edge(AXIS, 0.62, 0.12))(v)
    # Dense bone under the head's surface where the load is.
    loaded = Curve(bump(2 * AXIS, signs.load, 0.55))(0.5 * angle)
    worn = 0.50 * signs.sclerosis * Curve(fade(AXIS, 0.10))(head) * loaded
    look = profile(0.50, 0.34 * anatomy.cortex, 0.14)
    femur = bone(distance, look, 0.24 * trabeculae, ball + thick + _bundles(anatomy, u, v) + worn)
    return femur * _holes(signs, u, v, anatomy.head, below=True)


def _head(anatomy: HipAnatomy, signs: HipSigns) -> Curve:
    """Radius of the head by half its angle: round, with a dent for the ligament; worn flat above."""
    angle, worn = 2 * AXIS, signs.deformity
    radius = anatomy.head * (1 - anatomy.fovea[1] * 1.6 * bump(angle, anatomy.fovea[0], 0.22))
    radius = radius * (1 + anatomy.cam * bump(angle, 1.25, 0.40))
    radius = radius * (1 - 0.22 * worn * bump(angle, signs.load, 0.55))
    return Curve(radius * (1 + 0.10 * worn * (bump(angle, 1.35, 0.35) + bump(angle, -2.1, 0.4))))


def _bundles(anatomy: HipAnatomy, u: Floats, v: Floats) -> Floats:
    """Trabeculae along the load: a fan from the inner neck to the top of the head, an arch from outside."""
    compressive, tensile = anatomy.bands
    along, across = turned(u - 0.05, v, 0.25)
    fan = Curve(bump(AXIS, 0.0, 0.17))(along / (1 - 0.25 * across)) * Curve(edge(-AXIS, -0.55, 0.12))(across)
    arch = np.hypot(u - 0.20, v - 0.85) - 0.78
    arched = Curve(bump(AXIS, 0.0, 0.07))(arch) * Curve(edge(AXIS, -0.05, 0.1))(u)
    arched += Curve(0.8 * bump(AXIS, 0.0, 0.045))(limb(u, v, (0.80, 0.20), (0.50, 0.80), (0.0, 0.0)))
    return fan * compressive + arched * tensile


def _holes(signs: HipSigns, u: Floats, v: Floats, surface: float, below: bool) -> Floats:
    """Cysts as a factor: dark inside, bright around; those below the head's surface or above the socket's."""
    factor = np.ones_like(u)
    for angle, depth, radius in signs.cysts:
        if radius > 0 and (depth < 0) == below:
            at_u, at_v = _at(surface + depth, signs.load + angle)
            hole = 1 - 0.55 * edge(-AXIS, -0.8 * radius, 0.012)
            rim = 0.25 * bump(AXIS, 1.1 * radius, 0.018)
            factor *= Curve(hole + rim)(np.hypot(u - at_u, v - at_v))
    return factor


def _pelvis(anatomy: HipAnatomy, signs: HipSigns, u: Floats, v: Floats, trabeculae: Floats) -> Floats:
    """The pelvis outside the socket, and its walls that lie over and under the head."""
    cup = anatomy.head + anatomy.space
    beyond = np.hypot(u, v) - cup
    rim = _at(cup, anatomy.roof[0])
    lateral, medial = outline(anatomy.ilium, 1), outline(anatomy.ilium, 2)
    ilium = least(rim[0] + lateral(v) - u, u - medial(v), 0.06)
    ilium = least(ilium, 0.30 - v, 0.06)
    start, slope, thick = anatomy.pubis
    pubis = limb(u, v, (-0.58, start), (-1.35, start + 0.77 * slope), (thick, 0.8 * thick))
    foot, stout = anatomy.ischium
    ischium = limb(u, v, (-0.40, 0.30), (foot, 1.20), (stout - 0.02, stout + 0.02))
    level, thin = anatomy.arch
    arch = limb(u, v, (foot - 0.05, 1.22), (-1.30, level), (thin, thin))
    distance = least(join(ilium, pubis, ischium, arch, corner=0.16), beyond, 0.03)
    grow(distance, u, v, (rim[0] - 0.03, rim[1] + 0.01), signs.osteophytes[0], 0.15 + signs.tilt[0], 1)
    floor = _at(cup, -2.3)
    grow(distance, u, v, (floor[0] - 0.02, floor[1] + 0.02), signs.osteophytes[3], 0.2 + signs.tilt[3], 1)
    at_u, at_v, height = anatomy.teardrop
    drop = limb(u, v, (at_u, at_v - height), (at_u - 0.01, at_v + 0.3 * height), (0.03, 0.055))
    extra = _roof(anatomy, signs, beyond, np.arctan2(u, -v)) + 0.20 * Curve(bump(AXIS, 0.0, 0.018))(drop)
    pelvis = bone(distance, profile(0.46, 0.32 * anatomy.cortex, 0.13), 0.24 * trabeculae, extra)
    return pelvis * _holes(signs, u, v, cup, below=False) + _walls(anatomy, rim, u, v)


def _roof(anatomy: HipAnatomy, signs: HipSigns, beyond: Floats, angle: Floats) -> Floats:
    """The sourcil: dense bone over the head, denser and deeper where the joint is worn."""
    lateral, medial, thickness = anatomy.roof
    arc = Curve(edge(2 * AXIS, medial, 0.10) * edge(-2 * AXIS, -lateral - 0.05, 0.06))(0.5 * angle)
    brow = Curve(np.exp(-((np.maximum(AXIS, 0) / thickness) ** 2)))(beyond)
    worn = Curve(bump(2 * AXIS, signs.load, 0.6))(0.5 * angle) * Curve(fade(AXIS, 0.13))(beyond)
    return 0.40 * anatomy.cortex * arc * brow + 0.50 * signs.sclerosis * worn


def _walls(anatomy: HipAnatomy, rim: Point, u: Floats, v: Floats) -> Floats:
    """The walls of the socket, seen through the head: the posterior one reaches further."""
    walls = np.zeros_like(u)
    ends = Curve(edge(AXIS, rim[1], 0.02) * edge(-AXIS, -0.50, 0.08))(v)
    over = np.clip((anatomy.head + anatomy.space - np.hypot(u, v)) * 20, 0, 1)
    line = Curve(edge(AXIS, 0.0, 0.015) + 0.7 * bump(AXIS, 0.015, 0.022))
    posterior, anterior = (0.16, 0.02, -0.18), (-0.02, -0.24, -0.42)
    for reach, places, density in zip(anatomy.walls, (posterior, anterior), (0.13, 0.10), strict=True):
        heights = (rim[1] - 0.02, 0.0, 0.28, 0.50)
        lateral = np.interp(AXIS, heights, (rim[0], *(place + reach for place in places)))
        walls += density * line((Curve(lateral)(v) - u) * 0.8) * ends * over
    return walls


def _soft_tissue(anatomy: HipAnatomy, u: Floats, v: Floats) -> Floats:
    """Muscle and fat: thick towards the midline, out to the skin on the side, with stripes of fat."""
    place, lean = anatomy.thigh
    depth = Curve(0.62 * np.sqrt(np.clip(AXIS, 0, None) / 2) + 0.06 * edge(AXIS, 0.02, 0.01))
    body = depth(np.minimum(place - u - lean * v, 1.99))
    beside, strength = anatomy.fat
    along, across = turned(u, v, 0.70)
    across = across + 0.25 * (along - 0.5) ** 2
    stripe = Curve(bump(AXIS, -0.42 - beside, 0.055) + 0.7 * bump(AXIS, 0.42 + beside, 0.06))(across)
    return body - strength * stripe * Curve(bump(AXIS, 0.55, 0.45))(along)


def draw_hip(settings: Joints, patient: int, side: Side) -> Radiograph:
    """Draw one hip; a function of the settings, the patient's number and the side only."""
    return patients.take_radiograph(settings, patient, side, HipAnatomy, HipSigns, render)
