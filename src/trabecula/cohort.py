"""`trabecula cohort`: a data set as it is on disk -> manifest.csv and tasks.json."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from trabecula import cohorts
from trabecula.artifacts.manifest import FILE, Manifest, write_left_out, write_manifest
from trabecula.artifacts.tasks import Truth, truth
from trabecula.errors import InputError
from trabecula.run import Run

Config = cohorts.find(cohorts.DEFAULT)
"""Settings of the usual kind of data set; `config.build` takes those of the kind that is given."""


def run(config: cohorts.CohortSettings, out: Run) -> str:
    """Write manifest.csv, tasks.json, and what was left out (missing.csv, skipped.csv)."""
    found = config.find_images()
    table = found.table
    if config.name:
        if "cohort" in table.columns:
            raise InputError(f"name '{config.name}': the data already has a column 'cohort'; leave one away")
        table["cohort"] = config.name
    table["patient_id"] = config.prefix + table["patient_id"]
    here = out.path.resolve()
    paths = (os.path.relpath(Path(path).resolve(), here) for path in table["path"])
    table["path"] = [path.replace(os.sep, "/") for path in paths]
    table = table.sort_values(["patient_id", "image_id"], kind="stable").reset_index(drop=True)
    tasks = {name: task.model_copy(update={"name": name}) for name, task in config.tasks.items()}
    checked = Manifest(table, out / FILE)  # before anything is written
    labelled = [_labelled(name, truth(task, checked)) for name, task in tasks.items()]
    manifest = write_manifest(out.path, table, tasks)
    write_left_out(out.path, found.missing, found.skipped)
    for note in found.notes:
        out.log("note", text=note)
    patients = manifest.table["patient_id"].nunique()
    return "; ".join([f"{len(manifest):,} images of {patients:,} patients", *labelled, *found.notes])


def _labelled(name: str, known: Truth) -> str:
    """How many images a task has, and which of its findings none of them has."""
    present = (known.y == 1).any(axis=0) if known.y.ndim == 2 else np.ones(len(known.class_names), bool)
    absent = [label for label, there in zip(known.class_names, present, strict=True) if not there]
    return f"{name}: {len(known)} labelled" + (f", none with {', '.join(absent)}" if absent else "")
