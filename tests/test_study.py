"""Studies end as undisturbed ones do, whatever happened on the way."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from trabecula.errors import InputError, RunError
from trabecula.grid.time_left import write_duration
from trabecula.study import make_plan, remaining_work, run_study, summarise

RECIPE = """
title = "Numbers"
[stages.number]
verb = "study_verbs.number"
axes.value = [1, 2, 3]
[stages.add]
verb = "study_verbs.add"
start = "@number"
steps = 3
pause = 0.03
axes.plus = [0, 10]
[stages.total]
verb = "study_verbs.add"
numbers = ["@add"]
[stages.report]
verb = "study_verbs.report"
runs = ["@*"]
"""
ARMS = """
[stages.number]
verb = "study_verbs.encoder"
[stages.train]
verb = "study_verbs.fail"
start = "@number"
axes.seed = [0, 1]
[stages.total]
verb = "study_verbs.add"
numbers = ["@number"]
[stages.report]
verb = "study_verbs.report"
runs = ["@*"]
[axes.arm.calm]
number = {{ arm = "calm", plus = 1 }}
train.how = "not"
[axes.arm.diverging]
number = {{ arm = "diverging", plus = 20 }}
train.how = "{how} at 1"
[axes.arm.wide]
number = {{ arm = "wide", plus = 1 }}
train.how = "not"
"""
TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def _verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TESTS))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.toml"
    path.write_text(RECIPE)
    return path


def artifacts(folder: Path) -> dict[str, bytes]:
    """Every file but locks and what holds times or paths."""
    skipped = {".lock", "log.jsonl", "provenance.json"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped and "logs" not in path.parts
    }


def start(recipe: Path, out: Path, workers: int = 2) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TESTS), *(part for part in sys.path if part)])
    command = ["-m", "trabecula.cli", "study", str(recipe), "--out", str(out), "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(recipe: Path, out: Path, *assignments: str, workers: int = 2) -> str:
    return run_study(make_plan(recipe, out, assignments), out, workers)


def test_a_study_runs_its_cells_and_puts_the_report_on_top(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    said = finish(recipe, out)
    assert "pretraining paid in 10 of 10 runs" in said
    assert f"report: {out / 'report.html'}" in said
    assert f"11 cells done, 11 of them now: {out}" in said
    assert (out / "report.html").read_text().startswith("<h1>Numbers</h1>\nnumber-value1\n")
    assert (out / "tables" / "main.csv").read_text() == "runs\n10\n"
    cells = json.loads((out / "cells.json").read_text())["cells"]
    assert Counter(cell["stage"] for cell in cells) == {"number": 3, "add": 6, "total": 1, "report": 1}
    assert all((out / cell["folder"] / "DONE").exists() for cell in cells)
    assert "a verb may print" in "".join(path.read_text() for path in (out / "logs").iterdir())


def test_the_folder_holds_the_recipe_that_made_it(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    finish(recipe, out, "add.steps=1", "add.pause=0.0")
    again = make_plan(out / "recipe.toml", out)
    assert len(again.cells) == 11
    assert all(cell.done for cell in again.cells)


def test_a_second_run_does_nothing_and_a_change_runs_what_depends_on_it(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    finish(recipe, out)
    before = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*")}
    assert "11 cells done, 0 of them now" in finish(recipe, out)
    assert before == {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*")}
    # One more value of an axis: its 3 cells, the total and the report; the others stay.
    assert "14 cells done, 5 of them now" in finish(recipe, out, "add.axes.plus=[0, 10, 20]")
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path]} == set()


def test_summaries_count_cells_and_what_is_done(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    rows = summarise(make_plan(recipe, out))
    assert rows == [
        ("number", "study_verbs.number", "value x3", 3, 0),
        ("add", "study_verbs.add", "number.value x3, plus x2", 6, 0),
        ("total", "study_verbs.add", "", 1, 0),
        ("report", "study_verbs.report", "", 1, 0),
    ]
    finish(recipe, out)
    assert [done for *_, done in summarise(make_plan(recipe, out, ["add.axes.plus=[0]"]))] == [3, 3, 0, 0]


@pytest.mark.parametrize("seed", [2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 20))])
def test_killed_at_random_moments_it_ends_like_an_undisturbed_one(
    seed: int, recipe: Path, tmp_path: Path
) -> None:
    """SIGKILL to the study alone: its workers must end with it, and leave no lock and no half file."""
    moments = random.Random(seed)
    calm, killed = tmp_path / "calm" / "study", tmp_path / "killed" / "study"
    for folder in (calm, killed):
        folder.parent.mkdir()
    recipe.write_text(RECIPE.replace("pause = 0.03", "pause = 0.15"))
    finish(recipe, calm)
    unfinished = 0
    for _ in range(4):
        before = len(list(killed.glob("cells/add-*/step-*")))
        process = start(recipe, killed)
        while len(list(killed.glob("cells/add-*/step-*"))) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        process.communicate()
        unfinished += sum(len(list(cell.glob("step-*"))) in (1, 2) for cell in killed.glob("cells/add-*"))
    assert unfinished > 0  # else no kill came while a cell was running
    stdout, stderr = (process := start(recipe, killed, workers=3)).communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert "11 cells done" in stdout
    assert artifacts(killed) == artifacts(calm)


def test_ctrl_c_stops_within_seconds_with_one_line(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    recipe.write_text(RECIPE.replace("pause = 0.03", "pause = 30"))
    process = start(recipe, out)
    deadline = time.monotonic() + 60
    while not list(out.glob("cells/add-*/log.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert stderr == "stopped; run the same command again to go on\n"
    assert stdout == ""


def test_a_failing_cell_is_named_once_and_the_others_go_on(recipe: Path, tmp_path: Path) -> None:
    text = RECIPE + "[stages.bad]\nverb='study_verbs.fail'\nstart='@number'\nhow='{how}'\n"
    out = tmp_path / "study"
    recipe.write_text(text.format(how="input"))
    with pytest.raises(InputError) as caught:
        finish(recipe, out)
    assert "\n" not in str(caught.value)
    assert "3 cell(s) failed" in str(caught.value)
    assert "the manifest has no rows; check its path" in str(caught.value)
    assert "(1 cell(s) that need them were not run)" in str(caught.value)  # the report
    study = make_plan(recipe, out)
    assert sum(cell.done for cell in study.cells) == 10
    recipe.write_text(text.format(how="kill"))
    with pytest.raises(RunError, match="killed by signal 9"):
        finish(recipe, out, workers=1)
    recipe.write_text(text.format(how="not"))
    assert "14 cells done, 4 of them now" in finish(recipe, out)


def test_arms_that_are_whole_are_reported_though_another_failed(tmp_path: Path) -> None:
    recipe, out = tmp_path / "arms.toml", tmp_path / "study"
    recipe.write_text(ARMS.format(how="run"))
    with pytest.raises(RunError) as caught:
        finish(recipe, out)
    said = str(caught.value)
    assert "\n" not in said
    assert "1 cell(s) failed: train-diverging-seed1-" in said
    assert "the loss is not finite at step 3" in said
    assert f"{out / 'report.html'} leaves out diverging; what is done is kept" in said
    page = (out / "report.html").read_text().splitlines()
    kept = ("number-calm", "train-calm-seed0", "train-calm-seed1", "number-wide", "train-wide-seed0")
    assert sorted(page[1:-1]) == sorted((*kept, "train-wide-seed1", "total"))
    assert page[-1] == "{'diverging': 'train of diverging failed'}"
    assert {path.read_text() for path in out.glob("cells/total-*/sum.txt")} == {"22\n", "2\n"}
    recipe.write_text(ARMS.format(how="not"))
    assert "11 cells done, 3 of them now" in finish(recipe, out)  # two trainings and the report
    assert "train-diverging-seed1" in (out / "report.html").read_text()


@pytest.mark.parametrize("how", ["name", "defect"])
def test_why_an_arm_failed_is_said_here_and_not_in_the_report(how: str, tmp_path: Path) -> None:
    """An error's text may name patients and folders; the page, its cell and their ids hang on neither."""
    recipe, secret = tmp_path / "arms.toml", {"name": "9000099L", "defect": "log.jsonl"}[how]
    recipe.write_text(ARMS.format(how=how))
    pages = {}
    for folder in ("here", "there"):
        with pytest.raises(RunError) as caught:
            finish(recipe, tmp_path / folder)
        assert secret in str(caught.value)
        (at,) = (tmp_path / folder).glob("cells/report-*")
        pages[at.name] = (tmp_path / folder / "report.html").read_text()
        assert secret not in pages[at.name] + (at / "config.json").read_text()
        assert "train of diverging failed" in pages[at.name]
    assert len(pages) == 1


def test_two_studies_do_not_share_a_folder(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    recipe.write_text(RECIPE.replace("pause = 0.03", "pause = 30"))
    process = start(recipe, out)
    while not (out / "cells.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    with pytest.raises(InputError, match="another trabecula process"):
        finish(recipe, out)
    process.kill()
    process.communicate()


def test_a_folder_of_something_else_is_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("")
    with pytest.raises(InputError, match="holds something else"):
        finish(recipe, tmp_path)
    with pytest.raises(InputError, match="is a file"):
        finish(recipe, recipe)


def test_the_time_left_begins_with_what_an_earlier_run_took(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    study = make_plan(recipe, out)
    (out / "logs").mkdir(parents=True)
    done = [*study.stages["number"][:2], *study.stages["add"][:2], *study.stages["total"]]
    for cell in (*done, *study.stages["report"]):
        write_duration(out / "logs", cell, 36000.0)
    monkeypatch.setattr("trabecula.progress._EVERY_S", 0.0)
    finish(recipe, out)
    first = next(line for line in capsys.readouterr().err.splitlines() if " left" in line)
    assert re.search(r"about \d+ h \d\d min left", first), first


def test_durations_of_cells_begun_anew_are_kept_beside_the_results(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    study = make_plan(recipe, out)
    begun = study.stages["add"][0]
    begun.folder.mkdir(parents=True)
    (begun.folder / "config.json").write_text('{"verb": "add", "id": "0"}')  # as a killed study leaves it
    finish(recipe, out)
    lines = [json.loads(line) for line in (out / "logs" / "durations.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == {cell.id for cell in study.cells} - {begun.id}
    assert all(line["seconds"] >= 0.0 for line in lines)
    assert remaining_work(make_plan(recipe, out), out) == []
    more = remaining_work(make_plan(recipe, out, ["add.axes.plus=[0, 10, 20]"]), out)
    assert more[0] == "add: about 10 s for 3 cells, as finished ones took"
    assert more[-1].startswith("time of what is known: about 10 s on one worker, without total, report")
