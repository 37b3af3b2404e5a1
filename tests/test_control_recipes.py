"""The recipes of control studies, each run to its end as a user does: what their reports must say."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trabecula.artifacts.encoder import read_encoder_card

ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def study(name: str, folder: Path, *more: str) -> Path:
    """Run a recipe where no weights lie."""
    (folder / "recipes").symlink_to(ROOT / "recipes")
    words = ["study", f"recipes/{name}.toml", "--out", "out", "--workers", "2", *more]
    done = subprocess.run(
        [sys.executable, "-m", "trabecula.cli", *words],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "out"


def page(folder: Path) -> str:
    """A report as a reader sees it: its text, without marks and drawings."""
    (file,) = [folder] if folder.suffix == ".html" else [folder / "report.html"]
    text = re.sub(r"<(style|script)\b.*?</\1>", " ", file.read_text(), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def cells(folder: Path, stage: str) -> list[Path]:
    record = json.loads((folder / "cells.json").read_text())
    return [folder / cell["folder"] for cell in record["cells"] if cell["stage"] == stage]


def pool_size(out: Path) -> None:
    said = page(out)
    cards = {card.name: card for card in map(read_encoder_card, cells(out, "pretrain"))}
    assert {card.images_seen for card in cards.values() if card.objective != "none"} == {6_400}
    sizes = [len(cards[f"resnet10t-moco{part}"].patients) for part in ("-pool10", "-pool30", "")]
    assert sizes == [82, 246, 820]
    assert set(cards["resnet10t-moco-pool10"].patients) < set(cards["resnet10t-moco-pool30"].patients)
    for text in ("10 % of the pool (82 patients)", "30 % of the pool (246 patients)", "Figure 3:"):
        assert text in said
    (evaluated,) = cells(out, "evaluate")
    pools = json.loads((evaluated / "comparisons.json").read_text())["pools"]
    assert {row["arm"] for row in pools} == {"resnet10t-moco-pool10", "resnet10t-moco-pool30"}


def natural_images(out: Path) -> None:
    said = page(out)
    assert "Figure 2:" in said
    assert "images of another kind" in said
    cards = {card.name: card for card in map(read_encoder_card, cells(out, "pretrain"))}
    natural, knees = cards["resnet10t-moco-natural"], cards["resnet10t-moco-knees"]
    assert len(natural.patients) == 1600  # each photograph its own patient
    assert not set(natural.patients) & set(knees.patients)
    assert natural.store != knees.store
    (log,) = [p for p in cells(out, "pretrain") if read_encoder_card(p).name == natural.name]
    assert "are they of this store?" in (log / "DONE").read_text()


def objects(out: Path) -> None:
    said = page(out)
    assert "Figure 4:" in said
    (evaluated,) = cells(out, "evaluate")
    rows = json.loads((evaluated / "metrics.json").read_text())["rows"]
    scores = {
        row["arm"]: row["value"]
        for row in rows
        if (row["metric"], row["seed"], row["fraction"], row["stratum"])
        == ("balanced_accuracy", "all", 1.0, "all")
    }
    assert scores["resnet10t-moco"] > 0.2  # of ten kinds


def domains(out: Path) -> None:
    cards = {card.name: card for card in map(read_encoder_card, cells(out, "pretrain"))}
    for method in ("moco", "vicreg"):
        knee, chest, both = (cards[f"{method}-{pool}"] for pool in ("knee", "chest", "both"))
        assert not set(knee.patients) & set(chest.patients)
        assert set(both.patients) == {*knee.patients, *chest.patients}
        assert both.stores == (knee.store, chest.store)
    for stage, table, metric in (("knee", "Table A.1", "balanced accuracy"), ("chest", "Table A.2", "AUROC")):
        (report,) = cells(out, f"{stage}-report")
        said = page(report)
        assert table in said
        assert metric in said
        for arm in (
            "MoCo, cross-domain",
            "VICReg, cross-domain",
            "MoCo, mixed-domain",
            "VICReg, mixed-domain",
        ):
            assert arm in said, (stage, arm)


def chest(out: Path) -> None:
    said = page(out)
    assert "Table 4" in said
    (evaluated,) = cells(out, "evaluate")
    rows = json.loads((evaluated / "metrics.json").read_text())["rows"]
    whole = {
        (row["arm"], row["mode"], row["fraction"], row["metric"]): row for row in rows if row["seed"] == "all"
    }
    for arm in ("random", "moco", "vicreg"):
        found = [row for (name, _, _, metric), row in whole.items() if name == f"resnet18-{arm}"]
        assert len(found) == 2 * 2 * 15  # modes, fractions; fourteen findings and their mean
        for mode in ("probe", "finetune"):
            macro = whole[f"resnet18-{arm}", mode, 1.0, "auroc_macro"]
            assert macro["low"] < macro["value"] < macro["high"]
    assert whole["resnet18-random", "probe", 1.0, "auroc_macro"]["low"] > 0.5
    assert "resnet18-imagenet.safetensors is not there" in said
    assert "AUROC of each label of findings" in said


def mae_ratios(out: Path) -> None:
    said = page(out)
    assert "Table B.1" in said
    assert "weights/vit_tiny_patch16_224-imagenet.safetensors is not there" in said
    cards = {card.name: card for card in map(read_encoder_card, cells(out, "pretrain"))}
    ratios = sorted(card.settings["mask_ratio"] for card in cards.values() if card.objective == "mae")
    assert ratios == [0.25, 0.35, 0.5, 0.6, 0.7]
    assert {card.architecture for card in cards.values()} == {"timm:vit_tiny_patch4_224"}
    for folder in cells(out, "pretrain"):
        assert (folder / "reconstructions.png").exists() == (read_encoder_card(folder).objective == "mae")


def spectrum(out: Path) -> None:
    said = page(out)
    (audited,) = cells(out, "spectrum")
    audits = json.loads((audited / "spectrum.json").read_text())["audits"]
    assert [audit["seed"] for audit in audits] == [0, 1, 2]
    for audit in audits:
        assert audit["num_images"] == 600
        assert audit["dominant"]["class"] == "3"
        assert "of the other grades there is little to learn" in audit["warning"]
        (planted,) = [cell for cell in audit["corrected"] if cell["class"] == "3"]
        assert planted["low"] <= 0.93 <= planted["high"]
    assert "Figure 5:" in said
    assert "are called 3, corrected" in said


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("pool-size-demo", pool_size),
        ("natural-images-demo", natural_images),
        ("objects-demo", objects),
        ("domains-demo", domains),
        ("chest-ssl-demo", chest),
        ("mae-ratios-demo", mae_ratios),
        ("spectrum-demo", spectrum),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_control_study_runs_to_its_report(name: str, check: Callable[[Path], None], tmp_path: Path) -> None:
    check(study(name, tmp_path))
