"""The figure of scores over pretraining, and the words on runs that stayed at chance."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from evaluated_study import TASKS, write_manifest, write_results
from trabecula import report
from trabecula.run import execute
from trabecula.sections.names import mode_name
from trabecula.sections.results import Panel, Results, read_results
from trabecula.sections.snapshots import snapshot_curves, snapshot_table
from trabecula.sections.verdict import tuning_counts

PANEL = Panel(TASKS[0], "finetune")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The made-up study with a sweep of the critic's pretraining at 10 % of the labels."""
    folder = write_results(tmp_path / "results")
    curves = json.loads((folder / "curves.json").read_text())
    points = [
        {
            "images": n,
            "value": v,
            "low": v - 0.05,
            "high": v + 0.05,
            "seeds": [],
            "num_patients": 40,
            "note": "",
        }
        for n, v in ((50_000, 0.60), (100_000, 0.66), (200_000, 0.71))
    ]
    points.append(
        points[0] | {"images": 250_000, "value": None, "low": None, "high": None, "note": "too few"}
    )
    curves["snapshots"] = [
        {"task": TASKS[0], "arm": "critic-wgan_gp", "mode": "finetune", "metric": "auroc", "fraction": 0.1,
         "split": "val", "points": points, "control": {"arm": "critic-random", **points[0], "value": 0.58}}
    ]  # fmt: skip
    (folder / "curves.json").write_text(json.dumps(curves))
    flow = json.loads((folder / "flow.json").read_text())
    flow["plateaus"] = [
        {"task": TASKS[0], "arm": "critic-random", "mode": "finetune", "fraction": 0.01, "num_runs": 10,
         "num_plateau": 3},
        {"task": TASKS[0], "arm": "critic-wgan_gp", "mode": "finetune", "fraction": 0.01, "num_runs": 10,
         "num_plateau": 0},
    ]  # fmt: skip
    (folder / "flow.json").write_text(json.dumps(flow))
    return folder


@pytest.fixture
def results(folder: Path) -> Results:
    return read_results(folder)


def test_the_curve_goes_through_its_points_and_the_control_lies_across(results: Results) -> None:
    group = snapshot_curves(results, PANEL, "auroc")
    assert group is not None
    (chart,) = group.charts
    assert chart.title == "critic, 10\N{NO-BREAK SPACE}% of labels"
    assert [name for name, _ in chart.legend] == ["WGAN-GP pretraining", "random initialisation"]
    lines = re.findall(r'<polyline class="line ([\w-]+)" points="([^"]+)"', chart.svg)
    across, curve = (points.split() for _, points in sorted(lines, key=lambda line: len(line[1])))
    assert len(curve) == 3  # the point that could not be estimated is left out
    x = [float(point.split(",")[0]) for point in curve]
    assert x[1] - x[0] == pytest.approx((x[2] - x[1]) / 2, abs=0.2)  # images seen are drawn to scale
    heights = [float(point.split(",")[1]) for point in curve]
    assert heights == sorted(heights, reverse=True)
    assert len({point.split(",")[1] for point in across}) == 1
    assert "validation AUROC" in chart.svg
    assert group.title.startswith("Validation AUROC over pretraining")
    assert "0.600 at 50,000, 0.660 at 100,000, 0.710 at 200,000" in chart.svg


def test_the_line_across_is_the_control_on_validation(folder: Path) -> None:
    def across(value: float | None) -> list[str]:
        curves = json.loads((folder / "curves.json").read_text())
        curves["snapshots"][0]["control"]["value"] = value
        (folder / "curves.json").write_text(json.dumps(curves))
        group = snapshot_curves(read_results(folder), PANEL, "auroc")
        assert group is not None
        return re.findall(r'<polyline class="line arm-random" points="([^"]+)"', group.charts[0].svg)

    low, high = across(0.58), across(0.65)
    assert len(low) == len(high) == 1
    assert float(low[0].split()[0].split(",")[1]) > float(high[0].split()[0].split(",")[1])
    assert across(None) == []


def test_curves_of_test_images_are_not_drawn(folder: Path) -> None:
    curves = json.loads((folder / "curves.json").read_text())
    del curves["snapshots"][0]["split"]
    (folder / "curves.json").write_text(json.dumps(curves))
    assert snapshot_curves(read_results(folder), PANEL, "auroc") is None


def test_the_table_has_every_point_with_its_interval_and_the_control_first(results: Results) -> None:
    table = snapshot_table(results, PANEL, "auroc")
    assert [row[3].text for row in table.rows] == ["–", "50,000", "100,000", "200,000", "250,000"]
    assert [row[4].text for row in table.rows] == ["0.580", "0.600", "0.660", "0.710", "–"]
    assert table.rows[2][4].second == "0.610 to 0.710"


def test_a_snapshot_is_no_arm_of_the_report(folder: Path, tmp_path: Path) -> None:
    """Cards of snapshots, their stuck runs, and what an evaluation that counted them as arms left behind."""
    config = report.Config(results=folder, manifest=write_manifest(tmp_path / "cohort"))
    told = execute("report", config, tmp_path / "without")
    arms = len(read_results(folder).arms)
    for name, part in (
        ("metrics.json", "rows"), ("comparisons.json", "pairs"), ("comparisons.json", "label_multipliers"),
        ("curves.json", "learning"), ("curves.json", "roc"), ("flow.json", "arms"), ("flow.json", "plateaus"),
    ):  # fmt: skip
        value = json.loads((folder / name).read_text())
        mine = [row for row in value[part] if row["arm"] == "critic-wgan_gp"]
        assert mine
        value[part] += [row | {"arm": "critic-wgan_gp@50000"} for row in mine]
        if part == "plateaus":
            value[part][-1]["num_plateau"] = 7
        (folder / name).write_text(json.dumps(value))
    assert len(read_results(folder).arms) == arms
    assert execute("report", config, tmp_path / "with") == told
    assert "@50000" not in (tmp_path / "with" / "report.html").read_text()
    for file in ("results", "comparisons", "label_multipliers"):
        csv = [tmp_path / way / "tables" / f"{file}.csv" for way in ("with", "without")]
        assert csv[0].read_bytes() == csv[1].read_bytes()


def test_an_arm_of_which_only_snapshots_were_evaluated_keeps_its_place(folder: Path) -> None:
    for name, part in (("metrics.json", "rows"), ("comparisons.json", "pairs"), ("flow.json", "arms")):
        value = json.loads((folder / name).read_text())
        mine = [row for row in value[part] if row["arm"] == "critic-wgan_gp"]
        value[part] = [row for row in value[part] if row["arm"] != "critic-wgan_gp"]
        if part == "arms":
            assert mine[0]["control"] == "critic-random"
            value[part] += [mine[0] | {"arm": "critic-wgan_gp@50000", "images_seen": 50_000}]
        (folder / name).write_text(json.dumps(value))
    results = read_results(folder)
    assert results.by_name["critic-wgan_gp"].images_seen is None
    assert snapshot_curves(results, PANEL, "auroc") is not None


def test_without_snapshots_there_is_no_figure(results: Results) -> None:
    assert snapshot_curves(results, Panel(TASKS[1], "finetune"), "auroc") is None
    assert snapshot_curves(results, PANEL, "balanced_accuracy") is None


def test_stuck_runs_are_counted_in_words(results: Results) -> None:
    (told,) = tuning_counts(results, PANEL)
    assert told.replace("\N{NO-BREAK SPACE}", " ") == (
        "critic, random initialisation (3 of 10 with 1 % of labels)"
    )
    counts = [*results.flow.plateaus, replace(results.flow.plateaus[0], fraction=0.1, num_plateau=1)]
    results = replace(results, flow=replace(results.flow, plateaus=counts))
    (told,) = tuning_counts(results, PANEL)
    assert told.replace("\N{NO-BREAK SPACE}", " ").endswith("(3 of 10 with 1 % of labels, 1 of 10 with 10 %)")
    assert tuning_counts(results, Panel(TASKS[0], "probe")) == []


def test_ways_of_fine_tuning_have_names() -> None:
    assert mode_name("finetune") == "fine-tuning"
    assert mode_name("finetune:best head") == "fine-tuning, best head"


def test_both_stand_in_the_page(folder: Path, tmp_path: Path) -> None:
    config = report.Config(results=folder, manifest=write_manifest(tmp_path / "cohort"))
    execute("report", config, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "critic, random initialisation (3 of 10 with" in page
    assert "Over the course of pretraining" in page
    assert page.count("0.610 to 0.710") == 1
    names = [path.name for path in (tmp_path / "report" / "figures").iterdir()]
    assert [name for name in names if name.startswith("snapshots-")] != []
    assert "0.610 to 0.710" in (tmp_path / "report" / "tables" / "snapshots.md").read_text()
