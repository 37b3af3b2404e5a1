"""What the seeds of the knee paper's tables are called."""

from __future__ import annotations

import json
from pathlib import Path

from knee_ssl_study import METHODS, arm, write_study
from trabecula.sections.published.arms import arm_tables
from trabecula.sections.published.paper import StudyFiles, read_paper
from trabecula.sections.results import read_results


def test_seeds_of_several_pretrainings_are_not_called_label_seeds(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "results", (arm("r18-random", gain=-0.045), METHODS[2]))
    metrics = json.loads((folder / "metrics.json").read_text())
    single = [row for row in metrics["rows"] if row["seed"] != "all"]
    metrics["rows"] += [{**row, "pretrain_seed": 1, "value": row["value"] - 0.04} for row in single]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (found,) = arm_tables(read_paper("knee-ssl"), StudyFiles(read_results(folder)))
    assert "2 of 20 seeds of pretraining and labels at exactly 0.200" in found.random_probes
    spread = found.spread
    assert spread.title.endswith(" over seeds of pretraining and labels")
    assert spread.note.startswith("Lowest to highest value over seeds of pretraining and labels, and below")
