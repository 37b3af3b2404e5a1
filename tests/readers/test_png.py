"""PNGs written byte by byte: every kind of pixel, transparency, and metadata that touches no pixel."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from handmade import chunk, pack, png
from PIL import Image

from trabecula.readers.raster import Raster
from trabecula.readers.reader import Rejected, Source

HEIGHT, WIDTH = 5, 7
RAMP = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
PIXELS = [row.astype(np.uint8).tobytes() for row in RAMP]


def decoded(folder: Path, data: bytes, page: int | None = None) -> np.ndarray:
    (folder / "x.png").write_bytes(data)
    return Raster(max_pixels=100_000).read(Source(folder / "x.png", page))


def rows_of(values: np.ndarray) -> list[bytes]:
    """Packed rows of (H, W) or (H, W, C), big-endian."""
    return [row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey(bits: int, tmp_path: Path) -> None:
    """Also where one value is transparent: that one becomes black."""
    full = (1 << bits) - 1
    values = np.random.default_rng(bits).integers(0, full + 1, (HEIGHT, WIDTH))
    rows = [pack(row, bits) for row in values.tolist()]
    truth = values * (255 // full) if bits <= 8 else values
    pixels = decoded(tmp_path, png(rows, WIDTH, bits, GREY))
    assert pixels.dtype == (np.uint16 if bits == 16 else np.uint8)
    assert np.array_equal(pixels, truth)
    clear = int(values.max())
    pixels = decoded(tmp_path, png(rows, WIDTH, bits, GREY, chunk(b"tRNS", struct.pack(">H", clear))))
    assert np.array_equal(pixels, np.where(values == clear, 0, truth))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette(bits: int, tmp_path: Path) -> None:
    random = np.random.default_rng(bits)
    table = random.integers(0, 256, (1 << bits, 3), np.uint8)
    indices = RAMP % (1 << bits)
    rows = [pack(row, bits) for row in indices.tolist()]
    colours = chunk(b"PLTE", table.tobytes())
    assert np.array_equal(decoded(tmp_path, png(rows, WIDTH, bits, PALETTE, colours)), table[indices])
    alpha = np.array([0, 128], np.uint8)  # the others are opaque
    faint = table.copy()
    faint[:2] = np.rint(table[:2] * (alpha[:, None] / 255.0))
    data = png(rows, WIDTH, bits, PALETTE, colours, chunk(b"tRNS", alpha.tobytes()))
    assert np.array_equal(decoded(tmp_path, data), faint[indices])


def test_colour_and_alpha(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    colour = random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    alpha = random.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)
    flat = np.rint(colour * (alpha / 255.0))
    assert np.array_equal(decoded(tmp_path, png(rows_of(colour), WIDTH, 8, COLOUR)), colour)
    clear = chunk(b"tRNS", colour[2, 3].astype(">u2").tobytes())
    without = np.where((colour == colour[2, 3]).all(axis=2, keepdims=True), 0, colour)
    assert np.array_equal(decoded(tmp_path, png(rows_of(colour), WIDTH, 8, COLOUR, clear)), without)
    over = np.concatenate([colour, alpha], axis=2)
    assert np.array_equal(decoded(tmp_path, png(rows_of(over), WIDTH, 8, COLOUR_ALPHA)), flat)
    over = np.concatenate([colour[..., :1], alpha], axis=2)
    assert np.array_equal(decoded(tmp_path, png(rows_of(over), WIDTH, 8, GREY_ALPHA)), flat[..., 0])


def test_sixteen_bits_of_colour_and_alpha(tmp_path: Path) -> None:
    """Deep grey keeps its depth, colour is read with its upper 8 bits."""
    random = np.random.default_rng(0)
    colour = random.integers(0, 65536, (HEIGHT, WIDTH, 3), np.uint16)
    alpha = random.integers(0, 65536, (HEIGHT, WIDTH, 1), np.uint16)
    flat = np.rint(colour * (alpha / 65535.0)).astype(np.uint16)
    assert np.array_equal(decoded(tmp_path, png(rows_of(colour), WIDTH, 16, COLOUR)), colour >> 8)
    clear = chunk(b"tRNS", colour[2, 3].astype(">u2").tobytes())
    without = np.where((colour == colour[2, 3]).all(axis=2, keepdims=True), 0, colour >> 8)
    assert np.array_equal(decoded(tmp_path, png(rows_of(colour), WIDTH, 16, COLOUR, clear)), without)
    over = np.concatenate([colour, alpha], axis=2)
    assert np.array_equal(decoded(tmp_path, png(rows_of(over), WIDTH, 16, COLOUR_ALPHA)), flat >> 8)
    over = np.concatenate([colour[..., :1], alpha], axis=2)
    assert np.array_equal(decoded(tmp_path, png(rows_of(over), WIDTH, 16, GREY_ALPHA)), flat[..., 0])


def test_interlaced(tmp_path: Path) -> None:
    """Adam7: seven passes of every so many rows and columns (PNG, 8.2)."""
    passes = [
        (0, 8, 0, 8),
        (0, 8, 4, 8),
        (4, 8, 0, 4),
        (0, 4, 2, 4),
        (2, 4, 0, 2),
        (0, 2, 1, 2),
        (1, 2, 0, 1),
    ]
    data = b""
    for top, down, left, right in passes:
        part = RAMP[top::down, left::right].astype(np.uint8)
        data += b"".join(b"\0" + row.tobytes() for row in part if part.shape[1])
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, GREY, 0, 0, 1)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    assert np.array_equal(decoded(tmp_path, b"\x89PNG\r\n\x1a\n" + body), RAMP)


METADATA = {
    "gamma": chunk(b"gAMA", struct.pack(">I", 20_000)),
    "short gamma": chunk(b"gAMA", b"\0"),
    "large profile": chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 22))),
    "profile of noise": chunk(b"iCCP", b"x\0\0" + bytes(range(256))),
    "large text": chunk(b"iTXt", b"x\0\0\0\0\0" + b"y" * (1 << 21)),
    "packed text": chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 22))),
    "wrong checksum of a text": chunk(b"tEXt", b"a\0b", checksum=1),
    "many texts": chunk(b"tEXt", b"a\0b" * 20) * 3000,
    "EXIF of noise": chunk(b"eXIf", b"MM\0*" + bytes(range(60))),
    "EXIF that points nowhere": chunk(b"eXIf", b"II*\0\xff\xff\xff\x7f"),
    "empty EXIF": chunk(b"eXIf", b""),
    "wrong checksum of EXIF": chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0", checksum=5),
    "raw profile of noise": chunk(b"tEXt", b"Raw profile type exif\0zz\n\n"),
    "XMP of noise": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<<tiff:Orientation>"),
    "short chunks": b"".join(chunk(kind, b"\1") for kind in (b"cHRM", b"sBIT", b"bKGD", b"pHYs", b"tIME")),
    "private": chunk(b"prIv", b"\0" * 100, checksum=0),
}  # fmt: skip


@pytest.mark.parametrize("name", METADATA)
def test_metadata_touches_no_pixel(name: str, tmp_path: Path) -> None:
    assert np.array_equal(decoded(tmp_path, png(PIXELS, WIDTH, 8, GREY, METADATA[name])), RAMP)


def test_metadata_behind_the_pixels(tmp_path: Path) -> None:
    data = png(PIXELS, WIDTH, 8, GREY)
    end = data[:-12]
    for name, more in METADATA.items():
        assert np.array_equal(decoded(tmp_path, end + more + data[-12:] + b"noise"), RAMP), name
    assert np.array_equal(decoded(tmp_path, end), RAMP)  # no IEND
    assert np.array_equal(decoded(tmp_path, end + b"\xff" * 50), RAMP)
    assert np.array_equal(decoded(tmp_path, end + struct.pack(">I4s", 2**31, b"tEXt") + b"x"), RAMP)


def exif(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">H", orientation) + bytes(6)


@pytest.mark.parametrize("form", ["eXIf", "raw profile", "XMP"])
def test_the_orientation_is_found_beside_damage(form: str, tmp_path: Path) -> None:
    """6: the stored image is turned clockwise."""
    raw = (b"Exif\0\0" + exif(6)).hex().encode()
    told = {
        "eXIf": chunk(b"eXIf", exif(6)),
        "raw profile": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n%8d\n" % (len(raw) // 2) + raw),
        "XMP": chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
    }[form]
    data = png(PIXELS, WIDTH, 8, GREY, METADATA["wrong checksum of EXIF"], told, METADATA["large text"])
    assert np.array_equal(decoded(tmp_path, data), np.rot90(RAMP, -1))
    behind = png(PIXELS, WIDTH, 8, GREY)
    assert np.array_equal(decoded(tmp_path, behind[:-12] + told + behind[-12:]), np.rot90(RAMP, -1))


def test_what_carries_pixels_rejects(tmp_path: Path) -> None:
    head = b"\x89PNG\r\n\x1a\n"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, GREY, 0, 0, 0))
    pixels = zlib.compress(b"".join(b"\0" + row for row in PIXELS))
    whole = png(PIXELS, WIDTH, 8, GREY)
    cases = {
        "wrong checksum of IDAT": head + header + chunk(b"IDAT", pixels, checksum=7),
        "wrong checksum of IHDR": head + header[:-1] + b"\0" + chunk(b"IDAT", pixels),
        "wrong checksum of PLTE": png(PIXELS, WIDTH, 8, PALETTE, chunk(b"PLTE", bytes(6), checksum=3)),
        "wrong checksum of tRNS": png(PIXELS, WIDTH, 8, GREY, chunk(b"tRNS", bytes(2), checksum=3)),
        "cut short in IDAT": whole[:-20],
        "cut short in IHDR": whole[:20],
        "no header": head,
        "damaged file": head + header,
        "damaged file: .": head + chunk(b"IDAT", pixels),
        "[Nn]ot enough": png(PIXELS[:3], WIDTH, 8, GREY).replace(
            chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, 3, 8, GREY, 0, 0, 0)), header
        ),
        "0 x 5 pixels": png(PIXELS, 0, 8, GREY),
        "damaged file: [^0]": png(PIXELS, WIDTH, 3, GREY),
        "more bytes in IDAT": head + header + chunk(b"IDAT", bytes(2_000_000)),
    }
    for reason, data in cases.items():
        with pytest.raises(Rejected, match=reason):
            decoded(tmp_path, data)


def test_an_animation_is_several_images(tmp_path: Path) -> None:
    frames = [Image.fromarray(RAMP.astype(np.uint8) * k) for k in (1, 2, 3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(Rejected, match="holds 3 images, one is needed"):
        Raster().read(Source(tmp_path / "a.png"))
    with pytest.raises(Rejected, match="has no page 4, only 3"):
        Raster().read(Source(tmp_path / "a.png", 4))
    for page in (1, 2, 3):
        assert np.array_equal(Raster().read(Source(tmp_path / "a.png", page)), RAMP * page)
