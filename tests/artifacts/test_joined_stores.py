"""Several stores as one: their rows, what must be alike, and whom their splits hold out."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trabecula import cohort, prepare
from trabecula.artifacts.splits import Splits, together
from trabecula.artifacts.store import Store, alike, open_stores
from trabecula.data.batches import Stream
from trabecula.data.pretraining_pool import pretraining_pool
from trabecula.errors import InputError
from trabecula.run import execute


@pytest.fixture(scope="module")
def pair(make_store: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Knees with sides, and another domain without: 8 and 10 images, the latter in two shards."""
    knees = make_store(num_patients=4, size=24, seed=1, name="knees")
    other = make_store(num_patients=5, size=24, seed=2, name="other")
    root = tmp_path_factory.mktemp("sideless")
    given = cohort.Config(root=other / "images", pattern="{patient_id}_{kl}.png", prefix="chest-")
    execute("cohort", given, root / "cohort")
    settings = prepare.Config(manifest=root / "cohort", size=24, flip_side="", shard_images=6)
    execute("prepare", settings, root / "store")
    return knees / "store", root / "store"


def prepared(pair: tuple[Path, Path], out: Path, **settings: Any) -> Path:
    manifest = pair[1].parent / "cohort"
    execute("prepare", prepare.Config(**{"manifest": manifest, "size": 24, **settings}), out)
    return out


def test_rows_of_the_first_come_first(pair: tuple[Path, Path]) -> None:
    first, second = (Store.open(path) for path in pair)
    both = open_stores(pair[0], pair[1:])
    assert (len(first), len(second), len(both)) == (8, 10, 18)
    rows = [17, 0, 8, 7, 13, 14]
    images = both.read(rows)
    for place, row in enumerate(rows):
        part, its = (first, row) if row < 8 else (second, row - 8)
        assert (images[place] == part.read([its])[0]).all()
        assert both.index["patient_id"][row] == part.index["patient_id"][its]
    assert both.index["side"].tolist() == [*first.index["side"], *[""] * 10]
    assert (pickle.loads(pickle.dumps(both)).read(rows) == images).all()
    assert [part.id for part in both.parts] == [first.id, second.id]
    assert both.id != open_stores(pair[1], pair[:1]).id


def test_one_store_is_that_store(pair: tuple[Path, Path]) -> None:
    assert open_stores(pair[0]).id == Store.open(pair[0]).id
    assert [part.id for part in open_stores(pair[0]).parts] == [Store.open(pair[0]).id]


def test_images_are_drawn_equally_often_in_an_order_of_the_seed(pair: tuple[Path, Path]) -> None:
    both = open_stores(pair[0], pair[1:])
    rows = np.arange(len(both))

    def drawn(seed: int) -> list[int]:
        stream = Stream(both, rows, 6, seed)
        return [int(row) for number in range(6) for row in stream.batch(number).rows]

    assert np.bincount(drawn(3)).tolist() == [2] * 18  # two passes
    assert drawn(3) == drawn(3) != drawn(4)
    assert set(drawn(3)[:18]) == set(range(18))


def test_a_side_matters_where_both_have_sides(pair: tuple[Path, Path], tmp_path: Path) -> None:
    knees, chests = (Store.open(path) for path in pair)
    assert "flip_side" in knees.prepared
    assert "flip_side" not in chests.prepared
    assert knees.preprocessing != chests.preprocessing
    both = open_stores(pair[1], pair[:1])  # whatever the order, that of the store with sides is the pool's
    assert (both.preprocessing, both.prepared) == (knees.preprocessing, knees.prepared)
    settings = prepare.Config(manifest=pair[0].parent / "cohort", size=24, flip_side="L")
    execute("prepare", settings, tmp_path / "left")
    with pytest.raises(InputError, match=r'left: prepared in another way .* flip_side is "L", wanted "R"'):
        open_stores(pair[0], [tmp_path / "left"])
    with pytest.raises(InputError, match="flip_side"):  # though each may stand beside chests
        open_stores(pair[1], [pair[0], tmp_path / "left"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"size": 32}, "size is 32, wanted 24"),
        ({"channels": 3}, "channels is 3, wanted 1"),
        ({"bits": 16}, "bits is 16, wanted 8"),
        ({"fit": "pad"}, 'fit is "pad", wanted "crop"'),
        ({"intensity": "as-is"}, 'intensity.rule is "as-is", wanted "percentile"'),
    ],
)
def test_what_decides_pixels_must_be_alike(
    pair: tuple[Path, Path], tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    other = prepared(pair, tmp_path / "other", **settings)
    with pytest.raises(InputError, match=told) as said:
        open_stores(pair[0], [other])
    assert "\n" not in str(said.value)
    assert not alike(Store.open(other).prepared, Store.open(pair[0]).prepared)


def test_a_store_of_an_older_version_is_taken_by_its_hash_alone(pair: tuple[Path, Path]) -> None:
    """It does not tell which version of the decoder made its pixels."""
    told = Store.open(pair[0]).prepared
    older = {key: value for key, value in told.items() if key != "raster"}
    assert alike(told, told)
    assert not alike(older, told)
    assert not alike(told, older)
    assert not alike(told, {**told, "raster": told["raster"] + 1})


@pytest.mark.parametrize("size", [24, 32])
def test_a_store_of_unknown_preparation_is_in_no_pool_of_several(
    pair: tuple[Path, Path], tmp_path: Path, size: int
) -> None:
    """Samples of an exported generator, of the same size or another: refused in any order."""
    made = prepared(pair, tmp_path / "made", size=size)
    record = json.loads((made / "store.json").read_text())
    for key in ("fit", "intensity", "flip_side", "raster"):
        del record[key]
    (made / "store.json").write_text(json.dumps({**record, "preprocessing": "", "prepared": {}}))
    shutil.copytree(made, tmp_path / "more")
    (tmp_path / "more" / "store.json").write_text(
        json.dumps({**record, "preprocessing": "", "prepared": {}, "manifest": "other"})
    )
    for first, more in ((made, pair[0]), (pair[0], made), (made, tmp_path / "more")):
        with pytest.raises(InputError, match=r"(made|more): (how its images were prepared|prepared)") as told:
            open_stores(first, [more])
        assert "\n" not in str(told.value)
    assert open_stores(made).id  # alone it is a pool


def test_a_store_is_given_once(pair: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="is given twice"):
        open_stores(pair[0], [pair[1], pair[0]])


def test_whoever_any_splits_hold_out_is_in_no_pool(pair: tuple[Path, Path]) -> None:
    knees, chests = (Store.open(path).index["patient_id"].unique().tolist() for path in pair)
    of_knees = Splits({knees[0]: "test", knees[1]: "val", knees[2]: "train", chests[0]: "val"})
    of_chests = Splits({chests[0]: "test", chests[1]: "train", knees[2]: "val", "nobody": "test"})
    splits = together([of_knees, of_chests])
    assert splits.of[chests[0]] == "test"
    assert splits == together([of_chests, of_knees])
    _, patients = pretraining_pool(open_stores(pair[0], pair[1:]), splits)
    assert patients == sorted({*knees, *chests} - {knees[0], knees[1], knees[2], chests[0]})
