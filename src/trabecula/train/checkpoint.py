"""Checkpoints: all that a run needs to go on as if nothing had happened."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trabecula import distributed
from trabecula.errors import InputError

CHECKPOINT = "checkpoint.pt"
"""Its name in a run's folder."""
SAVE_S = "TRABECULA_SAVE_S"
"""Environment variable: seconds between two checkpoints, 30 if unset. No result depends on it."""


def seconds_between() -> float:
    """How often a checkpoint is written, as the environment says."""
    text = os.environ.get(SAVE_S, "30")
    try:
        return float(text)
    except ValueError:
        raise InputError(f"${SAVE_S} is '{text}'; it must be a number of seconds") from None


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """What the checkpoint holds, or None where there is none.

    Raises:
        InputError: the file is not a checkpoint of this program.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return state
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable checkpoint ({reason}); remove it to start over") from None


@dataclass
class Checkpoint:
    """The checkpoint of a run, written every so many seconds at most; without a path there is none.

    means: what the loop has summed since the last point; step: at which the file stands, 0 without one.
    """

    path: Path | None
    seconds: float
    objective: nn.Module
    optimizers: Mapping[str, torch.optim.Optimizer]
    memory: dict[str, Any]
    precision: str
    means: dict[str, Any] = field(default_factory=dict)
    saved: float = field(default_factory=time.monotonic)
    step: int = 0

    def resume(self, device: torch.device) -> int:
        """Put it back; gives the steps done, 0 where there is none.

        Raises:
            InputError: the file is not a checkpoint, or one of another precision.
        """
        state = load(self.path, device) if self.path else None
        if state is None:
            return 0
        if state["precision"] != self.precision:
            here = f"here it would go on in {self.precision}; remove it"
            raise InputError(f"{self.path}: was begun in {state['precision']}, {here}")
        self.objective.load_state_dict(state["objective"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.memory.clear()
        self.memory.update(state["memory"])
        self.means.update(state.get("means", {}))  # earlier versions wrote checkpoints at points only
        self.step = int(state["step"])
        return self.step

    def save(self, step: int, now: bool = False) -> None:
        """Write it, whole or not at all, if it is time to or `now`; one there before stays until then.

        Raises:
            OSError: the disk is full.
        """
        due = now or time.monotonic() - self.saved >= self.seconds
        if self.path is None or distributed.rank() != 0 or not due:
            return
        self.saved = time.monotonic()
        state = {
            "step": step, "precision": self.precision, "memory": self.memory, "means": self.means,
            "objective": self.objective.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }  # fmt: skip
        partial = self.path.with_name(f".{self.path.name}.partial")
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)
            self.step = step
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch's writer hides the system's reason
                raise error.__context__ from None
            raise
        finally:
            partial.unlink(missing_ok=True)
