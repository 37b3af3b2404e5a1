"""Phantom patients, and how a radiograph of one of their joints is taken, whatever the joint.

Anatomy, pose, radiograph and marker come from other random streams than grade and signs. A left joint is
drawn; a right one is its mirror image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator
from scipy.special import ndtri

from trabecula.errors import InputError
from trabecula.phantoms.curves import Floats
from trabecula.phantoms.radiograph import MOST_PATIENTS, SITES, Exposure, Pictures, develop, expose, stamp

Rng = np.random.Generator
Side = Literal["L", "R"]
Anatomy = TypeVar("Anatomy")
Signs = TypeVar("Signs")

_GRADES, _PATIENT, _ANATOMY, _SIGNS, _EXPOSURE = range(5)  # random streams
_LATENT_CORRELATION = 0.56  # of the two joints' hidden severities; gives their grades an ICC near 0.5
SCLEROSIS = (0.0, 0.0, 0.12, 0.5, 1.0)  # by grade
DEFORMITY = (0.0, 0.0, 0.0, 0.35, 1.0)


def _distribution(shares: tuple[float, ...]) -> tuple[float, ...]:
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError("must be five shares that sum to 1")
    return shares


Shares = Annotated[tuple[float, float, float, float, float], AfterValidator(_distribution)]
"""A distribution over the five grades."""


class Joints(Pictures):
    """What phantom joints are like."""

    prevalence: Shares = (0.40, 0.18, 0.26, 0.13, 0.03)
    """Share of joints with Kellgren-Lawrence grade 0 to 4, about that of the OAI's knees at baseline."""


@dataclass(frozen=True)
class Patient:
    """A patient's row; nothing but `grades` depends on the disease."""

    patient_id: str
    sex: str
    age: int
    site: str
    grades: dict[str, int]  # of joints, by side
    num_images: int = 2


@dataclass(frozen=True)
class Radiograph:
    """One radiograph (S, S) and its Kellgren-Lawrence grade 0..4."""

    image: npt.NDArray[np.uint8]
    grade: int


def patient_id(patient: int) -> str:
    """Seven digits that start with 1, so that none can be taken for an OAI id.

    Raises:
        InputError: the number has no seven-digit id.
    """
    if not 0 <= patient < MOST_PATIENTS:
        raise InputError(f"patient {patient}: phantoms have patients 0 to {MOST_PATIENTS - 1}")
    return f"{1_000_001 + patient}"


def draw_row(women: float, age: tuple[float, float], ages: tuple[int, int], rng: Rng) -> tuple[str, int, str]:
    """A patient's sex ("F" in this share), age (of this mean and spread, in these bounds) and site."""
    sex = "F" if rng.random() < women else "M"
    years = int(np.clip(np.rint(rng.normal(*age)), *ages))
    return sex, years, SITES[int(rng.integers(len(SITES)))]


def draw_patient(settings: Joints, patient: int) -> Patient:
    """The table's row of patient 0, 1, ...; a function of (seed, patient) only.

    Raises:
        InputError: the number has no seven-digit id.
    """
    name = patient_id(patient)
    hidden = stream(settings.seed, patient, _GRADES).standard_normal(3)
    severities = _LATENT_CORRELATION**0.5 * hidden[0] + (1 - _LATENT_CORRELATION) ** 0.5 * hidden[1:]
    cuts = ndtri(np.clip(np.cumsum(settings.prevalence)[:-1], 0, 1))
    grades = dict(zip("LR", np.searchsorted(cuts, severities, side="right").tolist(), strict=True))
    row = draw_row(0.58, (61, 9), (45, 79), stream(settings.seed, patient, _PATIENT))
    return Patient(name, *row, grades)


def take_radiograph(
    settings: Joints,
    patient: int,
    side: Side,
    draw_anatomy: Callable[[Rng, Rng, bool], Anatomy],
    draw_signs: Callable[[Rng, int, float], Signs],
    render: Callable[[Anatomy, Signs, int, Rng], Floats],
) -> Radiograph:
    """Expose one joint; a function of the settings, the patient's number and the side only.

    Args:
        draw_anatomy: from the patient's random numbers, the joint's own, and whether the patient is male.
        draw_signs: from their random numbers, the grade and the effect.
        render: draws a left joint (size, size), its fine structure from the generator.
    """
    seed, person, which = settings.seed, draw_patient(settings, patient), "LR".index(side)
    shared, own = stream(seed, patient, _ANATOMY), stream(seed, patient, _ANATOMY, 1 + which)
    anatomy = draw_anatomy(shared, own, person.sex == "M")
    signs = draw_signs(stream(seed, patient, _SIGNS, which), person.grades[side], settings.effect)
    rng = stream(seed, patient, _EXPOSURE, which)
    exposure = Exposure(settings, person.site, rng)
    picture = expose(render(anatomy, signs, 2 * settings.size, rng), exposure, rng)
    if side == "R":
        picture = np.ascontiguousarray(picture[:, ::-1])
    if rng.random() < settings.marker:
        stamp(picture, side, rng)
    return Radiograph(develop(picture, exposure), person.grades[side])


def alike(patient: Rng, joint: Rng) -> Callable[[float, float], float]:
    """Draws numbers of a mean and a spread that resemble each other in the two joints of a patient."""

    def both(mean: float, sd: float) -> float:
        return mean + sd * (0.8 * patient.standard_normal() + 0.6 * joint.standard_normal())

    return both


def osteophytes(
    longest: float, grade: int, effect: float, sites: npt.NDArray[np.integer], spread: Floats
) -> list[float]:
    """Their lengths at four sites: as many as the grade, on the first sites; `spread` (4,) varies them."""
    lengths = np.zeros(4)
    lengths[sites[:grade]] = longest * np.clip(1 + 0.3 * spread, 0.4, 1.7)[:grade]
    return [float(length) for length in lengths * effect]


def varied(usual: float, number: float) -> float:
    """The size of a sign: 0.3 of the usual one more by a standard normal number."""
    return usual * float(np.clip(1 + 0.3 * number, 0, 2))


def stream(seed: int, *key: int) -> Rng:
    """Random numbers that are a function of the seed and the key only."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, *key))))
