"""`trabecula split`: manifest -> splits.csv, by patient; `split --check` looks for leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from trabecula.artifacts.generated import generated, keep_in_train
from trabecula.artifacts.label_values import first_spellings, number
from trabecula.artifacts.manifest import Manifest, read_manifest
from trabecula.artifacts.rules import of_images, rows_have
from trabecula.artifacts.splits import (
    PARTS,
    Splits,
    assign,
    counts,
    read_splits,
    spellings_differ,
    worst_class,
    write_record,
    write_splits,
)  # fmt: skip
from trabecula.artifacts.tasks import Truth, find_task, truth
from trabecula.config import Record
from trabecula.data.copies import NOT_FOUND
from trabecula.data.leaks import check as check_leaks
from trabecula.errors import InputError
from trabecula.patient_ids import check_spellings
from trabecula.run import Run

_MOST_CLASSES = 6  # whose images the summary counts one by one


class Config(Record):
    """How patients are divided, or what is checked."""

    manifest: Path
    """The manifest, or the folder it is in."""
    task: str = ""
    """The task whose worst class stratifies the patients: a name, or a shorthand such as `kl >= 2`."""
    strata: tuple[str, ...] = ()
    """Without a task: columns whose highest value stratifies the patients."""
    train: float = 0.8
    """Fraction of the patients in train."""
    val: float = 0.1
    """Fraction of the patients in val."""
    test: float = 0.1
    """Fraction of the patients in test."""
    column: str = ""
    """A column that says the part already; honoured, and checked for patients in two parts."""
    parts: dict[str, Literal["train", "val", "test"]] = {}
    """What that column's values mean: `parts = {train = "train", val = "test"}`."""
    val_fraction: float = Field(0.2, ge=0, lt=1)
    """Where that column names no val: the fraction of its train patients that becomes val."""
    unlabelled: Literal["train", "divide"] = "train"
    """With a task: where patients without a label under it, or under any task in tasks.json, go. In train
    their images serve pretraining; divided, those in val and test serve nothing."""
    existing: Path | None = None
    """Splits whose patients never move; new ones fill the smallest part."""
    seed: int = 0
    """Of the hash that orders the patients."""
    spellings_differ: bool = False
    """Patient ids that differ in spelling alone, such as 007 and 7 or P1 and p1, are different people, which
    the splits remember. Without it they are refused: tables often write one id in several ways."""
    check: bool = False
    """Look for leaks in `splits` instead of writing any."""
    splits: Path | None = None
    """With check: the splits to look at."""
    encoders: tuple[Path, ...] = ()
    """With check: encoders that must not have seen a val or test patient."""
    pools: tuple[Path, ...] = ()
    """With check: manifests, stores or tables that pretraining reads; a store of this manifest is no leak,
    since pretraining leaves val and test out of it."""


def run(config: Config, out: Run) -> str:
    """Write splits.csv and splits.json; with `check` only check.json, and a leak is an InputError."""
    manifest = read_manifest(config.manifest)
    if config.check:
        return _check(config, manifest, out)
    _validate(config)
    if not config.spellings_differ:
        places = [f"row {manifest.row_number(row)}" for row in range(len(manifest))]
        check_spellings(manifest.table["patient_id"].tolist(), places, str(manifest.path))
    labelled = truth(find_task(config.task, manifest), manifest) if config.task else None
    silent = _silent(config, manifest, labelled)
    strata = _strata(config, manifest, labelled)
    asked = {patient: stratum for patient, stratum in strata.items() if patient not in silent}
    of = dict.fromkeys(silent, "train") | _assign(config, manifest, asked)
    keep_in_train(of, manifest.path)
    splits = Splits(of)
    summary = {part: _summary(part, splits, manifest, labelled) for part in PARTS}
    record = {"task": config.task, "seed": config.seed, "parts": summary}
    differ = {"spellings_differ": True} if config.spellings_differ else {}
    write_record(out.path, {**record, **differ})
    write_splits(out.path, splits)
    notes = _notes(summary, manifest)
    for note in notes:
        out.log("note", text=note)
    return "; ".join([", ".join(_in_words(part, summary[part]) for part in PARTS), *notes])


def _in_words(part: str, of: dict[str, Any]) -> str:
    """A part in words, such as `train 20 patients (22 / 9 images of 0 / 1)`."""
    text = f"{part} {of['patients']:,} patients"
    images = of.get("labelled", {}).get("per_class", {})
    if not of["patients"] or not images:
        return text
    if len(images) > _MOST_CLASSES:
        return f"{text} ({of['labelled']['images']:,} labelled images)"
    return f"{text} ({' / '.join(f'{n:,}' for n in images.values())} images of {' / '.join(images)})"


def _notes(summary: dict[str, dict[str, Any]], manifest: Manifest) -> list[str]:
    """What a person should hear of before going on."""
    empty = [part for part in PARTS if not summary[part]["patients"]]
    notes = [f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty"] if empty else []
    for part in PARTS:
        images = summary[part].get("labelled", {}).get("per_class", {})
        absent = [name for name, n in images.items() if not n]
        if absent and part not in empty:
            notes.append(f"{part} has no image of class {', '.join(absent)}")
    if (manifest.table["patient_id"] == manifest.table["image_id"]).all():
        notes.append("each image counts as its own patient; if that is wrong, give `cohort` a pattern")
    return notes


def _check(config: Config, manifest: Manifest, out: Run) -> str:
    if config.splits is None:
        raise InputError("split --check: give the splits to look at (--splits FOLDER)")
    differ = config.spellings_differ or spellings_differ(config.splits)
    found = check_leaks(manifest, config.splits, config.encoders, config.pools, differ)
    leaks = found.leaks
    notes = [*found.notes, *found.by_bytes, NOT_FOUND]
    out.write_json("check.json", {"leaks": leaks, "unchecked": found.unchecked, "notes": notes})
    if leaks:
        more = f"; and {len(leaks) - 5} more in check.json" if len(leaks) > 5 else ""
        text = f"{len(leaks)} leak{'s' * (len(leaks) > 1)}: {'; '.join(leaks[:5])}{more}"
        raise InputError("; ".join([text, *found.unchecked]))
    if found.unchecked:
        raise InputError(f"no leak found, but not all could be checked: {'; '.join(found.unchecked)}")
    looked = [f"{len(manifest):,} images", f"{len(config.encoders)} encoders", f"{len(config.pools)} pools"]
    return "; ".join([f"no leak in {', '.join(looked)}", *notes])


def _validate(config: Config) -> None:
    fractions = (config.train, config.val, config.test)
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"train {config.train}, val {config.val}, test {config.test}: must sum to 1")
    if config.task and config.strata:
        raise InputError("give a task or strata, not both")
    if config.existing is not None and config.column:
        raise InputError("give a column or existing splits, not both")


def _strata(config: Config, manifest: Manifest, labelled: Truth | None) -> dict[str, str]:
    """Each patient's stratum: its worst class (or highest values), and its cohort."""
    table = manifest.table
    worst: dict[str, list[str]] = {patient: [] for patient in table["patient_id"]}
    if labelled is not None:
        classes = worst_class(labelled)
        for patient in worst:
            worst[patient].append(str(classes.get(patient, "unlabelled")))
    for column in (*config.strata, *(["cohort"] if "cohort" in table else [])):
        if column not in table:
            raise InputError(f"{manifest.path}: no column '{column}' to stratify by")
        values = table[column].map(first_spellings(table[column]))
        for patient, cells in values.groupby(table["patient_id"]):
            worst[str(patient)].append(max(cells, key=lambda cell: (number(cell) or 0.0, cell)))
    return {patient: "|".join(values) for patient, values in worst.items()}


def _silent(config: Config, manifest: Manifest, labelled: Truth | None) -> set[str]:
    """Patients who go to train because nothing could be asked of them in val or test, and generators."""
    if config.column:
        return set()
    patients = set(manifest.table["patient_id"])
    made = generated(patients)
    if labelled is None or config.unlabelled == "divide":
        return made
    known = [labelled, *(truth(task, manifest) for task in manifest.tasks.values())]
    heard = {patient for one in known for patient in one.patient_ids.tolist()}
    old = read_splits(config.existing) if config.existing else Splits({})
    return made | {patient for patient in patients - heard if old.part(patient) is None}


def _assign(config: Config, manifest: Manifest, strata: dict[str, str]) -> dict[str, str]:
    fractions = (config.train, config.val, config.test)
    if config.existing is not None:
        old = read_splits(config.existing)
        known = {patient: part for patient in strata if (part := old.part(patient))}
        new = assign(strata, fractions, config.seed, old.of | known)
        return old.of | new  # also whom this manifest lacks: they may be in a store
    if not config.column:
        return assign(strata, fractions, config.seed)
    given = _given(config, manifest)
    if "val" not in given.values() and config.val_fraction:
        pool = {patient: strata[patient] for patient, part in given.items() if part == "train"}
        given |= assign(pool, (1 - config.val_fraction, config.val_fraction, 0.0), config.seed)
    return given


def _given(config: Config, manifest: Manifest) -> dict[str, str]:
    """The parts a column of the manifest names."""
    table, name = manifest.table, config.column
    if name not in table.columns:
        raise InputError(f"{manifest.path}: no column '{name}' that says the part")
    meaning: Mapping[str, str] = config.parts or {part: part for part in PARTS}
    unknown = [i for i, value in enumerate(table[name]) if value not in meaning]
    if unknown:
        values = ", ".join(repr(value) for value in sorted({table[name].iloc[i] for i in unknown})[:5])
        where = f"{manifest.path}: {rows_have(unknown, manifest.rows)} a '{name}' of no known part"
        images = of_images(table, unknown)
        raise InputError(f'{where} ({values}); say what it means: parts = {{value = "train", ...}}{images}')
    of: dict[str, tuple[str, int]] = {}
    for place, (patient, value) in enumerate(zip(table["patient_id"], table[name], strict=True)):
        row = manifest.row_number(place)
        part, first = of.setdefault(patient, (meaning[value], row))
        if part != meaning[value]:
            both = f"in {part} (row {first}) and in {meaning[value]} (row {row})"
            raise InputError(f"{manifest.path}: patient '{patient}' is {both}")
    return {patient: part for patient, (part, _) in of.items()}


def _summary(part: str, splits: Splits, manifest: Manifest, labelled: Truth | None) -> dict[str, Any]:
    images = splits.rows(part, manifest.table["patient_id"])
    result: dict[str, Any] = {"patients": len(splits.patients(part)), "images": int(images.sum())}
    if "cohort" in manifest.table.columns:
        cohorts = manifest.table["cohort"].map(first_spellings(manifest.table["cohort"]))
        result["per_cohort"] = dict(sorted(Counter(cohorts[images]).items()))
    if labelled is not None:
        rows = np.flatnonzero(splits.rows(part, labelled.patient_ids))
        result["labelled"] = counts(labelled, rows.astype(np.int64))
    return result
