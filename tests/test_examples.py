"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trabecula import pretrain
from trabecula.run import execute

EXAMPLES = Path(__file__).parent.parent / "examples"


def shown(name: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_examples_are_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "auroc_with_interval.py", "encoder_features.py", "views.py",
    }  # fmt: skip


def test_auroc_with_interval() -> None:
    words = shown("auroc_with_interval.py").replace("(", "").replace(")", "").replace(",", "").split()
    value, low, high = float(words[1]), float(words[5]), float(words[7])
    assert 0.5 < low < value < high < 1


def test_views(tmp_path: Path) -> None:
    shown("views.py", tmp_path / "views.png")
    picture = np.asarray(Image.open(tmp_path / "views.png"))
    assert picture.shape == (256, 768)
    tiles = {picture[y : y + 128, x : x + 128].tobytes() for y in (0, 128) for x in range(0, 768, 128)}
    assert len(tiles) == 12


@pytest.mark.parametrize(("architecture", "width"), [("critic", 512), ("timm:resnet10t", 512)])
def test_encoder_features(architecture: str, width: int, hospital: Path, tmp_path: Path) -> None:
    execute("pretrain", pretrain.Config(store=hospital / "store", architecture=architecture), tmp_path / "e")
    assert f"(4, {width}) features" in shown("encoder_features.py", tmp_path / "e")
