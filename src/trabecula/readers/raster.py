"""Raster images: PNG, JPEG, TIFF, BMP.

A file that cannot be read, or that is not one plain image, is `Rejected` with a reason; what is
wrong with the machine (a lost network drive, no memory for handles) stays an error.
"""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from trabecula.readers import jpeg, png, tiff
from trabecula.readers.reader import Reader, Rejected, Source, crop
from trabecula.readers.samples import check_page, check_size, flatten

_FORMATS = ("PNG", "JPEG", "BMP")
_IN_A_BMP = {4: "JPEG inside a BMP", 5: "PNG inside a BMP"}
_IN_A_BMP_OF_OS2 = {3: "Huffman codes of OS/2", 4: "run lengths of OS/2"}
_NOT_READ = tuple(  # Pillow's words for a sound BMP of a kind that it does not read
    f"Unsupported BMP {what}" for what in ("compression", "bitfields layout", "pixel depth (2)")
)
_THE_FILES_FAULT = {errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.EINVAL}


class Raster(Reader):
    """Settings of the reader of PNG, JPEG, TIFF and BMP files."""

    max_pixels: int = Field(100_000_000, ge=1)
    """Larger images are rejected by their header, before they fill the memory."""

    def read(self, source: Source) -> npt.NDArray[Any]:
        """(H, W) or (H, W, 3), uint8, uint16, or float32 for deeper files; dark is low.

        The orientation is applied before the box; palettes are resolved, transparency is put on black.

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
        except UnidentifiedImageError:
            raise Rejected("not a readable PNG, JPEG, TIFF or BMP image") from None
        except OSError as error:
            if error.errno is not None and error.errno not in _THE_FILES_FAULT:
                raise
            raise Rejected(_reason(error)) from None
        except Exception as error:  # a decoder fed with noise raises anything
            raise Rejected(_reason(error)) from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _reason(error: Exception) -> str:
    """What went wrong, without the machine's paths."""
    if isinstance(error, OSError) and error.errno is not None:
        known = {errno.ENOENT: "no such file", errno.EISDIR: "is a folder"}
        return known.get(error.errno, error.strerror or "cannot be read")
    text = " ".join(str(error).split())[:120] or type(error).__name__
    if text.startswith(_NOT_READ):
        return f"{text.removeprefix('Unsupported ')} is not supported; save it as PNG"
    return f"damaged file: {text}"


def _decode(path: Path, page: int | None, max_pixels: int) -> npt.NDArray[Any]:
    with path.open("rb") as file:
        head = file.read(132)
        if head[128:] == b"DICM" or path.suffix.lower() == ".dcm":
            raise Rejected("a DICOM file; export it as PNG or TIFF")
        if not head:
            raise Rejected("an empty file")
        if head.startswith(tiff.SIGNATURES):
            return tiff.read_tiff(file, page, max_pixels)
        pixels = None
        if head.startswith(png.SIGNATURE):
            pixels = png.read_png(file, page, max_pixels)
        elif head.startswith(b"\xff\xd8\xff"):
            pixels = jpeg.read_jpeg(file, page, max_pixels)
        elif head.startswith(b"BM"):
            _check_bmp(head)
        return _by_pillow(file, page, max_pixels) if pixels is None else pixels


def _check_bmp(head: bytes) -> None:
    """Reject a BMP that Pillow would refuse as another kind, or read without its transparency."""
    header, compression, alpha = (int.from_bytes(head[at : at + 4], "little") for at in (14, 30, 66))
    if header < 40:  # an older one, without these fields
        return
    kinds = _IN_A_BMP_OF_OS2 if header == 64 else _IN_A_BMP
    if compression in kinds:
        raise Rejected(
            f"BMP compression {compression} ({kinds[compression]}) is not supported; save it as PNG"
        )
    if compression == 3 and not any(head[54:66]):
        raise Rejected("damaged file: a BMP whose colours have no bits (masks of 0)")
    if compression == 3 and head[28] == 16 and header >= 56 and alpha:
        raise Rejected("BMP of 16 bits with transparency is not supported; save it as PNG")


def _by_pillow(file: BinaryIO, page: int | None, max_pixels: int) -> npt.NDArray[Any]:
    """A BMP, or a page of a PNG or JPEG that holds several images."""
    file.seek(0)
    with Image.open(file, formats=_FORMATS) as opened:
        check_size(*opened.size, max_pixels)
        check_page(page, getattr(opened, "n_frames", 1))
        if page is not None and page > 1:
            opened.seek(page - 1)
            check_size(*opened.size, max_pixels)
        image = ImageOps.exif_transpose(opened)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    alpha = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    return flatten(np.asarray(image.convert("RGBA" if alpha else "RGB")))
