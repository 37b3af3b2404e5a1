"""Spellings of one patient's id have one form; ids of two patients keep two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trabecula.patient_ids import canonical, in_scientific_notation, spelled_alike

ONE = [
    ("9000000", "9000000.0", "9000000.", "9.0E6", "9E+06", "09000000", " 9000000 ", "\ufeff9000000"),
    ("7", "007", "7.00"),
    ("0", "000", "0.0"),
    ("p1", "P1", "\uff30\uff11"),
    ("a b", "a  b", "a\u00a0b", "A B "),
    ("j\u00f6rg", "jo\u0308rg", "J\u00d6RG"),
    ("100000", "1E5"),
]


@pytest.mark.parametrize("spellings", ONE)
def test_spellings_of_a_patient_have_one_form(spellings: tuple[str, ...]) -> None:
    assert {canonical(spelling) for spelling in spellings} == {spellings[0]}


@pytest.mark.parametrize(
    ("first", "second"),
    [("7", "70"), ("P1", "P01"), ("1-2", "12"), ("1.5", "15"), ("1.5", "1"), ("a b", "ab"), ("1E5x", "1E5")],
)
def test_ids_of_two_patients_differ(first: str, second: str) -> None:
    assert canonical(first) != canonical(second)


@given(st.text())
def test_the_form_is_its_own_form(patient: str) -> None:
    assert canonical(canonical(patient)) == canonical(patient)


@given(st.integers(0, 10**18), st.integers(0, 4))
def test_leading_zeros_and_decimal_points_do_not_count(number: int, zeros: int) -> None:
    assert canonical(f"{'0' * zeros}{number}.0") == str(number)


def test_scientific_notation_is_seen() -> None:
    assert [in_scientific_notation(cell) for cell in ("9.00E+06", "1E5", "E5", "1E", "12", "1e5x")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip


def test_patients_of_several_spellings_are_listed() -> None:
    assert spelled_alike(["7", "8", "007", "P1", "p1", "7"]) == [("007", "7"), ("P1", "p1")]
    assert spelled_alike(["7", "8"]) == []
