"""Figures as files of their own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from evaluated_study import ARCHITECTURES, TASKS, write_results
from trabecula.figures.drawings import figure_files, plain_rules, style_sheet
from trabecula.figures.plots import learning_curves, reliability_plots, roc_curves
from trabecula.sections.results import read_results
from trabecula.sections.wording import arm_names


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    results = read_results(write_results(tmp_path_factory.mktemp("study") / "results"))
    drawn = [
        {
            "learning": [g for m in ("auroc", "balanced_accuracy") if (g := learning_curves(results, p, m))],
            "roc": roc_curves(results, p),
            "reliability": reliability_plots(results, p),
        }
        for p in results.panels
    ]
    return figure_files(drawn, arm_names(results))


def test_figures_stand_alone(files: dict[str, str]) -> None:
    learning = len(TASKS) * 2 * len(ARCHITECTURES)
    assert len(files) == learning + 2 * 3 * learning  # ROC and reliability for each of three fractions
    for name, text in files.items():
        assert re.fullmatch(r"[a-z0-9-]+\.svg", name)
        assert "var(" not in text
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []
        words = {e.text for e in ElementTree.fromstring(text).iter() if e.tag.endswith("text")}
        assert "random initialisation" in words


def test_an_arm_has_its_colour_in_every_file(files: dict[str, str]) -> None:
    colours = re.findall(r"\.line\.arm-0\{[^}]*stroke: (#\w+)", "".join(files.values()))
    light = re.search(r"--arm0: (#\w+)", style_sheet("figure.css"))
    assert light
    assert set(colours) == {light[1]}
    assert "stroke-dasharray: 5 3" in plain_rules(style_sheet("figure.css"), ["arm-random"])


def test_every_class_in_a_figure_has_a_rule(files: dict[str, str]) -> None:
    for name, text in files.items():
        used = {word for words in re.findall(r'class="([^"]*)"', text) for word in words.split()}
        assert {word for word in used if f".{word}" not in text} == set(), name


def test_alike_titles_keep_their_own_files(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path / "results"))
    group = learning_curves(results, results.panels[0], "auroc")
    drawn = [{"learning": [group, group], "roc": [], "reliability": []}]
    assert len(figure_files(drawn, arm_names(results))) == 2 * len(ARCHITECTURES)


def test_equal_scores_are_read_off_an_axis_that_ends_at_one(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path / "results"))
    curves = [
        replace(curve, points=[replace(p, value=1.0, low=None, high=None, seeds=(), num_patients=4)
                               for p in curve.points])
        for curve in results.curves.learning
    ]  # fmt: skip
    results = replace(results, curves=replace(results.curves, learning=curves))
    group = learning_curves(results, results.panels[0], "auroc")
    assert group is not None
    assert "All label fractions drew as many patients, so no curve" in group.caption
    labels = [float(x) for x in re.findall(r">(\d(?:\.\d+)?)</text>", group.figures[0].svg)]
    assert max(x for x in labels if x < 4) == 1.0
    assert 0.95 in labels
