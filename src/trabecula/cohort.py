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
from trabecula.artifacts.label_values import counted, far_values, first_spellings, same, spelled_differently
from trabecula.artifacts.manifest import FILE, Manifest, write_left_out, write_manifest
from trabecula.artifacts.tasks import Task, Truth, truth
from trabecula.errors import InputError
from trabecula.patient_ids import check_spellings, distinguished
from trabecula.run import Run
from trabecula.spreadsheet import images_named

Config = cohorts.find(cohorts.DEFAULT)
"""Settings of the usual kind of data set; `config.build` takes those of the kind that is given."""
_NO_LABELS = {"image_id", "patient_id", "path", "page", "box", "study_id", "cohort", "visit_month"}
_MOST_VALUES, _MOST_COLUMNS = 12, 20  # of a column of no task whose values are counted, and of all columns
_MOST_SHOWN, _RAREST = 24, 8  # values in a line, and how many of them are the rarest where there are more


def run(config: cohorts.CohortSettings, out: Run) -> str:
    """Write manifest.csv, tasks.json, and what was left out (missing.csv, skipped.csv)."""
    found = config.find_images()
    table = found.table
    if config.name:
        if "cohort" in table.columns:
            raise InputError(f"name '{config.name}': the data already has a column 'cohort'; leave one away")
        table["cohort"] = config.name
    same_cohort = _one_spelling(table)
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
    notes = found.notes + same_cohort + _count_values(table, tasks, out)
    for note in notes:
        out.log("note", text=note)
    patients = manifest.table["patient_id"].nunique()
    return "; ".join([f"{len(manifest):,} images of {patients:,} patients", *labelled, *notes])


def _one_spelling(table: pd.DataFrame) -> list[str]:
    """Write each cohort's name as it stands first; returned is what was written otherwise."""
    if "cohort" not in table.columns:
        return []
    first = first_spellings(table["cohort"])
    table["cohort"] = table["cohort"].map(first)
    return [f"cohort '{cell}' is written '{name}'" for cell, name in first.items() if cell != name]


def _places(found: cohorts.FoundImages, root: Path) -> tuple[list[str], str]:
    """Where the patient of each image is written, a row or the image's path, and in which file or folder."""
    origin = found.origin
    if origin and "patient_id" in origin.columns:
        return [f"row {row}" for row in origin.rows], origin.name
    return [os.path.relpath(path, root) for path in found.table["path"]], str(root)


def _count_values(table: pd.DataFrame, tasks: Mapping[str, Task], out: Run) -> list[str]:
    """Print how often each value of the tasks' columns, and of others of few values, occurs.

    A number typed wrongly, such as 22 for 2, is seen so. Returned is what a person should look at.
    """
    between: dict[str, str] = {}  # a task's column -> what stands between its findings
    for task in tasks.values():
        between |= {name: between.get(name) or task.separator for name in task.columns if name in table}
    others = [name for name in map(str, table.columns) if name not in between and name not in _NO_LABELS]
    few = [name for name in others if 0 < len(set(table[name]) - {""}) <= _MOST_VALUES]
    shown = few[: max(_MOST_COLUMNS - len(between), 0)]
    notes = []
    for name in [*between, *shown]:
        split = between.get(name)
        cells = [[one.strip() for one in cell.split(split)] if split else [cell] for cell in table[name]]
        flat = [value for of_image in cells for value in of_image]
        first = first_spellings(flat)
        values = [{first[value] for value in of_image} for of_image in cells]
        counts = counted(value for of_image in values for value in of_image)
        _print_counts(name, counts, int((table[name] == "").sum()), out)
        for spellings in spelled_differently(flat):
            notes.append(f"{' and '.join(map(repr, spellings))} of column '{name}' are read as one value")
        if far := far_values(counts):
            bad = [any(same(value, code) for value in of_image for code in far) for of_image in values]
            notes.append(
                f"column '{name}': {', '.join(far)} {'is' if len(far) == 1 else 'are'} far from the other "
                f"values ({images_named(table['image_id'][bad].tolist())}); correct or empty the cells if "
                "this is no value"
            )
    if len(few) > len(shown):
        print(f"and {len(few) - len(shown)} more columns of few values", file=sys.stderr, flush=True)
    return notes


def _print_counts(column: str, counts: Mapping[str, int], empty: int, out: Run) -> None:
    """Print how often each value occurs; of many the commonest, and the rarest, which may be mistakes."""
    by_count = sorted(counts, key=lambda value: -counts[value])
    left_out = set(by_count[_MOST_SHOWN - _RAREST : -_RAREST]) if len(counts) > _MOST_SHOWN else set()
    shown = {value: count for value, count in counts.items() if value not in left_out}
    more = len(left_out)
    said = [f"{value}: {count:,}" for value, count in shown.items()]
    said += [f"and {more:,} more value{'s' * (more > 1)}"] * (more > 0) + [f"empty: {empty:,}"] * (empty > 0)
    print(f"images by {column}: {', '.join(said)}", file=sys.stderr, flush=True)
    out.log("values", column=column, images=shown, empty=empty, **({"more": more} if more else {}))


def _labelled(name: str, known: Truth) -> str:
    """How many images a task has, and which of its findings none of them has."""
    present = (known.y == 1).any(axis=0) if known.y.ndim == 2 else np.ones(len(known.class_names), bool)
    absent = [label for label, there in zip(known.class_names, present, strict=True) if not there]
    return f"{name}: {len(known)} labelled" + (f", none with {', '.join(absent)}" if absent else "")
