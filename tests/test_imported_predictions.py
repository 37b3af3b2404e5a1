"""Another tool's predictions through `evaluate`, and predictions that know their manifest."""

import json

import numpy as np
import pandas as pd
import pytest

from encoder_cards import write_card
from predicted_study import FILES, config_of, make_study, row_of
from trabecula.artifacts.manifest import manifest_digest
from trabecula.artifacts.run_record import add_provenance
from trabecula.errors import InputError
from trabecula.report import Config as ReportConfig
from trabecula.run import execute


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def other(study):
    """A file as another tool gives it: the test images of one model of the study."""
    root, _ = study
    rows = pd.read_csv(root / "predictions-resnet-moco" / "predictions.csv")
    rows = rows[(rows["task"] == "oa") & (rows["fraction"] == 1) & (rows["seed"] == 0)]
    rows = rows[rows["split"] == "test"][["image_id", "p_0", "p_1"]].reset_index(drop=True)
    return rows.assign(task="oa")


def _evaluate(study, tmp_path, table, name="deep tool.csv", **settings):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    table.to_csv(file, index=False)
    settings = {"predictions": [file], "encoders": [], **settings}
    return execute("evaluate", config_of(study[0], **settings), file.parent / "out")


def test_it_has_the_values_of_the_same_predictions_made_here(study, other, tmp_path):
    said = _evaluate(study, tmp_path, other)
    found = {name: json.loads((tmp_path / "out" / name).read_text()) for name in FILES}
    execute("evaluate", config_of(study[0], ("resnet-moco",)), tmp_path / "own")
    own = {name: json.loads((tmp_path / "own" / name).read_text()) for name in FILES}
    for metric in ("auroc", "average_precision", "brier", "ece"):
        row = row_of(found, task="oa", arm="deep tool", metric=metric)
        same = row_of(own, task="oa", arm="resnet-moco", fraction=1.0, metric=metric, seed=0)
        assert row["value"] == same["value"]
        assert row["low"] < row["value"] < row["high"]
    assert (row["mode"], row["fraction"], row["num_seeds"]) == ("imported", 1.0, 1)
    assert row_of(found, task="oa", arm="deep tool", metric="sensitivity")["value"] is None
    assert said.startswith("1 arms on oa: nothing to compare")
    assert "whom deep tool learned from is not known" in said
    report = ReportConfig(results=tmp_path / "out", manifest=study[0] / "hospital")
    execute("report", report, tmp_path / "report")
    assert "another tool's predictions" in (tmp_path / "report" / "report.html").read_text().replace(
        "&#39;", "'"
    )


def test_columns_may_bear_the_names_of_the_classes_and_the_task_may_be_the_only_one(study, other, tmp_path):
    root = tmp_path / "one"
    root.mkdir()
    for file in (study[0] / "hospital").iterdir():
        (root / file.name).write_bytes(file.read_bytes())
    tasks = json.loads((root / "tasks.json").read_text())
    (root / "tasks.json").write_text(json.dumps({"oa": tasks["oa"]}))
    plain = other.drop(columns="task").rename(columns={"p_0": "0", "p_1": "1"}).assign(remark="x")
    _evaluate(study, tmp_path, plain, manifest=root)
    with pytest.raises(InputError, match=r"add a column 'task' .*tasks of the manifest: oa, grade"):
        _evaluate(study, tmp_path, plain, name="more/x.csv")


def test_arms_seeds_and_fractions_are_columns_if_they_are_there(study, other, tmp_path):
    rng, made = np.random.default_rng(0), []
    for arm, shift in (("good", 0.0), ("bad", 3.0)):
        for seed in range(5):
            logit = np.log(other["p_1"] / other["p_0"]) + rng.normal(0, 0.1 + shift, len(other))
            p = 1 / (1 + np.exp(-logit))
            made.append(other.assign(arm=arm, seed=seed, fraction=0.1, p_1=p, p_0=1 - p))
    encoders = [
        write_card(tmp_path / arm, arm, architecture="timm:resnet18", family=family)
        for arm, family in (("good", "pretrained"), ("bad", "random"))
    ]
    said = _evaluate(study, tmp_path, pd.concat(made), encoders=encoders)
    (pair,) = json.loads((tmp_path / "out" / "comparisons.json").read_text())["pairs"]
    assert (pair["arm"], pair["baseline"], pair["claim"], pair["num_seeds"]) == ("good", "bad", "better", 5)
    assert (pair["mode"], pair["fraction"], pair["note"]) == ("imported", 0.1, "")
    assert "is not known" not in said  # their cards say whom they saw


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(p_1=t["p_1"].where(t.index != 3, t["p_1"] + 0.02).clip(0, 1)), "row 5 has prob"),
        (lambda t: t.assign(p_0=t["p_0"].where(t.index > 1, 0), p_1=t["p_1"].where(t.index > 1, 0)),
         r"rows 2, 3 have probabilities that do not sum to 1 within 0.005 \(the first sums to 0\)"),
        (lambda t: t.assign(p_1=t["p_1"].where(t.index != 0, np.nan)), "row 2 has a prob.* not a finite"),
        (lambda t: t.assign(p_1=t["p_1"].astype(object).where(t.index != 0, "a")), "row 2 .* not a finite"),
        (lambda t: t.assign(p_1=t["p_1"].where(t.index != 7, np.inf)), "row 9 has a prob.* not a finite"),
        (lambda t: t.assign(p_0=100 * t["p_0"], p_1=100 * t["p_1"]), "outside 0 to 1; divide per cent"),
        (lambda t: t.assign(p_0=1.2, p_1=-0.2), "outside 0 to 1"),
        (lambda t: pd.concat([t, t.iloc[[4, 6]]]),
         r"rows 6, 8, 122, 123 have an image that is predicted more than once \(the first is image"),
        (lambda t: t.assign(image_id=t["image_id"].where(t.index != 2, "zzz")),
         r"row 4 has an image that .*manifest.csv does not have \(the first is image 'zzz'\)"),
        (lambda t: t.assign(image_id=t["image_id"].where(t.index != 2, "")), "row 4 has no image_id"),
        (lambda t: t[t.index != 11], "no prediction for 1 of 120 test images"),
        (lambda t: t.drop(columns="p_1"), "no column 'p_1'.*classes: 0, 1"),
        (lambda t: t.rename(columns={"image_id": "image"}), "no column 'image_id'"),
        (lambda t: t.assign(task="nothing"), "nothing"),
        (lambda t: t.assign(seed="a"), "rows 2, 3, 4, 5, 6 and 115 more have no whole number .*'seed'"),
        (lambda t: t.assign(fraction=50), r"a fraction that is not in \(0, 1\]"),
        (lambda t: t[:0], "only a header"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused_with_its_rows(study, other, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as caught:
        _evaluate(study, tmp_path, change(other))
    assert "\n" not in str(caught.value)


def test_rows_are_those_of_the_file_where_it_has_blank_lines(study, other, tmp_path):
    lines = other.assign(p_1=other["p_1"].where(other.index != 3, 0.0)).to_csv(index=False).splitlines()
    (tmp_path / "deep tool.csv").write_text("\n".join([lines[0], "", *lines[1:3], "", *lines[3:]]))
    root, _ = study
    config = config_of(root, ()).model_copy(update={"predictions": (tmp_path / "deep tool.csv",)})
    with pytest.raises(InputError, match=rf"row 7 has prob.* image '{other['image_id'][3]}'"):
        execute("evaluate", config, tmp_path / "out")


def test_three_digits_are_enough_and_training_images_are_counted(study, other, tmp_path):
    _, table = study
    train = table.loc[table["split"] == "train", ["image_id"]].assign(p_0=0.5, p_1=0.5, task="oa")
    said = _evaluate(study, tmp_path, pd.concat([other.round(3), train]))
    assert f"{len(train)} imported rows of training or unsplit patients are not used" in said
    with pytest.raises(InputError, match="none of its images belongs to a test patient"):
        _evaluate(study, tmp_path, train, name="more/other.csv")


def test_labels_need_not_sum_to_one(study, tmp_path):
    root = tmp_path / "labels"
    root.mkdir()
    for name in ("manifest.csv", "splits.csv"):
        (root / name).write_bytes((study[0] / "hospital" / name).read_bytes())
    table = pd.read_csv(root / "manifest.csv", dtype=str)
    table = table.assign(a=(table["kl"] > "1").astype(int), b=(table["sex"] == "F").astype(int))
    table.to_csv(root / "manifest.csv", index=False)
    (root / "tasks.json").write_text(json.dumps({"both": {"kind": "multilabel", "labels": ["a", "b"]}}))
    everyone = table[["image_id"]].assign(a=0.9, b=np.linspace(0, 1, len(table)))
    _evaluate(study, tmp_path, everyone, manifest=root)
    row = row_of({"metrics.json": json.loads((tmp_path / "out" / "metrics.json").read_text())},
                 metric="auroc[a]", arm="deep tool")  # fmt: skip
    assert (row["value"], row["low"], row["note"]) == (0.5, None, "no resample differs: no interval")


def test_predictions_made_with_another_manifest_are_refused(study, tmp_path):
    """The digest that probe and finetune record; without one, as `predict` leaves it, nothing is compared."""
    root, _ = study
    run = tmp_path / "predictions-resnet-moco"
    run.mkdir()
    for file in (root / run.name).iterdir():
        (run / file.name).write_bytes(file.read_bytes())
    config = config_of(root, ("resnet-moco",)).model_copy(update={"predictions": (run,)})
    add_provenance(run, manifest=manifest_digest(root / "hospital"))
    execute("evaluate", config, tmp_path / "same")
    changed = tmp_path / "hospital"
    changed.mkdir()
    for file in (root / "hospital").iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    text = (changed / "manifest.csv").read_text()
    assert manifest_digest(changed) == manifest_digest(root / "hospital" / "manifest.csv")
    execute("evaluate", config.model_copy(update={"manifest": changed}), tmp_path / "copy")
    (changed / "manifest.csv").write_text(text.replace(",F\n", ",M\n", 1))
    with pytest.raises(InputError, match="made with another manifest than"):
        execute("evaluate", config.model_copy(update={"manifest": changed}), tmp_path / "out")
