"""The report on pretraining pools and on random weights trained in another way."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluated_study import write_manifest, write_results
from probed_study import pair, score, write_study
from trabecula import report
from trabecula.artifacts.results import TuningCount
from trabecula.run import execute
from trabecula.sections.pretraining_pools import pool_name, read_pools
from trabecula.sections.results import Results, read_results

VALUES = {
    "critic-random": 0.60, "critic-random-augmented": 0.68, "critic-wgan_gp": 0.72,
    "critic-wgan_gp-labelled": 0.71, "critic-wgan_gp-pool10": 0.65,
}  # fmt: skip
PAIRS = [
    pair("critic-random-augmented", "critic-random", 0.08, "better"),
    pair("critic-wgan_gp", "critic-random", 0.12, "better"),
    pair("critic-wgan_gp", "critic-random-augmented", 0.04, "none"),
    pair("critic-wgan_gp-labelled", "critic-random", 0.11, "better"),
    pair("critic-wgan_gp-pool10", "critic-random", 0.05, "none"),
    pair("critic-wgan_gp-pool10", "critic-random-augmented", -0.03, "none"),
]
POOLS = [
    pair("critic-wgan_gp-labelled", "critic-wgan_gp", -0.01, "none"),
    pair("critic-wgan_gp-pool10", "critic-wgan_gp", -0.07, "worse"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scores = [score(arm, v, v - 0.03, v + 0.03) for arm, v in VALUES.items()]
    return write_study(tmp_path / "results", scores, PAIRS, POOLS)


@pytest.fixture
def results(folder: Path) -> Results:
    return read_results(folder)


def test_the_sentence_says_every_pools_score_and_how_it_differs(results: Results) -> None:
    (pools,) = read_pools(results)
    assert pools.name == "kl2, fine-tuning: WGAN-GP of critic"
    (sentence,) = pools.sentences
    assert sentence.replace("\N{NO-BREAK SPACE}", " ") == (
        "With 25 % of labels (60 training patients), AUROC 0.650 with 10 % of the pool (60 patients), 0.710 "
        "with cohort check-like alone (240 patients), 0.720 with whole pool (600 patients), 0.600 without "
        "pretraining. Against whole pool: 10 % of the pool −0.07 (−0.09 to −0.05), Holm-adjusted p < 0.001: "
        "worse; cohort check-like alone −0.01 (−0.03 to 0.01), Holm-adjusted p 0.80: no difference shown."
    )


def test_the_line_goes_through_growing_pools_and_one_cohort_stands_beside_it(results: Results) -> None:
    (pools,) = read_pools(results)
    (chart,) = pools.charts
    styles = {arm.name: arm.style for arm in results.arms}
    lines = dict(re.findall(r'<polyline class="line ([\w-]+)" points="([^"]+)"', chart.svg))
    assert set(lines) == {styles[name] for name in VALUES if "labelled" not in name and "pool10" not in name}
    small, whole = (point.split(",") for point in lines[styles["critic-wgan_gp"]].split())
    assert float(small[0]) < float(whole[0])
    assert float(small[1]) > float(whole[1])
    for name in ("critic-random", "critic-random-augmented"):  # across: no pretraining
        assert len({point.split(",")[1] for point in lines[styles[name]].split()}) == 1
    beside = re.findall(rf'<circle class="mark {styles["critic-wgan_gp-labelled"]}" cx="([\d.]+)"', chart.svg)
    assert len(beside) == 1
    assert float(small[0]) < float(beside[0]) < float(whole[0])
    assert [name for name, _ in chart.legend] == [
        "WGAN-GP pretraining, by size of the pool", "WGAN-GP pretraining, cohort check-like alone",
        "random initialisation (critic-random)", "random initialisation (critic-random-augmented)",
    ]  # fmt: skip


def test_the_table_has_no_pretraining_first_then_the_pools_by_size(results: Results) -> None:
    (pools,) = read_pools(results)
    assert [row[0].text.replace("\N{NO-BREAK SPACE}", " ") for row in pools.table.rows] == [
        "none: random initialisation (critic-random)",
        "none: random initialisation (critic-random-augmented)",
        "10 % of the pool", "cohort check-like alone", "whole pool",
    ]  # fmt: skip
    assert [row[3].text for row in pools.table.rows] == ["0.600", "0.680", "0.650", "0.710", "0.720"]
    assert pools.table.rows[2][3].small == "against whole pool −0.07 (−0.09 to −0.05): worse"
    assert pools.table.rows[4][3].small == ""


def test_runs_that_stayed_at_chance_stand_beside_the_pools_difference(results: Results) -> None:
    place: dict[str, Any] = {"task": "kl2", "mode": "finetune", "fraction": 0.25, "num_runs": 3}
    counts = [TuningCount(**place, arm="critic-wgan_gp-pool10", num_plateau=2)]
    results = replace(results, flow=replace(results.flow, plateaus=counts))
    (pools,) = read_pools(results)
    told = " (2 of 3 runs stayed at chance: in part an optimisation failure)"
    assert f": worse{told}; cohort check-like alone" in pools.sentences[0]
    assert pools.table.rows[2][3].small.endswith(f": worse{told}")
    assert "chance" not in pools.table.rows[3][3].small


def test_every_arm_has_a_name_and_a_look_of_its_own(results: Results) -> None:
    assert len({arm.title for arm in results.arms}) == len({arm.style for arm in results.arms}) == len(VALUES)
    assert {arm.name for arm in results.arms if arm.style == "arm-random"} == {"critic-random"}
    assert pool_name(results.by_name["critic-wgan_gp-labelled"]) == "cohort check-like alone"


def test_the_verdict_holds_pretraining_against_augmentation_too(folder: Path, tmp_path: Path) -> None:
    config = report.Config(results=folder, manifest=write_manifest(tmp_path / "data"))
    execute("report", config, tmp_path / "report")
    page = " ".join((tmp_path / "report/report.html").read_text().replace("\N{NO-BREAK SPACE}", " ").split())
    assert "Against random initialisation (critic-random-augmented) at 25 % of labels: +0.04" in page
    assert page.count("Against random initialisation (critic-random-augmented)") == 1  # of the largest pool
    assert "Random initialisation (critic-random-augmented) of critic:</b>" in page
    assert (
        '+0.08 (0.06 to 0.10) against the control; Holm-adjusted p &lt; 0.001: <b class="ending">better'
        in page
    )
    assert re.search(r"</span> 2</b> better", page)  # the augmented random critic was not pretrained
    assert '<a href="#pools">' in page
    assert "How much unlabelled data?" in page
    assert "AUROC of kl2 by pretraining pool" in (tmp_path / "report/tables/pools.md").read_text()
    assert len(list((tmp_path / "report/figures").glob("pool-*.svg"))) == 1


def test_a_study_of_one_pool_has_no_such_section(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results")
    assert read_pools(read_results(results)) == []
    config = report.Config(results=results, manifest=write_manifest(tmp_path / "data"))
    execute("report", config, tmp_path / "report")
    page = (tmp_path / "report/report.html").read_text()
    assert 'id="pools"' not in page
    assert 'id="shortcuts"' not in page
    assert not (tmp_path / "report/tables/pools.md").exists()
