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
from functools import cache, partial

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri

from trabecula.config import Record
from trabecula.phantoms.chest_anatomy import SIDES, Lung, Scene
from trabecula.phantoms.curves import AXIS, Curve, Floats, Point, bump, edge, fade
from trabecula.phantoms.shapes import least

_BELL = Curve(np.exp(-(AXIS**2)))
_DEEP = 0.66  # about what a lung takes away where it is deepest, see `Scene.air`


@dataclass(frozen=True)
class Sign:
    """One finding on one radiograph: how plain it is (about 1), where, and what else chance says of it."""

    strength: float
    sides: tuple[int, ...]
    place: np.random.Generator  # the same numbers on each of a patient's radiographs
    own: np.random.Generator

    def lungs(self, scene: Scene) -> list[Lung]:
        return [scene.lungs[SIDES.index(side)] for side in self.sides]


def _ball(scene: Scene, centre: Point, radius: float, dense: float, sharp: float, shape: Floats) -> None:
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
    for lung in sign.lungs(scene):
        centre = lung.place(place.uniform(0.25, 0.78), place.uniform(0.18, 0.78))
        radius = place.uniform(0.085, 0.14) * (1 + 0.05 * sign.own.standard_normal())
        _ball(scene, centre, radius, 0.42 * sign.strength, 0.06, place.normal(0, 0.05, 4))


def _nodule(scene: Scene, sign: Sign) -> None:
    """One to three, below 3 cm."""
    place, lungs = sign.place, sign.lungs(scene)
    for _ in range(1 + (place.random() < 0.4) + (place.random() < 0.2)):
        lung = lungs[int(place.random() * len(lungs))]
        centre = lung.place(place.uniform(0.22, 0.85), place.uniform(0.12, 0.85))
        radius = place.uniform(0.034, 0.058)
        _ball(scene, centre, radius, 0.42 * sign.strength, 0.12, place.normal(0, 0.02, 4))


def _effusion(scene: Scene, sign: Sign) -> None:
    """Fluid in the angle between wall and diaphragm, higher at the wall: a meniscus."""
    for lung in sign.lungs(scene):
        bottom = lung.dome.at(lung.wall.at(0.5) - 0.03)
        amount = sign.place.uniform(0.16, 0.42) * (1 + 0.2 * sign.own.standard_normal())
        amount = float(np.clip(amount, 0.10, 0.60)) * (0.5 + 0.5 * min(sign.strength, 1.5))
        rise = Curve(0.55 * amount * fade(AXIS, 0.09))
        surface = (bottom - amount) - rise(lung.wall(scene.v) - scene.a)
        fluid = Curve(edge(AXIS, 0.0, 0.022) * (0.75 + 0.25 * edge(AXIS, 0.12, 0.08)))(scene.v - surface)
        scene.picture += min(sign.strength, 1.3) * (scene.air + 0.06) * fluid * lung.within
        scene.vessels *= 1 - 0.8 * min(sign.strength, 1.0) * fluid * lung.within


def _atelectasis(scene: Scene, sign: Sign) -> None:
    """Plates of airless lung, and the haze of a smaller lower lobe; the diaphragm is raised elsewhere."""
    place = sign.place
    for lung in sign.lungs(scene):
        for _ in range(2 + (place.random() < 0.5)):
            at = lung.place(place.uniform(0.35, 0.65), place.uniform(0.62, 0.88))
            length, tilt = place.uniform(0.11, 0.18), place.normal(0, 0.25)
            ends = [(at[0] + s * length * np.cos(tilt), at[1] + s * length * np.sin(tilt)) for s in (-1, 1)]
            thick = place.uniform(0.009, 0.016)
            box, plate = scene.rod(ends[0], ends[1], (thick, thick), 0.007)
            scene.picture[box] += 0.30 * sign.strength * plate * lung.within[box]
        base = lung.place(place.uniform(0.15, 0.4), 0.98)
        scene.picture += 0.22 * sign.strength * scene.oval(base, (0.22, 0.20), _BELL) * lung.within


def _patches(scene: Scene, sign: Sign, number: int, spread: float, dense: float, size: float) -> None:
    """Soft ill-defined spots about one place, in one or both lungs."""
    place = sign.place
    for lung in sign.lungs(scene):
        middle = lung.place(place.uniform(0.28, 0.68), place.uniform(0.28, 0.80))
        for _ in range(number):
            off = place.normal(0, spread, 2)
            radius = size * place.uniform(0.6, 1.4)
            centre = (middle[0] + float(off[0]), middle[1] + float(off[1]))
            box, du, dv = scene.around(centre, 2.2 * radius)
            spot = np.exp(-(du * du + dv * dv) / (radius * radius))
            scene.picture[box] += dense * sign.strength * place.uniform(0.6, 1.2) * spot * lung.within[box]


_infiltration = partial(_patches, number=22, spread=0.13, dense=0.20, size=0.042)
"""Many small faint spots that run together."""
_pneumonia = partial(_patches, number=8, spread=0.07, dense=0.13, size=0.11)
"""One segment's patch, dense in its middle, its margin lost in the lung."""


def _consolidation(scene: Scene, sign: Sign) -> None:
    """A lobe without air, sharp where a fissure bounds it; the air in its bronchi shows as dark branches."""
    place = sign.place
    for lung in sign.lungs(scene):
        upper = place.random() < 0.45
        fissure = lung.place(0.6, place.uniform(0.38, 0.46) if upper else place.uniform(0.58, 0.68))[1]
        slope = place.normal(0, 0.08) + (0.10 if upper else -0.25)
        line = scene.v - fissure - slope * (scene.a - 0.35)
        lobe = Curve(edge(-AXIS if upper else AXIS, 0.0, 0.012 if upper else 0.05))(line)
        middle = lung.place(place.uniform(0.45, 0.7), 0.20 if upper else 0.82)
        lobe = lobe * scene.oval(middle, (0.36, 0.34), Curve(edge(-AXIS, -0.85, 0.16))) * lung.within
        scene.picture += 0.80 * min(sign.strength, 1.3) * scene.air * lobe
        scene.vessels *= 1 - min(sign.strength, 1.0) * lobe
        root = (lung.side * 0.16, lung.root)
        for turn in (-0.14, 0.03, 0.20):
            du, dv = middle[0] - root[0], middle[1] - root[1]
            end = (root[0] + 1.25 * (du - turn * dv), root[1] + 1.25 * (dv + turn * du))
            box, branch = scene.rod(root, end, (0.016, 0.007), 0.006)
            scene.picture[box] -= 0.20 * sign.strength * branch * lobe[box]


def _edema(scene: Scene, sign: Sign) -> None:
    """Haze about the lung roots like a bat's wings, wide vessels, short lines at the wall below."""
    for lung in sign.lungs(scene):
        middle = lung.place(0.34, sign.place.uniform(0.46, 0.56))
        scene.picture += 0.26 * sign.strength * (scene.oval(middle, (0.30, 0.38), _BELL) * lung.within)
        for down in np.linspace(0.62, 0.88, 5):
            start = lung.place(0.98, float(down) + sign.place.uniform(-0.02, 0.02))
            end = (start[0] - lung.side * 0.07, start[1] + 0.005)
            box, line = scene.rod(start, end, (0.005, 0.004), 0.005)
            scene.picture[box] += 0.16 * sign.strength * line * lung.within[box]
    scene.vessels *= 1 + np.float32(0.06 * sign.strength)


def _emphysema(scene: Scene, sign: Sign) -> None:
    """Lungs with too much air and few vessels; bullae. The flat diaphragm is drawn elsewhere."""
    place = sign.place
    scene.vessels *= 1 - np.float32(0.55 * min(sign.strength, 1.2))
    for lung in sign.lungs(scene):
        scene.picture -= 0.10 * sign.strength * lung.within
        for _ in range(int(place.random() * 4)):
            centre = lung.place(place.uniform(0.35, 0.8), place.uniform(0.08, 0.45))
            radius = place.uniform(0.06, 0.11)
            box, du, dv = scene.around(centre, 1.3 * radius)
            hole = Curve(-0.10 * edge(-AXIS, -radius, 0.012) + 0.12 * bump(AXIS, radius, 0.010))
            scene.picture[box] += sign.strength * hole(np.hypot(du, dv)) * lung.within[box]


def _fibrosis(scene: Scene, sign: Sign) -> None:
    """A net of fine lines, near the wall and below."""
    size = len(scene.u)
    grain = sign.place.standard_normal((size, size), dtype=np.float32)
    grain = gaussian_filter(grain, 0.016 * size / 2, truncate=3)
    net = np.exp(-((grain / (0.38 * grain.std())) ** 2)) - 0.15
    outer = Curve(0.35 + 0.65 * fade(AXIS, 0.16))
    for lung in sign.lungs(scene):
        lower = Curve(0.35 + 0.65 * edge(AXIS, lung.place(0.6, 0.45)[1], 0.14))
        share = lower(scene.v) * outer(lung.depth)
        scene.picture += 0.85 * sign.strength * net * share * lung.within * (scene.air / _DEEP)


def _pneumothorax(scene: Scene, sign: Sign) -> None:
    """Air between wall and lung: dark, without vessels, behind the thin line of the lung's own edge."""
    strength = np.float32(min(sign.strength, 1.4))
    for lung in sign.lungs(scene):
        gap = sign.place.uniform(0.10, 0.22) * (0.6 + 0.4 * min(sign.strength, 1.5))
        gap *= 1 + 0.15 * sign.own.standard_normal()
        gap = float(np.clip(gap, 0.05, 0.35))
        bottom = lung.apex + (0.8 + 2.2 * gap)
        narrowing = Curve(gap * np.clip((bottom - AXIS) / (bottom - lung.apex), 0, 1.1))(scene.v)
        across = least(lung.wall(scene.v) - narrowing - scene.a, scene.a - lung.inner(scene.v), 0.05)
        inside = least(across, scene.v - (lung.apex + 1.1 * gap), 0.20)
        free = (1 - Curve(edge(AXIS, 0.0, 0.006))(inside)) * lung.within
        scene.picture -= np.float32(0.17) * strength * free
        scene.picture += np.float32(0.06) * strength * (lung.within - free)
        line = Curve(bump(AXIS, 0.004, 0.010))(inside)
        scene.picture += np.float32(0.26) * strength * line * lung.within * (narrowing > 0.012)
        scene.vessels *= 1 - min(strength, np.float32(1)) * free


def _pleural_thickening(scene: Scene, sign: Sign) -> None:
    """An uneven dense band along the wall, or a cap on the apex."""
    place = sign.place
    for lung in sign.lungs(scene):
        cap = place.random() < 0.35
        middle = lung.place(0.9, place.uniform(0.04, 0.10) if cap else place.uniform(0.45, 0.8))[1]
        reach, thick = (0.16 if cap else place.uniform(0.24, 0.40)), place.uniform(0.055, 0.095)
        wave = 1 + 0.30 * np.sin(17 * AXIS + place.uniform(0, 6))
        uneven = Curve(thick * wave * np.exp(-(((AXIS - middle) / reach) ** 4)))
        distance = lung.wall(scene.v) - scene.a
        distance = np.minimum(distance, scene.v - lung.apex) if cap else distance
        band = Curve(edge(AXIS, 0.0, 0.007))(uneven(scene.v) - distance - 0.004)
        scene.picture += sign.strength * (scene.air + 0.18) * band * lung.within


def _hernia(scene: Scene, sign: Sign) -> None:
    """A part of the stomach behind the heart: a round shadow with air above a level of fluid."""
    radius = sign.place.uniform(0.13, 0.18)
    centre = (sign.place.uniform(-0.02, 0.10), scene.lungs[1].dome.at(0.36) - 0.55 * radius)
    box, du, dv = scene.around(centre, 1.3 * radius)
    off = np.hypot(du, dv)
    inside = Curve(edge(-AXIS, -radius, 0.010))(off)
    level = sign.own.uniform(-0.2, 0.3) * radius
    air = inside * Curve(edge(-AXIS, -level, 0.006))(dv)
    sac = 0.20 * inside - 0.46 * air * Curve(edge(-AXIS, -0.88 * radius, 0.010))(off)
    scene.picture[box] += sign.strength * (sac + 0.10 * Curve(bump(AXIS, radius, 0.012))(off))


def _outline_only(scene: Scene, sign: Sign) -> None:
    """The sign is a changed outline: see `ChestAnatomy.change`."""


@dataclass(frozen=True)
class Kind:
    """How common a finding is, what it shares with others, how it looks."""

    images: int  # of NIH_IMAGES
    lasts: float  # share of its own variance that is the patient's, on each image
    loads: tuple[float, float, float, float, float]  # on fluid, infection, chronic, tumour, illness
    paint: Callable[[Scene, Sign], None]
    both: bool = False  # always of both sides


NIH_IMAGES = 112_120
FINDINGS: dict[str, Kind] = {
    "Atelectasis": Kind(11_559, 0.4, (0.25, 0.15, 0.0, 0.0, 0.50), _atelectasis),
    "Cardiomegaly": Kind(2_776, 0.9, (0.60, 0.0, 0.0, 0.0, 0.10), _outline_only, both=True),
    "Effusion": Kind(13_317, 0.5, (0.50, 0.15, 0.0, 0.20, 0.50), _effusion),
    "Infiltration": Kind(19_894, 0.3, (0.10, 0.35, 0.0, 0.0, 0.30), _infiltration),
    "Mass": Kind(5_782, 0.8, (0.0, 0.0, 0.10, 0.60, 0.15), _mass),
    "Nodule": Kind(6_331, 0.8, (0.0, 0.0, 0.10, 0.60, 0.0), _nodule),
    "Pneumonia": Kind(1_431, 0.3, (0.15, 0.60, 0.0, 0.0, 0.15), _pneumonia),
    "Pneumothorax": Kind(5_302, 0.5, (-0.10, 0.0, 0.55, 0.10, 0.15), _pneumothorax),
    "Consolidation": Kind(4_667, 0.4, (0.15, 0.40, 0.0, 0.15, 0.40), _consolidation),
    "Edema": Kind(2_303, 0.3, (0.60, 0.40, 0.0, 0.0, 0.10), _edema, both=True),
    "Emphysema": Kind(2_516, 0.9, (-0.10, 0.0, 0.70, 0.0, 0.10), _emphysema, both=True),
    "Fibrosis": Kind(1_686, 0.9, (0.0, 0.0, 0.35, 0.25, -0.10), _fibrosis, both=True),
    "Pleural_Thickening": Kind(3_385, 0.8, (0.0, 0.0, 0.25, 0.40, 0.25), _pleural_thickening),
    "Hernia": Kind(227, 0.95, (0.0, 0.0, 0.0, 0.0, 0.0), _hernia, both=True),
}
"""In the order of the data set's paper."""
NO_FINDING = "No Finding"
SEPARATOR = "|"
_CAUSES = 5
_SHARED_LASTS = 0.6  # share of the common causes that is the patient's


class ChestSettings(Record):
    """What patients of chest radiographs have: how many radiographs, how many findings."""

    renamed = {"films": "images"}
    images: float = Field(2.0, ge=1, le=20)
    """Mean radiographs a patient; most have one, some have many (NIH ChestX-ray14: 3.6)."""
    odds: float = Field(1.0, ge=0, le=20)
    """How many times the odds of each finding are those of NIH ChestX-ray14; above 1 rare ones are found in
    few radiographs."""


def prevalence(finding: str, odds: float) -> float:
    """Share of radiographs with a finding."""
    share = FINDINGS[finding].images / NIH_IMAGES
    return odds * share / (1 - share + odds * share)


def draw_findings(odds: float, patient: np.random.Generator, image: np.random.Generator) -> tuple[str, ...]:
    """The findings of one radiograph, in the table's order.

    Args:
        patient: makes the same numbers for all radiographs of a patient.
        image: makes this radiograph's own.
    """
    size = len(FINDINGS) + _CAUSES
    lasting, passing = patient.standard_normal(size), image.standard_normal(size)
    causes = (_SHARED_LASTS**0.5 * lasting + (1 - _SHARED_LASTS) ** 0.5 * passing)[:_CAUSES]
    lasts, loads, cuts = _table(odds)
    rest = lasts**0.5 * lasting[_CAUSES:] + (1 - lasts) ** 0.5 * passing[_CAUSES:]
    there = loads @ causes + rest * (1 - (loads**2).sum(1)) ** 0.5 > cuts
    return tuple(name for name, present in zip(FINDINGS, there, strict=True) if present)


@cache
def _table(odds: float) -> tuple[npt.NDArray[np.float64], ...]:
    """Of each finding: how much lasts (14,), what it shares (14, 5), the threshold of its number (14,)."""
    shares = np.array([prevalence(name, odds) for name in FINDINGS])
    lasts, loads = zip(*((kind.lasts, kind.loads) for kind in FINDINGS.values()), strict=True)
    return np.array(lasts), np.array(loads), ndtri(1 - shares)
