"""`trabecula cohort`: a data set as it lies on disk -> manifest.csv and tasks.json."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trabecula.artifacts.manifest import Manifest, read_manifest, write_manifest
from trabecula.artifacts.tasks import Task, Truth, truth
from trabecula.cohorts.folder import Found, read_folder
from trabecula.config import Record
from trabecula.errors import InputError
from trabecula.run import Run


class Config(Record):
    """What the data set looks like."""

    kind: Literal["folder"] = "folder"
    """The kind of data set: `folder` is any folder of images."""
    root: Path
    """The folder that holds the images."""
    table: Path | None = None
    """A table (CSV, TSV or .xlsx) with a row per image, or per patient and side."""
    pattern: str = ""
    """What the paths below root say, such as `{part}/{kl}/{patient_id:7}{side:1}.png`."""
    columns: dict[str, str] = {}
    """The table's own column names by the manifest's: `columns.patient_id="ID"`, `columns.path="File"`."""
    name: str = ""
    """The cohort's name; written into the column `cohort` if given."""
    prefix: str = ""
    """Put before every patient id, such as "nih-", so that the patients of two hospitals that number theirs
    alike are not taken for the same people; the columns and paths keep their ids."""
    tasks: dict[str, Task] = {}
    """Tasks by name; each is checked against the labels at once."""


def run(config: Config, out: Run) -> str:
    """Write manifest.csv, tasks.json, and what was left out (missing.csv, skipped.csv)."""
    found = read_folder(config.root, config.pattern, config.table, config.columns)
    table = found.table
    if config.name:
        if "cohort" in table.columns:
            raise InputError(f"name '{config.name}': the data already has a column 'cohort'; leave one away")
        table["cohort"] = config.name
    table["patient_id"] = config.prefix + table["patient_id"]
    here = out.path.resolve()
    table["path"] = [
        os.path.relpath(Path(path).resolve(), here).replace(os.sep, "/") for path in table["path"]
    ]
    table = table.sort_values(["patient_id", "image_id"], kind="stable").reset_index(drop=True)
    tasks = {name: task.model_copy(update={"name": name}) for name, task in config.tasks.items()}
    checked = Manifest(table, out / "manifest.csv")  # before anything is written
    labelled = [_labelled(name, truth(task, checked)) for name, task in tasks.items()]
    write_manifest(out, table, tasks)
    manifest = read_manifest(out.path)
    _write_left_out(found, out)
    for note in found.notes:
        out.log("note", text=note)
    patients = manifest.table["patient_id"].nunique()
    facts = [f"{len(manifest):,} images of {patients:,} patients", *labelled, *found.notes]
    return "; ".join(facts)


def _labelled(name: str, known: Truth) -> str:
    """How many images a task has, and which of its findings none of them has."""
    present = (known.y == 1).any(axis=0) if known.y.ndim == 2 else np.ones(len(known.class_names), bool)
    absent = [label for label, there in zip(known.class_names, present, strict=True) if not there]
    return f"{name}: {len(known)} labelled" + (f", none with {', '.join(absent)}" if absent else "")


def _write_left_out(found: Found, out: Run) -> None:
    if found.missing:
        out.write("missing.csv", _csv(("row", "key"), found.missing))
    if found.skipped:
        out.write("skipped.csv", _csv(("path",), [(file,) for file in sorted(found.skipped)]))


def _csv(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
