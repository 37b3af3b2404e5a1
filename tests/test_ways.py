"""One study that fine-tunes in several ways: heads, chosen settings, snapshots, augmentation alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.splits import read_splits
from trabecula.config import to_toml
from trabecula.errors import InputError
from trabecula.grid.cells import Plan, plan
from trabecula.recipe import parse_recipe, read_recipe
from trabecula.run import execute, identity

RECIPE = """
title = "Ways"

[stages.phantom]
num_patients = 24
num_unlabelled_patients = 0
size = 32

[stages.cohort]
root = "@phantom/images"
table = "@phantom/table.csv"
tasks.kl2 = { kind = "binary", labels = ["kl"], positive = "kl >= 2" }

[stages.split]
manifest = "@cohort"
task = "kl2"
train = 0.4
val = 0.3
test = 0.3

[stages.prepare]
manifest = "@cohort"
size = 32

[stages.pretrain]
store = "@prepare"
splits = "@split"
architecture = "critic"
batch_size = 8

[stages.search]
encoder = "@pretrain[arm=critic-wgan_gp]"
store = "@prepare"
manifest = "@cohort"
splits = "@split"
task = "kl2"
preset = "table1"
sampler = "random"
trials = 2
settings = { images = 16, batch_size = 8 }

[stages.finetune]
encoder = "@pretrain"
store = "@prepare"
manifest = "@cohort"
splits = "@split"
task = "kl2"
images = 16
batch_size = 8
keep = false
axes.seed = [0, 1]

[stages.head]
verb = "finetune"
encoder = "@pretrain"
chosen = "@search"
variant = "best head"
store = "@prepare"
manifest = "@cohort"
splits = "@split"
task = "kl2"
keep = false

[stages.sweep]
verb = "finetune"
axes.encoder = [
  "@pretrain[arm=critic-wgan_gp]/snapshots/000000032", "@pretrain[arm=critic-wgan_gp]/snapshots/000000064",
]
store = "@prepare"
manifest = "@cohort"
splits = "@split"
task = "kl2"
images = 16
batch_size = 8
keep = false

[stages.evaluate]
predictions = ["@finetune", "@head", "@sweep"]
encoders = [
  "@pretrain", "@pretrain[arm=critic-wgan_gp]/snapshots/000000032",
  "@pretrain[arm=critic-wgan_gp]/snapshots/000000064",
]
manifest = "@cohort"
store = "@prepare"
splits = "@split"
num_resamples = 100

[stages.report]
results = "@evaluate"
manifest = "@cohort"
runs = ["@*"]

[axes.arm.critic-random]
pretrain = {}

[axes.arm.critic-wgan_gp.pretrain]
objective = "wgan_gp"
images = 96
every = 32
snapshots = 32
settings = { critic_steps = 1, latent = 8 }

[axes.arm.critic-random-augmented]
pretrain = { arm = "critic-random-augmented" }
finetune = { views = { crop_scale = [0.5, 1.0] }, optimizer = { lr = 1e-4, weight_decay = 1e-2 } }

[axes.way.plain]
finetune = {}

[axes.way.critic]
finetune = { head = "critic", variant = "critic head" }
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    root = tmp_path_factory.mktemp("ways")
    (root / "ways.toml").write_text(RECIPE)
    study = plan(read_recipe(root / "ways.toml"), root / "study")
    for cell in study.cells:
        execute(cell.verb, cell.config, cell.folder)
        assert identity(cell.folder) == cell.id
    return study


def folder(study: Plan, stage: str) -> Path:
    (cell,) = study.stages[stage]
    return cell.folder


def test_the_grid_has_the_cells_that_were_meant(done: Plan) -> None:
    counts = {stage: len(cells) for stage, cells in done.stages.items()}
    assert counts["pretrain"] == 3
    assert counts["search"] == 1  # pinned to one arm, so it does not vary along the arms
    assert (counts["finetune"], counts["head"], counts["sweep"]) == (3 * 2 * 2, 3, 2)
    assert parse_recipe(done.recipe.values, "again").axes == done.recipe.axes
    assert to_toml(done.recipe.values).count("@search") == 1


def test_rows_of_every_way_are_told_apart(done: Plan) -> None:
    rows = json.loads((folder(done, "evaluate") / "metrics.json").read_text())["rows"]
    found = {(row["mode"], row["arm"]) for row in rows}
    arms = {"critic-random", "critic-wgan_gp", "critic-random-augmented"}
    ways = {"finetune", "finetune:critic head", "finetune:best head"}
    assert found == {(way, arm) for way in ways for arm in arms}


def test_pretraining_is_compared_with_augmentation_alone(done: Plan) -> None:
    pairs = json.loads((folder(done, "evaluate") / "comparisons.json").read_text())["pairs"]
    plain = {(p["arm"], p["baseline"]) for p in pairs if p["mode"] == "finetune"}
    assert {
        ("critic-wgan_gp", "critic-random"), ("critic-wgan_gp", "critic-random-augmented"),
        ("critic-random-augmented", "critic-random"),
    } == plain  # fmt: skip
    assert not any(p["arm"] == "critic-random" for p in pairs)
    page = (folder(done, "report") / "report.html").read_text()
    assert "fine-tuning, best head" in page
    assert "fine-tuning, critic head" in page


def test_scores_stand_against_images_seen(done: Plan) -> None:
    curves = json.loads((folder(done, "evaluate") / "curves.json").read_text())["snapshots"]
    assert {(c["arm"], c["mode"], c["fraction"]) for c in curves} == {("critic-wgan_gp", "finetune", 1.0)}
    (curve,) = [c for c in curves if c["metric"] == "auroc"]
    assert [point["images"] for point in curve["points"]] == [32, 64, 96]
    assert (curve["split"], curve["control"]["arm"]) == ("val", "critic-random")
    page = (folder(done, "report") / "report.html").read_text()
    assert "Over the course of pretraining" in page
    assert "images seen in pretraining" in page


def test_the_control_has_the_head_that_was_chosen_for_the_other_arm(done: Plan) -> None:
    chosen = json.loads((folder(done, "search") / "chosen.json").read_text())
    assert chosen["arm"] == "critic-wgan_gp"
    heads = [json.loads((c.folder / "settings.json").read_text())["head"] for c in done.stages["head"]]
    assert heads == [chosen["settings"]["head"]] * 3


def test_no_way_predicts_a_training_patient(done: Plan) -> None:
    splits = read_splits(folder(done, "split"))
    patient = read_manifest(folder(done, "cohort")).table.set_index("image_id")["patient_id"]
    for stage in ("finetune", "head", "sweep"):
        for cell in done.stages[stage]:
            table = pd.read_csv(cell.folder / "predictions.csv", dtype={"image_id": str})
            tested = table[table["split"] == "test"]["image_id"].map(patient)
            assert set(tested) == set(splits.patients("test"))


def test_two_ways_without_a_variant_are_refused_with_the_remedy(done: Plan, tmp_path: Path) -> None:
    text = RECIPE.replace(', variant = "critic head"', "")
    (tmp_path / "ways.toml").write_text(text)
    evaluate = plan(read_recipe(tmp_path / "ways.toml"), done.stages["evaluate"][0].folder.parents[1])
    missing = [cell for cell in evaluate.stages["finetune"] if not cell.done]
    for cell in missing:
        execute(cell.verb, cell.config, cell.folder)
    (cell,) = evaluate.stages["evaluate"]
    with pytest.raises(InputError, match=re.escape("other ways of fine-tuning a variant")):
        execute(cell.verb, cell.config, cell.folder)
