"""Shards: runs of consecutive images decoded into one array file, in one process or in several.

A shard's bytes depend on its images and the recipe alone, never on the number of workers. A shard
is there when its record is: the array is put in place first, the record last.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np

from trabecula.errors import RunError
from trabecula.files import save_array
from trabecula.readers.raster import Fit, Intensity, Rejected, decode, render


@dataclass(frozen=True)
class Recipe:
    """All that decides the pixels of a shard, but for its images."""

    size: int
    channels: int
    bits: int
    fit: Fit
    intensity: Intensity
    max_pixels: int


@dataclass(frozen=True)
class Shard:
    """Images to be decoded into one file: (row in the manifest, path, whether to mirror it)."""

    number: int
    images: tuple[tuple[int, Path, bool], ...]

    @property
    def file(self) -> str:
        return f"images-{self.number:05d}.npy"


def record_path(folder: Path, shard: Shard) -> Path:
    return folder / f".shard-{shard.number:05d}.json.partial"


def done_record(folder: Path, shard: Shard) -> dict[str, Any] | None:
    """What an earlier run said of a finished shard."""
    path = record_path(folder, shard)
    if not path.exists() or not (folder / shard.file).exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def decode_shards(
    shards: Sequence[Shard], recipe: Recipe, folder: Path, workers: int
) -> Iterator[dict[str, Any]]:
    """Decode shards into the folder, giving each one's record as it is done, in any order.

    A record is {"number", "file", "num_images", "sha256", "rows": [manifest rows kept],
    "rejected": [[manifest row, reason]]}.

    Raises:
        OSError: the disk is full.
        RunError: a worker process was killed.
    """
    if workers <= 1 or len(shards) <= 1:
        for shard in shards:
            yield decode_shard(shard, recipe, folder)
        return
    pool = ProcessPoolExecutor(min(workers, len(shards)), get_context("spawn"), _start_worker)
    try:
        futures = [pool.submit(decode_shard, shard, recipe, folder) for shard in shards]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise RunError(
            "a worker process was killed, most likely for lack of memory; run the same command again "
            "with fewer --workers, what is done is kept"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """A worker dies at once on Ctrl-C, and with its parent, so that none is left behind."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def decode_shard(shard: Shard, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Decode one shard and put its array and its record in place."""
    shape = (len(shard.images), recipe.channels, recipe.size, recipe.size)
    images = np.empty(shape, dtype=np.uint8 if recipe.bits == 8 else np.uint16)
    rows: list[int] = []
    rejected: list[tuple[int, str]] = []
    for row, path, mirror in shard.images:
        try:
            images[len(rows)] = render(
                decode(path, recipe.max_pixels),
                recipe.size, recipe.channels, recipe.bits, recipe.fit, recipe.intensity, mirror,
            )  # fmt: skip
            rows.append(row)
        except Rejected as reason:
            rejected.append((row, str(reason)))
    record = {
        "number": shard.number,
        "file": shard.file,
        "num_images": len(rows),
        "sha256": hashlib.sha256(images[: len(rows)].data).hexdigest(),
        "rows": rows,
        "rejected": rejected,
    }
    _put(folder / shard.file, images[: len(rows)])
    _put(record_path(folder, shard), json.dumps(record).encode())
    return record


def _put(path: Path, content: np.ndarray[Any, Any] | bytes) -> None:
    partial = path.with_name(f".{path.name}.writing.partial")
    try:
        with partial.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                save_array(file, content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
