"""What `fidelity` measured of a generator over its training: fidelity.json.

fidelity.json    protocol, points (distances and scores), critic, memorisation
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trabecula.errors import InputError
from trabecula.files import read_json, write_json

FILE, _MADE_BY = "fidelity.json", "`trabecula fidelity`"


def write_fidelity(folder: Path, record: Mapping[str, Any]) -> None:
    """Write fidelity.json."""
    write_json(folder / FILE, record)


def read_fidelity(folder: Path, needed: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The record in a folder that `fidelity` wrote.

    Args:
        needed: list of the record -> keys that each of its rows must have.

    Raises:
        InputError: no such file, or a row lacks a key.
    """
    record = read_json(folder / FILE, _MADE_BY)
    for part, keys in needed.items():
        for row in record.get(part) or []:
            lacking = [key for key in keys if key not in row]
            if lacking:
                raise InputError(
                    f"{folder / FILE}: {part} has no '{lacking[0]}'; write it again with {_MADE_BY}"
                )
    return record
