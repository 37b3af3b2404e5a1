"""Another tool's predictions: a table with a row an image and a column of probabilities a class.

    image_id, p_<class> or <class> ... [, task, arm, seed, pretrain_seed, fraction]

Nothing else is needed, and other columns are ignored. The parts come from the splits, the truth from the
manifest; what cannot be right is refused with the rows of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trabecula.artifacts.label_budget import is_budget
from trabecula.artifacts.manifest import Manifest
from trabecula.artifacts.predictions import CHOICES, PREDICTIONS, cohorts_of
from trabecula.artifacts.splits import Splits
from trabecula.artifacts.tasks import Task, find_task
from trabecula.config import suggest
from trabecula.errors import InputError
from trabecula.spreadsheet import read_sheet, row_numbers

MODE = "imported"
"""The mode, architecture and family of arms of which only predictions are known."""
SUM_TOLERANCE = 0.005
"""How far the probabilities of a row may be from 1 in sum: three digits are enough for ten classes."""
_OWN = {"mode", "split"}  # columns of the tables that probe, finetune and predict write
_DEFAULTS = {"seed": "0", "pretrain_seed": "0", "fraction": "1"}


def imported_table(path: Path) -> Path | None:
    """The table of another tool at a path; None where probe, finetune or predict wrote what is there."""
    file = path / PREDICTIONS if path.is_dir() else path
    if not file.is_file() or file.name == CHOICES:
        return None
    with file.open(encoding="utf-8", errors="replace") as lines:
        header = set(lines.readline().strip().split(","))
    return None if header >= _OWN else file


def read_imported(file: Path, manifest: Manifest, splits: Splits) -> tuple[pd.DataFrame, int]:
    """The rows of validation and test images as `read_predictions` gives them, and how many were others'.

    Raises:
        InputError: rows that do not sum to 1 (see `SUM_TOLERANCE`), values that are no numbers or not in
            [0, 1], images twice or not in the manifest, no test image, a missing column, an unknown task.
    """
    sheet = read_sheet(file)
    table = sheet.table.set_index(pd.Index(sheet.rows))  # errors name the rows of the file
    if "image_id" not in table:
        raise InputError(f"{file}: no column 'image_id'{suggest('image_id', list(table.columns))}")
    if not len(table):
        raise InputError(f"{file}: holds no prediction, only a header")
    name = file.parent.name if file.name == PREDICTIONS else file.stem
    table = table.assign(**{key: _filled(table, key, value) for key, value in _DEFAULTS.items()})
    table["arm"] = _filled(table, "arm", name)
    table["task"] = _filled(table, "task", _only_task(file, table, manifest))
    numbers = {key: _number(file, table, key) for key in _DEFAULTS}
    row_of = pd.Index(manifest.table["image_id"]).get_indexer(pd.Index(table["image_id"]))
    _refuse(file, table, table["image_id"] == "", "no image_id")
    _refuse(file, table, row_of < 0, f"an image that {manifest.path} does not have")
    key = ["image_id", "task", "arm", "seed", "pretrain_seed", "fraction"]
    twice = table.duplicated(key, keep=False)
    _refuse(file, table, twice, "an image that is predicted more than once")
    wrong = ~np.array([is_budget(value) for value in numbers["fraction"]], dtype=bool)
    _refuse(file, table, wrong, "a fraction that is not in (0, 1], nor -k for k patients per class")
    patients = manifest.table["patient_id"].to_numpy()[row_of]
    frames, parts = [], np.array([splits.of.get(str(patient), "") for patient in patients])
    for task_name in dict.fromkeys(table["task"]):
        rows = np.flatnonzero(table["task"] == task_name)
        task = find_task(task_name, manifest)
        frame = pd.DataFrame({
            "image_id": table["image_id"].to_numpy()[rows], "task": task.name or task_name,
            "cohort": cohorts_of(manifest, row_of[rows]), "arm": table["arm"].to_numpy()[rows], "mode": MODE,
            "fraction": numbers["fraction"][rows],
            **{key: numbers[key][rows].astype(np.int64) for key in ("seed", "pretrain_seed")},
            "split": parts[rows],
        })  # fmt: skip
        p = _probabilities(file, table.iloc[rows], task)
        frames.append(frame.assign(**{f"p_{name}": p[:, k] for k, name in enumerate(task.class_names)}))
    whole = pd.concat(frames, ignore_index=True)
    used = whole["split"].isin(["val", "test"])
    if not (whole["split"] == "test").any():
        raise InputError(f"{file}: none of its images belongs to a test patient; check the splits")
    return whole[used].reset_index(drop=True), int((~used).sum())


def _filled(table: pd.DataFrame, column: str, value: str) -> pd.Series[Any]:
    """A column of the table, `value` where it is empty or not there."""
    if column not in table:
        return pd.Series([value] * len(table), index=table.index, dtype="str")
    return table[column].where(table[column] != "", value)


def _only_task(file: Path, table: pd.DataFrame, manifest: Manifest) -> str:
    """The manifest's task, for rows that name none."""
    names = list(manifest.tasks)
    if len(names) == 1 or ("task" in table and (table["task"] != "").all()):
        return names[0] if names else ""
    known = f"tasks of the manifest: {', '.join(names)}" if names else "a rule such as kl >= 2"
    raise InputError(f"{file}: add a column 'task' that says what is predicted ({known})")


def _number(file: Path, table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column of numbers; of whole ones but for the fraction."""
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    whole = column == "fraction" or (np.isfinite(values) & (values == np.floor(values)) & (values >= 0))
    kind = "number" if column == "fraction" else "whole number from 0"
    _refuse(file, table, ~(np.isfinite(values) & whole), f"no {kind} in column '{column}'")
    return values


def _probabilities(file: Path, table: pd.DataFrame, task: Task) -> NDArray[np.float64]:
    """(n, K), a column a class, of the rows of one task; what are no probabilities is refused."""
    columns = []
    for name in task.class_names:
        column = next((c for c in (f"p_{name}", name) if c in table), None)
        if column is None:
            classes = ", ".join(task.class_names)
            raise InputError(
                f"{file}: no column 'p_{name}'{suggest(f'p_{name}', list(table.columns))}; needed is one "
                f"column a class of task '{task.name}' (classes: {classes})"
            )
        columns.append(column)
    p: NDArray[np.float64] = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    _refuse(file, table, ~np.isfinite(p).all(axis=1), "a probability that is not a finite number")
    outside = ((p < 0) | (p > 1)).any(axis=1)
    advice = "; divide per cent by 100, and give probabilities, not scores" if outside.any() else ""
    _refuse(file, table, outside, f"a probability outside 0 to 1{advice}")
    if task.kind != "multilabel":
        wrong = np.abs(p.sum(axis=1) - 1) > SUM_TOLERANCE
        first = f"{p[np.argmax(wrong)].sum():.4g}" if wrong.any() else ""
        text = f"probabilities that do not sum to 1 within {SUM_TOLERANCE} (the first sums to {first})"
        _refuse(file, table, wrong, text)
    return p


def _refuse(file: Path, table: pd.DataFrame, bad: Any, what: str) -> None:
    """An error that names the bad rows as a spreadsheet program counts, and the first image."""
    wrong = table[np.asarray(bad, dtype=bool)]
    if not len(wrong):
        return
    image = wrong["image_id"].iloc[0]
    first = f" (the first is image '{image}')" if image else ""
    raise InputError(f"{file}: {row_numbers([int(row) for row in wrong.index])} {what}{first}")
