"""What a search chose: chosen.json, written by `search`, taken by `finetune`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from trabecula.artifacts.patient_hashes import key_name, mark, site_key
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
    num_invalid: int = 0
    """Of these, not made: their settings do not go together."""
    images: int
    """Images seen in all trials together."""
    patients: tuple[str, ...]
    """Patients whose labels the trials learned from or were compared on, as HMACs under the site's key."""
    patients_key: str
    """Name of the key of these HMACs."""

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

    def check(self, task: str, held_out: Iterable[str]) -> None:
        """Refuse settings of another task, and settings that a patient to be tested on helped to choose.

        Args:
            held_out: patients of the test part.
        Raises:
            InputError: as said; or patients that are marked under another site key.
        """
        if task != self.task:
            raise InputError(
                f"task '{task}': the settings were chosen for task '{self.task}'; search for this task, or "
                "give the same task, by the same name"
            )
        key = site_key()
        if self.patients_key != key_name(key):
            raise InputError(
                f"chosen settings: patients of their search are marked under site key {self.patients_key}, "
                f"this site's is {key_name(key)}; set TRABECULA_SITE_KEY to the key they were searched under"
            )
        ids, searched = sorted(set(held_out)), set(self.patients)
        found = [patient for patient, its in zip(ids, mark(ids, key), strict=True) if its in searched]
        if found:
            more = f" and {len(found) - 1} more patients" if len(found) > 1 else ""
            raise InputError(
                f"chosen settings: patient '{found[0]}'{more} of the test part had labels in the search that "
                "chose them; give the splits of that search, or search again with these"
            )


def read_chosen(path: Path) -> Chosen:
    """Read chosen.json: its folder, or the file.

    Raises:
        InputError: no such file, or not what `search` writes.
    """
    file = path / FILE if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(values, dict) and "patients" not in values:
            raise InputError(f"{file}: does not tell whose labels the search had; search again")
        return build(Chosen, values, str(file))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{file}: no such file; `trabecula search` writes one") from None
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        raise InputError(f"{file}: not what `trabecula search` writes: {error}") from None
