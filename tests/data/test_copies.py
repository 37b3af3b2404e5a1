"""Copies of an image are found in whatever file they stand; other images are not taken for copies."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from trabecula import prepare, split
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.store import read_fingerprints
from trabecula.config import build
from trabecula.data.copies import find_copies, fingerprint
from trabecula.data.leaks import Findings, check
from trabecula.run import execute

PARTS = {"a": "train", "b": "test", "c": "val", "d": "train"}
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 24), np.uint8)
LEAK = "manifest rows 2 and 3: one image under patients a (train) and b (test)"


def checked(folder: Path, rows: list[str], **values: list[Path]) -> Findings:
    """The check of rows `patient,path` (and page, box)."""
    lines = [f"i{number},{row}" for number, row in enumerate(rows)]
    columns = ["image_id", "patient_id", "path", "page", "box"][: rows[0].count(",") + 2]
    (folder / "manifest.csv").write_text("\n".join([",".join(columns), *lines]) + "\n")
    splits = "".join(f"{patient},{part}\n" for patient, part in PARTS.items())
    (folder / "splits.csv").write_text("patient_id,split\n" + splits)
    return check(read_manifest(folder), folder / "splits.csv", **values)


def write(path: Path, values: np.ndarray, **options: object) -> None:
    if path.suffix == ".tif":
        tifffile.imwrite(path, values, **{"photometric": "minisblack", **options})
    else:
        Image.fromarray(values).save(path, **options)


DEEP = IMAGE.astype(np.uint16)
COPIES = {
    "other compression": ("x.png", IMAGE, {"compress_level": 1}),
    "metadata": ("x.png", IMAGE, {"dpi": (300, 300)}),
    "bmp": ("x.bmp", IMAGE, {}),
    "tiff": ("x.tif", IMAGE, {}),
    "deflated tiff": ("x.tif", IMAGE, {"compression": "deflate", "tile": (16, 16)}),
    "big-endian tiff": ("x.tif", DEEP, {"byteorder": ">"}),
    "white is zero": ("x.tif", 255 - IMAGE, {"photometric": "miniswhite"}),
    "colour": ("x.png", np.repeat(IMAGE[..., None], 3, axis=2), {}),
    "opaque": ("x.png", np.dstack([IMAGE, IMAGE, IMAGE, np.full_like(IMAGE, 255)]), {}),
    "16 bits": ("x.png", DEEP, {}),
    "16 bits, stretched": ("x.png", DEEP * 257, {}),
    "16 bits, shifted": ("x.png", DEEP * 256, {}),
    "16 bits, white is zero": ("x.tif", 65535 - DEEP * 257, {"photometric": "miniswhite"}),
    "32 bits": ("x.tif", IMAGE.astype(np.uint32), {}),
    "float": ("x.tif", IMAGE.astype(np.float32), {}),
    "float, 0 to 1": ("x.tif", (IMAGE / 255).astype(np.float32), {}),
    "double, 0 to 1": ("x.tif", IMAGE / 255, {}),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_in_other_files_are_found(name: str, tmp_path: Path) -> None:
    write(tmp_path / "a.png", IMAGE)
    file, values, options = COPIES[name]
    write(tmp_path / file, values, **options)
    assert checked(tmp_path, ["a,a.png", f"b,{file}"]).leaks == [LEAK]


OTHERS = {
    "a pixel": ("x.png", np.where(np.arange(24) == 3, IMAGE ^ 1, IMAGE)),
    "mirrored": ("x.png", IMAGE[:, ::-1]),
    "turned": ("x.png", IMAGE[::-1, ::-1]),
    "another shape": ("x.png", IMAGE.reshape(24, 20)),
    "cropped": ("x.png", IMAGE[1:]),
    "twice as bright": ("x.png", DEEP * 2),
    "a colour": ("x.png", np.dstack([IMAGE, IMAGE, IMAGE // 2])),
    "a negative": ("x.tif", 255 - IMAGE),
    "signed": ("x.tif", IMAGE.astype(np.int16) - 5),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_images_are_no_copies(name: str, tmp_path: Path) -> None:
    write(tmp_path / "a.png", IMAGE)
    file, values = OTHERS[name]
    write(tmp_path / file, np.ascontiguousarray(values))
    assert checked(tmp_path, ["a,a.png", f"b,{file}"]).leaks == []


def test_flat_images_differ_by_their_level() -> None:
    levels = [np.full((4, 4), level, kind) for kind in (np.uint8,) for level in range(256)]
    levels += [
        np.full((4, 4), level, np.uint16)
        for level in range(257, 2000)
        if level % 256 and level % 257 and level % 16
    ]
    levels += [
        np.full((4, 5), 3, np.uint8),
        np.full((4, 4), -3, np.float32),
        np.full((4, 4), 0.3, np.float32),
    ]
    assert len({fingerprint(image) for image in levels}) == len(levels)


def test_twelve_bits_shifted_to_sixteen() -> None:
    values = np.random.default_rng(1).integers(0, 4096, (9, 9), np.uint16)
    assert fingerprint(values) == fingerprint(values * 16)
    assert fingerprint(np.zeros((3, 3), np.float32)) == fingerprint(-np.zeros((3, 3), np.float32))
    signed = np.array([[-2.5, 0.0]], np.float32)
    assert fingerprint(signed) == fingerprint(np.array([[-2.5, -0.0]], np.float32))


def test_pages_and_boxes_of_one_file_are_no_copies(tmp_path: Path) -> None:
    """Even where they look alike; under the same page and box, and in another file, they are."""
    tifffile.imwrite(tmp_path / "s.tif", np.stack([IMAGE, IMAGE]), photometric="minisblack")
    write(tmp_path / "f.png", np.zeros((8, 8), np.uint8))
    write(tmp_path / "g.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "link.png").symlink_to("f.png")
    rows = ["a,s.tif,1,", "b,s.tif,2,", "a,f.png,,0 0 4 4", "b,f.png,,4 4 8 8", "b,link.png,,0 4 4 8"]
    assert checked(tmp_path, rows).leaks == []
    found = checked(tmp_path, [*rows, "b,s.tif,1,", "c,g.png,,"]).leaks
    assert [line.split(":")[0] for line in found] == ["manifest rows 2 and 7", "manifest rows 4 and 8"]


def test_a_copy_is_found_behind_rows_that_are_none(tmp_path: Path) -> None:
    """The first image of a content may be of a patient without a part, or of the same part."""
    for name in "xyzw":
        write(tmp_path / f"{name}.png", IMAGE)
    found = checked(tmp_path, ["nobody,x.png", "a,y.png", "d,z.png", "b,w.png"]).leaks
    assert "manifest rows 3 and 5: one image under patients a (train) and b (test)" in found


def test_files_that_hold_no_image_are_compared_by_their_bytes(tmp_path: Path) -> None:
    for name in "xy":
        (tmp_path / f"{name}.png").write_bytes(b"noise")
    write(tmp_path / "z.png", IMAGE)
    found = checked(tmp_path, ["a,x.png", "b,y.png", "c,z.png"])
    assert found.leaks == [LEAK]
    assert found.by_bytes == [
        "2 of 3 image files hold no usable image (the first is that of manifest row 2, x.png); "
        "they were compared by their bytes"
    ]


def test_the_own_store_saves_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png", IMAGE)
    write(tmp_path / "x.tif", DEEP * 257)
    assert checked(tmp_path, ["a,a.png", "b,x.tif"]).leaks == [LEAK]
    execute(
        "prepare", build(prepare.Config, {"manifest": tmp_path, "size": 4}, "prepare"), tmp_path / "store"
    )
    assert sorted(read_fingerprints(tmp_path / "store")) == ["i0", "i1"]
    monkeypatch.setattr("trabecula.data.copies.read", None)  # nothing is decoded
    for pool in ("store", "store/store.json"):
        found = check(read_manifest(tmp_path), tmp_path / "splits.csv", pools=[tmp_path / pool])
        assert found.leaks == [LEAK]


def test_a_copy_in_the_store_of_another_cohort(tmp_path: Path) -> None:
    """The test patient's image stands in the pool under another name."""
    (tmp_path / "pool").mkdir()
    write(tmp_path / "pool/q.tif", DEEP * 257)
    (tmp_path / "pool/manifest.csv").write_text("image_id,patient_id,path\nq,other,q.tif\n")
    settings = build(prepare.Config, {"manifest": tmp_path / "pool", "size": 4}, "prepare")
    execute("prepare", settings, tmp_path / "store")
    write(tmp_path / "a.png", 255 - IMAGE)
    write(tmp_path / "b.png", IMAGE)
    found = checked(tmp_path, ["a,a.png", "b,b.png"], pools=[tmp_path / "store"])
    (leak,) = found.leaks
    assert leak.startswith("manifest row 3: the image of test patient b is in the pool ")
    write(tmp_path / "b.png", IMAGE // 2)
    assert checked(tmp_path, ["a,a.png", "b,b.png"], pools=[tmp_path / "store"]).leaks == []


def test_the_summary_says_what_is_not_found(tmp_path: Path) -> None:
    write(tmp_path / "a.png", IMAGE)
    write(tmp_path / "b.png", IMAGE.T)
    checked(tmp_path, ["a,a.png", "b,b.png"])
    values = {"manifest": tmp_path, "splits": tmp_path / "splits.csv", "check": True}
    said = execute("split", build(split.Config, values, "split"), tmp_path / "check")
    assert "copies that were resized, cropped, mirrored or compressed with loss (JPEG) are not found" in str(
        said
    )


def test_ten_thousand_images_are_compared_in_little_time(tmp_path: Path) -> None:
    """With fingerprints; blank images of one part among them."""
    num = 10_000
    write(tmp_path / "a.png", IMAGE)
    table = pd.DataFrame({"image_id": [f"i{k}" for k in range(num)], "patient_id": "a", "path": "a.png"})
    table.loc[num - 1, "patient_id"] = "b"
    table.to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "splits.csv").write_text("patient_id,split\na,train\nb,test\n")
    known = {f"i{k}": "same" for k in range(num)}
    started = time.process_time()
    found = find_copies(read_manifest(tmp_path), {"a": {"train"}, "b": {"test"}}, known)
    assert time.process_time() - started < 10
    assert found.leaks == [LEAK.replace("2 and 3", f"2 and {num + 1}")]
