"""What `fidelity` measured of a generator: its course over training, and the audit of memorisation.

fidelity.json    protocol, points (distances and scores), critic, memorisation
audit.json       names no image and no patient: `export` carries it in the generator's card
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trabecula.errors import InputError
from trabecula.files import read_json, write_json
from trabecula.metrics.bootstrap import MIN_PATIENTS
from trabecula.metrics.memorisation import QUANTILE, Memorisation

_FILE, _AUDIT_FILE, _MADE_BY = "fidelity.json", "audit.json", "`trabecula fidelity`"
_AUDIT_FORMAT = 1
CLEAR = "no sign of copying"
SHOWN_PAIRS = 20  # pairs of a fake and its nearest training image that are named for a person to look at
_QUANTILES = (0, 0.05, 0.5, 0.95)


def write_fidelity(folder: Path, record: Mapping[str, Any]) -> None:
    """Write fidelity.json."""
    write_json(folder / _FILE, record)


def read_fidelity(folder: Path, needed: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The record in a folder that `fidelity` wrote; `needed`: list of it -> keys that its rows must have."""
    file = folder / _FILE
    record = read_json(file, _MADE_BY)
    for part, keys in needed.items():
        lacking = [key for row in record.get(part) or [] for key in keys if key not in row]
        if lacking:
            raise InputError(f"{file}: {part} has no '{lacking[0]}'; write it again with {_MADE_BY}")
    return record


def make_audit(
    found: Memorisation, weights: str, protocol: dict[str, Any], num_train: int, held_out: int, in_all: int
) -> dict[str, Any]:
    """The audit of the generator whose weights have this sha256.

    Args:
        protocol: in whose features, and of how many images.
        num_train: training images among which the nearest were looked for; in_all: those that there are.
        held_out: held-out patients.
    """
    measures: dict[str, Any] = {
        name: {
            key: value if math.isfinite(value) else None
            for key, value in asdict(getattr(found, name)).items()
        }
        for name in ("share_near", "nearer", "authenticity", "copying")
    }
    measures |= {
        "held_out_authenticity": found.held_out_authenticity, "num_cells": found.num_cells,
        "quantiles": list(_QUANTILES),
        "fake_distances": np.quantile(found.fake_distances, _QUANTILES).tolist(),
        "held_out_distances": np.quantile(found.held_out_distances, _QUANTILES).tolist(),
    }  # fmt: skip
    return {
        "format": _AUDIT_FORMAT, "generator": weights, "protocol": protocol,
        "num_train": num_train, "num_train_in_all": in_all,
        "num_held_out": len(found.held_out_distances), "num_held_out_patients": held_out,
        "num_fakes": len(found.fake_distances), "measures": measures,
        "finding": _finding(found, num_train, in_all),
    }  # fmt: skip


def _finding(found: Memorisation, num_train: int, in_all: int) -> str:
    """ "copying" where an interval shows it: more near fakes than held-out images have, or C_T below 0."""
    if math.isnan(found.share_near.low) or math.isnan(found.copying.high):
        return f"unknown: fewer than {MIN_PATIENTS} held-out patients"
    finding = "copying" if found.share_near.low > QUANTILE or found.copying.high < 0 else CLEAR
    if num_train < in_all:  # copies of the other images would not be seen
        finding += f" among {num_train:,} of {in_all:,} training images"
    return finding


def nearest_pairs(found: Memorisation, image_ids: list[str]) -> list[dict[str, Any]]:
    """The fakes nearest to a training image, with its id: for eyes inside the site only."""
    closest = np.argsort(found.fake_distances, kind="stable")[:SHOWN_PAIRS].tolist()
    ids, distances = [image_ids[i] for i in found.fake_nearest], found.fake_distances.tolist()
    return [{"fake": i, "image_id": ids[i], "distance": distances[i]} for i in closest]


def write_audit(folder: Path, audit: dict[str, Any]) -> None:
    """Write audit.json."""
    write_json(folder / _AUDIT_FILE, audit)


def read_audit(path: Path, weights: str) -> dict[str, Any]:
    """The audit in a folder of `fidelity`, or its audit.json; that of another generator is refused."""
    file = path / _AUDIT_FILE if path.is_dir() else path
    if not file.exists():
        raise InputError(f"{path}: no {_AUDIT_FILE}; name a folder that {_MADE_BY} wrote")
    audit = read_json(file, _MADE_BY)
    if not isinstance(audit.get("format"), int) or audit["format"] > _AUDIT_FORMAT:
        raise InputError(f"{file}: is not an audit of format {_AUDIT_FORMAT}; run {_MADE_BY} again")
    if audit.get("generator") != weights:
        raise InputError(
            f"{file}: is of another generator ({str(audit.get('generator'))[:12]}, this one is "
            f"{weights[:12]}); run {_MADE_BY} on this one"
        )
    return audit
