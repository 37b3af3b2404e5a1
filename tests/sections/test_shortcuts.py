"""The report on shortcut probes: what is found, and that it never counts as a gain."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from evaluated_study import write_manifest
from probed_study import pair, score, write_study
from trabecula import report
from trabecula.artifacts.predictions import corner_of, probe_mode, region_name
from trabecula.run import execute
from trabecula.sections.formats import Table
from trabecula.sections.names import mode_name
from trabecula.sections.results import Panel, read_results
from trabecula.sections.section import Section
from trabecula.sections.shortcuts import shortcuts_section
from trabecula.sections.verdict import tally, verdicts

CORNERS = "probe:corners 0.25"
PROBES: dict[tuple[str, str], dict[str, tuple[float, float | None, float | None]]] = {
    ("cohort", "probe"): {"critic-random": (0.90, 0.84, 0.94), "critic-wgan_gp": (0.93, 0.88, 0.97)},
    ("cohort", CORNERS): {"critic-random": (0.861, 0.80, 0.92), "critic-wgan_gp": (0.86, 0.79, 0.91)},
    ("kl2", "probe"): {"critic-random": (0.77, 0.61, 0.87), "critic-wgan_gp": (0.80, 0.70, 0.90)},
    ("kl2", CORNERS): {"critic-random": (0.52, 0.33, 0.70), "critic-wgan_gp": (0.30, 0.20, 0.40)},
}  # fmt: skip


def study(folder: Path, probes: Any = PROBES, **other: Any) -> Path:
    scores, pairs = [], []
    for (task, mode), arms in probes.items():
        where = {"task": task, "mode": mode, "fraction": 1.0}
        scores += [score(arm, *values, **where) for arm, values in arms.items()]
        pairs.append(pair("critic-wgan_gp", "critic-random", 0.03, "better", **where))
    return write_study(folder, scores, pairs, **other)


def shown(folder: Path) -> Section:
    section = shortcuts_section(read_results(folder, ("cohort",)))
    assert section is not None
    return section


def table(section: Section) -> Table:
    return section.files["shortcuts"][0][0]


def test_a_probe_finds_what_lies_above_chance(tmp_path: Path) -> None:
    section = shown(study(tmp_path / "r"))
    rows = [(r[0].text, r[1].text, r[3].text, r[5].text, r[6].text) for r in table(section).rows]
    assert rows == [
        ("cohort", "whole image", "random initialisation", "0.5", "found"),
        ("cohort", "whole image", "WGAN-GP pretraining", "0.5", "found"),
        ("cohort", "corners alone", "random initialisation", "0.5", "found"),
        ("cohort", "corners alone", "WGAN-GP pretraining", "0.5", "found"),
        ("kl2, for comparison", "whole image", "random initialisation", "0.5", "found"),
        ("kl2, for comparison", "whole image", "WGAN-GP pretraining", "0.5", "found"),
        ("kl2", "corners alone", "random initialisation", "0.5", "not shown"),
        ("kl2", "corners alone", "WGAN-GP pretraining", "0.5", "below chance"),
    ]
    assert section.blocks[1].content == [
        "cohort from the whole image: found by 2 of 2 encoders (AUROC 0.90 to 0.93, by chance 0.5).",
        "cohort from the corners alone: found by 2 of 2 encoders (AUROC 0.86, by chance 0.5).",
        "kl2 from the whole image, for comparison: found by 2 of 2 encoders (AUROC 0.77 to 0.80, by chance "
        "0.5).",
        "kl2 from the corners alone: found by 0 of 2 encoders (AUROC 0.30 to 0.52, by chance 0.5).",
    ]


def test_the_figure_has_a_place_for_each_question_and_a_whisker_for_each_encoder(tmp_path: Path) -> None:
    section = shown(study(tmp_path / "r"))
    (chart,) = section.charts
    marks = re.findall(r'<circle class="mark [\w-]+" cx="([\d.]+)"', chart.svg)
    assert len(marks) == len(set(marks)) == chart.svg.count('class="whisker') == 8
    assert 'class="diagonal"' in chart.svg
    assert chart.note == "Dotted: chance, 0.5. Whiskers are intervals."
    assert [name for name, _ in chart.legend] == ["random initialisation", "WGAN-GP pretraining"]


def test_without_an_interval_nothing_is_said_to_be_found(tmp_path: Path) -> None:
    probes = {("cohort", "probe"): dict.fromkeys(("critic-random", "critic-wgan_gp"), (0.9, None, None))}
    section = shown(study(tmp_path / "r", probes))
    assert {row[6].text for row in table(section).rows} == {"not estimable"}


def test_chance_of_balanced_accuracy_is_one_class_of_all(tmp_path: Path) -> None:
    rows = [
        score("critic-random", 0.4, 0.35, 0.45, task="cohort", mode="probe", metric="balanced_accuracy")
    ]  # fmt: skip
    folder = write_study(tmp_path / "r", rows, classes=("a", "b", "c"))
    section = shown(folder)
    assert (table(section).rows[0][5].text, table(section).rows[0][6].text) == ("0.333", "found")


def test_no_shortcut_counts_as_a_gain(tmp_path: Path) -> None:
    results = read_results(study(tmp_path / "r"), ("cohort",))
    assert [(v["task"], v["mode"]) for v in verdicts(results)] == [("kl2", "linear probe")]
    assert sum(entry["number"] for entry in tally(results)) == 1
    assert results.panels[0] == Panel("kl2", "probe")  # shortcut probes stand last
    other = read_results(tmp_path / "r", ())
    assert sum(entry["number"] for entry in tally(other)) == 2  # the source is a question like any other then


@pytest.fixture
def page(tmp_path: Path) -> str:
    config = report.Config(results=study(tmp_path / "r"), manifest=write_manifest(tmp_path / "data"))
    execute("report", config, tmp_path / "report")
    return " ".join((tmp_path / "report/report.html").read_text().split())


def test_the_page_calls_no_shortcut_better(page: str, tmp_path: Path) -> None:
    assert page.count("a higher score is no merit.") == 6  # three panels, their results and comparisons
    assert page.count('class="reading better"') == 1
    assert "tells more" in page
    table = (tmp_path / "report/tables/comparisons.md").read_text()
    assert table.count("| better |") == 1
    assert table.count("| tells more |") == 3
    assert "found by 0 of 2 encoders" in (page + (tmp_path / "report/tables/shortcuts.md").read_text())
    assert "| below chance |" in (tmp_path / "report/tables/shortcuts.md").read_text()


def test_a_study_of_shortcuts_alone_has_no_verdict(tmp_path: Path) -> None:
    probes = {key: value for key, value in PROBES.items() if key[0] == "cohort"}
    config = report.Config(results=study(tmp_path / "r", probes), manifest=write_manifest(tmp_path / "data"))
    said = execute("report", config, tmp_path / "report")
    why = "there is nothing that pretraining could pay for"
    assert said.endswith(f"no comparison with random initialisation (every probe asks for a shortcut: {why})")
    assert why in (tmp_path / "report/report.html").read_text()


def test_only_probes_of_corners_are_shortcuts_by_their_mode(tmp_path: Path) -> None:
    results = read_results(study(tmp_path / "r"))
    assert results.is_shortcut(Panel("kl2", CORNERS))
    for mode in ("finetune:corners 0.25", "probe", "finetune:with:corners 1"):
        assert not results.is_shortcut(Panel("kl2", mode))
    assert mode_name("finetune:corners 0.25") == "fine-tuning, corners 0.25"
    assert probe_mode(region_name("corners", 0.25)) == CORNERS
    assert probe_mode(region_name("all", 0.25)) == "probe"
    assert (corner_of(CORNERS), corner_of("probe")) == ("0.25", None)


def test_false_alarms_above_chance_are_half_of_what_intervals_leave_out(page: str, tmp_path: Path) -> None:
    """A level of 95 % leaves 2.5 % on the side that counts as found, 90 % leaves 5 %."""
    assert "about one probe in 40 says so" in page
    told = json.loads((tmp_path / "r/metrics.json").read_text())
    (tmp_path / "r/metrics.json").write_text(json.dumps({**told, "level": 0.9}))
    config = report.Config(results=tmp_path / "r", manifest=tmp_path / "data/manifest.csv")
    execute("report", config, tmp_path / "other")
    assert "about one probe in 20 says so" in " ".join((tmp_path / "other/report.html").read_text().split())


def test_modes_read_as_words() -> None:
    assert mode_name(CORNERS) == "linear probe of the corners alone (0.25 of a side each)"
    assert mode_name("finetune:best head") == "fine-tuning, best head"
    assert mode_name("probe") == "linear probe"
