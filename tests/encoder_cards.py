"""Cards of encoders that were never trained, for tests that read cards and no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trabecula.artifacts.encoder import EncoderCard, write_encoder_card


def encoder_card(name: str = "arm", **values: Any) -> EncoderCard:
    """A whole card; what is not given is that of a small critic."""
    network = {
        "architecture": "critic", "channels": 1, "size": 32, "mean": (0.5,), "std": (0.5,), "pool": "flatten",
        "num_features": 512,
    }  # fmt: skip
    return EncoderCard(name=name, **{**network, **values})


def write_card(folder: Path, name: str = "arm", **values: Any) -> Path:
    """Write it as encoder.json into a folder; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_encoder_card(folder, encoder_card(name, **values))
    return folder
