"""Raster images (PNG, JPEG, TIFF, BMP) to square arrays: decode, scale intensities, resample once.

A file that cannot be read, or that is not one plain image, is `Rejected` with a reason; what is
wrong with the machine (a lost network drive, no memory for handles) stays an error.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Fit = Literal["crop", "pad", "stretch"]
Intensity = Literal["percentile", "as-is"]
PERCENTILES = (0.5, 99.5)
VERSION = 1  # of the pixels this file makes: part of the preprocessing hash
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_THE_FILES_FAULT = {errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.EINVAL}


class Rejected(Exception):  # noqa: N818 - a verdict on one file, not an error of the program
    """One file is not usable; the message is the reason."""


def decode(path: Path, max_pixels: int) -> npt.NDArray[Any]:
    """Read one image: (H, W) or (H, W, 3), uint8, uint16, or float32 for deeper files.

    EXIF orientation is applied, palettes are resolved, transparency is laid on black.

    Raises:
        Rejected: with the reason.
    """
    try:
        with warnings.catch_warnings(), _no_limit():
            warnings.simplefilter("ignore")  # PIL warns of odd metadata that does not touch the pixels
            return _decode(path, max_pixels)
    except Rejected:
        raise
    except OSError as error:
        if error.errno is not None and error.errno not in _THE_FILES_FAULT:
            raise
        raise Rejected(_reason(error)) from None
    except Exception as error:  # a decoder fed with noise raises anything
        raise Rejected(f"damaged file: {_reason(error)}") from None


@contextmanager
def _no_limit() -> Iterator[None]:
    """PIL's own limit off: ours is checked on the header, before any pixel is decoded."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _reason(error: Exception) -> str:
    """What went wrong, without the machine's paths."""
    if isinstance(error, OSError) and error.errno is not None:
        return {errno.ENOENT: "no such file", errno.EISDIR: "is a folder"}.get(
            error.errno, error.strerror or "cannot be read"
        )
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a readable PNG, JPEG, TIFF or BMP image"
    return " ".join(str(error).split())[:120] or type(error).__name__


def _decode(path: Path, max_pixels: int) -> npt.NDArray[Any]:
    with path.open("rb") as file:
        head = file.read(132)
        if head[128:] == b"DICM" or path.suffix.lower() == ".dcm":
            raise Rejected("a DICOM file; export it as PNG or TIFF")
        if not head:
            raise Rejected("an empty file")
        file.seek(0)
        with Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise Rejected(
                    f"{image.width} x {image.height} pixels, more than the limit of {max_pixels:,}"
                )
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format not in ("JPEG", "MPO"):  # phones store a preview in a JPEG
                raise Rejected(f"holds {frames} images, one is needed")
            return _pixels(ImageOps.exif_transpose(image))


def _pixels(image: Image.Image) -> npt.NDArray[Any]:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        deep = np.asarray(image)
        if image.mode == "I" and deep.min() >= 0 and deep.max() <= 65535:
            return deep.astype(np.uint16)
        if not np.isfinite(deep).all():
            raise Rejected("holds values that are no numbers")
        return deep.astype(np.float32)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        flat = Image.new("RGB", image.size)
        flat.paste(image, mask=image.getchannel("A"))
        image = flat
    return np.asarray(image.convert("RGB"))


def render(
    pixels: npt.NDArray[Any],
    size: int,
    channels: int,
    bits: int,
    fit: Fit,
    intensity: Intensity,
    mirror: bool,
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Decoded pixels -> (C, size, size), uint8 or uint16.

    8-bit images keep their intensities. Deeper ones are clipped to their 0.5th and 99.5th
    percentile and stretched between them (`percentile`), or taken as 0..65535 (`as-is`). One
    antialiased (Lanczos) resampling: `crop` keeps the centre square, `pad` sets the image on a
    black square, `stretch` changes its proportions.

    Raises:
        Rejected: values beyond 16 bits under `as-is`.
    """
    full = (1 << bits) - 1
    planes = _planes(pixels, channels)
    eight = pixels.dtype == np.uint8 and bits == 8
    if not eight:
        planes = [plane.astype(np.float32) for plane in planes]
        low, high = _range(pixels, intensity)
        span = max(high - low, 1e-12)
        planes = [np.clip((plane - low) / span, 0, 1) * full for plane in planes]
    resized = np.stack([_resize(plane, size, fit) for plane in planes])
    if len(resized) < channels:
        resized = np.repeat(resized, channels, axis=0)
    if mirror:
        resized = resized[:, :, ::-1]
    if not eight:
        resized = np.rint(np.clip(resized, 0, full))
    return np.ascontiguousarray(resized.astype(np.uint8 if bits == 8 else np.uint16))


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
