"""Decoded samples -> pixels, for the formats that say the same things in their own ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trabecula.readers.reader import Rejected

Samples = npt.NDArray[Any]


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Reject an image by what its header says, before anything is decoded."""
    if width < 1 or height < 1:
        raise Rejected(f"damaged file: its header says {width} x {height} pixels")
    if width * height > max_pixels:
        raise Rejected(f"{width} x {height} pixels, more than the limit of {max_pixels:,}")


def check_page(page: int | None, pages: int) -> None:
    """Reject a page that is not there, and a file of several images of which none is named."""
    if page is not None and page > pages:
        raise Rejected(f"has no page {page}, only {pages}")
    if page is None and pages > 1:
        raise Rejected(f"holds {pages} images, one is needed; say which in the column 'page'")


def flatten(samples: Samples) -> Samples:
    """Grey (H, W), grey and alpha (H, W, 2), RGB or RGBA; uint8 or uint16 -> (H, W) or (H, W, 3).

    Transparency is put on black. Deep grey stays uint16; deep colour is read with its upper 8 bits.
    """
    if samples.ndim == 3 and samples.shape[2] in (2, 4):
        samples = on_black(samples[..., :-1], samples[..., -1])
    if samples.ndim == 3 and samples.shape[2] == 1:
        samples = samples[..., 0]
    if samples.ndim == 3 and samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
    return samples


def on_black(colours: Samples, alpha: Samples) -> Samples:
    """(H, W, C) and (H, W), uint8 or uint16: the colours times alpha, rounded."""
    full = int(np.iinfo(colours.dtype).max)
    if alpha.min() == full:
        return colours
    product: Samples = colours.astype(np.uint16 if full == 255 else np.uint32)  # holds full * full + half
    product *= alpha[..., None]
    product += full // 2
    product //= full
    return product.astype(colours.dtype)


def orient(pixels: Samples, orientation: int) -> Samples:
    """Turn and mirror an image (H, W, ...) as its tag Orientation says; a value outside 1..8 says nothing.

    EXIF 2.32, 4.6.4; TIFF 6.0, section 8.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
