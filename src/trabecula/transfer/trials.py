"""A search over the settings of fine-tuning, on training and validation patients only.

Every trial trains on the same few labels. The sampler is made anew for each trial from the seed and the
number of trials before it, and one process makes one trial at a time: a search that was killed and goes
on makes the same trials as one that was not.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
import torch
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from trabecula.artifacts.predictions import PLATEAU
from trabecula.artifacts.search_result import SelectBy, Trial
from trabecula.config import digest
from trabecula.errors import InputError, RunError
from trabecula.random_numbers import mix
from trabecula.train.checkpoint import CHECKPOINT
from trabecula.transfer.fine_tuning import Material, Tuning, make_objective, task_metric, tune
from trabecula.transfer.search_space import SearchSpace, applied

Sampler = Literal["tpe", "random"]
Pruner = Literal["median", "none"]
_JOURNAL = "journal:///"  # a plain file, also on a network drive; a fourth slash begins an absolute path
WARMUP = 5
"""Validation checks before the median pruner may end a trial (Rajamohan et al. 2026, C.4.3)."""


@dataclass(frozen=True)
class SettingsSearch:
    """What is searched and how."""

    tuning: Tuning
    space: SearchSpace
    material: Material
    seed: int
    sampler: Sampler
    pruner: Pruner
    device: torch.device
    folder: Path  # of the search; the checkpoint of the trial being made lies in one of its own there

    @property
    def by(self) -> SelectBy:
        """What trials are compared by: as checkpoints are, but the loss where the metric is not estimable."""
        y, num = self.material.validation.y, self.material.task.num_outputs
        known = math.isfinite(task_metric(y, np.full((len(y), num), 1 / num)))
        return "metric" if self.tuning.select == "metric" and known else "loss"

    def made(self, study: optuna.Study) -> list[Trial]:
        """The trials made so far; one that was killed is to be made again."""
        for killed in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(killed.number, state=TrialState.FAIL)
        made = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return [_read(number, trial) for number, trial in enumerate(made)]

    def make(self, study: optuna.Study, number: int) -> Trial:
        """The next trial; number: of those made before it."""
        seed = mix(self.seed, "search", number) % 2**32
        kind = optuna.samplers.TPESampler if self.sampler == "tpe" else optuna.samplers.RandomSampler
        study.sampler = kind(seed=seed)
        return replace(self._one(study, study.ask()), number=number)

    def _one(self, study: optuna.Study, trial: optuna.Trial) -> Trial:
        by, values = self.by, self.space.draw(trial)

        def should_stop(checks: int, loss: float, metric: float) -> bool:
            if self.pruner == "none":
                return False
            trial.report(loss if by == "loss" else metric, checks - 1)
            return trial.should_prune()

        done = Trial(-1, "diverged", math.nan, math.nan, 0, 0, "", values)
        try:
            tuning = applied(self.tuning, values)
            make_objective(tuning, self.material, self.seed)  # first, as what tune refuses may be no setting
        except InputError as error:  # two settings may exclude each other, and another draw does not
            return _stored(study, trial, replace(done, state="invalid", note=str(error)), by)
        # named by its settings: a trial that was stopped is drawn again, and goes on from its checkpoint
        kept = self.folder / f"trial-{digest(values)[:12]}"
        kept.mkdir(exist_ok=True)
        try:
            _, fitted = tune(
                tuning, self.material, self.seed, self.device, kept / CHECKPOINT, should_stop=should_stop,
                label="",
            )  # fmt: skip
            state = "pruned" if fitted.ended else "complete"
            note = PLATEAU if fitted.stayed_at_chance else ""
            images = fitted.images_seen, fitted.images_spent
            done = Trial(-1, state, fitted.best_loss, fitted.metric, *images, note, values)
        except RunError as error:  # a rate too high is an answer, not the end of the search
            done = replace(done, note=str(error))
        done = _stored(study, trial, done, by)
        shutil.rmtree(kept)
        return done


def _stored(study: optuna.Study, trial: optuna.Trial, done: Trial, by: SelectBy) -> Trial:
    """Put a trial into the storage; one that did not complete ranks below all that did."""
    value = done.loss if by == "loss" else done.metric
    if done.state != "invalid" and not math.isfinite(value):
        done = replace(done, state="diverged")
    trial.set_user_attr("result", {**vars(done), "loss": repr(done.loss), "metric": repr(done.metric)})
    if done.state == "complete":
        study.tell(trial, value)
    else:
        study.tell(trial, state=TrialState.PRUNED)
    return done


def best(trials: list[Trial], by: SelectBy) -> Trial:
    """The complete trial with the best score, the first of equals.

    Raises:
        InputError: no trial had settings that go together.
        RunError: no trial completed.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    tried = [trial for trial in trials if trial.state != "invalid"]
    if not tried:
        last = trials[-1].note
        raise InputError(f"none of {len(trials)} trials had settings that go together; the last: {last}")
    if not complete:
        reason = tried[-1].note or "search lower rates"
        raise RunError(f"none of {len(trials)} trials completed: {reason}")
    return max(complete, key=lambda trial: (trial.score(by), -trial.number))


@contextmanager
def opened(url: str, name: str, by: SelectBy, pruner: Pruner) -> Iterator[optuna.Study]:
    """A study in an Optuna storage, made or gone on with; let go of at the end.

    Raises:
        InputError: no such storage.
        RunError: it stopped answering, or its disk is full.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kind = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=WARMUP)
    try:
        storage = _journal(url) if url.startswith(_JOURNAL) else optuna.storages.RDBStorage(url)
        study = optuna.create_study(
            storage=storage, study_name=name, load_if_exists=True,
            pruner=kind if pruner == "median" else optuna.pruners.NopPruner(),
            direction="minimize" if by == "loss" else "maximize",
        )  # fmt: skip
    except (SQLAlchemyError, StorageInternalError, ImportError, OSError, ValueError) as error:
        raise InputError(f"{_shown(url)}: {_reason(error)}; give an Optuna storage URL, or none") from None
    try:
        yield study
    except (SQLAlchemyError, StorageInternalError, json.JSONDecodeError) as error:
        raise RunError(f"{_shown(url)}: {_reason(error)}; run the same command again to go on") from None
    finally:
        storage.remove_session()
        if isinstance(storage, optuna.storages.RDBStorage):
            storage.engine.dispose()


def _journal(url: str) -> optuna.storages.JournalStorage:
    """A journal without the line that a kill or a full disk cut off: what follows it could not be read.

    Raises:
        ValueError: another file, which is left as it is.
    """
    path = Path(url.removeprefix(_JOURNAL))
    lock = JournalFileSymlinkLock(str(path))
    backend = JournalFileBackend(str(path), lock_obj=lock)
    lock.acquire()
    try:
        with path.open("rb+") as file:
            lines = file.read()
            if not lines.startswith(b"{"[: len(lines)]):
                raise ValueError("is not a journal of trials")
            file.truncate(lines.rfind(b"\n") + 1)
    finally:
        lock.release()
    return optuna.storages.JournalStorage(backend)


def _shown(url: str) -> str:
    """A storage without its password."""
    try:
        return f"storage '{make_url(url)}'"
    except SQLAlchemyError:
        return f"storage '{url}'"


def _reason(error: Exception) -> str:
    return str(error.__cause__ or error).splitlines()[0]


def _read(number: int, trial: FrozenTrial) -> Trial:
    result = trial.user_attrs.get("result") or trial.user_attrs["told"]  # the name in earlier versions
    numbers = {key: float(result[key]) for key in ("loss", "metric")}  # JSON has no NaN
    return Trial(**{**result, **numbers, "number": number})
