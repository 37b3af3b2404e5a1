"""Features on disk: one vector an image, written by `embed` and `fidelity`, read by all that follow.

features.npy     (N, D) float32, in the order of the store
features.json    what made them, how it was applied, and to what
index.csv        image_id, patient_id, in the same order
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trabecula.artifacts.store import INDEX_FILE
from trabecula.config import Record, dump, read_record
from trabecula.errors import InputError
from trabecula.files import open_new_array, write_atomically, write_json
from trabecula.spreadsheet import read_table

ARRAY_FILE, CARD_FILE = "features.npy", "features.json"


class FeaturesCard(Record):
    """What made the features, how it was applied, and to what; fields without a text: see `EncoderCard`."""

    format: int = 1
    extractor: str = ""  # the extractor of `fidelity`; "" for an encoder's features, which name an arm
    arm: str = ""
    pretrain_seed: int = 0
    architecture: str = ""
    family: str = ""
    objective: str = ""
    init: str = ""
    images_seen: int = 0
    pool: str = ""
    stem: str = ""
    channels: int = 0
    size: int = 0
    normalisation: dict[str, tuple[float, ...]] = {}  # mean and SD, per channel that enters the network
    weights: str  # sha256 of the weights
    resize: str  # what was done to the images' size
    region: str = "all"  # what was shown of each image: all, or such as "corners 0.25"
    dtype: str  # of the computation
    num: int  # images
    num_features: int = 0
    store: str = ""  # id of the images' store
    preprocessing: str = ""
    prepared: dict[str, Any] = {}
    manifest: str = ""  # sha256 of the manifest that the store was made of


@dataclass(frozen=True)
class Features:
    """Features (N, D), the images they are of, and what made them."""

    values: NDArray[np.float32]
    image_ids: list[str]
    patient_ids: list[str]
    card: FeaturesCard

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each image."""
        return {image: row for row, image in enumerate(self.image_ids)}


@contextmanager
def writing_features(folder: Path, card: FeaturesCard, index: pd.DataFrame) -> Iterator[np.memmap[Any, Any]]:
    """An empty array (num, num_features) to be filled; the files are in place once the block has ended.

    `index`: image_id and patient_id of each row; other columns are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{ARRAY_FILE}.partial"
    values = open_new_array(partial, (card.num, card.num_features), np.float32)
    yield values
    values.flush()
    os.replace(partial, folder / ARRAY_FILE)
    text = index[["image_id", "patient_id"]].to_csv(index=False, lineterminator="\n")
    write_atomically(folder / INDEX_FILE, text)
    write_json(folder / CARD_FILE, dump(card))


def read_features(path: Path) -> Features:
    """Read a folder that `embed` wrote, or one of its files; refused where a feature is not finite."""
    folder = path if path.is_dir() else path.parent
    for name in (ARRAY_FILE, CARD_FILE, INDEX_FILE):
        if not (folder / name).exists():
            raise InputError(f"{folder}: no {name}; name a folder that `trabecula embed` wrote")
    values = np.load(folder / ARRAY_FILE, allow_pickle=False)
    card = read_record(FeaturesCard, folder / CARD_FILE, "`trabecula embed`")
    index = read_table(folder / INDEX_FILE)
    images = index["image_id"].tolist()
    if values.ndim != 2 or len(values) != len(images):
        raise InputError(
            f"{folder}: {ARRAY_FILE} has shape {values.shape}, {INDEX_FILE} names {len(images)} images; "
            "run `trabecula embed` again"
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise InputError(f"{folder}: the features of image '{images[int(bad.argmax())]}' are not finite")
    return Features(values, images, index["patient_id"].tolist(), card)


_COMPARABLE = ("extractor", "arm", "weights", "pool", "resize", "region", "dtype", "num_features")


def check_comparable(first: Features, second: Features) -> None:
    """Refuse to measure a distance between features of two extractors, or of one applied in two ways."""
    pairs = [(key, getattr(first.card, key), getattr(second.card, key)) for key in _COMPARABLE]
    differing = [f"{key} {_short(one)} and {_short(other)}" for key, one, other in pairs if one != other]
    if differing:
        raise InputError(
            f"features of two extractors do not compare: {'; '.join(differing)}; make both with the same one"
        )


def _short(value: Any) -> str:
    """Of a sha256 its first digits, of other values all."""
    text = str(value)
    return text[:12] if len(text) == 64 else text
