"""Make-believe frontal knee radiographs with a Kellgren-Lawrence grade whose signs are drawn.

Grades: Kellgren & Lawrence, Ann Rheum Dis 1957;16:494, table of the knee: 0 none, 1 doubtful,
2 minimal (definite osteophytes), 3 moderate (definite narrowing, some sclerosis), 4 severe (marked
narrowing, severe sclerosis, definite deformity).

Coordinates: u towards the fibula (lateral), v downwards, both in half image widths, the origin
between the condyles on the joint line. A left knee is drawn; a right one is its mirror image.
Anatomy, pose, film and marker come from other random streams than grade and signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy.special import ndtri

from trabecula.config import Record
from trabecula.errors import InputError
from trabecula.phantoms.film import develop, draw_film, expose, stamp
from trabecula.phantoms.knee_anatomy import draw_anatomy, draw_signs
from trabecula.phantoms.knee_render import render

Side = Literal["L", "R"]

SITES = ("A", "B", "C")
_GRADES, _PATIENT, _ANATOMY, _SIGNS, _FILM = range(5)  # random streams
_LATENT_CORRELATION = 0.56  # of the two knees' hidden severities; gives their grades an ICC near 0.5
MOST_PATIENTS = 999_999


class Knees(Record):
    """What the make-believe knees are like."""

    num_patients: int = Field(200, ge=1, le=MOST_PATIENTS)
    """Patients with both knees graded."""
    size: int = Field(128, ge=32, le=1024)
    """Side of the square image in pixels."""
    seed: int = Field(0, ge=0)
    """Another seed is another hospital."""
    prevalence: tuple[float, float, float, float, float] = (0.40, 0.18, 0.26, 0.13, 0.03)
    """Share of knees with Kellgren-Lawrence grade 0 to 4, about that of the OAI's baseline visit."""
    effect: float = Field(1.0, ge=0, le=2)
    """Size of the drawn signs; 0 draws none, so that the grade is pure chance."""
    noise: float = Field(1.0, ge=0, le=5)
    """Strength of the film's noise; 1 is usual, 0 is none."""
    blur: float = Field(1.0, ge=0, le=5)
    """Strength of the film's blur; 1 is usual, 0 is none."""
    marker: float = Field(0.5, ge=0, le=1)
    """Share of films with a letter L or R on them."""

    @model_validator(mode="after")
    def _prevalence_is_a_distribution(self) -> Self:
        if min(self.prevalence) < 0 or abs(sum(self.prevalence) - 1) > 1e-6:
            raise ValueError(f"prevalence must be five shares that sum to 1, not {self.prevalence}")
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
class Knee:
    """One film (S, S) and its Kellgren-Lawrence grade 0..4."""

    image: npt.NDArray[np.uint8]
    grade: int


def draw_patient(settings: Knees, patient: int) -> Patient:
    """The table's row of patient 0, 1, ...; a function of (seed, patient) only.

    Raises:
        InputError: the number has no seven-digit id.
    """
    if not 0 <= patient < MOST_PATIENTS:
        raise InputError(f"patient {patient}: phantoms have patients 0 to {MOST_PATIENTS - 1}")
    hidden = _stream(settings, patient, _GRADES).standard_normal(3)
    severities = _LATENT_CORRELATION**0.5 * hidden[0] + (1 - _LATENT_CORRELATION) ** 0.5 * hidden[1:]
    cuts = ndtri(np.clip(np.cumsum(settings.prevalence)[:-1], 0, 1))
    grades = np.searchsorted(cuts, severities, side="right")
    rng = _stream(settings, patient, _PATIENT)
    return Patient(
        patient_id=f"{1_000_001 + patient}",
        grades={"L": int(grades[0]), "R": int(grades[1])},
        sex="F" if rng.random() < 0.58 else "M",
        age=int(np.clip(np.rint(rng.normal(61, 9)), 45, 79)),
        site=SITES[int(rng.integers(len(SITES)))],
    )


def draw_knee(settings: Knees, patient: int, side: Side) -> Knee:
    """Draw one knee; a function of the settings, the patient's number and the side only."""
    person = draw_patient(settings, patient)
    grade = person.grades[side]
    which = "LR".index(side)
    anatomy = draw_anatomy(
        _stream(settings, patient, _ANATOMY),
        _stream(settings, patient, _ANATOMY, 1 + which),
        male=person.sex == "M",
    )
    signs = draw_signs(_stream(settings, patient, _SIGNS, which), grade, settings.effect)
    rng = _stream(settings, patient, _FILM, which)
    film = draw_film(rng, SITES.index(person.site), settings.noise, settings.blur)
    picture = expose(render(anatomy, signs, 2 * settings.size, rng), film, rng)
    if side == "R":
        picture = np.ascontiguousarray(picture[:, ::-1])
    if rng.random() < settings.marker:
        stamp(picture, side, rng)
    return Knee(develop(picture, film), grade)


def _stream(settings: Knees, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((settings.seed, *key))))
