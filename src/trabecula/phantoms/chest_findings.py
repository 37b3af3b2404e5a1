"""Which findings a phantom chest radiograph has: as common, and as often together, as in a hospital.

Prevalences are those of NIH ChestX-ray14 (Wang et al. 2017, arXiv 1705.02315: images with a finding
among 112,120). A finding is there where a hidden number passes a threshold. What findings have in
common (fluid, infection, chronic lung disease, tumour, general illness) makes the numbers of one radiograph
alike; what lasts makes those of a patient's radiographs alike.

How the findings look: each painter draws one sign on a scene, after Hansell et al., "Fleischner Society:
Glossary of terms for thoracic imaging", Radiology 2008; 246:697. A painter draws its random numbers from
its sign alone, so that no finding moves another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri

from trabecula.config import Record
from trabecula.phantoms.chest_anatomy import SIDES, Scene
from trabecula.phantoms.shapes import AXIS, Curve, bump, edge, least

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """How common a finding is, how much of it lasts from image to image, and what it shares with others."""

    images: int  # of NIH_IMAGES
    lasts: float  # share of its own variance that is the patient's
    loads: tuple[float, float, float, float, float]  # on fluid, infection, chronic, tumour, illness


NIH_IMAGES = 112_120
FINDINGS: dict[str, Kind] = {
    "Atelectasis": Kind(11_559, 0.4, (0.25, 0.15, 0.0, 0.0, 0.50)),
    "Cardiomegaly": Kind(2_776, 0.9, (0.60, 0.0, 0.0, 0.0, 0.10)),
    "Effusion": Kind(13_317, 0.5, (0.50, 0.15, 0.0, 0.20, 0.50)),
    "Infiltration": Kind(19_894, 0.3, (0.10, 0.35, 0.0, 0.0, 0.30)),
    "Mass": Kind(5_782, 0.8, (0.0, 0.0, 0.10, 0.60, 0.15)),
    "Nodule": Kind(6_331, 0.8, (0.0, 0.0, 0.10, 0.60, 0.0)),
    "Pneumonia": Kind(1_431, 0.3, (0.15, 0.60, 0.0, 0.0, 0.15)),
    "Pneumothorax": Kind(5_302, 0.5, (-0.10, 0.0, 0.55, 0.10, 0.15)),
    "Consolidation": Kind(4_667, 0.4, (0.15, 0.40, 0.0, 0.15, 0.40)),
    "Edema": Kind(2_303, 0.3, (0.60, 0.40, 0.0, 0.0, 0.10)),
    "Emphysema": Kind(2_516, 0.9, (-0.10, 0.0, 0.70, 0.0, 0.10)),
    "Fibrosis": Kind(1_686, 0.9, (0.0, 0.0, 0.35, 0.25, -0.10)),
    "Pleural_Thickening": Kind(3_385, 0.8, (0.0, 0.0, 0.25, 0.40, 0.25)),
    "Hernia": Kind(227, 0.95, (0.0, 0.0, 0.0, 0.0, 0.0)),
}
"""In the order of the data set's paper."""
NO_FINDING = "No Finding"
SEPARATOR = "|"
_CAUSES = 5
_SHARED_LASTS = 0.6  # share of the common causes that is the patient's
_MOST_IMAGES = 30


class ChestSettings(Record):
    """What patients of chest radiographs have: how many radiographs, how many findings."""

    images: float = Field(2.0, ge=1, le=20)
    """Mean radiographs a patient; most have one, some have many (NIH ChestX-ray14: 3.6)."""
    odds: float = Field(1.0, ge=0, le=20)
    """How many times the odds of each finding are those of NIH ChestX-ray14; above 1 rare ones are found in
    few radiographs."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        if isinstance(values, dict) and "films" in values:
            raise ValueError("'chest.films' is now called 'chest.images'")
        return values


def prevalence(finding: str, odds: float) -> float:
    """Share of radiographs with a finding."""
    share = FINDINGS[finding].images / NIH_IMAGES
    return odds * share / (1 - share + odds * share)


def draw_findings(
    own: ChestSettings, patient: np.random.Generator, image: np.random.Generator
) -> tuple[str, ...]:
    """The findings of one radiograph, in the table's order.

    Args:
        patient: makes the same numbers for all radiographs of a patient.
        image: makes this radiograph's own.
    """
    size = len(FINDINGS) + _CAUSES
    lasting, passing = patient.standard_normal(size), image.standard_normal(size)
    causes = (_SHARED_LASTS**0.5 * lasting + (1 - _SHARED_LASTS) ** 0.5 * passing)[:_CAUSES]
    lasts, loads, cuts = _table(own.odds)
    rest = (lasts**0.5 * lasting[_CAUSES:] + (1 - lasts) ** 0.5 * passing[_CAUSES:]) * (
        1 - (loads**2).sum(1)
    ) ** 0.5
    return tuple(name for name, there in zip(FINDINGS, loads @ causes + rest > cuts, strict=True) if there)


@cache
def _table(odds: float) -> tuple[Numbers, Numbers, Numbers]:
    """Of each finding: how much lasts (14,), what it shares (14, 5), the threshold of its number (14,)."""
    kinds = FINDINGS.values()
    shares = np.array([prevalence(name, odds) for name in FINDINGS])
    return (
        np.array([kind.lasts for kind in kinds]),
        np.array([kind.loads for kind in kinds]),
        ndtri(1 - shares),
    )


def draw_number(own: ChestSettings, rng: np.random.Generator) -> int:
    """How many radiographs a patient has: geometric."""
    return min(int(rng.geometric(1 / own.images)), _MOST_IMAGES)


Shape = npt.NDArray[np.float64]
_DEEP = 0.66  # about what a lung takes away where it is deepest, see `Scene.air`


@dataclass(frozen=True)
class Sign:
    """One finding on one radiograph: how plain it is (about 1), where, and what else chance says of it."""

    strength: float
    sides: tuple[int, ...]
    place: np.random.Generator  # the same numbers on each of a patient's radiographs
    own: np.random.Generator


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _ball(
    scene: Scene, centre: tuple[float, float], radius: float, dense: float, sharp: float, shape: Shape
) -> None:
    """A round opacity: what a ray passes in a ball, its outline bent by `shape` (4 numbers)."""
    box, du, dv = scene.around(centre, 1.4 * radius)
    angle = np.arctan2(dv, du)
    bent = 1 + sum(shape[k] * np.cos((k + 2) * angle + 9 * shape[3 - k]) for k in range(3))
    share = np.hypot(du, dv) / (np.float32(radius) * bent)
    chord = np.sqrt(np.clip(1 - share**2, 0, 1)) ** 0.7
    scene.picture[box] += (dense * chord * edge(1 - share, 0.0, sharp)).astype(np.float32)


def _mass(scene: Scene, sign: Sign) -> None:
    """Above 3 cm, mostly well outlined, lobulated."""
    place = sign.place
    for side in sign.sides:
        lung, _, _ = scene.of(side)
        centre = lung.place(_uniform(place, 0.25, 0.78), _uniform(place, 0.18, 0.78))
        radius = _uniform(place, 0.085, 0.14) * (1 + 0.05 * float(sign.own.standard_normal()))
        _ball(scene, centre, radius, 0.42 * sign.strength, 0.06, place.normal(0, 0.05, 4))


def _nodule(scene: Scene, sign: Sign) -> None:
    """One to three, below 3 cm."""
    place = sign.place
    for _ in range(1 + int(place.random() < 0.4) + int(place.random() < 0.2)):
        lung, _, _ = scene.of(sign.sides[int(place.random() * len(sign.sides))])
        centre = lung.place(_uniform(place, 0.22, 0.85), _uniform(place, 0.12, 0.85))
        radius = _uniform(place, 0.034, 0.058)
        _ball(scene, centre, radius, 0.42 * sign.strength, 0.12, place.normal(0, 0.02, 4))


def _effusion(scene: Scene, sign: Sign) -> None:
    """Fluid in the angle between wall and diaphragm, higher at the wall: a meniscus."""
    for side in sign.sides:
        lung, _, within = scene.of(side)
        wall = lung.wall.at(0.5)
        bottom = lung.dome.at(wall - 0.03)
        amount = _uniform(sign.place, 0.16, 0.42) * (1 + 0.2 * float(sign.own.standard_normal()))
        amount = float(np.clip(amount, 0.10, 0.60)) * (0.5 + 0.5 * min(sign.strength, 1.5))
        rise = Curve(0.55 * amount * np.exp(-np.maximum(AXIS, 0) / 0.09))
        surface = np.float32(bottom - amount) - rise(lung.wall(scene.v) - scene.a)
        fluid = Curve(edge(AXIS, 0.0, 0.022) * (0.75 + 0.25 * edge(AXIS, 0.12, 0.08)))(scene.v - surface)
        scene.picture += np.float32(min(sign.strength, 1.3)) * (scene.air + np.float32(0.06)) * fluid * within
        scene.vessels *= 1 - np.float32(0.8 * min(sign.strength, 1.0)) * fluid * within


def _atelectasis(scene: Scene, sign: Sign) -> None:
    """Plates of airless lung, and the haze of a smaller lower lobe; the diaphragm is raised elsewhere."""
    place = sign.place
    for side in sign.sides:
        lung, _, within = scene.of(side)
        for _ in range(2 + int(place.random() < 0.5)):
            at = lung.place(_uniform(place, 0.35, 0.65), _uniform(place, 0.62, 0.88))
            length, tilt = _uniform(place, 0.11, 0.18), float(place.normal(0, 0.25))
            ends = [(at[0] + s * length * np.cos(tilt), at[1] + s * length * np.sin(tilt)) for s in (-1, 1)]
            thick = _uniform(place, 0.009, 0.016)
            box, plate = scene.rod(ends[0], ends[1], (thick, thick), 0.007)
            scene.picture[box] += np.float32(0.30 * sign.strength) * plate * within[box]
        base = lung.place(_uniform(place, 0.15, 0.4), 0.98)
        far = np.hypot((scene.u - np.float32(base[0])) / 0.22, (scene.v - np.float32(base[1])) / 0.20)
        scene.picture += (
            np.float32(0.22 * sign.strength) * Curve(np.exp(-(AXIS**2)))(np.minimum(far, 1.99)) * within
        )


def _patches(
    scene: Scene, sign: Sign, side: int, number: int, spread: float, dense: float, size: float
) -> None:
    """Soft ill-defined spots about one place."""
    lung, _, within = scene.of(side)
    middle = lung.place(_uniform(sign.place, 0.28, 0.68), _uniform(sign.place, 0.28, 0.80))
    for _ in range(number):
        off = sign.place.normal(0, spread, 2)
        radius = size * _uniform(sign.place, 0.6, 1.4)
        box, du, dv = scene.around((middle[0] + float(off[0]), middle[1] + float(off[1])), 2.2 * radius)
        spot = np.exp(-(du * du + dv * dv) / (radius * radius))
        scene.picture[box] += (dense * sign.strength * _uniform(sign.place, 0.6, 1.2)) * spot * within[box]


def _infiltration(scene: Scene, sign: Sign) -> None:
    """Many small faint spots that run together, in one or both lungs."""
    for side in sign.sides:
        _patches(scene, sign, side, 22, 0.13, 0.20, 0.042)


def _pneumonia(scene: Scene, sign: Sign) -> None:
    """One segment's patch, dense in its middle, its margin lost in the lung."""
    for side in sign.sides:
        _patches(scene, sign, side, 8, 0.07, 0.13, 0.11)


def _consolidation(scene: Scene, sign: Sign) -> None:
    """A lobe without air, sharp where a fissure bounds it; the air in its bronchi shows as dark branches."""
    place = sign.place
    for side in sign.sides:
        lung, _, within = scene.of(side)
        upper = place.random() < 0.45
        fissure = lung.place(0.6, _uniform(place, 0.38, 0.46) if upper else _uniform(place, 0.58, 0.68))[1]
        slope = float(place.normal(0, 0.08)) + (0.10 if upper else -0.25)
        line = scene.v - np.float32(fissure) - np.float32(slope) * (scene.a - np.float32(0.35))
        lobe = Curve(edge(-AXIS if upper else AXIS, 0.0, 0.012 if upper else 0.05))(line)
        middle = lung.place(_uniform(place, 0.45, 0.7), 0.20 if upper else 0.82)
        far = np.hypot((scene.u - np.float32(middle[0])) / 0.36, (scene.v - np.float32(middle[1])) / 0.34)
        lobe = lobe * Curve(edge(-AXIS, -0.85, 0.16))(np.minimum(far, 1.99)) * within
        scene.picture += np.float32(0.80 * min(sign.strength, 1.3)) * scene.air * lobe
        scene.vessels *= 1 - np.float32(min(sign.strength, 1.0)) * lobe
        root = (side * 0.16, scene.anatomy.hila[SIDES.index(side)])
        for turn in (-0.14, 0.03, 0.20):
            du, dv = middle[0] - root[0], middle[1] - root[1]
            end = (root[0] + 1.25 * (du - turn * dv), root[1] + 1.25 * (dv + turn * du))
            box, branch = scene.rod(root, end, (0.016, 0.007), 0.006)
            scene.picture[box] -= np.float32(0.20 * sign.strength) * branch * lobe[box]


def _edema(scene: Scene, sign: Sign) -> None:
    """Haze about the lung roots like a bat's wings, wide vessels, short lines at the wall below."""
    for side in sign.sides:
        lung, _, within = scene.of(side)
        middle = lung.place(0.34, _uniform(sign.place, 0.46, 0.56))
        far = np.hypot((scene.u - np.float32(middle[0])) / 0.30, (scene.v - np.float32(middle[1])) / 0.38)
        haze = Curve(np.exp(-(AXIS**2)))(np.minimum(far, 1.99)) * within
        scene.picture += np.float32(0.26 * sign.strength) * haze
        for down in np.linspace(0.62, 0.88, 5):
            start = lung.place(0.98, float(down) + _uniform(sign.place, -0.02, 0.02))
            box, line = scene.rod(start, (start[0] - side * 0.07, start[1] + 0.005), (0.005, 0.004), 0.005)
            scene.picture[box] += np.float32(0.16 * sign.strength) * line * within[box]
    scene.vessels *= 1 + np.float32(0.06 * sign.strength)


def _emphysema(scene: Scene, sign: Sign) -> None:
    """Lungs with too much air and few vessels; bullae. The flat diaphragm is drawn elsewhere."""
    scene.vessels *= 1 - np.float32(0.55 * min(sign.strength, 1.2))
    for side in sign.sides:
        lung, _, within = scene.of(side)
        scene.picture -= np.float32(0.10 * sign.strength) * within
        for _ in range(int(sign.place.random() * 4)):
            centre = lung.place(_uniform(sign.place, 0.35, 0.8), _uniform(sign.place, 0.08, 0.45))
            radius = _uniform(sign.place, 0.06, 0.11)
            box, du, dv = scene.around(centre, 1.3 * radius)
            off = np.hypot(du, dv)
            hole = -0.10 * edge(-AXIS, -radius, 0.012) + 0.12 * bump(AXIS, radius, 0.010)
            scene.picture[box] += np.float32(sign.strength) * Curve(hole)(off) * within[box]


def _fibrosis(scene: Scene, sign: Sign) -> None:
    """A net of fine lines, near the wall and below."""
    size = len(scene.u)
    grain = sign.place.standard_normal((size, size), dtype=np.float32)
    grain = gaussian_filter(grain, 0.016 * size / 2, truncate=3)
    net = np.exp(-((grain / (0.38 * grain.std())) ** 2))
    for side in sign.sides:
        lung, depth, within = scene.of(side)
        low = lung.place(0.6, 0.45)[1]
        share = Curve(0.35 + 0.65 * edge(AXIS, low, 0.14))(scene.v) * Curve(
            0.35 + 0.65 * np.exp(-np.maximum(AXIS, 0) / 0.16)
        )(depth)
        scene.picture += (
            np.float32(0.85 * sign.strength)
            * (net - np.float32(0.15))
            * share
            * within
            * (scene.air / np.float32(_DEEP))
        )


def _pneumothorax(scene: Scene, sign: Sign) -> None:
    """Air between wall and lung: dark, without vessels, behind the thin line of the lung's own edge."""
    for side in sign.sides:
        lung, _, within = scene.of(side)
        gap = _uniform(sign.place, 0.10, 0.22) * (0.6 + 0.4 * min(sign.strength, 1.5))
        gap *= 1 + 0.15 * float(sign.own.standard_normal())
        gap = float(np.clip(gap, 0.05, 0.35))
        bottom = lung.apex + (0.8 + 2.2 * gap) * 1.0
        narrowing = Curve(gap * np.clip((bottom - AXIS) / (bottom - lung.apex), 0, 1.1))(scene.v)
        across = least(lung.wall(scene.v) - narrowing - scene.a, scene.a - lung.inner(scene.v), 0.05)
        inside = least(across, scene.v - np.float32(lung.apex + 1.1 * gap), 0.20)
        free = (1 - Curve(edge(AXIS, 0.0, 0.006))(inside)) * within
        strength = np.float32(min(sign.strength, 1.4))
        scene.picture -= np.float32(0.17) * strength * free
        scene.picture += np.float32(0.06) * strength * (within - free)
        seen = narrowing > 0.012
        scene.picture += np.float32(0.26) * strength * Curve(bump(AXIS, 0.004, 0.010))(inside) * within * seen
        scene.vessels *= 1 - min(strength, np.float32(1)) * free


def _pleural_thickening(scene: Scene, sign: Sign) -> None:
    """An uneven dense band along the wall, or a cap on the apex."""
    place = sign.place
    for side in sign.sides:
        lung, _, within = scene.of(side)
        cap = place.random() < 0.35
        middle = lung.place(0.9, _uniform(place, 0.04, 0.10) if cap else _uniform(place, 0.45, 0.8))[1]
        reach, thick = (0.16 if cap else _uniform(place, 0.24, 0.40)), _uniform(place, 0.055, 0.095)
        wave = _uniform(place, 0, 6)
        uneven = thick * (1 + 0.30 * np.sin(17 * AXIS + wave)) * np.exp(-(((AXIS - middle) / reach) ** 4))
        distance = lung.wall(scene.v) - scene.a
        distance = np.minimum(distance, scene.v - np.float32(lung.apex)) if cap else distance
        band = Curve(edge(AXIS, 0.0, 0.007))(Curve(uneven)(scene.v) - distance - np.float32(0.004))
        scene.picture += np.float32(sign.strength) * (scene.air + np.float32(0.18)) * band * within


def _hernia(scene: Scene, sign: Sign) -> None:
    """A part of the stomach behind the heart: a round shadow with air above a level of fluid."""
    place = sign.place
    radius = _uniform(place, 0.13, 0.18)
    centre = (_uniform(place, -0.02, 0.10), scene.lungs[1].dome.at(0.36) - 0.55 * radius)
    box, du, dv = scene.around(centre, 1.3 * radius)
    off = np.hypot(du, dv)
    inside = Curve(edge(-AXIS, -radius, 0.010))(off)
    level = _uniform(sign.own, -0.2, 0.3) * radius
    air = inside * Curve(edge(-AXIS, -level, 0.006))(dv)
    sac = 0.20 * inside - 0.46 * air * Curve(edge(-AXIS, -0.88 * radius, 0.010))(off)
    scene.picture[box] += np.float32(sign.strength) * (sac + 0.10 * Curve(bump(AXIS, radius, 0.012))(off))


def _outline_only(scene: Scene, sign: Sign) -> None:
    """The sign is a changed outline: see `chest_anatomy.changed`."""


PAINTERS: dict[str, Callable[[Scene, Sign], None]] = {
    "Atelectasis": _atelectasis,
    "Cardiomegaly": _outline_only,
    "Effusion": _effusion,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Emphysema": _emphysema,
    "Fibrosis": _fibrosis,
    "Pleural_Thickening": _pleural_thickening,
    "Hernia": _hernia,
}
BOTH_SIDES = {"Edema", "Emphysema", "Fibrosis", "Hernia", "Cardiomegaly"}
