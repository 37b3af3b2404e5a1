"""The store: a cohort's images decoded once, memory-mapped ever after.

    store.json          intensity, size, channels, bits, preprocessing hash, manifest hash, counts
    images-00000.npy    uint8 or uint16 (N, C, H, W), and so on, in the order of index.csv
    index.csv           image_id, patient_id, side, cohort ..., flipped ("1": mirrored)
    fingerprints.csv    image_id, pixels: digest of the image before it was scaled, by which copies are found;
                        not in samples, nor in older stores
    rejected.csv        path, reason

`preprocessing` is the digest of all that decides pixels and of nothing else: two cohorts prepared
alike share it, and a network trained on one reads the other.

Several stores can be read as one, the pool of a pretraining on two domains: the rows of the first store come
first, then those of the next. What decides pixels must be alike (`alike`): size, channels, bits, fit and
intensity, and the side that was mirrored where both name sides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trabecula.artifacts.generated import GeneratedBy
from trabecula.config import Record, build, digest
from trabecula.errors import InputError
from trabecula.files import read_json, write_atomically, write_json
from trabecula.spreadsheet import csv_text, read_table, table_text

if TYPE_CHECKING:
    import torch

FORMAT = 1
RECORD_FILE, INDEX_FILE, REJECTED_FILE = "store.json", "index.csv", "rejected.csv"
FINGERPRINTS_FILE = "fingerprints.csv"
_SIDE = "flip_side"  # decides pixels only where images name their side
_READERS = "raster"  # the version of the pixels that they give
_DECIDING = ("size", "channels", "bits", "fit", "intensity", "spacing", _SIDE, _READERS)


def shard_file(number: int) -> str:
    """The name of an array file of a store."""
    return f"images-{number:05d}.npy"


class StoredShard(Record):
    """One array file of a store."""

    file: str
    num_images: int
    sha256: str = ""  # of the array's values


class StoreRecord(Record):
    """store.json: how the images were made, and what is there."""

    format: int
    size: int  # height and width, in pixels
    channels: int  # 1 or 3
    bits: int  # 8 or 16 per channel
    preprocessing: str  # digest of all that decides pixels; "" where it is not known
    fit: str = ""  # how an oblong image fills the square
    intensity: dict[str, Any] = {}  # the rule for images deeper than 8 bit
    spacing: float | None = None  # millimetres a pixel, where the images were brought to one spacing
    flip_side: str | None = None  # the side that is mirrored; not set where no image has a side
    raster: int = 0  # version of the pixels
    prepared: dict[str, Any] | None = None  # of samples: how the images the generator learned from were made
    manifest: str = ""  # sha256 of the manifest
    index: str = ""  # sha256 of the index
    num_images: int = 0
    num_rejected: int = 0  # images of the manifest that could not be used
    shards: tuple[StoredShard, ...]  # the array files, in the order of the index
    generated: GeneratedBy | None = None  # of samples: what made them

    @property
    def plain(self) -> dict[str, Any]:
        """The values that were written."""
        return self.model_dump(mode="json", exclude_unset=True)


def write_store(folder: Path, index: pd.DataFrame, **values: Any) -> StoreRecord:
    """Write index.csv and, last, store.json, of shards that are in the folder already.

    `index`: a row an image, in the order of the shards. `values`: fields of `StoreRecord`; the format, the
    index and the number of images are filled in.
    """
    text = table_text(index)
    write_atomically(folder / INDEX_FILE, text)
    own = {"format": FORMAT, "index": hashlib.sha256(text.encode()).hexdigest(), "num_images": len(index)}
    record = StoreRecord.model_validate({**values, **own})
    write_json(folder / RECORD_FILE, record.plain)
    return record


def write_rejected(folder: Path, rejected: Sequence[tuple[str, str]]) -> None:
    """Write rejected.csv: path in the manifest, and reason."""
    write_atomically(folder / REJECTED_FILE, csv_text(("path", "reason"), rejected))


def read_rejected(folder: Path) -> list[tuple[str, str]]:
    """Path and reason of every image that a store rejected; none where no list is there."""
    path = folder / REJECTED_FILE
    if not path.exists():
        return []
    table = read_table(path)
    if not {"path", "reason"} <= set(table.columns):
        raise InputError(f"{path}: needs the columns path, reason; run `trabecula prepare` again")
    return list(zip(table["path"], table["reason"], strict=True))


def read_store_record(path: str | Path) -> StoreRecord:
    """The record of a store; `path` is its folder or one of its files. An unfinished store has none."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    file = folder / RECORD_FILE
    if not file.exists():
        raise InputError(f"{path}: no store ({RECORD_FILE}); write one with `trabecula prepare`")
    values = read_json(file, "`trabecula prepare`")
    if values.get("format") != FORMAT:
        raise InputError(
            f"{file}: store format {values.get('format')}, this version reads {FORMAT}; prepare it again"
        )
    return build(StoreRecord, values, str(file))


def write_fingerprints(folder: Path, image_ids: Sequence[str], prints: Sequence[str]) -> None:
    """Write fingerprints.csv, a row an image."""
    rows = zip(image_ids, prints, strict=True)
    write_atomically(folder / FINGERPRINTS_FILE, csv_text(("image_id", "pixels"), rows))


def read_fingerprints(path: Path) -> dict[str, str]:
    """Fingerprint of each image of a store, by image_id; empty where none were written."""
    file = (path if path.is_dir() else path.parent) / FINGERPRINTS_FILE
    if not file.exists():
        return {}
    table = read_table(file)
    if not {"image_id", "pixels"} <= set(table.columns):
        raise InputError(f"{file}: needs the columns image_id, pixels; run `trabecula prepare` again")
    return dict(zip(table["image_id"], table["pixels"], strict=True))


def is_store(path: Path) -> bool:
    """Whether a path is a store: its folder, store.json or index.csv."""
    if not path.is_dir() and path.name not in (RECORD_FILE, INDEX_FILE):
        return False
    return ((path if path.is_dir() else path.parent) / RECORD_FILE).exists()


class Store:
    """An opened store; it can be pickled, and opens its memory maps when it first reads.

    `size`: height and width of its images, in pixels; `channels`: 1 or 3; `bits`: 8 or 16 per channel;
    `preprocessing`: digest of all that decides pixels. Where it is of several, one behind the other, `parts`
    are these, in the order of their rows; else it is made of itself alone.
    """

    def __init__(
        self, path: str | Path, record: StoreRecord | None = None, joined: Sequence[Store] = ()
    ) -> None:
        """Open a store; `path` is its folder or its store.json. `record` and `joined`: of one made of others.

        Raises:
            InputError: no store, an unfinished one, or one of another format.
        """
        path = Path(path)
        if record is None:
            record, path = read_store_record(path), path if path.is_dir() else path.parent
            for shard in record.shards:
                if not (path / shard.file).exists():
                    raise InputError(f"{path / shard.file}: is missing; prepare the store again")
        self.path, self.record, self._joined = path, record, tuple(joined)
        self.size, self.channels, self.bits = record.size, record.channels, record.bits
        self.preprocessing = record.preprocessing
        self._starts = np.concatenate([[0], np.cumsum([shard.num_images for shard in record.shards])])
        self._maps: dict[int, npt.NDArray[Any]] = {}

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a store; the same as `Store(path)`."""
        return cls(path)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    @property
    def prepared(self) -> dict[str, Any]:
        """The settings that decided pixels, as far as known; of samples those of the real images."""
        known = self.record.prepared or self.record.plain
        found = {key: known[key] for key in _DECIDING if key in known}
        return {key: value for key, value in found.items() if key != _SIDE or value is not None}

    @property
    def parts(self) -> tuple[Store, ...]:
        return self._joined or (self,)

    @cached_property
    def id(self) -> str:
        """Digest of the record, which holds the digests of images and index; of several, of their ids."""
        return digest([part.id for part in self._joined] or self.record.plain)

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row per image in the order of the store, every column text, "" where a part has no such column.

        Of several stores image ids may come twice; patients of one id are taken for one person.
        """
        if self._joined:
            return pd.concat([part.index for part in self._joined], ignore_index=True).fillna("")
        file = self.path / INDEX_FILE
        table = read_table(file)
        if len(table) != len(self):
            raise InputError(f"{file}: has {len(table)} rows for {len(self)} images; prepare the store again")
        return table

    def read(self, rows: npt.ArrayLike | slice) -> torch.Tensor:
        """Copy images out of the memory map: uint8 or uint16 (B, C, H, W), in the order asked for.

        rows: numbers from 0, of an array, a tensor or a list; a slice; or a mask (N,).

        Raises:
            IndexError: a row outside the store.
            InputError: a damaged file.
        """
        import torch  # here, so that a store can be described without loading torch

        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        chosen = np.asarray(rows)
        if chosen.dtype == np.bool_:  # a mask; read as numbers it would be rows 0 and 1
            if chosen.shape != (len(self),):
                raise IndexError(f"a mask of shape {chosen.shape} for a store of {len(self)} images")
            chosen = np.flatnonzero(chosen)
        wanted = chosen.astype(np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows {wanted.min()}..{wanted.max()} of a store of {len(self)} images")
        shape = (len(wanted), self.channels, self.size, self.size)
        images = np.empty(shape, dtype=np.uint8 if self.bits == 8 else np.uint16)
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            images[here] = self._map(int(shard))[wanted[here] - self._starts[shard]]
        return torch.from_numpy(images)

    def _map(self, shard: int) -> npt.NDArray[Any]:
        if shard not in self._maps:
            file = self.path / self.record.shards[shard].file
            try:
                self._maps[shard] = np.load(file, mmap_mode="r", allow_pickle=False)
            except ValueError:
                raise InputError(f"{file}: is cut short or damaged; prepare the store again") from None
        return self._maps[shard]


def check_prepared(store: Store, path: Path, whose: str, wanted: str, settings: Mapping[str, Any]) -> None:
    """Refuse a store whose pixels were made in another way, naming the settings that differ.

    Args:
        whose: what is to read it, such as "encoder 'critic-random'".
        wanted: the preprocessing hash of that one's own images; "" takes any.
        settings: how these were prepared; settings that are not known are skipped.
    """
    if not wanted or store.preprocessing == wanted:
        return
    hashes = f"preprocessing is {store.preprocessing[:12] or 'not known'}, wanted {wanted[:12]}"
    remedy = "prepare these images with the settings of that store"
    versions = {one[_READERS] for one in (settings, store.prepared) if _READERS in one}
    if len(versions) > 1:
        remedy = (
            "raster is the version of the readers, of which another one may give other pixels: prepare all "
            "images and pretrain with one version of Trabecula"
        )
    raise InputError(
        f"{path}: prepared in another way than the images of {whose}: "
        f"{'; '.join(differing(store.prepared, settings)) or hashes}; {remedy}"
    )


def alike(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two preparations, as in `Store.prepared`, make pixels alike.

    Both must record everything that decides pixels, with the same values. The mirrored side may be recorded
    by one alone: in a store whose images have no side nothing is mirrored.
    """
    needed = set(_DECIDING) - {_SIDE}
    return needed <= given.keys() and needed <= wanted.keys() and not differing(given, wanted)


def differing(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """How two preparations differ, such as 'size is 64, wanted 32', in the settings that both record."""
    found = []
    for key in (key for key in wanted if key in given):
        mine, theirs = given[key], wanted[key]
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found += [f"{key}.{line}" for line in differing(mine, theirs)]
        elif mine != theirs:
            found.append(f"{key} is {json.dumps(mine)}, wanted {json.dumps(theirs)}")
    return found


def _joined(parts: Sequence[Store]) -> Store:
    leading = next((part for part in parts if _SIDE in part.prepared), parts[0])
    shards = [
        shard.model_copy(update={"file": str((part.path / shard.file).absolute())})
        for part in parts
        for shard in part.record.shards
    ]
    return Store(parts[0].path, leading.record.model_copy(update={"shards": tuple(shards)}), parts)


def open_stores(first: str | Path, more: Sequence[str | Path] = ()) -> Store:
    """Open a store, or several as one; these must have been prepared alike and be given once."""
    store = Store.open(first)
    if not more:
        return store
    parts = [store, *(Store.open(path) for path in more)]
    paths = [Path(path) for path in (first, *more)]
    for number, (part, path) in enumerate(zip(parts, paths, strict=True)):
        if part.id in [other.id for other in parts[:number]]:
            raise InputError(f"{path}: is given twice; its images would be drawn more often than the others")
        if not part.preprocessing:  # an unknown preparation must not decide for the others
            raise InputError(
                f"{path}: how its images were prepared is not known, as with samples of an exported "
                "generator; it cannot be part of a pool of several stores"
            )
        for other, its_path in zip(parts[:number], paths, strict=False):
            if not alike(part.prepared, other.prepared):
                check_prepared(part, path, f"{its_path}", other.preprocessing, other.prepared)
    return _joined(parts)


def rows_of(store: Store, image_ids: Sequence[str] | npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """The rows of images in the store, (n,); an image that is not in it is refused."""
    ids = [str(image) for image in image_ids]
    rows = pd.Index(store.index["image_id"]).get_indexer(pd.Index(ids, dtype="str"))
    absent = [image for image, row in zip(ids, rows, strict=True) if row < 0]
    if absent:
        raise InputError(
            f"{store.path}: {len(absent)} of {len(ids)} images are not in the store "
            f"({', '.join(absent[:3])}{' ...' if len(absent) > 3 else ''}); see its {REJECTED_FILE}"
        )
    return np.asarray(rows, dtype=np.int64)


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 or uint16 -> float32 in [0, 1], same shape; a float image is returned as it is."""
    import torch

    if images.is_floating_point():
        return images
    return images.to(torch.float32) / (255.0 if images.dtype == torch.uint8 else 65535.0)
