"""Image files written byte by byte, as their specifications say: oracles without any library's code."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    13: 4,
    16: 8,
}  # bytes of a TIFF field type: BYTE, ASCII, SHORT, LONG, IFD, LONG8
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    """A chunk of a PNG."""
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(
    rows: Sequence[bytes], width: int, depth: int, colour: int, *before: bytes, interlace: int = 0
) -> bytes:
    """A PNG of packed rows without filter; `before`: chunks between the header and the pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, interlace)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    end = chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(before) + end


def pack(values: Sequence[int], bits: int) -> bytes:
    """Values one after another, most significant bit first; the last byte is filled up."""
    text = "".join(format(value, f"0{bits}b") for value in values)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def tiff(
    segments: Sequence[bytes],
    width: int,
    height: int,
    tags: Mapping[int, Any],
    order: str = "<",
    big: bool = False,
) -> bytes:
    """A TIFF of one page; classic or BigTIFF, either byte order.

    segments: strips, or tiles if `tags` has 322. tags: SHORTs, or (type, values); None leaves a tag out.
    """
    word = "Q" if big else "I"
    start = 16 if big else 8
    offsets = [start + sum(map(len, segments[:i])) for i in range(len(segments))]
    where, lengths = (324, 325) if 322 in tags else (273, 279)
    entries: dict[int, Any] = {
        256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1,
        where: (16 if big else 4, offsets), lengths: (16 if big else 4, [len(s) for s in segments]),
    }  # fmt: skip
    if 322 not in tags:
        entries[278] = -(-height // len(segments))
    entries |= tags
    entries = {tag: value for tag, value in sorted(entries.items()) if value is not None}
    body = b"".join(segments)
    first = start + len(body)
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0, first) if big else (42, first))
    )
    room = 8 if big else 4
    table, extra = b"", b""
    after = first + (8 if big else 2) + len(entries) * (20 if big else 12) + room
    for tag, value in entries.items():
        kind, values = value if isinstance(value, tuple) else (3, value)
        if isinstance(values, bytes):
            count, data = len(values) // _SIZES[kind], values
        else:
            values = np.atleast_1d(values).tolist()
            count, data = len(values), struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
        table += struct.pack(order + "HH" + word, tag, kind, count)
        if len(data) <= room:
            table += data.ljust(room, b"\0")
        else:
            table += struct.pack(order + word, after + len(extra))
            extra += data
    number = struct.pack(order + ("Q" if big else "H"), len(entries))
    return head + body + number + table + bytes(room) + extra


def bmp(rows: bytes, width: int, height: int, bits: int, palette: bytes = b"", compression: int = 0) -> bytes:
    """A BMP with a header of 40 bytes; a negative height: the top row comes first."""
    offset = 54 + len(palette)
    colours = len(palette) // 4 if bits <= 8 else 0
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 0, 0, colours, colours
    )
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + info + palette + rows


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg(levels: Sequence[int], *before: bytes, ids: Sequence[int] = (1, 2, 3, 4)) -> bytes:
    """A baseline JPEG of 8 x 8 pixels, every component of one level (0..255); `before`: other segments.

    All is in the DC coefficient: 8 * (level - 128) with quantisers of 1 (ITU T.81, A.3.3). The DC table has
    the codes 0..11 of 4 bits for the lengths 0..11, the AC table the single code 0 for end of block.
    """
    num = len(levels)
    lengths = bytes([0, 0, 0, 12, *[0] * 12])
    head = segment(0xDB, bytes([0]) + bytes([1]) * 64)
    frame = b"".join(bytes([ids[i], 0x11, 0]) for i in range(num))
    head += segment(0xC0, struct.pack(">BHHB", 8, 8, 8, num) + frame)
    head += segment(0xC4, bytes([0x00]) + lengths + bytes(range(12)))
    head += segment(0xC4, bytes([0x10]) + bytes([1, *[0] * 15]) + bytes([0]))
    scan = bytes([num]) + b"".join(bytes([ids[i], 0]) for i in range(num)) + bytes([0, 63, 0])
    text = ""
    for level in levels:
        value = 8 * (level - 128)
        size = abs(value).bit_length()
        bits = value if value >= 0 else value + (1 << size) - 1
        text += format(size, "04b") + (format(bits, f"0{size}b") if size else "") + "0"
    text += "1" * (-len(text) % 8)
    data = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)).replace(b"\xff", b"\xff\0")
    return b"\xff\xd8" + b"".join(before) + head + segment(0xDA, scan) + data + b"\xff\xd9"
