"""Shots and parts of the labels as one number: told apart, sorted and named."""

from __future__ import annotations

import pytest

from trabecula.artifacts.label_budget import fewest_first, is_budget, labels_used, of_shots, shots_of
from trabecula.sections.numbers import share


def test_a_budget_says_what_it_is() -> None:
    assert [shots_of(value) for value in (of_shots(5), of_shots(1), 1.0, 0.05)] == [5, 1, None, None]
    assert sorted([1.0, -10.0, 0.05, -1.0, -5.0], key=fewest_first) == [-1.0, -5.0, -10.0, 0.05, 1.0]
    plain = [labels_used(v).replace("\N{NO-BREAK SPACE}", " ") for v in (-1.0, -5.0, 0.05, 1.0)]
    assert plain == ["1 patient per class", "5 patients per class", "5 % of labels", "100 % of labels"]
    assert share(-5.0).replace("\N{NO-BREAK SPACE}", " ") == "5 per class"


@pytest.mark.parametrize(
    ("value", "wanted"), [(0.0, False), (1.0, True), (1.5, False), (-2.0, True), (-0.5, False)]
)
def test_other_numbers_are_no_budget(value: float, wanted: bool) -> None:
    assert is_budget(value) is wanted
