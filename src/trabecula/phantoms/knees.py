"""Phantom frontal knee radiographs with a Kellgren-Lawrence grade whose signs are drawn.

Grades: Kellgren & Lawrence, Ann Rheum Dis 1957;16:494, table of the knee: 0 none, 1 doubtful,
2 minimal (definite osteophytes), 3 moderate (definite narrowing, some sclerosis), 4 severe (marked
narrowing, severe sclerosis, definite deformity).

Coordinates: u towards the fibula (lateral), v downwards, both in half image widths, the origin
between the condyles on the joint line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from trabecula.phantoms.patients import Joint, Joints, Radiograph, Side, take_radiograph
from trabecula.phantoms.shapes import (
    AXIS,
    PER_UNIT,
    Curve,
    Floats,
    bump,
    clouds,
    edge,
    frame,
    grow,
    least,
    outline,
    profile,
    structure,
    turned,
)

# Half widths by height: (v, medial, lateral). Femur from shaft to joint, tibia from joint to shaft.
_FEMUR = np.array([
    (-2.0, 0.60, 0.58), (-1.20, 0.66, 0.63), (-0.95, 0.76, 0.70), (-0.75, 0.86, 0.78),
    (-0.58, 0.91, 0.84), (-0.42, 0.89, 0.87), (-0.26, 0.85, 0.85), (-0.10, 0.86, 0.85), (2.0, 0.86, 0.85),
])  # fmt: skip
_TIBIA = np.array([
    (-2.0, 0.84, 0.84), (0.06, 0.84, 0.84), (0.18, 0.84, 0.84), (0.32, 0.81, 0.80),
    (0.50, 0.74, 0.72), (0.70, 0.66, 0.64), (0.95, 0.58, 0.56), (2.0, 0.46, 0.44),
])  # fmt: skip

_NARROWING = (0.0, 0.05, 0.15, 0.45, 0.95)  # lost share of the worse compartment's space, by grade
_OSTEOPHYTE = (0.0, 0.038, 0.072, 0.100, 0.145)  # length, half image widths, by grade
_SITES_WITH_OSTEOPHYTES = (0, 1, 2, 3, 4)
_SCLEROSIS = (0.0, 0.0, 0.12, 0.5, 1.0)
_DEFORMITY = (0.0, 0.0, 0.0, 0.35, 1.0)


@dataclass(frozen=True)
class KneeSigns:
    """KneeSigns of osteoarthritis; all zero in a healthy knee."""

    narrowing: tuple[float, float]  # lost share of the joint space, medial and lateral; negative: opened
    osteophytes: tuple[float, float, float, float]  # length: femur medial, lateral, tibia medial, lateral
    tilt: tuple[float, float, float, float]  # how far each osteophyte points at the joint, radians
    sclerosis: tuple[float, float]  # medial, lateral
    varus: float  # radians, negative is valgus
    depression: tuple[float, float]  # how far the plateau has sunk and the condyle flattened


def draw_signs(rng: np.random.Generator, grade: int, effect: float) -> KneeSigns:
    """Draw the signs of a grade. The same numbers are drawn whatever the grade and the effect."""
    medial = rng.random() < 0.7
    spread = rng.standard_normal(12)
    sites = rng.permutation(4)
    if medial == (sites[0] % 2 == 1):  # the first osteophyte usually stands on the worse side
        sites = sites[[1, 0, 2, 3]]
    narrowing = float(np.clip(_NARROWING[grade] * (1 + 0.22 * spread[0]), 0, 1.1)) * effect
    other = narrowing * float(np.clip(-0.25 + 0.25 * spread[1], -0.55, 0.4))  # may open as the worse closes
    lengths = np.zeros(4)
    chosen = sites[: _SITES_WITH_OSTEOPHYTES[grade]]
    lengths[chosen] = _OSTEOPHYTE[grade] * np.clip(1 + 0.3 * spread[2:6], 0.4, 1.7)[: chosen.size]
    sclerosis = _SCLEROSIS[grade] * float(np.clip(1 + 0.3 * spread[6], 0, 2)) * effect
    deformity = _DEFORMITY[grade] * float(np.clip(1 + 0.3 * spread[7], 0, 2)) * effect
    first, second, third, fourth = (float(length) for length in lengths * effect)
    tilts = [float(0.25 + 0.2 * number) for number in spread[8:12]]
    return KneeSigns(
        narrowing=_by_side(medial, narrowing, other),
        osteophytes=(first, second, third, fourth),
        tilt=(tilts[0], tilts[1], tilts[2], tilts[3]),
        sclerosis=_by_side(medial, sclerosis, 0.25 * sclerosis),
        varus=0.06 * deformity * (1 if medial else -1),
        depression=_by_side(medial, 0.045 * deformity, 0.0),
    )


def _by_side(medial: bool, worse: float, other: float) -> tuple[float, float]:
    return (worse, other) if medial else (other, worse)


@dataclass(frozen=True)
class KneeAnatomy:
    """Shape and pose of one knee; lengths in half image widths, angles in radians."""

    scale: float
    rotation: float
    shift: tuple[float, float]
    alignment: float  # angle between femur and tibia in health
    femur: Floats  # (9, 3) half widths
    tibia: Floats  # (8, 3)
    condyles: tuple[float, float, float, float]  # centre and half width, medial then lateral
    roundness: tuple[float, float, float]  # depth medial, lateral; exponent
    notch: tuple[float, float]  # height, place
    gap: tuple[float, float]  # joint space, medial and lateral
    slope: float  # of the beam to the plateau: how far its two rims lie apart
    spines: tuple[float, float, float, float]  # height and place, medial then lateral
    fibula: tuple[float, float, float]  # u, v of the head; radius
    patella: tuple[float, float, float, float, float]  # u, v, radii, density
    leg: tuple[float, float]  # soft tissue half widths, medial and lateral
    leg_bow: float
    walls: float  # place of the trochlea's edge
    scar: tuple[float, float, float]  # of the growth plate: level, phase, strength
    cortex: float
    texture: tuple[float, float, float]  # strength, fineness, verticality


def draw_anatomy(patient: np.random.Generator, knee: np.random.Generator, male: bool) -> KneeAnatomy:
    """Draw a knee: the two of a patient resemble each other, pose and joint space differ."""

    def both(mean: float, sd: float) -> float:
        return mean + sd * float(0.8 * patient.standard_normal() + 0.6 * knee.standard_normal())

    width = both(1.02 if male else 0.98, 0.025)
    femur, tibia = _FEMUR.astype(np.float32), _TIBIA.astype(np.float32)
    for bone in (femur, tibia):
        bend = 0.8 * patient.normal(0, 0.016, (len(bone), 2)) + 0.6 * knee.normal(0, 0.016, (len(bone), 2))
        bone[:, 1:] = bone[:, 1:] * width + bend
    space = float(np.clip(both(0.114, 0.030), 0.055, 0.185))
    return KneeAnatomy(
        scale=float(knee.normal(1.0, 0.035)),
        rotation=float(knee.normal(0, 0.05)),
        shift=(float(knee.normal(0, 0.035)), float(knee.normal(0.10, 0.05))),
        alignment=both(0.0, 0.02),
        femur=femur,
        tibia=tibia,
        condyles=(
            both(-0.49, 0.015),
            both(0.40, 0.012) * width,
            both(0.48, 0.015),
            both(0.39, 0.012) * width,
        ),
        roundness=(both(0.33, 0.03), both(0.29, 0.03), both(2.2, 0.15)),
        notch=(both(0.25, 0.03), both(0.0, 0.02)),
        gap=(space * both(0.95, 0.06), space * both(1.1, 0.07)),
        slope=abs(both(0.03, 0.025)),
        spines=(both(0.13, 0.025), both(-0.085, 0.015), both(0.12, 0.025), both(0.095, 0.015)),
        fibula=(both(0.76, 0.05), both(0.50, 0.06), both(0.19, 0.015)),
        patella=(
            both(0.03, 0.07),
            both(-0.56, 0.09),
            both(0.40, 0.03),
            both(0.40, 0.035),
            max(0.05, both(0.24, 0.08)),
        ),
        leg=(both(1.08, 0.06), both(1.10, 0.06)),
        leg_bow=both(0.0, 0.08),
        walls=both(0.24, 0.03),
        scar=(both(-0.50, 0.05), both(0.0, 1.0), abs(both(0.14, 0.06))),
        cortex=max(0.5, both(1.0, 0.18)),
        texture=(max(0.3, both(1.0, 0.3)), max(0.6, both(1.0, 0.15)), max(0.3, both(1.0, 0.25))),
    )


def femur_surface(anatomy: KneeAnatomy, signs: KneeSigns) -> Curve:
    """Lowest v of the femur for each u: two condyles and the notch between them."""
    depth = -anatomy.notch[0] * (1 - 5 * np.minimum((AXIS - anatomy.notch[1]) ** 2, 0.1))
    for side in (0, 1):
        centre, half = anatomy.condyles[2 * side : 2 * side + 2]
        outer = (centre > AXIS) == (side == 0)  # flatter towards the margin than towards the notch
        power = np.where(outer, anatomy.roundness[2] + 0.9, anatomy.roundness[2] - 0.3)
        t = np.minimum(np.abs((AXIS - centre) / half), 1)
        surface = -anatomy.roundness[side] * (1 - (1 - t**power) ** (1 / power))
        surface -= 0.5 * signs.depression[side] * (1 - t**2)
        depth = np.maximum(depth, surface)
    return Curve(gaussian_filter1d(depth, 0.02 * PER_UNIT))


def tibia_surface(anatomy: KneeAnatomy, signs: KneeSigns) -> Curve:
    """Highest v of the tibia for each u: two plateaus and the spines between them."""
    lateral = edge(AXIS, 0.0, 0.12)
    height = np.zeros_like(AXIS)
    for side, share in ((0, 1 - lateral), (1, lateral)):
        centre, half = anatomy.condyles[2 * side : 2 * side + 2]
        t = np.clip((AXIS - centre) / half, -1.3, 1.3)
        hollow = (0.035, 0.012)[side] * (1 - t**2)
        lost = anatomy.gap[side] * signs.narrowing[side]
        height += share * (anatomy.gap[side] - lost + hollow + 0.5 * signs.depression[side] * np.abs(t))
    first, at, second, by = anatomy.spines
    height -= first * bump(AXIS, at, 0.055) + second * bump(AXIS, by, 0.05) + 0.05 * bump(AXIS, 0, 0.2)
    return Curve(height)


def render(anatomy: KneeAnatomy, signs: KneeSigns, size: int, rng: np.random.Generator) -> Floats:
    """Attenuation (size, size) of a left knee, in arbitrary units; `rng` draws its fine structure."""
    u, v = frame(size, anatomy.shift, anatomy.scale, anatomy.rotation)
    tibia_u, tibia_v = turned(u, v, anatomy.alignment + signs.varus)
    trabeculae = structure(anatomy.texture, size, rng)
    femur = _femur(anatomy, signs, u, v, trabeculae)
    tibia = _tibia(anatomy, signs, tibia_u, tibia_v, trabeculae)
    picture = _soft_tissue(anatomy, u, v) + femur + tibia
    picture += 0.55 * _fibula(anatomy, tibia_u, tibia_v)
    picture += _patella(anatomy, u, v) * (1 + 0.15 * trabeculae)
    picture += 0.10 * clouds(size, 5, rng) * np.minimum(picture, 1)
    return picture


def _femur(anatomy: KneeAnatomy, signs: KneeSigns, u: Floats, v: Floats, trabeculae: Floats) -> Floats:
    surface = femur_surface(anatomy, signs)
    medial, lateral = outline(anatomy.femur, 1), outline(anatomy.femur, 2)
    below = (surface(u) - v) * surface.steepness()(u)
    distance = least(below, np.minimum(medial(v) + u, lateral(v) - u), 0.10)
    for site, out, side in ((0, -1, medial), (1, 1, lateral)):
        foot = (out * (float(side.at(-0.1)) - 0.05), -0.13)
        grow(distance, u, v, foot, signs.osteophytes[site], signs.tilt[site], out)
    bone = profile(0.62, 0.36 * anatomy.cortex, 0.16)(distance)
    worn = signs.sclerosis[0] * bump(AXIS, anatomy.condyles[0], 0.24)
    worn = worn + signs.sclerosis[1] * bump(AXIS, anatomy.condyles[2], 0.24)
    plate = Curve(np.exp(-np.maximum(AXIS, 0) / 0.07))(below) * (0.05 + 0.30 * Curve(worn)(u))
    lines = _walls(anatomy, u, v) + _scar(anatomy, u, v)
    inside = np.clip(distance * 60, 0, 1)
    femur: Floats = bone * (1 + 0.22 * trabeculae) + inside * (plate + lines)
    return femur


def _walls(anatomy: KneeAnatomy, u: Floats, v: Floats) -> Floats:
    """The inner walls of the notch and the trochlea's edge: faint upright lines."""
    height = Curve(edge(-AXIS, 0.12, 0.05) * edge(AXIS, -0.62, 0.08))(v)
    across = 0.6 * bump(AXIS, -0.21, 0.018) + bump(AXIS, anatomy.walls, 0.016)
    return 0.16 * anatomy.cortex * Curve(across)(u + 0.10 * v) * height


def _scar(anatomy: KneeAnatomy, u: Floats, v: Floats) -> Floats:
    """The line the growth plate left, on one side brighter."""
    level, tilt, strength = anatomy.scar
    line = Curve(bump(AXIS, 0, 0.016))(v - np.float32(level) - Curve(0.05 * np.sin(7 * AXIS + 9 * tilt))(u))
    across = Curve(edge(AXIS, 0.25, 0.1) + 0.6 * edge(-AXIS, 0.35, 0.1))(u)
    return strength * line * across


def _tibia(anatomy: KneeAnatomy, signs: KneeSigns, u: Floats, v: Floats, trabeculae: Floats) -> Floats:
    surface = tibia_surface(anatomy, signs)
    medial, lateral = outline(anatomy.tibia, 1), outline(anatomy.tibia, 2)
    above = (v - surface(u)) * surface.steepness()(u)
    distance = least(above, np.minimum(medial(v) + u, lateral(v) - u), 0.09)
    for site, out, side in ((2, -1, medial), (3, 1, lateral)):
        rim = out * (float(side.at(0.12)) - 0.05)
        foot = (rim, float(surface.at(rim)) + 0.06)
        grow(distance, u, v, foot, signs.osteophytes[site], -signs.tilt[site], out)
    bone = profile(0.60, 0.38 * anatomy.cortex, 0.14)(distance)
    worn = signs.sclerosis[0] * bump(AXIS, anatomy.condyles[0], 0.26)
    worn = worn + signs.sclerosis[1] * bump(AXIS, anatomy.condyles[2], 0.26)
    flat = 1 - bump(AXIS, 0.0, 0.22)
    rim_line = np.float32(anatomy.slope) + np.float32(0.02)
    plate = 0.30 * anatomy.cortex * Curve(bump(AXIS, float(rim_line), 0.03))(above) * Curve(flat)(u)
    plate += Curve(np.exp(-np.maximum(AXIS, 0) / 0.09))(above) * (0.08 + 0.36 * Curve(worn)(u))
    middle = 0.14 * Curve(bump(AXIS, 0, 0.2))(u) * Curve(bump(AXIS, 0.12, 0.12))(v)
    level, tilt, strength = anatomy.scar
    scar = Curve(bump(AXIS, 0, 0.016))(
        v - np.float32(level + 1.02) - Curve(0.03 * np.sin(6 * AXIS + 7 * tilt))(u)
    )
    inside = np.clip(distance * 60, 0, 1)
    tibia: Floats = bone * (1 + 0.26 * trabeculae) + inside * (plate + middle + 0.8 * strength * scar)
    return tibia


def _fibula(anatomy: KneeAnatomy, u: Floats, v: Floats) -> Floats:
    at, top, radius = anatomy.fibula
    centre = Curve(at + 0.04 * np.maximum(AXIS - top, 0))(v)
    half = radius * np.sqrt(np.clip(1 - ((AXIS - top - radius) / radius) ** 2, 0, 1))
    neck = 0.62 * radius * edge(AXIS, top + radius, 0.05)
    width = Curve(gaussian_filter1d(np.maximum(half, neck) - 0.12 * (half + neck < 1e-3), 12))(v)
    return profile(0.35, 0.5 * anatomy.cortex, 0.12)(width - np.abs(u - centre))


def _patella(anatomy: KneeAnatomy, u: Floats, v: Floats) -> Floats:
    at, level, wide, high, density = anatomy.patella
    across, up = (u - np.float32(at)) / np.float32(wide), (v - np.float32(level)) / np.float32(high)
    across = across * (1 + 0.18 * np.clip(up, -1, 1.2))
    inside = (1 - np.sqrt(across * across + up * up)) * np.float32(min(wide, high))
    disc = edge(AXIS, 0.02, 0.03) * (0.7 + 0.3 * np.tanh(np.maximum(AXIS, 0) / 0.15))
    return np.float32(density) * Curve(disc + 0.15 * bump(AXIS, 0.02, 0.02))(inside)


def _soft_tissue(anatomy: KneeAnatomy, u: Floats, v: Floats) -> Floats:
    """Muscle and fat: an oval leg, thinner at the joint line than above it."""
    medial, lateral = anatomy.leg
    width = np.where(AXIS < 0, medial, lateral)
    inside = np.clip(1 - (AXIS / width) ** 2, 0, None)
    across = Curve(0.50 * np.sqrt(inside) + 0.12 * edge(1 - np.abs(AXIS) / width, 0.03, 0.01))
    along = Curve(1 + 0.12 * np.tanh((-AXIS - 0.2) / 0.5))
    return across(u + np.float32(anatomy.leg_bow) * v * v) * along(v)


def draw_knee(settings: Joints, patient: int, side: Side) -> Radiograph:
    """Draw one knee; a function of the settings, the patient's number and the side only."""
    return take_radiograph(settings, patient, side, _attenuation)


def _attenuation(joint: Joint, size: int, rng: np.random.Generator) -> Floats:
    anatomy = draw_anatomy(joint.shared, joint.own, joint.male)
    signs = draw_signs(joint.signs, joint.grade, joint.effect)
    return render(anatomy, signs, size, rng)
