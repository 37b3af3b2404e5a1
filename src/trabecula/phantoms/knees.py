"""Phantom frontal knee radiographs with a Kellgren-Lawrence grade whose signs are drawn.

Grades: Kellgren & Lawrence, Ann Rheum Dis 1957;16:494, table of the knee: 0 none, 1 doubtful,
2 minimal (definite osteophytes), 3 moderate (definite narrowing, some sclerosis), 4 severe (marked
narrowing, severe sclerosis, definite deformity).

Coordinates: u towards the fibula (lateral), v downwards, both in half image widths, the origin
between the condyles on the joint line.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from trabecula.phantoms import patients
from trabecula.phantoms.curves import AXIS, PER_UNIT, Curve, Floats, Point, bump, edge, fade, outline
from trabecula.phantoms.patients import Joints, Radiograph, Rng, Side, alike, varied
from trabecula.phantoms.shapes import bone, clouds, frame, grow, least, profile, structure, turned

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


class KneeSigns:
    """Signs of osteoarthritis of a grade; all zero in a healthy knee.

    The same numbers are drawn whatever the grade and the effect.
    """

    def __init__(self, rng: Rng, grade: int, effect: float) -> None:
        medial = rng.random() < 0.7
        spread = rng.standard_normal(12)
        sites = rng.permutation(4)
        if medial == (sites[0] % 2 == 1):  # the first osteophyte usually stands on the worse side
            sites = sites[[1, 0, 2, 3]]
        narrowing = float(np.clip(_NARROWING[grade] * (1 + 0.22 * spread[0]), 0, 1.1)) * effect
        opened = float(np.clip(-0.25 + 0.25 * spread[1], -0.55, 0.4))  # may open as the worse closes
        sclerosis = varied(patients.SCLEROSIS[grade], spread[6]) * effect
        deformity = varied(patients.DEFORMITY[grade], spread[7]) * effect
        # Lost share of the joint space, medial and lateral; negative: opened.
        self.narrowing = _by_side(medial, narrowing, narrowing * opened)
        # Lengths: femur medial, lateral, tibia medial, lateral; how far each points at the joint, radians.
        self.osteophytes = patients.osteophytes(_OSTEOPHYTE[grade], grade, effect, sites, spread[2:6])
        self.tilt = [0.25 + 0.2 * float(number) for number in spread[8:12]]
        self.sclerosis = _by_side(medial, sclerosis, 0.25 * sclerosis)
        self.varus = 0.06 * deformity * (1 if medial else -1)  # radians, negative is valgus
        # How far the plateau has sunk and the condyle flattened.
        self.depression = _by_side(medial, 0.045 * deformity, 0.0)


def _by_side(medial: bool, worse: float, other: float) -> Point:
    return (worse, other) if medial else (other, worse)


class KneeAnatomy:
    """Shape and pose of one knee, drawn; lengths in half image widths, angles in radians.

    The two of a patient resemble each other, pose and joint space differ.
    """

    def __init__(self, patient: Rng, knee: Rng, male: bool) -> None:
        both = alike(patient, knee)
        width = both(1.02 if male else 0.98, 0.025)
        self.femur, self.tibia = _FEMUR.astype(np.float32), _TIBIA.astype(np.float32)
        for half in (self.femur, self.tibia):
            shape = (len(half), 2)
            bend = 0.8 * patient.normal(0, 0.016, shape) + 0.6 * knee.normal(0, 0.016, shape)
            half[:, 1:] = half[:, 1:] * width + bend
        space = float(np.clip(both(0.114, 0.030), 0.055, 0.185))
        self.scale = knee.normal(1.0, 0.035)
        self.rotation = knee.normal(0, 0.05)
        self.shift = (knee.normal(0, 0.035), knee.normal(0.10, 0.05))
        self.alignment = both(0.0, 0.02)  # angle between femur and tibia in health
        medial = (both(-0.49, 0.015), both(0.40, 0.012) * width)
        lateral = (both(0.48, 0.015), both(0.39, 0.012) * width)
        self.condyles = (medial, lateral)  # centre and half width
        self.roundness = (both(0.33, 0.03), both(0.29, 0.03), both(2.2, 0.15))  # depths; exponent
        self.notch = (both(0.25, 0.03), both(0.0, 0.02))  # height, place
        self.gap = (space * both(0.95, 0.06), space * both(1.1, 0.07))  # joint space, medial and lateral
        self.slope = abs(both(0.03, 0.025))  # of the beam to the plateau: how far its two rims lie apart
        # Height and place of the spines, medial then lateral.
        self.spines = (both(0.13, 0.025), both(-0.085, 0.015), both(0.12, 0.025), both(0.095, 0.015))
        self.fibula = (both(0.76, 0.05), both(0.50, 0.06), both(0.19, 0.015))  # u, v of the head; radius
        # u, v, radii.
        self.patella = (both(0.03, 0.07), both(-0.56, 0.09), both(0.40, 0.03), both(0.40, 0.035))
        self.patella_density = max(0.05, both(0.24, 0.08))
        self.leg = (both(1.08, 0.06), both(1.10, 0.06))  # soft tissue half widths, medial and lateral
        self.leg_bow = both(0.0, 0.08)
        self.walls = both(0.24, 0.03)  # place of the trochlea's edge
        # The growth plate's line: level, phase, strength.
        self.scar = (both(-0.50, 0.05), both(0.0, 1.0), abs(both(0.14, 0.06)))
        self.cortex = max(0.5, both(1.0, 0.18))
        # Strength, fineness, verticality.
        self.texture = (max(0.3, both(1.0, 0.3)), max(0.6, both(1.0, 0.15)), max(0.3, both(1.0, 0.25)))


def femur_surface(anatomy: KneeAnatomy, signs: KneeSigns) -> Curve:
    """Lowest v of the femur for each u: two condyles and the notch between them."""
    depth = -anatomy.notch[0] * (1 - 5 * np.minimum((AXIS - anatomy.notch[1]) ** 2, 0.1))
    for side in (0, 1):
        centre, half = anatomy.condyles[side]
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
        centre, half = anatomy.condyles[side]
        t = np.clip((AXIS - centre) / half, -1.3, 1.3)
        hollow = (0.035, 0.012)[side] * (1 - t**2)
        lost = anatomy.gap[side] * signs.narrowing[side]
        height += share * (anatomy.gap[side] - lost + hollow + 0.5 * signs.depression[side] * np.abs(t))
    first, at, second, by = anatomy.spines
    height -= first * bump(AXIS, at, 0.055) + second * bump(AXIS, by, 0.05) + 0.05 * bump(AXIS, 0, 0.2)
    return Curve(height)


def render(anatomy: KneeAnatomy, signs: KneeSigns, size: int, rng: Rng) -> Floats:
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
        foot = (out * (side.at(-0.1) - 0.05), -0.13)
        grow(distance, u, v, foot, signs.osteophytes[site], signs.tilt[site], out)
    plate = Curve(fade(AXIS, 0.07))(below) * (0.05 + 0.30 * _worn(anatomy, signs, 0.24)(u))
    # Faint upright lines: the inner walls of the notch and the trochlea's edge.
    height = Curve(edge(-AXIS, 0.12, 0.05) * edge(AXIS, -0.62, 0.08))(v)
    across = Curve(0.6 * bump(AXIS, -0.21, 0.018) + bump(AXIS, anatomy.walls, 0.016))(u + 0.10 * v)
    lines = 0.16 * anatomy.cortex * across * height
    level, phase, strength = anatomy.scar  # on one side brighter
    across = Curve(edge(AXIS, 0.25, 0.1) + 0.6 * edge(-AXIS, 0.35, 0.1))(u)
    lines = lines + strength * _scar(u, v, level, 0.05 * np.sin(7 * AXIS + 9 * phase)) * across
    look = profile(0.62, 0.36 * anatomy.cortex, 0.16)
    return bone(distance, look, 0.22 * trabeculae, plate + lines)


def _worn(anatomy: KneeAnatomy, signs: KneeSigns, width: float) -> Curve:
    """Dense bone by u, under the middle of each condyle."""
    (medial, _), (lateral, _) = anatomy.condyles
    worn = signs.sclerosis[0] * bump(AXIS, medial, width)
    return Curve(worn + signs.sclerosis[1] * bump(AXIS, lateral, width))


def _scar(u: Floats, v: Floats, level: float, wave: Floats) -> Floats:
    """The line the growth plate left; `wave` by u."""
    return Curve(bump(AXIS, 0, 0.016))(v - level - Curve(wave)(u))


def _tibia(anatomy: KneeAnatomy, signs: KneeSigns, u: Floats, v: Floats, trabeculae: Floats) -> Floats:
    surface = tibia_surface(anatomy, signs)
    medial, lateral = outline(anatomy.tibia, 1), outline(anatomy.tibia, 2)
    above = (v - surface(u)) * surface.steepness()(u)
    distance = least(above, np.minimum(medial(v) + u, lateral(v) - u), 0.09)
    for site, out, side in ((2, -1, medial), (3, 1, lateral)):
        rim = out * (side.at(0.12) - 0.05)
        foot = (rim, surface.at(rim) + 0.06)
        grow(distance, u, v, foot, signs.osteophytes[site], -signs.tilt[site], out)
    rim_line = float(np.float32(anatomy.slope) + np.float32(0.02))
    flat = Curve(1 - bump(AXIS, 0.0, 0.22))(u)
    plate = 0.30 * anatomy.cortex * Curve(bump(AXIS, rim_line, 0.03))(above) * flat
    plate += Curve(fade(AXIS, 0.09))(above) * (0.08 + 0.36 * _worn(anatomy, signs, 0.26)(u))
    middle = 0.14 * Curve(bump(AXIS, 0, 0.2))(u) * Curve(bump(AXIS, 0.12, 0.12))(v)
    level, phase, strength = anatomy.scar
    scar = _scar(u, v, level + 1.02, 0.03 * np.sin(6 * AXIS + 7 * phase))
    look = profile(0.60, 0.38 * anatomy.cortex, 0.14)
    return bone(distance, look, 0.26 * trabeculae, plate + middle + 0.8 * strength * scar)


def _fibula(anatomy: KneeAnatomy, u: Floats, v: Floats) -> Floats:
    at, top, radius = anatomy.fibula
    centre = Curve(at + 0.04 * np.maximum(AXIS - top, 0))(v)
    half = radius * np.sqrt(np.clip(1 - ((AXIS - top - radius) / radius) ** 2, 0, 1))
    neck = 0.62 * radius * edge(AXIS, top + radius, 0.05)
    width = Curve(gaussian_filter1d(np.maximum(half, neck) - 0.12 * (half + neck < 1e-3), 12))(v)
    return profile(0.35, 0.5 * anatomy.cortex, 0.12)(width - np.abs(u - centre))


def _patella(anatomy: KneeAnatomy, u: Floats, v: Floats) -> Floats:
    at, level, wide, high = anatomy.patella
    across, up = (u - at) / wide, (v - level) / high
    across = across * (1 + 0.18 * np.clip(up, -1, 1.2))
    inside = (1 - np.sqrt(across * across + up * up)) * min(wide, high)
    disc = edge(AXIS, 0.02, 0.03) * (0.7 + 0.3 * np.tanh(np.maximum(AXIS, 0) / 0.15))
    return anatomy.patella_density * Curve(disc + 0.15 * bump(AXIS, 0.02, 0.02))(inside)


def _soft_tissue(anatomy: KneeAnatomy, u: Floats, v: Floats) -> Floats:
    """Muscle and fat: an oval leg, thinner at the joint line than above it."""
    medial, lateral = anatomy.leg
    width = np.where(AXIS < 0, medial, lateral)
    inside = np.clip(1 - (AXIS / width) ** 2, 0, None)
    across = Curve(0.50 * np.sqrt(inside) + 0.12 * edge(1 - np.abs(AXIS) / width, 0.03, 0.01))
    along = Curve(1 + 0.12 * np.tanh((-AXIS - 0.2) / 0.5))
    return across(u + anatomy.leg_bow * v * v) * along(v)


def draw_knee(settings: Joints, patient: int, side: Side) -> Radiograph:
    """Draw one knee; a function of the settings, the patient's number and the side only."""
    return patients.take_radiograph(settings, patient, side, KneeAnatomy, KneeSigns, render)
