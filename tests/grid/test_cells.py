"""Plans: which cells a recipe has, what each needs, and that a plan's ids are those of the runs."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trabecula.config import to_toml
from trabecula.errors import InputError
from trabecula.grid.cells import Plan, plan
from trabecula.recipe import parse_recipe, read_recipe
from trabecula.run import execute

HEAD = "[stages.number]\nverb = 'study_verbs.number'\n"


@pytest.fixture(autouse=True)
def _verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def planned(text: str, tmp_path: Path, *assignments: str) -> Plan:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    return plan(read_recipe(recipe, assignments), tmp_path / "study")


GRID = """
title = "A grid"
[stages.add]
verb = "study_verbs.add"
start = "@number"
axes.plus = [0, 10]
[stages.number]
verb = "study_verbs.number"
axes.value = [1, 2, 3]
[stages.total]
verb = "study_verbs.add"
numbers = ["@add", "@number/number.txt"]
[stages.again]
verb = "study_verbs.add"
start = "@add/sum.txt"
[axes.arm.plain]
[axes.arm.signed]
number.style.sign = true
"""


def test_a_size_that_a_network_cannot_take_is_found_in_the_plan(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image_id,patient_id,path\n")
    stages = {
        "prepare": {"manifest": str(tmp_path / "manifest.csv"), "size": 100},
        "pretrain": {"store": "@prepare", "axes": {"architecture": ["timm:resnet18", "critic"]}},
    }
    said = r"recipe: \[stages.pretrain\] at pretrain.architecture=critic: size 100: .* nearest is 96$"
    with pytest.raises(InputError, match=said):
        plan(parse_recipe({"stages": stages}, "recipe"), tmp_path / "study")
    stages["prepare"]["size"] = 96
    assert len(plan(parse_recipe({"stages": stages}, "recipe"), tmp_path / "study").cells) == 3
    stages["prepare"]["channels"], stages["pretrain"]["stem"] = 3, "sum"
    with pytest.raises(InputError, match="stem 'sum' is for grey images"):
        plan(parse_recipe({"stages": stages}, "recipe"), tmp_path / "study")


def test_axes_multiply_and_references_pick_the_same_coordinates(tmp_path: Path) -> None:
    study = planned(GRID, tmp_path)
    counts = {stage: len(cells) for stage, cells in study.stages.items()}
    assert counts == {"number": 6, "add": 12, "again": 12, "total": 1}
    by_id = {cell.id: cell for cell in study.cells}
    for cell in study.stages["add"]:
        (needed,) = (by_id[need] for need in cell.needs)
        assert needed.stage == "number"
        assert needed.coordinates.items() <= cell.coordinates.items()
        assert set(cell.coordinates) == {"arm", "number.value", "add.plus"}
    (total,) = study.stages["total"]
    assert len(total.needs) == 18
    assert total.config.numbers == tuple(
        [cell.folder for cell in study.stages["add"]]
        + [cell.folder / "number.txt" for cell in study.stages["number"]]
    )


def test_cells_stand_after_the_cells_they_need(tmp_path: Path) -> None:
    seen: set[str] = set()
    for cell in planned(GRID, tmp_path).cells:
        assert set(cell.needs) <= seen
        seen.add(cell.id)


def test_ids_are_those_that_the_runs_record(tmp_path: Path) -> None:
    study = planned(GRID, tmp_path)
    for cell in study.cells:
        execute(cell.verb, cell.config, cell.folder, study.recipe.threads)
        assert json.loads((cell.folder / "config.json").read_text())["id"] == cell.id
    # A plan made when everything is there says the same as one made before.
    assert [cell.id for cell in planned(GRID, tmp_path).cells] == [cell.id for cell in study.cells]


def test_an_artifact_deep_in_a_run_has_the_planned_identity(tmp_path: Path) -> None:
    study = planned(
        HEAD + "[stages.add]\nverb='study_verbs.number'\nvalue=3\n"
        "[stages.last]\nverb='study_verbs.fail'\nstart='@number/parts/half.txt'\n"
        "[stages.folder]\nverb='study_verbs.fail'\nstart='@number/parts'\n",
        tmp_path,
    )
    for cell in study.cells:
        execute(cell.verb, cell.config, cell.folder)
        assert json.loads((cell.folder / "config.json").read_text())["id"] == cell.id


def test_the_study_folder_is_no_part_of_an_id(tmp_path: Path) -> None:
    stages = {
        "number": {"verb": "study_verbs.number"},
        "b": {"verb": "study_verbs.add", "start": "@number"},
    }
    recipe = parse_recipe({"stages": stages}, "recipe")
    here, there = plan(recipe, tmp_path / "a"), plan(recipe, tmp_path / "b" / "c")
    assert [cell.id for cell in here.cells] == [cell.id for cell in there.cells]


def test_threads_and_settings_are_part_of_an_id(tmp_path: Path) -> None:
    ids = [
        planned(HEAD, tmp_path, *assignments).cells[0].id
        for assignments in ((), ("threads=2",), ("number.value=2",), ("number.style.digits=2",))
    ]
    assert len(set(ids)) == 4


def test_a_change_reaches_only_what_depends_on_it(tmp_path: Path) -> None:
    before = {cell.id for cell in planned(GRID, tmp_path).cells}
    after = planned(GRID, tmp_path, "add.axes.plus=[0, 11]")
    new = [cell for cell in after.cells if cell.id not in before]
    assert {cell.stage for cell in new} == {"add", "again", "total"}
    assert len([cell for cell in new if cell.stage == "add"]) == 6


def test_equal_cells_are_computed_once(tmp_path: Path) -> None:
    study = planned(
        HEAD + "[axes.arm.a]\nnumber.value = 5\n[axes.arm.b]\nnumber.value = 5\n"
        "[stages.total]\nverb='study_verbs.add'\nnumbers=['@number']\n",
        tmp_path,
    )
    assert [cell.stage for cell in study.cells] == ["number", "total"]
    assert len(study.stages["total"][0].config.numbers) == 1


def test_a_list_takes_the_cells_that_share_its_coordinates(tmp_path: Path) -> None:
    study = planned(
        HEAD + "[stages.add]\nverb='study_verbs.add'\nstart='@number'\naxes.plus=[1,2]\n"
        "[stages.total]\nverb='study_verbs.add'\nstart='@number'\nnumbers=['@add']\n"
        "[axes.arm.a]\nnumber.value=1\n[axes.arm.b]\nnumber.value=2\n",
        tmp_path,
    )
    by_id = {cell.id: cell for cell in study.cells}
    for total in study.stages["total"]:
        needed = [by_id[need] for need in total.needs]
        assert {cell.coordinates["arm"] for cell in needed} == {total.coordinates["arm"]}
        assert [cell.stage for cell in needed] == ["number", "add", "add"]


def test_a_star_takes_all_that_does_not_wait_for_it(tmp_path: Path) -> None:
    study = planned(
        GRID + "[stages.report]\nverb='study_verbs.report'\nruns=['@*']\n"
        "[stages.after]\nverb='study_verbs.fail'\nstart='@report'\n",
        tmp_path,
    )
    (report,) = study.stages["report"]
    assert len(report.config.runs) == 6 + 12 + 12 + 1
    assert report.config.title == "A grid"


def test_references_as_values_of_an_axis(tmp_path: Path) -> None:
    study = planned(
        HEAD + "[stages.other]\nverb='study_verbs.number'\nvalue=9\naxes.style.digits=[1,2]\n"
        "[stages.add]\nverb='study_verbs.add'\naxes.start=['@number','@other']\n",
        tmp_path,
    )
    starts = [cell.config.start.name.rpartition("-")[0] for cell in study.stages["add"]]
    assert starts == ["number", "other-digits1", "other-digits2"]


ARMS = """
[axes.repeat.first]
add.seed = 0
[axes.repeat.second]
add.seed = 1
[axes.arm.plain]
number.value = 1
[axes.arm.signed]
number.value = 2
[axes.labels.few]
add.how = "not"
[axes.labels.many]
add.how = "not at 1"
"""
STAGES = (
    "[stages.add]\nverb = 'study_verbs.fail'\nstart = '@number'\n"
    "[stages.total]\nverb = 'study_verbs.add'\nnumbers = ['@add']\n"
)


def test_where_no_verb_makes_arms_the_first_named_axis_does(tmp_path: Path) -> None:
    """Not an axis of seeds alone, nor a later one; a list of cells of every arm belongs to none."""
    study = planned(HEAD + STAGES + ARMS, tmp_path)
    for cell in (*study.stages["number"], *study.stages["add"]):
        assert cell.arms == {cell.coordinates["arm"]}
    assert {name for cell in study.cells for name in cell.arms} == {"plain", "signed"}
    assert study.stages["total"][0].arms == frozenset()
    assert study.arms == {}  # no verb says what network and weights they are


def test_where_a_verb_makes_arms_no_axis_does(tmp_path: Path) -> None:
    encoder = "[stages.train]\nverb = 'study_verbs.encoder'\nstart = '@number'\narm = 'moco'\n"
    study = planned(HEAD + encoder + STAGES + ARMS, tmp_path)
    assert [cell.arms for cell in study.stages["train"]] == [{"moco"}, {"moco"}]
    assert {cell.arms for cell in study.stages["number"]} == {frozenset()}
    assert list(study.arms) == ["moco"]


def test_a_value_whose_file_is_missing_is_left_out_with_the_reason(tmp_path: Path) -> None:
    text = (
        HEAD + "[stages.report]\nverb='study_verbs.report'\nruns=['@number']\n"
        "[axes.arm.random]\n[axes.arm.imagenet]\n"
        f"skip_if_missing = '{tmp_path / 'weights.safetensors'}'\nnumber.value = 7\n"
    )
    study = planned(text, tmp_path)
    assert [cell.coordinates["arm"] for cell in study.stages["number"]] == ["random"]
    (report,) = study.stages["report"]
    assert list(report.config.not_run) == ["imagenet"]
    assert "weights.safetensors" in report.config.not_run["imagenet"]
    (tmp_path / "weights.safetensors").write_bytes(b"")
    study = planned(text, tmp_path)
    assert len(study.stages["number"]) == 2
    assert study.stages["report"][0].config.not_run == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no stages"),
        ("[stage.number]", "unknown key 'stage', did you mean 'stages'?"),
        ("[stages.nmber]", "unknown verb 'nmber'"),
        ("[stages.prepar]", "unknown verb 'prepar', did you mean 'prepare'?"),
        ("[stages.x]\nverb='os.path'", "is not a verb"),
        (HEAD + "vlaue = 3", "unknown key 'vlaue', did you mean 'value'?"),
        (HEAD + "value = 'x'", "'value'"),
        (HEAD + "style.digit = 3", "unknown key 'style.digit', did you mean 'digits'?"),
        (HEAD + "axes.vlaue = [3]", "unknown key 'vlaue', did you mean 'value'?"),
        (HEAD + "axes.value = 3", "stages.number.axes.value is a list"),
        (HEAD + "axes.value = []", "has no values"),
        (HEAD + "value = 1\naxes.value = [3]", "is set and also an axis"),
        (HEAD + "value = '@number'", "wait for each other: number -> number"),
        (HEAD + "[stages.b]\nverb='study_verbs.fail'\nhow='@number'", "so it can't be a reference"),
        (HEAD + "[stages.b]\nverb='study_verbs.fail'\nstart='@nmber'", "'nmber', did you mean 'number'?"),
        (HEAD + "[stages.b]\nverb='study_verbs.fail'\nstart='gone.txt'", "gone.txt: no such file or folder"),
        (HEAD + "[axes.arm.x]\nnumbre.value = 1", "unknown stage 'numbre', did you mean 'number'?"),
        (HEAD + "[axes.arm.x]\nnumber.axes.value = [1]", "can't vary along an axis"),
        (HEAD + "[axes.arm]", "axis 'arm' has no value to run"),
        (HEAD + "axes.value=[1]\n[axes.arm.x]\nnumber.value = 1", "both set number.value"),
        (HEAD + "[axes.number.x]\nnumber.value = 1", "has the name of a stage"),
        ("threads = 0\n" + HEAD, "'threads': Input should be greater than or equal to 1 (got 0)"),
        (
            "[stages.a]\nverb='study_verbs.fail'\nstart='@b'\n"
            "[stages.b]\nverb='study_verbs.add'\nnumbers=['@c/sum.txt']\n"
            "[stages.c]\nverb='study_verbs.fail'\nstart='@b'\n",
            "stages wait for each other: b -> c -> b",
        ),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_refused_before_anything_runs(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        planned(text, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "recipe.toml" in str(caught.value)
    assert not (tmp_path / "study").exists()


def test_a_mistyped_setting_of_a_method_is_found_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    text = f"[stages.pretrain]\nstore = '{tmp_path / 'store'}'\nobjective = 'moco'\n"
    assert planned(text, tmp_path).cells[0].config.objective == "moco"
    with pytest.raises(
        InputError, match="settings of moco: unknown key 'temprature', did you mean 'temperature'"
    ):
        planned(text, tmp_path, "pretrain.settings.temprature=0.1")
    with pytest.raises(InputError, match="unknown objective 'mocco', did you mean 'moco'"):
        planned(text, tmp_path, "pretrain.objective=mocco")


def test_an_unknown_stage_in_an_assignment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown stage 'nmber', did you mean 'number'"):
        planned(HEAD, tmp_path, "nmber.value=3")
    with pytest.raises(InputError, match="unknown stage 'thread', did you mean 'threads'"):
        planned(HEAD, tmp_path, "thread=1")


def test_an_unknown_value_of_a_named_axis_is_refused_and_no_new_arm(tmp_path: Path) -> None:
    text = HEAD + "[axes.arm.moco]\nnumber.value = 1\n[axes.arm.random]\nnumber.value = 2\n"
    with pytest.raises(InputError, match="axis 'arm' has no value 'mocco', did you mean 'moco'"):
        planned(text, tmp_path, "axes.arm.mocco.number.value=9")
    values = {cell.config.value for cell in planned(text, tmp_path, "axes.arm.moco.number.value=9").cells}
    assert values == {9, 2}


@pytest.mark.parametrize("text", ["stages.number.value=8", "number.value=8"])
def test_assignments_override_the_recipe(text: str, tmp_path: Path) -> None:
    assert planned(HEAD, tmp_path, text).cells[0].config.value == 8


texts = st.text(st.characters(codec="utf-8"), max_size=5)
values = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, max_size=4))
@settings(max_examples=200, deadline=None)
def test_toml_reads_back_as_it_was_written(written: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(written)) == written


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    named=st.integers(0, 3),
)
@settings(max_examples=30, deadline=None)
def test_a_chain_has_the_product_of_its_axes(sizes: list[int], named: int) -> None:
    stages: dict[str, object] = {}
    for i, size in enumerate(sizes):
        stages[f"s{i}"] = {
            "verb": "study_verbs.add",
            "axes": {"plus": list(range(size))},
            **({"start": f"@s{i - 1}"} if i else {}),
        }
    axes = {"arm": {f"v{j}": {"s0": {"steps": j + 1}} for j in range(named)}} if named else {}
    recipe = parse_recipe({"stages": stages, "axes": axes}, "recipe")
    study = plan(recipe, Path("nowhere"))
    expected = max(named, 1)
    for i, size in enumerate(sizes):
        expected *= size
        assert len(study.stages[f"s{i}"]) == expected
    assert len({cell.id for cell in study.cells}) == len(study.cells)
    assert len({cell.folder for cell in study.cells}) == len(study.cells)


PINNED = """
[stages.number]
verb = "study_verbs.number"
axes.value = [1, 2]
[stages.add]
verb = "study_verbs.add"
start = "@number[arm=signed]/number.txt"
[stages.both]
verb = "study_verbs.add"
start = "@number"
numbers = ["@add[number.value=2]", "@number[arm=plain, number.value=1]"]
[axes.arm.plain]
[axes.arm.signed]
number.style.sign = true
"""


def test_a_reference_can_be_pinned_to_a_value_of_an_axis(tmp_path: Path) -> None:
    study = planned(PINNED, tmp_path)
    by_id = {cell.id: cell for cell in study.cells}
    assert len(study.stages["add"]) == 2  # along value only: the arm is pinned
    for cell in study.stages["add"]:
        assert set(cell.coordinates) == {"number.value"}
        (needed,) = (by_id[need] for need in cell.needs)
        assert needed.coordinates == {"arm": "signed", **cell.coordinates}
        assert cell.config.start == needed.folder / "number.txt"
    assert len(study.stages["both"]) == 4
    for cell in study.stages["both"]:
        listed = [by_id[need] for need in cell.needs if need != cell.needs[0]]
        at = [(one.stage, one.coordinates["number.value"]) for one in listed]
        assert ("add", "2") in at
        assert len(cell.config.numbers) == 2


def test_a_stage_named_with_and_without_a_pin_varies_along_the_axis(tmp_path: Path) -> None:
    extra = '[stages.twice]\nverb = "study_verbs.add"\nstart = "@number"\n'
    text = PINNED.replace("[axes.arm.plain]", extra + "[axes.arm.plain]")
    assert len(planned(text, tmp_path).stages["twice"]) == 4


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("@number[arm=sined]", "stage 'number' has no arm 'sined', did you mean 'signed'"),
        ("@number[leg=left]", "stage 'number' has no axis 'leg'"),
        ("@number[arm]", "is not a reference; write @stage"),
        ("@number[arm=signed", "is not a reference; write @stage"),
        ("@nmber[arm=signed]", "unknown stage 'nmber', did you mean 'number'"),
    ],
)
def test_a_pin_that_names_nothing_is_refused(tmp_path: Path, reference: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        planned(PINNED.replace("@number[arm=signed]/number.txt", reference), tmp_path)
