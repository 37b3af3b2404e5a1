"""Raster images: PNG, JPEG, TIFF, BMP.

A file that cannot be read, or that is not one plain image, is `Rejected` with a reason; what is
wrong with the machine (a lost network drive, no memory for handles) stays an error.
"""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from trabecula.readers.reader import Reader, Rejected, Source, crop

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_THE_FILES_FAULT = {errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.EINVAL}


class Raster(Reader):
    """Settings of the reader of PNG, JPEG, TIFF and BMP files."""

    max_pixels: int = Field(100_000_000, ge=1)
    """Larger images are rejected by their header, before they fill the memory."""

    def read(self, source: Source) -> npt.NDArray[Any]:
        """(H, W) or (H, W, 3), uint8, uint16, or float32 for deeper files.

        EXIF orientation is applied before the box; palettes are resolved, transparency is put on black.

        Raises:
            Rejected: with the reason.
        """
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours is checked on the header
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PIL warns of odd metadata that does not touch the pixels
                return crop(_decode(source.path, source.page, self.max_pixels), source.box)
        except Rejected:
            raise
        except OSError as error:
            if error.errno is not None and error.errno not in _THE_FILES_FAULT:
                raise
            raise Rejected(_reason(error)) from None
        except Exception as error:  # a decoder fed with noise raises anything
            raise Rejected(f"damaged file: {_reason(error)}") from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _reason(error: Exception) -> str:
    """What went wrong, without the machine's paths."""
    if isinstance(error, OSError) and error.errno is not None:
        known = {errno.ENOENT: "no such file", errno.EISDIR: "is a folder"}
        return known.get(error.errno, error.strerror or "cannot be read")
    if isinstance(error, UnidentifiedImageError):
        return "not a readable PNG, JPEG, TIFF or BMP image"
    return " ".join(str(error).split())[:120] or type(error).__name__


def _decode(path: Path, page: int | None, max_pixels: int) -> npt.NDArray[Any]:
    with path.open("rb") as file:
        head = file.read(132)
        if head[128:] == b"DICM" or path.suffix.lower() == ".dcm":
            raise Rejected("a DICOM file; export it as PNG or TIFF")
        if not head:
            raise Rejected("an empty file")
        file.seek(0)
        with Image.open(file, formats=_FORMATS) as image:
            _check_size(image, max_pixels)
            frames = getattr(image, "n_frames", 1)
            if page is not None:
                if page > frames:
                    raise Rejected(f"has no page {page}, only {frames}")
                image.seek(page - 1)
                _check_size(image, max_pixels)
            elif frames > 1 and image.format not in ("JPEG", "MPO"):  # phones store a preview in a JPEG
                raise Rejected(f"holds {frames} images, one is needed; say which in the column 'page'")
            return _pixels(ImageOps.exif_transpose(image))


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise Rejected(f"{image.width} x {image.height} pixels, more than the limit of {max_pixels:,}")


def _pixels(image: Image.Image) -> npt.NDArray[Any]:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        deep = np.asarray(image)
        if image.mode == "I" and deep.min() >= 0 and deep.max() <= 65535:
            return deep.astype(np.uint16)
        if not np.isfinite(deep).all():
            raise Rejected("holds values that are not finite")
        return deep.astype(np.float32)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        flat = Image.new("RGB", image.size)
        flat.paste(image, mask=image.getchannel("A"))
        image = flat
    return np.asarray(image.convert("RGB"))
