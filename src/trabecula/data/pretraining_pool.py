"""The pretraining pool: whose images an encoder may learn from without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.splits import Splits, in_hash_order
from trabecula.artifacts.store import Store, rows_of
from trabecula.artifacts.tasks import Task, find_task, truth
from trabecula.config import suggest
from trabecula.errors import InputError


@dataclass(frozen=True)
class Labelled:
    """Labelled images of the training part.

    rows: (n,) of the store. patients: (n,). y: (n,) classes, or (n, L) findings with -1 where masked.
    """

    task: Task
    rows: NDArray[np.int64]
    patients: NDArray[np.str_]
    y: NDArray[np.int64]

    def where(self, keep: NDArray[np.bool_]) -> Labelled:
        """Those of a mask (n,)."""
        return replace(self, rows=self.rows[keep], patients=self.patients[keep], y=self.y[keep])

    def among(self, rows: NDArray[np.int64]) -> Labelled:
        """Those that stand in these rows of the store.

        Raises:
            InputError: none does, or those that do are all of one class.
        """
        found = self.where(np.isin(self.rows, rows))
        if len(np.unique(found.y[found.y >= 0])) < 2:
            raise InputError(
                f"pretrain: {len(found.rows)} images of the pool have a label of task '{self.task.name}' and "
                "stand in the training part, and they are not of two classes; look at task, splits, "
                "pool_cohorts and pool_fraction"
            )
        return found


def labelled_training_part(store: Store, splits: Splits, manifest: Path, task: str) -> Labelled:
    """The labelled images of the store whose patients are in the training part: never validation, never test.

    Raises:
        InputError: a manifest or task that cannot be read, or no such image.
    """
    read = read_manifest(manifest)
    found = find_task(task, read)
    known = truth(found, read).among(set(store.index["image_id"]), store.path, "not in the store")
    train = splits.rows("train", known.patient_ids)
    if not train.any():
        raise InputError(f"pretrain: no image with a label of task '{task}' is in the training part")
    return Labelled(found, rows_of(store, known.image_ids[train]), known.patient_ids[train], known.y[train])


def evenly(rows: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """At most `num` of the rows, evenly spread."""
    places = np.linspace(0, len(rows) - 1, min(num, len(rows))).round().astype(int)
    some: NDArray[np.int64] = rows[places]
    return some


def pretraining_pool(
    store: Store, splits: Splits, cohorts: Sequence[str] = (), fraction: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.int64], list[str]]:
    """Rows of the store outside the validation and test parts, and their patients, sorted.

    Args:
        cohorts: values of the store's column `cohort` that are taken; empty: all.
        fraction: of the pool's patients, at least one; smaller fractions of a seed lie inside larger ones.

    Raises:
        InputError: an unknown cohort, or nothing left.
    """
    held_out = set(splits.patients("val")) | set(splits.patients("test"))
    patients = store.index["patient_id"].to_numpy()
    free = np.array([patient not in held_out for patient in patients], dtype=bool)
    if not free.any():
        raise InputError("pretrain: every image belongs to a validation or test patient; none is left")
    if cohorts:
        free &= _of(store, cohorts)
        if not free.any():
            raise InputError(
                f"pretrain: all patients of pool_cohorts {', '.join(cohorts)} are in the validation or test "
                "part; none is left"
            )
    members = sorted(set(patients[free]))
    kept = set(in_hash_order(members, seed)[: max(1, round(fraction * len(members)))])
    rows = np.flatnonzero(free & np.array([patient in kept for patient in patients], dtype=bool))
    return rows, sorted(kept)


def _of(store: Store, cohorts: Sequence[str]) -> NDArray[np.bool_]:
    """Rows of these cohorts."""
    if "cohort" not in store.index:
        raise InputError(
            f"pretrain: pool_cohorts {', '.join(cohorts)}: the store names no cohorts; its manifest needs a "
            "column cohort when it is prepared"
        )
    known = sorted(set(store.index["cohort"]))
    for cohort in cohorts:
        if cohort not in known:
            raise InputError(
                f"pretrain: pool_cohorts: the store has no cohort '{cohort}'{suggest(cohort, known)}"
            )
    found: NDArray[np.bool_] = store.index["cohort"].isin(cohorts).to_numpy()
    return found


def check_contrast(store: Store, rows: NDArray[np.int64]) -> None:
    """Refuse a pool in which there is nothing to see, by looking at some of its rows.

    Raises:
        InputError: the images looked at are all the same, or each is of one grey.
    """
    images = store.read(rows).flatten(1).numpy()
    if len(images) > 1 and bool((images == images[0]).all()):
        problem = "are all the same image"
    elif bool((images.max(1) == images.min(1)).all()):
        problem = "are blank, each of one grey"
    else:
        return
    raise InputError(
        f"pretrain: the {len(images)} images of the pool that were looked at {problem}, so there is nothing "
        "to learn; look at the store's images, and at the intensity rule they were prepared with"
    )
