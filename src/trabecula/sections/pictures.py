"""Images of the store and of generators as they are shown in the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trabecula.artifacts.encoder import has_encoder, read_encoder_card
from trabecula.artifacts.generator import SAMPLES_FILE
from trabecula.artifacts.store import is_store
from trabecula.errors import InputError
from trabecula.figures.image_sheets import Pixels, montage, png_uri, to_uint8
from trabecula.sections.section import Block, PagePicture, Section


def pictures_section(store: Path | None, samples: Sequence[Path], number: int) -> Section:
    """The first images of the store by image id, and of each generator's samples; none where number is 0."""
    shown = []
    found = [("Images of the store, the first by image id", store_grid(store, number))]
    for caption, images in (*found, *sample_grids(samples, number)):
        if images:
            alt = f"{len(images)} pictures in a grid: {caption.lower()}"
            shown.append(PagePicture(f"{caption} ({len(images)})", alt, png_uri(montage(images))))
    blocks = [Block("pictures", shown)] if shown else [Block("note", "No store and no samples were given.")]
    return Section("pictures", "Pictures", "Pictures", blocks)


def store_grid(path: Path | None, number: int) -> list[Pixels]:
    """The first images of a store by image id, each (C, H, W) uint8; [] where there is none."""
    if path is None:
        return []
    from trabecula.artifacts.store import Store  # loads torch: only when there are images to show

    store = Store.open(path)
    order = np.argsort(store.index["image_id"].to_numpy(dtype=str), kind="stable")[:number]
    return [to_uint8(image.numpy()) for image in store.read(order)]


def sample_grids(paths: Sequence[Path], number: int) -> list[tuple[str, list[Pixels]]]:
    """(caption, first images) of each generator; folders of `pretrain` that have none are passed over."""
    found = []
    for path in paths:
        caption, images = "Samples of a generator", path
        if path.is_dir() and has_encoder(path):
            images = path / SAMPLES_FILE
            if not images.exists():
                continue  # an arm that has no generator
            caption = f"Samples of the generator of {read_encoder_card(path).name}"
        found.append((caption, sample_images(images, number)))
    return found


def sample_images(path: Path, number: int) -> list[Pixels]:
    """A generator's samples: a store, a .npy file, or a folder with one; each (C, H, W) uint8.

    The array is (N, H, W), (N, C, H, W) or (N, H, W, 3); uint8, uint16, or float in [0, 1].
    """
    if path.is_dir() and is_store(path):
        return store_grid(path, number)
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise InputError(f"{path}: no samples there; give a store, a .npy file, or a folder with one")
    try:
        array = np.load(files[0], mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise InputError(f"{files[0]}: not a .npy array ({error}); write it with numpy.save") from None
    return [to_uint8(image) for image in _channels_first(np.asarray(array[:number]), files[0])]


def _channels_first(array: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return array
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return array.transpose(0, 3, 1, 2)
    raise InputError(f"{path}: shape {array.shape}; give (N, H, W), (N, C, H, W) or (N, H, W, C)")
