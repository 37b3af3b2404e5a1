"""Evaluation of a made-up study: values, intervals, comparisons, curves, counts."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from encoder_cards import write_card
from predicted_study import ARMS, FILES, SEEDS, config_of, copied, make_study, row_of, spoil
from trabecula import evaluate
from trabecula.artifacts.predictions import BELOW_PROBE, BEST_AT_END, KEPT_PROBE
from trabecula.artifacts.results import VERSION, Comparison, read_results
from trabecula.comparison.arms import ComparedArm, missing_baselines
from trabecula.errors import InputError
from trabecula.run import execute


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def done(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "run"
    summary = execute("evaluate", config_of(study[0], strata=("sex",)), out)
    return {name: json.loads((out / name).read_text()) for name in FILES}, out, summary


def _predicted(study, arm: str, task: str, fraction: float, seed: int) -> pd.DataFrame:
    root, table = study
    rows = pd.read_csv(root / f"predictions-{arm}" / "predictions.csv")
    rows = rows[(rows["task"] == task) & (rows["fraction"] == fraction) & (rows["seed"] == seed)]
    return rows[rows["split"] == "test"].merge(table[["image_id", "kl", "patient_id", "sex"]], on="image_id")


def test_values_are_sklearns(study, done):
    found = _predicted(study, "resnet-moco", "oa", 0.1, 3)
    y = found["kl"] >= 2
    where = {"task": "oa", "arm": "resnet-moco", "fraction": 0.1, "seed": 3}
    expected = {
        "auroc": sk.roc_auc_score(y, found["p_1"]),
        "average_precision": sk.average_precision_score(y, found["p_1"]),
        "brier": sk.brier_score_loss(y, found["p_1"]),
        "balanced_accuracy": sk.balanced_accuracy_score(y, found["p_1"] >= 0.5),
    }
    for metric, value in expected.items():
        row = row_of(done[0], metric=metric, **where)
        assert row["value"] == pytest.approx(value, abs=1e-5)
        assert (row["low"], row["num_images"], row["num_events"]) == (None, len(found), int(y.sum()))
    found = _predicted(study, "resnet-moco", "grade", 1.0, 0)
    called = found[[f"p_{k}" for k in range(4)]].to_numpy().argmax(axis=1)
    row = row_of(done[0], task="grade", arm="resnet-moco", fraction=1.0, seed=0, metric="quadratic_kappa")
    assert row["value"] == pytest.approx(
        sk.cohen_kappa_score(found["kl"], called, weights="quadratic"), abs=1e-5
    )


def test_the_row_over_seeds_is_their_mean_with_sd_and_interval(done):
    where = {"task": "oa", "arm": "resnet-moco", "fraction": 0.1, "metric": "auroc"}
    each = [row_of(done[0], seed=seed, **where)["value"] for seed in SEEDS]
    row = row_of(done[0], **where)
    assert row["value"] == pytest.approx(np.mean(each), abs=1e-5)
    assert row["sd_seeds"] == pytest.approx(np.std(each, ddof=1), rel=1e-3)
    assert row["low"] < row["value"] < row["high"]
    assert (row["num_seeds"], row["num_patients"], row["pretrain_seed"]) == (5, 60, 0)


def test_cohorts_and_strata_have_rows(study, done):
    where = {"task": "oa", "arm": "resnet-moco", "fraction": 1.0, "metric": "auroc"}
    east, women = row_of(done[0], cohort="east", **where), row_of(done[0], stratum="sex=F", **where)
    found = [_predicted(study, "resnet-moco", "oa", 1.0, seed) for seed in SEEDS]
    for row, column, value in ((east, "cohort", "east"), (women, "sex", "F")):
        parts = [f[f[column] == value] for f in found]
        expected = np.mean([sk.roc_auc_score(f["kl"] >= 2, f["p_1"]) for f in parts])
        assert row["value"] == pytest.approx(expected, abs=1e-5)
        assert row["num_images"] == len(parts[0])
        assert row["num_patients"] == parts[0]["patient_id"].nunique()


def test_spellings_of_a_cohort_or_stratum_are_one(study, done, tmp_path):
    table = pd.read_csv(study[0] / "hospital" / "manifest.csv", dtype=str, keep_default_na=False)
    for column in ("cohort", "sex"):
        table.loc[table.index % 3 == 1, column] = table[column].str.swapcase()
    table.to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "tasks.json").write_text((study[0] / "hospital" / "tasks.json").read_text())
    execute("evaluate", config_of(study[0], manifest=tmp_path, strata=("sex",)), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == done[0]["metrics.json"]


def test_a_planted_difference_is_claimed_and_none_is_not(done):
    against_random = [p for p in done[0]["comparisons.json"]["pairs"] if p["baseline_family"] == "random"]
    pairs = {(p["task"], p["arm"], p["metric"], p["fraction"]): p for p in against_random}
    for fraction in (0.1, 1.0):
        for task, metric in (("oa", "auroc"), ("grade", "quadratic_kappa")):
            planted, none = (pairs[(task, arm, metric, fraction)] for arm in ("resnet-moco", "resnet-same"))
            assert planted["claim"] == "better"
            assert 0 < planted["low"] < planted["difference"] < planted["high"]
            assert planted["p"] <= planted["p_holm"] < 0.01
            assert none["claim"] == "none"
            assert none["low"] < 0 < none["high"]
            assert none["same_architecture"]


def test_every_baseline_is_compared_or_named_as_not_run(done):
    found = done[0]["comparisons.json"]
    against = {(p["arm"], p["baseline"], p["same_architecture"]) for p in found["pairs"]}
    assert against == {
        ("resnet-moco", "resnet-random", True),
        ("resnet-moco", "vgg-imagenet", False),
        ("resnet-same", "resnet-random", True),
        ("resnet-same", "vgg-imagenet", False),
    }
    assert [(r["family"], r["architecture"]) for r in found["not_run"]] == [
        ("random", "timm:vgg16"),
        ("imagenet", "timm:resnet18"),
    ]


def test_the_last_line_tells_what_could_not_be_tested_from_what_shows_no_difference():
    place = ("oa", "probe", 1.0, "auroc", "moco", "random", "random", True, 60, 0.1, 0.0, 0.2, 0.01, 5)
    rows = [
        Comparison(*place, p, claim)
        for claim, p in (("better", 0.001), ("worse", 0.002), ("none", 0.4), ("none", float("nan")))
    ]
    told = "1 better, 1 worse, 1 with no difference shown"
    assert evaluate._compared(rows[:3]) == f"3 comparisons with a baseline: {told}"
    assert evaluate._compared(rows) == f"4 comparisons with a baseline: {told}, 1 not estimable"
    assert evaluate._compared(rows[:1]).startswith("1 comparison with")


def test_label_multipliers_are_read_from_the_baseline(done):
    rows = done[0]["comparisons.json"]["label_multipliers"]
    moco = [
        r
        for r in rows
        if r["arm"] == "resnet-moco" and r["baseline"] == "resnet-random" and r["task"] == "oa"
    ]
    small, full = sorted(moco, key=lambda r: r["fraction"])
    assert (small["censored"], small["value"]) == ("above", pytest.approx(10))
    assert (full["censored"], full["value"], full["high"]) == ("above", pytest.approx(1), None)


def test_curves_have_bands_around_them(done):
    curves = done[0]["curves.json"]
    for curve in curves["roc"]:
        tpr, low, high = (np.array(curve[key]) for key in ("tpr", "low", "high"))
        assert tpr.size == 101
        assert (np.diff(tpr) >= 0).all()
        assert tpr[-1] == 1
        assert ((low <= tpr + 0.05) & (tpr <= high + 0.05)).all()
    assert {c["class"] for c in curves["roc"] if c["task"] == "grade"} == {"0", "1", "2", "3"}
    assert {c["class"] for c in curves["roc"] if c["task"] == "oa"} == {"1"}
    for plot in curves["reliability"]:
        assert sum(b["num_images"] for b in plot["bins"]) == pytest.approx(120, abs=5)
    learning = [c for c in curves["learning"] if (c["task"], c["arm"]) == ("oa", "resnet-moco")]
    assert [p["num_patients"] for p in learning[0]["points"]] == [6, 60]
    assert all(len(p["seeds"]) == 5 and p["low"] < p["value"] < p["high"] for p in learning[0]["points"])


def test_flow_counts_patients_and_exclusions(done):
    flow = done[0]["flow.json"]
    assert flow["tasks"]["oa"]["exclusions"] == {"label missing": 1}
    assert flow["tasks"]["grade"]["parts"]["test"]["patients"] == 60
    assert sum(flow["tasks"]["grade"]["parts"]["test"]["per_class"].values()) == 120
    assert len(flow["subsets"]) == 2 * 2 * 5
    assert flow["subsets"][0]["num_train_patients"] == 6
    assert [arm["arm"] for arm in flow["arms"]] == sorted(ARMS)


def test_every_arm_names_its_control(done):
    cards = {arm["arm"]: (arm["control"], arm["control_reason"]) for arm in done[0]["flow.json"]["arms"]}
    assert cards == {
        "resnet-random": (None, ""),
        "resnet-moco": ("resnet-random", ""),
        "resnet-same": ("resnet-random", ""),
        "vgg-imagenet": (None, "no random arm of this architecture"),
    }


def test_an_incomplete_control_is_not_replaced_and_incomplete_arms_are_in_no_table(study, tmp_path):
    """Another random arm of the same network is there, and some runs of the arms that are left out."""
    path, _ = copied(study, tmp_path, "resnet-same")
    for file in (path, path.with_name("choices.csv")):
        spoil(file, lambda t: t.assign(arm="resnet-random-2"))
    write_card(
        tmp_path / "encoder-resnet-same", "resnet-random-2", architecture="timm:resnet18", family="random"
    )
    lost = {
        "name": "resnet-random",
        "architecture": "timm:resnet18",
        "family": "random",
        "reason": "it failed",
    }
    also = {**lost, "name": "resnet-same", "family": "pretrained"}
    config = config_of(study[0], incomplete=[lost, also])
    config = config.model_copy(
        update={
            "predictions": (*config.predictions, path.parent),
            "encoders": (*config.encoders, tmp_path / "encoder-resnet-same"),
        }
    )
    summary = execute("evaluate", config, tmp_path / "out")
    assert summary.endswith("; left out: resnet-random (it failed); left out: resnet-same (it failed)")
    metrics, comparisons, curves, flow = read_results(tmp_path / "out")
    kept = {"resnet-moco", "resnet-random-2", "vgg-imagenet"}
    assert {row.arm for row in metrics.rows} == {row.arm for row in curves.roc} == kept
    assert {(pair.arm, pair.baseline) for pair in comparisons.pairs} == {("resnet-moco", "vgg-imagenet")}
    assert {m.baseline for m in comparisons.label_multipliers} == {"vgg-imagenet"}
    reason = "the control resnet-random is incomplete: it failed"
    assert {arm.arm: (arm.control, arm.control_reason) for arm in flow.arms if "resnet" in arm.arm} == {
        "resnet-moco": (None, reason),
        "resnet-random-2": (None, reason),
    }
    assert [arm.name for arm in flow.incomplete] == ["resnet-random", "resnet-same"]
    missing = {row.architecture: row.reason for row in comparisons.not_run if row.family == "random"}
    assert missing["timm:resnet18"] == "it failed"


def test_nothing_is_evaluated_where_every_arm_is_incomplete(study, tmp_path):
    lost = [{"name": a, "architecture": k, "family": f, "reason": "no disk"} for a, (k, f, _) in ARMS.items()]
    with pytest.raises(InputError, match=r"every arm .* 'resnet-random' \(no disk\); nothing is left"):
        execute("evaluate", config_of(study[0], incomplete=lost), tmp_path / "out")


def test_an_incomplete_arm_is_named_as_on_its_card(study, tmp_path):
    """Otherwise the failed control of resnet18 would not be known as that of timm:resnet18."""
    lost = {"name": "resnet-a", "architecture": "resnet18", "family": "random", "reason": "it failed"}
    with pytest.raises(InputError, match=r"'resnet18' is 'timm:resnet18' on the cards; name it so"):
        execute("evaluate", config_of(study[0], incomplete=[lost]), tmp_path / "out")


def test_records_read_back_are_the_values_of_the_files(done):
    for name, value in zip(FILES, read_results(done[1]), strict=True):
        again = json.loads(json.dumps(value, default=dict))
        assert again == {k: v for k, v in done[0][name].items() if k != "version"}
        assert done[0][name]["version"] == VERSION


def test_the_same_input_gives_the_same_bytes(study, done, tmp_path):
    summary = execute("evaluate", config_of(study[0], strata=("sex",)), tmp_path / "again")
    assert summary == done[2]
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (done[1] / name).read_bytes()


def test_the_draws_depend_on_the_seed(study, done, tmp_path):
    execute("evaluate", config_of(study[0], strata=("sex",), seed=1), tmp_path / "seed")
    again = {name: json.loads((tmp_path / "seed" / name).read_text()) for name in FILES}
    where = {"task": "oa", "arm": "resnet-moco", "fraction": 1.0, "metric": "auroc"}
    one, two = row_of(done[0], **where), row_of(again, **where)
    assert one["value"] == two["value"]
    assert one["low"] != two["low"]


def test_shuffled_labels_have_an_interval_around_one_half(study, tmp_path):
    copied(study, tmp_path)
    path = tmp_path / "hospital" / "manifest.csv"
    manifest = pd.read_csv(path, dtype=str, keep_default_na=False)
    manifest["kl"] = np.random.default_rng(0).permutation(manifest["kl"])
    # an image without a label must stay outside the test part, whose images all are predicted
    manifest.loc[manifest["kl"] == "", "kl"] = "0"
    manifest.loc[4, "kl"] = ""
    manifest.to_csv(path, index=False)
    execute("evaluate", config_of(tmp_path, ("resnet-moco",)), tmp_path / "out")
    results = {"metrics.json": json.loads((tmp_path / "out" / "metrics.json").read_text())}
    row = row_of(results, task="oa", arm="resnet-moco", fraction=1.0, metric="auroc")
    assert row["low"] < 0.5 < row["high"]


def test_test_images_that_the_store_lacks_are_counted(study, tmp_path, monkeypatch):
    path, table = copied(study, tmp_path)
    gone = (
        table.loc[(table["split"] == "test") & (table["kl"].astype(str) != ""), "image_id"].iloc[:5].tolist()
    )
    spoil(path, lambda t: t[~t["image_id"].isin(gone)])
    kept = table[~table["image_id"].isin(gone)]
    monkeypatch.setattr(evaluate.Store, "open", lambda _: SimpleNamespace(index=kept))
    store = tmp_path / "store"
    store.mkdir()
    said = execute("evaluate", config_of(tmp_path, ("resnet-moco",), store=store), tmp_path / "out")
    assert "; 5 of 120 labelled test images of grade are not in the store" in said
    alone = "timm:resnet18: no random arm of this architecture among the predictions"
    assert said.startswith(f"1 arms on grade, oa: nothing to compare ({alone}) (95 % intervals")


def test_pretraining_seeds_are_seeds_too_and_pair_with_a_baseline_without(study, tmp_path):
    root, _ = study
    path, _ = copied(study, tmp_path)
    for name in ("predictions-resnet-random", "encoder-resnet-random"):
        (tmp_path / name).mkdir()
        for file in (root / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    for file in (path, path.with_name("choices.csv")):
        spoil(file, lambda t: pd.concat([t, t.assign(pretrain_seed=1)]))
    config = config_of(tmp_path, ("resnet-moco", "resnet-random"))
    with pytest.raises(InputError, match="'resnet-moco' has predictions with pretraining seed 1 and no enc"):
        execute("evaluate", config, tmp_path / "out")  # nobody knows whom that one saw
    card = json.loads((tmp_path / "encoder-resnet-moco" / "encoder.json").read_text())
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "encoder.json").write_text(json.dumps(card | {"seed": 1}))
    config = config.model_copy(update={"encoders": (*config.encoders, tmp_path / "second")})
    execute("evaluate", config, tmp_path / "out")
    results = {name: json.loads((tmp_path / "out" / name).read_text()) for name in FILES}
    row = row_of(results, task="oa", arm="resnet-moco", fraction=1.0, metric="auroc")
    assert (row["num_seeds"], row["pretrain_seed"]) == (10, "all")
    told = "speaks of these 2 encoders: over new label seeds and patients"
    pairs = results["comparisons.json"]["pairs"]
    assert {(p["num_seeds"], p["note"]) for p in pairs} == {(10, told)}
    assert row["note"] == told


def test_without_a_threshold_its_metrics_are_not_estimable(study, tmp_path):
    path, _ = copied(study, tmp_path)
    spoil(path.with_name("choices.csv"), lambda t: t.assign(threshold=""))
    execute("evaluate", config_of(tmp_path, ("resnet-moco",)), tmp_path / "out")
    results = {"metrics.json": json.loads((tmp_path / "out" / "metrics.json").read_text())}
    row = row_of(results, task="oa", arm="resnet-moco", fraction=1.0, metric="sensitivity")
    assert (row["value"], row["low"]) == (None, None)
    assert "no threshold" in row["note"]


def evaluated_findings(tmp_path, path, manifest):
    """metrics.json of the study when its films have the findings in the manifest's columns cyst and spur."""
    manifest.loc[manifest["kl"] == "", ["cyst", "spur"]] = ""
    manifest.to_csv(tmp_path / "hospital" / "manifest.csv", index=False)
    task = {"findings": {"kind": "multilabel", "labels": ["cyst", "spur"]}}
    (tmp_path / "hospital" / "tasks.json").write_text(json.dumps(task))
    spoil(path, lambda t: t[t["task"] == "oa"].assign(task="findings", p_cyst=t["p_1"], p_spur=t["p_0"]))
    choices = path.with_name("choices.csv")
    spoil(choices, lambda t: t[t["task"] == "oa"].assign(task="findings", threshold="0.5;0.4"))
    execute("evaluate", config_of(tmp_path, ("resnet-moco",)), tmp_path / "out")
    return {"metrics.json": json.loads((tmp_path / "out" / "metrics.json").read_text())}


def test_findings_are_evaluated_one_by_one_and_masked_where_unknown(study, tmp_path):
    path, table = copied(study, tmp_path)
    rng = np.random.default_rng(0)
    manifest = pd.read_csv(tmp_path / "hospital" / "manifest.csv", dtype=str, keep_default_na=False)
    for name in ("cyst", "spur"):
        manifest[name] = rng.choice(["0", "1", "-1", ""], len(manifest), p=[0.5, 0.3, 0.1, 0.1])
    results = evaluated_findings(tmp_path, path, manifest)
    where = {"task": "findings", "arm": "resnet-moco", "fraction": 1.0}
    each = [row_of(results, metric=f"auroc[{name}]", **where) for name in ("cyst", "spur")]
    assert row_of(results, metric="auroc_macro", **where)["value"] == pytest.approx(
        np.mean([row["value"] for row in each]), abs=1e-5
    )
    test = manifest[manifest["image_id"].isin(table.loc[table["split"] == "test", "image_id"])]
    assert [row["num_events"] for row in each] == [(test[name] == "1").sum() for name in ("cyst", "spur")]
    assert all(row["low"] < 0.5 < row["high"] for row in each)  # the findings are random


def test_what_is_left_out_does_not_hide_why_there_is_no_interval(study, tmp_path):
    path, table = copied(study, tmp_path)
    manifest = pd.read_csv(tmp_path / "hospital" / "manifest.csv", dtype=str, keep_default_na=False)
    tested = table.loc[table["split"] == "test", "patient_id"].astype(str).unique()
    manifest["cyst"] = manifest["patient_id"].isin(tested[:3]).map({True: "1", False: "0"})
    manifest["spur"] = manifest["patient_id"].isin(tested).map({True: "0", False: "1"})
    results = evaluated_findings(tmp_path, path, manifest)
    row = row_of(results, task="findings", arm="resnet-moco", fraction=1.0, metric="auroc_macro")
    assert (row["low"], row["high"]) == (None, None)
    assert row["note"] == (
        "left out, test images of one class: spur; fewer than 5 patients in a class: no interval"
    )


def test_evaluate_does_not_load_torch():
    code = "import sys, trabecula.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_arm_that_a_study_left_out_gives_its_reason():
    arms = [ComparedArm("resnet-moco", "timm:resnet18", "pretrained", None, "no random arm")]
    rows = missing_baselines(arms, {"resnet18-imagenet": "weights.safetensors is not there"})
    assert {row.family: row.reason for row in rows} == {
        "random": "no random arm of this architecture among the predictions",
        "imagenet": "weights.safetensors is not there",
    }


def tuned_with_notes(root, tmp_path, notes):
    """Evaluate the predictions as fine-tunings: seed -> note of resnet-random's with 10 % of labels."""
    folders = []
    for arm in ARMS:
        folder = tmp_path / arm
        folder.mkdir()
        for name in ("predictions.csv", "choices.csv"):
            table = pd.read_csv(root / f"predictions-{arm}" / name, keep_default_na=False, dtype=str)
            table["mode"] = "finetune"
            if name == "choices.csv" and arm == "resnet-random":
                at = (table["task"] == "oa") & (table["fraction"] == "0.1") & table["seed"].isin([*notes])
                assert at.sum() == len(notes)
                table.loc[at, "note"] = table.loc[at, "seed"].map(notes)
            table.to_csv(folder / name, index=False)
        folders.append(folder)
    said = execute("evaluate", config_of(root, predictions=folders), tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "flow.json").read_text())["plateaus"]
    assert len(rows) == 2 * 4 * 2
    (row,) = [
        row for row in rows if any(row[key] for key in row if key.startswith("num_") and key != "num_runs")
    ]
    assert {key: row.pop(key) for key in ("task", "arm", "mode", "fraction", "num_runs")} == {
        "task": "oa", "arm": "resnet-random", "mode": "finetune", "fraction": 0.1, "num_runs": 5
    }  # fmt: skip
    return said, {key: num for key, num in row.items() if num}


@pytest.mark.parametrize("note", ["stayed at chance", "never left the plateau"])  # the latter of old files
def test_runs_on_the_plateau_are_counted(study, tmp_path, note):
    root, _ = study
    notes = dict.fromkeys(("1", "3"), f"2 more patients; {note} (training loss 0.69)")
    said, counts = tuned_with_notes(root, tmp_path, notes)
    assert counts == {"num_plateau": 2}
    assert said.endswith("; 2 of 20 fine-tunings of resnet-random stayed at chance")


def test_fine_tunings_below_or_at_their_starts_probe_are_counted(study, tmp_path):
    root, _ = study
    notes = {
        "1": KEPT_PROBE, "2": f"{BELOW_PROBE} (validation loss 0.7)", "3": f"2 more; {KEPT_PROBE}",
        "4": f"{BEST_AT_END} (640 images)",
    }  # fmt: skip
    said, counts = tuned_with_notes(root, tmp_path, notes)
    assert counts == {"num_below_probe": 1, "num_kept_probe": 2, "num_best_at_end": 1}
    assert said.endswith(
        "; 1 of 20 fine-tunings of resnet-random are worse on validation than a linear probe of their start; "
        "2 of 20 fine-tunings of resnet-random kept the linear probe that they started from; "
        "1 of 20 fine-tunings of resnet-random were best on validation at the end of their budget"
    )


def _with_snapshots(study, tmp_path, *images: int):
    """A configuration with snapshots of resnet-moco that have no test predictions at all."""
    root, _ = study
    config = config_of(root)
    for number in images:
        arm = f"resnet-moco@{number}"
        (tmp_path / str(number)).mkdir()
        path, _ = copied(study, tmp_path / str(number))
        for file in (path, path.with_name("choices.csv")):
            spoil(file, lambda t, arm=arm: t.assign(arm=arm))
        spoil(path, lambda t: t[t["split"] == "val"])
        encoder = tmp_path / str(number) / "encoder-resnet-moco"
        card = json.loads((encoder / "encoder.json").read_text())
        (encoder / "encoder.json").write_text(json.dumps(card | {"name": arm, "images_seen": number}))
        config = config.model_copy(
            update={
                "predictions": (*config.predictions, path.parent),
                "encoders": (*config.encoders, encoder),
            }
        )
    return config


def test_snapshots_stand_on_validation_images_and_nowhere_else(study, done, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.leakage, "check_cards", lambda *_: None)  # made-up cards list no patients
    config = _with_snapshots(study, tmp_path, 100, 200, 300)
    config = config.model_copy(update={"strata": ("sex",)})
    summary = execute("evaluate", config, tmp_path / "out")
    assert summary == f"{done[2]}; 3 snapshots on validation images"
    for name in ("metrics.json", "comparisons.json"):
        assert (tmp_path / "out" / name).read_bytes() == (done[1] / name).read_bytes()
    curves = json.loads((tmp_path / "out" / "curves.json").read_text())
    swept = curves.pop("snapshots")
    assert curves == {k: v for k, v in done[0]["curves.json"].items() if k != "snapshots"}
    (curve,) = [c for c in swept if (c["task"], c["fraction"]) == ("oa", 1.0)]
    assert (curve["arm"], curve["split"], curve["control"]["arm"]) == ("resnet-moco", "val", "resnet-random")
    assert [p["images"] for p in curve["points"]] == [0, 100, 200, 300]
    found = pd.read_csv(study[0] / "predictions-resnet-moco" / "predictions.csv")
    found = found[(found["task"] == "oa") & (found["fraction"] == 1.0) & (found["split"] == "val")]
    found = found.merge(study[1][["image_id", "kl"]], on="image_id")
    each = [sk.roc_auc_score(one["kl"] >= 2, one["p_1"]) for _, one in found.groupby("seed")]
    assert curve["points"][1]["value"] == pytest.approx(np.mean(each), abs=1e-5)


def test_snapshots_alone_are_refused(study, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.leakage, "check_cards", lambda *_: None)
    config = _with_snapshots(study, tmp_path, 100)
    config = config.model_copy(update={"predictions": config.predictions[-1:]})
    with pytest.raises(InputError, match=r"'resnet-moco@100'.*add the predictions") as error:
        execute("evaluate", config, tmp_path / "out")
    assert "\n" not in str(error.value)
