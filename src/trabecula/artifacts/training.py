"""What `pretrain` measured while it trained: training.json, the curve and the findings.

training.json    start, points, findings; loss and measurements of each point, images seen
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trabecula.files import read_json, write_json

FILE, _MADE_BY = "training.json", "`trabecula pretrain`"


def write_training(
    folder: Path,
    start: Mapping[str, float],
    points: Sequence[Mapping[str, float]],
    findings: Sequence[Mapping[str, Any]],
) -> None:
    """Write training.json: `start`, before training; `points`, each with its "images"; `findings`, each with
    name, text, and the images at which it was found first and last.
    """
    write_json(folder / FILE, {"start": start, "points": points, "findings": findings})


def read_training(path: Path) -> dict[str, Any]:
    """Start, points and findings of an encoder's folder, or of a file in it; {} where none is."""
    file = (path if path.is_dir() else path.parent) / FILE
    return read_json(file, _MADE_BY) if file.is_file() else {}
