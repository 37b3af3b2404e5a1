"""The pretraining pool: whose images an encoder may learn from, and which patients it has then seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trabecula
from trabecula.artifacts.encoder import EncoderCard
from trabecula.artifacts.generated import is_generated
from trabecula.artifacts.label_values import in_any_spelling
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.patient_hashes import key_name, mark, site_key
from trabecula.artifacts.splits import Splits, in_hash_order
from trabecula.artifacts.store import Store, rows_of
from trabecula.artifacts.tasks import Task, find_task, truth
from trabecula.config import suggest
from trabecula.errors import InputError
from trabecula.patient_ids import canonical

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Labelled:
    """Labelled images of the training part.

    rows: (n,) of the store. patients: (n,). y: (n,) classes, or (n, L) findings with -1 where masked.
    """

    task: Task
    rows: Rows
    patients: NDArray[np.str_]
    y: NDArray[np.int64]

    def where(self, keep: NDArray[np.bool_]) -> Labelled:
        """Those of a mask (n,)."""
        return replace(self, rows=self.rows[keep], patients=self.patients[keep], y=self.y[keep])

    def among(self, rows: Rows) -> Labelled:
        """Those that are in these rows of the store; an InputError if they are not of two classes."""
        found = self.where(np.isin(self.rows, rows))
        if len(np.unique(found.y[found.y >= 0])) < 2:
            raise InputError(
                f"pretrain: {len(found.rows)} images of the pool have a label of task '{self.task.name}' and "
                "are in the training part, and they are not of two classes; check task, splits, "
                "pool_cohorts and pool_fraction"
            )
        return found


def labelled_training_part(store: Store, splits: Splits, manifest: Path, task: str) -> Labelled:
    """The store's labelled images whose patients are in the training part: never validation, never test."""
    read = read_manifest(manifest)
    found = find_task(task, read)
    known = truth(found, read).among(set(store.index["image_id"]), store.path, "not in the store")
    train = splits.rows("train", known.patient_ids)
    if not train.any():
        raise InputError(f"pretrain: no image with a label of task '{task}' is in the training part")
    return Labelled(found, rows_of(store, known.image_ids[train]), known.patient_ids[train], known.y[train])


def evenly(rows: Rows, num: int) -> Rows:
    """At most `num` of the rows, evenly spread."""
    places = np.linspace(0, len(rows) - 1, min(num, len(rows))).round().astype(int)
    return rows[places]  # type: ignore[no-any-return]


def pretraining_pool(
    store: Store, splits: Splits, cohorts: Sequence[str] = (), fraction: float = 1.0, seed: int = 0
) -> tuple[Rows, list[str]]:
    """Rows of the store outside the validation and test parts, and their patients, sorted.

    cohorts: values of the store's column `cohort` that are taken; empty: all.
    fraction: of the pool's patients, at least one; smaller fractions of a seed are inside larger ones.
    """
    patients = store.index["patient_id"].to_numpy()
    free = ~(splits.rows("val", patients) | splits.rows("test", patients))
    if not free.any():
        raise InputError("pretrain: every image belongs to a validation or test patient; none is left")
    if cohorts and not (free := free & _of(store, cohorts)).any():
        which = f"all patients of pool_cohorts {', '.join(cohorts)}"
        raise InputError(f"pretrain: {which} are in the validation or test part; none is left")
    members = sorted(set(patients[free]))
    kept = set(in_hash_order(members, seed)[: max(1, round(fraction * len(members)))])
    rows = np.flatnonzero(free & np.array([patient in kept for patient in patients], dtype=bool))
    return rows, sorted(kept)


def _of(store: Store, cohorts: Sequence[str]) -> NDArray[np.bool_]:
    """Rows of these cohorts."""
    if "cohort" not in store.index:
        remedy = "the store names no cohorts; its manifest needs a column cohort when it is prepared"
        raise InputError(f"pretrain: pool_cohorts {', '.join(cohorts)}: {remedy}")
    known = sorted(set(store.index["cohort"]))
    for cohort in cohorts:
        if not any(in_any_spelling(known, [cohort])):
            guess = suggest(cohort, known)
            raise InputError(f"pretrain: pool_cohorts: the store has no cohort '{cohort}'{guess}")
    return np.array(in_any_spelling(store.index["cohort"], cohorts), dtype=bool)


def check_contrast(store: Store, rows: Rows) -> None:
    """Refuse a pool of images without content: all the same, or each of one grey, in these of its rows."""
    images = store.read(rows).flatten(1).numpy()
    alike = len(images) > 1 and (images == images[0]).all()
    if alike or (images.max(1) == images.min(1)).all():
        problem = "are all the same image" if alike else "are blank, each of one grey"
        raise InputError(
            f"pretrain: the {len(images)} images of the pool that were checked {problem}, so there is "
            "nothing to learn; look at the store's images, and at the intensity rule they were prepared with"
        )


@dataclass(frozen=True)
class Pool:
    """Images that are learned from, and what each carries beside.

    rows: (n,) of the store. patients: theirs, sorted. fields: by name, (n, ...) each (`data.batches.FIELDS`).
    """

    rows: Rows
    patients: list[str]
    fields: dict[str, NDArray[Any]]


def with_fields(
    method: str,
    names: Sequence[str],
    store: Store,
    rows: Rows,
    patients: list[str],
    labelled: Labelled | None,
) -> Pool:
    """The pool of a method that learns from these fields; with labels, of the labelled images alone."""
    fields: dict[str, NDArray[Any]] = {}
    if "labels" in names and labelled is not None:
        found = labelled.among(rows)
        rows, patients, fields["labels"] = found.rows, sorted(set(found.patients)), found.y
    if "patient" in names:
        ids = [canonical(patient) for patient in store.index["patient_id"].iloc[rows]]
        fields["patient"] = np.unique(ids, return_inverse=True)[1]
    missing = [name for name in names if name not in fields]
    if missing:
        raise InputError(
            f"pretrain: {method} learns from images with {' and '.join(missing)}, and the store of "
            f"{store.path} does not hold that; choose another objective"
        )
    return Pool(rows, patients, fields)


def check_key(card: EncoderCard, start: Path | None, store: Store) -> None:
    """Before the work: the site's key can be read, and hashes of the start and of generators are under it.

    card: of the encoder as it starts. start: where that one is, for the message.
    """
    key = key_name(site_key())
    made = [(part.path, part.record.generated) for part in store.parts]
    for where, its in ((start, card), *made):
        if its and its.patients and its.patients_key != key:
            raise InputError(
                f"{where}: its patients were hashed with another site key ({its.patients_key}), so what this "
                "encoder has seen could not be checked; set TRABECULA_SITE_KEY to that site's key"
            )


def seen_after(card: EncoderCard, store: Store, patients: Sequence[str]) -> set[str]:
    """Hashes of all patients that the encoder will have seen once it learned from these of the store.

    Empty where some of them are not known: a list that looks whole and is not would let test patients pass.
    """
    seen = {*mark(patients, site_key()), *card.patients}
    for part in store.parts if patients else ():  # those that generated images came from
        seen |= {*part.record.generated.patients} if part.record.generated else set()
    unknown = any(_of_unknown(part, patients) for part in store.parts)
    return set() if unknown or (card.images_seen and not card.patients) else seen


def _of_unknown(store: Store, patients: Sequence[str]) -> bool:
    """Whether the pool holds generated images of a generator whose patients are not known."""
    made = store.record.generated
    known = made is not None and (bool(made.patients) or made.images_seen == 0)
    own = set(store.index["patient_id"])
    return not known and any(is_generated(patient) and patient in own for patient in patients)


def strangers(store: Store, splits: Splits) -> str:
    """What to say of stores of real images whose patients are all unknown to the splits; "" of others."""
    real = {str(number): part for number, part in enumerate(store.parts, 1) if part.record.generated is None}
    unknown = [
        number for number, part in real.items() if not any(map(splits.part, set(part.index["patient_id"])))
    ]
    which = "them" if len(store.parts) == 1 else f"store {' and '.join(unknown)}"
    return f"; none of {which} is in the splits, are they of this store?" if unknown else ""


def card_after(
    card: EncoderCard, store: Store, seed: int, pool: Pool | None = None, task: str = "", **training: Any
) -> EncoderCard:
    """The card of an encoder once it has learned from a pool of the store, but for the number of images.

    card: as it starts. pool: what it learns from; None for an encoder without pretraining. task: whose labels
    it learns from, where the pool carries labels. training: more of the card's fields, such as the objective.
    """
    patients = pool.patients if pool else []
    seen, taught = seen_after(card, store, patients), bool(pool and "labels" in pool.fields)
    labels = [*filter(None, card.labels.split("; ")), *([task] if taught else [])]
    changes = {
        "labels": "; ".join(dict.fromkeys(labels)),
        "num_labelled_patients": max(card.num_labelled_patients, len(patients) if taught else 0),
        "store": store.id, "stores": tuple(part.id for part in store.parts) if len(store.parts) > 1 else (),
        "preprocessing": store.preprocessing, "prepared": store.prepared,
        "seed": seed, "version": trabecula.__version__, "patients": tuple(sorted(seen)),
        "patients_key": key_name(site_key()) if seen or patients or card.images_seen else "",
    }  # fmt: skip
    return card.model_copy(update={**training, **changes})
