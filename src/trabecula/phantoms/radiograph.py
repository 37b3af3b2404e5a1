"""From what a ray passes through to a radiograph: blur, quantum noise, local contrast, exposure, marker.

Everything here is drawn independently of the disease. The last step ranks the pixels and gives
them grey values of a random curve, so the histogram of a radiograph says nothing about the disease.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.special import expit, ndtri

Floats = npt.NDArray[np.float32]

_GLYPHS = {
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
}


@dataclass(frozen=True)
class Exposure:
    """How one radiograph was taken.

    Lengths are in half image widths; `noise` and the others are relative to the picture's spread.
    """

    blur: float
    noise: float
    equalisation: float  # 0 none .. 1 full local contrast equalisation
    reach: float  # size of the neighbourhood that is equalised
    centre: float
    contrast: float
    skew: float


def draw_exposure(
    rng: np.random.Generator, site: int, noise: float, blur: float, brightness: float = 0.0
) -> Exposure:
    """Draw the exposure of one radiograph; `noise` and `blur` scale their usual strength (1), 0 is none.

    `brightness` moves the middle grey value, in logits.
    A site has habits (its equalisation and contrast), around which its radiographs vary.
    """
    habit = (0.0, 0.25, -0.25)[site % 3]
    return Exposure(
        blur=blur * float(rng.uniform(0.004, 0.016)),
        noise=noise * float(rng.uniform(0.02, 0.10)),
        equalisation=float(np.clip(rng.normal(0.62 + habit, 0.18), 0.15, 1.0)),
        reach=float(rng.uniform(0.35, 0.7)),
        centre=brightness + float(rng.normal(0.15 + habit, 0.4)),
        contrast=float(rng.uniform(0.65, 1.15)),
        skew=float(rng.uniform(-0.35, 0.15)),
    )


def expose(attenuation: Floats, exposure: Exposure, rng: np.random.Generator) -> Floats:
    """Attenuation (2S, 2S) -> radiograph (S, S), not yet in grey values; thicker is brighter."""
    size = attenuation.shape[0] // 2
    picture = attenuation.reshape(size, 2, size, 2).mean(axis=(1, 3))
    sigma = exposure.blur * size / 2
    if sigma > 0.2:
        picture = gaussian_filter(picture, sigma, truncate=3)
    grain = rng.standard_normal(picture.shape, dtype=np.float32)
    picture = picture + exposure.noise * picture.std() * (1.25 - 0.5 * picture / picture.max()) * grain
    width = max(3, int(exposure.reach * size / 2))
    mean = _smooth(picture, width)
    detail = picture - mean
    spread = np.sqrt(_smooth(detail * detail, width)) + 0.25 * detail.std()
    equalised: Floats = (
        exposure.equalisation * detail / spread
        + (1 - 0.8 * exposure.equalisation) * (picture - picture.mean()) / picture.std()
    ).astype(np.float32)
    return equalised


def _smooth(picture: Floats, width: int) -> Floats:
    """Two box filters: close to a Gaussian, and their cost does not grow with the width."""
    once = uniform_filter(picture, width, mode="nearest")
    smooth: Floats = uniform_filter(once, width, mode="nearest")
    return smooth


def stamp(picture: Floats, side: str, rng: np.random.Generator, mirrored: bool = False) -> None:
    """Put a lead letter on a radiograph (S, S), in place, in an upper or lower corner.

    `mirrored`: on the letter's own side, as the patient faces us, so that R is at the image's left.
    """
    size = picture.shape[0]
    zoom = max(1, round(size * float(rng.uniform(0.010, 0.018))))
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
    order = np.argsort(picture, axis=None, kind="stable")
    normal = _normal_quantiles(picture.size)
    bent = np.expm1(exposure.skew * normal) / exposure.skew
    greys = np.round(255 * expit(exposure.centre + exposure.contrast * bent)).astype(np.uint8)
    image = np.empty(picture.size, np.uint8)
    image[order] = greys
    return image.reshape(picture.shape)


@lru_cache(maxsize=4)
def _normal_quantiles(count: int) -> Floats:
    quantiles: Floats = ndtri((np.arange(count) + 0.5) / count).astype(np.float32)
    return quantiles
