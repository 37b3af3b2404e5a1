"""Which findings a make-believe chest film has: as common, and as often together, as in a hospital.

Prevalences are those of NIH ChestX-ray14 (Wang et al. 2017, arXiv 1705.02315: images with a finding
among 112,120). A finding is there where a hidden number passes a threshold. What findings have in
common (fluid, infection, chronic lung disease, tumour, general illness) makes the numbers of one film
alike; what lasts makes those of a patient's films alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.special import ndtri

from trabecula.config import Record

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """How common a finding is, how much of it lasts from film to film, and what it shares with others."""

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
_MOST_FILMS = 30


class Films(Record):
    """What patients of chest films have: how many films, how many findings."""

    films: float = Field(2.0, ge=1, le=20)
    """Mean films a patient; most have one, some have many (NIH ChestX-ray14: 3.6)."""
    odds: float = Field(1.0, ge=0, le=20)
    """How many times the odds of each finding are those of NIH ChestX-ray14; above 1 rare ones are found in
    few films."""


def prevalence(finding: str, odds: float) -> float:
    """Share of films with a finding."""
    share = FINDINGS[finding].images / NIH_IMAGES
    return odds * share / (1 - share + odds * share)


def draw_findings(own: Films, patient: np.random.Generator, film: np.random.Generator) -> tuple[str, ...]:
    """The findings of one film, in the table's order.

    Args:
        patient: makes the same numbers for all films of a patient.
        film: makes this film's own.
    """
    size = len(FINDINGS) + _CAUSES
    lasting, passing = patient.standard_normal(size), film.standard_normal(size)
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


def draw_number(own: Films, rng: np.random.Generator) -> int:
    """How many films a patient has: geometric."""
    return min(int(rng.geometric(1 / own.films)), _MOST_FILMS)
