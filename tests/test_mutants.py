"""Faults put into the code on purpose: the list is fresh, and a sample of them is seen by their tests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from bench_scripts import load_script

ROOT = Path(__file__).parents[1]


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("mutants", monkeypatch)


def test_every_fault_can_still_be_made(mutants: ModuleType) -> None:
    """Its text is in its file exactly once, the file with it is Python, and its tests are there."""
    listed = mutants.read_mutants()
    for mutant in listed:
        text = (ROOT / "src" / "trabecula" / mutant.file).read_text(encoding="utf-8")
        faulty = mutant.applied(text)
        assert faulty != text, mutant
        compile(faulty, mutant.file, "exec")
        assert mutant.tests, mutant
        assert all((ROOT / test).is_file() for test in mutant.tests), mutant
    twice = [fault for fault, times in Counter(listed).items() if times > 1]
    assert not twice
    areas = {mutant.file.partition("/")[0] for mutant in listed}
    wanted = {
        "artifacts",
        "cohorts",
        "comparison",
        "data",
        "grid",
        "metrics",
        "nets",
        "objectives",
        "readers",
    }
    assert areas >= wanted | {"sections", "train", "transfer", "files.py", "run.py"}


def test_a_fault_whose_text_is_gone_is_refused(mutants: ModuleType) -> None:
    fault = mutants.Mutant("a.py", "x = 1", "x = 2", ())
    assert fault.applied("x = 1\n") == "x = 2\n"
    for text in ("", "x = 1\nx = 1\n"):
        with pytest.raises(ValueError, match="times, not once"):
            fault.applied(text)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_sample_of_the_faults_is_seen(mutants: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutants.main(["--sample", "12", "--seed", "0"]) == 0, capsys.readouterr().out
