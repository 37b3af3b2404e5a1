"""Leaks: patients, or copies of their images, in two sets that must be separate.

Checked: a patient in two parts; a patient of the manifest in none; a validation or test patient
in an encoder's card or in a pretraining pool, or seen by the generator that made the pool; a generator's
images outside train; the same pixels under two patients in two parts, or in a pool that is a store.
A store of the very manifest is no leak: pretraining reads it with the splits, and leaves val and test out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trabecula.artifacts.encoder import read_encoder_card
from trabecula.artifacts.generated import is_generated
from trabecula.artifacts.manifest import FILE as MANIFEST_FILE
from trabecula.artifacts.manifest import Manifest
from trabecula.artifacts.patient_hashes import key_name, seen_among, site_key
from trabecula.artifacts.splits import FILE as SPLITS_FILE
from trabecula.artifacts.splits import PARTS, split_rows
from trabecula.artifacts.store import INDEX_FILE, StoreRecord, is_store, read_fingerprints, read_store_record
from trabecula.config import dump, suggest
from trabecula.data.copies import Copies, find_copies
from trabecula.errors import InputError
from trabecula.files import sha256_of
from trabecula.spreadsheet import read_table

_HELD_OUT = {"val", "test"}


@dataclass
class Findings:
    """What a check found, each in one line."""

    leaks: list[str]
    unchecked: list[str] = field(default_factory=list)  # what could not be checked
    notes: list[str] = field(default_factory=list)
    by_bytes: list[str] = field(default_factory=list)  # images that were compared by their bytes alone


def check(
    manifest: Manifest, splits: Path, encoders: Sequence[Path] = (), pools: Sequence[Path] = ()
) -> Findings:
    """Look for leaks; each is named with the manifest's row and the patient.

    manifest: of the downstream tasks. splits: splits.csv or its folder; may hold what `read_splits` refuses.
    encoders: encoder folders or their cards. pools: what networks are pretrained on: manifests, stores, or
    any table with `patient_id`.
    """
    parts, leaks = _parts(splits)
    rows: dict[str, int] = {}  # each patient's first row, counted as a spreadsheet does: the header is row 1
    for row, patient in enumerate(manifest.table["patient_id"], 2):
        rows.setdefault(str(patient), row)
    for patient, its in sorted(parts.items()):
        if len(its) > 1:
            leaks.append(f"{_row_of(patient, rows)}patient {patient} is in {' and in '.join(sorted(its))}")
    held_out = {patient: sorted(its & _HELD_OUT) for patient, its in parts.items() if its & _HELD_OUT}
    for patient, names in sorted(held_out.items()):
        if is_generated(patient):
            leaks.append(f"{patient} is a generator and is in {' and in '.join(names)}")
    unassigned = {patient: row for patient, row in rows.items() if patient not in parts}
    leaks += [f"manifest row {row}: patient {patient} has no split" for patient, row in unassigned.items()]
    held = {patient: names[0] for patient, names in held_out.items()}
    for path in encoders:
        leaks += _seen(dump(read_encoder_card(path)), "the encoder", path, held, rows)
    found = Findings(leaks)
    known: dict[str, str] = {}
    others: list[Path] = []
    for path in pools:
        record = read_store_record(path) if is_store(path) else None
        if record and record.manifest == sha256_of(manifest.path):
            note = "is the store of this manifest, of which pretrain leaves val and test out"
            found.notes.append(f"{path} {note}")
            known |= read_fingerprints(path)
        else:
            leaks += _in_pool(path, record, held, rows)
            others += [path] if record else []
    copies = find_copies(manifest, parts, known)
    _add_copies(found, manifest, copies)
    for path in others:
        leaks += _copies_in_pool(path, manifest, held, copies.prints)
    return found


def _add_copies(found: Findings, manifest: Manifest, copies: Copies) -> None:
    found.leaks += copies.leaks
    if copies.unread:
        what = _first(copies.unread, manifest, "cannot be read")
        found.unchecked.append(f"{what}, so they could not be compared for duplicates")
    if copies.undecoded:
        what = _first(copies.undecoded, manifest, "hold no usable image")
        found.by_bytes.append(f"{what}; they were compared by their bytes")


def _first(rows: Sequence[int], manifest: Manifest, what: str) -> str:
    path = manifest.table["path"].iloc[rows[0]]
    first = f"the first is that of manifest row {rows[0] + 2}, {path}"
    return f"{len(rows):,} of {len(manifest):,} image files {what} ({first})"


def _parts(splits: Path) -> tuple[dict[str, set[str]], list[str]]:
    """The parts of each patient, and the rows with a part that is none."""
    parts: dict[str, set[str]] = defaultdict(set)
    unknown = []
    for row, patient, part in split_rows(splits):
        parts[patient].add(part)
        if part not in PARTS:
            unknown.append(f"{SPLITS_FILE} row {row}: patient {patient} has the unknown split '{part}'")
    return parts, unknown


def _row_of(patient: str, rows: dict[str, int]) -> str:
    return f"manifest row {rows[patient]}: " if patient in rows else ""


def _seen(
    card: dict[str, Any], who: str, path: Path, held: dict[str, str], rows: dict[str, int]
) -> list[str]:
    """Held-out patients among those that a card says were seen."""
    if not card.get("patients"):
        unlisted = f"the {who.split()[1]} saw images, but its card lists no patients: it cannot be checked"
        return [f"{path}: {unlisted}"] if card.get("images_seen") else []
    found = seen_among(held, card)
    if found is None:
        keys = f"under key {card.get('patients_key') or 'unknown'}, this site's is {key_name(site_key())}"
        return [f"{path}: the card's patients are hashed {keys}: it cannot be checked here"]
    return [f"{_row_of(p, rows)}{held[p]} patient {p} was seen by {who} {path}" for p in found]


def _in_pool(path: Path, record: StoreRecord | None, held: dict[str, str], rows: dict[str, int]) -> list[str]:
    if record and record.generated:
        return _seen(dump(record.generated), "the generator of", path, held, rows)
    names = (MANIFEST_FILE, INDEX_FILE)
    file = next((path / name for name in names if (path / name).exists()), path) if path.is_dir() else path
    table = read_table(file)
    if "patient_id" not in table.columns:
        raise InputError(f"{file}: no column 'patient_id'{suggest('patient_id', list(table.columns))}")
    shared = sorted(set(table["patient_id"]) & set(held))
    return [f"{_row_of(p, rows)}{held[p]} patient {p} is in the pool {path}" for p in shared]


def _copies_in_pool(
    path: Path, manifest: Manifest, held: dict[str, str], prints: dict[int, str]
) -> list[str]:
    """Held-out images whose pixels are in a store, under another patient."""
    pooled = set(read_fingerprints(path).values())
    known = (
        set(read_table((path if path.is_dir() else path.parent) / INDEX_FILE)["patient_id"])
        if pooled
        else set()
    )
    patients = manifest.table["patient_id"].tolist()
    asked = {
        row: value for row, value in prints.items() if patients[row] in held and patients[row] not in known
    }
    rows = [row for row, value in asked.items() if value in pooled]
    shown = {row: f"the image of {held[patients[row]]} patient {patients[row]}" for row in rows}
    return [
        f"manifest row {row + 2}: {shown[row]} is in the pool {path} under another patient" for row in rows
    ]
