"""The table of readers: which reader a file goes to, boxes, pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trabecula import evaluate, phantom, prepare
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.store import Store
from trabecula.config import build, describe
from trabecula.errors import InputError
from trabecula.readers import TABLE, FileKind, Readers, choose, find, read
from trabecula.readers.reader import Rejected, Source
from trabecula.run import execute

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def tiff(path: Path, *pages: np.ndarray) -> Path:
    first, *others = (Image.fromarray(page) for page in pages)
    first.save(path, format="TIFF", save_all=True, append_images=others)
    return path


def stored(folder: Path, lines: list[str]) -> Store:
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    settings = build(prepare.Config, {"manifest": folder, "size": 4}, "prepare")
    execute("prepare", settings, folder / "store")
    return Store.open(folder / "store")


@pytest.mark.parametrize("name", TABLE)
def test_every_reader_is_a_record_of_settings_that_say_what_they_are(name: str) -> None:
    assert all(meaning for *_, meaning in describe(find(name)))
    assert getattr(Readers(), name) == find(name)()


def test_the_content_decides_then_the_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, "other", FileKind("raster:Raster", (".abc",), ((4, b"here"),)))
    (tmp_path / "a.png").write_bytes(b"1234here")
    Image.fromarray(RAMP).save(tmp_path / "b.abc", format="PNG")
    (tmp_path / "c.abc").write_bytes(b"")
    names = ("a.png", "b.abc", "c.abc", "gone.abc", "gone")
    assert [choose(tmp_path / name) for name in names] == ["other", "raster", "other", "other", "raster"]


def test_a_box_is_cut_out_and_a_page_chosen(tmp_path: Path) -> None:
    file = tiff(tmp_path / "x.tif", RAMP, 255 - RAMP)
    assert np.array_equal(read(Source(file, page=2), Readers()), 255 - RAMP)
    assert np.array_equal(read(Source(file, 1, (2, 1, 5, 4)), Readers()), RAMP[1:4, 2:5])
    with pytest.raises(Rejected, match="has no page 3, only 2"):
        read(Source(file, page=3), Readers())
    with pytest.raises(Rejected, match="holds 2 images, one is needed; say which in the column 'page'"):
        read(Source(file), Readers())
    with pytest.raises(Rejected, match="the box 0 0 9 6 is not inside the image of 8 x 6 pixels"):
        read(Source(file, 1, (0, 0, 9, 6)), Readers())


def test_a_store_of_boxes_is_that_of_the_images_cut_out_beforehand(tmp_path: Path) -> None:
    """A box and a page give the pixels of a file that holds just these; rows without them are as ever."""
    for name in ("boxed", "cut"):
        (tmp_path / name).mkdir()
    colour = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    tiff(tmp_path / "boxed/stack.tif", RAMP, 255 - RAMP)
    Image.fromarray(colour).save(tmp_path / "boxed/whole.png")
    boxed = stored(
        tmp_path / "boxed",
        [
            "image_id,patient_id,path,page,box",
            "a,p,stack.tif,2,1 0 7 6",
            "b,p,whole.png,,3 2 12 9",
            "c,q,whole.png,,",
        ],
    )
    Image.fromarray(255 - RAMP[0:6, 1:7]).save(tmp_path / "cut/a.png")
    Image.fromarray(colour[2:9, 3:12]).save(tmp_path / "cut/b.png")
    Image.fromarray(colour).save(tmp_path / "cut/c.png")
    cut = stored(tmp_path / "cut", ["image_id,patient_id,path", "a,p,a.png", "b,p,b.png", "c,q,c.png"])
    assert np.array_equal(boxed.read(slice(None)).numpy(), cut.read(slice(None)).numpy())
    assert boxed.preprocessing == cut.preprocessing
    assert boxed.index["box"].tolist() == ["1 0 7 6", "3 2 12 9", ""]


@pytest.mark.parametrize("cells", ["0,", "-1,", "one,", ",1 2 3", ",5 0 5 9", ",0 0 1.5 2", ",a b c d"])
def test_pages_and_boxes_that_cannot_be(cells: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(f"image_id,patient_id,path,page,box\na,p,x.png,{cells}\n")
    with pytest.raises(
        InputError, match=r"row 2 has a (page|box) that is not (a number from 1|four whole numbers)"
    ):
        read_manifest(tmp_path)


def test_a_key_of_an_earlier_version_names_the_new_one() -> None:
    with pytest.raises(InputError, match=r"'max_pixels' is now called 'readers\.raster\.max_pixels'"):
        build(prepare.Config, {"manifest": "x", "max_pixels": 9}, "prepare")
    with pytest.raises(InputError, match=r"'chest\.films' is now called 'chest\.images'"):
        build(phantom.Config, {"kind": "chests", "chest": {"films": 2}}, "phantom")
    with pytest.raises(InputError, match="'lost_controls' is now called 'incomplete'"):
        build(evaluate.Config, {"lost_controls": []}, "evaluate")


def test_a_mistyped_key_names_the_one_that_is_meant() -> None:
    with pytest.raises(InputError, match=r"unknown key 'readers\.rastre', did you mean 'raster'"):
        build(prepare.Config, {"manifest": "x", "readers": {"rastre": {}}}, "prepare")
