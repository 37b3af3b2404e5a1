"""The store: a cohort's images decoded once, memory-mapped ever after.

    store.json          intensity, size, channels, bits, preprocessing hash, manifest hash, counts
    images-00000.npy    uint8 or uint16 (N, C, H, W), and so on, in the order of index.csv
    index.csv           image_id, patient_id, side, cohort ..., flipped ("1": mirrored)
    rejected.csv        path, reason

`preprocessing` is the digest of all that decides pixels and of nothing else: two cohorts prepared
alike share it, and a network trained on one reads the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trabecula.config import digest
from trabecula.errors import InputError
from trabecula.spreadsheet import read_table

if TYPE_CHECKING:
    import torch

FORMAT = 1
_DECIDING = ("size", "channels", "bits", "fit", "intensity", "spacing", "flip_side", "raster")
_SIDE = "flip_side"  # decides pixels only where images name their side


class Store:
    """An opened store; it can be pickled, and opens its memory maps when it first reads."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self.record = record
        self._starts = np.concatenate([[0], np.cumsum([shard["num_images"] for shard in record["shards"]])])
        self._maps: dict[int, npt.NDArray[Any]] = {}

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open a store; `path` is its folder or its store.json.

        Raises:
            InputError: no store, an unfinished one, or one of another format.
        """
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        file = folder / "store.json"
        if not file.exists():
            raise InputError(f"{path}: no store (store.json); write one with `trabecula prepare`")
        try:
            record = json.loads(file.read_text())
        except ValueError as error:
            raise InputError(f"{file}: damaged ({error}); prepare the store again") from None
        if record.get("format") != FORMAT:
            raise InputError(
                f"{file}: store format {record.get('format')}, this version reads {FORMAT}; prepare it again"
            )
        for shard in record["shards"]:
            if not (folder / shard["file"]).exists():
                raise InputError(f"{folder / shard['file']}: is missing; prepare the store again")
        return cls(folder, record)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    @property
    def size(self) -> int:
        """Height and width, in pixels."""
        return int(self.record["size"])

    @property
    def channels(self) -> int:
        return int(self.record["channels"])

    @property
    def bits(self) -> int:
        """8 or 16 per channel."""
        return int(self.record["bits"])

    @property
    def preprocessing(self) -> str:
        """Digest of all that decides pixels."""
        return str(self.record["preprocessing"])

    @property
    def prepared(self) -> dict[str, Any]:
        """The settings that decided pixels, where the record tells them; samples have their originals'."""
        told = self.record.get("prepared") or self.record
        return {
            key: told[key] for key in _DECIDING if key in told and (key != _SIDE or told[key] is not None)
        }

    @property
    def parts(self) -> tuple[Store, ...]:
        """The stores that this one is made of: itself alone."""
        return (self,)

    @cached_property
    def id(self) -> str:
        """Digest of the store's record, which holds the digests of its images and index."""
        return digest(self.record)

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row per image in the order of the store, every column text.

        Raises:
            InputError: the table is not there, or is not that of these images.
        """
        table = read_table(self.path / "index.csv")
        if len(table) != len(self):
            raise InputError(
                f"{self.path / 'index.csv'}: has {len(table)} rows for {len(self)} images; "
                "prepare the store again"
            )
        return table

    def read(self, rows: npt.NDArray[np.integer[Any]] | Sequence[int] | slice) -> torch.Tensor:
        """Copy images out of the memory map: uint8 or uint16 (B, C, H, W), in the order asked for.

        Raises:
            IndexError: a row outside the store.
            InputError: a damaged file.
        """
        import torch  # here, so that a store can be looked at without loading torch

        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        wanted = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows {wanted.min()}..{wanted.max()} of a store of {len(self)} images")
        images = np.empty(
            (len(wanted), self.channels, self.size, self.size),
            dtype=np.uint8 if self.bits == 8 else np.uint16,
        )
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            images[here] = self._map(int(shard))[wanted[here] - self._starts[shard]]
        return torch.from_numpy(images)

    def _map(self, shard: int) -> npt.NDArray[Any]:
        if shard not in self._maps:
            file = self.path / self.record["shards"][shard]["file"]
            try:
                self._maps[shard] = np.load(file, mmap_mode="r", allow_pickle=False)
            except ValueError:
                raise InputError(f"{file}: is cut short or damaged; prepare the store again") from None
        return self._maps[shard]


def check_prepared(store: Store, path: Path, whose: str, wanted: str, settings: Mapping[str, Any]) -> None:
    """Refuse a store whose pixels were made in another way.

    Args:
        whose: what is to read it, such as "encoder 'critic-random'".
        wanted: the preprocessing hash of that one's own images; "" takes any.
        settings: how these were prepared, to name what differs; those not told are passed over.

    Raises:
        InputError: another hash, with the settings that differ.
    """
    if not wanted or store.preprocessing == wanted:
        return
    hashes = f"preprocessing is {store.preprocessing[:12] or 'not known'}, wanted {wanted[:12]}"
    raise InputError(
        f"{path}: prepared otherwise than the images of {whose}: "
        f"{'; '.join(differing(store.prepared, settings)) or hashes}; "
        "prepare these images with the settings of that store"
    )


def alike(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two preparations, as `Store.prepared` tells them, make pixels alike.

    That is where everything that decides pixels is told by both and the same. The side that is mirrored need
    be told by one alone: a store whose images name no sides tells none, as nothing in it is mirrored.
    """
    needed = set(_DECIDING) - {_SIDE}
    return needed <= given.keys() and needed <= wanted.keys() and not differing(given, wanted)


def differing(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What sets two preparations apart, such as 'size is 64, wanted 32', of the settings that both tell."""
    told = []
    for key in (key for key in wanted if key in given):
        mine, theirs = given[key], wanted[key]
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            told += [f"{key}.{line}" for line in differing(mine, theirs)]
        elif mine != theirs:
            told.append(f"{key} is {json.dumps(mine)}, wanted {json.dumps(theirs)}")
    return told


def rows_of(store: Store, image_ids: Sequence[str] | npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Where images stand in the store, (n,).

    Raises:
        InputError: images that are not in it (rejected, or of another cohort), by name.
    """
    ids = [str(image) for image in image_ids]
    rows = pd.Index(store.index["image_id"]).get_indexer(pd.Index(ids, dtype="str"))
    absent = [image for image, row in zip(ids, rows, strict=True) if row < 0]
    if absent:
        raise InputError(
            f"{store.path}: {len(absent)} of {len(ids)} images are not in the store "
            f"({', '.join(absent[:3])}{' ...' if len(absent) > 3 else ''}); see its rejected.csv"
        )
    return np.asarray(rows, dtype=np.int64)


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 or uint16 -> float32 in [0, 1], same shape; a float image is returned as it is."""
    import torch

    if images.is_floating_point():
        return images
    return images.to(torch.float32) / (255.0 if images.dtype == torch.uint8 else 65535.0)
