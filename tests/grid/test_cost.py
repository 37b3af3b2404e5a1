"""What a study costs, counted from its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from trabecula.errors import InputError
from trabecula.grid.cost import costs
from trabecula.grid.recipe import told_not_run
from trabecula.study import foretell, make_plan
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


def test_costs_are_counted_from_the_settings(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    study = make_plan(tmp_path / "r.toml", tmp_path / "study")
    assert costs(study.cells) == {
        "pretrain": "2 pretrainings, 3,500 images seen in all; 1 encoder without pretraining",
        "probe": "36 linear probes, 50 strengths each",
        "search": "3 searches, 21 trials in all, a fine-tuning each",
        "finetune": "27 fine-tunings, at most 3,600 images seen in all, at most 9 passes over the labelled "
        "images each, as long as their search chooses",
    }
    told = foretell(study, tmp_path / "study")
    assert told[0] == "pretrain: 2 pretrainings, 3,500 images seen in all; 1 encoder without pretraining"
    assert len(told) == 4  # and no hour, since nobody knows any
    assert {cell.verb for cell in study.cells} <= VERBS.keys()


def test_a_method_that_sees_no_image_is_no_pretraining(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.replace("2500", "0"))
    study = make_plan(tmp_path / "r.toml", tmp_path / "study")
    told = costs(study.cells)["pretrain"]
    assert told == "1 pretraining, 1,000 images seen in all; 2 encoders without pretraining"


def test_what_is_done_costs_nothing_and_tells_the_time_of_the_rest(
    tmp_path: Path,
) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    study = make_plan(tmp_path / "r.toml", tmp_path)
    (tmp_path / "logs").mkdir()
    pretrained = {cell.coordinates["arm"]: cell for cell in study.stages["pretrain"]}
    lines = []
    for name, took in {"random": 1.0, "gan": 1200.0}.items():
        cell = pretrained[name]
        cell.folder.mkdir(parents=True)
        (cell.folder / "DONE").write_text("done\n")
        lines.append(f'{{"id": "{cell.id}", "seconds": {took}}}\n')
    (tmp_path / "logs" / "durations.jsonl").write_text("".join(lines))
    told = foretell(study, tmp_path)
    assert told[0] == (
        "pretrain: 1 pretraining, 2,500 images seen in all; about 20 min for 1 cell, as those done took"
    )
    assert told[-1] == (
        "time of what is known: about 20 min on one worker, without phantom, cohort, split, prepare, embed, "
        "probe, search, finetune"
    )


def test_a_missing_file_is_told_once_with_the_controls_that_go_with_it() -> None:
    arms = {
        "net-random": {"skip_if_missing": "w.bin", "pretrain": {"architecture": "net"}},
        "net-imagenet": {"skip_if_missing": "w.bin", "pretrain": {"weights": "w.bin"}},
        "own": {"skip_if_missing": "other.bin", "pretrain": {"size": 3}},
    }
    not_run = {
        "net-random": "w.bin is not there",
        "net-imagenet": "w.bin is not there",
        "own": "other.bin is",
    }
    assert told_not_run({"axes": {"arm": arms}}, not_run) == [
        "net-imagenet: w.bin is not there; left out with it: its control net-random",
        "own: other.bin is",
    ]
    assert told_not_run({}, {"x": "why"}) == ["x: why"]
    assert told_not_run({"axes": {"arm": arms}}, {}) == []


def test_an_error_ends_the_line_of_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.toml").write_text("[stages.phantom]\nsizze = 3\n")
    with pytest.raises(InputError, match="sizze"):
        make_plan(tmp_path / "r.toml", tmp_path)
    assert capsys.readouterr().err == ""
