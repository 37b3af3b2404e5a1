"""encoder + few labels -> settings of fine-tuning, chosen on the validation part.

What it writes: `artifacts/search_result.py`. `finetune` takes the settings as `chosen`.
No test patient is predicted. Trials are kept in an Optuna storage while the search runs.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from trabecula.artifacts.patient_hashes import key_name, mark, site_key
from trabecula.artifacts.run_record import run_id
from trabecula.artifacts.search_result import ChosenSettings, Trial, write_search
from trabecula.config import NoEffectOnResult, dump
from trabecula.nets.devices import choose_device, precision_on
from trabecula.progress import Meter
from trabecula.run import Run
from trabecula.stopping import Stopped
from trabecula.transfer.fine_tuning import FewLabels, read_material
from trabecula.transfer.search_space import Preset, applied, flat, resolve, touched
from trabecula.transfer.trials import Pruner, Sampler, SettingsSearch, best, opened

_STORAGE = "trials.db"


class Config(FewLabels):
    """Settings of `search`."""

    seed: int = 1000
    """Of the few-label subset, the trainings and the sampler. `finetune` refuses to report this seed on
    chosen settings: keep it apart from the reported ones."""
    trials: int = Field(50, ge=1)
    """Fine-tunings made (50: den Boer 2025, section 4.5; Rajamohan et al. 2026, C.4.1)."""
    sampler: Sampler = "tpe"
    """tpe learns from earlier trials; random does not, so equal seeds draw the same for every arm."""
    pruner: Pruner = "none"
    """median: after 5 validation checks, end a trial that is worse than the median of earlier trials at
    the same check."""
    preset: Preset = "none"
    """table1: the heads of den Boer 2025; rate: rate, warm-up and patience; rajamohan: optimizer, rate,
    weight decay, epochs and one-cycle peak of Rajamohan et al. 2026. `settings` and `space` win over it."""
    settings: dict[str, Any] = {}
    """Settings of `finetune` that are the same for all trials; `trabecula show finetune` lists them."""
    space: dict[str, Any] = {}
    """What is searched: settings of `finetune`, each with a list of values, a range {low, high, log, step},
    or for `head` "table1"."""
    storage: Annotated[str, NoEffectOnResult()] = ""
    """An Optuna storage: the URL of a database, or of a journal file (journal:///trials.log); by default a
    SQLite file in the run folder, removed at the end."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""

    @field_validator("space")
    @classmethod
    def _one_form(cls, space: dict[str, Any]) -> dict[str, Any]:
        """Dotted keys: equal spaces are equal searches, however TOML wrote them."""
        return dict(flat(space))

    @model_validator(mode="after")
    def _space_is_known(self) -> Self:
        """A study finds a mistyped setting before it runs anything."""
        resolve(self.preset, self.settings, self.space)
        return self


def workload(config: Config) -> dict[str, int]:
    """What a study of this search has to do."""
    return {"searches": 1, "trials": config.trials}


def run(config: Config, out: Run) -> str:
    """Write trials.csv and chosen.json."""
    tuning, space = resolve(config.preset, config.settings, config.space)
    material, device = read_material(config, config.seed), choose_device(config.device)
    out.log("subset", **material.subset.record)
    out.used(device=str(device), precision=precision_on(device, tuning.precision))
    kinds = config.sampler, config.pruner
    search = SettingsSearch(tuning, space, material, config.seed, *kinds, device, out.path)
    url, name = config.storage or f"sqlite:///{(out / _STORAGE).absolute()}", str(run_id(out.path))
    meter = Meter("searching", config.trials, "trials")
    with opened(url, name, search.by, config.pruner) as study, meter:
        trials = search.made(study)[: config.trials]  # those of a search that was killed
        meter.skip(len(trials))
        while len(trials) < config.trials:
            try:
                trial = search.make(study, len(trials))
            except Stopped as stop:
                raise Stopped(f"{stop} of trial {len(trials) + 1} of {config.trials}") from None
            trials.append(trial)
            out.log("trial", **vars(trial))
            meter.add(1, f"last {trial.state}, val loss {trial.loss:.3g} metric {trial.metric:.3g}")
    chosen = _chosen(config, search, trials)
    write_search(out.path, trials, chosen)
    (out / _STORAGE).unlink(missing_ok=True)
    metric = "" if chosen.metric is None else f", metric {chosen.metric:.3f}"
    ended = {"pruned": chosen.num_pruned, "diverged": chosen.num_diverged, "invalid": chosen.num_invalid}
    note = material.subset.record["note"]
    return (
        f"{chosen.arm}, {chosen.task}, {config.fraction:.3g} of labels: trial {chosen.trial} of "
        f"{len(trials)} is best by validation {chosen.by} (loss {chosen.loss:.3f}{metric})"
        + "".join(f", {number} {state}" for state, number in ended.items() if number)
        + (f"; {note}" if note else "")
    )


def _chosen(config: Config, search: SettingsSearch, trials: list[Trial]) -> ChosenSettings:
    """The best trial's settings: every group that the search fixed or searched, whole."""
    one, material = best(trials, search.by), search.material
    settings = dump(applied(search.tuning, one.values))
    states = [trial.state for trial in trials]
    few = np.concatenate([material.subset.train, material.subset.val])
    key, patients = site_key(), {str(patient) for patient in material.labelled.patient_ids[few]}
    return ChosenSettings(
        settings={key: settings[key] for key in touched(config.preset, config.settings, search.space)},
        by=search.by, trial=one.number, loss=one.loss,
        metric=one.metric if math.isfinite(one.metric) else None,
        task=material.task.name or config.task, arm=material.encoder.card.name,
        pretrain_seed=material.encoder.card.seed, fraction=config.fraction, seed=config.seed,
        num_val_patients=material.subset.record["val"]["patients"], num_trials=len(trials),
        num_pruned=states.count("pruned"), num_diverged=states.count("diverged"),
        num_invalid=states.count("invalid"),
        images=sum(trial.images_spent for trial in trials),
        patients=tuple(sorted(mark(patients, key))), patients_key=key_name(key),
    )  # fmt: skip
