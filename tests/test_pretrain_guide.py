"""The guide from a folder to an exported encoder: its commands, in its order, at small sizes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trabecula import cli
from trabecula.objectives import TABLE, find
from trabecula.objectives.adversarial import Adversarial

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "guides" / "pretrain.md").read_text()
COMMANDS = re.findall(r"^    trabecula (.+)$", GUIDE, re.M)
SMALL = {
    "phantom": ["num_patients=48", "num_unlabelled_patients=4", "size=40"],
    "prepare": ["size=32"],
    "pretrain": ["images=32", "every=16", "batch_size=16"],
    "probe": ["seeds=[0, 1]", "num_strengths=3"],
    "evaluate": ["num_resamples=100"],
}
"""Settings that replace the guide's, by verb: they change what it costs and nothing else."""
ARMS = {"resnet18-random", "resnet18-vicreg", "vit_tiny_patch8_224-random", "vit_tiny_patch8_224-mae"}


def test_the_guide_goes_from_a_folder_to_an_exported_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    runner = CliRunner()
    for command in COMMANDS:
        verb, *words = shlex.split(command)
        small = SMALL.get(verb, [])
        if "vicreg.toml" in command:
            small = [*small, "settings.width=16"]
        if verb == "pretrain" and "--splits" not in words:
            small = []  # a random arm has no budget
        done = runner.invoke(cli.app, [verb, *words, *(word for key in small for word in ("-s", key))])
        assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception!r}"
    arms = {row["arm"] for row in json.loads(Path("runs/results/metrics.json").read_text())["rows"]}
    assert arms == ARMS
    pairs = json.loads(Path("runs/results/comparisons.json").read_text())["pairs"]
    assert {(pair["arm"], pair["baseline"]) for pair in pairs} == {
        ("resnet18-vicreg", "resnet18-random"),
        ("vit_tiny_patch8_224-mae", "vit_tiny_patch8_224-random"),
    }
    assert Path("runs/report/report.html").exists()
    assert Path("runs/mae/reconstructions.png").exists()
    for folder in ("export", "export-mae"):
        assert {"model.safetensors", "model.onnx", "README.md"} <= {
            path.name for path in Path("runs", folder, "hub").iterdir()
        }


def test_what_it_names_is_there() -> None:
    """Every method has a row; the settings a row names are that method's own; files it names exist."""
    rows = dict(re.findall(r"^\| (`[a-z_`, ]+`)[^|]* \| (.+) \|$", GUIDE, re.M))
    named = {method: row for methods, row in rows.items() for method in re.findall(r"`(\w+)`", methods)}
    methods = {name for name in TABLE if not issubclass(find(name), Adversarial)} | {"wgan_gp"}
    assert set(named) == methods
    keys = {method: set(re.findall(r"settings\.(\w+)", row)) for method, row in named.items()}
    assert keys["vicreg"] == {"width"}
    for method in methods:
        assert keys[method] <= set(find(method).Config.model_fields), method
    files = set(re.findall(r"(?:examples|recipes)/[\w-]+\.\w+", GUIDE))
    assert "examples/vicreg.toml" in files
    assert [file for file in files if not (ROOT / file).exists()] == []
