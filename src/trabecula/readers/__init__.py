"""Readers: image files -> arrays. Adding one costs a file and a line in `TABLE`.

A reader is a record of its settings with a method `read` (`readers/reader.py`). A file goes to the first
reader that knows its signature, else to the one that has its suffix, else to the first of the table, which
then says what is wrong with it. All readers are imported here; each imports its own library when it reads.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from pydantic import create_model

from trabecula.config import Record
from trabecula.readers.reader import Reader, Source


@dataclass(frozen=True)
class FileKind:
    """A line of the table: the reader's module and class, and the files that it reads."""

    reader: str
    suffixes: tuple[str, ...]
    signatures: tuple[tuple[int, bytes], ...]  # bytes, and at which place of the file they are


TABLE = {
    "raster": FileKind(
        "raster:Raster",
        (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"),
        (
            (0, b"\x89PNG"),
            (0, b"\xff\xd8\xff"),
            (0, b"II*\0"),
            (0, b"MM\0*"),
            (0, b"II+\0"),
            (0, b"MM\0+"),
            (0, b"BM"),
        ),
    ),
}
"""The readers by name, which is also the key of their settings."""
_HEAD = 512  # bytes of a file within which signatures are


def find(name: str) -> type[Reader]:
    """The class of a reader of the table."""
    module, kind = TABLE[name].reader.split(":")
    return getattr(importlib.import_module(f"trabecula.readers.{module}"), kind)  # type: ignore[no-any-return]


if TYPE_CHECKING:

    class Readers(Record):
        """The settings of every reader of the table, under its name."""
else:
    Readers = create_model(
        "Readers",
        __base__=Record,
        __module__=__name__,
        **{name: (find(name), find(name)()) for name in TABLE},
    )


def choose(path: Path) -> str:
    """The name of the reader of a file; one that cannot be opened is judged by its suffix."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        head = b""
    for name, kind in TABLE.items():
        if any(head[at : at + len(mark)] == mark for at, mark in kind.signatures):
            return name
    suffix = path.suffix.lower()
    return next((name for name, kind in TABLE.items() if suffix in kind.suffixes), next(iter(TABLE)))


def read(source: Source, readers: Readers) -> npt.NDArray[Any]:
    """The pixels of an image, by the reader of its file.

    Raises:
        Rejected: with the reason.
    """
    reader: Reader = getattr(readers, choose(source.path))
    return reader.read(source)
