"""Several stores read as one: the pool of a pretraining on two domains together.

The rows of the first store come first, then those of the next. What decides pixels must be alike, by
`store.alike`: size, channels, bits, fit and intensity, and the side that was mirrored where both name sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from trabecula.artifacts.store import Store, alike, check_prepared
from trabecula.config import digest
from trabecula.errors import InputError


class Stores(Store):
    """Stores that were prepared alike, one behind the other."""

    def __init__(self, parts: Sequence[Store]) -> None:
        leading = next((part for part in parts if "flip_side" in part.prepared), parts[0])
        shards = [
            {**shard, "file": str((part.path / shard["file"]).absolute())}
            for part in parts
            for shard in part.record["shards"]
        ]
        super().__init__(parts[0].path, {**leading.record, "shards": shards})
        self._parts = tuple(parts)

    @property
    def parts(self) -> tuple[Store, ...]:
        """The stores, in the order of their rows."""
        return self._parts

    @cached_property
    def id(self) -> str:
        """Digest of the stores' own ids, in their order."""
        return digest([part.id for part in self._parts])

    @cached_property
    def index(self) -> pd.DataFrame:
        """The stores' indices one below the other; "" where a store has no such column.

        Image ids may come twice, from two stores; patients of one id are taken for one person.
        """
        return pd.concat([part.index for part in self._parts], ignore_index=True).fillna("")


def open_stores(first: Path, more: Sequence[Path] = ()) -> Store:
    """Open a store, or several as one.

    Raises:
        InputError: no store, one given twice, or one that was prepared otherwise than the first, or
            nobody knows how.
    """
    store = Store.open(first)
    if not more:
        return store
    parts = [store, *(Store.open(path) for path in more)]
    paths = [first, *more]
    for number, (part, path) in enumerate(zip(parts, paths, strict=True)):
        if part.id in [other.id for other in parts[:number]]:
            raise InputError(
                f"{path}: is given twice; its images would be drawn twice as often as the others"
            )
        if not part.preprocessing:  # what takes any store must not decide for the others
            raise InputError(
                f"{path}: how its images were prepared is not known, as with samples of an exported "
                "generator; it can be no part of a pool of several stores"
            )
        for other, its_path in zip(parts[:number], paths, strict=False):
            if not alike(part.prepared, other.prepared):
                check_prepared(part, path, f"{its_path}", other.preprocessing, other.prepared)
    return Stores(parts)
