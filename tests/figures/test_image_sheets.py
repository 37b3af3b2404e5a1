"""Maps over images: the image stays where the map is 0, and the scale says what the colours mean."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from trabecula.figures.image_sheets import Tile, TileRow, colours, montage, overlay, sheet


def test_where_the_map_is_nothing_the_image_is_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 6), dtype=np.uint8)
    heat = np.zeros((6, 6))
    heat[2, 3] = 1.0
    over = overlay(image, heat)
    same = np.ones((6, 6), dtype=bool)
    same[2, 3] = False
    assert np.array_equal(over[same], np.repeat(image[0][same][:, None], 3, axis=1))
    assert (over[2, 3].astype(int) - image[0, 2, 3] != 0).any()
    colour = np.random.default_rng(0).integers(0, 256, (3, 6, 6), dtype=np.uint8)
    assert np.array_equal(overlay(colour, np.zeros((6, 6))), colour.transpose(1, 2, 0))


def test_the_colours_grow_lighter_with_the_map() -> None:
    light = colours(np.linspace(0, 1, 33)) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).all()


def test_a_sheet_holds_its_tiles_and_its_scale() -> None:
    image = np.full((1, 16, 16), 40, dtype=np.uint8)
    plain = sheet("Title", "A note.", [TileRow("Row", [Tile(image, "p = 0.5")] * 3)])
    scaled = sheet(
        "Title", "A note.", [TileRow("Row", [Tile(image, "p = 0.5", np.ones((16, 16)))] * 3)], ("0", "most")
    )
    small, large = (Image.open(io.BytesIO(data)) for data in (plain, scaled))
    assert small.width < large.width
    pixels = np.asarray(small.convert("L"))
    assert (pixels == 40).sum() >= 3 * 200 * 200
    assert plain == sheet("Title", "A note.", [TileRow("Row", [Tile(image, "p = 0.5")] * 3)])


def test_a_grid_has_transparent_gaps_and_no_more_columns_than_images() -> None:
    images = [np.full((1, 7, 7), 200, dtype=np.uint8)] * 5
    grid = Image.open(io.BytesIO(montage(images, across=3)))
    few = Image.open(io.BytesIO(montage(images[:2])))
    assert grid.size == (3 * 116 - 4, 2 * 116 - 4)
    assert few.size == (2 * 116 - 4, 112)
    pixels = np.asarray(grid)
    assert tuple(pixels[56, 56]) == (200, 200, 200, 255)
    assert pixels[56, 113, 3] == pixels[150, 300, 3] == 0  # a gap, and the place of a sixth image
