"""Pictures that a method leaves when its training ends, as PNG files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trabecula.figures.heatmaps import Row, Tile, sheet

if TYPE_CHECKING:
    from trabecula.objectives.objective import Picture


def picture_file(picture: Picture) -> bytes:
    """The picture's rows of images under their headings."""
    rows = []
    for heading, images in picture.rows.items():
        pixels = np.rint(images.float().cpu().numpy() * 255).astype(np.uint8)
        rows.append(Row(heading, [Tile(image) for image in pixels]))
    return sheet(picture.title, picture.note, rows)
