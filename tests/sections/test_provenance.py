"""Runs name the arm, the share of labels and the seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from encoder_cards import encoder_card
from trabecula.sections.provenance import read_runs


def _run(
    folder: Path, verb: str, inputs: dict[str, Any], settings: dict[str, Any], files: dict[str, str]
) -> Path:
    folder.mkdir()
    record = {"verb": verb, "id": folder.name * 8, "settings": settings, "inputs": inputs}
    for name, text in {"config.json": json.dumps(record), "provenance.json": "{}", **files}.items():
        (folder / name).write_text(text)
    return folder


def test_every_run_names_its_arm(tmp_path: Path) -> None:
    settings = {"arm": "", "architecture": "critic", "objective": "wgan_gp", "seed": 0}
    card = {"encoder.json": encoder_card("critic-wgan_gp").model_dump_json()}
    choices = {"choices.csv": "task,arm\nkl2,critic-wgan_gp\n"}
    encoder = {"encoder": ["aa" * 8]}
    runs = [
        _run(tmp_path / "bb", "embed", encoder, {}, {}),
        _run(tmp_path / "aa", "pretrain", {}, settings, card),
        _run(tmp_path / "cc", "pretrain", {}, settings, {}),
        _run(tmp_path / "dd", "finetune", encoder, {"task": "kl2", "fraction": 0.25, "seed": 1}, choices),
        _run(tmp_path / "ee", "probe", {}, {"task": "kl2", "fractions": [0.25, 1.0]}, choices),
    ]
    assert {one.id[:2]: one.what.replace("\N{NO-BREAK SPACE}", " ") for one in read_runs(runs)["runs"]} == {
        "aa": "arm critic-wgan_gp, seed 0",
        "bb": "arm critic-wgan_gp",
        "cc": "arm critic wgan_gp, seed 0",
        "dd": "arm critic-wgan_gp, task kl2, 25 % of labels, seed 1",
        "ee": "arm critic-wgan_gp, task kl2, 25 % and 100 % of labels",
    }
