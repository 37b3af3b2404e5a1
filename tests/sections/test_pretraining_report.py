"""The report on how encoders were trained, and on arms that learned from labels."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

import knee_ssl_study
import probed_study
from encoder_cards import write_card
from evaluated_study import write_manifest, write_run, write_store
from probed_study import pair, score, write_study
from trabecula import report
from trabecula.comparison.arms import evaluated_encoders, upper_bounds
from trabecula.run import execute
from trabecula.sections import verdict
from trabecula.sections.pretraining import read_pretrainings
from trabecula.sections.results import read_results

COLLAPSED = "the encoder has collapsed: its features of 256 images are almost identical"


def trained(folder: Path, name: str, rank: float, **more: Any) -> Path:
    write_run(folder, "pretrain", 0)
    training = {
        "start": {"monitor/rank": 83.14, "monitor/spread": 0.174},
        "points": [
            {"images": 640, "query/loss": 4.306, "query/norm": 1.0},
            {"images": 1280, "query/loss": 3.021, "monitor/rank": rank, "monitor/spread": 0.4826},
        ],
        "findings": [],
    }
    (folder / "training.json").write_text(json.dumps({**training, **more}))
    return write_card(folder, name, seed=3)


def test_a_line_a_run_from_the_start_to_the_end(tmp_path: Path) -> None:
    known = {"monitor/rank": 83.14, "monitor/spread": 0.174, "monitor/knn": 0.25}
    runs = [
        trained(tmp_path / "a", "vicreg", 41.2),
        trained(tmp_path / "b", "moco", 132.7, start=known),
        write_run(tmp_path / "c", "probe", 1),
    ]
    pretrainings = read_pretrainings(runs)
    assert pretrainings is not None
    assert [[cell.plain for cell in row] for row in pretrainings.table.rows] == [
        ["moco", "3", "1,280", "query 4.306 → 3.021", "83.1 → 133", "0.174 → 0.483", "0.250"],
        ["vicreg", "3", "1,280", "query 4.306 → 3.021", "83.1 → 41.2", "0.174 → 0.483", "–"],
    ]
    assert pretrainings.wrong == []
    assert read_pretrainings(runs[2:]) is None


def test_a_measure_that_no_run_has_is_no_column(tmp_path: Path) -> None:
    known = {"monitor/rank": 83.14, "monitor/spread": 0.174, "monitor/knn": 0.25}
    without = trained(tmp_path / "a", "vicreg", 41.2)
    found = read_pretrainings([without])
    assert found is not None
    assert found.table.columns == ("Arm", "Seed", "Images", "Loss", "Effective rank", "Spread")
    assert [len(row) for row in found.table.rows] == [6]
    assert "Neighbours" not in found.table.note
    assert "Spread: 1 where features point in all directions" in found.table.note
    one_has = read_pretrainings([without, trained(tmp_path / "b", "moco", 132.7, start=known)])
    assert one_has is not None
    assert one_has.table.columns[-1] == "Neighbours"
    assert "Neighbours: balanced accuracy" in one_has.table.note


def test_what_was_wrong_is_said_with_its_place(tmp_path: Path) -> None:
    findings = [{"name": "encoder collapse", "text": COLLAPSED, "first": 640, "last": 1280}]
    pretrainings = read_pretrainings([trained(tmp_path / "a", "moco", 0.0, findings=findings)])
    assert pretrainings is not None
    assert pretrainings.wrong == [f"moco, seed 3, from 640 to 1,280 images: {COLLAPSED}."]


def test_an_arm_that_ended_collapsed_is_flagged_beside_its_verdict(tmp_path: Path) -> None:
    """Only what was still wrong at the end is: a critic that recovered trained an encoder like another."""
    values = {"critic-random": 0.6, "critic-wgan_gp": 0.72, "critic-wgan_gp-pool10": 0.7}
    scores = [score(arm, value, value - 0.03, value + 0.03) for arm, value in values.items()]
    pairs = [pair(arm, "critic-random", 0.1, "better") for arm in list(values)[1:]]
    folder = write_study(tmp_path / "results", scores, pairs)
    ended = [{"name": "encoder collapse", "text": COLLAPSED, "first": 640, "last": 1280}]
    mended = [{"name": "encoder collapse", "text": "it had collapsed", "first": 640, "last": 640}]
    runs = (
        trained(tmp_path / "a", "critic-wgan_gp", 0.0, findings=ended),
        trained(tmp_path / "b", "critic-wgan_gp-pool10", 80.0, findings=mended),
    )
    pretrainings = read_pretrainings(runs)
    assert pretrainings is not None
    assert pretrainings.at_the_end == {"critic-wgan_gp": f"seed 3: {COLLAPSED}"}
    config = report.Config(results=folder, manifest=write_manifest(tmp_path / "data"), runs=runs)
    execute("report", config, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    verdict_part = page[: page.index('<section id="results"')]
    lines = verdict_part.split('<div class="line-of')[1:]
    flagged = ["from the end of its pretraining" in line for line in lines]
    assert sum(flagged) == 1
    assert COLLAPSED in lines[flagged.index(True)]
    assert "10\N{NO-BREAK SPACE}% of the pool" not in lines[flagged.index(True)]
    assert "it had collapsed" not in verdict_part


def test_reconstructions_are_shown_with_what_was_hidden_where_images_may_be(tmp_path: Path) -> None:
    arms, store = knee_ssl_study.MASKS, write_store(tmp_path / "store")
    runs = knee_ssl_study.write_runs(tmp_path / "runs", arms, store)
    pretrainings = read_pretrainings(runs, pictures=True)
    assert pretrainings is not None
    captions = [one.caption.replace("\N{NO-BREAK SPACE}", " ") for one in pretrainings.sheets]
    assert captions == [
        f"vit-mae{share}, seed 0: images of the pool, the same with {share} % of the patches hidden, and "
        "what the network fills in from the rest"
        for share in (25, 50)
    ]
    config = report.Config(
        results=knee_ssl_study.write_study(tmp_path / "results", arms),
        manifest=write_manifest(tmp_path / "data"), store=store, runs=runs,
    )  # fmt: skip
    execute("report", config, tmp_path / "with")
    page = (tmp_path / "with/report.html").read_text()
    part = page[page.index('<section id="pretraining"') : page.index('<section id="pictures"')]
    drawn = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', part)
    assert [base64.b64decode(data) for data, _ in drawn] == [
        (run / "reconstructions.png").read_bytes() for run in reversed(runs[:2])
    ]
    for share, (_, alt) in zip((25, 50), drawn, strict=True):
        assert f"{share}\N{NO-BREAK SPACE}% of their patches, drawn by chance, covered in white" in alt
    for number, update in enumerate(({"store": None}, {"num_pictures": 0})):
        execute("report", config.model_copy(update=update), tmp_path / f"without{number}")
        page = (tmp_path / f"without{number}/report.html").read_text()
        assert "fill in" not in page
        assert "data:image" not in page


def test_an_arm_that_learned_from_labels_is_an_upper_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named so in every table, said beside the tally, and not counted as pretraining that paid."""
    taught = {"objective": "classify", "labels": "kl >= 2", "num_patients_seen": 600}
    taught["taught_by"] = "labels of kl >= 2 of 240 training patients"  # of 600 it has seen
    monkeypatch.setitem(probed_study.ARMS, "critic-classify", taught)
    values = {"critic-random": 0.6, "critic-wgan_gp": 0.72, "critic-classify": 0.8}
    scores = [score(arm, value, value - 0.03, value + 0.03) for arm, value in values.items()]
    pairs = [
        pair("critic-wgan_gp", "critic-random", 0.12, "none"),
        pair("critic-classify", "critic-random", 0.2, "better"),
    ]
    folder = write_study(tmp_path / "results", scores, pairs)
    results = read_results(folder)
    name = "Supervised pretraining, upper bound: saw labels of kl >= 2"
    assert results.by_name["critic-classify"].title == name
    assert [row["arm"] for row in verdict.against_random(results)] == ["critic-wgan_gp"]
    findings = [{"name": "encoder collapse", "text": COLLAPSED, "first": 1280, "last": 1280}]
    run = trained(tmp_path / "run", "critic-wgan_gp", 0.0, findings=findings)
    config = report.Config(results=folder, manifest=write_manifest(tmp_path / "data"), runs=(run,))
    said = execute("report", config, tmp_path / "report")
    assert said == (
        "report.html: 1 comparison with random initialisation: 0 better, 0 worse, 1 with no difference shown"
    )
    page = (tmp_path / "report" / "report.html").read_text()
    assert (
        "learned from the labels of kl &gt;= 2 of 240 training patients, more than an arm of a label "
        "fraction has: it is an upper bound and not counted.</p>"
    ) in page
    assert page.count("it paid") == 0
    assert f"<p>critic-wgan_gp, seed 3, at 1,280 images: {COLLAPSED}.</p>" in page
    assert "How the encoders were trained" in page


def test_evaluate_says_who_learned_from_labels() -> None:
    card = {"arm": "moco", "architecture": "critic", "family": "pretrained", "patients": ["a", "b"]}
    taught = {**card, "arm": "classify", "labels": "kl >= 2", "num_labelled_patients": 1}
    assert upper_bounds([card, taught]) == [
        "classify learned from the labels of kl >= 2 of 1 training patients: an upper bound, not pretraining "
        "without labels"
    ]
    arms = evaluated_encoders([card, taught, {**taught, "arm": "old", "num_labelled_patients": 0}], [])
    assert [(row.labels, row.taught_by) for row in arms] == [
        ("kl >= 2", "labels of kl >= 2 of 1 training patients"),
        ("", ""),
        ("kl >= 2", "labels of kl >= 2 of training patients"),
    ]
