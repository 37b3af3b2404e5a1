"""Worker processes: the same bytes for any number of them, and no failure that hangs or spreads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from trabecula.config import dump
from trabecula.files import locked
from trabecula.grid.cells import Cell, Plan, plan
from trabecula.grid.executors import Event, Outcome, RunningCell, make_executor, run_cells
from trabecula.recipe import parse_recipe
from trabecula.run import identity

DIAMOND = {
    "number": {"verb": "study_verbs.number", "axes": {"value": [3, 4]}},
    "left": {"verb": "study_verbs.add", "start": "@number", "plus": 1, "steps": 2},
    "right": {"verb": "study_verbs.add", "start": "@number", "plus": 2},
    "total": {"verb": "study_verbs.add", "numbers": ["@left", "@right"]},
}


@pytest.fixture(autouse=True)
def _verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def planned(stages: dict[str, object], folder: Path, threads: int = 1) -> Plan:
    return plan(parse_recipe({"threads": threads, "stages": stages}, "recipe"), folder)


def run(study: Plan, folder: Path, workers: int = 2) -> Outcome:
    return run_cells(study.cells, make_executor("local", workers, study.recipe.threads, folder / "logs"))


def artifacts(folder: Path) -> dict[str, bytes]:
    """Every file that is the same in every run: all but locks, logs, versions and paths."""
    skipped = {".lock", "log.jsonl", "provenance.json"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "cells").rglob("*"))
        if path.is_file() and path.name not in skipped
    }


def test_one_worker_and_three_write_the_same_bytes(tmp_path: Path) -> None:
    one, three = tmp_path / "one", tmp_path / "three"
    outcome = run(planned(DIAMOND, one), one, workers=1)
    assert not outcome.failed
    assert not outcome.unreached
    assert len(outcome.finished) == 7
    run(planned(DIAMOND, three), three, workers=3)
    assert artifacts(one) == artifacts(three)
    assert len(artifacts(one)) > 7 * 3


def test_each_cell_starts_after_those_it_needs_and_ids_agree(tmp_path: Path) -> None:
    study = planned(DIAMOND, tmp_path)
    finished: list[str] = []

    def notify(cell: Cell | None, seconds: float, _: list[RunningCell]) -> None:
        if cell is not None:
            assert set(cell.needs) <= set(finished)
            assert seconds >= 0
            finished.append(cell.id)

    run_cells(study.cells, make_executor("local", 3, 1, tmp_path / "logs"), notify)
    assert set(finished) == {cell.id for cell in study.cells}
    for cell in study.cells:
        assert identity(cell.folder) == cell.id
    (total,) = study.stages["total"]
    assert (total.folder / "sum.txt").read_text() == f"{3 + 1 + 4 + 1 + 3 + 2 + 4 + 2}\n"


def test_a_running_cell_says_how_long_it_will_take(tmp_path: Path) -> None:
    study = planned({"add": {"verb": "study_verbs.add", "steps": 12, "pause": 0.3}}, tmp_path)
    heard: list[tuple[float, float]] = []

    def notify(cell: Cell | None, _: float, running: list[RunningCell]) -> None:
        assert cell is None or not running
        heard.extend((one.spent_s, one.left_s) for one in running if one.left_s is not None)

    run_cells(study.cells, make_executor("local", 1, 1, tmp_path / "logs"), notify)
    assert heard
    spent, left = heard[-1]
    assert 2 < spent + left < 8  # 12 x 0.3 s, and the time in which a process starts


def test_workers_compute_with_the_recipes_threads(tmp_path: Path) -> None:
    study = planned({"add": {"verb": "study_verbs.add"}}, tmp_path, threads=3)
    run(study, tmp_path)
    assert (study.cells[0].folder / "threads.txt").read_text() == "3\n"


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("input", "input", "the manifest has no rows; check its path"),
        ("run", "run", "the loss is not finite at step 3; lower the rate"),
        ("defect", "run", "ZeroDivisionError: a defect (more in "),
        ("kill", "run", "killed by signal 9 (SIGKILL, out of memory?"),
        ("exit", "run", "its process ended by itself (exit code 5)"),
    ],
)
def test_a_failure_stops_only_what_waits_for_it(how: str, kind: str, message: str, tmp_path: Path) -> None:
    study = planned(
        {
            "bad": {"verb": "study_verbs.fail", "how": how},
            "waits": {"verb": "study_verbs.fail", "start": "@bad"},
            "longer": {"verb": "study_verbs.fail", "start": "@waits"},
            "number": {"verb": "study_verbs.number", "axes": {"value": [1, 2, 3]}},
        },
        tmp_path,
    )
    outcome = run(study, tmp_path, workers=1)
    (bad,) = study.stages["bad"]
    assert list(outcome.failed) == [bad.id]
    assert outcome.failed[bad.id].bad_input == (kind == "input")
    assert outcome.failed[bad.id].text.startswith(message)
    assert [cell.stage for cell in outcome.unreached] == ["waits", "longer"]
    assert [cell.stage for cell in outcome.finished] == ["number"] * 3
    assert not bad.done
    if how == "defect":
        assert "Traceback" in (bad.folder / "log.jsonl").read_text()


def test_a_worker_killed_after_it_wrote_the_time_left_is_a_failed_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {
        "bad": {"verb": "study_verbs.fail", "how": "kill late"},
        "number": {"verb": "study_verbs.number"},
    }
    study = planned(stages, tmp_path)
    executor = make_executor("local", 1, 1, tmp_path / "logs")
    heard: list[Event] = []
    events = executor.events

    def listen(timeout_s: float) -> list[Event]:
        found = events(timeout_s)
        heard.extend(found)
        return found

    monkeypatch.setattr(executor, "events", listen)
    outcome = run_cells(study.cells, executor)
    (bad,), (number,) = study.stages["bad"], study.stages["number"]
    assert [event.kind for event in heard if event.cell == bad.id] == ["started", "time left", "failed"]
    assert list(outcome.failed) == [bad.id]
    assert outcome.failed[bad.id].text.startswith("killed by signal 9")
    assert outcome.finished == [number]  # by a process of its own


def test_a_long_chain_of_cells_starts_first(tmp_path: Path) -> None:
    stages = {
        "alone": {"verb": "study_verbs.number", "axes": {"value": [1, 2]}},
        "first": {"verb": "study_verbs.add", "plus": 1},
        "second": {"verb": "study_verbs.add", "start": "@first"},
        "third": {"verb": "study_verbs.add", "start": "@second"},
    }
    outcome = run(planned(stages, tmp_path), tmp_path, workers=1)
    assert [cell.stage for cell in outcome.finished] == ["first", "second", "alone", "alone", "third"]


def test_a_running_worker_ends_with_its_parent(tmp_path: Path) -> None:
    (cell,) = planned({"bad": {"verb": "study_verbs.fail", "how": "hang"}}, tmp_path).cells
    job = {
        "verb": cell.verb,
        "config": dump(cell.config),
        "out": str(cell.folder),
        "threads": 1,
        "id": cell.id,
    }
    code = (
        "import os, subprocess, sys, time\n"
        "worker = subprocess.Popen([sys.executable, '-m', 'trabecula.grid.worker', str(os.getpid())],\n"
        "    stdin=subprocess.PIPE, start_new_session=True, text=True)\n"
        "worker.stdin.write(sys.argv[1]); worker.stdin.flush()\n"
        "print(worker.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(job) + "\n"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.stdout.close()
    wait_for(lambda: (cell.folder / "config.json").exists())
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(worker))
    with locked(cell.folder, wait=30):  # a dead process's other threads may hold its files a moment longer
        pass


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not collected by its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
