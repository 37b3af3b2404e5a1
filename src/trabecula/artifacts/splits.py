"""Splits by patient, and the nested label fractions drawn from them.

Patients are ordered by a hash of (seed, patient id), never by a random generator's state or the
manifest's row order: the same patients give the same parts on every machine, and new patients do
not move the old ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trabecula.artifacts.generated import keep_in_train
from trabecula.artifacts.label_budget import is_budget, shots_of
from trabecula.artifacts.tasks import Truth
from trabecula.config import suggest
from trabecula.errors import InputError
from trabecula.files import read_json, write_atomically, write_json
from trabecula.patient_ids import canonical
from trabecula.spreadsheet import csv_text, read_sheet

FILE, RECORD_FILE = "splits.csv", "splits.json"
PARTS = ("train", "val", "test")
FEW_VAL = 10  # fewer validation patients than these are mentioned in the notes: 1 % of the knees are 6


@dataclass(frozen=True)
class Splits:
    """Which part each patient is in: `of` by the id as it is written, `part` by any spelling."""

    of: dict[str, str]

    @cached_property
    def _of_form(self) -> dict[str, str]:
        """The part by canonical id; where spellings are in several parts, test before val before train."""
        of: dict[str, str] = {}
        for patient, part in self.of.items():
            form = canonical(patient)
            of[form] = max(of.get(form, part), part, key=PARTS.index)
        return of

    def part(self, patient: str) -> str | None:
        """The part of a patient, also under another spelling of the id; None of one who is in none."""
        return self.of.get(patient) or self._of_form.get(canonical(patient))

    def patients(self, part: str) -> list[str]:
        """The patients of a part, sorted."""
        return sorted(patient for patient, its in self.of.items() if its == part)

    def rows(self, part: str, patient_ids: Iterable[str]) -> npt.NDArray[np.bool_]:
        """(n,) where the patient is in the part; patients without a part are in none."""
        return np.array([self.part(str(patient)) == part for patient in patient_ids], dtype=bool)


def read_splits(path: str | Path) -> Splits:
    """Read splits.csv, or that of a folder; a patient in two parts and a held-out generator are refused.

    Two spellings of an id in two parts are one patient, unless `split` ran with `spellings_differ`.
    """
    path = Path(path)
    rows = split_rows(path)
    problems = [f"row {row}: patient '{p}' has split '{s}'" for row, p, s in rows if s not in PARTS]
    if problems:
        raise InputError(f"{path}: {problems[0]}; a split is train, val or test")
    form = str if spellings_differ(path) else canonical
    of: dict[str, str] = {}
    first: dict[str, tuple[str, str]] = {}
    for row, patient, part in rows:
        of[patient] = part
        other, its = first.setdefault(form(patient), (patient, part))
        if its != part:
            also = f", spelled '{other}'," if other != patient else ""
            raise InputError(f"{path}: row {row}: patient '{patient}'{also} is in {its} and in {part}")
    if not of:
        raise InputError(f"{path}: holds no patient")
    keep_in_train(of, path)
    return Splits(of)


def write_splits(folder: Path, splits: Splits) -> None:
    """Write splits.csv: patient_id and split, sorted by patient."""
    write_atomically(folder / FILE, csv_text(("patient_id", "split"), sorted(splits.of.items())))


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write splits.json: how the splits were made, and what each part holds."""
    write_json(folder / RECORD_FILE, record)


def spellings_differ(path: Path) -> bool:
    """Whether `split` ran with `spellings_differ`: ids that differ in spelling alone are different people."""
    record = (path if path.is_dir() else path.parent) / RECORD_FILE
    return record.exists() and bool(read_json(record, "`trabecula split`").get("spellings_differ"))


def together(splits: Iterable[Splits]) -> Splits:
    """Splits as one: whoever any of them holds out, in test before val, is held out."""
    every = list(splits)
    patients = {patient for its in every for patient in its.of}
    parts = {patient: [part for its in every if (part := its.part(patient))] for patient in patients}
    return Splits({patient: max(its, key=PARTS.index) for patient, its in parts.items()})


def split_rows(path: Path) -> list[tuple[int, str, str]]:
    """The rows of splits.csv as they stand: (row number, patient_id, split)."""
    path = path / FILE if path.is_dir() else path
    if not path.exists():
        raise InputError(f"{path}: no such splits; write them with `trabecula split`")
    sheet = read_sheet(path)
    table = sheet.table
    for name in ("patient_id", "split"):
        if name not in table.columns:
            raise InputError(f"{path}: no column '{name}'{suggest(name, list(table.columns))}")
    triples = zip(sheet.rows, table["patient_id"], table["split"], strict=True)
    return [(row, str(patient), str(part)) for row, patient, part in triples]


def _key(seed: int | str, patient: str) -> str:
    return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()


def in_hash_order(patients: Iterable[str], seed: int) -> list[str]:
    """Patients in an order that depends on the seed and on their ids alone, so that prefixes nest.

    It is another order than that of the label fractions of the same seed: a small pool would else hold just
    the labelled patients.
    """
    return sorted(patients, key=lambda patient: _key(f"pool:{seed}", patient))


def assign(
    strata: Mapping[str, str], fractions: Sequence[float], seed: int, existing: Mapping[str, str] = {}
) -> dict[str, str]:
    """Give each patient of `strata` (patient id -> stratum) a part, by the fractions of train, val and test.

    Within a stratum the patients are ordered by hash(seed, patient_id) and cut; what rounding takes from a
    part in one stratum it gets back in the next, so that the whole keeps its fractions. Patients in
    `existing` keep their part; each new one goes where its stratum has the fewest for the part's fraction.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(strata, key=lambda p: _key(seed, p)):
        members[strata[patient]].append(patient)
    if not existing:
        return _cut(members, fractions)
    result = {patient: part for patient, part in existing.items() if patient in strata}
    share = {part: fraction for part, fraction in zip(PARTS, fractions, strict=True) if fraction > 0}
    total = Counter(result.values())
    for stratum in sorted(members):
        here = Counter(result[patient] for patient in members[stratum] if patient in result)
        for patient in members[stratum]:
            if patient not in result:
                part = min(share, key=lambda p: (here[p] / share[p], total[p] / share[p]))
                result[patient] = part
                here[part] += 1
                total[part] += 1
    return result


def _cut(members: Mapping[str, list[str]], fractions: Sequence[float]) -> dict[str, str]:
    result = {}
    owed = np.zeros(len(PARTS))
    share = np.asarray(fractions, dtype=float)
    for stratum in sorted(members, key=lambda s: (-len(members[s]), s)):
        patients = members[stratum]
        owed += share * len(patients)
        counts = np.maximum(np.floor(owed + 1e-9), 0).astype(int)
        while counts.sum() > len(patients):
            counts[np.argmax(np.where(counts > 0, counts - owed, -np.inf))] -= 1
        while counts.sum() < len(patients):
            counts[np.argmax(np.where(share > 0, owed - counts, -np.inf))] += 1
        owed -= counts
        parts = np.repeat(PARTS, counts)
        result.update({patient: str(part) for patient, part in zip(patients, parts, strict=True)})
    return result


@dataclass(frozen=True)
class Subset:
    """The labelled rows that one fraction and seed leave: positions into the truth.

    `record`: {"fraction", "seed", "train": counts, "val": counts, "note"}, with counts =
    {"requested_patients", "patients", "images", "per_class": {name: images}}.
    """

    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
    record: dict[str, Any]


def draw_subset(splits: Splits, truth: Truth, fraction: float, seed: int) -> Subset:
    """Draw a fraction of the labelled patients of train and of val; each must have one.

    For each seed the patients of a part stand in one order that interleaves the strata (a patient's worst
    class) evenly; a fraction is a prefix of it, so fractions of one seed nest. Each class that the part has
    keeps its first patient of that order whatever the fraction.

    Of k shots (fraction -k, see `label_budget`) train and val have k patients of each stratum, the first of
    the seed's order, so that fewer are among more.

    Raises:
        InputError: a part has no labelled patient, or fewer than k of a class.
    """
    if not is_budget(fraction):
        raise InputError(f"fraction {fraction}: must be above 0 and at most 1, or -k for k per class")
    if not any(splits.part(str(patient)) for patient in truth.patient_ids):
        raise InputError(
            f"no labelled patient is in the splits (the labels have '{truth.patient_ids[0]}', the splits "
            f"'{min(splits.of)}'); are they of this manifest?"
        )
    drawn: dict[str, npt.NDArray[np.int64]] = {}
    record: dict[str, Any] = {"fraction": fraction, "seed": seed}
    notes = []
    pools = {part: np.flatnonzero(splits.rows(part, truth.patient_ids)) for part in ("train", "val")}
    for part, pool in pools.items():
        if not len(pool):
            raise InputError(f"the {part} part has no labelled patient; check {FILE} and the task")
    shots = shots_of(fraction)
    of_classes = {} if shots is None else _shots(truth, pools, shots, seed)
    for part, pool in pools.items():
        if shots is None:
            order, first = _order(truth.at(pool), seed)
            requested = max(1, round(fraction * len(order)))
            chosen = set(order[:requested]) | set(first.values())
        else:
            chosen = of_classes[part]
            requested = len(chosen)
        rows = np.array([row for row in pool if truth.patient_ids[row] in chosen], dtype=np.int64)
        drawn[part] = rows
        record[part] = {"requested_patients": requested, **counts(truth, rows)}
        absent = [name for name, images in record[part]["per_class"].items() if not images]
        notes += [f"{part} has no image of class {name}" for name in absent]
        if len(chosen) > requested:
            notes.append(f"{part} has {len(chosen) - requested} more patients, to keep every class")
    num_val = record["val"]["patients"]
    if num_val < FEW_VAL:
        notes.append(f"few patients in val ({num_val}): what is chosen on them is partly chance")
    record["note"] = "; ".join(notes)
    return Subset(drawn["train"], drawn["val"], record)


def _shots(
    truth: Truth, pools: Mapping[str, npt.NDArray[np.int64]], shots: int, seed: int
) -> dict[str, set[str]]:
    """So many patients of each stratum in each part; the strata are those of both parts together."""
    both = truth.at(np.concatenate(list(pools.values())))
    of, names = worst_class(both), _stratum_names(both)
    if truth.y.ndim == 2:  # patients without any finding, and findings that a rarer one always goes with
        names = {stratum: name for stratum, name in names.items() if stratum in of.values()}
    counted = "worst class" if truth.y.ndim == 1 else "rarest finding"
    chosen: dict[str, set[str]] = {}
    lacking, smallest = [], shots
    for part, pool in pools.items():
        members: dict[int, list[str]] = {stratum: [] for stratum in names}
        for patient in sorted(set(truth.patient_ids[pool].tolist()), key=lambda one: _key(seed, one)):
            members[of[patient]].append(patient)
        chosen[part] = {patient for patients in members.values() for patient in patients[:shots]}
        few = {names[one]: len(patients) for one, patients in members.items() if len(patients) < shots}
        lacking += [f"{part} has {num} of '{name}'" for name, num in few.items()]
        smallest = min([smallest, *few.values()])
    if lacking:
        most = f"ask for {smallest} or fewer" if smallest else "use another task"
        raise InputError(
            f"{shots} labelled patients per class: {', '.join(lacking)} (a patient counts for its "
            f"{counted}); {most}, or give `fraction`"
        )
    return chosen


def _stratum_names(truth: Truth) -> dict[int, str]:
    """Of each stratum of `worst_class` the name that a person knows it by."""
    names = dict(enumerate(truth.class_names))
    if truth.y.ndim == 1:
        return names
    rarest_last = np.argsort(-(truth.y == 1).sum(axis=0), kind="stable").tolist()
    return {0: "no finding", **{rank + 1: names[column] for rank, column in enumerate(rarest_last)}}


def counts(truth: Truth, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Patients, images, and images of each class among these rows of the truth."""
    y = truth.y[rows]
    images = (y == 1).sum(axis=0) if y.ndim == 2 else np.bincount(y, minlength=len(truth.class_names))
    per_class = {name: int(n) for name, n in zip(truth.class_names, images, strict=True)}
    return {"patients": len(set(truth.patient_ids[rows])), "images": len(rows), "per_class": per_class}


def worst_class(truth: Truth) -> dict[str, int]:
    """Each patient's stratum: its highest class, or for multilabel its rarest finding plus 1 (0: none)."""
    y = truth.y
    if y.ndim == 2:
        rarity = np.argsort(np.argsort(-(y == 1).sum(axis=0), kind="stable"), kind="stable")
        y = np.where(y == 1, rarity + 1, 0).max(axis=1)
    worst: dict[str, int] = {}
    for patient, value in zip(truth.patient_ids.tolist(), y.tolist(), strict=True):
        worst[patient] = max(worst.get(patient, 0), value)
    return worst


def _order(part: Truth, seed: int) -> tuple[list[str], dict[tuple[int, int], str]]:
    """The patients in the seed's order, and the first patient of each class in it."""
    members: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for patient, stratum in worst_class(part).items():
        members[stratum].append((_key(seed, patient), patient))
    placed = [
        ((rank + 0.5) / len(patients), key, patient)
        for patients in members.values()
        for rank, (key, patient) in enumerate(sorted(patients))
    ]
    order = [patient for _, _, patient in sorted(placed)]
    position = {patient: i for i, patient in enumerate(order)}
    columns = part.y if part.y.ndim == 2 else part.y[:, None]
    first: dict[tuple[int, int], str] = {}
    for row in np.argsort([position[patient] for patient in part.patient_ids.tolist()], kind="stable"):
        for column, value in enumerate(columns[row].tolist()):
            if value >= 0:
                first.setdefault((column, value), str(part.patient_ids[row]))
    return order, first
