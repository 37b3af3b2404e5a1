"""The control study: planted effects are found, planted nulls are not, and a broken instrument is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench_scripts import load_script

BENCH = Path(__file__).parents[1] / "bench" / "instrument.py"


@pytest.fixture
def instrument(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("instrument", monkeypatch)


def fast(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code and the lines by kind."""
    command = [sys.executable, str(BENCH), "--fast", "--workers", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    return done.returncode, {line["name"].removeprefix("instrument_"): line for line in lines}


def row(kind: str, claim: str) -> dict[str, Any]:
    interval = {"difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.05}
    return {"kind": kind, **interval, "claim": claim, "own_grades": True}


def rows(kind: str, **claims: int) -> list[dict[str, Any]]:
    return [row(kind, claim) for claim, count in claims.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("some", "met"),
    [
        (rows("effect", better=16, none=4), True),
        (rows("effect", better=15, none=5), False),
        (rows("effect", worse=16, none=4), False),  # a claim in the wrong direction finds nothing
        (rows("null_noise", better=1, none=19), True),
        (rows("null_noise", better=1, worse=1, none=18), False),
        (rows("null_weights", worse=2, none=18), False),
        (rows("one_network", worse=9, none=11), True),  # reported, without a bar
    ],
)
def test_bars(instrument: ModuleType, some: list[dict[str, Any]], met: bool) -> None:
    ((line, good),) = instrument.summarise(some)
    assert good is met
    assert line["repeats"] == 20


def test_a_null_may_see_one_claim_in_twenty(instrument: ModuleType) -> None:
    assert [instrument.most_claims(repeats) for repeats in (4, 20, 39, 40, 100)] == [1, 1, 1, 2, 5]


def test_studies_of_a_hospital_with_its_own_grades_are_told_apart(instrument: ModuleType) -> None:
    some = rows("null_noise", better=1, none=4)
    for again in some[1:]:
        again["own_grades"] = False
    ((line, _),) = instrument.summarise(some)
    assert (line["repeats"], line["claimed"]) == (5, 1)
    assert line["with_own_grades"] == {"repeats": 1, "claimed": 1, "at_most": 1}


def test_more_draws_of_grades_do_not_excuse_the_fresh_hospitals(instrument: ModuleType) -> None:
    some = rows("null_noise", better=2, none=98)
    for again in some[20:]:
        again["own_grades"] = False
    ((line, met),) = instrument.summarise(some)
    assert line["claimed"] <= line["at_most"]
    assert not met


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_finds_a_planted_effect_and_no_planted_null() -> None:
    code, lines = fast()
    assert code == 0, lines
    assert lines["effect"]["claimed"] >= 3
    assert lines["effect"]["repeats"] == lines["null_weights"]["repeats"] == 4
    assert lines["null_noise"]["repeats"] == 12
    assert lines["null_noise"]["claimed"] <= 1
    assert lines["null_weights"]["claimed"] <= 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("sabotage", "kinds", "missed"), [("labels", "effect", "effect"), ("errors", "noise", "null_noise")]
)
def test_notices_a_broken_instrument(sabotage: str, kinds: str, missed: str) -> None:
    code, lines = fast("--sabotage", sabotage, "--kinds", kinds)
    assert code == 1, lines
    assert not lines[missed]["met"]
