"""Fourteen findings at once, from a table as NIH writes it to a report, verb by verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.tasks import truth
from trabecula.config import build
from trabecula.phantoms.chest_findings import FINDINGS
from trabecula.run import execute, verb_module

NAMES = list(FINDINGS)
TASK = {"kind": "multilabel", "labels": ["Finding Labels"], "separator": "|", "classes": NAMES}


def go(base: Path, verb: str, out: str, **values: Any) -> str:
    return execute(verb, build(verb_module(verb).Config, values, verb), base / out)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random and a pretrained arm, probed, searched, fine-tuned, predicted, evaluated, reported."""
    base = tmp_path_factory.mktemp("chests")
    go(base, "phantom", "films", kind="chest", num_patients=60, num_unlabelled_patients=6, size=32,
       chest={"images": 1.5, "odds": 4.0})  # fmt: skip
    table = base / "films" / "table.csv"
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    told = rows["Finding Labels"].str.replace(r"\|?Hernia", "", regex=True).str.strip("|")
    rows["Finding Labels"] = told.where((told != "") | (rows["Finding Labels"] == ""), "No Finding")
    rows.to_csv(table, index=False)  # nobody has a hernia
    go(base, "cohort", "cohort", root=base / "films" / "images", table=table, tasks={"findings": TASK})
    go(base, "split", "split", manifest=base / "cohort", task="findings", train=0.5, val=0.2, test=0.3)
    go(base, "prepare", "store", manifest=base / "cohort", size=32)
    common = {"manifest": base / "cohort", "splits": base / "split", "task": "findings"}
    store = {"store": base / "store"}
    shared = {"architecture": "timm:resnet10t", "splits": base / "split", **store}
    go(base, "pretrain", "random", **shared)
    go(base, "pretrain", "moco", objective="moco", images=64, every=64, batch_size=16,
       settings={"queue": 16, "bn_rows": 8}, **shared)  # fmt: skip
    few = {"images": 64, "batch_size": 16, "select": "metric", "class_weight": "balanced"}
    for arm in ("random", "moco"):
        go(base, "embed", f"{arm}-features", encoder=base / arm, **store)
        go(base, "probe", f"{arm}-probe", features=base / f"{arm}-features", num_strengths=5,
           fractions=[0.3, 1.0], seeds=[0, 1], **common)  # fmt: skip
        go(base, "search", f"{arm}-search", encoder=base / arm, trials=2, settings=few,
           space={"optimizer.lr": [1e-4, 1e-3]}, **common, **store)  # fmt: skip
        go(
            base,
            "finetune",
            f"{arm}-tuned",
            encoder=base / arm,
            chosen=base / f"{arm}-search",
            **common,
            **store,
        )
    go(base, "predict", "told-tuned", classifier=base / "moco-tuned", **store)
    go(base, "predict", "told-probe", classifier=base / "moco-probe", features=base / "moco-features")
    done = [base / f"{arm}-{mode}" for arm in ("random", "moco") for mode in ("probe", "tuned")]
    encoders = [base / "random", base / "moco"]
    evaluated = {key: common[key] for key in ("manifest", "splits")}
    go(
        base,
        "evaluate",
        "results",
        predictions=done,
        encoders=encoders,
        num_resamples=200,
        **evaluated,
        **store,
    )
    go(base, "report", "report", results=base / "results", manifest=base / "cohort", runs=[*encoders, *done],
       searches=[base / "random-search", base / "moco-search"], **store)  # fmt: skip
    return base


def rows_of(study: Path, **wanted: Any) -> list[dict[str, Any]]:
    rows = json.loads((study / "results" / "metrics.json").read_text())["rows"]
    wanted = {"seed": "all", "cohort": "all", "stratum": "all"} | wanted
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_cohort_names_the_finding_that_nobody_has(study: Path) -> None:
    said = (study / "cohort" / "DONE").read_text()
    assert "findings: " in said
    assert "labelled, none with Hernia" in said


def test_every_part_has_the_patients_that_the_strata_give_it(study: Path) -> None:
    manifest = read_manifest(study / "cohort")
    known = truth(manifest.tasks["findings"], manifest)
    assert known.exclusions == {"no finding labelled": (manifest.table["Finding Labels"] == "").sum()}
    splits = read_splits(study / "split")
    unlabelled = set(manifest.table["patient_id"]) - set(known.patient_ids.tolist())
    assert {splits.of[patient] for patient in unlabelled} == {"train"}
    sick = (known.y == 1).any(axis=1)
    share = {part: sick[splits.rows(part, known.patient_ids)].mean() for part in ("train", "val", "test")}
    assert max(share.values()) - min(share.values()) < 0.35


def test_predictions_have_a_column_a_finding_and_no_label(study: Path) -> None:
    for name in ("moco-probe", "moco-tuned", "told-tuned", "told-probe"):
        table = pd.read_csv(study / name / "predictions.csv", dtype={"image_id": str})
        columns = [column for column in table if column.startswith("p_")]
        assert columns == [f"p_{finding}" for finding in NAMES], name
        p = table[columns].to_numpy()
        assert p.min() >= 0
        assert p.max() <= 1
        assert p.sum(axis=1).std() > 0  # no softmax over findings
        assert "Finding Labels" not in table


def test_predict_says_again_what_was_predicted(study: Path) -> None:
    for mode in ("tuned", "probe"):
        keys = ["image_id", "fraction", "seed"]
        first, again = (
            pd.read_csv(study / name / "predictions.csv", dtype={"image_id": str}).query("split == 'test'")
            for name in (f"moco-{mode}", f"told-{mode}")
        )
        both = first.merge(again, on=keys, suffixes=("", "_again"))
        assert len(both) == len(first) > 0
        for finding in NAMES:
            np.testing.assert_allclose(both[f"p_{finding}"], both[f"p_{finding}_again"], atol=2e-5)
    calls = pd.read_csv(study / "told-tuned" / "predictions.csv", keep_default_na=False)["called"]
    assert set(";".join(calls).split(";")) <= {*NAMES, ""}


def test_the_macro_auroc_is_the_mean_over_findings_of_enough_patients(study: Path) -> None:
    """By scikit-learn, from the predictions and the manifest alone."""
    manifest = read_manifest(study / "cohort")
    known = truth(manifest.tasks["findings"], manifest)
    table = pd.read_csv(study / "moco-probe" / "predictions.csv", dtype={"image_id": str})
    table = table[(table["split"] == "test") & (table["fraction"] == 1.0) & (table["seed"] == 0)]
    place = {image: row for row, image in enumerate(known.image_ids)}
    at = np.array([place[image] for image in table["image_id"]])
    areas, few, absent = {}, [], []
    for k, finding in enumerate(NAMES):
        y, patients = known.y[at, k], known.patient_ids[at]
        with_it, without = (len(set(patients[y == value])) for value in (1, 0))
        if not min(with_it, without):
            absent.append(finding)
            continue
        areas[finding] = roc_auc_score(y, table[f"p_{finding}"])
        if min(with_it, without) < 5:
            few.append(finding)
    assert "Hernia" in absent
    assert few, "the cohort was to have rare findings"
    where = {"arm": "resnet10t-moco", "mode": "probe", "fraction": 1.0, "seed": 0}
    (macro,) = rows_of(study, metric="auroc_macro", **where)
    wanted = np.mean([area for finding, area in areas.items() if finding not in few])
    assert macro["value"] == pytest.approx(wanted, abs=1e-5)
    (whole,) = rows_of(study, metric="auroc_macro", arm="resnet10t-moco", mode="probe", fraction=1.0)
    assert whole["low"] < whole["value"] < whole["high"]
    assert f"test images of one class: {', '.join(absent)}" in whole["note"]
    assert f"fewer than 5 test patients with it, or without: {', '.join(few)}" in whole["note"]
    for finding in NAMES:
        (row,) = rows_of(study, metric=f"auroc[{finding}]", **where)
        if finding in absent:
            assert row["value"] is None
            assert "one class" in row["note"]
        else:
            assert row["value"] == pytest.approx(areas[finding], abs=1e-5)
        assert row["num_events"] == int((known.y[at, NAMES.index(finding)] == 1).sum())


def test_arms_are_compared_by_the_macro_auroc_alone(study: Path) -> None:
    pairs = json.loads((study / "results" / "comparisons.json").read_text())["pairs"]
    assert {pair["metric"] for pair in pairs} == {"auroc_macro"}
    assert {(pair["mode"], pair["fraction"]) for pair in pairs} == {
        ("probe", 0.3),
        ("probe", 1.0),
        ("finetune", 1.0),
    }
    assert all(pair["low"] < pair["difference"] < pair["high"] for pair in pairs)


def test_searches_choose_by_the_metric_that_is_reported(study: Path) -> None:
    chosen = json.loads((study / "moco-search" / "chosen.json").read_text())
    assert chosen["by"] == "metric"
    assert 0 <= chosen["metric"] <= 1


def test_the_report_has_a_row_and_a_panel_a_finding(study: Path) -> None:
    page = (study / "report" / "report.html").read_text()
    assert page.count("AUROC of each label of findings") >= 3  # two fractions of probes, one of fine-tuning
    assert "Pleural_Thickening" in page
    assert "not estimable" in page
    drawn = [path.name for path in (study / "report" / "figures").iterdir() if path.name.startswith("roc")]
    assert 3 * 8 < len(drawn) <= 3 * len(NAMES)
    written = (study / "report" / "tables" / "results.md").read_text()
    assert written.count("| Effusion |") == 3
