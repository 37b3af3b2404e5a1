"""PNG: only the chunks that carry pixels are decoded, so that damaged metadata rejects no image."""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

from PIL import Image

from trabecula.readers.reader import Rejected
from trabecula.readers.samples import Samples, check_page, check_size, flatten, orient

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_ORIENTATION = (b"eXIf", b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # a chunk, keywords of texts
_MOST_METADATA = 1 << 20  # bytes of a chunk in which an orientation is looked for
_MOST_PER_PIXEL = 16  # bytes; compression makes RGBA of 16 bits (8 bytes) hardly longer


def read_png(file: BinaryIO, page: int | None, max_pixels: int) -> Samples | None:
    """(H, W) uint8 or uint16, or (H, W, 3) uint8; None for a page of an animation, which Pillow knows.

    Raises:
        Rejected: with the reason.
    """
    import imagecodecs

    file.seek(len(SIGNATURE))
    kept, metadata, frames, left = [SIGNATURE], [], 1, 0
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND" or not kind.isalpha():
            break
        if kind in _PIXELS:
            if kind == b"IHDR":
                width, height = _size(file)
                check_size(width, height, max_pixels)
                left = _MOST_PER_PIXEL * width * height + _MOST_METADATA
            left -= length
            if left < 0:
                raise Rejected(f"damaged file: more bytes in {kind.decode()} than its pixels can need")
            kept.append(head + _content(file, kind, length))
        elif kind == b"acTL" and length >= 4:
            frames = int.from_bytes(file.read(4), "big")
            file.seek(length, io.SEEK_CUR)
        elif length <= _MOST_METADATA:
            content = file.read(length + 4)
            if (kind + content).startswith(_ORIENTATION[:1]) or content.startswith(_ORIENTATION[1:]):
                metadata.append(head + content)
        else:
            file.seek(length + 4, io.SEEK_CUR)
    if len(kept) == 1:
        raise Rejected("damaged file: no header")
    check_page(page, frames)
    if frames > 1:
        return None
    pixels = flatten(imagecodecs.png_decode(b"".join([*kept, _chunk(b"IEND", b"")])))
    return orient(pixels, _orientation(metadata) if metadata else 1)


def _size(file: BinaryIO) -> tuple[int, int]:
    """Width and height, from the header that comes next; the file stays where it is."""
    content = file.read(8)
    file.seek(-len(content), io.SEEK_CUR)
    if len(content) < 8:
        raise Rejected("damaged file: cut short in IHDR")
    width, height = struct.unpack(">II", content)
    return width, height


def _content(file: BinaryIO, kind: bytes, length: int) -> bytes:
    """A chunk's content and checksum, if the checksum is right."""
    content = file.read(length + 4)
    if len(content) < length + 4:
        raise Rejected(f"damaged file: cut short in {kind.decode()}")
    if zlib.crc32(content[:-4], zlib.crc32(kind)) != int.from_bytes(content[-4:], "big"):
        raise Rejected(f"damaged file: wrong checksum of {kind.decode()}")
    return content


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _orientation(metadata: list[bytes]) -> int:
    """The orientation in EXIF or XMP chunks, as Pillow finds it in an image of one pixel; 1 if it cannot."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = _chunk(b"IDAT", zlib.compress(b"\0\0")) + _chunk(b"IEND", b"")
    for chunk in metadata:  # each by itself: a damaged one does not hide the others
        try:
            with Image.open(io.BytesIO(SIGNATURE + header + chunk + pixel), formats=("PNG",)) as image:
                found = int(image.getexif().get(0x0112, 0))
        except Exception:  # metadata that is damaged says nothing
            continue
        if 1 <= found <= 8:
            return found
    return 1
