"""The page says what the results say: verdict, tables, pictures, and what was not run."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import probed_study
from compared_arms import cards_with_controls
from evaluated_study import (
    ARCHITECTURES,
    NETWORKS,
    NOT_ESTIMABLE,
    OBJECTIVES,
    TASKS,
    comparisons,
    metrics,
)
from report_page import visible
from trabecula.artifacts.results import IncompleteArm
from trabecula.config import dump
from trabecula.report import Config
from trabecula.run import execute
from trabecula.sections import tables, verdict
from trabecula.sections.names import architecture_name
from trabecula.sections.numbers import number, signed
from trabecula.sections.results import read_results


def test_verdict_numbers_are_those_of_the_results(page: str) -> None:
    text = visible(page)
    values = {(r["task"], r["mode"], r["arm"], r["fraction"]): r for r in metrics()["rows"]
              if r["seed"] == "all" and r["metric"] == "auroc" and r["cohort"] == "all"}  # fmt: skip
    checked = 0
    for pair in comparisons()["pairs"]:
        key = (pair["task"], pair["mode"], pair["arm"], pair["fraction"])
        first = 0.1 if (pair["arm"], pair["mode"], 0.01) == NOT_ESTIMABLE else 0.01
        if pair["baseline_family"] != "random" or pair["fraction"] != first:
            continue
        row = values[key]
        mode = {"probe": "linear probe", "finetune": "fine-tuning"}[pair["mode"]]
        drawn = "23" if first == 0.01 else "230 to 231"
        ending = {"better": "it paid", "worse": "it did worse", "none": "no difference shown"}[pair["claim"]]
        if pair["arm"].endswith("imagenet") and pair["claim"] == "better":
            ending = "better"
        signed2 = f"{pair['difference']:+.2f} ({pair['low']:.2f} to {pair['high']:.2f})".replace("-", "−")
        wanted = (
            f"AUROC of {pair['task']} by {mode} with {first * 100:.0f} % of labels "
            f"({drawn} training patients) is "
            f"{row['value']:.2f} (95 % CI {row['low']:.2f} to {row['high']:.2f}), {signed2} against random "
            f"initialisation of the same network; Holm-adjusted p {pair['p_holm']:.4f}: {ending} ."
        )
        if pair["claim"] == "none":
            wanted = wanted.replace(f"p {pair['p_holm']:.4f}", f"p {pair['p_holm']:.2f}")
        network = architecture_name({v: k for k, v in NETWORKS.items()}[pair["arm"].split("-")[0]])
        assert re.search(re.escape(network) + r": " + re.escape(wanted), text), wanted
        checked += 1
    assert checked == len(TASKS) * 2 * (len(ARCHITECTURES) * len(OBJECTIVES) + 1)


def test_verdict_tally_counts_claims_against_random(page: str) -> None:
    pairs = [
        p for p in comparisons()["pairs"] if p["baseline_family"] == "random" and "imagenet" not in p["arm"]
    ]
    gone = sum(p["difference"] is None for p in pairs)
    counts = {
        c: sum(p["claim"] == c and p["difference"] is not None for p in pairs)
        for c in ("better", "none", "worse")
    }
    assert gone == 2
    paid, none, worse = counts["better"], counts["none"], counts["worse"]
    wanted = f"▲ {paid} better ▼ {worse} worse = {none} no difference shown ? {gone} not estimable"
    assert wanted in visible(page)


def test_every_difference_and_value_stands_in_the_tables(made: Path, page: str) -> None:
    text, markdown = visible(page), (made / "tables/comparisons.md").read_text()
    for pair in comparisons()["pairs"]:
        shown = "–" if pair["difference"] is None else signed(pair["difference"])
        assert shown in text or pair["difference"] is None
        assert f"| {shown} |" in markdown or f"| **{shown}** |" in markdown
    for row in metrics()["rows"]:
        if row["seed"] == "all" and row["value"] is not None:
            assert f"{number(row['value'])} ({number(row['sd_seeds'])})" in text


def test_every_row_has_as_many_cells_as_its_table_has_columns(page: str) -> None:
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        head, *rows = re.findall(r"<tr.*?</tr>", table, re.S)
        widths = {len(re.findall(r"<t[hd]\b", row)) for row in rows}
        assert widths == {len(re.findall(r"<th\b", head))}, re.search(r"<caption>[^<]*", table)


def test_cohort_flow_counts_and_names_no_file(page: str) -> None:
    text = visible(page)
    assert "Manifest 60 images of 30 patients" in text
    assert "Rejected when prepared 3 files 2: damaged file: the file 1: … pixels wide" in text
    assert "Store 30 images" in text
    assert "label missing 321 not eligible: side == 'L' 88" in text
    assert "test 402 804 402 402" in text
    drawn = "10 % of 2,310 training and 577 validation patients 230 to 231 patients, 460 to 462 images"
    assert drawn in text


def test_pictures_are_the_first_by_image_id(study: Config, page: str) -> None:
    assert study.store
    sheets = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    assert len(sheets) == 2
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheets[0]))).convert("L"), dtype=float)
    stored = np.load(study.store / "images-00000.npy")[29, 0]  # img-000 stands last in the store
    tile = sheet[:112, :112].reshape(8, 14, 8, 14).mean(axis=(1, 3))
    assert np.corrcoef(tile.ravel(), stored.ravel().astype(float))[0, 1] > 0.9
    assert sheet.shape[0] == 3 * 116 - 4  # 24 pictures, eight across


def test_what_was_left_out_is_said(study: Config, tmp_path: Path) -> None:
    missing = "weights are not there"
    left = {"imagenet": missing, "control": missing, "mae": "/home/SECRET/mae is not there"}
    execute("report", Config(results=study.results, manifest=study.manifest, not_run=left), tmp_path / "out")
    text = visible((tmp_path / "out/report.html").read_text())
    who = "imagenet and control (weights are not there); mae (…/mae is not there)"
    assert f"Left out of this study: {who}." in text


def test_without_its_control_a_network_has_no_verdict(study: Config, tmp_path: Path) -> None:
    """Random weights trained in another way are held against nothing, and nothing against them."""
    root = tmp_path / "results"
    arms = ("critic-random-augmented", "critic-wgan_gp")
    probed_study.write_study(root, [probed_study.score(arm, 0.7, 0.6, 0.8) for arm in arms])
    lost = {"family": "random", "architecture": "critic", "reason": "train of critic-random failed"}
    told = json.loads((root / "comparisons.json").read_text()) | {"not_run": [lost]}
    (root / "comparisons.json").write_text(json.dumps(told))
    flow = json.loads((root / "flow.json").read_text())
    gone = IncompleteArm(**lost, name="critic-random")
    flow["arms"] = cards_with_controls(flow["arms"], incomplete=[gone])
    (root / "flow.json").write_text(json.dumps(flow | {"incomplete": [dump(gone)]}))
    results = read_results(root)
    assert results.control("critic") is None
    assert tables.results_tables(results, results.panels[0])
    said = execute("report", Config(results=root, manifest=study.manifest), tmp_path / "out")
    assert "no comparison with random initialisation" in said
    assert "critic: train of critic-random failed" in said
    text = visible((tmp_path / "out/report.html").read_text())
    why = "AUROC of kl2 by fine-tuning: not compared (the control critic-random is incomplete: train of"
    assert f"WGAN-GP pretraining of critic: {why} critic-random failed)." in text
    assert f"Random initialisation (critic-random-augmented) of critic: {why}" in text
    pairs = [probed_study.pair("critic-wgan_gp", "critic-random-augmented", 0.05, "better")]
    (root / "comparisons.json").write_text(json.dumps(told | {"pairs": pairs}))
    assert verdict.against_random(read_results(root)) == []


def test_what_a_study_has_not_is_said_and_leaves_no_empty_heading(
    study: Config, page: str, tmp_path: Path
) -> None:
    root = probed_study.write_study(tmp_path / "r", [probed_study.score("critic-random", 0.7, 0.6, 0.8)])
    execute("report", Config(results=root, manifest=study.manifest), tmp_path / "out")
    bare = (tmp_path / "out/report.html").read_text()
    why = "every arm has random weights: there is no pretraining to judge"
    assert f"No comparison with random initialisation: {why}." in bare
    for text in ("Random initialisation alone: nothing to compare.", "No curves in these results."):
        assert text in bare
        assert text not in page
    for heading in ("Learning curves", "ROC", "Reliability"):
        assert f"<h3>{heading}</h3>" in page
        assert f"<h3>{heading}</h3>" not in bare


def test_an_upper_bound_alone_is_said_to_be_one(study: Config, tmp_path: Path) -> None:
    root = tmp_path / "results"
    arms = ("critic-random", "critic-wgan_gp")
    probed_study.write_study(root, [probed_study.score(arm, 0.7, 0.6, 0.8) for arm in arms])
    told = json.loads((root / "flow.json").read_text())
    told["arms"][1]["labels"] = "kl2"
    (root / "flow.json").write_text(json.dumps(told))
    said = execute("report", Config(results=root, manifest=study.manifest), tmp_path / "out")
    assert said.endswith("(the only pretraining learned from labels: an upper bound is not counted)")


def test_comparisons_of_few_seeds_are_said_to_speak_of_these_networks(
    page: str, study: Config, tmp_path: Path
) -> None:
    caveat = "with fewer than 5 an interval is over new patients only"
    assert f"3 seeds of fine-tuning and linear probe: {caveat}" in visible(page)
    folder = tmp_path / "results"
    shutil.copytree(study.results, folder)
    told = comparisons()
    for pair in told["pairs"]:
        pair["num_seeds"] = 5 if pair["mode"] == "finetune" else 4
    (folder / "comparisons.json").write_text(json.dumps(told))
    assert verdict.few_seeds(read_results(folder)).startswith(f"4 seeds of linear probe: {caveat}")
    for pair in told["pairs"]:
        pair["num_seeds"] = 5
    (folder / "comparisons.json").write_text(json.dumps(told))
    assert verdict.few_seeds(read_results(folder)) == ""


def test_missing_imagenet_arms_are_listed(page: str) -> None:
    text = visible(page)
    panels = len(TASKS) * 2
    assert text.count("ImageNet weights of ResNet-50: not run (no ImageNet arm in this study).") == panels
    assert "ImageNet weights of critic: not run" not in text  # no such weights can exist
    assert "ImageNet weights of ResNet-18: not run" not in text


def test_imagenet_is_listed_even_when_evaluate_says_nothing(study: Config, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(study.results, folder)
    lacking = {"family": "random", "architecture": "critic", "reason": "it was not made"}
    told = {**comparisons(), "pairs": [], "not_run": [lacking]}
    (folder / "comparisons.json").write_text(json.dumps(told))
    said = execute("report", Config(results=folder, manifest=study.manifest), tmp_path / "out")
    assert said == "report.html: no comparison with random initialisation (critic: it was not made)"
    text = visible((tmp_path / "out/report.html").read_text())
    assert "No comparison with random initialisation: critic: it was not made." in text
    assert "ImageNet weights of ResNet-50: not run" in text


def test_not_estimable_says_why(made: Path, page: str) -> None:
    assert "not estimable no patient of class 1 in 4 of 4 draws" in visible(page)
    assert "not estimable" in (made / "tables/results.tex").read_text()


def test_censored_multiplier_is_more_than(made: Path, page: str) -> None:
    assert "Like having 3.2× the labels (1.8× to 9.4×)." in visible(page)
    assert "Like having more than 10× the labels (at least 2.4×)." in visible(page)
    assert "it did worse . Like having 0.45× the labels (at most 0.93×)." in visible(page)
    assert r"more than 10$\times$" in (made / "tables/label_multipliers.tex").read_text()


@pytest.mark.parametrize("task", TASKS)
def test_only_claims_against_random_are_bold(page: str, task: str) -> None:
    table = re.search(
        rf"<caption>AUROC of {re.escape(html.escape(task))}, linear probe.*?</table>", page, re.S
    )
    assert table is not None
    bold = re.findall(r"<strong>([^<]*)", table[0])
    better = [p for p in comparisons()["pairs"] if (p["task"], p["mode"], p["claim"], p["baseline_family"])
              == (task, "probe", "better", "random")]  # fmt: skip
    values = {(r["arm"], r["fraction"]): f"{number(r['value'])} ({number(r['sd_seeds'])})"
              for r in metrics()["rows"] if (r["task"], r["mode"], r["metric"], r["seed"], r["cohort"])
              == (task, "probe", "auroc", "all", "all")}  # fmt: skip
    assert sorted(bold) == sorted(values[p["arm"], p["fraction"]] for p in better)
    assert 0 < len(bold) < len(values)


def test_an_arm_keeps_one_colour(page: str) -> None:
    for label, style in (("MoCo pretraining", "arm-0"), ("WGAN-GP pretraining", "arm-1")):
        found = re.findall(rf'class="line (arm-\w+)"[^>]*/><circle[^>]*/></svg>{label}</li>', page)
        assert set(found) == {style}
    assert len(re.findall(r"--arm0:", page)) == 2  # light and dark
