"""encoder + store -> features: one vector an image, for probes, distances and neighbours.

What it writes: `artifacts/features.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from trabecula.artifacts.encoder import PoolChoice, check_fit, weights_file
from trabecula.artifacts.features import FeaturesCard, writing_features
from trabecula.artifacts.predictions import region_name
from trabecula.artifacts.store import Store, to_float
from trabecula.config import Record
from trabecula.errors import RunError
from trabecula.files import sha256_of
from trabecula.nets.devices import choose_device, exact
from trabecula.nets.encoder import Encoder, load_encoder
from trabecula.progress import Meter
from trabecula.run import Run


class Config(Record):
    """Settings of `embed`."""

    encoder: Path
    """The encoder: a folder written by `pretrain`."""
    store: Path
    """The images: a folder written by `prepare`."""
    pool: PoolChoice = "auto"
    """From maps to features: mean, mean+max, flatten or token; auto takes the encoder's own."""
    region: Literal["all", "corners"] = "all"
    """corners: the encoder is shown the four corners of each image and mid-grey elsewhere, so that a probe
    shows whether markers, borders or the image's brightness give a label away."""
    corner: float = Field(0.25, gt=0, le=0.5)
    """With corners: side of each, as a fraction of the image's side."""
    batch_size: int = Field(64, ge=1)
    """Images at a time; lower it where memory is short."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""


def run(config: Config, out: Run) -> str:
    """Embed every image of a store: features.npy, features.json, index.csv."""
    store = Store.open(config.store)
    encoder = load_encoder(config.encoder)
    check_fit(encoder.card, store, config.store)
    encoder = encoder.with_pool(config.pool)
    card, device = encoder.card, choose_device(config.device)
    out.used(device=str(device))
    encoder = encoder.to(device).to(memory_format=torch.channels_last).eval()
    made = FeaturesCard(
        arm=card.name, pretrain_seed=card.seed, architecture=card.architecture, family=card.family,
        objective=card.objective, init=card.init, images_seen=card.images_seen, pool=card.pool,
        stem=card.stem, channels=card.channels, size=card.size,
        normalisation={"mean": card.mean, "std": card.std}, weights=sha256_of(weights_file(config.encoder)),
        resize="none: images as they are in the store", region=region_name(config.region, config.corner),
        dtype="float32", num=len(store), num_features=card.num_features, store=store.id,
        preprocessing=store.preprocessing, prepared=store.prepared, manifest=store.record.manifest,
    )  # fmt: skip
    meter = Meter(f"embedding with {card.name}", len(store), "images")
    with writing_features(out.path, made, store.index) as features, meter:
        for start in range(0, len(store), config.batch_size):
            images = store.read(slice(start, start + config.batch_size))
            if config.region == "corners":
                images = corners_only(images, config.corner)
            found = embed(encoder, images, device)
            bad = (~found.isfinite().all(1)).nonzero().flatten().tolist()
            if bad:
                first = store.index["image_id"].iloc[start + bad[0]]
                raise RunError(
                    f"encoder '{card.name}' gives features that are not finite, first for image '{first}'; "
                    "its pretraining diverged, use an earlier one"
                )
            features[start : start + len(images)] = found.numpy()
            meter.add(len(images))
    shown = "" if config.region == "all" else f", their {config.region} alone"
    return f"{card.name}: {card.num_features} features of each of {len(store):,} images{shown}"


def corners_only(images: torch.Tensor, corner: float) -> torch.Tensor:
    """uint8 or uint16 (B, C, S, S) -> the same, mid-grey between the corners, each `corner` of a side."""
    side = max(1, round(corner * images.shape[-1]))
    blank = torch.full_like(images, (torch.iinfo(images.dtype).max + 1) // 2)
    for rows in (slice(None, side), slice(-side, None)):
        for columns in (slice(None, side), slice(-side, None)):
            blank[..., rows, columns] = images[..., rows, columns]
    return blank


def embed(encoder: Encoder, images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8, uint16 or float images (B, C, H, W) -> features (B, D) float32 on the CPU."""
    with torch.inference_mode(), exact():
        pixels = to_float(images.to(device)).contiguous(memory_format=torch.channels_last)
        features: torch.Tensor = encoder(pixels)
    return features.float().cpu()
