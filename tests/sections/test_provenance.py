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


def test_software_and_machine_stand_once_whatever_single_runs_used(tmp_path: Path) -> None:
    """A run that computes nothing on a device records none; kernels are shown where they are not all on."""
    machine = {"trabecula": "1.0", "python": "3.11", "cpus": 2, "packages": {"torch": "2"}}
    own = [{"kernels": "on"}, {"device": "cpu", "kernels": "on"}, {"device": "cpu", "kernels": "on"}]

    def shown(*own: dict[str, str]) -> list[tuple[dict[str, str], int]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        text = [json.dumps({**machine, **values}) for values in own]
        runs = [_run(folder / f"r{i}", "embed", {}, {}, {"provenance.json": t}) for i, t in enumerate(text)]
        found: list[tuple[dict[str, str], int]] = read_runs(runs)["environments"]
        return found

    ((environment, num),) = shown(*own)
    assert num == 3
    assert environment == {"trabecula": "1.0", "python": "3.11", "cpus": "2", "torch": "2", "device": "cpu"}
    ((environment, _),) = shown(*own, {"device": "cuda", "kernels": "off"})
    assert environment["device"] == "cpu (2 of 4 runs), cuda (1 of 4 runs)"
    assert environment["kernels"] == "off (1 of 4 runs), on (3 of 4 runs)"
    ((environment, _),) = shown({"kernels": "off"})
    assert environment["kernels"] == "off"
    assert [num for _, num in shown({"cpus": "4"}, {}, {})] == [2, 1]
