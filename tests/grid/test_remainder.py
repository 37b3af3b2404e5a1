"""What is left of a study without the cells that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trabecula.grid.cells import Plan, plan
from trabecula.grid.recipe import parse_recipe, read_recipe
from trabecula.grid.remainder import without

STAGES: dict[str, Any] = {
    "hospital": {"verb": "study_verbs.number"},
    "train": {"verb": "study_verbs.add", "start": "@hospital"},
    "tune": {"verb": "study_verbs.add", "start": "@train", "axes": {"steps": [1, 2]}},
    "look": {"verb": "study_verbs.add", "start": "@train[arm=b]", "plus": 7},
    "total": {"verb": "study_verbs.add", "start": "@hospital", "numbers": ["@tune"]},
    "page": {"verb": "study_verbs.report", "runs": ["@total", "@look", "@train"]},
}
# a and b train alike, so their training is one cell
ARMS = {
    "a": {"train": {"plus": 1}, "tune": {"plus": 0}},
    "b": {"train": {"plus": 1}, "tune": {"plus": 1}},
    "c": {"train": {"plus": 2}, "tune": {"plus": 2}},
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    return plan(parse_recipe({"stages": STAGES, "axes": {"arm": ARMS}}, "recipe"), tmp_path)


def failed(study: Plan, stage: str, number: int = 0) -> set[str]:
    return {study.stages[stage][number].id}


def names(study: Plan, stage: str) -> list[str]:
    return [cell.name.rpartition("-")[0] for cell in study.stages[stage]]


def test_an_arm_is_left_out_whole_and_lists_go_on_without_it(study: Plan) -> None:
    rest, left_out = without(study, failed(study, "tune", 5))
    assert left_out == {"c": "tune of c failed"}
    assert names(rest, "train") == ["train-a"]  # of a and b
    assert names(rest, "tune") == ["tune-a-steps1", "tune-a-steps2", "tune-b-steps1", "tune-b-steps2"]
    (total,), (page,) = rest.stages["total"], rest.stages["page"]
    assert list(total.config.numbers) == [cell.folder for cell in rest.stages["tune"]]  # type: ignore[attr-defined]
    assert page.config.runs[0] == total.folder  # type: ignore[attr-defined]
    assert page.config.not_run == {"c": "tune of c failed"}  # type: ignore[attr-defined]
    assert page.needs[0] == total.id
    assert total.id != study.stages["total"][0].id


@pytest.mark.parametrize(("recipe", "other"), [("hip-gan-data-demo", "chain"), ("hip-gan-demo", "labels")])
def test_an_arm_is_gone_at_every_value_of_another_axis(recipe: str, other: str, tmp_path: Path) -> None:
    """Encoders are told apart by `arm`: neither repeats of an arm nor its shares of labels are arms."""
    study = plan(read_recipe(Path(__file__).parents[2] / "recipes" / f"{recipe}.toml"), tmp_path)
    arms = {cell.coordinates["arm"] for cell in study.stages["pretrain"]}
    broken = [c for c in study.stages["finetune"] if c.coordinates["arm"] == "critic-wgan_gp"][-1]
    rest, left_out = without(study, {broken.id})
    assert "critic-wgan_gp" in left_out
    assert not set(left_out) & {axis_value for axis in study.recipe.axes if axis.name == other
                                for axis_value in axis.labels}  # fmt: skip
    left = [cell for cells in rest.stages.values() for cell in cells if "arm" in cell.coordinates]
    assert {cell.coordinates["arm"] for cell in left} == arms - set(left_out)
    for cell in left:
        assert cell in study.stages[cell.stage]


def test_the_evaluation_has_the_arm_that_is_incomplete(tmp_path: Path) -> None:
    study = plan(read_recipe(Path(__file__).parents[2] / "recipes/hip-gan-data-demo.toml"), tmp_path)
    told: dict[str, Any] = {}
    for cell in study.stages["finetune"]:
        arm = cell.coordinates["arm"]
        if arm not in told:
            rest, _ = without(study, {cell.id})
            told[arm] = rest.stages["evaluate"][0].config.incomplete  # type: ignore[attr-defined]
    assert len(told) == 7
    for arm, (gone,) in told.items():
        assert (gone.name, gone.architecture) == (arm, "critic")
        assert gone.reason == f"finetune of {arm} failed"
        assert gone.family == ("random" if "random" in arm else "pretrained")


@pytest.mark.usefixtures("study")
def test_a_cell_of_no_arm_takes_its_stage_at_every_value(tmp_path: Path) -> None:
    """Repeats, which set seeds alone, are no arms: the first axis here, and yet not the arm's."""
    stages = {
        "try": {"verb": "study_verbs.fail"},
        "once": {"verb": "study_verbs.fail", "how": "exit"},
        "page": {"verb": "study_verbs.report", "runs": ["@try", "@once"]},
    }
    axes = {
        "chain": {str(seed): {"try": {"seed": seed}, "once": {"seed": seed}} for seed in range(3)},
        "arm": {how: {"try": {"how": how}} for how in ("not", "run")},
    }
    two = plan(parse_recipe({"stages": stages, "axes": axes}, "recipe"), tmp_path / "two")
    rest, left_out = without(two, {two.stages["try"][3].id})
    assert names(rest, "try") == ["try-0-not", "try-1-not", "try-2-not"]
    assert set(left_out) == {"run"}
    assert len(rest.stages["once"]) == 3
    rest, left_out = without(two, failed(two, "once", 1))
    assert (set(left_out), rest.stages["once"]) == ({"once"}, ())
    assert rest.stages["try"] == two.stages["try"]


def test_what_is_whole_keeps_its_id_and_its_folder(study: Plan) -> None:
    rest, _ = without(study, failed(study, "tune", 5))
    for stage in ("hospital", "train", "tune", "look"):
        assert all(cell in study.stages[stage] for cell in rest.stages[stage])
    same = plan(parse_recipe({"stages": STAGES, "axes": {"arm": {k: ARMS[k] for k in "ab"}}}, "recipe"),
                study.cells[0].folder.parents[1])  # fmt: skip
    assert rest.stages["total"][0].id == same.stages["total"][0].id


def test_a_cell_that_arms_share_goes_when_it_fails_and_stays_for_the_arm_that_is_whole(study: Plan) -> None:
    rest, left_out = without(study, failed(study, "train"))
    assert left_out == dict.fromkeys(("a", "b", "look"), "train of a and b failed")
    assert names(rest, "tune") == ["tune-c-steps1", "tune-c-steps2"]
    assert rest.stages["look"] == ()
    rest, left_out = without(study, failed(study, "tune", 2))
    assert left_out == {"b": "tune of b failed"}
    assert names(rest, "train") == ["train-a", "train-c"]
    assert names(rest, "look") == ["look"]  # it needs the training of b, which ended well


def test_without_a_named_axis_the_stage_is_left_out(study: Plan) -> None:
    rest, left_out = without(study, failed(study, "look"))
    assert left_out == {"look": "look failed"}
    assert rest.stages["total"] == study.stages["total"]
    assert len(rest.stages["page"][0].config.runs) == 3  # type: ignore[attr-defined]
    rest, _ = without(study, failed(study, "hospital"))
    assert [cell.stage for cell in rest.cells] == ["page"]  # of nothing: it can do without runs


def test_nothing_is_totalled_without_a_single_arm(study: Plan) -> None:
    """A list that its verb needs must not run dry; one that it can do without may."""
    everything = {cell.id for cell in study.stages["tune"]}
    rest, _ = without(study, everything)
    assert names(rest, "total") == ["total"]
    assert rest.stages["total"][0].config.numbers == ()  # type: ignore[attr-defined]
    assert rest.stages["train"] == ()
