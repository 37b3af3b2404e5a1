"""What `spectrum` found: which grades a pool without labels holds, by the predictions of a proxy.

spectrum.json    settings of the intervals, and an audit for each classifier
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from trabecula.errors import InputError
from trabecula.files import read_json, write_json

FORMAT = 1
_FILE, _MADE_BY = "spectrum.json", "`trabecula spectrum`"

ClassShare = TypedDict(
    "ClassShare", {"class": str, "count": int, "share": float, "low": float | None, "high": float | None}
)
"""A class and its share of the pool's images, with an interval; `count` where classes were called."""


class SpectrumAudit(TypedDict, total=False):
    """One classifier's audit: its origin (`artifacts.predictions.Origin`), then what was found."""

    task: str
    arm: str
    mode: str
    fraction: float
    seed: int
    pretrain_seed: int
    classes: list[str]
    num_images: int
    num_patients: int
    called: list[ClassShare]  # shares of the classes as called
    mean: list[ClassShare]  # means of the classes' probabilities
    corrected: list[ClassShare]  # for the proxy's errors on labelled images; none where they cannot be
    correction: str  # how the shares were corrected, or why they were not
    misfit: float | None  # how far the corrected shares are from explaining the calls
    known: dict[str, Any] | None  # the labelled images: their part, counts, shares, calls and confusion
    dominant: dict[str, Any] | None  # the class of which the pool nearly all consists
    warning: str  # a sentence about it, "" where no class dominates


_NEEDED = {"task", "arm", "num_images", "num_patients", "called", "corrected", "correction", "warning"}


def write_spectrum(folder: Path, audits: Sequence[SpectrumAudit], settings: dict[str, float]) -> None:
    """Write spectrum.json. settings: of the intervals and the warning."""
    write_json(folder / _FILE, {"format": FORMAT, **settings, "audits": list(audits)})


def read_spectrum(path: Path) -> list[SpectrumAudit]:
    """The audits of a folder's spectrum.json, one a classifier."""
    file = path / _FILE if path.is_dir() else path
    audits = cast("list[SpectrumAudit]", read_json(file, _MADE_BY).get("audits") or [])
    lacking = sorted({key for audit in audits for key in _NEEDED - audit.keys()})
    if not audits or lacking:
        what = f"an audit has no '{lacking[0]}'" if lacking else "has no list 'audits'"
        raise InputError(f"{file}: {what}; write it again with {_MADE_BY}")
    return audits
