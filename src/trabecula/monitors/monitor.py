"""The contract of a monitor: measurements at points of a training, and findings among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trabecula.artifacts.store import Store
from trabecula.data.pretraining_pool import Labelled


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a name for programs, a sentence for people.

    lasting: whether the run's summary repeats it where it is still so at the end.
    """

    name: str
    text: str
    lasting: bool = False


@dataclass(frozen=True)
class Watched:
    """What a training learns from.

    pool: rows of the store that are learned from. images: budget of the run.
    labelled: images of the training part with their labels, where a task is given; nothing learns from them.
    """

    store: Store
    pool: NDArray[np.int64]
    images: int
    seed: int
    device: torch.device
    labelled: Labelled | None = None


Curve = Sequence[Mapping[str, float]]
"""What was logged at each point of a training so far, the latest last."""
Checked = tuple[dict[str, float], list[Finding]]
"""Measurements and findings."""


class Monitor:
    """Measures an objective, always on the same images; `__init__` moves it to the device of the training."""

    def __init__(self, objective: Any, watched: Watched) -> None:
        raise NotImplementedError

    def start(self) -> dict[str, float]:
        """Measurements before training; none by default."""
        return {}

    def check(self, curve: Curve, last: bool) -> Checked:
        """Measurements and findings at a point of training; last: whether training ends here."""
        raise NotImplementedError
