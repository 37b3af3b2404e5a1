"""What a study asks of an executor, by one that needs no process."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest

from trabecula.errors import InputError
from trabecula.grid import executors
from trabecula.grid.cells import Cell, Plan, plan
from trabecula.grid.executors import EXECUTORS, Event, Executor, RunningCell, job, make_executor, run_cells
from trabecula.grid.worker import run_job
from trabecula.recipe import parse_recipe

STAGES = {
    "number": {"verb": "study_verbs.number", "axes": {"value": [1, 2]}},
    "bad": {"verb": "study_verbs.fail", "start": "@number[number.value=1]", "how": "input"},
    "waits": {"verb": "study_verbs.fail", "start": "@bad"},
    "total": {"verb": "study_verbs.add", "numbers": ["@number"]},
}


class Batch:
    """Submits everything at once, as an array of jobs does, and reports once a cell."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self.ended: dict[str, bool] = {}
        self.stopped = False

    def start(self, cells: Sequence[Cell]) -> None:
        self.cells = list(cells)

    def events(self, timeout_s: float) -> list[Event]:
        assert timeout_s > 0
        ready = [cell for cell in self.cells if all(self.ended.get(need) for need in cell.needs)]
        if not ready:
            return []
        cell = ready[0]
        self.cells.remove(cell)
        event = Event(cell.id, **run_job(job(cell, threads=1)))
        self.ended[cell.id] = event.kind == "finished"
        return [Event(cell.id, "started"), Event(cell.id, "time left", seconds=50.0), event]

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    return plan(parse_recipe({"stages": STAGES}, "recipe"), tmp_path)


def test_any_executor_that_reports_events_runs_a_study(study: Plan) -> None:
    batch = Batch()
    executor: Executor = batch
    heard: list[str] = []

    def notify(finished: Cell | None, took: float, running: list[RunningCell]) -> None:
        assert finished is not None
        assert took >= 0
        assert finished not in [one.cell for one in running]
        heard.append(finished.stage)

    outcome = run_cells(study.cells, executor, notify)
    assert heard == [cell.stage for cell in outcome.finished] == ["number", "number", "total"]
    (failure,) = outcome.failed.values()
    assert (failure.cell, failure.bad_input) == (study.stages["bad"][0].id, True)
    assert [cell.stage for cell in outcome.unreached] == ["waits"]
    assert batch.stopped


def test_an_executor_is_stopped_when_the_study_is(study: Plan) -> None:
    batch = Batch()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(study.cells, batch, interrupt)
    assert batch.stopped


def test_executors_are_chosen_by_name(tmp_path: Path) -> None:
    for name in EXECUTORS:
        make_executor(name, 1, 1, tmp_path).stop()
    with pytest.raises(InputError, match="unknown executor 'locla', did you mean 'local'"):
        make_executor("locla", 1, 1, tmp_path)


def test_the_grid_imports_the_ground_and_itself() -> None:
    """No verb, method or net, lazily neither: it reaches verbs by name, through `run.verb_module`."""
    ground = {"artifacts", "config", "errors", "files", "progress", "recipe", "run"}
    imported = set()
    for file in Path(executors.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[1] for name in names if name.startswith("trabecula.")}
    assert imported <= {*ground, "grid"}
