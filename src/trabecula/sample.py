"""generator -> images: a store of samples, a grid to look at, or walks from one sample to another.

    images-*.npy, index.csv, store.json     a store as `prepare` writes one; its patient is the generator
    grid.png                                the first samples
    strips.png                              kind = interpolate: one walk a row

Image i of a seed is the same whatever `num`: its noise is drawn for it alone, and the generator, whose
norms use the statistics of its training's end, always sees it among the same neighbours.
Generated images are in the training part or in none: `split` puts them there, everything that reads
splits refuses them elsewhere, and the store names (as keyed hashes) the patients its generator learned from.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from trabecula.artifacts.generated import generator_id
from trabecula.artifacts.generator import WEIGHTS_FILE, GeneratorCard
from trabecula.artifacts.store import Store, write_rejected, write_store
from trabecula.config import Record
from trabecula.data.shards import Shard, done_record, record_path
from trabecula.errors import InputError, RunError
from trabecula.figures.image_sheets import montage
from trabecula.files import sha256_of, write_atomically, write_json
from trabecula.nets.devices import choose_device, exact
from trabecula.nets.generators.generator import Generator, LatentGenerator, load_generator, whole_passes
from trabecula.nets.latent import latents, slerp
from trabecula.progress import Meter
from trabecula.readers.rendering import VERSION
from trabecula.run import Run


class Config(Record):
    """Settings of `sample`."""

    generator: Path
    """A folder written by `pretrain` with a method that trains a generator, or one of its snapshots."""
    num: int = Field(64, ge=1)
    """Images; for kind = interpolate: walks."""
    kind: Literal["independent", "interpolate"] = "independent"
    """independent: each image from noise of its own. interpolate: walks between pairs of these."""
    steps: int = Field(9, ge=3)
    """Images in a walk, both ends among them."""
    grid: int = Field(8, ge=1)
    """Images across and down grid.png, at most; walks in strips.png."""
    shard_images: int = Field(1024, ge=1)
    """Images per file of the store, at most; also what a killed run loses."""
    seed: int = 0
    """Of the noise."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""


def run(config: Config, out: Run) -> str:
    """Write the store, grid.png and, for walks, strips.png."""
    folder = config.generator if config.generator.is_dir() else config.generator.parent
    generator, card = load_generator(folder)
    if config.kind == "interpolate" and not isinstance(generator, LatentGenerator):
        problem = f"a generator of kind '{card.kind}' has no random input to walk in"
        raise InputError(f"{folder}: {problem}; use kind = independent")
    device = choose_device(config.device)
    out.used(device=str(device))
    generator = generator.to(device)
    total = config.num * (config.steps if config.kind == "interpolate" else 1)
    shards = []
    with Meter("sampling", total, "images") as meter:
        for number, start in enumerate(range(0, total, config.shard_images)):
            rows = range(start, min(start + config.shard_images, total))
            shards.append(_shard(config, generator, number, rows, out))
            meter.add(len(rows))
    patient = _write(config, card, sha256_of(folder / WEIGHTS_FILE), shards, out)
    _draw(config, out)
    for record in shards:
        record_path(out.path, Shard(record["number"], ())).unlink(missing_ok=True)
    made = f"{config.num:,} walks of {config.steps}" if config.kind == "interpolate" else f"{total:,}"
    training = f"{card.objective}, {card.images_seen:,} images seen"
    return f"{made} images of {patient} ({training}), seed {config.seed}"


def _shard(config: Config, generator: Generator, number: int, rows: range, out: Run) -> dict[str, Any]:
    """Make one file of the store, unless an earlier run did; its record is written after it."""
    shard = Shard(number, ())
    done = done_record(out.path, shard)
    if done is not None:
        return done
    images = images_of(config, generator, rows)
    write_atomically(out / shard.file, images)
    digest = hashlib.sha256(images.data).hexdigest()
    record = {"number": number, "file": shard.file, "num_images": len(images), "sha256": digest}
    record["raster"] = VERSION  # as `done_record` asks
    write_json(record_path(out.path, shard), record)
    return record


@torch.inference_mode()
def images_of(config: Config, generator: Generator, rows: range) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(len(rows), C, S, S) uint8, the images of these rows."""
    try:
        with exact():
            if config.kind == "independent":
                return generator.sample(len(rows), config.seed, rows.start).numpy()
            walker, whole = cast("LatentGenerator", generator), whole_passes(rows)
            noise = _walks(config, whole, walker.latent)
            return walker.images(noise)[rows.start - whole.start :][: len(rows)].numpy()
    except RunError as error:
        raise RunError(f"{config.generator}: {error}") from None


def _walks(config: Config, rows: range, length: int) -> Tensor:
    """(len(rows), length): row w * steps + s is on the way from pair 2 w to 2 w + 1."""
    walks = range(rows.start // config.steps, (rows.stop - 1) // config.steps + 1)
    ends = latents(range(2 * walks.start, 2 * walks.stop), length, config.seed)
    made = []
    for row in rows:
        walk, step = divmod(row, config.steps)
        start, end = ends[2 * (walk - walks.start) :][:2]
        made.append(slerp(start, end, step / (config.steps - 1)))
    return torch.stack(made)


def _write(config: Config, card: GeneratorCard, weights: str, shards: list[dict[str, Any]], out: Run) -> str:
    """index.csv, an empty rejected.csv, and store.json, which makes it a store; returns the patient's id."""
    patient = generator_id(weights)
    rows = range(sum(record["num_images"] for record in shards))
    if config.kind == "independent":
        names = [f"{row:06d}" for row in rows]
    else:
        names = [f"walk{row // config.steps:05d}-{row % config.steps:03d}" for row in rows]
    images = [f"{patient}-s{config.seed}-{name}" for name in names]
    index = pd.DataFrame({"image_id": images, "patient_id": patient, "flipped": "0"})
    write_rejected(out.path, ())
    write_store(
        out.path, index,
        size=card.size, channels=card.channels, bits=8, preprocessing=card.preprocessing,
        prepared=card.prepared, manifest="", num_rejected=0,
        shards=[{key: r[key] for key in ("file", "num_images", "sha256")} for r in shards],
        generated={
            "generator": patient, "weights": weights, "objective": card.objective,
            "images_seen": card.images_seen, "pretrain_seed": card.seed, "store": card.store,
            "kind": config.kind, "seed": config.seed,
            "patients": card.patients, "patients_key": card.patients_key,
        },
    )  # fmt: skip
    return patient


def _draw(config: Config, out: Run) -> None:
    """The grid of images, or of the first of each walk; the walks, a row each."""
    store, steps = Store.open(out.path), 1 if config.kind == "independent" else config.steps
    shown = store.read(np.arange(min(config.num, config.grid**2)) * steps).numpy()
    out.write("grid.png", montage(list(shown), across=min(config.grid, len(shown))))
    if config.kind == "interpolate":
        walks = store.read(slice(0, min(config.num, config.grid) * steps)).numpy()
        out.write("strips.png", montage(list(walks), across=steps))
