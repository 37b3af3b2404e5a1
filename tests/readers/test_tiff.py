"""TIFFs written byte by byte: polarity, depth, byte order, layout and colours are read as the tags say."""

from __future__ import annotations

import contextlib
import itertools
import lzma
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from handmade import jpeg, pack, tiff
from PIL import Image

from trabecula import prepare
from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.readers import Readers, read
from trabecula.readers.raster import Raster
from trabecula.readers.reader import Rejected, Source
from trabecula.run import execute

HEIGHT, WIDTH = 5, 7
RAMP = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)  # 0..34
PHOTOMETRIC, ORIENTATION, PLANAR, EXTRA, FORMAT, PALETTE = 262, 274, 284, 338, 339, 320


def decoded(folder: Path, data: bytes, page: int | None = None, limit: int = 100_000) -> np.ndarray:
    (folder / "x.tif").write_bytes(data)
    return Raster(max_pixels=limit).read(Source(folder / "x.tif", page))


def rejected(folder: Path, data: bytes, reason: str, limit: int = 100_000) -> None:
    with pytest.raises(Rejected, match=reason) as rejection:
        decoded(folder, data, limit=limit)
    assert "\n" not in str(rejection.value)


def grey(values: np.ndarray, order: str = "<", big: bool = False, **tags: Any) -> bytes:
    """An uncompressed TIFF of that array, its depth and format from the type."""
    kind = {"u": 1, "i": 2, "f": 3, "c": 6}[values.dtype.kind]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    named = {258: values.dtype.itemsize * 8, FORMAT: kind, **{int(key[1:]): v for key, v in tags.items()}}
    return tiff([data], values.shape[1], values.shape[0], named, order, big)


SCALES: dict[str, float] = {
    "uint8": 7, "uint16": 1800, "uint32": 120_000_000, "uint64": 2.0**58, "int8": 3, "int16": 900,
    "int32": 60_000_000, "int64": 2.0**57, "float16": 0.5, "float32": 0.037, "float64": 1e-9,
}  # fmt: skip


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True), (">", True)])
@pytest.mark.parametrize("name", SCALES)
def test_dark_is_low_at_every_depth(name: str, order: str, big: bool, inverted: bool, tmp_path: Path) -> None:
    """The truth is a ramp that gets brighter; white-is-zero stores its complement."""
    kind = np.dtype(name)
    truth = (RAMP * SCALES[name]).astype(kind)
    if kind.kind == "i":
        truth -= kind.type(15 * SCALES[name])
    stored = truth
    if inverted:
        stored = np.iinfo(kind).max - truth if kind.kind == "u" else -truth
    pixels = decoded(tmp_path, grey(stored, order, big, _262=0 if inverted else 1))
    assert pixels.dtype == {"uint8": np.uint8, "uint16": np.uint16}.get(name, np.float32)
    if name in ("uint8", "uint16"):
        assert np.array_equal(pixels, truth)
    else:  # float32 of the same scale; white-is-zero moves zero
        away = pixels.astype(float) - truth.astype(float)
        assert np.allclose(away, away[0, 0], atol=float(np.ptp(truth.astype(float))) * 1e-6)
        assert inverted or kind.kind == "u" or abs(away[0, 0]) <= abs(float(truth[0, 0])) * 1e-6


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("bits", range(1, 17))
def test_every_number_of_bits(bits: int, inverted: bool, tmp_path: Path) -> None:
    full = (1 << bits) - 1
    truth = np.random.default_rng(bits).integers(0, full + 1, (HEIGHT, WIDTH))
    stored = full - truth if inverted else truth
    rows = b"".join(pack(row, bits) for row in stored.tolist())
    pixels = decoded(
        tmp_path, tiff([rows], WIDTH, HEIGHT, {258: bits, PHOTOMETRIC: 0 if inverted else 1}, ">")
    )
    assert pixels.dtype == (np.uint8 if bits <= 8 else np.uint16)
    assert np.array_equal(pixels, np.rint(truth * 255 / full) if bits < 8 else truth)


def test_deep_integers_that_fit_are_of_16_bits(tmp_path: Path) -> None:
    for kind in ("uint32", "int32", "int16", "int8"):
        pixels = decoded(tmp_path, grey(RAMP.astype(kind)))
        assert pixels.dtype == np.uint16
        assert np.array_equal(pixels, RAMP)


@pytest.mark.parametrize("inverted", [False, True])
def test_small_steps_far_from_zero_are_kept(inverted: bool, tmp_path: Path) -> None:
    truth = (RAMP + 4_000_000_000).astype(np.uint32)
    stored = np.uint32(0xFFFFFFFF) - truth if inverted else truth
    pixels = decoded(tmp_path, grey(stored, _262=0 if inverted else 1))
    assert np.array_equal(np.diff(pixels, axis=1), np.ones((HEIGHT, WIDTH - 1)))
    pixels = decoded(tmp_path, grey(RAMP * 1e-12 + 1.0))
    assert np.allclose(pixels - pixels[0, 0], RAMP * 1e-12, atol=1e-15)


def test_a_store_is_no_negative(tmp_path: Path) -> None:
    """Through `prepare`: kinds that hold the same scene correlate with it."""
    scene = np.add.outer(np.arange(16), np.arange(16)) / 30
    depths = {"uint8": 255, "uint16": 65535, "uint32": 2**32 - 1}
    lines = ["image_id,patient_id,path"]
    for name, zero, order in itertools.product((*depths, "float32", "float64"), (0, 1), "<>"):
        stored = scene if zero else 1 - scene
        file = f"{name}{zero}{'le' if order == '<' else 'be'}"
        values = np.rint(stored * depths[name]) if name in depths else stored
        (tmp_path / f"{file}.tif").write_bytes(grey(values.astype(name), order, _262=zero))
        lines.append(f"{file},{file},{file}.tif")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    execute("prepare", build(prepare.Config, {"manifest": tmp_path, "size": 16}, "prepare"), tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert len(store) == len(lines) - 1
    for image in store.read(slice(None)).numpy()[:, 0]:
        assert np.corrcoef(image.ravel(), scene.ravel())[0, 1] > 0.999


# ---- layout


@pytest.mark.parametrize("order", "<>")
def test_layouts(order: str, tmp_path: Path) -> None:
    """Strips, tiles, planes, predictors and compressions hold the same image."""
    deep = (RAMP * 1800).astype(f"{order}u2")
    differences = np.diff(deep.astype(np.int64), axis=1, prepend=0).astype(f"{order}u2")
    floats = (RAMP * 0.37).astype(np.float32)
    raw = floats.astype(">f4").view(np.uint8).reshape(HEIGHT, WIDTH, 4).transpose(0, 2, 1).reshape(HEIGHT, -1)
    predicted = np.diff(raw.astype(np.int64), axis=1, prepend=0).astype(np.uint8)  # TIFF technical note 3
    tiles = np.zeros((16, 32), f"{order}u2")
    tiles[:HEIGHT, :WIDTH] = deep
    halves = [tiles[:, :16].tobytes(), tiles[:, 16:].tobytes()]
    one, size = {258: 16}, (WIDTH, HEIGHT)
    kinds = {
        "one strip": tiff([deep.tobytes()], *size, one, order),
        "a strip a row": tiff([row.tobytes() for row in deep], *size, one, order),
        "three rows a strip": tiff([deep[:3].tobytes(), deep[3:].tobytes()], *size, one, order),
        "deflate": tiff([zlib.compress(deep.tobytes())], *size, {**one, 259: 8}, order),
        "old deflate": tiff([zlib.compress(deep.tobytes())], *size, {**one, 259: 32946}, order),
        "lzw": tiff([imagecodecs.lzw_encode(deep.tobytes())], *size, {**one, 259: 5}, order),
        "lzma": tiff([lzma.compress(deep.tobytes())], *size, {**one, 259: 34925}, order),
        "zstd": tiff([imagecodecs.zstd_encode(deep.tobytes())], *size, {**one, 259: 50000}, order),
        "packbits": tiff(
            [bytes([len(deep.tobytes()) - 1]) + deep.tobytes()], *size, {**one, 259: 32773}, order
        ),
        "predictor": tiff([zlib.compress(differences.tobytes())], *size, {**one, 259: 8, 317: 2}, order),
        "tile": tiff(halves[:1], *size, {**one, 322: 16, 323: 16}, order),
        "bits from the right": tiff(
            [bytes(int(f"{b:08b}"[::-1], 2) for b in deep.tobytes())], *size, {**one, 266: 2}, order
        ),
    }
    for name, data in kinds.items():
        assert np.array_equal(decoded(tmp_path, data), deep), name
    data = tiff([zlib.compress(predicted.tobytes())], *size, {258: 32, FORMAT: 3, 259: 8, 317: 3}, order)
    assert np.array_equal(decoded(tmp_path, data), floats)


def test_two_tiles_side_by_side(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (16, 32), np.uint8)
    halves = [values[:, :16].tobytes(), values[:, 16:].tobytes()]
    assert np.array_equal(decoded(tmp_path, tiff(halves, 20, 9, {322: 16, 323: 16})), values[:9, :20])


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax(compression: str, tmp_path: Path) -> None:
    """One bit, white-is-zero, as libtiff writes it."""
    bits = np.random.default_rng(0).random((9, 30)) > 0.5
    Image.fromarray(bits).save(tmp_path / "x.tif", compression=compression)
    assert np.array_equal(Raster().read(Source(tmp_path / "x.tif")), bits * np.uint8(255))


@pytest.mark.parametrize("orientation", range(10))
def test_orientation(orientation: int, tmp_path: Path) -> None:
    """TIFF 6.0: what row 0 and column 0 of the stored image are in the scene."""
    scene = RAMP.astype(np.uint8)
    stored = {
        2: scene[:, ::-1], 3: scene[::-1, ::-1], 4: scene[::-1], 5: scene.T, 6: np.rot90(scene),
        7: scene[::-1, ::-1].T, 8: np.rot90(scene, -1),
    }.get(orientation, scene)  # fmt: skip
    pixels = decoded(tmp_path, grey(np.ascontiguousarray(stored), _274=orientation))
    assert np.array_equal(pixels, scene)


# ---- colours

COLOUR = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
ALPHA = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)


def coloured(values: np.ndarray, order: str = "<", **tags: Any) -> bytes:
    samples, bits = values.shape[2], values.dtype.itemsize * 8
    named = {
        258: [bits] * samples,
        277: samples,
        PHOTOMETRIC: 2,
        **{int(key[1:]): v for key, v in tags.items()},
    }
    if named.get(PLANAR) == 2:
        data = [values[..., i].astype(values.dtype.newbyteorder(order)).tobytes() for i in range(samples)]
        named[278] = HEIGHT
    else:
        data = [values.astype(values.dtype.newbyteorder(order)).tobytes()]
    return tiff(data, WIDTH, HEIGHT, named, order)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", [1, 2])
def test_colour(planar: int, order: str, tmp_path: Path) -> None:
    assert np.array_equal(decoded(tmp_path, coloured(COLOUR, order, _284=planar)), COLOUR)
    deep = COLOUR.astype(np.uint16) * 256 + 77
    assert np.array_equal(decoded(tmp_path, coloured(deep, order, _284=planar)), COLOUR)


@pytest.mark.parametrize("planar", [1, 2])
def test_alpha(planar: int, tmp_path: Path) -> None:
    over = np.concatenate([COLOUR, ALPHA], axis=2)
    on_black = np.rint(COLOUR * (ALPHA / 255.0)).astype(np.uint8)
    assert np.array_equal(decoded(tmp_path, coloured(over, _284=planar, _338=2)), on_black)
    assert np.array_equal(
        decoded(tmp_path, coloured(over, _284=planar, _338=1)), COLOUR
    )  # is multiplied already
    assert np.array_equal(decoded(tmp_path, coloured(over, _284=planar, _338=0)), COLOUR)  # means nothing
    both = np.concatenate([COLOUR[..., :1], ALPHA], axis=2)
    assert np.array_equal(decoded(tmp_path, coloured(both, _284=planar, _338=2, _262=1)), on_black[..., 0])
    dark = np.concatenate([255 - COLOUR[..., :1], ALPHA], axis=2)
    assert np.array_equal(decoded(tmp_path, coloured(dark, _284=planar, _338=2, _262=0)), on_black[..., 0])


@pytest.mark.parametrize("scale", [1, 256, 257])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette(bits: int, scale: int, tmp_path: Path) -> None:
    """The palette has 16 bits; some programs write 8."""
    table = np.random.default_rng(bits).integers(0, 256, (3, 1 << bits))
    table[0, 0] = 255
    indices = RAMP % (1 << bits)
    rows = b"".join(pack(row, bits) for row in indices.tolist())
    tags = {258: bits, PHOTOMETRIC: 3, PALETTE: (3, (table * scale).ravel())}
    assert np.array_equal(decoded(tmp_path, tiff([rows], WIDTH, HEIGHT, tags)), table.T[indices])


@pytest.mark.parametrize("inverted", [False, True])
def test_grey_by_jpeg(inverted: bool, tmp_path: Path) -> None:
    data = tiff([jpeg([77])], 8, 8, {259: 7, PHOTOMETRIC: 0 if inverted else 1})
    assert (decoded(tmp_path, data) == (255 - 77 if inverted else 77)).all()


@pytest.mark.parametrize("subsampling", [0, 2])
def test_ycbcr_by_jpeg(subsampling: int, tmp_path: Path) -> None:
    smooth = np.stack([np.add.outer(np.arange(32), np.arange(32)) * k for k in (4, 2, 1)], axis=2).astype(
        np.uint8
    )
    image = Image.fromarray(smooth)
    image.save(tmp_path / "x.tif", compression="jpeg", quality=95, subsampling=subsampling)
    pixels = Raster().read(Source(tmp_path / "x.tif"))
    assert np.abs(pixels.astype(int) - smooth).max() < 12


def test_cmyk(tmp_path: Path) -> None:
    """Without a profile, R = (1 - C) (1 - K)."""
    inks = np.concatenate([COLOUR, ALPHA], axis=2)
    expected = (255.0 - COLOUR) * (255.0 - ALPHA) / 255
    pixels = decoded(tmp_path, coloured(inks, _262=5))
    assert np.abs(pixels - expected).max() <= 1


# ---- what is refused


def test_what_is_not_read_is_rejected_by_name(tmp_path: Path) -> None:
    over = np.concatenate([COLOUR, ALPHA], axis=2)
    one, size = RAMP.astype(np.uint8), (WIDTH, HEIGHT)
    cases = {
        "CIELab colour": coloured(COLOUR, _262=8),
        "raw camera data": grey(one, _262=32803),
        "LogL": grey(one.astype(np.uint16), _262=32844),
        "a transparency mask": grey(one, _262=4),
        "photometric interpretation 77": grey(one, _262=77),
        "does not say whether 0 is black or white": grey(one, _262=None),
        "complex numbers; export their magnitude": grey(one.astype(np.complex64)),
        "3 samples per pixel, which are no grey image": coloured(COLOUR, _262=1),
        "2 samples per pixel, which are no grey image": coloured(COLOUR[..., :2], _262=1, _338=0),
        "4 samples per pixel, which are no grey image": coloured(over, _262=0, _338=[0, 0, 2]),
        "2 samples per pixel, which are no plain image": coloured(COLOUR[..., :2]),
        "YCbCr colour without JPEG compression": coloured(COLOUR, _262=6, _530=[1, 1]),
        "CMYK colour other than plain 8 bits": coloured(over, _262=5, _332=2),
        "samples of different depths .5, 6, 5 bits.": tiff(
            [bytes(70)], *size, {258: [5, 6, 5], 277: 3, 262: 2}
        ),
        "colour or transparency of 32 bits": coloured(COLOUR.astype(np.uint32)),
        r"samples of 24 bits .float": tiff([bytes(105)], *size, {258: 24, FORMAT: 3}),
        "a volume of 2 layers": tiff([bytes(70)], *size, {32997: 2}),
        "no palette": grey(one, _262=3),
        "the compression number 12345 is not read": tiff([bytes(35)], *size, {259: 12345}),
        "the compression JPEG_?2000 is not read": tiff([bytes(35)], *size, {259: 34712}),
        "not finite": grey(np.where(RAMP == 3, np.nan, RAMP)),
        "beyond the range of 32-bit floats": grey(RAMP * 1e300),
    }
    for reason, data in cases.items():
        rejected(tmp_path, data, reason)


def test_missing_pixels_are_never_filled_in(tmp_path: Path) -> None:
    rows = [RAMP[i : i + 1].astype(np.uint8).tobytes() for i in range(HEIGHT)]
    whole = tiff(rows, WIDTH, HEIGHT, {})
    assert np.array_equal(decoded(tmp_path, whole), RAMP)
    rejected(tmp_path, tiff(rows, WIDTH, HEIGHT, {279: (4, [7, 7, 0, 7, 7])}), "1 of its 5 strips or tiles")
    rejected(tmp_path, tiff(rows[:3], WIDTH, HEIGHT, {278: 1}), "2 of its 5 strips or tiles")
    rejected(
        tmp_path, tiff(rows, WIDTH, HEIGHT, {279: (4, [7, 7, 10**6, 7, 7])}), "1 of its 5 strips or tiles"
    )
    rejected(tmp_path, tiff([rows[0]], WIDTH, HEIGHT, {}), "1 of its 1 strips or tiles")
    deflated = zlib.compress(np.random.default_rng(0).bytes(35))
    rejected(tmp_path, tiff([deflated[:20]], WIDTH, HEIGHT, {259: 8}), "damaged file")
    rejected(tmp_path, tiff([zlib.compress(bytes(30))], WIDTH, HEIGHT, {259: 8}), "damaged file")
    rejected(tmp_path, tiff([imagecodecs.lzw_encode(bytes(30))], WIDTH, HEIGHT, {259: 5}), "damaged file")


def test_memory_is_bounded_by_the_limit(tmp_path: Path) -> None:
    small = zlib.compress(bytes(1000))
    rejected(tmp_path, tiff([small], 60_000, 60_000, {259: 8}), "60000 x 60000 pixels, more than the limit")
    tags = {259: 8, 322: (4, 1 << 20), 323: (4, 1 << 20)}
    rejected(tmp_path, tiff([small], 9, 9, tags), "tiles of 1048576 x 1048576 pixels")
    rejected(tmp_path, tiff([small], 9, 9, {259: 8, 277: 60_000}), "60000 samples per pixel")
    zeros = bytes(1 << 27)  # for 81 pixels
    for number, bomb in {
        5: imagecodecs.lzw_encode(zeros), 8: zlib.compress(zeros), 34925: lzma.compress(zeros, preset=1),
        50000: imagecodecs.zstd_encode(zeros),
    }.items():  # fmt: skip
        data = tiff([bomb], 9, 9, {259: number})
        tracemalloc.start()
        with contextlib.suppress(Rejected):
            assert decoded(tmp_path, data).shape == (9, 9)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10_000_000, number
    large = jpeg([77]).replace(struct.pack(">BHH", 8, 8, 8), struct.pack(">BHH", 8, 20_000, 20_000))
    rejected(tmp_path, tiff([large], 8, 8, {259: 7}), "a JPEG in it is larger than its strip or tile")
    rejected(tmp_path, tiff([bytes(2_000_000)], 9, 9, {259: 8}), "more bytes in a strip or tile")


def test_broken_metadata_touches_no_pixel(tmp_path: Path) -> None:
    """EXIF and GPS folders that point nowhere, texts that are none, a profile of noise."""
    data = grey(
        RAMP.astype(np.uint8), _34665=(4, 99_999_999), _34853=(4, 3), _270=(2, b"\xff\xfe\0\x80"),
        _34675=(1, bytes(500)), _700=(1, b"<x:xmpmeta"), _33432=(4, [1, 2, 3]), _330=(13, 77_777_777),
        _305=(2, b"ImageJ=1.11a\nimages=9999\n\0"), _282=(3, 0),
    )  # fmt: skip
    assert np.array_equal(decoded(tmp_path, data), RAMP)


def test_pages(tmp_path: Path) -> None:
    pages = [RAMP.astype(np.uint16) * k for k in (1, 2, 3)]
    tifffile.imwrite(tmp_path / "p.tif", np.stack(pages), photometric="miniswhite")
    for number, page in enumerate(pages, 1):
        pixels = read(Source(tmp_path / "p.tif", number), Readers())
        assert np.array_equal(pixels, 65535 - page)
    with pytest.raises(Rejected, match="holds 3 images, one is needed"):
        read(Source(tmp_path / "p.tif"), Readers())
    with pytest.raises(Rejected, match="has no page 4, only 3"):
        read(Source(tmp_path / "p.tif", 4), Readers())
