"""The memorisation audit of a generator: made by `fidelity`, carried in its card by `export`.

It names no image and no patient, so that it may leave the site with the generator.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trabecula.errors import InputError
from trabecula.files import read_json, write_json
from trabecula.metrics.bootstrap import MIN_PATIENTS
from trabecula.metrics.memorisation import QUANTILE, Memorisation

FILE = "audit.json"
FORMAT = 1
COPYING = "copying"
CLEAR = "no sign of copying"
SHOWN_PAIRS = 20
"""Pairs of a fake and its nearest training image that are named for a person to look at."""
_QUANTILES = (0, 0.05, 0.5, 0.95)


def make_audit(
    found: Memorisation,
    weights: str,
    protocol: dict[str, Any],
    num_train: int,
    num_held_out_patients: int,
    num_train_in_all: int,
) -> dict[str, Any]:
    """The audit of the generator whose weights have this sha256.

    Args:
        protocol: in whose features, and of how many images.
        num_train: training images among which the nearest were looked for.
        num_train_in_all: training images that there are.
    """
    measures: dict[str, Any] = {
        name: {key: value if math.isfinite(value) else None for key, value in asdict(estimate).items()}
        for name, estimate in (
            ("share_near", found.share_near), ("nearer", found.nearer),
            ("authenticity", found.authenticity), ("copying", found.copying),
        )
    }  # fmt: skip
    measures |= {
        "held_out_authenticity": found.held_out_authenticity,
        "num_cells": found.num_cells,
        "quantiles": list(_QUANTILES),
        "fake_distances": np.quantile(found.fake_distances, _QUANTILES).tolist(),
        "held_out_distances": np.quantile(found.held_out_distances, _QUANTILES).tolist(),
    }
    return {
        "format": FORMAT,
        "generator": weights,
        "protocol": protocol,
        "num_train": num_train,
        "num_train_in_all": num_train_in_all,
        "num_held_out": len(found.held_out_distances),
        "num_held_out_patients": num_held_out_patients,
        "num_fakes": len(found.fake_distances),
        "measures": measures,
        "finding": finding(found, num_train, num_train_in_all),
    }


def finding(found: Memorisation, num_train: int, num_train_in_all: int) -> str:
    """ "copying" where an interval says so: more near fakes than held-out images have, or C_T below 0.

    Where not all training images were looked at, it says so: copies of the others would not be seen.
    """
    if math.isnan(found.share_near.low) or math.isnan(found.copying.high):
        return f"unknown: fewer than {MIN_PATIENTS} held-out patients"
    said = COPYING if found.share_near.low > QUANTILE or found.copying.high < 0 else CLEAR
    if num_train < num_train_in_all:
        said += f" among {num_train:,} of {num_train_in_all:,} training images"
    return said


def nearest_pairs(found: Memorisation, image_ids: list[str]) -> list[dict[str, Any]]:
    """The fakes nearest to a training image, with its id: for eyes inside the site only."""
    closest = np.argsort(found.fake_distances, kind="stable")[:SHOWN_PAIRS]
    return [
        {
            "fake": int(i),
            "image_id": image_ids[int(found.fake_nearest[i])],
            "distance": float(found.fake_distances[i]),
        }
        for i in closest
    ]


def write_audit(folder: Path, audit: dict[str, Any]) -> None:
    """Write audit.json."""
    write_json(folder / FILE, audit)


def read_audit(path: Path, weights: str) -> dict[str, Any]:
    """The audit of a generator with these weights; `path` is the folder of `fidelity` or its audit.json.

    Raises:
        InputError: no audit there, one of a newer format, or of another generator.
    """
    file = path / FILE if path.is_dir() else path
    if not file.exists():
        raise InputError(f"{path}: no {FILE}; name a folder that `trabecula fidelity` wrote")
    audit = read_json(file, "`trabecula fidelity`")
    if not isinstance(audit.get("format"), int) or audit["format"] > FORMAT:
        raise InputError(f"{file}: is not an audit of format {FORMAT}; run `trabecula fidelity` again")
    if audit.get("generator") != weights:
        raise InputError(
            f"{file}: is of another generator ({str(audit.get('generator'))[:12]}, this one is "
            f"{weights[:12]}); run `trabecula fidelity` on this one"
        )
    return audit
