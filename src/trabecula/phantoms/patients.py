"""Phantom patients, and how a radiograph of one of their joints is taken, whatever the joint.

Anatomy, pose, radiograph and marker come from other random streams than grade and signs. A left joint is
drawn; a right one is its mirror image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy.special import ndtri

from trabecula.config import Record
from trabecula.errors import InputError
from trabecula.phantoms.radiograph import develop, draw_exposure, expose, stamp
from trabecula.phantoms.shapes import Floats

Side = Literal["L", "R"]
Shares = tuple[float, float, float, float, float]

SITES = ("A", "B", "C")
_GRADES, _PATIENT, _ANATOMY, _SIGNS, _EXPOSURE = range(5)  # random streams
_LATENT_CORRELATION = 0.56  # of the two joints' hidden severities; gives their grades an ICC near 0.5
MOST_PATIENTS = 999_999


def check_shares(prevalence: Shares) -> None:
    """Refuse what is no distribution over five grades."""
    if min(prevalence) < 0 or abs(sum(prevalence) - 1) > 1e-6:
        raise ValueError(f"prevalence must be five shares that sum to 1, not {prevalence}")


class Pictures(Record):
    """What phantom radiographs are like."""

    num_patients: int = Field(200, ge=1, le=MOST_PATIENTS)
    """Patients whose radiographs are labelled (joints: both of them)."""
    size: int = Field(128, ge=32, le=1024)
    """Side of the square image in pixels."""
    seed: int = Field(0, ge=0)
    """Another seed is another hospital."""
    effect: float = Field(1.0, ge=0, le=2)
    """Size of the drawn signs; 0 draws none, so that grade or findings are pure chance."""
    noise: float = Field(1.0, ge=0, le=5)
    """Strength of the radiograph's noise; 1 is usual, 0 is none."""
    blur: float = Field(1.0, ge=0, le=5)
    """Strength of the radiograph's blur; 1 is usual, 0 is none."""
    brightness: float = Field(0.0, ge=-3, le=3)
    """How much brighter radiographs are than usual, in logits of the middle grey value."""
    marker: float = Field(0.5, ge=0, le=1)
    """Share of radiographs with a letter L or R on them."""


class Joints(Pictures):
    """What phantom joints are like."""

    prevalence: Shares = (0.40, 0.18, 0.26, 0.13, 0.03)
    """Share of joints with Kellgren-Lawrence grade 0 to 4, about that of the OAI's knees at baseline."""

    @model_validator(mode="after")
    def _prevalence_is_a_distribution(self) -> Self:
        check_shares(self.prevalence)
        return self


@dataclass(frozen=True)
class Patient:
    """A patient's row; nothing but `grades` depends on the disease."""

    patient_id: str
    grades: dict[str, int]  # by side
    sex: str
    age: int
    site: str


@dataclass(frozen=True)
class Radiograph:
    """One radiograph (S, S) and its Kellgren-Lawrence grade 0..4."""

    image: npt.NDArray[np.uint8]
    grade: int


@dataclass(frozen=True)
class Joint:
    """What a joint is drawn from: its patient's random numbers, its own, and those of its signs."""

    shared: np.random.Generator
    own: np.random.Generator
    signs: np.random.Generator
    grade: int
    effect: float
    male: bool


def check_number(patient: int) -> None:
    """Refuse a patient whose number has no seven-digit id."""
    if not 0 <= patient < MOST_PATIENTS:
        raise InputError(f"patient {patient}: phantoms have patients 0 to {MOST_PATIENTS - 1}")


def patient_id(patient: int) -> str:
    """Seven digits that start with 1, so that none can be taken for an OAI id."""
    return f"{1_000_001 + patient}"


def draw_patient(settings: Joints, patient: int) -> Patient:
    """The table's row of patient 0, 1, ...; a function of (seed, patient) only.

    Raises:
        InputError: the number has no seven-digit id.
    """
    check_number(patient)
    hidden = _stream(settings, patient, _GRADES).standard_normal(3)
    severities = _LATENT_CORRELATION**0.5 * hidden[0] + (1 - _LATENT_CORRELATION) ** 0.5 * hidden[1:]
    cuts = ndtri(np.clip(np.cumsum(settings.prevalence)[:-1], 0, 1))
    grades = np.searchsorted(cuts, severities, side="right")
    rng = _stream(settings, patient, _PATIENT)
    return Patient(
        patient_id=patient_id(patient),
        grades={"L": int(grades[0]), "R": int(grades[1])},
        sex="F" if rng.random() < 0.58 else "M",
        age=int(np.clip(np.rint(rng.normal(61, 9)), 45, 79)),
        site=SITES[int(rng.integers(len(SITES)))],
    )


def take_radiograph(
    settings: Joints,
    patient: int,
    side: Side,
    attenuation: Callable[[Joint, int, np.random.Generator], Floats],
) -> Radiograph:
    """Exposure one joint; a function of the settings, the patient's number and the side only.

    Args:
        attenuation: draws a left joint (size, size), its fine structure from the generator.
    """
    person = draw_patient(settings, patient)
    which = "LR".index(side)
    joint = Joint(
        shared=_stream(settings, patient, _ANATOMY),
        own=_stream(settings, patient, _ANATOMY, 1 + which),
        signs=_stream(settings, patient, _SIGNS, which),
        grade=person.grades[side],
        effect=settings.effect,
        male=person.sex == "M",
    )
    rng = _stream(settings, patient, _EXPOSURE, which)
    exposure = draw_exposure(
        rng, SITES.index(person.site), settings.noise, settings.blur, settings.brightness
    )
    picture = expose(attenuation(joint, 2 * settings.size, rng), exposure, rng)
    if side == "R":
        picture = np.ascontiguousarray(picture[:, ::-1])
    if rng.random() < settings.marker:
        stamp(picture, side, rng)
    return Radiograph(develop(picture, exposure), joint.grade)


def _stream(settings: Joints, *key: int) -> np.random.Generator:
    return stream(settings.seed, *key)


def stream(seed: int, *key: int) -> np.random.Generator:
    """Random numbers that are a function of the seed and the key only."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, *key))))
