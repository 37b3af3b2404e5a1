"""Phantom anteroposterior hip radiographs with a Kellgren-Lawrence grade whose signs are drawn.

Grades: Kellgren & Lawrence, Ann Rheum Dis 1957;16:494, table of the hip: 0 none, 1 doubtful,
2 minimal (definite narrowing and osteophytes, slight sclerosis), 3 moderate (marked narrowing, some
sclerosis and cysts, deformity), 4 severe (gross loss of joint space, marked deformity, large
osteophytes).

Coordinates: u to lateral, v downwards, both in half image widths, the origin in the centre of the
socket.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trabecula.phantoms.patients import Joint, Joints, Radiograph, Side, take_radiograph
from trabecula.phantoms.shapes import (
    AXIS,
    Curve,
    Floats,
    bump,
    clouds,
    edge,
    frame,
    grow,
    join,
    least,
    limb,
    outline,
    profile,
    structure,
    turned,
)

# Edges of the ilium by height: (v, lateral edge beyond the rim of the socket, medial edge).
_ILIUM = np.array([
    (-2.0, 0.80, -1.60), (-1.20, 0.50, -1.22), (-0.95, 0.27, -1.04), (-0.75, 0.07, -0.90),
    (-0.58, -0.02, -0.80), (-0.42, 0.0, -0.73), (-0.10, 0.0, -0.67), (0.20, 0.0, -0.62), (2.0, 0.0, -0.60),
])  # fmt: skip

_NARROWING = (0.0, 0.05, 0.15, 0.50, 1.0)  # lost share of the joint space where the load is, by grade
_OSTEOPHYTE = (0.0, 0.036, 0.063, 0.095, 0.148)  # length, half image widths, by grade
_SITES_WITH_OSTEOPHYTES = (0, 1, 2, 3, 4)
_SCLEROSIS = (0.0, 0.0, 0.12, 0.5, 1.0)
_CYSTS = (0, 0, 0, 1, 3)
_DEFORMITY = (0.0, 0.0, 0.0, 0.35, 1.0)
_LOADS = (0.42, 0.0, -0.95)  # where the space goes: superolateral, superior, medial; radians from upwards
_LOAD_SHARES = (0.5, 0.3, 0.2)


@dataclass(frozen=True)
class Cyst:
    """A dark round hole with a bright rim; no radius, no cyst."""

    angle: float  # from the load's direction, radians
    depth: float  # below the surface of the head (negative) or above that of the socket
    radius: float


@dataclass(frozen=True)
class HipSigns:
    """HipSigns of osteoarthritis; all zero in a healthy hip but for the direction of the load."""

    narrowing: float  # lost share of the joint space
    load: float  # direction in which the head moves into the socket, radians from upwards to lateral
    osteophytes: tuple[float, float, float, float]  # length: socket's rim, head lateral, head medial, floor
    tilt: tuple[float, float, float, float]  # how far each turns, radians
    sclerosis: float
    cysts: tuple[Cyst, Cyst, Cyst]
    deformity: float  # of the head: flat above, mushroomed at its margin


def draw_signs(rng: np.random.Generator, grade: int, effect: float) -> HipSigns:
    """Draw the signs of a grade. The same numbers are drawn whatever the grade and the effect."""
    load = _LOADS[int(np.searchsorted(np.cumsum(_LOAD_SHARES), rng.random() * 0.999_999))]
    spread = rng.standard_normal(19)
    sites = rng.permutation(4)
    if sites[0] == 3:  # the first osteophyte seldom stands on the socket's floor
        sites = sites[[1, 0, 2, 3]]
    narrowing = float(np.clip(_NARROWING[grade] * (1 + 0.2 * spread[0]), 0, 1.1)) * effect
    lengths = np.zeros(4)
    chosen = sites[: _SITES_WITH_OSTEOPHYTES[grade]]
    lengths[chosen] = _OSTEOPHYTE[grade] * np.clip(1 + 0.3 * spread[1:5], 0.4, 1.7)[: chosen.size]
    first, second, third, fourth = (float(length) for length in lengths * effect)
    cysts = [
        Cyst(
            angle=0.3 * float(spread[10 + 3 * number]),
            depth=(0.10 + 0.03 * abs(float(spread[11 + 3 * number]))) * (1 if number == 1 else -1),
            radius=effect
            * float(np.clip(0.068 + 0.016 * spread[12 + 3 * number], 0.035, 0.10))
            * (number < _CYSTS[grade]),
        )
        for number in range(3)
    ]
    tilts = [0.2 * float(number) for number in spread[5:9]]
    return HipSigns(
        narrowing=narrowing,
        load=load + 0.15 * float(spread[9]),
        osteophytes=(first, second, third, fourth),
        tilt=(tilts[0], tilts[1], tilts[2], tilts[3]),
        sclerosis=_SCLEROSIS[grade] * float(np.clip(1 + 0.3 * spread[12], 0, 2)) * effect,
        cysts=(cysts[0], cysts[1], cysts[2]),
        deformity=_DEFORMITY[grade] * float(np.clip(1 + 0.3 * spread[15], 0, 2)) * effect,
    )


@dataclass(frozen=True)
class HipAnatomy:
    """Shape and pose of one hip; lengths in half image widths, angles in radians."""

    scale: float
    rotation: float
    shift: tuple[float, float]
    stance: float  # of the femur to the pelvis
    head: float  # radius
    space: float  # between head and socket
    seat: tuple[float, float]  # of the head in the socket, off its centre
    roof: tuple[float, float, float]  # lateral and medial end, radians from upwards; thickness of the sourcil
    ilium: Floats  # (9, 3) edges by height
    walls: tuple[float, float]  # how far the posterior and the anterior wall reach over the head
    teardrop: tuple[float, float, float]  # u, v, height
    pubis: tuple[float, float, float]  # v at the socket, slope, radius
    ischium: tuple[float, float]  # u of its lower end, radius
    arch: tuple[float, float]  # lower branch of the pubis: v at the midline, radius
    neck: tuple[float, float, float]  # angle below the horizontal, length, least half width
    trochanter: tuple[float, float, float, float]  # u, v of the tip, radius, lean
    lesser: tuple[float, float, float]  # how far inside the shaft's edge, v, radius
    shaft: tuple[float, float, float]  # half width, lean, cortex
    fovea: tuple[float, float]  # angle, depth
    cam: float  # bulge where head and neck meet, in health too
    thigh: tuple[float, float]  # place of the skin, and its lean
    fat: tuple[float, float]  # stripes of fat beside the joint: place, strength
    spots: tuple[tuple[float, float, float, float], ...]  # phleboliths, bone islands: u, v, radius, strength
    cortex: float
    texture: tuple[float, float, float]  # strength, fineness, verticality
    bands: tuple[float, float]  # strength of the compressive and the tensile bundle of trabeculae


def draw_anatomy(patient: np.random.Generator, hip: np.random.Generator, male: bool) -> HipAnatomy:
    """Draw a hip: the two of a patient resemble each other, pose and joint space differ."""

    def both(mean: float, sd: float) -> float:
        return mean + sd * float(0.8 * patient.standard_normal() + 0.6 * hip.standard_normal())

    ilium = _ILIUM.astype(np.float32)
    shape = (len(ilium), 2)
    ilium[:, 1:] += 0.8 * patient.normal(0, 0.03, shape) + 0.6 * hip.normal(0, 0.03, shape)
    head = both(0.425 if male else 0.395, 0.018)
    return HipAnatomy(
        scale=float(hip.normal(1.0, 0.04)),
        rotation=float(hip.normal(0, 0.05)),
        shift=(float(hip.normal(-0.10, 0.05)), float(hip.normal(-0.10, 0.05))),
        stance=float(hip.normal(0, 0.07)),
        head=head,
        space=float(np.clip(both(0.098, 0.018), 0.06, 0.14)),
        seat=(both(0.0, 0.010), both(0.006, 0.010)),
        roof=(both(0.60, 0.10), both(-0.75, 0.10), abs(both(0.060, 0.015))),
        ilium=ilium,
        walls=(both(0.0, 0.05), both(0.0, 0.06)),
        teardrop=(both(-0.53, 0.02), both(0.36, 0.03), both(0.13, 0.02)),
        pubis=(both(0.05, 0.03), both(0.36, 0.06), both(0.145, 0.015)),
        ischium=(both(-0.46, 0.04), both(0.165, 0.02)),
        arch=(both(0.80, 0.06), both(0.115, 0.015)),
        neck=(both(0.70, 0.06), both(0.84 if male else 0.80, 0.05), both(0.255, 0.018)),
        trochanter=(both(0.90, 0.04), both(0.06, 0.06), both(0.150, 0.015), both(0.06, 0.05)),
        lesser=(both(0.05, 0.03), both(0.90, 0.05), max(0.04, both(0.10, 0.03))),
        shaft=(both(0.255, 0.015), both(0.04, 0.03), max(0.5, both(1.0, 0.2))),
        fovea=(both(-1.25, 0.15), max(0.0, both(0.035, 0.015))),
        cam=max(0.0, both(0.02, 0.05)),
        thigh=(both(1.25, 0.16), both(0.15, 0.12)),
        fat=(both(0.20, 0.04), max(0.0, both(0.035, 0.02))),
        spots=_spots(patient, hip),
        cortex=max(0.5, both(1.0, 0.18)),
        texture=(max(0.2, both(1.1, 0.45)), max(0.6, both(1.05, 0.22)), max(0.3, both(1.0, 0.3))),
        bands=(max(0.0, both(0.14, 0.06)), max(0.0, both(0.10, 0.05))),
    )


def _spots(
    patient: np.random.Generator, hip: np.random.Generator
) -> tuple[tuple[float, float, float, float], ...]:
    """Harmless: calcified veins in the pelvis, an islet of dense bone, a flake beside the socket's rim."""
    spots = []
    for rng, (left, right), (top, bottom), strength in (
        (patient, (-1.0, -0.7), (-0.1, 0.5), 0.35),
        (patient, (-1.0, -0.7), (-0.1, 0.5), 0.35),
        (hip, (-0.2, 0.8), (-0.9, 0.9), 0.18),
        (hip, (0.24, 0.38), (-0.46, -0.34), 0.30),
    ):
        u, v, radius = rng.uniform(left, right), rng.uniform(top, bottom), rng.uniform(0.015, 0.035)
        if rng.random() < 0.25:
            spots.append((float(u), float(v), float(radius), strength))
    return tuple(spots)


def render(anatomy: HipAnatomy, signs: HipSigns, size: int, rng: np.random.Generator) -> Floats:
    """Attenuation (size, size) of a left hip, in arbitrary units; `rng` draws its fine structure."""
    u, v = frame(size, anatomy.shift, anatomy.scale, anatomy.rotation)
    lost = signs.narrowing * anatomy.space
    head_u = anatomy.seat[0] + lost * float(np.sin(signs.load))
    head_v = anatomy.seat[1] - lost * float(np.cos(signs.load))
    femur_u, femur_v = turned(u - np.float32(head_u), v - np.float32(head_v), anatomy.stance)
    trabeculae = structure(anatomy.texture, size, rng)
    picture = _soft_tissue(anatomy, u, v)
    pelvis, wall = _pelvis(anatomy, signs, u, v, trabeculae)
    picture += pelvis + wall
    picture += _femur(anatomy, signs, femur_u, femur_v, trabeculae)
    for at_u, at_v, radius, strength in anatomy.spots:
        off = np.hypot(u - np.float32(at_u), v - np.float32(at_v))
        picture += np.float32(strength) * Curve(edge(-AXIS, -radius, 0.008))(off)
    picture += (0.10 * clouds(size, 5, rng) + 0.05 * clouds(size, 14, rng)) * np.minimum(picture, 1)
    return picture


def _polar(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Distance from the origin, and angle from upwards to lateral."""
    return np.hypot(u, v), np.arctan2(u, -v)


def _femur(anatomy: HipAnatomy, signs: HipSigns, u: Floats, v: Floats, trabeculae: Floats) -> Floats:
    from_centre, angle = _polar(u, v)
    head = _head(anatomy, signs)(angle * np.float32(0.5)) - from_centre
    below, length, narrow = anatomy.neck
    base = (length * float(np.cos(below)), length * float(np.sin(below)))
    middle = (0.55 * base[0], 0.55 * base[1])
    neck = join(
        limb(u, v, (0, 0), middle, (0.85 * anatomy.head, narrow)),
        limb(u, v, middle, base, (narrow, 0.30)),
        corner=0.05,
    )
    half, lean, cortex = anatomy.shaft
    centre = np.float32(base[0] + 0.06) - np.float32(lean) * v
    shaft = least(np.float32(half) - np.abs(u - centre), v - np.float32(base[1] - 0.1), 0.15)
    tip_u, tip_v, radius, tipped = anatomy.trochanter
    trochanter = limb(
        u, v, (tip_u - tipped, tip_v + radius), (tip_u - 0.08, base[1] + 0.05), (radius, radius + 0.06)
    )
    sunk, level, knob = anatomy.lesser
    at = base[0] + 0.06 - lean * level - half + sunk
    lesser = limb(u, v, (at + 0.06, level - 0.14), (at, level), (knob, knob))
    distance = join(neck, shaft, trochanter, lesser, corner=0.10)
    distance = join(head, distance, corner=0.04)
    rim = anatomy.head * (1 + 0.06 * signs.deformity)
    for site, at, out in ((1, 1.15, 1), (2, -2.45, -1)):
        foot = (0.97 * rim * float(np.sin(at)), -0.97 * rim * float(np.cos(at)))
        turn = (0.35 + signs.tilt[1]) if site == 1 else (-0.55 + signs.tilt[2])
        grow(distance, u, v, foot, signs.osteophytes[site], turn, out)
    bone = profile(0.50, 0.34 * anatomy.cortex, 0.14)(distance)
    inside = np.clip(distance * 60, 0, 1)
    ball = 0.11 * np.sqrt(np.clip(1 - (from_centre / np.float32(anatomy.head)) ** 2, 0, 1))
    thick = 0.42 * cortex * Curve(bump(AXIS, 0.055, 0.045))(distance) * Curve(edge(AXIS, 0.62, 0.12))(v)
    extra = ball + thick + _bundles(anatomy, u, v) + _worn_head(signs, head, angle)
    femur: Floats = bone * (1 + 0.24 * trabeculae) + inside * extra
    return femur * _holes(signs, u, v, anatomy.head, below=True)


def _head(anatomy: HipAnatomy, signs: HipSigns) -> Curve:
    """Radius of the head by half its angle: round, with a dent for the ligament; worn flat above."""
    angle = 2 * AXIS
    radius = anatomy.head * (1 - anatomy.fovea[1] * 1.6 * bump(angle, anatomy.fovea[0], 0.22))
    radius = radius * (1 + anatomy.cam * bump(angle, 1.25, 0.40))
    radius = radius * (1 - 0.22 * signs.deformity * bump(angle, signs.load, 0.55))
    radius = radius * (1 + 0.10 * signs.deformity * (bump(angle, 1.35, 0.35) + bump(angle, -2.1, 0.4)))
    return Curve(radius)


def _worn_head(signs: HipSigns, depth: Floats, angle: Floats) -> Floats:
    """Dense bone under the surface where the load is."""
    near = Curve(np.exp(-np.maximum(AXIS, 0) / 0.10))(depth)
    where = Curve(bump(2 * AXIS, signs.load, 0.55))(angle * np.float32(0.5))
    return np.float32(0.50 * signs.sclerosis) * near * where


def _bundles(anatomy: HipAnatomy, u: Floats, v: Floats) -> Floats:
    """Trabeculae along the load: a fan from the inner neck to the top of the head, an arch from outside."""
    compressive, tensile = anatomy.bands
    along, across = turned(u - np.float32(0.05), v, 0.25)
    fan = Curve(bump(AXIS, 0.0, 0.17))(along / (np.float32(1.0) - np.float32(0.25) * across))
    fan = fan * Curve(edge(-AXIS, -0.55, 0.12))(across)
    arch = np.hypot(u - np.float32(0.20), v - np.float32(0.85)) - np.float32(0.78)
    arched = Curve(bump(AXIS, 0.0, 0.07))(arch) * Curve(edge(AXIS, -0.05, 0.1))(u)
    crest = limb(u, v, (0.80, 0.20), (0.50, 0.80), (0.0, 0.0))
    arched += Curve(0.8 * bump(AXIS, 0.0, 0.045))(crest)
    return fan * compressive + arched * tensile


def _holes(signs: HipSigns, u: Floats, v: Floats, surface: float, below: bool) -> Floats:
    """Cysts as a factor: dark inside, bright around; those below the head's surface or above the socket's."""
    factor = np.ones_like(u)
    for cyst in signs.cysts:
        if cyst.radius <= 0 or (cyst.depth < 0) != below:
            continue
        far, at = surface + cyst.depth, signs.load + cyst.angle
        off = np.hypot(u - np.float32(far * np.sin(at)), v + np.float32(far * np.cos(at)))
        hole = 1 - 0.55 * edge(-AXIS, -0.8 * cyst.radius, 0.012)
        factor *= Curve(hole + 0.25 * bump(AXIS, 1.1 * cyst.radius, 0.018))(off)
    return factor


def _pelvis(
    anatomy: HipAnatomy, signs: HipSigns, u: Floats, v: Floats, trabeculae: Floats
) -> tuple[Floats, Floats]:
    """The pelvis outside the socket, and its walls that lie over and under the head."""
    from_centre, angle = _polar(u, v)
    cup = anatomy.head + anatomy.space
    beyond = from_centre - np.float32(cup)
    rim = (cup * float(np.sin(anatomy.roof[0])), -cup * float(np.cos(anatomy.roof[0])))
    lateral, medial = outline(anatomy.ilium, 1), outline(anatomy.ilium, 2)
    ilium = least(np.float32(rim[0]) + lateral(v) - u, u - medial(v), 0.06)
    ilium = least(ilium, np.float32(0.30) - v, 0.06)
    start, slope, thick = anatomy.pubis
    pubis = limb(u, v, (-0.58, start), (-1.35, start + 0.77 * slope), (thick, 0.8 * thick))
    foot, stout = anatomy.ischium
    ischium = limb(u, v, (-0.40, 0.30), (foot, 1.20), (stout - 0.02, stout + 0.02))
    level, thin = anatomy.arch
    arch = limb(u, v, (foot - 0.05, 1.22), (-1.30, level), (thin, thin))
    whole = join(ilium, pubis, ischium, arch, corner=0.16)
    distance = least(whole, beyond, 0.03)
    grow(distance, u, v, (rim[0] - 0.03, rim[1] + 0.01), signs.osteophytes[0], 0.15 + signs.tilt[0], 1)
    floor = (cup * float(np.sin(-2.3)), -cup * float(np.cos(-2.3)))
    grow(distance, u, v, (floor[0] - 0.02, floor[1] + 0.02), signs.osteophytes[3], 0.2 + signs.tilt[3], 1)
    bone = profile(0.46, 0.32 * anatomy.cortex, 0.13)(distance)
    inside = np.clip(distance * 60, 0, 1)
    extra = _roof(anatomy, signs, beyond, angle) + _teardrop(anatomy, u, v)
    pelvis = bone * (1 + 0.24 * trabeculae) + inside * extra
    return pelvis * _holes(signs, u, v, cup, below=False), _walls(anatomy, rim, u, v)


def _roof(anatomy: HipAnatomy, signs: HipSigns, beyond: Floats, angle: Floats) -> Floats:
    """The sourcil: dense bone over the head, denser and deeper where the joint is worn."""
    lateral, medial, thickness = anatomy.roof
    half = np.float32(0.5) * angle
    arc = Curve(edge(2 * AXIS, medial, 0.10) * edge(-2 * AXIS, -lateral - 0.05, 0.06))(half)
    brow = Curve(np.exp(-((np.maximum(AXIS, 0) / thickness) ** 2)))(beyond)
    worn = Curve(bump(2 * AXIS, signs.load, 0.6))(half) * Curve(np.exp(-np.maximum(AXIS, 0) / 0.13))(beyond)
    return np.float32(0.40 * anatomy.cortex) * arc * brow + np.float32(0.50 * signs.sclerosis) * worn


def _teardrop(anatomy: HipAnatomy, u: Floats, v: Floats) -> Floats:
    at_u, at_v, height = anatomy.teardrop
    drop = limb(u, v, (at_u, at_v - height), (at_u - 0.01, at_v + 0.3 * height), (0.03, 0.055))
    return np.float32(0.20) * Curve(bump(AXIS, 0.0, 0.018))(drop)


def _walls(anatomy: HipAnatomy, rim: tuple[float, float], u: Floats, v: Floats) -> Floats:
    """The walls of the socket, seen through the head: the posterior one reaches further."""
    walls = np.zeros_like(u)
    for reach, places, density in (
        (anatomy.walls[0], (0.16, 0.02, -0.18), 0.13), (anatomy.walls[1], (-0.02, -0.24, -0.42), 0.10),
    ):  # fmt: skip
        heights = (rim[1] - 0.02, 0.0, 0.28, 0.50)
        lateral = np.interp(AXIS, heights, (rim[0], *(place + reach for place in places)))
        inside = (Curve(lateral)(v) - u) * np.float32(0.8)
        ends = Curve(edge(AXIS, rim[1], 0.02) * edge(-AXIS, -0.50, 0.08))(v)
        over = np.clip((np.float32(anatomy.head + anatomy.space) - np.hypot(u, v)) * 20, 0, 1)
        line = edge(AXIS, 0.0, 0.015) + 0.7 * bump(AXIS, 0.015, 0.022)
        walls += np.float32(density) * Curve(line)(inside) * ends * over
    return walls


def _soft_tissue(anatomy: HipAnatomy, u: Floats, v: Floats) -> Floats:
    """Muscle and fat: thick towards the midline, out to the skin on the side, with stripes of fat."""
    place, lean = anatomy.thigh
    skin = np.float32(place) - u - np.float32(lean) * v
    body = Curve(0.62 * np.sqrt(np.clip(AXIS, 0, None) / 2) + 0.06 * edge(AXIS, 0.02, 0.01))(
        np.minimum(skin, np.float32(1.99))
    )
    beside, strength = anatomy.fat
    along, across = turned(u, v, 0.70)
    across = across + np.float32(0.25) * (along - np.float32(0.5)) ** 2
    stripe = bump(AXIS, -0.42 - beside, 0.055) + 0.7 * bump(AXIS, 0.42 + beside, 0.06)
    reach = Curve(bump(AXIS, 0.55, 0.45))(along)
    return body - np.float32(strength) * Curve(stripe)(across) * reach


def draw_hip(settings: Joints, patient: int, side: Side) -> Radiograph:
    """Draw one hip; a function of the settings, the patient's number and the side only."""
    return take_radiograph(settings, patient, side, _attenuation)


def _attenuation(joint: Joint, size: int, rng: np.random.Generator) -> Floats:
    anatomy = draw_anatomy(joint.shared, joint.own, joint.male)
    signs = draw_signs(joint.signs, joint.grade, joint.effect)
    return render(anatomy, signs, size, rng)
