"""Which cells are one value, which are numbers, and which lie far from all others."""

from __future__ import annotations

import pytest

from trabecula.artifacts.label_values import (
    counted,
    far_values,
    first_spellings,
    missing_codes,
    number,
    same,
    spelled_differently,
)


@pytest.mark.parametrize(
    ("cell", "value"),
    [("2", 2), ("2.0", 2), ("2,0", 2), ("1,5", 1.5), ("\uff12", 2), ("TRUE", 1), ("False", 0), ("-1", -1),
     (".5", 0.5), ("2,000", None), ("1,2,3", None), ("", None), ("x", None), ("yes", None)],
)  # fmt: skip
def test_numbers(cell, value):
    assert number(cell) == value


@pytest.mark.parametrize("pair", [("Yes", "yes"), ("no finding", "No  Finding"), ("2", "2,0"), ("true", "1")])
def test_one_value(pair):
    assert same(*pair)


def test_values_are_counted_under_their_commonest_spelling_in_order():
    assert counted(["yes", "Yes", "yes", "no", ""]) == {"no": 1, "yes": 3}
    assert list(counted(["10", "2.0", "2", "b", "A"])) == ["2", "10", "A", "b"]
    assert spelled_differently(["Yes", "yes", "no", "2", "2.0"]) == [("Yes", "yes")]


@pytest.mark.parametrize(
    ("values", "far"),
    [
        ("0 0 1 2 3 4 22", "22"), ("0 0 1 2 3 9 9", "9"), ("0 1 1 2 2 88 99", "88 99"),
        ("0 0 1 1 9 99", "9 99"), ("0 1 0 1 -9", "-9"), ("0 1 2 3 4", ""), ("0 1 2 8", "8"), ("0 12", ""),
        ("0 9", ""), ("0 2 4 8", ""),
        ("2500 2682 2894", ""), ("58 60 81", ""), ("1.5 0 2 3 22", "22"), ("x y 0 1", ""),
    ],
)  # fmt: skip
def test_far_values(values, far):
    assert far_values(counted(values.split())) == far.split()


def test_codes_for_not_known():
    assert missing_codes(counted("001233") | {"99": 1, "9": 1}) == ["9", "99"]
    assert missing_codes(counted("00123") | {"22": 1}) == []


def test_first_spellings():
    cells = ["Yes", "no", "YES", "", "2.0", "2", "a  b", "A b", "Yes"]
    assert list(map(first_spellings(cells).get, cells)) == [
        "Yes", "no", "Yes", "", "2.0", "2.0", "a  b", "a  b", "Yes",
    ]  # fmt: skip
