"""A task of many labels in a report: a row and a panel a label, not a table and a page of curves each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluated_study import ARCHITECTURES, FRACTIONS, write_results
from trabecula.sections.curves import roc_curves
from trabecula.sections.results import Results, read_results
from trabecula.sections.tables import label_of, results_tables

LABELS = ("Mass", "Edema", "Hernia", "Nodule", "Fibrosis", "Effusion", "Pleural_Thickening")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """The study's AUROCs as if they were macro AUROCs, with one AUROC a label beside them."""
    folder = write_results(tmp_path / "results")
    content = json.loads((folder / "metrics.json").read_text())
    rows = []
    for row in (row for row in content["rows"] if row["metric"] == "auroc"):
        rows.append({**row, "metric": "auroc_macro", "num_events": None})
        for number, label in enumerate(LABELS):
            value = row["value"] and row["value"] - 0.01 * number
            rows.append({**row, "metric": f"auroc[{label}]", "num_events": 100 + number, "value": value})
        rows[-1] |= {
            "value": None,
            "low": None,
            "high": None,
            "num_events": 0,
            "note": "not estimable: one class",
        }
    (folder / "metrics.json").write_text(json.dumps({**content, "rows": rows}))
    pairs = json.loads((folder / "comparisons.json").read_text())
    pairs["pairs"] = [{**p, "metric": "auroc_macro"} for p in pairs["pairs"] if p["metric"] == "auroc"]
    (folder / "comparisons.json").write_text(json.dumps(pairs))
    curves = json.loads((folder / "curves.json").read_text())
    curves["roc"] = [{**row, "class": label} for row in curves["roc"] for label in LABELS[:-1]]
    (folder / "curves.json").write_text(json.dumps(curves))
    return read_results(folder)


def test_labels_are_the_rows_of_one_table_a_fraction(results: Results) -> None:
    panel = results.panels[0]
    assert [label_of(metric) for metric in ("auroc[Mass]", "auroc_macro")] == ["Mass", ""]
    tables = results_tables(results, panel)
    assert len(tables) == 1 + len(FRACTIONS)
    assert tables[0].title.startswith("macro AUROC of")
    for table, fraction in zip(tables[1:], FRACTIONS, strict=True):
        assert [row[0].text for row in table.rows] == list(LABELS)
        assert [row[1].text for row in table.rows] == ["100", "101", "102", "103", "104", "105", "0"]
        assert len(table.columns) == 2 + len(results.arms)
        assert all(len(row) == len(table.columns) for row in table.rows)
        first = results.summary(panel, "auroc[Edema]", results.arms[0].name, fraction)
        assert first is not None
        assert table.rows[1][2].text.startswith(f"{first['value']:.3f}")
        assert "one class" in table.rows[-1][2].small
        assert "100 images" not in table.rows[0][2].small  # the column says how many


def test_each_label_has_a_panel_of_its_own(results: Results) -> None:
    """Not a frame with a line for each arm and label, nor a fold for each."""
    groups = roc_curves(results, results.panels[0])
    assert len(groups) == len(FRACTIONS) * len(ARCHITECTURES)
    assert [group.opened for group in groups] == [True] + [False] * (len(groups) - 1)
    for group in groups:
        assert [chart.title for chart in group.charts] == list(LABELS[:-1])  # in the task's order
        assert all(chart.svg.count('class="line') == len(chart.legend) for chart in group.charts)
    assert groups[0].title.endswith("of labels, ResNet-18")


def test_few_classes_keep_a_group_each(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path / "results"))
    groups = roc_curves(results, results.panels[0])
    assert len(groups) == len(FRACTIONS)
    assert all(len(group.charts) == len(ARCHITECTURES) for group in groups)
    assert groups[0].title.endswith("class 1")
