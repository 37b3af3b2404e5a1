"""Maps over films: the film stays where the map is 0, and the scale says what the colours mean."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from trabecula.figures.heatmaps import Row, Tile, colours, overlay, sheet


def test_where_the_map_is_nothing_the_film_is_untouched() -> None:
    film = np.random.default_rng(0).integers(0, 256, (1, 6, 6), dtype=np.uint8)
    heat = np.zeros((6, 6))
    heat[2, 3] = 1.0
    over = overlay(film, heat)
    same = np.ones((6, 6), dtype=bool)
    same[2, 3] = False
    assert np.array_equal(over[same], np.repeat(film[0][same][:, None], 3, axis=1))
    assert (over[2, 3].astype(int) - film[0, 2, 3] != 0).any()
    colour = np.random.default_rng(0).integers(0, 256, (3, 6, 6), dtype=np.uint8)
    assert np.array_equal(overlay(colour, np.zeros((6, 6))), colour.transpose(1, 2, 0))


def test_the_colours_grow_lighter_with_the_map() -> None:
    light = colours(np.linspace(0, 1, 33)) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).all()


def test_a_sheet_holds_its_tiles_and_its_scale() -> None:
    film = np.full((1, 16, 16), 40, dtype=np.uint8)
    plain = sheet("Title", "A note.", [Row("Row", [Tile(film, "p = 0.5")] * 3)])
    scaled = sheet(
        "Title", "A note.", [Row("Row", [Tile(film, "p = 0.5", np.ones((16, 16)))] * 3)], ("0", "most")
    )
    small, large = (Image.open(io.BytesIO(data)) for data in (plain, scaled))
    assert small.width < large.width
    pixels = np.asarray(small.convert("L"))
    assert (pixels == 40).sum() >= 3 * 200 * 200
    assert plain == sheet("Title", "A note.", [Row("Row", [Tile(film, "p = 0.5")] * 3)])
