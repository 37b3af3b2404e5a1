"""Decoding and rendering: every kind of file gives the right pixels, or one reason."""

from __future__ import annotations

import errno
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trabecula.readers.raster import Raster
from trabecula.readers.reader import Rejected, Source
from trabecula.readers.rendering import Rendering, render

LIMIT = 100_000_000


def decode(path, max_pixels):
    return Raster(max_pixels=max_pixels).read(Source(path))


RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def saved(tmp_path, image, name="x.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def rendered(pixels, size=6, channels=1, bits=8, fit="stretch", intensity="percentile", mirror=False):
    return render(pixels, Rendering(size, channels, bits, fit, intensity), mirror)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width, height):
    """A PNG of that size whose pixel data is next to nothing: a bomb."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.bmp"])
def test_lossless_grey(tmp_path, name):
    pixels = decode(saved(tmp_path, Image.fromarray(RAMP), name), LIMIT)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, RAMP)


def test_jpeg(tmp_path):
    pixels = decode(saved(tmp_path, Image.fromarray(RAMP), "x.jpg", quality=98), LIMIT)
    assert np.abs(pixels.astype(int) - RAMP).max() < 8


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bits(tmp_path, name):
    deep = RAMP.astype(np.uint16) * 257
    pixels = decode(saved(tmp_path, Image.fromarray(deep), name), LIMIT)
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, deep)


@pytest.mark.parametrize("mode", ["RGB", "P", "1", "RGBA", "LA", "CMYK"])
def test_modes_become_grey_or_colour(tmp_path, mode):
    image = Image.fromarray(RAMP).convert(mode)
    pixels = decode(saved(tmp_path, image, "x.tif"), LIMIT)
    assert pixels.dtype == np.uint8
    expected = np.asarray(image.convert("L"))
    grey = rendered(pixels, 8, fit="pad")[0][1:7]
    assert np.abs(grey.astype(int) - expected).max() <= 1
    assert rendered(pixels, 8, channels=3).shape == (3, 8, 8)


def test_transparency_lies_on_black(tmp_path):
    colour = np.full((4, 4, 4), 200, dtype=np.uint8)
    colour[:2, :, 3] = 0
    colour[2:, :, 3] = 255
    pixels = decode(saved(tmp_path, Image.fromarray(colour)), LIMIT)
    assert pixels[0].max() == 0
    assert pixels[3].min() == 200


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of the stored image
    path = saved(tmp_path, Image.fromarray(RAMP), "x.png", exif=exif)
    assert np.array_equal(decode(path, LIMIT), np.rot90(RAMP, -1))


def test_float_tiff(tmp_path):
    deep = RAMP.astype(np.float32) * 1000 - 500
    pixels = decode(saved(tmp_path, Image.fromarray(deep), "x.tif"), LIMIT)
    assert pixels.dtype == np.float32
    assert rendered(pixels, 8).dtype == np.uint8
    with pytest.raises(Rejected, match="beyond 16 bits"):
        rendered(pixels, intensity="as-is")
    deep[0, 0] = np.nan
    with pytest.raises(Rejected, match="values that are not finite"):
        decode(saved(tmp_path, Image.fromarray(deep), "y.tif"), LIMIT)


# ---- rendering


def test_eight_bits_are_never_stretched():
    assert np.array_equal(rendered(RAMP[:, :6])[0], RAMP[:, :6])
    assert np.array_equal(rendered(RAMP[:, :6], bits=16)[0], RAMP[:, :6].astype(np.uint16) * 257)


def test_as_is_takes_the_whole_range():
    deep = np.array([[0, 65535], [257, 257 * 128]], dtype=np.uint16)
    assert rendered(deep, 2, intensity="as-is")[0].tolist() == [[0, 255], [1, 128]]
    assert np.array_equal(rendered(deep, 2, bits=16, intensity="as-is")[0], deep)


def test_percentiles_clip_outliers():
    values = np.random.default_rng(0).integers(1000, 2000, (64, 64)).astype(np.uint16)
    values[0, 0], values[5, 5] = 65535, 0
    low, high = np.percentile(values, [0.5, 99.5])
    expected = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
    assert np.abs(rendered(values, 64)[0] - expected).max() <= 1


def test_a_constant_deep_image_is_black():
    assert rendered(np.full((4, 4), 700, dtype=np.uint16), 4).max() == 0


def test_fits():
    wide = np.zeros((10, 30), dtype=np.uint8)
    wide[:, 10:20] = 200
    assert rendered(wide, 10, fit="crop")[0].min() > 150  # the centre alone, but for ringing
    stretched = rendered(wide, 30, fit="stretch")[0]
    assert (stretched[:, 12:18] > 150).all()
    assert stretched[:, :8].max() < 30
    padded = rendered(wide, 30, fit="pad")[0]
    assert padded[:10].max() == padded[20:].max() == 0
    assert np.array_equal(padded[10:20], wide)


def test_mirror():
    assert np.array_equal(rendered(RAMP[:, :6], mirror=True)[0], RAMP[:, 5::-1])


def test_resampling_does_not_alias():
    stripes = np.tile(np.array([[0, 255]], dtype=np.uint8), (256, 128))
    small = rendered(stripes, 32)[0]
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() <= 2


def test_colour_to_grey_is_rec_601():
    colour = np.zeros((2, 2, 3), dtype=np.uint8)
    colour[0, 0] = (255, 0, 0)
    colour[0, 1] = (0, 255, 0)
    colour[1, 0] = (0, 0, 255)
    assert rendered(colour, 2)[0].tolist() == [[76, 150], [29, 0]]
    assert np.array_equal(rendered(colour, 2, channels=3), colour.transpose(2, 0, 1))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.sampled_from([1, 3]),
    st.sampled_from([8, 16]), st.sampled_from(["crop", "pad", "stretch"]),
    st.sampled_from([np.uint8, np.uint16]),
)  # fmt: skip
def test_any_shape_gives_the_asked_square(height, width, size, channels, bits, fit, dtype):
    pixels = np.random.default_rng(height * 41 + width).integers(0, 255, (height, width)).astype(dtype)
    result = rendered(pixels, size, channels, bits, fit)
    assert result.shape == (channels, size, size)
    assert result.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert result.flags.c_contiguous


# ---- rejections


def noise(tmp_path):
    return saved(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)))


def corrupt(tmp_path):
    path = noise(tmp_path)
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(200)
    path.write_bytes(data)
    return path


def truncated(tmp_path):
    path = noise(tmp_path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def bomb(tmp_path):
    (tmp_path / "x.png").write_bytes(png_header(60_000, 60_000))
    return tmp_path / "x.png"


def empty(tmp_path):
    (tmp_path / "x.png").touch()
    return tmp_path / "x.png"


def text(tmp_path):
    (tmp_path / "x.png").write_text("not an image")
    return tmp_path / "x.png"


def stack(tmp_path):
    frames = [Image.fromarray(RAMP)] * 3
    return saved(tmp_path, frames[0], "x.tif", save_all=True, append_images=frames[1:])


def dicom(tmp_path):
    (tmp_path / "001").write_bytes(bytes(128) + b"DICM" + bytes(20))
    return tmp_path / "001"


def gif(tmp_path):
    return saved(tmp_path, Image.fromarray(RAMP), "x.gif")


def folder(tmp_path):
    return tmp_path


def absent(tmp_path):
    return tmp_path / "none.png"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (corrupt, "."), (truncated, "."), (bomb, "60000 x 60000 pixels, more than the limit of 100,000,000"),
        (empty, "an empty file"), (text, "not a readable PNG, JPEG, TIFF or BMP"), (stack, "holds 3 images"),
        (dicom, "a DICOM file; export it"), (gif, "not a readable"), (folder, "is a folder"),
        (absent, "no such file"),
    ],
)  # fmt: skip
def test_bad_files_have_a_reason(tmp_path, make, reason):
    path = make(tmp_path)
    with pytest.raises(Rejected, match=reason) as rejection:
        decode(path, LIMIT)
    assert str(tmp_path) not in str(rejection.value)
    assert "\n" not in str(rejection.value)


def test_the_limit_is_ours_not_the_decoders(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP))
    assert decode(path, 48).shape == (6, 8)
    with pytest.raises(Rejected, match="8 x 6 pixels, more than the limit of 47"):
        decode(path, 47)
    before = Image.MAX_IMAGE_PIXELS
    decode(path, LIMIT)
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_lost_drive_is_no_bad_file(monkeypatch):
    def lost(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", lost)
    with pytest.raises(OSError, match="Input/output error"):
        decode(Path("x.png"), LIMIT)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_noise_is_rejected_or_decoded_never_a_crash(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("noise") / "x"
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "TIFF", "BMP"]))
    Image.fromarray(RAMP).save(path, format=kind)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        pixels = decode(path, 10_000)
    except Rejected:
        return
    assert pixels.ndim in (2, 3)
