"""TIFF: the tags say what the samples mean.

TIFF 6.0 (Adobe 1992). Pillow and libtiff do not read white-is-zero, 32 bits and floats as the tags say.
What is not read here is rejected by name, not guessed.
"""

from __future__ import annotations

import io
import logging
import math
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from trabecula.readers.reader import Rejected
from trabecula.readers.samples import Samples, check_page, check_size, flatten, on_black, orient

if TYPE_CHECKING:
    from tifffile import TiffPage

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_OTHERS = {
    4: "a transparency mask", 8: "CIELab colour", 9: "ICCLab colour", 10: "ITULab colour",
    32803: "raw camera data", 32844: "LogL", 32845: "LogLuv colour", 34892: "raw camera data",
}  # fmt: skip
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4  # SampleFormat; undefined samples are read as unsigned
_ASSOCIATED, _UNASSOCIATED = 1, 2  # ExtraSamples: alpha that the colours are multiplied with already, or not
_PHOTOMETRIC_TAG, _ORIENTATION_TAG, _INK_SET_TAG = 262, 274, 332
_NONE, _JPEG = 1, 7  # Compression
_COMPRESSIONS = {
    _NONE: "", 2: "CCITT", 3: "fax 3", 4: "fax 4", 5: "LZW", _JPEG: "JPEG", 8: "deflate", 32773: "PackBits",
    32946: "deflate", 34925: "LZMA", 50000: "Zstandard",
}  # fmt: skip
_LARGEST_TILE = 1 << 24  # pixels, in any image, however small
_MOST_GROWTH = 2  # by which compression may lengthen what it cannot shorten
_MOST_HEADER = 1 << 16  # bytes of a JPEG within which its size is said
_EXPORT = "export it as grey or RGB"


def read_tiff(file: BinaryIO, page: int | None, max_pixels: int) -> Samples:
    """(H, W) uint8, uint16 or float32, or (H, W, 3) uint8; dark is low, whatever the file says.

    Grey of at most 8 bits is stretched to 8; of 9 to 16 it keeps its values. Deeper and signed samples keep
    their scale as float32, or are uint16 if they fit. White-is-zero turns v into 2^bits - 1 - v up to 16
    bits, and into -v beyond.

    Raises:
        Rejected: with the reason.
    """
    from tifffile import TiffFile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it tells of odd metadata
    file.seek(0)
    with TiffFile(file) as tiff:
        check_page(page, len(tiff.pages))
        image = tiff.pages[(page or 1) - 1].aspage()
        check_size(image.imagewidth, image.imagelength, max_pixels)
        _check_samples(image)
        _check_colours(image)
        _check_data(image, tiff.filehandle.size, max_pixels)
        samples = image.asarray(squeeze=False, maxworkers=1)[:, 0]  # (S, H, W, 1) or (1, H, W, S)
        samples = np.moveaxis(samples, 0, -1)[..., 0, :] if image.planarconfig == 2 else samples[0]
        tag = image.tags.valueof(_ORIENTATION_TAG, 1)
        return orient(_pixels(samples, image), tag if isinstance(tag, int) else 1)


def _check_samples(image: TiffPage) -> None:
    """Reject samples of a kind that is not read."""
    bits, kind = image.bitspersample, int(image.sampleformat)
    if isinstance(bits, tuple):
        raise Rejected(f"samples of different depths ({', '.join(map(str, bits))} bits); {_EXPORT}")
    if kind in (5, 6):
        raise Rejected("complex numbers; export their magnitude")
    read = {
        _UNSIGNED: (*range(1, 33), 64), _UNDEFINED: (*range(1, 33), 64),
        _SIGNED: (8, 16, 32, 64), _FLOAT: (16, 32, 64),
    }  # fmt: skip
    if bits not in read.get(kind, ()):
        names = {_UNSIGNED: "unsigned", _UNDEFINED: "undefined", _SIGNED: "signed", _FLOAT: "float"}
        raise Rejected(f"samples of {bits} bits ({names.get(kind, f'sample format {kind}')}); {_EXPORT}")
    if int(image.compression) not in _COMPRESSIONS:
        name = getattr(image.compression, "name", f"number {image.compression}")
        raise Rejected(f"the compression {name} is not read; save it as plain TIFF or PNG")
    if image.imagedepth != 1:
        raise Rejected(f"a volume of {image.imagedepth} layers; export them as single images")


def _check_colours(image: TiffPage) -> None:
    """Reject colours that are not read, and samples that are none."""
    photometric, samples = int(image.photometric), image.samplesperpixel
    if _PHOTOMETRIC_TAG not in image.tags:
        raise Rejected("does not say whether 0 is black or white (no photometric interpretation)")
    if photometric not in _COLOURS:
        raise Rejected(f"{_OTHERS.get(photometric, f'photometric interpretation {photometric}')}; {_EXPORT}")
    extra = samples - _COLOURS[photometric]
    grey = _COLOURS[photometric] == 1
    kinds = tuple(int(kind) for kind in image.extrasamples)
    alpha = kinds in ((_ASSOCIATED,), (_UNASSOCIATED,))
    if extra and not (extra == 1 and (alpha or (photometric == _RGB and kinds in ((), (0,))))):
        raise Rejected(
            f"{samples} samples per pixel, which are no {'grey' if grey else 'plain'} image; {_EXPORT}"
        )
    plain = int(image.sampleformat) in (_UNSIGNED, _UNDEFINED)
    if photometric == _PALETTE and not (plain and image.bitspersample in (1, 2, 4, 8, 16) and not extra):
        raise Rejected(f"a palette of {image.bitspersample} bits; {_EXPORT}")
    if (extra or not grey) and not (plain and image.bitspersample in (8, 16)):
        raise Rejected(f"colour or transparency of {image.bitspersample} bits (8 and 16 are read); {_EXPORT}")
    jpeg = int(image.compression) == _JPEG
    if photometric == _YCBCR and not jpeg:
        raise Rejected(f"YCbCr colour without JPEG compression; {_EXPORT}")
    inks = image.tags.valueof(_INK_SET_TAG, 1)
    if photometric == _CMYK and (jpeg or extra or inks != 1 or image.bitspersample != 8):
        raise Rejected(f"CMYK colour other than plain 8 bits; {_EXPORT}")


def _check_data(image: TiffPage, size: int, max_pixels: int) -> None:
    """Reject a file that lacks pixels, which tifffile would fill in, and tiles larger than any memory."""
    planes, together = (image.samplesperpixel, 1) if image.planarconfig == 2 else (1, image.samplesperpixel)
    if image.is_tiled:
        width, height = image.tilewidth, image.tilelength
        if width < 1 or height < 1 or width * height > max(max_pixels, _LARGEST_TILE):
            raise Rejected(f"tiles of {width} x {height} pixels, more than the limit of {max_pixels:,}")
        rows = [height] * math.ceil(image.imagewidth / width) * math.ceil(image.imagelength / height)
    else:
        width, height = image.imagewidth, max(image.rowsperstrip, 1)
        rows = [min(height, image.imagelength - top) for top in range(0, image.imagelength, height)]
    in_a_row = math.ceil(width * together * int(image.bitspersample) / 8)
    whole = [n * in_a_row for n in rows * planes]  # bytes
    segments = list(zip(whole, image.dataoffsets, image.databytecounts, strict=False))
    plain = int(image.compression) == _NONE
    there = sum((full if plain else 1) <= length <= size - at for full, at, length in segments)
    if there < len(whole):
        lost = len(whole) - there
        raise Rejected(f"damaged file: {lost} of its {len(whole)} strips or tiles are cut short or missing")
    if any(length > _MOST_GROWTH * full + (1 << 20) for full, _, length in segments):
        raise Rejected("damaged file: more bytes in a strip or tile than its pixels can need")
    if int(image.compression) == _JPEG:
        for _, at, length in segments:
            image.parent.filehandle.seek(at)
            head = io.BytesIO(image.parent.filehandle.read(min(length, _MOST_HEADER)))
            with Image.open(head, formats=("JPEG",)) as jpeg:
                if jpeg.width > width or jpeg.height > height:
                    raise Rejected("damaged file: a JPEG in it is larger than its strip or tile")


def _pixels(samples: Samples, image: TiffPage) -> Samples:
    """What samples (H, W, S) mean."""
    photometric, bits = int(image.photometric), int(image.bitspersample)
    if photometric == _PALETTE:
        return _coloured(samples[..., 0], image)
    if photometric == _CMYK:
        return np.asarray(Image.fromarray(np.ascontiguousarray(samples), "CMYK").convert("RGB"))
    colours = _COLOURS[photometric]
    if colours == 1:
        grey = _grey(samples[..., 0], image)
        if samples.shape[2] == 1:
            return grey
        return on_black(grey[..., None], samples[..., 1])[..., 0] if _multiplies(image) else grey
    samples = samples.astype(np.uint8 if bits == 8 else np.uint16, copy=False)
    return flatten(samples if _multiplies(image) else samples[..., :3])


def _multiplies(image: TiffPage) -> bool:
    """Whether there is alpha that the colours are not multiplied with yet."""
    return tuple(int(kind) for kind in image.extrasamples) in ((), (_UNASSOCIATED,))


def _coloured(indices: Samples, image: TiffPage) -> Samples:
    """Indices (H, W) -> (H, W, 3) uint8 by the palette (3, 2^bits)."""
    palette: Samples | None = image.colormap
    if palette is None or palette.shape != (3, 1 << int(image.bitspersample)):
        raise Rejected("damaged file: no palette, or one of the wrong length")
    if palette.max() >= 256:  # 16 bits; some programs write 8
        palette = palette >> 8
    coloured: Samples = palette.astype(np.uint8).T[indices.astype(np.intp)]
    return coloured


def _grey(values: Samples, image: TiffPage) -> Samples:
    """One sample a pixel, (H, W): dark is low."""
    bits, inverted = int(image.bitspersample), int(image.photometric) == _WHITE_IS_ZERO
    if int(image.sampleformat) not in (_UNSIGNED, _UNDEFINED) or bits > 16:
        return _deep(values, inverted)
    full = (1 << bits) - 1
    values = values.astype(np.uint8 if bits <= 8 else np.uint16)
    if inverted:
        values = values.dtype.type(full) - values
    if bits < 8:
        values = np.rint(np.arange(full + 1) * (255 / full)).astype(np.uint8)[values]
    return values


def _deep(values: Samples, inverted: bool) -> Samples:
    """Signed, float and more than 16 bits: float32 of the same scale, or uint16 where it fits."""
    whole = values.dtype.kind in "iu"
    if not whole and not np.isfinite(values).all():
        raise Rejected("holds values that are not finite")
    low, high = values.min(), values.max()
    if whole and not inverted and low >= 0 and high <= 65535:
        return values.astype(np.uint16)
    if max(abs(float(low)), abs(float(high))) > float(np.finfo(np.float32).max):
        raise Rejected("holds values beyond the range of 32-bit floats")
    if float(high) - float(low) < max(abs(float(low)), abs(float(high))) / 256:
        values = values - low  # float32 would round them; where zero lies does not matter
    deep: Samples = values.astype(np.float32)
    return -deep if inverted else deep
