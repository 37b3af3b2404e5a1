"""The pretraining pool: whose images an encoder may learn from without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trabecula.config import suggest
from trabecula.data.splits import Splits, in_hash_order
from trabecula.data.store import Store
from trabecula.errors import InputError


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
