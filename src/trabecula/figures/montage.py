"""The first images of a store, or of a generator, as one embedded picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from trabecula.errors import InputError
from trabecula.figures.drawings import png_uri

Pixels = npt.NDArray[Any]

_TILE, _GAP, _ACROSS = 112, 4, 8


def store_images(path: Path, number: int) -> list[Pixels]:
    """The first images of a store by image id, each (C, H, W) uint8."""
    from trabecula.artifacts.store import Store  # loads torch: only when there are images to show

    store = Store.open(path)
    order = np.argsort(store.index["image_id"].to_numpy(dtype=str), kind="stable")[:number]
    return [_bytes(image.numpy()) for image in store.read(order)]


def sample_images(path: Path, number: int) -> list[Pixels]:
    """A generator's samples: a store, a .npy file, or a folder with one; each (C, H, W) uint8.

    The array is (N, H, W), (N, C, H, W) or (N, H, W, 3); uint8, uint16, or float in [0, 1].

    Raises:
        InputError: no such thing there.
    """
    if (path / "store.json").exists():
        return store_images(path, number)
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        raise InputError(f"{path}: no samples there; give a store, a .npy file, or a folder with one")
    try:
        array = np.load(files[0], mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise InputError(f"{files[0]}: not a .npy array ({error}); write it with numpy.save") from None
    return [_bytes(image) for image in _channels_first(np.asarray(array[:number]), files[0])]


def _channels_first(array: Pixels, path: Path) -> Pixels:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return array
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return array.transpose(0, 3, 1, 2)
    raise InputError(f"{path}: shape {array.shape}; give (N, H, W), (N, C, H, W) or (N, H, W, C)")


def _bytes(image: Pixels) -> Pixels:
    if image.dtype == np.uint16:
        image = np.right_shift(image, 8)
    if image.dtype.kind == "f":
        image = np.floor(np.clip(image, 0, 1) * 255 + 0.5)
    return np.asarray(image, dtype=np.uint8)


def montage(images: Sequence[Pixels], across: int = _ACROSS) -> str:
    """A grid of images as a PNG data URI; the gaps are transparent."""
    data = montage_png(images, min(across, len(images)))
    return png_uri(data)


def montage_png(images: Sequence[Pixels], across: int) -> bytes:
    """A grid of images (C, H, W) uint8, `across` a row, as a PNG file; the gaps are transparent."""
    down = -(-len(images) // across)
    step = _TILE + _GAP
    sheet = Image.new("RGBA", (across * step - _GAP, down * step - _GAP), (0, 0, 0, 0))
    for i, image in enumerate(images):
        pixels = image[0] if image.shape[0] != 3 else image.transpose(1, 2, 0)
        tile = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGBA")
        tile = ImageOps.contain(tile, (_TILE, _TILE), Image.Resampling.BICUBIC)
        corner = (
            i % across * step + (_TILE - tile.width) // 2,
            i // across * step + (_TILE - tile.height) // 2,
        )
        sheet.paste(tile, corner)
    data = io.BytesIO()
    sheet.save(data, format="PNG", optimize=True)
    return data.getvalue()
