"""What every make-believe bone shares: rim and body, trabeculae, slow uneven density."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from trabecula.phantoms.shapes import AXIS, Curve, Floats, bump, edge


def profile(body: float, cortex: float, depth: float) -> Curve:
    """What a ray meets at a distance inside a bone's outline: cancellous body and bright cortical rim."""
    inside = edge(AXIS, 0.006, 0.008)
    shell = cortex * (bump(AXIS, 0.015, 0.016) + 0.35 * np.exp(-np.maximum(AXIS, 0) / 0.05))
    return Curve(inside * (body * (1 - 0.75 * np.exp(-np.maximum(AXIS, 0) / depth)) + shell))


def structure(texture: tuple[float, float, float], size: int, rng: np.random.Generator) -> Floats:
    """Trabeculae: fine upright streaks and fainter level ones; mean 0, spread about the strength.

    `texture`: strength, fineness, verticality.
    """
    strength, fineness, upright = texture
    unit = size / 2 * 0.0058 * fineness
    streaks = np.zeros((size, size), np.float32)
    for weight, sigma in ((1.0, (3.2 * upright * unit, 0.8 * unit)), (0.5, (0.8 * unit, 2.2 * unit))):
        grain = rng.standard_normal((size, size), dtype=np.float32)
        for axis in (0, 1):
            grain = gaussian_filter1d(grain, sigma[axis], axis=axis, truncate=2.5)
        streaks += (weight / grain.std()) * grain
    return strength * 0.4 * streaks


def clouds(size: int, knots: int, rng: np.random.Generator) -> Floats:
    """Slow uneven density: a coarse random grid, smoothly interpolated; spread about 1."""
    places = np.linspace(0, knots - 1, size, dtype=np.float32)
    weights = np.exp(-((places[:, None] - np.arange(knots, dtype=np.float32)) ** 2))
    grid = rng.standard_normal((knots, knots), dtype=np.float32)
    clouds: Floats = weights @ grid @ weights.T
    return clouds
