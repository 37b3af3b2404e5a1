"""features + few labels -> linear classifiers, predictions: the encoder stays as it is.

All label fractions and seeds are solved together, each at a whole path of strengths, exactly; the
strength is chosen on the few-label validation part, the test part is predicted once.

What it writes: `artifacts/predictions.py`, `artifacts/classifier.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from trabecula.artifacts.classifier import LinearProbe, write_probes
from trabecula.artifacts.features import read_features
from trabecula.artifacts.label_budget import of_shots
from trabecula.artifacts.manifest import manifest_digest, read_manifest
from trabecula.artifacts.predictions import Origin, probe_mode, write_predictions
from trabecula.artifacts.splits import FEW_VAL, Subset, draw_subset, read_splits
from trabecula.artifacts.tasks import find_task, truth
from trabecula.config import Record
from trabecula.errors import InputError
from trabecula.nets.devices import choose_device
from trabecula.progress import Meter
from trabecula.run import Run
from trabecula.transfer.few_labels import LabelledImages, choice_of, predict_held_out
from trabecula.transfer.linear_probe import FittedProbe, ProbeData, ProbeSettings, fit_probes


class Probed(Record):
    """What probes learn from."""

    features: Path
    """A folder written by `embed`."""
    manifest: Path
    """manifest.csv with the labels."""
    splits: Path
    """splits.csv by patient."""
    task: str | tuple[str, ...]
    """One or several of: a task of tasks.json, a rule such as "kl >= 2", a label column."""
    fractions: tuple[float, ...] = (0.01, 0.05, 0.1)
    """Parts of the labelled patients of train and val that are used (Rajamohan et al. 2026: 1, 5, 10 %). With
    `shots` and without `fractions` there are none."""
    shots: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Labelled patients per class that are used, in train and as many in val; a patient counts for its worst
    class. For each of `seeds` others are drawn."""
    seeds: tuple[int, ...] = Field(tuple(range(10)), min_length=1)
    """Each draws its own few-label subsets."""

    @model_validator(mode="before")
    @classmethod
    def _shots_alone(cls, values: Any) -> Any:
        if isinstance(values.get("shots"), int):
            values = {**values, "shots": (values["shots"],)}
        return {**values, "fractions": ()} if values.get("shots") and "fractions" not in values else values

    @model_validator(mode="after")
    def _has_labels(self) -> Self:
        if not self.budgets:
            raise ValueError("give fractions or shots, at least one")
        if wrong := [fraction for fraction in self.fractions if not 0 < fraction <= 1]:
            raise ValueError(f"fraction {wrong[0]}: must be above 0 and at most 1")
        for name in ("fractions", "shots", "seeds"):
            values = getattr(self, name)
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"'{name}' has {twice[0]} twice: give each once")
        return self

    @property
    def budgets(self) -> tuple[float, ...]:
        """What is drawn, as `label_budget` writes it."""
        return (*map(of_shots, self.shots), *self.fractions)


class Config(ProbeSettings, Probed):
    """Settings of `probe`."""

    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""


def workload(config: Config) -> dict[str, int]:
    """What a study of these probes has to do."""
    tasks = 1 if isinstance(config.task, str) else len(config.task)
    probes = tasks * len(config.budgets) * len(config.seeds)
    return {"linear probes": probes, "strengths": probes * config.num_strengths}


def label_seeds(config: Config) -> dict[tuple[str, str, float], int]:
    """Label seeds by task, mode and fraction: a study warns where there are few."""
    tasks, num = (config.task,) if isinstance(config.task, str) else config.task, len(set(config.seeds))
    return {(task, "probe", fraction): num for task in tasks for fraction in config.budgets}


@dataclass(frozen=True)
class _Embedded(LabelledImages):
    """One task's labelled images and their features."""

    values: Tensor  # (N, D) of the whole store
    rows: Tensor  # (n,) of the labelled images

    def at(self, positions: NDArray[np.int64]) -> Tensor:
        return self.values[self.rows[torch.from_numpy(positions).to(self.rows.device)]]


def run(config: Config, out: Run) -> str:
    """Write predictions.csv, choices.csv and the classifiers."""
    device = choose_device(config.device)
    features = read_features(config.features)
    values, card = torch.from_numpy(features.values).to(device), features.card
    if not card.arm:
        raise InputError(f"{config.features}: features of no arm; give those that `trabecula embed` wrote")
    manifest, splits = read_manifest(config.manifest), read_splits(config.splits)
    out.used(manifest=manifest_digest(config.manifest))
    specs = (config.task,) if isinstance(config.task, str) else config.task
    tasks = [(spec, find_task(spec, manifest)) for spec in specs]
    frames: list[pd.DataFrame] = []
    probes: list[LinearProbe] = []
    mode = probe_mode(card.region)
    with Meter("probing", workload(config)["linear probes"], "probes") as meter:
        for spec, task in tasks:
            labelled = truth(task, manifest).among(features.row_of, config.features, "without features")
            out.log("task", task=task.name or spec, images=len(labelled), exclusions=labelled.exclusions)
            rows = torch.tensor([features.row_of[i] for i in labelled.image_ids], device=device)
            data = _Embedded(manifest, splits, task, labelled, values, rows)
            for fraction in config.budgets:
                subsets = [draw_subset(splits, labelled, fraction, seed) for seed in config.seeds]
                for subset, fitted in zip(subsets, _fit(config, data, subsets), strict=True):
                    origin = Origin(
                        task=task.name or spec, arm=card.arm, mode=mode, fraction=fraction,
                        seed=subset.record["seed"], pretrain_seed=card.pretrain_seed,
                    )  # fmt: skip
                    probe, made = _finish(config, data, origin, subset, fitted)
                    chosen = origin.model_dump() | probe.choice.model_dump()
                    out.log("choice", **chosen, subset=subset.record)
                    frames += made
                    probes.append(probe)
                meter.add(len(subsets))
    write_predictions(out.path, frames, [(probe.origin, probe.choice) for probe in probes])
    write_probes(out.path, card, probes)
    names = ", ".join(task.name or spec for spec, task in tasks)
    edges = sum("end of the path" in probe.choice.note for probe in probes)
    few = sum(probe.choice.num_val_patients < FEW_VAL for probe in probes)
    return (
        f"{card.arm}: {len(probes)} probes of {names}, up to {config.num_strengths} strengths each"
        + (f"; {edges} chose an end of the path" if edges else "")
        + (f"; {few} chosen on fewer than {FEW_VAL} validation patients, partly by chance" if few else "")
    )


def _fit(config: Config, data: _Embedded, subsets: Sequence[Subset]) -> list[FittedProbe]:
    """All subsets of a fraction at once; equal ones (fraction 1) once."""
    keys = [(subset.train.tobytes(), subset.val.tobytes()) for subset in subsets]
    y, distinct = data.labelled.y, dict(zip(keys, subsets, strict=True))
    sets = [ProbeData(data.at(s.train), y[s.train], data.at(s.val), y[s.val]) for s in distinct.values()]
    fitted = dict(zip(distinct, fit_probes(config, data.task, sets), strict=True))
    return [fitted[key] for key in keys]


def _finish(
    config: Config, data: _Embedded, origin: Origin, subset: Subset, fitted: FittedProbe
) -> tuple[LinearProbe, list[pd.DataFrame]]:
    """Choose the threshold on validation, then predict validation and test."""
    notes = _remarks(config, data, subset, fitted)
    chosen = choice_of(data, subset, notes, config.class_weight, strength=fitted.strength)
    choice, frames = predict_held_out(
        data, subset, origin, chosen, lambda positions: fitted.probabilities(data.at(positions))
    )
    tensors = {name: value.float().cpu().contiguous() for name, value in fitted.tensors().items()}
    return LinearProbe(data.task, origin, choice, tensors), frames


def _remarks(config: Config, data: _Embedded, subset: Subset, fitted: FittedProbe) -> list[str]:
    """What the training part could not teach; a strength chosen by another metric or at an end."""
    notes, y, names = [], data.labelled.y[subset.train], data.labelled.class_names
    if fitted.single and len(np.unique(y)) == 1:
        notes.append(f"train has class {names[int(y[0])]} only: predicted for every image")
    if not fitted.single:
        flat = [name for k, name in enumerate(names) if len(np.unique(y[y[:, k] >= 0, k])) < 2]
        notes += [f"train has one class only of {', '.join(flat)}"] if flat else []
    if fitted.not_converged:
        notes.append(f"{fitted.not_converged} strengths did not converge")
    if fitted.select != config.select:
        notes.append(f"{config.select} is undefined on validation: strength chosen by log_loss")
    end = {0: "strongest", config.num_strengths - 1: "weakest"}.get(fitted.index)
    if end and config.num_strengths > 1:
        notes.append(f"strength at the {end} end of the path")
    return notes
