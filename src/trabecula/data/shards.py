"""Shards: consecutive images decoded into one array file, in one process or in several.

A shard's bytes depend on its images and the settings alone, never on the number of workers. A shard
is there when its record is: the array is put in place first, the record last.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np

from trabecula.artifacts.store import shard_file
from trabecula.data.copies import fingerprint
from trabecula.errors import RunError
from trabecula.files import read_json, write_atomically
from trabecula.readers import Readers, read
from trabecula.readers.reader import Rejected, Source
from trabecula.readers.rendering import VERSION, Rendering, render
from trabecula.stopping import SIGNALS, held_back, stop_later

_POLL_S = 0.2  # how soon a signal is noticed while shards are decoded


@dataclass(frozen=True)
class ShardRow:
    """One image to be decoded: its row in the manifest, where its pixels are, whether it is mirrored."""

    row: int
    source: Source
    mirror: bool


@dataclass(frozen=True)
class Shard:
    """Images to be decoded into one file."""

    number: int
    images: tuple[ShardRow, ...]

    @property
    def file(self) -> str:
        return shard_file(self.number)


def record_path(folder: Path, shard: Shard) -> Path:
    return folder / f".shard-{shard.number:05d}.json.partial"


def done_record(folder: Path, shard: Shard) -> dict[str, Any] | None:
    """What an earlier run recorded of a finished shard; none if another version of the readers made it."""
    path = record_path(folder, shard)
    if not (path.exists() and (folder / shard.file).exists()):
        return None
    record = read_json(path, "`trabecula prepare`")
    return record if record.get("raster") == VERSION else None


def decode_shards(
    shards: Sequence[Shard], rendering: Rendering, readers: Readers, folder: Path, workers: int
) -> Iterator[dict[str, Any]]:
    """Decode shards into the folder, giving each one's record as it is done, in any order.

    A record is {"number", "file", "num_images", "sha256", "raster", "rows": [manifest rows kept],
    "prints": [their fingerprints], "rejected": [[manifest row, reason]]}.

    The first Ctrl-C or SIGTERM lets the shards that are being decoded come to their end.

    Raises:
        OSError: the disk is full.
        RunError: a worker process was killed.
        KeyboardInterrupt: by a signal, after the records of what is done.
    """
    with stop_later() as asked:
        if workers <= 1 or len(shards) <= 1:
            for shard in shards:
                yield decode_shard(shard, rendering, readers, folder)
                if asked():
                    raise KeyboardInterrupt
        else:
            yield from _decode_in_processes(shards, rendering, readers, folder, workers, asked)


def _decode_in_processes(
    shards: Sequence[Shard], rendering: Rendering, readers: Readers, folder: Path, workers: int,
    asked: Callable[[], bool],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    pool = ProcessPoolExecutor(min(workers, len(shards)), get_context("spawn"), _start_worker)
    try:
        with held_back():  # a worker hears no signal from its first moment on
            todo = {pool.submit(decode_shard, shard, rendering, readers, folder) for shard in shards}
        while todo:
            done, todo = wait(todo, _POLL_S, FIRST_COMPLETED)
            for future in done:
                yield future.result()
            if asked():
                todo = {future for future in todo if not future.cancel()}
                yield from (future.result() for future in as_completed(todo))
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        for process in active_children():  # of a second signal: what they decode is decoded again
            process.kill()
        raise
    except BrokenProcessPool:
        raise RunError(
            "a worker process was killed, most likely for lack of memory; run the same command again "
            "with fewer --workers, what is done is kept"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """A worker leaves Ctrl-C to its parent, and dies with it, so that none is left behind."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if (parent := parent_process()) is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def decode_shard(shard: Shard, rendering: Rendering, readers: Readers, folder: Path) -> dict[str, Any]:
    """Decode one shard and put its array and its record in place."""
    shape = (len(shard.images), rendering.channels, rendering.size, rendering.size)
    images = np.empty(shape, dtype=np.uint8 if rendering.bits == 8 else np.uint16)
    rows: list[int] = []
    prints: list[str] = []
    rejected: list[tuple[int, str]] = []
    for image in shard.images:
        try:
            pixels = read(image.source, readers)
            images[len(rows)] = render(pixels, rendering, image.mirror)
            rows.append(image.row)
            prints.append(fingerprint(pixels))
        except Rejected as reason:
            rejected.append((image.row, str(reason)))
    kept = images[: len(rows)]
    record = {
        "number": shard.number, "file": shard.file, "num_images": len(rows),
        "sha256": hashlib.sha256(kept.data).hexdigest(), "raster": VERSION,
        "rows": rows, "prints": prints, "rejected": rejected,
    }  # fmt: skip
    write_atomically(folder / shard.file, kept)
    write_atomically(record_path(folder, shard), json.dumps(record))
    return record
