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

from trabecula.artifacts.tasks import Task
from trabecula.config import build, dump, suggest
from trabecula.errors import InputError
from trabecula.files import read_json, write_atomically, write_json
from trabecula.readers.reader import Box, Source
from trabecula.spreadsheet import csv_text, read_table, row_numbers, table_text

FILE, TASKS_FILE = "manifest.csv", "tasks.json"
MISSING_FILE, SKIPPED_FILE = "missing.csv", "skipped.csv"
NEEDED = ("image_id", "patient_id", "path")
_ORDER = (*NEEDED, "page", "box", "study_id", "side", "view", "cohort", "visit_month")
_MOST_PROBLEMS = 10


@dataclass(frozen=True)
class Manifest:
    """A table with one row per image (every column text, index 0..n-1) and the file it came from."""

    table: pd.DataFrame
    path: Path

    def __len__(self) -> int:
        return len(self.table)

    def resolve(self, row: int) -> Path:
        """The file of the image of that row (a position, 0..n-1)."""
        return self.path.parent / str(self.table["path"].iloc[row])

    def source(self, row: int) -> Source:
        """Where the pixels of that row's image are."""
        page, box = (self.table[name].iloc[row] if name in self.table else "" for name in ("page", "box"))
        return Source(self.resolve(row), int(page) if page else None, parse_box(box) if box else None)

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
    return _checked(Manifest(read_table(path), path))


def _checked(manifest: Manifest) -> Manifest:
    problems = _problems(manifest.table)
    if problems:
        shown = "; ".join(problems[:_MOST_PROBLEMS])
        more = len(problems) - _MOST_PROBLEMS
        raise InputError(f"{manifest.path}: {shown}" + (f"; and {more} more problems" if more > 0 else ""))
    return manifest


def _problems(table: pd.DataFrame) -> list[str]:
    known = [str(name) for name in table.columns]
    absent = [name for name in NEEDED if name not in known]
    problems = [f"no column '{name}'{suggest(name, known)}" for name in absent]
    if not len(table):
        return [*problems, "holds no image, only a header"]
    for name in set(NEEDED) - set(absent):
        empty = [i + 2 for i, cell in enumerate(table[name]) if not cell]
        if empty:
            problems.append(f"{row_numbers(empty)} no {name}")
    if "image_id" in known:
        for value, rows in table.groupby("image_id", sort=False).indices.items():
            if len(rows) > 1 and value:
                numbers = ", ".join(str(row + 2) for row in sorted(rows))
                problems.append(f"image_id '{value}' is in rows {numbers}")
    for name, fits, needed in (
        ("side", lambda cell: cell in ("L", "R"), "L or R"),
        ("page", lambda cell: cell.isdecimal() and int(cell) > 0, "a number from 1"),
        ("box", parse_box, "four whole numbers, left top right bottom"),
    ):
        cells = table[name] if name in known else ()
        bad = [i + 2 for i, cell in enumerate(cells) if cell and not fits(cell)]
        if bad:
            problems.append(f"{row_numbers(bad)} a {name} that is not {needed}")
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
