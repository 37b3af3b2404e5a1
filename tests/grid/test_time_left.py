"""The time left of a study, from cells of a kind that have finished."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from trabecula.grid.cells import Cell
from trabecula.grid.executors import RunningCell
from trabecula.grid.time_left import TimeLeft, kind_of, read_durations, write_duration
from trabecula.progress import rounded
from trabecula.study import make_plan

RECIPE = """
[stages.number]
verb = "study_verbs.number"
axes.value = [1, 2, 3, 4]
[stages.add]
verb = "study_verbs.add"
start = "@number"
axes.plus = [0, 10]
[stages.total]
verb = "study_verbs.add"
numbers = ["@add"]
[stages.train]
verb = "study_verbs.encoder"
arm = "moco"
axes.images = [0, 1000, 3000]
"""
Stages = Mapping[str, tuple[Cell, ...]]
NUMBER = ("number",)


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return make_plan(tmp_path / "recipe.toml", tmp_path).stages


def test_the_mean_of_finished_cells_is_taken_for_those_to_come(stages: Stages) -> None:
    left = TimeLeft(stages["number"], 2, {})
    assert left.note([]) == ""
    left.finish(stages["number"][0], 100.0)
    assert left.note([]) == "about 3 min left"  # three cells of 100 s for two workers: 150 s, rounded up
    left.finish(stages["number"][1], 300.0)
    assert left.note([]) == "about 4 min left"  # two of 200 s
    left.finish(stages["number"][2], 200.0)
    assert left.note([]) == "about 4 min left"  # the last runs on one worker
    left.finish(stages["number"][3], 200.0)
    assert left.note([]) == ""


def test_what_running_cells_have_spent_is_not_to_come(stages: Stages) -> None:
    left = TimeLeft(stages["number"], 1, {NUMBER: [600.0]})
    one = stages["number"][0]
    assert left.note([RunningCell(one, 300.0, None)]) == "about 35 min left"
    # longer than the others took: nothing is left of it, and its own estimate is shown beside it
    assert left.note([RunningCell(one, 900.0, 5000.0)]) == "about 30 min left"
    assert left.note([RunningCell(cell, 900.0, None) for cell in stages["number"]]) == ""


def test_a_kind_without_finished_cells_counts_for_nothing(stages: Stages) -> None:
    cells = [*stages["number"], *stages["add"]]
    short, long = TimeLeft(cells, 2, {}), TimeLeft(cells, 2, {})
    for cell in stages["number"][:2]:
        short.finish(cell, 1.0)
        long.finish(cell, 600.0)
    assert short.note([]) == ""  # "at least 1 s left" would say nothing
    assert long.note([]) == "at least 10 min left"
    for cell in stages["add"][:2]:
        long.finish(cell, 60.0)
    assert long.note([]) == "about 13 min left"  # (2 x 600 + 6 x 60) / 2


def test_cells_of_a_stage_with_other_work_are_of_another_kind(stages: Stages) -> None:
    untrained, short, long = stages["train"]
    assert kind_of(short) == kind_of(long) == ("train", "pretrainings", "images seen")
    assert kind_of(untrained) == ("train", "searches without end")
    left = TimeLeft(stages["train"], 1, {})
    left.finish(untrained, 1.0)
    assert left.note([]) == ""  # not a second: nothing is known of the others
    left.finish(short, 3600.0)
    assert left.note([]) == "about 60 min left"


def test_cells_that_an_earlier_run_began_are_not_measured(stages: Stages) -> None:
    left = TimeLeft(stages["number"], 1, {}, resumed={cell.id for cell in stages["number"][:2]})
    left.finish(stages["number"][0], 5.0)
    assert left.note([]) == ""
    left.finish(stages["number"][2], 100.0)
    assert left.note([]) == "about 4 min left"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.1, "10 s"), (31, "40 s"), (91, "2 min"), (3601, "65 min"), (7300, "2 h 05 min")]
)
def test_durations_are_shown_in_steps(seconds: float, shown: str) -> None:
    assert rounded(seconds) == shown


def test_durations_are_kept_for_a_later_run(stages: Stages, tmp_path: Path) -> None:
    one, other, third, _ = stages["number"]
    write_duration(tmp_path, one, 12.34)
    write_duration(tmp_path, other, 7.0)
    write_duration(tmp_path, other, 8.0)
    with (tmp_path / "durations.jsonl").open("a") as file:
        file.write('{"id": "gone", "cell": "x", "seconds": 5}\n{"id": "tor')
    assert read_durations(tmp_path, stages["number"]) == {NUMBER: [12.3, 8.0]}
    assert read_durations(tmp_path, [third]) == {}
    write_duration(tmp_path, third, 3.0)
    assert read_durations(tmp_path, [third]) == {NUMBER: [3.0]}
    assert read_durations(tmp_path / "nowhere", stages["number"]) == {}
