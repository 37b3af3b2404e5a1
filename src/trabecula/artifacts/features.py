"""Features on disk: one vector an image, written by `embed` and read by all that follow.

features.npy     (N, D) float32, in the order of the store
features.json    the encoder, how it was applied, and to what
index.csv        image_id, patient_id
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trabecula.errors import InputError
from trabecula.spreadsheet import read_table


@dataclass(frozen=True)
class Features:
    """Features (N, D), the images they are of, and the record of the encoder."""

    values: NDArray[np.float32]
    image_ids: list[str]
    patient_ids: list[str]
    record: dict[str, Any]

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each image."""
        return {image: row for row, image in enumerate(self.image_ids)}


def read_features(path: Path) -> Features:
    """Read a folder that `embed` wrote, or one of its files.

    Raises:
        InputError: a file is missing, the files disagree, or a feature is no number.
    """
    folder = path if path.is_dir() else path.parent
    for name in ("features.npy", "features.json", "index.csv"):
        if not (folder / name).exists():
            raise InputError(f"{folder}: no {name}; name a folder that `trabecula embed` wrote")
    values = np.load(folder / "features.npy", allow_pickle=False)
    record = json.loads((folder / "features.json").read_text())
    index = read_table(folder / "index.csv")
    images = index["image_id"].tolist()
    if values.ndim != 2 or len(values) != len(images):
        raise InputError(
            f"{folder}: features.npy has shape {values.shape}, index.csv names {len(images)} images; "
            "run `trabecula embed` again"
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise InputError(f"{folder}: the features of image '{images[int(bad.argmax())]}' are no numbers")
    return Features(values, images, index["patient_id"].tolist(), record)


_COMPARABLE = ("extractor", "arm", "weights", "pool", "resize", "region", "dtype", "num_features")


def check_comparable(first: Features, second: Features) -> None:
    """Refuse to measure a distance between features of two extractors, or of one applied in two ways.

    Raises:
        InputError: what differs, with both values.
    """
    pairs = [(key, first.record.get(key), second.record.get(key)) for key in _COMPARABLE]
    differing = [f"{key} {_short(one)} and {_short(other)}" for key, one, other in pairs if one != other]
    if differing:
        raise InputError(
            f"features of two extractors do not compare: {'; '.join(differing)}; make both with the same one"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
