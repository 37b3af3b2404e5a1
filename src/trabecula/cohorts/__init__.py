"""Cohorts: a data set as it is on disk -> rows of a manifest. Adding one costs a file and a line in `TABLE`.

A kind of cohort is a record of its settings with a method `find_images`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trabecula.artifacts.manifest import Origin
from trabecula.artifacts.tasks import Task
from trabecula.config import Record, suggest
from trabecula.errors import InputError

TABLE = {
    "folder": "trabecula.cohorts.folder:Folder",
}
"""The kinds of data set: the class of each, as module:class."""
DEFAULT = "folder"


@dataclass
class FoundImages:
    """What a data set holds: a row an image, `path` as it is on this machine.

    `origin`: the user's table that some columns came from, with the row there of each image.
    """

    table: pd.DataFrame
    origin: Origin | None = None
    notes: list[str] = field(default_factory=list)
    missing: list[tuple[int, str]] = field(default_factory=list)  # (row of the table, its key)
    skipped: list[str] = field(default_factory=list)  # files that are not taken

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """Leave out the images where the mask (n,) is false."""
        self.table = self.table[rows].reset_index(drop=True)
        if self.origin:
            numbers = tuple(n for n, kept in zip(self.origin.rows, rows, strict=True) if kept)
            self.origin = replace(self.origin, rows=numbers)


class CohortSettings(Record):
    """What a data set looks like: the settings that every kind has."""

    kind: str = DEFAULT
    """The kind of data set: `folder` is any folder of images."""
    root: Path
    """The folder that holds the images."""
    name: str = ""
    """The cohort's name; written into the column `cohort` if given."""
    prefix: str = ""
    """Put before every patient id, such as "nih-", so that the patients of two hospitals that number theirs
    alike are not taken for the same people; the columns and paths keep their ids."""
    spellings_differ: bool = False
    """Patient ids that differ in spelling alone, such as 007 and 7 or P1 and p1, are different people, and
    get endings that tell them apart. Without it they are refused: tables write an id in several ways."""
    tasks: dict[str, Task] = {}
    """Tasks by name; each is checked against the labels at once."""

    @classmethod
    def of_kind(cls, values: Mapping[str, Any]) -> Any:
        """The record of the kind that the values name."""
        return find(str(values.get("kind", DEFAULT)))

    def find_images(self) -> FoundImages:
        """The images, with at least the columns image_id, patient_id and path.

        Raises:
            InputError: nothing is found, no patient is known, sides or rows contradict each other.
        """
        raise NotImplementedError


def find(kind: str) -> type[CohortSettings]:
    """The class of a kind of data set.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in TABLE:
        raise InputError(f"unknown kind of data set '{kind}'{suggest(kind, sorted(TABLE))}")
    module, name = TABLE[kind].split(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
