"""What a search found: every trial, and the settings it chose, which `finetune` takes.

trials.csv     each trial: its settings, validation loss and metric, state, images
chosen.json    the settings of the best, and where they come from
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trabecula.artifacts.patient_hashes import SITE_KEY, key_name, seen_among, site_key
from trabecula.config import Record, build, dump
from trabecula.errors import InputError
from trabecula.files import read_json, write_atomically, write_json
from trabecula.spreadsheet import csv_text

_TRIALS_FILE, _CHOSEN_FILE = "trials.csv", "chosen.json"
_COLUMNS = ("trial", "state", "loss", "metric", "images_seen", "images_spent", "note")
_MADE_BY = "`trabecula search`"
SelectBy = Literal["loss", "metric"]


@dataclass(frozen=True)
class Trial:
    """One fine-tuning of a search.

    state: "complete", "pruned" (ended early), "diverged" (a loss that is not finite) or "invalid" (settings
    that do not go together: nothing was trained).
    loss, metric: of validation at the chosen checkpoint.
    """

    number: int
    state: str
    loss: float
    metric: float
    images_seen: int
    images_spent: int
    note: str
    values: Mapping[str, Any]

    def score(self, by: SelectBy) -> tuple[float, ...]:
        """The larger the better; the metric's ties are broken by the loss."""
        return (-self.loss,) if by == "loss" else (self.metric, -self.loss)


class ChosenSettings(Record):
    """The settings of the best trial and where they come from."""

    settings: dict[str, Any]  # of fine-tuning: all that were fixed or searched, each whole
    by: SelectBy  # what was compared on the validation part
    trial: int  # number of the best trial
    loss: float  # its validation loss
    metric: float | None  # its validation metric; none where the part holds too few classes
    task: str
    arm: str
    pretrain_seed: int
    fraction: float  # part of the labels that the search had
    seed: int  # of the few-label subset, the training and the search
    num_val_patients: int  # patients of the validation part that chose
    num_trials: int
    num_pruned: int  # of these, ended early
    num_diverged: int  # of these, ended by a loss that is not finite
    num_invalid: int = 0  # of these, not made: their settings do not go together
    images: int  # images seen in all trials together
    patients: tuple[str, ...]  # whose labels the trials used, as HMACs under the site's key
    patients_key: str  # name of the key of these HMACs

    def check(self, task: str, held_out: Iterable[str]) -> None:
        """Refuse settings of another task, and those that a held-out patient may have helped to choose."""
        if task != self.task:
            raise InputError(
                f"task '{task}': the settings were chosen for task '{self.task}'; search for this task, or "
                "give the same task, by the same name"
            )
        found = seen_among(held_out, dump(self))
        if found is None:
            raise InputError(
                f"chosen settings: patients of their search are hashed under site key {self.patients_key}, "
                f"this site's is {key_name(site_key())}; set {SITE_KEY} to the key they were searched under"
            )
        if found:
            more = f" and {len(found) - 1} more patients" if len(found) > 1 else ""
            raise InputError(
                f"chosen settings: patient '{found[0]}'{more} of the test part had labels in the search that "
                "chose them; give the splits of that search, or search again with these"
            )


def write_search(folder: Path, trials: Sequence[Trial], chosen: ChosenSettings) -> None:
    """Write both files. In trials.csv a trial has a row, a setting a column; lists are written as in JSON."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    rows = []
    for trial in trials:
        settings = [trial.values[key] for key in keys]
        rows.append([
            trial.number, trial.state, f"{trial.loss:.8g}", f"{trial.metric:.8g}", trial.images_seen,
            trial.images_spent, trial.note, *(v if isinstance(v, str) else json.dumps(v) for v in settings),
        ])  # fmt: skip
    write_atomically(folder / _TRIALS_FILE, csv_text((*_COLUMNS, *keys), rows))
    write_json(folder / _CHOSEN_FILE, dump(chosen))


def read_chosen(path: Path) -> ChosenSettings:
    """Read chosen.json: its folder, or the file."""
    file = path / _CHOSEN_FILE if path.is_dir() else path
    values = read_json(file, _MADE_BY)
    if "patients" not in values:
        raise InputError(f"{file}: does not say whose labels the search had; search again")
    return build(ChosenSettings, values, str(file))


def read_trials(folder: Path) -> list[dict[str, str]]:
    """The rows of trials.csv as text, by column: a setting that a trial did not draw is ""."""
    try:
        with (folder / _TRIALS_FILE).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{folder}: no {_TRIALS_FILE}; it is written by {_MADE_BY}") from None
