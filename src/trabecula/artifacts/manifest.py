"""The manifest: one row per image, and what is known of it.

    manifest.csv    image_id, patient_id, path [, page, box, side, cohort, view, visit_month, labels ...]
    tasks.json      beside it, if there are tasks: {"name": {task}}

All cells are text, "" where nothing is known. `path` is relative to the manifest's folder; `page` counts the
images of a file from 1; `box` is the part of the image that is used, "left top right bottom" in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from trabecula.artifacts.rules import FIRST_ROW, rows_have
from trabecula.artifacts.tasks import Task
from trabecula.config import build, dump, suggest
from trabecula.errors import InputError
from trabecula.files import read_json, sha256_of, write_atomically, write_json
from trabecula.readers.reader import Box, Source
from trabecula.spreadsheet import csv_text, read_sheet, table_text

FILE, TASKS_FILE = "manifest.csv", "tasks.json"
MISSING_FILE, SKIPPED_FILE = "missing.csv", "skipped.csv"
NEEDED = ("image_id", "patient_id", "path")
_ORDER = (*NEEDED, "page", "box", "study_id", "side", "view", "cohort", "visit_month")
_MOST_PROBLEMS = 10


@dataclass(frozen=True)
class UserTable:
    """The table of a user that images were joined with.

    `name`: its file, and the sheet of a workbook. `rows`: of each image, the row there, 0 if it has none.
    `columns`: those that came from it.
    """

    name: str
    rows: tuple[int, ...]
    columns: frozenset[str]


@dataclass(frozen=True)
class Manifest:
    """A table with one row per image (every column text, index 0..n-1) and the file it came from.

    `rows`: their numbers in that file, as a spreadsheet program counts; () where they follow the header.
    `origin`: while it is made, the table that some of its columns were read from.
    """

    table: pd.DataFrame
    path: Path
    rows: tuple[int, ...] = ()
    origin: UserTable | None = None

    def __len__(self) -> int:
        return len(self.table)

    def row_number(self, row: int) -> int:
        """The number in the file of that row (a position, 0..n-1), counted as a spreadsheet program does."""
        return self.rows[row] if self.rows else row + FIRST_ROW

    def resolve(self, row: int) -> Path:
        """The file of the image of that row (a position, 0..n-1)."""
        return self.path.parent / str(self.table["path"].iloc[row])

    def source(self, row: int) -> Source:
        """Where the pixels of that row's image are."""
        page, box = (self.table[name].iloc[row] if name in self.table else "" for name in ("page", "box"))
        return Source(self.resolve(row), int(page) if page else None, parse_box(box) if box else None)

    def path_named(self, columns: Sequence[str]) -> str:
        """The file that a message on these columns names: the one that the user can correct."""
        origin = self._origin_of(columns)
        return origin.name if origin else str(self.path)

    def rows_named(self, columns: Sequence[str]) -> tuple[int, ...]:
        """The number of each row in that file, 0 where it has none; () where they follow the header."""
        origin = self._origin_of(columns)
        return origin.rows if origin else self.rows

    def _origin_of(self, columns: Sequence[str]) -> UserTable | None:
        return self.origin if self.origin and set(columns) <= self.origin.columns else None

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks in tasks.json beside the manifest, by name; empty if there is none."""
        return read_tasks(self.path.parent / TASKS_FILE)


def read_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest; `path` is the CSV or the folder it is in.

    Raises:
        InputError: every problem in one message, with row numbers (the header is row 1).
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    if not path.exists():
        raise InputError(f"{path}: no such manifest; write one with `trabecula cohort`")
    sheet = read_sheet(path)
    return _checked(Manifest(sheet.table, path, sheet.rows))


def manifest_digest(path: Path) -> str:
    """sha256 of a manifest, or that in a folder: predictions record it, and are judged by no other one."""
    return sha256_of(path / FILE if path.is_dir() else path)


def _checked(manifest: Manifest) -> Manifest:
    problems = _problems(manifest)
    if problems:
        shown = "; ".join(problems[:_MOST_PROBLEMS])
        more = len(problems) - _MOST_PROBLEMS
        raise InputError(f"{manifest.path}: {shown}" + (f"; and {more} more problems" if more > 0 else ""))
    return manifest


def _problems(manifest: Manifest) -> list[str]:
    table = manifest.table
    known = [str(name) for name in table.columns]
    absent = [name for name in NEEDED if name not in known]
    problems = [f"no column '{name}'{suggest(name, known)}" for name in absent]
    if not len(table):
        return [*problems, "holds no image, only a header"]
    for name in set(NEEDED) - set(absent):
        empty = [i for i, cell in enumerate(table[name]) if not cell]
        if empty:
            problems.append(f"{rows_have(empty, manifest.rows)} no {name}")
    if "image_id" in known:
        for value, places in table.groupby("image_id", sort=False).indices.items():
            if len(places) > 1 and value:
                numbers = ", ".join(str(manifest.row_number(row)) for row in sorted(places))
                problems.append(f"image_id '{value}' is in rows {numbers}")
    for name, fits, needed in (
        ("side", lambda cell: cell in ("L", "R"), "L or R"),
        ("page", lambda cell: cell.isdecimal() and int(cell) > 0, "a number from 1"),
        ("box", parse_box, "four whole numbers, left top right bottom"),
    ):
        cells = table[name] if name in known else ()
        bad = [i for i, cell in enumerate(cells) if cell and not fits(cell)]
        if bad:
            problems.append(f"{rows_have(bad, manifest.rows)} a {name} that is not {needed}")
    return problems


def parse_box(cell: str) -> Box | None:
    """A box as it is written in the manifest; None if it is not one."""
    edges = cell.split()
    if len(edges) != 4 or not all(edge.isdecimal() for edge in edges):
        return None
    left, top, right, bottom = map(int, edges)
    return (left, top, right, bottom) if left < right and top < bottom else None


def read_tasks(path: Path) -> dict[str, Task]:
    """Read tasks.json; empty if it is not there."""
    if not path.exists():
        return {}
    values = read_json(path, "`trabecula cohort`")
    if not all(isinstance(task, dict) for task in values.values()):
        raise InputError(f'{path}: must hold {{"name": {{task}}, ...}}')
    where = f"{path}: task"
    return {name: build(Task, {**task, "name": name}, f"{where} '{name}'") for name, task in values.items()}


def write_manifest(folder: Path, table: pd.DataFrame, tasks: Mapping[str, Task]) -> Manifest:
    """Write manifest.csv (known columns first) and, if there are tasks, tasks.json.

    What `read_manifest` would refuse is not written.
    """
    first = [name for name in _ORDER if name in table.columns]
    ordered = table[first + [name for name in table.columns if name not in first]]
    _checked(Manifest(ordered.reset_index(drop=True), folder / FILE))
    if tasks:
        values = {name: dump(task.model_copy(update={"name": name})) for name, task in tasks.items()}
        write_json(folder / TASKS_FILE, values)
    write_atomically(folder / FILE, table_text(ordered))
    return read_manifest(folder)


def write_left_out(folder: Path, missing: Sequence[tuple[int, str]], skipped: Sequence[str]) -> None:
    """Write what a cohort lacks, if it lacks anything.

    `missing`: row and key of the data set's own table, without a file. `skipped`: files without a row.
    """
    if missing:
        write_atomically(folder / MISSING_FILE, csv_text(("row", "key"), missing))
    if skipped:
        write_atomically(folder / SKIPPED_FILE, csv_text(("path",), [(file,) for file in sorted(skipped)]))
