"""A study too small for any test, with one label fraction: the page claims nothing and repeats nothing."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from evaluated_study import FILES, comparisons, write_manifest, write_results, write_run
from trabecula.report import Config
from trabecula.run import execute
from trabecula.sections.curves import learning_curves
from trabecula.sections.results import Panel, Results, read_results

NOTE = "fewer than 5 patients in a class: no interval"


def _small(name: str, content: dict[str, Any]) -> dict[str, Any]:
    """One fraction, no interval, no p; ResNet-50 was not fine-tuned."""

    def kept(row: dict[str, Any]) -> bool:
        left = row.get("mode") == "finetune" and str(row.get("arm")).startswith("resnet50")
        return row.get("fraction", 0.1) == 0.1 and not left

    for key, rows in content.items():
        if isinstance(rows, list):
            content[key] = [row for row in rows if kept(row)]
    for row in content.get("rows", []):
        row.update(low=None, high=None, note=NOTE)
    for row in content.get("pairs", []):
        row.update(low=None, high=None, p=None, p_holm=None, claim="none", note=NOTE)
    for row in content.get("label_multipliers", []):
        row.update(value=3.2, low=None, high=None, censored="", note=NOTE)
    for curve in content.get("roc", []):
        curve.update(low=[None] * len(curve["fpr"]), high=[None] * len(curve["fpr"]))
    if name == "curves.json":
        for curve in content["learning"]:
            curve["points"] = [p for p in curve["points"] if p["fraction"] == 0.1]
    return content


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_results(tmp_path_factory.mktemp("small") / "results")
    for name, make in FILES.items():
        (folder / name).write_text(json.dumps(_small(name, make())))
    return folder


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("page")
    runs = (write_run(root / "run", "probe", 0),)
    execute(
        "report", Config(results=results, manifest=write_manifest(root / "data"), runs=runs), root / "out"
    )
    return (root / "out/report.html").read_text()


def test_nothing_tested_is_nothing_claimed(page: str, results: Path) -> None:
    pairs = json.loads((results / "comparisons.json").read_text())["pairs"]
    num = sum(p["baseline_family"] == "random" and "imagenet" not in p["arm"] for p in pairs)
    tiles = re.findall(r"</span> (\d+)</b> ([a-z ]+)</li>", page)
    assert tiles == [
        ("0", "better"), ("0", "worse"), ("0", "no difference shown"), (str(num), "not estimable"),
    ]  # fmt: skip
    badges = re.findall(r'<ul class="marks".*?</ul>', page, re.S)
    assert badges
    assert all("not estimable" in badge or "<li" not in badge for badge in badges)
    assert f"not estimable ({NOTE})" in page
    assert "Holm-adjusted p –" not in page


def test_nothing_is_said_twice_or_of_what_is_not_there(page: str) -> None:
    assert "not estimablenot" not in page
    assert "by fine-tuning: not run." in page
    assert "The bars reach" not in page
    assert "Bands are" not in page
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        assert table.count(NOTE) <= 1 or "by group" in table
    assert '<details class="runs" open' not in page


def test_arms_of_one_fraction_stand_side_by_side(results: Path) -> None:
    read: Results = read_results(results)
    group = learning_curves(read, Panel("kl >= 2", "probe"), "auroc")
    assert group is not None
    assert "the arms are side by side" in group.caption
    assert "log scale" not in group.charts[0].svg
    for chart in group.charts:
        at = [float(x) for x in re.findall(r'class="mark [^"]*" cx="([\d.]+)"', chart.svg)]
        assert len(at) == len(chart.legend)
        assert min(b - a for a, b in pairwise(at)) > 20
        assert chart.svg.count('class="whisker') == len(at)


def test_badge_and_sentence_round_alike(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "results")
    told = comparisons()
    for pair in told["pairs"]:
        pair.update(difference=-0.004, low=-0.02, high=0.012, p=0.6, p_holm=0.6, claim="none")
    (folder / "comparisons.json").write_text(json.dumps(told))
    execute("report", Config(results=folder, manifest=write_manifest(tmp_path / "data")), tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    badges = " ".join(re.findall(r'<ul class="marks".*?</ul>', page, re.S))
    assert "−0.004 (−0.020 to 0.012) against random" in page
    assert "−0.004" in badges
    assert "0.00<" not in badges
