"""How a ray adds up what it passes in a make-believe hip: soft tissue, bones, their fine structure."""

from __future__ import annotations

import numpy as np

from trabecula.phantoms.bone import clouds, profile, structure
from trabecula.phantoms.hip_anatomy import Anatomy, Signs
from trabecula.phantoms.shapes import (
    AXIS,
    Curve,
    Floats,
    bump,
    edge,
    frame,
    grow,
    join,
    least,
    limb,
    outline,
    turned,
)


def render(anatomy: Anatomy, signs: Signs, size: int, rng: np.random.Generator) -> Floats:
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


def _femur(anatomy: Anatomy, signs: Signs, u: Floats, v: Floats, trabeculae: Floats) -> Floats:
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


def _head(anatomy: Anatomy, signs: Signs) -> Curve:
    """Radius of the head by half its angle: round, with a dent for the ligament; worn flat above."""
    angle = 2 * AXIS
    radius = anatomy.head * (1 - anatomy.fovea[1] * 1.6 * bump(angle, anatomy.fovea[0], 0.22))
    radius = radius * (1 + anatomy.cam * bump(angle, 1.25, 0.40))
    radius = radius * (1 - 0.22 * signs.deformity * bump(angle, signs.load, 0.55))
    radius = radius * (1 + 0.10 * signs.deformity * (bump(angle, 1.35, 0.35) + bump(angle, -2.1, 0.4)))
    return Curve(radius)


def _worn_head(signs: Signs, depth: Floats, angle: Floats) -> Floats:
    """Dense bone under the surface where the load is."""
    near = Curve(np.exp(-np.maximum(AXIS, 0) / 0.10))(depth)
    where = Curve(bump(2 * AXIS, signs.load, 0.55))(angle * np.float32(0.5))
    return np.float32(0.50 * signs.sclerosis) * near * where


def _bundles(anatomy: Anatomy, u: Floats, v: Floats) -> Floats:
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


def _holes(signs: Signs, u: Floats, v: Floats, surface: float, below: bool) -> Floats:
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
    anatomy: Anatomy, signs: Signs, u: Floats, v: Floats, trabeculae: Floats
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


def _roof(anatomy: Anatomy, signs: Signs, beyond: Floats, angle: Floats) -> Floats:
    """The sourcil: dense bone over the head, denser and deeper where the joint is worn."""
    lateral, medial, thickness = anatomy.roof
    half = np.float32(0.5) * angle
    arc = Curve(edge(2 * AXIS, medial, 0.10) * edge(-2 * AXIS, -lateral - 0.05, 0.06))(half)
    brow = Curve(np.exp(-((np.maximum(AXIS, 0) / thickness) ** 2)))(beyond)
    worn = Curve(bump(2 * AXIS, signs.load, 0.6))(half) * Curve(np.exp(-np.maximum(AXIS, 0) / 0.13))(beyond)
    return np.float32(0.40 * anatomy.cortex) * arc * brow + np.float32(0.50 * signs.sclerosis) * worn


def _teardrop(anatomy: Anatomy, u: Floats, v: Floats) -> Floats:
    at_u, at_v, height = anatomy.teardrop
    drop = limb(u, v, (at_u, at_v - height), (at_u - 0.01, at_v + 0.3 * height), (0.03, 0.055))
    return np.float32(0.20) * Curve(bump(AXIS, 0.0, 0.018))(drop)


def _walls(anatomy: Anatomy, rim: tuple[float, float], u: Floats, v: Floats) -> Floats:
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


def _soft_tissue(anatomy: Anatomy, u: Floats, v: Floats) -> Floats:
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
