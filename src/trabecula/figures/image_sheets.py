"""Images side by side as PNG files: plain grids, and sheets with titles, captions and coloured maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

Pixels = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.floating[Any]]

_GRID_TILE, _GRID_GAP = 112, 4
_TILE, _GAP, _MARGIN, _BAR = 208, 10, 18, 22
_INK, _SOFT, _PAPER = (29, 35, 41), (90, 99, 109), (253, 253, 251)
_MID_GREY = 96  # the image below the scale bar
_STRONGEST = 0.78  # of the colour over the image, where the map is at its maximum
# Seven anchors of a scale that darkens evenly towards its low end, legible in grey and to the colour-blind.
_SCALE = np.array([
    (13, 8, 55), (87, 15, 109), (155, 41, 100), (214, 72, 65), (246, 125, 21), (250, 194, 44),
    (252, 255, 164),
])  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """One image (C, H, W) uint8, its caption, and a map over it (H, W) in [0, 1] if there is one."""

    image: Pixels
    caption: str = ""
    heat: Heat | None = None


@dataclass(frozen=True)
class TileRow:
    """Tiles side by side under a heading."""

    heading: str
    tiles: Sequence[Tile]


def to_uint8(image: npt.NDArray[Any]) -> Pixels:
    """uint8, uint16, or float in [0, 1] -> uint8."""
    if image.dtype == np.uint16:
        image = np.right_shift(image, 8)
    if image.dtype.kind == "f":
        image = np.floor(np.clip(image, 0, 1) * 255 + 0.5)
    return np.asarray(image, dtype=np.uint8)


def png_uri(data: bytes) -> str:
    """A PNG file as a data URI, to be part of a page."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def montage(images: Sequence[Pixels], across: int = 8) -> bytes:
    """A grid of images (C, H, W) uint8, at most `across` a row, as a PNG file; the gaps are transparent."""
    across = min(across, len(images))
    step = _GRID_TILE + _GRID_GAP
    size = (across * step - _GRID_GAP, -(-len(images) // across) * step - _GRID_GAP)
    page = Image.new("RGBA", size, (0, 0, 0, 0))
    for i, image in enumerate(images):
        pixels = np.ascontiguousarray(image[0] if image.shape[0] != 3 else image.transpose(1, 2, 0))
        tile = Image.fromarray(pixels).convert("RGBA")
        tile = ImageOps.contain(tile, (_GRID_TILE, _GRID_TILE), Image.Resampling.BICUBIC)
        left = i % across * step + (_GRID_TILE - tile.width) // 2
        page.paste(tile, (left, i // across * step + (_GRID_TILE - tile.height) // 2))
    return _png(page)


def colours(values: Heat) -> npt.NDArray[np.float64]:
    """(...,) in [0, 1] -> (..., 3) in [0, 255]."""
    at = np.linspace(0, 1, len(_SCALE))
    return np.stack([np.interp(values, at, _SCALE[:, band]) for band in range(3)], axis=-1)


def overlay(image: Pixels, heat: Heat) -> Pixels:
    """(C, H, W) uint8 under (H, W) in [0, 1] -> (H, W, 3): the higher the map, the less image shows."""
    share = (_STRONGEST * np.sqrt(np.clip(heat, 0, 1)))[..., None]
    mixed = (1 - share) * _rgb(image).astype(float) + share * colours(heat)
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def picture_file(title: str, note: str, rows: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Rows of images (n, C, H, W) by their heading, floats in [0, 1], as a PNG file."""
    tiles = {name: [Tile(to_uint8(image)) for image in row] for name, row in rows.items()}
    return sheet(title, note, [TileRow(name, row) for name, row in tiles.items()])


def sheet(title: str, note: str, rows: Sequence[TileRow], scale: tuple[str, str] | None = None) -> bytes:
    """Rows of tiles under a title and a note, as a PNG file; `scale` names the ends of the colour scale."""
    across = max(len(row.tiles) for row in rows)
    wide = 2 * _MARGIN + across * (_TILE + _GAP) - _GAP + (_BAR + 92 if scale else 0)
    wide = max(wide, 520)
    lines = _wrapped(note, wide - 2 * _MARGIN, 14)
    head = _MARGIN + 28 + 19 * len(lines) + 8
    above = [26 * bool(row.heading) + 20 * any(tile.caption for tile in row.tiles) for row in rows]
    page = Image.new("RGB", (wide, head + sum(above) + len(rows) * (_TILE + _GAP) + _MARGIN - _GAP), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN - 4), title, _INK, _font(20))
    for i, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + 26 + 19 * i), line, _SOFT, _font(14))
    top = head
    for row, room in zip(rows, above, strict=True):
        _draw_row(page, draw, row, top, top + room)
        top += room + _TILE + _GAP
    if scale:
        _draw_scale(page, draw, wide - _MARGIN - _BAR - 70, head + 26 * bool(rows[0].heading) + 20, scale)
    if not scale and all(tile.image.shape[0] == 1 for row in rows for tile in row.tiles):
        page = page.convert("L")  # a third of the bytes
    return _png(page)


def _draw_row(page: Image.Image, draw: ImageDraw.ImageDraw, row: TileRow, top: int, images: int) -> None:
    """A heading at `top`, then captions, then the images from `images` on."""
    draw.text((_MARGIN, top + 4), row.heading, _INK, _font(16))
    for i, tile in enumerate(row.tiles):
        left = _MARGIN + i * (_TILE + _GAP)
        draw.text((left, images - 19), tile.caption, _SOFT, _font(14))
        pixels = _rgb(tile.image) if tile.heat is None else overlay(tile.image, tile.heat)
        how = Image.Resampling.BICUBIC if pixels.shape[0] < _TILE else Image.Resampling.LANCZOS
        page.paste(Image.fromarray(pixels).resize((_TILE, _TILE), how), (left, images))


def _draw_scale(
    page: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, ends: tuple[str, str]
) -> None:
    steps = np.linspace(1, 0, _TILE)[:, None].repeat(_BAR, 1)
    grey = np.full((1, _TILE, _BAR), _MID_GREY, dtype=np.uint8)
    page.paste(Image.fromarray(overlay(grey, steps)), (left, top))
    draw.rectangle((left, top, left + _BAR - 1, top + _TILE - 1), outline=_SOFT)
    for text, y in ((ends[1], top - 2), (ends[0], top + _TILE - 16)):
        draw.text((left + _BAR + 6, y), text, _SOFT, _font(14))


def _wrapped(text: str, width: int, size: int) -> list[str]:
    """Lines that fit the width, in px."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)


def _rgb(image: Pixels) -> Pixels:
    """(C, H, W) -> (H, W, 3)."""
    return np.repeat(image[0][..., None], 3, axis=2) if image.shape[0] != 3 else image.transpose(1, 2, 0)


def _png(page: Image.Image) -> bytes:
    data = io.BytesIO()
    page.save(data, format="PNG", optimize=True)
    return data.getvalue()
