"""Decoded pixels, whatever reader they come from, to square arrays: scale intensities, resample once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from trabecula.readers.reader import Rejected

Fit = Literal["crop", "pad", "stretch"]
Intensity = Literal["percentile", "as-is"]
PERCENTILES = (0.5, 99.5)
VERSION = 2  # of the pixels that raster files give: part of the preprocessing hash


@dataclass(frozen=True)
class Rendering:
    """All that decides the pixels of a store, but for its files."""

    size: int
    channels: int
    bits: int
    fit: Fit
    intensity: Intensity


def render(
    pixels: npt.NDArray[Any], to: Rendering, mirror: bool = False
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Decoded pixels -> (C, size, size), uint8 or uint16.

    8-bit images keep their intensities. Deeper ones are clipped to their 0.5th and 99.5th
    percentile and stretched between them (`percentile`), or taken as 0..65535 (`as-is`). One
    antialiased (Lanczos) resampling: `crop` keeps the centre square, `pad` sets the image on a
    black square, `stretch` changes its proportions.

    Raises:
        Rejected: values beyond 16 bits under `as-is`.
    """
    full = (1 << to.bits) - 1
    planes = _planes(pixels, to.channels)
    eight = pixels.dtype == np.uint8 and to.bits == 8
    if not eight:
        planes = [plane.astype(np.float32) for plane in planes]
        low, high = _range(pixels, to.intensity)
        span = max(high - low, 1e-12)
        planes = [np.clip((plane - low) / span, 0, 1) * full for plane in planes]
    resized = np.stack([_resize(plane, to.size, to.fit) for plane in planes])
    if len(resized) < to.channels:
        resized = np.repeat(resized, to.channels, axis=0)
    if mirror:
        resized = resized[:, :, ::-1]
    if not eight:
        resized = np.rint(np.clip(resized, 0, full))
    return np.ascontiguousarray(resized.astype(np.uint8 if to.bits == 8 else np.uint16))


def _planes(pixels: npt.NDArray[Any], channels: int) -> list[npt.NDArray[Any]]:
    if pixels.ndim == 2:
        return [pixels]
    if channels == 3:
        return [pixels[:, :, i] for i in range(3)]
    return [np.asarray(Image.fromarray(pixels).convert("L"))]  # Rec. 601 luma


def _range(pixels: npt.NDArray[Any], intensity: Intensity) -> tuple[float, float]:
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    if intensity == "percentile":
        low, high = np.percentile(pixels, PERCENTILES)
        return float(low), float(high)
    if pixels.dtype != np.uint16:
        raise Rejected("values beyond 16 bits; prepare with intensity percentile")
    return 0.0, 65535.0


def _resize(plane: npt.NDArray[Any], size: int, fit: Fit) -> npt.NDArray[Any]:
    height, width = plane.shape
    image = Image.fromarray(plane)
    lanczos = Image.Resampling.LANCZOS
    if fit == "stretch":
        return np.asarray(image.resize((size, size), lanczos))
    if fit == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        return np.asarray(image.resize((size, size), lanczos, box=(left, top, left + side, top + side)))
    scale = size / max(height, width)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.zeros((size, size), dtype=plane.dtype)
    top, left = (size - inner[1]) // 2, (size - inner[0]) // 2
    square[top : top + inner[1], left : left + inner[0]] = np.asarray(image.resize(inner, lanczos))
    return square
