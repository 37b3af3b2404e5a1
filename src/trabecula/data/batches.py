"""Endless, seeded batches out of a store, and the random numbers that belong to their rows.

Batch i depends on (seed, i) only, so a stream needs no state to resume. Every random number a method uses
comes from `batch.random` (`random_numbers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trabecula.artifacts.store import Store
from trabecula.data.views import View, Views, centre, view
from trabecula.random_numbers import RowRandom, mix

FIELDS = {
    "labels": "classes (B,) or findings (B, L), int64, -1 where a finding is not known",
    "text": "token ids or vectors (B, ...), or a list of B texts",
    "boxes": "(B, N, 4): left, top, right, bottom in pixels of the image (`views.move_boxes`)",
    "pair": "another image of each row's patient, (B, C, H, W) uint8 or uint16",
    "patient": "(B,) int64, equal for images of one patient",
}
"""What a batch may carry beside its images: name -> what a row has."""


@dataclass(frozen=True)
class Batch:
    """Images and what belongs to them, all aligned by row.

    images: (B, C, H, W) uint8 or uint16, on the run's device.
    rows: (B,) rows of the store.
    fields: by name, tensors on the run's device or lists; which names there are: `FIELDS`.
    """

    images: Tensor
    rows: np.ndarray
    random: RowRandom
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def view(self, config: Views) -> View:
        """One augmented view of each image, in full precision, with the affine that made it."""
        with torch.no_grad(), torch.autocast(self.images.device.type, enabled=False):
            return view(self.images, self.random, config)

    def split(self, parts: int) -> list[Batch]:
        """Cut into equal parts whose rows keep their random numbers."""
        size, rest = divmod(len(self), parts)
        if rest:
            raise ValueError(f"a batch of {len(self)} rows cannot be cut into {parts} equal parts")
        return [self._part(low, low + size) for low in range(0, len(self), size)]

    def _part(self, low: int, high: int) -> Batch:
        whole, start = self.random, self.random.rows.start
        random = RowRandom(whole.seed, whole.num_rows, slice(start + low, start + high), whole.device)
        fields = {name: values[low:high] for name, values in self.fields.items()}
        return Batch(self.images[low:high], self.rows[low:high], random, fields)


class Stream:
    """Batches without end over some rows of a store, in a new order each pass.

    Args:
        rows: (N,) rows of the store that may be drawn.
        batch_size: rows of the global batch; this rank gets an equal part of each.
        fields: what each row carries beside its image, by name: arrays (N, ...) or sequences of N values.
        drawn: called with each batch drawn; gets the number of images drawn before it.
    """

    def __init__(
        self,
        store: Store,
        rows: np.ndarray,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        fields: Mapping[str, np.ndarray | Sequence[Any]] | None = None,
        rank: int = 0,
        world_size: int = 1,
        drawn: Callable[[int], None] | None = None,
    ) -> None:
        if len(rows) == 0:
            raise ValueError("a stream needs at least one image")
        if batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} is not a multiple of {world_size} processes")
        self.store, self.rows, self.batch_size, self.seed = store, np.asarray(rows), batch_size, seed
        self.device, self.fields, self.drawn = torch.device(device), dict(fields or {}), drawn
        for name, values in self.fields.items():
            if name not in FIELDS or len(values) != len(rows):
                sizes = f"{len(values)} rows for {len(rows)}"
                raise ValueError(f"field '{name}' of {sizes}; known: {list(FIELDS)}")
        part = batch_size // world_size
        self._slice = slice(rank * part, (rank + 1) * part)
        self._orders: dict[int, np.ndarray] = {}

    def batch(self, number: int) -> Batch:
        """The batch of that number, from 0."""
        first = number * self.batch_size
        if self.drawn is not None:
            self.drawn(first)
        passes, within = np.divmod(np.arange(first, first + self.batch_size)[self._slice], len(self.rows))
        drawn = np.array([self._order(int(p))[w] for p, w in zip(passes, within, strict=True)])
        images = self.store.read(self.rows[drawn]).to(self.device, non_blocking=True)
        random = RowRandom(mix(self.seed, "batch", number), self.batch_size, self._slice, self.device)
        fields = {name: self._field(values, drawn) for name, values in self.fields.items()}
        return Batch(images, self.rows[drawn], random, fields)

    def _field(self, values: np.ndarray | Sequence[Any], drawn: np.ndarray) -> Tensor | list[Any]:
        if isinstance(values, np.ndarray):
            return torch.as_tensor(values[drawn]).to(self.device)
        return [values[i] for i in drawn]

    def _order(self, number: int) -> np.ndarray:
        """The order of one pass over the rows."""
        if number not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k == number - 1}
            generator = np.random.Generator(np.random.PCG64(mix(self.seed, "pass", number)))
            self._orders[number] = generator.permutation(len(self.rows))
        return self._orders[number]


def images_in_order(
    store: Store, rows: np.ndarray, device: torch.device, most: int, crop: float = 1.0, equal: bool = False
) -> Iterator[Tensor]:
    """Rows of a store in their order, as networks take them in evaluation: (b, C, S, S) float32 in [0, 1].

    most: images at a time. crop: part of the side that is seen, about the centre, resized to the whole size.
    equal: parts of nearly equal size; False: all but the last have `most` images.
    """
    starts = range(0, len(rows), most)
    parts = np.array_split(rows, len(starts)) if equal else [rows[start : start + most] for start in starts]
    for part in parts:
        yield centre(store.read(part), store.size, crop).to(device)
