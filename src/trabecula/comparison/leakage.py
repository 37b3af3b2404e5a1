"""Has a test patient been seen before: in pretraining, in training, or in choosing a threshold?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd

from trabecula.artifacts.label_budget import labels_used
from trabecula.artifacts.manifest import Manifest, manifest_digest
from trabecula.artifacts.patient_hashes import key_name, seen_among, site_key
from trabecula.artifacts.run_record import read_provenance
from trabecula.artifacts.splits import Splits
from trabecula.errors import InputError
from trabecula.patient_ids import canonical


def check_cards(cards: Iterable[Mapping[str, Any]], patients: Iterable[str], manifest: Manifest) -> None:
    """Refuse encoders that have seen one of these (test) patients, or of whom this cannot be known.

    `cards`: encoder cards as plain values, with "arm", "patients" (HMACs) and "patients_key".
    """
    patients = set(patients)
    for card in cards:
        if not card.get("patients"):
            if card.get("images_seen"):
                raise InputError(
                    f"encoder '{card['arm']}' has seen {card['images_seen']:,} images and its card lists no "
                    "patients, so test patients may be among them; use the encoder that `pretrain` wrote, "
                    "and to pretrain on samples draw them from a generator with its encoder beside it: an "
                    "exported one does not tell whom it learned from"
                )
            continue
        seen = seen_among(patients, card)
        if seen is None:
            raise InputError(
                f"encoder '{card['arm']}': its patients are hashed under site key "
                f"{card.get('patients_key') or '(no name)'}, this site's is {key_name(site_key())}; set "
                "TRABECULA_SITE_KEY to the key it was pretrained under"
            )
        if seen:
            raise InputError(
                f"encoder '{card['arm']}' was pretrained on {_named(seen, manifest)} of the test part; "
                "pretrain it again without validation and test patients"
            )


def check_parts(predictions: pd.DataFrame, manifest: Manifest, splits: Splits) -> None:
    """Refuse predictions (image_id, split: "val" or "test") whose images are in another part or unknown."""
    table = manifest.table
    patient_of = dict(zip(table["image_id"], table["patient_id"], strict=True))
    pairs = predictions[["image_id", "split"]].drop_duplicates()
    patients = pairs["image_id"].map(patient_of)
    unknown = pairs["image_id"][patients.isna()]
    if len(unknown):
        raise InputError(
            f"{manifest.path}: has no image '{unknown.iloc[0]}' that a prediction names "
            f"({unknown.nunique()} such images); give the manifest the predictions were made with"
        )
    parts = patients.map(lambda patient: splits.part(patient) or "none")
    for part in ("test", "val"):
        wrong = (pairs["split"] == part) & (parts != part)
        if wrong.any():
            seen = list(dict.fromkeys(patients[wrong]))
            raise InputError(
                f"predictions call {_named(seen, manifest)} {part}, the splits say "
                f"{', '.join(sorted(set(parts[wrong])))}; give the splits the predictions were made with"
            )


def check_manifest(folders: Iterable[Path], manifest: Manifest) -> None:
    """Refuse predictions that were made with another manifest: its labels and patients may be other ones.

    `folders`: run folders of predictions; one without a record of it, as of `predict`, passes.
    """
    given = manifest_digest(manifest.path)
    for folder in folders:
        made_with = read_provenance(folder if folder.is_dir() else folder.parent).get("manifest", given)
        if made_with != given:
            raise InputError(
                f"{folder}: its predictions were made with another manifest than {manifest.path} (sha256 "
                f"{made_with[:8]}, not {given[:8]}); give that one, or predict again with this one"
            )


def check_predicted(
    predictions: pd.DataFrame, image_ids: Iterable[str], patient_ids: Iterable[str], manifest: Manifest
) -> None:
    """Refuse models that lack a test image: they may have been trained on its patient.

    `predictions`: of one task and of the test part. `image_ids`, `patient_ids`: the task's test images.
    """
    pairs = list(zip(image_ids, patient_ids, strict=True))
    for key, rows in predictions.groupby(["arm", "mode", "fraction", "seed"]):
        arm, mode, fraction, seed = cast("tuple[str, str, float, int]", key)
        made = set(rows["image_id"])
        absent = [patient for image, patient in pairs if image not in made]
        if absent:
            raise InputError(
                f"arm '{arm}' ({mode}, {labels_used(fraction)}, seed {seed}): no prediction for "
                f"{len(absent)} of {len(pairs)} test images, of {_named([*dict.fromkeys(absent)], manifest)}"
                "; if they were made with other splits it may have been trained on that patient: make them "
                "anew with these splits (images that cannot be predicted are taken out by the task's "
                "'eligible' rule)"
            )


def _named(patients: list[str], manifest: Manifest) -> str:
    """ "patient 'a' (manifest row 7) and 3 more patients"."""
    ids, wanted = manifest.table["patient_id"], canonical(patients[0])
    row = next((row for row, patient in enumerate(ids) if canonical(patient) == wanted), None)
    number = "not in the manifest" if row is None else f"manifest row {manifest.row_number(row)}"
    return f"patient '{patients[0]}' ({number})" + (
        f" and {len(patients) - 1} more patients" if len(patients) > 1 else ""
    )
