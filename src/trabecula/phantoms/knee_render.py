"""How a ray adds up what it passes in a make-believe knee: soft tissue, bones, their fine structure."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from trabecula.phantoms.bone import clouds, profile, structure
from trabecula.phantoms.knee_anatomy import Anatomy, Signs, femur_surface, tibia_surface
from trabecula.phantoms.shapes import AXIS, Curve, Floats, bump, edge, frame, grow, least, outline, turned


def render(anatomy: Anatomy, signs: Signs, size: int, rng: np.random.Generator) -> Floats:
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


def _femur(anatomy: Anatomy, signs: Signs, u: Floats, v: Floats, trabeculae: Floats) -> Floats:
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


def _walls(anatomy: Anatomy, u: Floats, v: Floats) -> Floats:
    """The inner walls of the notch and the trochlea's edge: faint upright lines."""
    height = Curve(edge(-AXIS, 0.12, 0.05) * edge(AXIS, -0.62, 0.08))(v)
    across = 0.6 * bump(AXIS, -0.21, 0.018) + bump(AXIS, anatomy.walls, 0.016)
    return 0.16 * anatomy.cortex * Curve(across)(u + 0.10 * v) * height


def _scar(anatomy: Anatomy, u: Floats, v: Floats) -> Floats:
    """The line the growth plate left, on one side brighter."""
    level, tilt, strength = anatomy.scar
    line = Curve(bump(AXIS, 0, 0.016))(v - np.float32(level) - Curve(0.05 * np.sin(7 * AXIS + 9 * tilt))(u))
    across = Curve(edge(AXIS, 0.25, 0.1) + 0.6 * edge(-AXIS, 0.35, 0.1))(u)
    return strength * line * across


def _tibia(anatomy: Anatomy, signs: Signs, u: Floats, v: Floats, trabeculae: Floats) -> Floats:
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


def _fibula(anatomy: Anatomy, u: Floats, v: Floats) -> Floats:
    at, top, radius = anatomy.fibula
    centre = Curve(at + 0.04 * np.maximum(AXIS - top, 0))(v)
    half = radius * np.sqrt(np.clip(1 - ((AXIS - top - radius) / radius) ** 2, 0, 1))
    neck = 0.62 * radius * edge(AXIS, top + radius, 0.05)
    width = Curve(gaussian_filter1d(np.maximum(half, neck) - 0.12 * (half + neck < 1e-3), 12))(v)
    return profile(0.35, 0.5 * anatomy.cortex, 0.12)(width - np.abs(u - centre))


def _patella(anatomy: Anatomy, u: Floats, v: Floats) -> Floats:
    at, level, wide, high, density = anatomy.patella
    across, up = (u - np.float32(at)) / np.float32(wide), (v - np.float32(level)) / np.float32(high)
    across = across * (1 + 0.18 * np.clip(up, -1, 1.2))
    inside = (1 - np.sqrt(across * across + up * up)) * np.float32(min(wide, high))
    disc = edge(AXIS, 0.02, 0.03) * (0.7 + 0.3 * np.tanh(np.maximum(AXIS, 0) / 0.15))
    return np.float32(density) * Curve(disc + 0.15 * bump(AXIS, 0.02, 0.02))(inside)


def _soft_tissue(anatomy: Anatomy, u: Floats, v: Floats) -> Floats:
    """Muscle and fat: an oval leg, thinner at the joint line than above it."""
    medial, lateral = anatomy.leg
    width = np.where(AXIS < 0, medial, lateral)
    inside = np.clip(1 - (AXIS / width) ** 2, 0, None)
    across = Curve(0.50 * np.sqrt(inside) + 0.12 * edge(1 - np.abs(AXIS) / width, 0.03, 0.01))
    along = Curve(1 + 0.12 * np.tanh((-AXIS - 0.2) / 0.5))
    return across(u + np.float32(anatomy.leg_bow) * v * v) * along(v)
