"""What a study costs, as its verbs count it from their settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from trabecula.errors import InputError
from trabecula.run import verb_module
from trabecula.study import make_plan, remaining_work
from trabecula.verbs import VERBS

RECIPE = """
[stages.phantom]
num_patients = 10
size = 32
[stages.cohort]
root = "@phantom/images"
table = "@phantom/table.csv"
[stages.split]
manifest = "@cohort"
task = "kl >= 2"
[stages.prepare]
manifest = "@cohort"
size = 32
[stages.pretrain]
store = "@prepare"
splits = "@split"
architecture = "critic:4-8"
images = 1000
[stages.embed]
encoder = "@pretrain"
store = "@prepare"
[stages.probe]
features = "@embed"
manifest = "@cohort"
splits = "@split"
task = ["kl >= 2", "kl >= 3"]
fractions = [0.1, 0.5]
seeds = [0, 1, 2]
[stages.search]
encoder = "@pretrain"
store = "@prepare"
manifest = "@cohort"
splits = "@split"
task = "kl >= 2"
preset = "rate"
trials = 7
[stages.finetune]
encoder = "@pretrain"
store = "@prepare"
manifest = "@cohort"
splits = "@split"
task = "kl >= 2"
axes.seed = [0, 1, 2]
[axes.arm.random]
[axes.arm.gan]
pretrain.objective = "wgan_gp"
[axes.arm.more]
pretrain = { objective = "wgan_gp", images = 2500 }
[axes.how.few]
finetune.images = 400
[axes.how.passes]
finetune.epochs = 9
[axes.how.chosen]
finetune.chosen = "@search"
"""


@pytest.fixture
def _verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def test_costs_are_counted_from_the_settings(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    study = make_plan(tmp_path / "r.toml", tmp_path / "study")
    lines = remaining_work(study, tmp_path / "study")
    assert lines[0] == "pretrain: 1 encoder without pretraining, 2 pretrainings, 3,500 images seen"
    assert [line.partition(":")[0] for line in lines] == ["pretrain", "probe", "search", "finetune"]
    assert "36 " in lines[1]  # probes
    assert "3 searches, 21 " in lines[2]  # trials
    assert "27 " in lines[3]  # fine-tunings
    assert "3,600 " in lines[3]  # images seen
    assert {cell.verb for cell in study.cells} <= VERBS.keys()  # and no hour, since nothing is measured


def test_a_method_that_sees_no_image_is_not_a_pretraining(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.replace("2500", "0"))
    lines = remaining_work(make_plan(tmp_path / "r.toml", tmp_path / "study"), tmp_path / "study")
    assert lines[0] == "pretrain: 2 encoders without pretraining, 1 pretraining, 1,000 images seen"


def test_what_is_done_costs_nothing_and_gives_the_time_of_the_rest(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    study = make_plan(tmp_path / "r.toml", tmp_path)
    (tmp_path / "logs").mkdir()
    pretrained = {cell.coordinates["arm"]: cell for cell in study.stages["pretrain"]}
    rows = []
    for name, took in {"random": 1.0, "gan": 1200.0}.items():
        cell = pretrained[name]
        cell.folder.mkdir(parents=True)
        (cell.folder / "DONE").write_text("done\n")
        rows.append(f'{{"id": "{cell.id}", "seconds": {took}}}\n')
    (tmp_path / "logs" / "durations.jsonl").write_text("".join(rows))
    lines = remaining_work(study, tmp_path)
    assert lines[0] == (
        "pretrain: 1 pretraining, 2,500 images seen; about 20 min for 1 cell, as finished ones took"
    )
    assert lines[-1] == (
        "time of what is known: about 20 min on one worker, without phantom, cohort, split, prepare, embed, "
        "probe, search, finetune"
    )


@pytest.mark.usefixtures("_verbs")
def test_counts_are_summed_by_stage_and_kind(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "[stages.train]\nverb = 'study_verbs.encoder'\narm = 'a'\naxes.images = [0, 600, 1000]\n"
        "axes.seed = [0, 1]\n[stages.total]\nverb = 'study_verbs.add'\nnumbers = ['@train']\n"
    )
    found = remaining_work(make_plan(recipe, tmp_path), tmp_path)
    assert found == ["train: 2 searches without end, 4 pretrainings, 3,200 images seen"]
    found = remaining_work(make_plan(recipe, tmp_path, ["train.axes.seed=[0]"]), tmp_path)
    assert found == ["train: 1 search without end, 2 pretrainings, 1,600 images seen"]


@pytest.mark.usefixtures("_verbs")
def test_a_config_is_checked_against_the_configs_that_make_its_inputs(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "[stages.number]\nverb = 'study_verbs.number'\nvalue = 3\n"
        "[stages.train]\nverb = 'study_verbs.encoder'\narm = 'a'\nstart = '@number/number.txt'\n"
    )
    assert len(make_plan(recipe, tmp_path).cells) == 2
    with pytest.raises(InputError, match=r"\[stages.train\]: 'start' will be below 0; use a value from 0 up"):
        make_plan(recipe, tmp_path, ["number.value=-3"])


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_verb_offers_to_studies_is_its_own(verb: str) -> None:
    """An imported function of that name would be taken for the verb's."""
    module = verb_module(verb)
    for name in ("workload", "check", "arm"):
        assert getattr(module, name, module.run).__module__ == module.__name__


def test_an_error_ends_the_line_of_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.toml").write_text("[stages.phantom]\nsizze = 3\n")
    with pytest.raises(InputError, match="sizze"):
        make_plan(tmp_path / "r.toml", tmp_path)
    assert capsys.readouterr().err == ""
