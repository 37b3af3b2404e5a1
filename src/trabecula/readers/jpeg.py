"""JPEG: segments of metadata are left out before it is decoded, so that a damaged one rejects no image."""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np
from PIL import Image

from trabecula.readers.reader import Rejected
from trabecula.readers.samples import Samples, check_page, check_size, orient

_SCAN, _APP0, _ADOBE, _APP15, _COMMENT = 0xDA, 0xE0, 0xEE, 0xEF, 0xFE
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_READ = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # baseline, extended, progressive; the last two with arithmetic codes
_ALONE = (0x01, *range(0xD0, 0xD9))  # markers without content
_JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"
_MOST_PER_PIXEL = 16  # bytes; four components of noise at the best quality need less


def read_jpeg(file: BinaryIO, page: int | None, max_pixels: int) -> Samples | None:
    """(H, W) or (H, W, 3), uint8; None for a later page of an MPO, which Pillow knows.

    Without a page the first image is meant: phones store previews behind it. CMYK and YCCK become RGB.

    Raises:
        Rejected: with the reason.
    """
    orientation, pages = _metadata(file)
    check_page(1 if page is None else page, pages)
    if page is not None and page > 1:
        return None
    with Image.open(_without_metadata(file, max_pixels), formats=("JPEG",)) as image:
        check_size(*image.size, max_pixels)
        pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    return orient(pixels, orientation)


def _metadata(file: BinaryIO) -> tuple[int, int]:
    """Orientation and number of images; (1, 1) if the metadata is damaged."""
    orientation = pages = 1
    try:
        file.seek(0)
        image = Image.open(file, formats=("JPEG",))
        pages = getattr(image, "n_frames", 1)
        orientation = int(image.getexif().get(0x0112, 1))
    except Exception:  # it is the pixels' turn next: they say what is wrong with them
        pass
    return orientation, pages


def _without_metadata(file: BinaryIO, max_pixels: int) -> io.BytesIO:
    """The file without APPn and comments, but for what tells the colours: that there is JFIF, and Adobe's."""
    file.seek(2)
    kept = [b"\xff\xd8"]
    while (byte := file.read(1)) != b"":
        if byte != b"\xff":  # fill bytes and noise between segments
            continue
        while (byte := file.read(1)) == b"\xff":
            pass
        marker = byte[0] if byte else 0
        if marker == 0 or marker in _ALONE:
            continue
        length = int.from_bytes(file.read(2), "big")
        content = file.read(max(length - 2, 0))
        if length < 2 or len(content) < length - 2:
            break
        if marker in _FRAMES:
            _check_frame(marker, content)
        elif marker == _APP0:
            content = _JFIF if content.startswith(b"JFIF") else b""
        elif marker == _ADOBE:
            content = content[:12] if content.startswith(b"Adobe") and length >= 14 else b""
        elif _APP0 <= marker <= _APP15 or marker == _COMMENT:
            content = b""
        if content:
            kept.append(bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content)
        if marker == _SCAN:
            kept.append(file.read(_MOST_PER_PIXEL * max_pixels + (1 << 20)))
            return io.BytesIO(b"".join(kept))
    raise Rejected("damaged file: cut short before its pixels")


def _check_frame(marker: int, content: bytes) -> None:
    """Reject kinds of JPEG that are not decoded (ITU T.81, table B.1)."""
    if marker not in _READ:
        raise Rejected("a lossless or hierarchical JPEG; export it as PNG or TIFF")
    if content and content[0] != 8:
        raise Rejected(f"a JPEG of {content[0]} bits per sample; export it as PNG or TIFF")
