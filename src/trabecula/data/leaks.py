"""Leaks: patients, or copies of their images, in two sets that must be separate.

Patients are compared by the canonical form of their ids. Checked: a patient in two parts, or under two
spellings of the id; a patient of the manifest in none; a validation or test patient
in an encoder's card or in a pretraining pool, or seen by the generator that made the pool; a generator's
images outside train; the same pixels under two patients in two parts, or in a pool that is a store.
A store of the very manifest is no leak: pretraining reads it with the splits, and leaves val and test out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
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
from trabecula.patient_ids import SPELLINGS_REMEDY, canonical
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
    manifest: Manifest,
    splits: Path,
    encoders: Sequence[Path] = (),
    pools: Sequence[Path] = (),
    differ: bool = False,
) -> Findings:
    """Look for leaks; each is named with the manifest's row and the patient.

    manifest: of the downstream tasks. splits: splits.csv or its folder; may hold what `read_splits` refuses.
    encoders: encoder folders or their cards. pools: what networks are pretrained on: manifests, stores, or
    any table with `patient_id`. differ: ids that differ in spelling alone are different people.
    """
    people = _People(str if differ else canonical)
    leaks, parts = _in_splits(manifest, splits, people)
    if not differ:
        leaks += [people.several(one) for one in people.ids if len(people.ids[one]) > 1]
    held = {one: sorted(its & _HELD_OUT)[0] for one, its in parts.items() if its & _HELD_OUT}
    for path in encoders:
        leaks += _seen(dump(read_encoder_card(path)), "the encoder", path, held, people)
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
            leaks += _in_pool(path, record, held, people)
            others += [path] if record else []
    of_ids = {patient: parts.get(one, set()) for one in people.ids for patient in people.ids[one]}
    copies = find_copies(manifest, of_ids, known)
    _add_copies(found, manifest, copies)
    for path in others:
        leaks += _copies_in_pool(path, manifest, held, people, copies.prints)
    return found


def _in_splits(manifest: Manifest, splits: Path, people: _People) -> tuple[list[str], dict[str, set[str]]]:
    """Patients in two parts, in none or in one they must not be in; and the parts of each patient."""
    parts: dict[str, set[str]] = defaultdict(set)
    leaks = []
    for row, patient, part in split_rows(splits):
        parts[people.add(patient)].add(part)
        if part not in PARTS:
            leaks.append(f"{SPLITS_FILE} row {row}: patient {patient} has the unknown split '{part}'")
    for position, patient in enumerate(manifest.table["patient_id"]):
        people.add(str(patient), manifest.row_number(position))
    for one, its in sorted(parts.items()):
        if len(its) > 1:
            leaks.append(f"{people.named(one)} is in {' and in '.join(sorted(its))}")
        if its & _HELD_OUT and any(is_generated(patient) for patient in people.ids[one]):
            leaks.append(f"{min(people.ids[one])} is a generator and is in {' and in '.join(sorted(its))}")
    leaks += [f"{people.named(one)} has no split" for one in people.rows if one not in parts]
    return leaks, parts


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
    first = f"the first is that of manifest row {manifest.row_number(rows[0])}, {path}"
    return f"{len(rows):,} of {len(manifest):,} image files {what} ({first})"


class _People:
    """Patients by the form of their ids, with every spelling and the rows of the manifest they are in."""

    def __init__(self, form: Callable[[str], str]) -> None:
        self.form = form
        self.ids: dict[
            str, dict[str, int]
        ] = {}  # spellings, and the first row of each; 0: not in the manifest
        self.rows: dict[str, int] = {}  # the patient's first row

    def add(self, patient: str, row: int = 0) -> str:
        one = self.form(patient)
        spellings = self.ids.setdefault(one, {})
        spellings[patient] = spellings.get(patient) or row
        if row:
            self.rows.setdefault(one, row)
        return one

    def named(self, one: str, part: str = "") -> str:
        """ "manifest row 7: test patient p3"."""
        where = f"manifest row {self.rows[one]}: " if one in self.rows else ""
        return f"{where}{part + ' ' if part else ''}patient {' = '.join(sorted(self.ids[one]))}"

    def several(self, one: str) -> str:
        """What to say of a patient whose id is spelled in several ways."""
        said = [f"'{patient}' ({f'manifest row {row}' if row else SPLITS_FILE})"
                for patient, row in sorted(self.ids[one].items())]  # fmt: skip
        return f"one patient may stand under several spellings: {' and '.join(said)}; {SPELLINGS_REMEDY}"


def _seen(card: dict[str, Any], who: str, path: Path, held: dict[str, str], people: _People) -> list[str]:
    """Held-out patients among those that a card says were seen."""
    if not card.get("patients"):
        unlisted = f"the {who.split()[1]} saw images, but its card lists no patients: it cannot be checked"
        return [f"{path}: {unlisted}"] if card.get("images_seen") else []
    of = {patient: one for one in held for patient in people.ids[one]}
    found = seen_among(of, card)
    if found is None:
        keys = f"under key {card.get('patients_key') or 'unknown'}, this site's is {key_name(site_key())}"
        return [f"{path}: the card's patients are hashed {keys}: it cannot be checked here"]
    seen = sorted({of[patient] for patient in found})
    return [f"{people.named(one, held[one])} was seen by {who} {path}" for one in seen]


def _in_pool(path: Path, record: StoreRecord | None, held: dict[str, str], people: _People) -> list[str]:
    if record and record.generated:
        return _seen(dump(record.generated), "the generator of", path, held, people)
    names = (MANIFEST_FILE, INDEX_FILE)
    file = next((path / name for name in names if (path / name).exists()), path) if path.is_dir() else path
    table = read_table(file)
    if "patient_id" not in table.columns:
        raise InputError(f"{file}: no column 'patient_id'{suggest('patient_id', list(table.columns))}")
    of = {people.form(patient): patient for patient in table["patient_id"]}
    found = []
    for one in sorted(of.keys() & held.keys()):
        also = "" if of[one] in people.ids[one] else f" as {of[one]}"
        found.append(f"{people.named(one, held[one])} is in the pool {path}{also}")
    return found


def _copies_in_pool(
    path: Path, manifest: Manifest, held: dict[str, str], people: _People, prints: dict[int, str]
) -> list[str]:
    """Held-out images whose pixels are in a store, under another patient."""
    pooled = set(read_fingerprints(path).values())
    if not pooled:
        return []
    index = read_table((path if path.is_dir() else path.parent) / INDEX_FILE)
    known = {people.form(patient) for patient in index["patient_id"]}
    leaks = []
    for row, patient in enumerate(manifest.table["patient_id"]):
        one = people.form(patient)
        if one in held and one not in known and prints.get(row) in pooled:
            image = f"manifest row {manifest.row_number(row)}: the image of {held[one]} patient {patient}"
            leaks.append(f"{image} is in the pool {path} under another patient")
    return leaks
