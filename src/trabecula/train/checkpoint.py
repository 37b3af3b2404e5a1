"""Checkpoints: all that a run needs to go on as if nothing had happened."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trabecula.errors import InputError

CHECKPOINT = "checkpoint.pt"
"""Its name in a run's folder."""
SAVE_S = "TRABECULA_SAVE_S"
"""Environment variable: seconds between two checkpoints, 30 if unset. No result depends on it."""


def seconds_between() -> float:
    """How often a checkpoint is written.

    Raises:
        InputError: the variable holds no number.
    """
    text = os.environ.get(SAVE_S, "30")
    try:
        return float(text)
    except ValueError:
        raise InputError(f"${SAVE_S} is '{text}'; it must be a number of seconds") from None


def save(path: Path, state: dict[str, Any]) -> None:
    """Write whole or not at all; a checkpoint there before stays until then.

    Raises:
        OSError: the disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch's writer hides the system's reason behind its own
            raise error.__context__ from None
        raise
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The checkpoint, or None where there is none.

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


def state_of(
    step: int,
    objective: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    memory: Mapping[str, Any],
    precision: str,
) -> dict[str, Any]:
    """What a checkpoint holds."""
    return {
        "step": step, "precision": precision, "memory": memory, "objective": objective.state_dict(),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
    }  # fmt: skip


def resume(
    path: Path | None,
    objective: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    memory: dict[str, Any],
    device: torch.device,
    precision: str,
) -> int:
    """Put a checkpoint back; gives the steps done, 0 where there is none.

    Raises:
        InputError: the file is not a checkpoint, or one of another precision.
    """
    state = load(path, device) if path else None
    if state is None:
        return 0
    if state["precision"] != precision:
        raise InputError(
            f"{path}: was begun in {state['precision']}, here it would go on in {precision}; remove it"
        )
    objective.load_state_dict(state["objective"])
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    memory.clear()
    memory.update(state["memory"])
    return int(state["step"])
