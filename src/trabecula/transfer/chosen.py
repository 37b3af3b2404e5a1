"""What a search chose: chosen.json, written by `search`, taken by `finetune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from trabecula.config import Record, build, dump
from trabecula.errors import InputError
from trabecula.transfer.tuning import Tuning

FILE = "chosen.json"


class Chosen(Record):
    """The settings of the best trial and where they come from."""

    settings: dict[str, Any]
    """Settings of fine-tuning: all that the search fixed or searched, each whole (all of `optimizer`)."""
    by: Literal["loss", "metric"]
    """What was compared on the validation part."""
    trial: int
    """Number of the best trial."""
    loss: float
    """Its validation loss."""
    metric: float | None
    """Its validation metric; none where the part holds too few classes."""
    task: str
    """The task."""
    arm: str
    """The encoder's arm."""
    pretrain_seed: int
    """The encoder's seed."""
    fraction: float
    """Part of the labels that the search had."""
    seed: int
    """Of the few-label subset, the training and the search."""
    num_val_patients: int
    """Patients of the validation part that chose."""
    num_trials: int
    """Trials made."""
    num_pruned: int
    """Of these, ended early."""
    num_diverged: int
    """Of these, ended by a loss that is no number."""
    images: int
    """Images seen in all trials together."""

    def over(self, tuning: Tuning, seed: int) -> Tuning:
        """These settings in the place of those given.

        Raises:
            InputError: the labels of this seed are those that the settings were chosen on.
        """
        if seed == self.seed:
            raise InputError(
                f"seed {seed}: the search itself used the labels of this seed; report other seeds, or search "
                "with another one"
            )
        given = {key: value for key, value in dump(tuning).items() if key in Tuning.model_fields}
        return build(Tuning, {**given, **self.settings}, "chosen settings")


def read_chosen(path: Path) -> Chosen:
    """Read chosen.json: its folder, or the file.

    Raises:
        InputError: no such file, or not what `search` writes.
    """
    file = path / FILE if path.is_dir() else path
    try:
        return build(Chosen, json.loads(file.read_text(encoding="utf-8")), str(file))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{file}: no such file; `trabecula search` writes one") from None
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise InputError(f"{file}: not what `trabecula search` writes: {error}") from None
