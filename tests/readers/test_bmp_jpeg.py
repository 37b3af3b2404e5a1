"""BMPs and JPEGs written byte by byte: kinds of pixels, and metadata that touches none."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from handmade import bmp, jpeg, pack, segment
from PIL import Image

from trabecula.readers.raster import Raster
from trabecula.readers.reader import Rejected, Source

HEIGHT, WIDTH = 5, 7
RAMP = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
COLOUR = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def decoded(folder: Path, data: bytes, page: int | None = None) -> np.ndarray:
    (folder / "x").write_bytes(data)
    return Raster(max_pixels=100_000).read(Source(folder / "x", page))


# ---- BMP


def padded(rows: list[bytes]) -> list[bytes]:
    return [row + bytes(-len(row) % 4) for row in rows]


def both_ways(rows: list[bytes], bits: int, palette: bytes = b"") -> tuple[bytes, bytes]:
    """The rows from the top as a bottom-up and as a top-down BMP."""
    rows = padded(rows)
    up = bmp(b"".join(rows[::-1]), WIDTH, HEIGHT, bits, palette)
    return up, bmp(b"".join(rows), WIDTH, -HEIGHT, bits, palette)


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("grey", [True, False])
def test_bmp_palette(grey: bool, bits: int, tmp_path: Path) -> None:
    table = np.random.default_rng(bits).integers(0, 256, (1 << bits, 3), np.uint8)
    if grey:
        table[:] = table[:, :1]
    indices = RAMP % (1 << bits)
    palette = b"".join(bytes([*entry[::-1], 0]) for entry in table.tolist())
    for data in both_ways([pack(row, bits) for row in indices.tolist()], bits, palette):
        pixels = decoded(tmp_path, data)
        planes = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        assert np.array_equal(planes, table[indices])


def test_bmp_black_may_be_the_second_colour(tmp_path: Path) -> None:
    palette = bytes([255, 255, 255, 0, 0, 0, 0, 0])
    for data in both_ways([pack(row, 1) for row in (RAMP % 2).tolist()], 1, palette):
        pixels = decoded(tmp_path, data)
        assert all(np.array_equal(pixels[..., i], 255 * (1 - RAMP % 2)) for i in range(3))


def test_bmp_colour(tmp_path: Path) -> None:
    for data in both_ways([row[:, ::-1].tobytes() for row in COLOUR], 24):
        assert np.array_equal(decoded(tmp_path, data), COLOUR)
    fourth = np.full((HEIGHT, WIDTH, 1), 9, np.uint8)  # is reserved, and no alpha
    for data in both_ways([row.tobytes() for row in np.concatenate([COLOUR[..., ::-1], fourth], axis=2)], 32):
        assert np.array_equal(decoded(tmp_path, data), COLOUR)
    five = COLOUR.astype(np.uint16) >> 3
    packed = five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]
    for data in both_ways([row.astype("<u2").tobytes() for row in packed], 16):
        assert np.abs(decoded(tmp_path, data) - five * (255 / 31)).max() <= 1


@pytest.mark.parametrize("bits", [4, 8])
def test_bmp_run_lengths(bits: int, tmp_path: Path) -> None:
    """Runs of one value, a literal run, end of line, end of image; 4 bits: pairs of values."""
    table = np.random.default_rng(bits).integers(0, 256, (16, 3), np.uint8)
    palette = b"".join(bytes([*entry[::-1], 0]) for entry in table.tolist()) + bytes(4 * ((1 << bits) - 16))
    row = [3, 3, 3, 3, 1, 2, 5]
    literal = bytes([1, 2, 5, 0]) if bits == 8 else bytes([0x12, 0x50])
    line = bytes([4, 3 if bits == 8 else 0x33, 0, 3]) + literal + b"\0\0"
    flat = bytes([7, 4 if bits == 8 else 0x44]) + b"\0\0"
    data = bmp(line + flat * 4 + b"\0\1", WIDTH, HEIGHT, bits, palette, compression=1 if bits == 8 else 2)
    expected = np.full((HEIGHT, WIDTH), 4)
    expected[-1] = row  # the first row that is stored is the lowest
    assert np.array_equal(decoded(tmp_path, data), table[expected])


def with_header(
    size: int, rows: list[bytes], bits: int, compression: int = 0, masks: tuple[int, ...] = (),
    palette: bytes = b"",
) -> bytes:  # fmt: skip
    """A bottom-up BMP whose header has 12 (OS/2 1), 40, 52, 56, 64 (OS/2 2), 108 (V4) or 124 (V5) bytes.

    masks: of red, green, blue and alpha; behind a header of 40 bytes, in a longer one.
    """
    pixels = b"".join(padded(rows)[::-1])
    if size == 12:
        info = struct.pack("<IHHHH", size, WIDTH, HEIGHT, 1, bits)
    else:
        colours = len(palette) // 4
        info = struct.pack(
            "<IiiHHIIiiII", size, WIDTH, HEIGHT, 1, bits, compression, len(pixels), 0, 0, colours, colours
        )
    info = (info + struct.pack(f"<{len(masks)}I", *masks)).ljust(size, b"\0") + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(pixels), 0, 0, 14 + len(info)) + info + pixels


FIVE_SIX_FIVE = (0xF800, 0x07E0, 0x001F)


@pytest.mark.parametrize(
    ("size", "masks"), [(40, FIVE_SIX_FIVE), (52, FIVE_SIX_FIVE), (108, (*FIVE_SIX_FIVE, 0))]
)
def test_bmp_of_5_6_and_5_bits(size: int, masks: tuple[int, ...], tmp_path: Path) -> None:
    deep = COLOUR.astype(np.uint16) >> (3, 2, 3)
    rows = [row.astype("<u2").tobytes() for row in deep[..., 0] << 11 | deep[..., 1] << 5 | deep[..., 2]]
    pixels = decoded(tmp_path, with_header(size, rows, 16, 3, masks))
    assert np.abs(pixels - deep * 255 / (31, 63, 31)).max() < 1


@pytest.mark.parametrize("size", [56, 108, 124])
@pytest.mark.parametrize("order", ["BGRA", "RGBA"])
def test_bmp_transparency_is_put_on_black(order: str, size: int, tmp_path: Path) -> None:
    """Where the masks name an alpha; without one the fourth byte means nothing."""
    alpha = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)
    stored = np.concatenate([COLOUR, alpha], axis=2)[..., ["RGBA".index(letter) for letter in order]]
    rows = [row.tobytes() for row in stored]
    masks = tuple(0xFF << 8 * order.index(letter) for letter in "RGBA")
    on_black = np.rint(COLOUR / 255 * alpha)
    assert np.array_equal(decoded(tmp_path, with_header(size, rows, 32, 3, masks)), on_black)
    if order == "BGRA":
        assert np.array_equal(decoded(tmp_path, with_header(size, rows, 32, 3, (*masks[:3], 0))), COLOUR)
        assert np.array_equal(decoded(tmp_path, with_header(size, rows, 32)), COLOUR)


@pytest.mark.parametrize("size", [12, 64])
def test_bmp_of_os2(size: int, tmp_path: Path) -> None:
    """A palette has three bytes a colour in the first version, four in the second."""
    rows = [row[:, ::-1].tobytes() for row in COLOUR]
    assert np.array_equal(decoded(tmp_path, with_header(size, rows, 24)), COLOUR)
    for bits in (1, 4, 8):
        table = np.random.default_rng(bits).integers(0, 256, (1 << bits, 3), np.uint8)
        palette = b"".join(bytes(entry[::-1]) + b"\0" * (size == 64) for entry in table.tolist())
        indices = RAMP % (1 << bits)
        data = with_header(size, [pack(row, bits) for row in indices.tolist()], bits, palette=palette)
        assert np.array_equal(decoded(tmp_path, data), table[indices])


@pytest.mark.parametrize(
    ("size", "bits", "compression", "masks", "what"),
    [
        (40, 24, 4, (), "BMP compression 4 (JPEG inside a BMP)"),
        (124, 0, 4, (), "BMP compression 4 (JPEG inside a BMP)"),
        (108, 0, 5, (), "BMP compression 5 (PNG inside a BMP)"),
        (64, 1, 3, (), "BMP compression 3 (Huffman codes of OS/2)"),
        (64, 24, 4, (), "BMP compression 4 (run lengths of OS/2)"),
        (40, 32, 11, (), "BMP compression (11)"),
        (56, 32, 3, (0x3FF00000, 0xFFC00, 0x3FF, 0), "BMP bitfields layout"),
        (40, 16, 3, (0xF00, 0xF0, 0xF), "BMP bitfields layout"),
        (56, 16, 3, (0x7C00, 0x3E0, 0x1F, 0x8000), "BMP of 16 bits with transparency"),
        (40, 2, 0, (), "BMP pixel depth (2)"),
    ],
)
def test_kinds_of_bmp_that_are_not_read(
    size: int, bits: int, compression: int, masks: tuple[int, ...], what: str, tmp_path: Path
) -> None:
    data = with_header(size, [bytes(4 * WIDTH)] * HEIGHT, bits, compression, masks)
    with pytest.raises(Rejected) as rejected:
        decoded(tmp_path, data)
    assert str(rejected.value) == f"{what} is not supported; save it as PNG"


def test_a_damaged_bmp_is_called_so(tmp_path: Path) -> None:
    no_bits = with_header(56, [bytes(4 * WIDTH)] * HEIGHT, 32, 3, (0, 0, 0, 0))
    no_depth = with_header(40, [bytes(4 * WIDTH)] * HEIGHT, 0)
    for data in (no_bits, no_depth):
        with pytest.raises(Rejected, match=r"^damaged file: "):
            decoded(tmp_path, data)


# ---- JPEG


def flat_colour(folder: Path, data: bytes) -> list[int]:
    """The one colour of a flat image."""
    pixels = decoded(folder, data)
    assert pixels.shape[:2] == (8, 8)
    assert np.ptp(pixels, axis=(0, 1)).max() == 0
    return np.atleast_1d(pixels[0, 0]).tolist()


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe\0d\0\0\0\0" + bytes([transform]))


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
YCC, AS_RGB = (120, 100, 160), (165, 107, 70)  # Y + 1.402 Cr', Y - 0.344 Cb' - 0.714 Cr', Y + 1.772 Cb'


def test_jpeg_colours(tmp_path: Path) -> None:
    """Grey, YCbCr, RGB, CMYK and YCCK; Adobe's CMYK is inverted."""
    assert flat_colour(tmp_path, jpeg([77])) == [77]
    assert np.abs(np.subtract(flat_colour(tmp_path, jpeg(YCC, JFIF)), AS_RGB)).max() <= 1
    assert np.abs(np.subtract(flat_colour(tmp_path, jpeg(YCC, adobe(1))), AS_RGB)).max() <= 1
    assert np.abs(np.subtract(flat_colour(tmp_path, jpeg(YCC)), AS_RGB)).max() <= 1
    assert flat_colour(tmp_path, jpeg(YCC, adobe(0))) == list(YCC)
    assert flat_colour(tmp_path, jpeg(YCC, ids=b"RGB")) == list(YCC)
    light = 200 / 255  # of black, the others likewise as Adobe stores them: 255 is no ink
    cmyk = flat_colour(tmp_path, jpeg([*YCC, 200], adobe(0)))
    assert np.abs(np.subtract(cmyk, np.multiply(YCC, light))).max() <= 1.5
    ycck = flat_colour(tmp_path, jpeg([*YCC, 200], adobe(2)))  # C = 255 - R and so on, K as it is (libjpeg)
    assert np.abs(np.subtract(ycck, np.multiply(np.subtract(255, AS_RGB), light))).max() <= 1.5


NOISE = bytes(range(256))
BROKEN: dict[str, Callable[[], bytes]] = {
    "EXIF of noise": lambda: segment(0xE1, b"Exif\0\0MM\0*" + NOISE),
    "EXIF that points nowhere": lambda: segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
    "empty EXIF": lambda: segment(0xE1, b"Exif\0\0"),
    "XMP of noise": lambda: segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<tiff:Orientation>\xff\xfe"),
    "part of a profile": lambda: segment(0xE2, b"ICC_PROFILE\0\x07\x02" + NOISE),
    "multi-picture index of noise": lambda: segment(0xE2, b"MPF\0MM\0*" + NOISE),
    "short multi-picture index": lambda: segment(0xE2, b"MPF\0II"),
    "Photoshop's of noise": lambda: segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff"),
    "short JFIF": lambda: segment(0xE0, b"JFIF\0"),
    "short Adobe": lambda: segment(0xEE, b"Adobe"),
    "comment": lambda: segment(0xFE, b"\xff\xd8\xff\xda" * 10),
    "empty segments": lambda: b"".join(segment(0xE0 + k, b"") for k in range(16)),
    "large": lambda: segment(0xE2, bytes(65_000)) * 60,
}


@pytest.mark.parametrize("name", BROKEN)
def test_metadata_of_a_jpeg_touches_no_pixel(name: str, tmp_path: Path) -> None:
    assert flat_colour(tmp_path, jpeg([77], BROKEN[name]())) == [77]
    assert flat_colour(tmp_path, jpeg([77], JFIF, BROKEN[name]())) == [77]


def test_a_jpeg_is_what_pillow_makes_of_it(tmp_path: Path) -> None:
    """Nothing that tells the pixels is left out with the metadata: the decoder gives the same."""
    smooth = np.stack([np.add.outer(np.arange(40), np.arange(33)) * k for k in (3, 2, 1)], axis=2).astype(
        np.uint8
    )
    image = Image.fromarray(smooth)
    for mode in ("L", "RGB", "CMYK"):
        for options in (
            {},
            {"progressive": True},
            {"subsampling": 2},
            {"optimize": True},
            {"restart_marker_rows": 1},
        ):
            buffer = io.BytesIO()
            image.convert(mode).save(buffer, "JPEG", comment=b"x", **options)
            with Image.open(buffer) as opened:
                expected = np.asarray(opened if mode == "L" else opened.convert("RGB"))
            assert np.array_equal(decoded(tmp_path, buffer.getvalue()), expected)


@pytest.mark.parametrize("orientation", range(10))
def test_jpeg_orientation(orientation: int, tmp_path: Path) -> None:
    """As Pillow turns it; damaged metadata beside it changes nothing."""
    scene = np.zeros((16, 24), np.uint8)
    scene[:8, :8], scene[:8, 8:16] = 200, 100
    exif = (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">H", orientation) + bytes(6)
    )
    buffer = io.BytesIO()
    Image.fromarray(scene).save(buffer, "JPEG", quality=100)
    data = buffer.getvalue()
    turned = {
        2: scene[:, ::-1], 3: scene[::-1, ::-1], 4: scene[::-1], 5: scene.T, 6: np.rot90(scene, -1),
        7: scene[::-1, ::-1].T, 8: np.rot90(scene),
    }.get(orientation, scene)  # fmt: skip
    for more in (b"", BROKEN["part of a profile"](), BROKEN["multi-picture index of noise"]()):
        pixels = decoded(tmp_path, data[:2] + segment(0xE1, exif) + more + data[2:])
        assert pixels.shape == turned.shape
        assert np.abs(pixels.astype(int) - turned).max() <= 2


def test_the_pages_of_a_phones_jpeg(tmp_path: Path) -> None:
    """Without a page the first image is meant."""
    frames = [Image.fromarray(np.full((16, 16), level, np.uint8)) for level in (50, 150)]
    frames[0].save(tmp_path / "m", "MPO", save_all=True, append_images=frames[1:])
    data = (tmp_path / "m").read_bytes()
    assert [int(decoded(tmp_path, data, page)[0, 0]) for page in (None, 1, 2)] == [50, 50, 150]
    with pytest.raises(Rejected, match="has no page 3, only 2"):
        decoded(tmp_path, data, 3)


# ---- damage


def test_each_damaged_file_has_one_reason(tmp_path: Path) -> None:
    """Cut anywhere, a header alone, noise behind a signature: one line, and never another error."""
    whole = {"jpeg": jpeg([77], JFIF), "bmp": both_ways([row[:, ::-1].tobytes() for row in COLOUR], 24)[0]}
    for kind, suffix, options in (
        ("PNG", "png", {}),
        ("TIFF", "tif", {}),
        ("TIFF", "lzw", {"compression": "tiff_lzw"}),
    ):
        buffer = io.BytesIO()
        Image.fromarray(COLOUR).save(buffer, kind, **options)
        whole[suffix] = buffer.getvalue()
    for name, data in whole.items():
        full = decoded(tmp_path, data)
        random = np.random.default_rng(0)
        tries = [data[:length] for length in range(len(data))]
        tries += [data[:head] + random.bytes(200) for head in (2, 4, 8, 16, 40)]
        for number, bad in enumerate(tries):
            pixels, reason = None, "one line"
            try:
                pixels = decoded(tmp_path, bad)
            except Rejected as rejection:
                reason = str(rejection)
            assert len(reason) > 7
            assert "\n" not in reason
            if pixels is not None:  # what was cut off carried no pixel, as an end marker
                noise = number >= len(data)
                assert name == "bmp" if noise else np.array_equal(pixels, full), (name, number)


def test_kinds_of_jpeg_that_are_not_read(tmp_path: Path) -> None:
    data = jpeg([77], JFIF)
    deep = data.replace(struct.pack(">BHH", 8, 8, 8), struct.pack(">BHH", 12, 8, 8))
    with pytest.raises(Rejected, match=r"^a JPEG of 12 bits per sample; export it as PNG or TIFF$"):
        decoded(tmp_path, deep)
    for marker in (b"\xff\xc3", b"\xff\xc5", b"\xff\xcb", b"\xff\xcf"):
        with pytest.raises(Rejected, match=r"^a lossless or hierarchical JPEG"):
            decoded(tmp_path, data.replace(b"\xff\xc0", marker))


@pytest.mark.parametrize("kind", ["jpeg", "bmp"])
def test_a_header_that_claims_too_much(kind: str, tmp_path: Path) -> None:
    large = {
        "jpeg": jpeg([77]).replace(struct.pack(">BHH", 8, 8, 8), struct.pack(">BHH", 8, 60_000, 60_000)),
        "bmp": bmp(bytes(100), 60_000, 60_000, 8, bytes(1024)),
    }
    with pytest.raises(Rejected, match="60000 x 60000 pixels, more than the limit of 100,000"):
        decoded(tmp_path, large[kind])
