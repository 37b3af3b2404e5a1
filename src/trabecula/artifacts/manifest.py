"""The manifest: one row per image, and what is known of it.

    manifest.csv    image_id, patient_id, path [, side, cohort, view, visit_month, labels, groups ...]
    tasks.json      beside it, if there are tasks: {"name": {task}}

All cells are text, "" where nothing is known. `path` is relative to the manifest's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from trabecula.artifacts.tasks import Task
from trabecula.config import build, dump, suggest
from trabecula.errors import InputError
from trabecula.spreadsheet import read_table, row_numbers

if TYPE_CHECKING:
    from trabecula.run import Run

NEEDED = ("image_id", "patient_id", "path")
_ORDER = (*NEEDED, "study_id", "side", "view", "cohort", "visit_month")
_MOST_PROBLEMS = 10


@dataclass(frozen=True)
class Manifest:
    """A table with one row per image (every column text, index 0..n-1) and the file it came from."""

    table: pd.DataFrame
    path: Path

    def __len__(self) -> int:
        return len(self.table)

    def resolve(self, row: int) -> Path:
        """Where the image of that row (a position, 0..n-1) lies."""
        return self.path.parent / str(self.table["path"].iloc[row])

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks in tasks.json beside the manifest, by name; empty if there is none."""
        return read_tasks(self.path.parent / "tasks.json")


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest; `path` is the CSV or the folder it is in.

    Raises:
        InputError: every problem in one message, with row numbers (the header is row 1).
    """
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.csv"
    if not path.exists():
        raise InputError(f"{path}: no such manifest; write one with `trabecula cohort`")
    table = read_table(path)
    problems = _problems(table)
    if problems:
        shown = "; ".join(problems[:_MOST_PROBLEMS])
        more = len(problems) - _MOST_PROBLEMS
        raise InputError(f"{path}: {shown}" + (f"; and {more} more problems" if more > 0 else ""))
    return Manifest(table, path)


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
                problems.append(f"image_id '{value}' stands in rows {numbers}")
    if "side" in known:
        bad = [i + 2 for i, side in enumerate(table["side"]) if side not in ("L", "R", "")]
        if bad:
            problems.append(f"{row_numbers(bad)} a side that is not L or R")
    return problems


def read_tasks(path: Path) -> dict[str, Task]:
    """Read tasks.json; empty if it is not there.

    Raises:
        InputError: not JSON, or a task that cannot be.
    """
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(task, dict) for task in values.values()):
        raise InputError(f'{path}: must hold {{"name": {{task}}, ...}}')
    return {
        name: build(Task, {**task, "name": name}, f"{path}: task '{name}'") for name, task in values.items()
    }


def write_manifest(out: Run, table: pd.DataFrame, tasks: Mapping[str, Task]) -> None:
    """Write manifest.csv (known columns first) and, if there are tasks, tasks.json.

    Raises:
        InputError: what `read_manifest` would refuse.
    """
    first = [name for name in _ORDER if name in table.columns]
    ordered = table[first + [name for name in table.columns if name not in first]]
    problems = _problems(ordered.reset_index(drop=True))
    if problems:
        raise InputError(f"{out / 'manifest.csv'}: {'; '.join(problems[:_MOST_PROBLEMS])}")
    if tasks:
        values = {name: dump(task.model_copy(update={"name": name})) for name, task in tasks.items()}
        out.write_json("tasks.json", values)
    out.write("manifest.csv", ordered.to_csv(index=False, lineterminator="\n"))
