"""From what a ray passes through to a radiograph: blur, quantum noise, local contrast, exposure, marker.

Everything here is drawn independently of the disease. The last step ranks the pixels and gives
them grey values of a random curve, so the histogram of a radiograph says nothing about the disease.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.special import expit, ndtri

from trabecula.config import Record
from trabecula.phantoms.curves import Floats

MOST_PATIENTS = 999_999
_HABITS = {"A": 0.0, "B": 0.25, "C": -0.25}  # of equalisation and grey values
SITES = tuple(_HABITS)
_GLYPHS = {
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
}


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


class Exposure:
    """How one radiograph was taken, drawn: around the habits of its site.

    Lengths are in half image widths; `noise` and the others are relative to the picture's spread.
    """

    def __init__(self, settings: Pictures, site: str, rng: np.random.Generator) -> None:
        habit = _HABITS[site]
        self.blur = settings.blur * rng.uniform(0.004, 0.016)
        self.noise = settings.noise * rng.uniform(0.02, 0.10)
        # 0 none .. 1 full local contrast equalisation
        self.equalisation = float(np.clip(rng.normal(0.62 + habit, 0.18), 0.15, 1.0))
        self.reach = rng.uniform(0.35, 0.7)  # size of the neighbourhood that is equalised
        self.centre = settings.brightness + rng.normal(0.15 + habit, 0.4)
        self.contrast = rng.uniform(0.65, 1.15)
        self.skew = rng.uniform(-0.35, 0.15)


def halved(picture: Floats) -> Floats:
    """The means of 2 x 2 pixels; (2S, 2S, ...) -> (S, S, ...)."""
    size = len(picture) // 2
    return np.asarray(picture.reshape(size, 2, size, 2, *picture.shape[2:]).mean(axis=(1, 3)))


def expose(attenuation: Floats, exposure: Exposure, rng: np.random.Generator) -> Floats:
    """Attenuation (2S, 2S) -> radiograph (S, S), not yet in grey values; thicker is brighter."""
    picture = halved(attenuation)
    size = len(picture)
    sigma = exposure.blur * size / 2
    if sigma > 0.2:
        picture = gaussian_filter(picture, sigma, truncate=3)
    grain = rng.standard_normal(picture.shape, dtype=np.float32)
    picture = picture + exposure.noise * picture.std() * (1.25 - 0.5 * picture / picture.max()) * grain
    width = max(3, int(exposure.reach * size / 2))
    detail = picture - _smooth(picture, width)
    spread = np.sqrt(_smooth(detail * detail, width)) + 0.25 * detail.std()
    whole = (1 - 0.8 * exposure.equalisation) * (picture - picture.mean()) / picture.std()
    return np.asarray(exposure.equalisation * detail / spread + whole, np.float32)


def _smooth(picture: Floats, width: int) -> Floats:
    """Two box filters: close to a Gaussian, and their cost does not grow with the width."""
    once = uniform_filter(picture, width, mode="nearest")
    return np.asarray(uniform_filter(once, width, mode="nearest"))


def stamp(picture: Floats, side: str, rng: np.random.Generator, mirrored: bool = False) -> None:
    """Put a lead letter on a radiograph (S, S), in place, in an upper or lower corner.

    `mirrored`: on the letter's own side, as the patient faces us, so that R is at the image's left.
    """
    size = len(picture)
    zoom = max(1, round(size * rng.uniform(0.010, 0.018)))
    glyph = np.kron([[int(dot) for dot in row] for row in _GLYPHS[side]], np.ones((zoom, zoom))) > 0
    height, width = glyph.shape
    margin = max(1, size // 50)
    left = int(margin + rng.integers(0, max(1, size // 16)))
    top = int(margin + rng.integers(0, max(1, size // 5)))
    if rng.random() < 0.5 if not mirrored else side == "L":
        left = size - width - left
    if rng.random() < 0.4:
        top = size - height - top
    picture[top : top + height, left : left + width][glyph] = picture.max() + 0.1


def develop(picture: Floats, exposure: Exposure) -> npt.NDArray[np.uint8]:
    """Give a radiograph (S, S) its grey values: pixel ranks through the curve of its exposure.

    The grey-value histogram is a function of the exposure alone.
    """
    bent = np.expm1(exposure.skew * _normal_quantiles(picture.size)) / exposure.skew
    greys = np.round(255 * expit(exposure.centre + exposure.contrast * bent))
    image = np.empty(picture.size, np.uint8)
    image[np.argsort(picture, axis=None, kind="stable")] = greys.astype(np.uint8)
    return image.reshape(picture.shape)


@lru_cache(maxsize=4)
def _normal_quantiles(count: int) -> Floats:
    return np.asarray(ndtri((np.arange(count) + 0.5) / count), np.float32)
