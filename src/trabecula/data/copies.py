"""Copies: the same pixels under two patients, in whatever format, compression or depth they are stored."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trabecula.artifacts.manifest import Manifest
from trabecula.files import sha256_of
from trabecula.progress import Meter
from trabecula.readers import Readers, read
from trabecula.readers.reader import Rejected

NOT_FOUND = "copies that were resized, cropped, mirrored or compressed with loss (JPEG) are not found"
_DEPTHS = (257, 256, 16)  # 8 bits stretched or shifted to 16, 12 bits shifted to 16


def fingerprint(pixels: npt.NDArray[Any]) -> str:
    """Digest of an image (H, W) or (H, W, 3), the same in every depth that holds it exactly, and as grey."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    exact = np.ascontiguousarray(_plain(pixels))
    digest = hashlib.blake2b(f"{exact.dtype.str} {exact.shape}".encode(), digest_size=12)
    digest.update(exact.data)
    return digest.hexdigest()


def _plain(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values without the depth they are stored in: '<u2' if they are whole, else '<f4'."""
    if pixels.dtype == np.float32:
        for full in (1, 255, 65535):  # whole numbers, or 0..1 made of 8 or 16 bits
            scaled = pixels * np.float32(full)
            whole = np.rint(scaled)
            if whole.min() >= 0 and whole.max() <= 65535 and np.abs(scaled - whole).max() <= full * 1e-6:
                pixels = whole.astype(np.uint16)
                break
        else:
            return (pixels + np.float32(0)).astype("<f4")  # -0 becomes 0
    if pixels.max() > 255:
        for factor in _DEPTHS:
            if not (pixels[::32] % factor).any() and not (pixels % factor).any():  # few rows tell most apart
                return (pixels // factor).astype("<u2")
    return pixels.astype("<u2")


@dataclass
class Copies:
    """What was found among the rows of a manifest."""

    leaks: list[str]
    unread: list[int]  # rows whose file cannot be read
    undecoded: list[int]  # rows whose file holds no usable image: compared by their bytes
    prints: dict[int, str]  # each other row's fingerprint


def find_copies(manifest: Manifest, parts: Mapping[str, set[str]], known: Mapping[str, str]) -> Copies:
    """One image under two patients of different parts.

    parts: of each patient. known: fingerprints of images that a store holds, by image_id; all others are
    decoded.
    """
    found = Copies([], [], [], {})
    groups: dict[Any, list[int]] = defaultdict(list)
    ids = manifest.table["image_id"].tolist()
    with Meter("compare", len(ids), "images") as meter:
        for row, image in enumerate(ids):
            source = manifest.source(row)
            try:
                if image not in known and not _readable(source.path):
                    found.unread.append(row)
                else:
                    found.prints[row] = known.get(image) or fingerprint(read(source, Readers()))
                    groups[found.prints[row]].append(row)
            except Rejected:
                found.undecoded.append(row)
                groups[sha256_of(source.path), source.page, source.box].append(row)
            meter.add(1)
    for rows in groups.values():
        found.leaks += _leaks(manifest, parts, rows)
    found.leaks.sort()
    return found


def _readable(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except OSError:
        return False


def _leaks(manifest: Manifest, parts: Mapping[str, set[str]], rows: Sequence[int]) -> list[str]:
    """Rows of one content whose patient is in another part than that of an earlier one."""
    patients = manifest.table["patient_id"].iloc[list(rows)].tolist()
    earlier: dict[tuple[str, ...], list[tuple[int, str]]] = defaultdict(list)  # rows and patients by part
    leaks = []
    for row, patient in zip(rows, patients, strict=True):
        part = tuple(sorted(parts.get(patient, ())))
        if not part:
            continue
        others = (pair for its, pairs in earlier.items() if its != part for pair in pairs)
        for first, its_patient in others:
            if not _other_part(manifest, first, row):
                one, other = (f"{p} ({' and '.join(sorted(parts[p]))})" for p in (its_patient, patient))
                where = f"manifest rows {manifest.row_number(first)} and {manifest.row_number(row)}"
                leaks.append(f"{where}: one image under patients {one} and {other}")
                break
        earlier[part].append((row, patient))
    return leaks


def _other_part(manifest: Manifest, first: int, second: int) -> bool:
    """Whether two rows are different pages or boxes of one file."""
    one, other = manifest.source(first), manifest.source(second)
    apart = (one.page, one.box) != (other.page, other.box)
    return apart and os.path.realpath(one.path) == os.path.realpath(other.path)
