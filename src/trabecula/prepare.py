"""`trabecula prepare`: manifest -> store; every image decoded, scaled and resampled once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from trabecula.artifacts.manifest import Manifest, read_manifest
from trabecula.artifacts.store import REJECTED_FILE, write_fingerprints, write_rejected, write_store
from trabecula.config import NoEffectOnResult, Record, digest
from trabecula.data.shards import Shard, ShardRow, decode_shards, done_record, record_path
from trabecula.errors import InputError
from trabecula.files import sha256_of
from trabecula.progress import Meter
from trabecula.readers import Readers
from trabecula.readers.rendering import PERCENTILES, VERSION, Rendering
from trabecula.run import Run
from trabecula.stopping import Stopped

_SHARD_BYTES = 1 << 28  # 256 MiB: what a worker holds in memory
_GONE = "no such file"  # the decoder's reason
_CARRIED = ("side", "cohort", "view", "visit_month", "page", "box")
_LARGE_FOLDER = 20  # one in so many files: a class folder, not the folder of one patient


class Config(Record):
    """How images become a store."""

    manifest: Path
    """The manifest, or the folder it is in."""
    size: int = Field(224, ge=1)
    """Height and width in the store, in pixels."""
    channels: Literal[1, 3] = 1
    """1: grey; 3: colour (a grey image is repeated)."""
    bits: Literal[8, 16] = 8
    """Bits per channel in the store."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """How an oblong image fills the square: its centre, whole on black, or stretched."""
    intensity: Literal["percentile", "as-is"] = "percentile"
    """Images deeper than 8 bit: clipped at the 0.5th and 99.5th percentile, or taken as 0..65535."""
    flip_side: Literal["", "L", "R"] = "R"
    """Images of this side are mirrored, so that all show one side; empty: none."""
    shard_images: int = Field(1024, ge=1)
    """Images per file of the store, at most; also what a killed run loses. Ctrl-C waits for a file's end."""
    workers: Annotated[int, NoEffectOnResult()] = Field(1, ge=1)
    """Processes that decode; the store does not depend on it."""
    readers: Readers = Readers()
    """Settings of each reader of files."""
    renamed = {"max_pixels": "readers.raster.max_pixels"}


def preprocessing(config: Config) -> str:
    """Digest of all that decides pixels, and of nothing of the cohort."""
    keys = ("size", "channels", "bits", "fit", "intensity", "flip_side")
    return digest({"raster": VERSION, **{key: getattr(config, key) for key in keys}})


def run(config: Config, out: Run) -> str:
    """Write the store; an InputError where every image is rejected, or most files are gone."""
    manifest = read_manifest(config.manifest)
    shards = _shards(config, manifest)
    rendering = Rendering(config.size, config.channels, config.bits, config.fit, config.intensity)
    done = {shard.number: done_record(out.path, shard) for shard in shards}
    records = [record for record in done.values() if record]
    todo = [shard for shard in shards if not done[shard.number]]
    if todo:
        _stop_if_gone(manifest, [row for row in range(len(manifest)) if _is_gone(manifest.resolve(row))])
    with Meter("prepare", len(manifest), "images") as meter:
        meter.skip(sum(len(r["rows"]) + len(r["rejected"]) for r in records))
        try:
            for record in decode_shards(todo, rendering, config.readers, out.path, config.workers):
                records.append(record)
                meter.add(len(record["rows"]) + len(record["rejected"]))
        except KeyboardInterrupt:
            raise Stopped(f"{meter.done:,} images" if meter.done else "the start") from None
    records.sort(key=lambda record: int(record["number"]))
    gone = [row for record in records for row, reason in record["rejected"] if reason == _GONE]
    try:
        _stop_if_gone(manifest, gone)
    except InputError:  # what was found gone is looked for again next time
        for shard in shards:
            record_path(out.path, shard).unlink(missing_ok=True)
        raise
    summary = _write(config, manifest, records, out)
    for shard in shards:
        record_path(out.path, shard).unlink(missing_ok=True)
    return summary


def _stop_if_gone(manifest: Manifest, gone: Sequence[int]) -> None:
    """Single files may be gone; more than half, or a folder with more than one in twenty of all, is refused:
    something was moved or disconnected."""
    folders = Counter(_gone_folder(manifest.resolve(row)) for row in gone)
    folder, count = folders.most_common(1)[0] if gone else (Path(), 0)
    whole = bool(gone) and not os.path.exists(folder)
    if 2 * len(gone) <= len(manifest) and not (whole and _LARGE_FOLDER * count > len(manifest)):
        return
    what = "is gone" if whole else f"lacks {count:,} of them"
    raise InputError(
        f"{manifest.path}: {len(gone):,} of {len(manifest):,} files are gone: the folder {folder} {what}; "
        "bring it back, or write the manifest anew with `trabecula cohort`"
    )


def _is_gone(file: Path) -> bool:
    try:
        file.stat()
    except OSError as error:  # of any other the decoder says what it is
        return isinstance(error, FileNotFoundError)
    return False


def _gone_folder(file: Path) -> Path:
    """The outermost folder of the file that is not there; if all are, the folder it should be in."""
    folder = Path(os.path.realpath(file)).parent
    gone = folder
    while not os.path.exists(folder) and folder != folder.parent:
        gone, folder = folder, folder.parent
    return gone


def _shards(config: Config, manifest: Manifest) -> list[Shard]:
    image_bytes = config.size**2 * config.channels * config.bits // 8
    each = max(1, min(config.shard_images, _SHARD_BYTES // image_bytes))
    images = [
        ShardRow(row, manifest.source(row), side != "" and side == config.flip_side)
        for row, side in enumerate(_sides(manifest))
    ]
    starts = range(0, len(images), each)
    return [Shard(number, tuple(images[start : start + each])) for number, start in enumerate(starts)]


def _sides(manifest: Manifest) -> list[str]:
    return manifest.table["side"].tolist() if "side" in manifest.table else [""] * len(manifest)


def _write(config: Config, manifest: Manifest, records: Sequence[dict[str, Any]], out: Run) -> str:
    table, rows = manifest.table, [row for record in records for row in record["rows"]]
    paths = table["path"].tolist()
    rejected = [(paths[row], reason) for record in records for row, reason in record["rejected"]]
    write_rejected(out.path, rejected)
    if not rows:
        first = ": ".join(rejected[0])
        raise InputError(f"{manifest.path}: all {len(rejected)} images are rejected; the first, {first}")
    sides = _sides(manifest)
    columns = ["image_id", "patient_id", *(name for name in _CARRIED if name in table.columns)]
    flipped = ["1" if sides[row] and sides[row] == config.flip_side else "0" for row in rows]
    index = table[columns].iloc[rows].assign(flipped=flipped)
    prints = [value for record in records for value in record["prints"]]
    write_fingerprints(out.path, index["image_id"].tolist(), prints)
    write_store(
        out.path, index,
        size=config.size, channels=config.channels, bits=config.bits, fit=config.fit,
        intensity={"rule": config.intensity, "percentiles": PERCENTILES}, spacing=None,
        flip_side=config.flip_side if any(sides) else None, raster=VERSION,
        preprocessing=preprocessing(config), manifest=sha256_of(manifest.path), num_rejected=len(rejected),
        shards=[{key: r[key] for key in ("file", "num_images", "sha256")} for r in records],
    )  # fmt: skip
    note = f"; {len(rejected):,} rejected ({REJECTED_FILE})" if rejected else ""
    gone = sum(reason == _GONE for _, reason in rejected)
    if gone:
        note += f"; {gone:,} {'file is' if gone == 1 else 'files are'} gone"
    return f"{len(rows):,} images of {config.size} x {config.size} pixels, {config.bits} bit{note}"
