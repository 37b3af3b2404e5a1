"""The pretraining pool: never a held-out patient; cohorts and nested parts of it by patient."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from trabecula.artifacts.splits import Splits, _key, in_hash_order
from trabecula.data.pretraining_pool import pretraining_pool
from trabecula.errors import InputError


def store(cohorts: bool = True) -> Any:
    """40 patients, two images each; patients 0 to 19 are of cohort a."""
    patients = [f"p{k // 2:02d}" for k in range(80)]
    columns = {"image_id": [f"i{k}" for k in range(80)], "patient_id": patients}
    if cohorts:
        columns["cohort"] = ["a" if patient < "p20" else "b" for patient in patients]
    return SimpleNamespace(index=pd.DataFrame(columns))


SPLITS = Splits(
    {f"p{k:02d}": "val" if k < 3 else "test" if k < 6 else "train" for k in range(30)}
)  # 30 to 39: none


def test_the_pool_is_whoever_is_not_held_out() -> None:
    rows, patients = pretraining_pool(store(), SPLITS)
    assert patients == [f"p{k:02d}" for k in range(6, 40)]
    assert rows.tolist() == list(range(12, 80))


def test_cohorts_are_taken_whole_but_for_the_held_out() -> None:
    rows, patients = pretraining_pool(store(), SPLITS, ["a"])
    assert patients == [f"p{k:02d}" for k in range(6, 20)]
    assert len(rows) == 28
    both = pretraining_pool(store(), SPLITS, ["a", "b"])[1]
    assert both == pretraining_pool(store(), SPLITS)[1]


def test_parts_are_by_patient_nest_and_differ_by_seed() -> None:
    parts = [set(pretraining_pool(store(), SPLITS, (), f, 1)[1]) for f in (0.01, 0.1, 0.5, 1.0)]
    assert [len(part) for part in parts] == [1, 3, 17, 34]
    assert all(small < large for small, large in pairwise(parts))
    rows, patients = pretraining_pool(store(), SPLITS, (), 0.5, 1)
    assert len(rows) == 2 * len(patients)
    assert pretraining_pool(store(), SPLITS, (), 0.5, 2)[1] != patients


def test_a_small_pool_is_not_just_the_labelled_patients() -> None:
    people = [f"p{k}" for k in range(400)]
    labelled = sorted(people, key=lambda patient: _key(3, patient))[:40]
    assert 0 <= len(set(in_hash_order(people, 3)[:40]) & set(labelled)) < 15  # 4 are expected by chance


@pytest.mark.parametrize(
    ("cohorts", "with_column", "told"),
    [
        (["c"], True, "the store has no cohort 'c'"),
        (["a"], False, "the store names no cohorts"),
    ],
)
def test_unknown_cohorts_are_told(cohorts: list[str], with_column: bool, told: str) -> None:
    with pytest.raises(InputError, match=told):
        pretraining_pool(store(with_column), SPLITS, cohorts)


def test_an_empty_pool_is_told() -> None:
    everyone = Splits({f"p{k:02d}": "test" for k in range(40)})
    with pytest.raises(InputError, match="none is left"):
        pretraining_pool(store(), everyone)
    of_a = Splits({f"p{k:02d}": "test" for k in range(20)})
    with pytest.raises(InputError, match="pool_cohorts a are in the validation or test part"):
        pretraining_pool(store(), of_a, ["a"])
