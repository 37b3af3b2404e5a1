"""Random numbers that depend on what they are for, never on what was drawn before.

Every random number a method uses is a function of (seed, batch, draw, global row): never of the rank or of
how a batch was cut, so accumulation, several processes and resume draw the same.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def mix(*parts: object) -> int:
    """A 63-bit seed out of any values; equal values give equal seeds on every machine."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


class RowRandom:
    """Random numbers for some rows of one global batch.

    seed: of this batch (the stream's seed and the batch's number, mixed).
    num_rows: rows of the whole batch, over all ranks. rows: the part of it that is here.
    """

    def __init__(self, seed: int, num_rows: int, rows: slice, device: torch.device) -> None:
        self.seed, self.num_rows, self.rows, self.device = seed, num_rows, rows, device
        self.draws = 0

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape), uniform in [0, 1)."""
        return self._mine(torch.rand((self.num_rows, *shape), generator=self._generator()))

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape), standard normal."""
        return self._mine(torch.randn((self.num_rows, *shape), generator=self._generator()))

    def once(self, *shape: int) -> Tensor:
        """Uniform numbers of this shape for the whole batch, the same on every rank; on the CPU."""
        return torch.rand(shape, generator=self._generator())

    def permutation(self) -> Tensor:
        """(num_rows,): one order of the whole batch, the same on every rank."""
        return torch.randperm(self.num_rows, generator=self._generator()).to(self.device)

    def _generator(self) -> torch.Generator:
        # On the CPU whatever the device, so that a GPU run draws the same numbers.
        generator = torch.Generator().manual_seed(mix(self.seed, self.draws))
        self.draws += 1
        return generator

    def _mine(self, values: Tensor) -> Tensor:
        return values[self.rows].to(self.device)
