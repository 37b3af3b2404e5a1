"""Images of the store and of generators as they are shown in the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trabecula.figures import montage
from trabecula.sections.section import Block, PagePicture, Section


def pictures_section(store: Path | None, samples: Sequence[Path], number: int) -> Section:
    """The first images of the store by image id, and of each generator's samples; none where number is 0."""
    found = [("Images of the store, the first by image id", store_images(store, number))]
    shown = [
        PagePicture(
            f"{caption} ({len(images)})",
            f"{len(images)} pictures in a grid: {caption.lower()}",
            montage.montage(images),
        )
        for caption, images in (*found, *sample_images(samples, number))
        if images
    ]
    blocks = [Block("pictures", shown)] if shown else [Block("note", "No store and no samples were given.")]
    return Section("pictures", "Pictures", "Pictures", blocks)


def store_images(store: Path | None, number: int) -> list[Any]:
    """The first images of the store by image id; [] where there is none."""
    return montage.store_images(store, number) if store else []


def sample_images(paths: Sequence[Path], number: int) -> list[tuple[str, list[Any]]]:
    """(caption, first images) of each generator.

    Args:
        paths: folders that `pretrain` wrote, those without a generator are passed over; stores; .npy files.
    """
    found = []
    for path in paths:
        caption, images = "Samples of a generator", path
        if path.is_dir() and (path / "encoder.json").exists():
            images = path / "samples.npy"
            if not images.exists():
                continue  # an arm that has no generator
            arm = json.loads((path / "encoder.json").read_text())["name"]
            caption = f"Samples of the generator of {arm}"
        found.append((caption, montage.sample_images(images, number)))
    return found
