"""What is left of a study without the cells that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trabecula.grid.cells import Plan, plan
from trabecula.grid.incomplete import without_failed
from trabecula.recipe import parse_recipe, read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
STAGES: dict[str, Any] = {
    "hospital": {"verb": "study_verbs.number"},
    "train": {"verb": "study_verbs.encoder", "start": "@hospital"},
    "search": {"verb": "study_verbs.add", "start": "@train", "plus": 3},
    "tune": {"verb": "study_verbs.add", "start": "@train", "axes": {"steps": [1, 2]}},
    "look": {"verb": "study_verbs.add", "start": "@train[arm=b]", "plus": 7},
    "total": {"verb": "study_verbs.add", "start": "@hospital", "numbers": ["@tune"]},
    "page": {"verb": "study_verbs.report", "runs": ["@total", "@look", "@train"]},
}
ARMS = {name: {"train": {"arm": name}, "tune": {"plus": i}} for i, name in enumerate("abc")}


@pytest.fixture(autouse=True)
def _verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


@pytest.fixture
def study(tmp_path: Path) -> Plan:
    return planned(STAGES, tmp_path)


def planned(stages: dict[str, Any], folder: Path, arms: dict[str, Any] = ARMS) -> Plan:
    return plan(parse_recipe({"stages": stages, "axes": {"arm": arms}}, "recipe"), folder)


def failed(study: Plan, stage: str, number: int = 0) -> set[str]:
    return {study.stages[stage][number].id}


def names(study: Plan, stage: str) -> list[str]:
    return [cell.name.rpartition("-")[0] for cell in study.stages[stage]]


def test_an_arm_is_left_out_whole_and_lists_go_on_without_it(study: Plan) -> None:
    rest, left_out = without_failed(study, failed(study, "tune", 5))
    assert left_out == {"c": "tune of c failed"}
    assert names(rest, "train") == ["train-a", "train-b"]
    assert names(rest, "tune") == ["tune-a-steps1", "tune-a-steps2", "tune-b-steps1", "tune-b-steps2"]
    (total,), (page,) = rest.stages["total"], rest.stages["page"]
    assert list(total.config.numbers) == [cell.folder for cell in rest.stages["tune"]]  # type: ignore[attr-defined]
    assert page.config.runs[0] == total.folder  # type: ignore[attr-defined]
    assert page.config.not_run == {"c": "tune of c failed"}  # type: ignore[attr-defined]
    arm = {"name": "c", "architecture": "net", "family": "pretrained", "reason": "tune of c failed"}
    assert page.config.incomplete == (arm,)  # type: ignore[attr-defined]
    assert page.needs[0] == total.id
    assert total.id != study.stages["total"][0].id


@pytest.mark.parametrize(("recipe", "other"), [("hip-gan-data-demo", "chain"), ("hip-gan-demo", "labels")])
def test_an_arm_is_gone_at_every_value_of_another_axis(recipe: str, other: str, tmp_path: Path) -> None:
    """Encoders differ along `arm`: neither repeats of an arm nor its shares of labels are arms."""
    study = plan(read_recipe(RECIPES / f"{recipe}.toml"), tmp_path)
    arms = {cell.coordinates["arm"] for cell in study.stages["pretrain"]}
    broken = [c for c in study.stages["finetune"] if c.coordinates["arm"] == "critic-wgan_gp"][-1]
    rest, left_out = without_failed(study, {broken.id})
    assert "critic-wgan_gp" in left_out
    assert not set(left_out) & {axis_value for axis in study.recipe.axes if axis.name == other
                                for axis_value in axis.labels}  # fmt: skip
    left = [cell for cells in rest.stages.values() for cell in cells if "arm" in cell.coordinates]
    assert {cell.coordinates["arm"] for cell in left} == arms - set(left_out)
    for cell in left:
        assert cell in study.stages[cell.stage]


def test_the_evaluation_gets_the_incomplete_arms(tmp_path: Path) -> None:
    """Among them a control, with the architecture as its card names it."""
    study = plan(read_recipe(RECIPES / "hip-gan-data-demo.toml"), tmp_path)
    assert len(study.arms) == 7
    for name, arm in study.arms.items():
        broken = next(c for c in study.stages["finetune"] if c.coordinates["arm"] == name)
        rest, _ = without_failed(study, {broken.id})
        (found,) = rest.stages["evaluate"][0].config.incomplete  # type: ignore[attr-defined]
        got = found if isinstance(found, dict) else found.model_dump()
        assert got == {**arm, "reason": f"finetune of {name} failed"}
        assert (got["name"], got["architecture"]) == (name, "critic")
        assert got["family"] == ("pretrained" if "wgan_gp" in name else "random")


def test_an_architecture_without_its_library_is_named_as_on_the_card(tmp_path: Path) -> None:
    """The control of `resnet18` is that of `timm:resnet18`."""
    (tmp_path / "store").mkdir()
    stages = {"pretrain": {"store": str(tmp_path / "store"), "architecture": "resnet18"}}
    study = plan(parse_recipe({"stages": stages}, "recipe"), tmp_path)
    (arm,) = study.arms.values()
    assert arm == {"name": "resnet18-random", "architecture": "timm:resnet18", "family": "random"}


def test_a_cell_of_no_arm_takes_its_stage_at_every_value(tmp_path: Path) -> None:
    """Repeats, which set seeds alone, are not arms."""
    stages = {
        "try": {"verb": "study_verbs.encoder"},
        "once": {"verb": "study_verbs.fail", "how": "exit"},
        "page": {"verb": "study_verbs.report", "runs": ["@try", "@once"]},
    }
    axes = {
        "chain": {str(seed): {"try": {"seed": seed}, "once": {"seed": seed}} for seed in range(3)},
        "arm": {name: {"try": {"arm": name}} for name in ("not", "run")},
    }
    two = plan(parse_recipe({"stages": stages, "axes": axes}, "recipe"), tmp_path / "two")
    rest, left_out = without_failed(two, {two.stages["try"][3].id})
    assert names(rest, "try") == ["try-0-not", "try-1-not", "try-2-not"]
    assert set(left_out) == {"run"}
    assert len(rest.stages["once"]) == 3
    rest, left_out = without_failed(two, failed(two, "once", 1))
    assert (set(left_out), rest.stages["once"]) == ({"once"}, ())
    assert rest.stages["try"] == two.stages["try"]


def test_what_is_whole_keeps_its_id_and_its_folder(study: Plan) -> None:
    rest, _ = without_failed(study, failed(study, "tune", 5))
    for stage in ("hospital", "train", "search", "tune", "look"):
        assert all(cell in study.stages[stage] for cell in rest.stages[stage])
    same = planned(STAGES, study.cells[0].folder.parents[1], {name: ARMS[name] for name in "ab"})
    assert rest.stages["total"][0].id == same.stages["total"][0].id


def test_a_failed_cell_takes_along_what_needs_it_whatever_the_arm(study: Plan) -> None:
    rest, left_out = without_failed(study, failed(study, "train", 1))
    assert left_out == dict.fromkeys(("b", "look"), "train of b failed")
    assert names(rest, "tune") == ["tune-a-steps1", "tune-a-steps2", "tune-c-steps1", "tune-c-steps2"]
    assert rest.stages["look"] == ()
    rest, left_out = without_failed(study, failed(study, "tune", 2))
    assert left_out == dict.fromkeys(("b", "look"), "tune of b failed")
    rest, left_out = without_failed(study, failed(study, "tune", 4))
    assert left_out == {"c": "tune of c failed"}
    assert names(rest, "look") == ["look"]  # it needs the training of b, which ended well


def test_a_pinned_reference_changes_no_arm(tmp_path: Path) -> None:
    """An arm with the settings of another's search stays itself; a pin on another axis keeps the arm."""
    stages = {
        **STAGES,
        "tune": {**STAGES["tune"], "chosen": "@search[arm=b]"},
        "later": {"verb": "study_verbs.add", "start": "@tune[tune.steps=1]", "axes": {"plus": [1, 2]}},
        "page": {"verb": "study_verbs.report", "runs": ["@*"]},
    }
    study = planned(stages, tmp_path)
    for stage, cells in study.stages.items():
        for cell in cells:
            assert cell.arms == ({cell.coordinates["arm"]} if "arm" in cell.coordinates else set()), stage
    assert without_failed(study, failed(study, "tune", 1))[1] == {"a": "tune of a failed"}
    assert without_failed(study, failed(study, "later", 5))[1] == {"c": "later of c failed"}
    assert {*without_failed(study, failed(study, "search", 1))[1]} == {"a", "b", "c", "look"}


def test_what_belongs_to_no_arm_takes_its_stage(study: Plan) -> None:
    rest, left_out = without_failed(study, failed(study, "look"))
    assert left_out == {"look": "look failed"}
    assert rest.stages["total"] == study.stages["total"]
    assert len(rest.stages["page"][0].config.runs) == 4  # type: ignore[attr-defined]
    assert rest.stages["page"][0].config.incomplete == ()  # type: ignore[attr-defined]
    rest, _ = without_failed(study, failed(study, "hospital"))
    assert [cell.stage for cell in rest.cells] == ["page"]  # of nothing: it can do without runs


def test_nothing_is_totalled_without_a_single_arm(study: Plan) -> None:
    """A list that its verb needs must not be empty; one that it can do without may."""
    rest, _ = without_failed(study, {cell.id for cell in study.stages["tune"]})
    assert names(rest, "total") == ["total"]
    assert rest.stages["total"][0].config.numbers == ()  # type: ignore[attr-defined]
    assert rest.stages["train"] == ()
