"""What an interval over seeds speaks of: seeds of pretraining, and label seeds within each of them.

A unit is (pretraining seed, label seed). Where each pretraining has several label seeds, units of one
pretraining are alike: they are no draws of their own. The rule and its check: docs/concepts/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Unit = tuple[int, int]
"""(pretraining seed, label seed): what is called a seed in intervals."""
Kind = Literal["plain", "crossed", "encoders", "labels", "models"]

MIN_SEEDS = 5
"""Fewer seeds say too little of the seeds' spread: an interval is over patients only, for these seeds."""


@dataclass(frozen=True)
class Layout:
    """How S units are laid out.

    kind: "plain": one pretraining, or one label seed in each; "crossed": enough of both; "encoders":
        enough label seeds for an interval, for these few pretrainings; "labels": the other way round;
        "models": too few of both, or not the same label seeds in each pretraining.
    order: (P, L) positions of the units by pretraining and label seed; (1, S) where they are not crossed.
    """

    kind: Kind
    order: NDArray[np.int64]

    @property
    def note(self) -> str:
        """What the interval is for, in words; "" for plain seeds."""
        pretrainings, labels = self.order.shape
        return {
            "plain": "",
            "crossed": "over new pretrainings, label seeds and patients",
            "encoders": f"speaks of these {pretrainings} encoders: over new label seeds and patients",
            "labels": f"speaks of these {labels} label seeds: over new pretrainings and patients",
            "models": f"speaks of these {self.order.size} trained models: over new patients",
        }[self.kind]

    def averaged(self, table: NDArray[Any]) -> Floats:
        """(..., S) -> (..., seeds that the interval is over); (..., P, L) where both are crossed."""
        if self.kind == "plain":
            return table
        grid: Floats = table[..., self.order]
        if self.kind == "encoders":
            return np.asarray(grid.mean(axis=-2))
        if self.kind == "labels":
            return np.asarray(grid.mean(axis=-1))
        if self.kind == "models":
            return np.asarray(grid.mean(axis=(-2, -1)))[..., None]
        return grid


def layout_of(units: Sequence[Unit]) -> Layout:
    """How units are laid out, whatever their order."""
    pretrainings, labels = (sorted({unit[i] for unit in units}) for i in (0, 1))
    flat = np.arange(len(units))[None]
    if len(pretrainings) in (1, len(units)):
        return Layout("plain", flat)
    at = {unit: i for i, unit in enumerate(units)}
    if len(units) != len(pretrainings) * len(labels) or len(at) != len(units):
        return Layout("models", flat)
    enough = len(pretrainings) >= MIN_SEEDS, len(labels) >= MIN_SEEDS
    kinds: dict[tuple[bool, bool], Kind] = {
        (True, True): "crossed", (False, True): "encoders", (True, False): "labels", (False, False): "models",
    }  # fmt: skip
    return Layout(kinds[enough], np.array([[at[p, s] for s in labels] for p in pretrainings]))
