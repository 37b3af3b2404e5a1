"""What a reader of image files is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from trabecula.config import Record

Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge, in pixels of the whole image; right and bottom are not in it."""


class Rejected(Exception):  # noqa: N818 - a verdict on one file, not an error of the program
    """One file is not usable; the message is the reason."""


@dataclass(frozen=True)
class Source:
    """Where the pixels of an image are: a file, a page of it (from 1), a box in that page."""

    path: Path
    page: int | None = None
    box: Box | None = None


class Reader(Record):
    """How one kind of file is read; its fields are its settings."""

    def read(self, source: Source) -> npt.NDArray[Any]:
        """(H, W) or (H, W, 3), uint8, uint16 or float32: the box of the page.

        Raises:
            Rejected: the file, its page or its box is not usable, with the reason.
        """
        raise NotImplementedError


def crop(pixels: npt.NDArray[Any], box: Box | None) -> npt.NDArray[Any]:
    """The box of an image (H, W) or (H, W, 3); all of it where there is none.

    Raises:
        Rejected: the box is not inside the image.
    """
    if box is None:
        return pixels
    left, top, right, bottom = box
    height, width = pixels.shape[:2]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        edges = " ".join(map(str, box))
        raise Rejected(f"the box {edges} is not inside the image of {width} x {height} pixels")
    return pixels[top:bottom, left:right]
