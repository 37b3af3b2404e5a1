"""The time left of a study, by a clock that the test turns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from trabecula.grid.cells import Cell
from trabecula.grid.forecast import Forecast, read_durations, rounded, write_duration
from trabecula.grid.local import AtWork
from trabecula.pretrain import Config
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
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Cell, ...]]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return dict(make_plan(tmp_path / "recipe.toml", tmp_path).stages)


@pytest.fixture
def fresh(stages: dict[str, tuple[Cell, ...]]) -> Callable[..., Forecast]:
    def make(*names: str, workers: int = 2, **given: object) -> Forecast:
        cells = [cell for name in names for cell in stages[name]]
        return Forecast(cells, workers, clock=Clock(), **given)  # type: ignore[arg-type]

    return make


def test_one_cell_is_no_measure_and_two_are(
    fresh: Callable[..., Forecast], stages: dict[str, tuple[Cell, ...]]
) -> None:
    forecast = fresh("number")
    assert forecast.note([]) == ""
    forecast.finish(stages["number"][0], 100.0)
    assert forecast.note([]) == ""
    forecast.finish(stages["number"][1], 300.0)
    assert forecast.note([]) == "about 4 min left"  # two cells of 200 s for two workers: 3.3 min, rounded up


def test_at_least_is_said_while_a_stage_is_unknown_and_not_of_seconds(
    fresh: Callable[..., Forecast], stages: dict[str, tuple[Cell, ...]]
) -> None:
    short, long = fresh("number", "add"), fresh("number", "add")
    for cell in stages["number"][:2]:
        short.finish(cell, 1.0)
        long.finish(cell, 600.0)
    assert short.note([]) == ""  # "at least 1 s left" would say nothing
    assert long.note([]) == "at least 10 min left"
    for cell in stages["add"][:2]:
        long.finish(cell, 60.0)
    assert long.note([]) == "about 13 min left"  # (2 x 600 + 6 x 60) / 2


def test_a_stage_of_one_cell_is_known_by_one(fresh: Callable[..., Forecast]) -> None:
    forecast = fresh("number", "total", known={"total": [50.0], "number": [10.0, 10.0]})
    assert forecast.note([]) == "about 50 s left"  # the longest cell is the least


def test_cells_at_work_are_heard_once_they_have_settled(
    fresh: Callable[..., Forecast], stages: dict[str, tuple[Cell, ...]]
) -> None:
    one, other, *_ = stages["number"]
    assert fresh("number").note([AtWork(one, 3.0, 9000.0), AtWork(other, 3.0, 9000.0)]) == ""
    told = [AtWork(one, 600.0, 1800.0), AtWork(other, 600.0, 600.0)]
    # means (2,400 + 1,200) / 2 for each of the two that wait: (1,800 + 600 + 3,600) / 2
    assert fresh("number").note(told) == "about 50 min left"
    # two that wait are unknown after half a minute: only those at work are counted
    early = [AtWork(one, 30.0, 1800.0), AtWork(other, 30.0, 600.0)]
    assert fresh("number").note(early) == "at least 30 min left"
    # one without a guess of its own takes what the others took
    forecast = fresh("number", known={"number": [100.0, 140.0]})
    assert forecast.note([AtWork(one, 60.0, None)]) == "about 4 min left"  # (60 + 3 x 120) / 2 = 210 s
    # a cell that an earlier run began says what it has to go, and nothing of the others
    begun = fresh("number", resumed={one.id, other.id})
    assert begun.note(told) == "at least 30 min left"
    begun.finish(one, 5.0)
    begun.finish(other, 5.0)
    assert begun.note([]) == ""


def test_what_is_shown_falls_with_the_clock_and_does_not_jump(
    fresh: Callable[..., Forecast], stages: dict[str, tuple[Cell, ...]]
) -> None:
    """Cells of 20 and 100 s in turn on one worker, where the clock falls by 1 s at a time."""
    forecast = fresh("number", "add", workers=1, known={"number": [60.0, 60.0], "add": [60.0, 60.0]})
    clock: Clock = forecast.clock  # type: ignore[assignment]
    cells = [*stages["number"], *stages["add"]]
    took = [100.0, 20.0, 100.0, 20.0, 100.0, 20.0, 100.0, 20.0, 100.0, 20.0, 100.0, 20.0]
    shown = []
    for cell, seconds in zip(cells, took, strict=True):
        for spent in range(1, int(seconds)):
            clock.now += 1.0
            shown.append(seconds_of(forecast.note([AtWork(cell, float(spent), None)])))
        clock.now += 1.0
        forecast.finish(cell, seconds)
        shown.append(seconds_of(forecast.note([])))
    assert shown[0] == 720
    assert shown[-1] == 0
    steps = [after - before for before, after in pairwise(shown)]
    assert max(steps) <= 60  # a minute up at the most, the step of what is shown
    assert min(steps) >= -60
    left = sum(took) - math.floor(len(shown) / 2)
    assert abs(shown[len(shown) // 2] - left) <= 120


def seconds_of(note: str) -> int:
    found = re.fullmatch(r"about (\d+) (s|min) left", note)
    return int(found[1]) * (60 if found[2] == "min" else 1) if found else 0


def test_encoders_without_pretraining_are_no_measure_of_pretraining(tmp_path: Path) -> None:
    def cell(name: str, **settings: object) -> Cell:
        config = Config(store=tmp_path, **settings)  # type: ignore[arg-type]
        return Cell("pretrain", "pretrain", config, name, tmp_path / name, (), {})

    arms = [cell("a"), cell("b"), cell("c"), cell("moco", objective="moco", splits=tmp_path)]
    forecast = Forecast(arms, 1, clock=Clock())
    for one in arms[:3]:
        forecast.finish(one, 1.0)
    assert forecast.note([]) == ""  # not a second: nobody knows of the fourth
    assert Forecast(arms, 1, {"pretrain": [3600.0]}, clock=Clock()).note([]) == "at least 60 min left"


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.1, "10 s"), (31, "40 s"), (91, "2 min"), (3601, "65 min"), (7300, "2 h 05 min")]
)
def test_durations_are_told_in_steps(seconds: float, told: str) -> None:
    assert rounded(seconds) == told


def test_durations_are_kept_for_a_later_run(stages: dict[str, tuple[Cell, ...]], tmp_path: Path) -> None:
    one, other, third, _ = stages["number"]
    write_duration(tmp_path, one, 12.34)
    write_duration(tmp_path, other, 7.0)
    write_duration(tmp_path, other, 8.0)
    with (tmp_path / "durations.jsonl").open("a") as file:
        file.write('{"id": "gone", "cell": "x", "seconds": 5}\n{"id": "tor')
    assert read_durations(tmp_path, stages["number"]) == {"number": [12.3, 8.0]}
    assert read_durations(tmp_path, [third]) == {}
    write_duration(tmp_path, third, 3.0)
    assert read_durations(tmp_path, [third]) == {"number": [3.0]}
    assert read_durations(tmp_path / "nowhere", stages["number"]) == {}
