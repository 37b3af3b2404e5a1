"""`trabecula cohort`: a data set as it is on disk -> manifest.csv and tasks.json."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from trabecula import cohorts
from trabecula.artifacts.label_values import counted, far_values, same, spelled_differently
from trabecula.artifacts.manifest import FILE, Manifest, write_left_out, write_manifest
from trabecula.artifacts.tasks import Task, Truth, truth
from trabecula.errors import InputError
from trabecula.patient_ids import check_spellings, distinguished
from trabecula.run import Run
from trabecula.spreadsheet import images_named

Config = cohorts.find(cohorts.DEFAULT)
"""Settings of the usual kind of data set; `config.build` takes those of the kind that is given."""
_NO_LABELS = {"image_id", "patient_id", "path", "page", "box", "study_id", "cohort", "visit_month"}
_MOST_VALUES, _MOST_COLUMNS = 12, 20  # of a column whose values are counted, and such columns


def run(config: cohorts.CohortSettings, out: Run) -> str:
    """Write manifest.csv, tasks.json, and what was left out (missing.csv, skipped.csv)."""
    found = config.find_images()
    table = found.table
    if config.name:
        if "cohort" in table.columns:
            raise InputError(f"name '{config.name}': the data already has a column 'cohort'; leave one away")
        table["cohort"] = config.name
    if config.spellings_differ:
        table["patient_id"] = distinguished(table["patient_id"].tolist())
    else:
        check_spellings(table["patient_id"].tolist(), *_places(found, config.root))
    table["patient_id"] = config.prefix + table["patient_id"]
    here = out.path.resolve()
    paths = (os.path.relpath(Path(path).resolve(), here) for path in table["path"])
    table["path"] = [path.replace(os.sep, "/") for path in paths]
    table = table.sort_values(["patient_id", "image_id"], kind="stable")
    origin = found.origin and replace(found.origin, rows=tuple(found.origin.rows[i] for i in table.index))
    table = table.reset_index(drop=True)
    tasks = {name: task.model_copy(update={"name": name}) for name, task in config.tasks.items()}
    checked = Manifest(table, out / FILE, origin=origin)  # before anything is written
    labelled = [_labelled(name, truth(task, checked)) for name, task in tasks.items()]
    manifest = write_manifest(out.path, table, tasks)
    write_left_out(out.path, found.missing, found.skipped)
    notes = found.notes + _count_values(table, tasks, out)
    for note in notes:
        out.log("note", text=note)
    patients = manifest.table["patient_id"].nunique()
    return "; ".join([f"{len(manifest):,} images of {patients:,} patients", *labelled, *notes])


def _places(found: cohorts.FoundImages, root: Path) -> tuple[list[str], str]:
    """Where the patient of each image is written, a row or the image's path, and in which file or folder."""
    origin = found.origin
    if origin and "patient_id" in origin.columns:
        return [f"row {row}" for row in origin.rows], origin.name
    return [os.path.relpath(path, root) for path in found.table["path"]], str(root)


def _count_values(table: pd.DataFrame, tasks: Mapping[str, Task], out: Run) -> list[str]:
    """Print how often each value of a column with few values occurs; what a person should look at.

    A number typed wrongly, such as 22 for 2, is seen so.
    """
    asked = [column for task in tasks.values() for column in task.columns]
    columns = [name for name in dict.fromkeys([*asked, *table.columns]) if name in table.columns]
    columns = [name for name in columns if name not in _NO_LABELS]
    few = [name for name in columns if 0 < len(set(table[name]) - {""}) <= _MOST_VALUES]
    notes = []
    for name in few[:_MOST_COLUMNS]:
        counts = counted(table[name])
        empty = int((table[name] == "").sum())
        said = [f"{value}: {count:,}" for value, count in counts.items()] + [f"empty: {empty:,}"] * (
            empty > 0
        )
        print(f"images by {name}: {', '.join(said)}", file=sys.stderr, flush=True)
        out.log("values", column=name, images=counts, empty=empty)
        for spellings in spelled_differently(table[name]):
            notes.append(f"{' and '.join(map(repr, spellings))} of column '{name}' are read as one value")
        if far := far_values(counts):
            images = table["image_id"][[any(same(cell, value) for value in far) for cell in table[name]]]
            notes.append(
                f"column '{name}': {', '.join(far)} {'is' if len(far) == 1 else 'are'} far from the other "
                f"values ({images_named(images.tolist())}); correct or empty the cells if this is no value"
            )
    if len(few) > _MOST_COLUMNS:
        print(f"and {len(few) - _MOST_COLUMNS} more columns of few values", file=sys.stderr, flush=True)
    return notes


def _labelled(name: str, known: Truth) -> str:
    """How many images a task has, and which of its findings none of them has."""
    present = (known.y == 1).any(axis=0) if known.y.ndim == 2 else np.ones(len(known.class_names), bool)
    absent = [label for label, there in zip(known.class_names, present, strict=True) if not there]
    return f"{name}: {len(known)} labelled" + (f", none with {', '.join(absent)}" if absent else "")
