"""features + few labels -> linear classifiers, predictions: the encoder stays as it is.

All label fractions and seeds are solved together, each at a whole path of strengths, exactly; the
strength is chosen on the few-label validation part, the test part is predicted once.

What it writes: `artifacts/predictions.py`, `artifacts/classifier.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from trabecula.artifacts.classifier import LinearProbe, write_probes
from trabecula.artifacts.features import read_features
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.predictions import Origin, probe_mode, write_predictions
from trabecula.artifacts.splits import FEW_VAL, Subset, draw_subset, read_splits
from trabecula.artifacts.tasks import Task, find_task, truth
from trabecula.config import Record
from trabecula.errors import InputError
from trabecula.metrics.classification import auroc_macro, balanced_accuracy
from trabecula.nets.devices import choose_device
from trabecula.progress import Meter
from trabecula.run import Run
from trabecula.transfer.few_labels import LabelledImages, choice_of, predict_held_out
from trabecula.transfer.logistic import Problem, StrengthPath, balanced_weights, solve, standardisation

_TIE = 1e-6  # validation log-losses closer than the solver's tolerance are equal


class Config(Record):
    """Settings of `probe`."""

    features: Path
    """A folder written by `embed`."""
    manifest: Path
    """manifest.csv with the labels."""
    splits: Path
    """splits.csv by patient."""
    task: str | tuple[str, ...]
    """One or several of: a task of tasks.json, a rule such as "kl >= 2", a label column."""
    fractions: tuple[float, ...] = Field((0.01, 0.05, 0.1), min_length=1)
    """Parts of the labelled patients of train and val that are used (Rajamohan et al. 2026: 1, 5, 10 %)."""
    seeds: tuple[int, ...] = Field(tuple(range(10)), min_length=1)
    """Each draws its own few-label subsets."""
    num_strengths: int = Field(50, ge=1)
    """Length of the path, evenly spaced in the logarithm of C (as many settings as a search of 50 trials)."""
    strength_range: tuple[float, float] = (1e-5, 1e5)
    """Smallest and largest C; a small C is a strong penalty ||W||^2 / (2 C) beside the summed loss."""
    standardise: bool = True
    """Whether features get mean 0 and standard deviation 1 on each few-label training part."""
    class_weight: Literal["none", "balanced"] = "none"
    """balanced: each class weighs as much as the others in the loss, whatever its number of images."""
    select: Literal["log_loss", "balanced_accuracy", "auroc"] = "log_loss"
    """What chooses C on the few-label validation part; the others are coarse where it has 6 patients."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""


@dataclass(frozen=True)
class _Linear:
    """One few-label classifier at each strength; a multi-label task has one solution a finding."""

    mean: Tensor  # (D,)
    std: Tensor  # (D,)
    solutions: tuple[StrengthPath, ...]
    single: bool  # whether the outputs are classes, not findings

    def log_probabilities(self, features: Tensor) -> Tensor:
        """(m, D) -> (P, m, K), or of findings (P, m, L, 2): absent, present."""
        x = (features.double() - self.mean) / self.std
        values = [solution.log_probabilities(x) for solution in self.solutions]
        return values[0] if self.single else torch.stack(values, 2)

    def tensors(self, index: int) -> dict[str, Tensor]:
        """weight (K, D), bias (K,), mean (D,), std (D,) of one strength, float32."""
        pairs = [solution.weights(index) for solution in self.solutions]
        if self.single:
            weight, bias = pairs[0]
        else:
            weight = torch.stack([w[1] - w[0] for w, _ in pairs])
            bias = torch.stack([b[1] - b[0] for _, b in pairs])
        named = {"weight": weight, "bias": bias, "mean": self.mean, "std": self.std}
        return {name: value.float().cpu().contiguous() for name, value in named.items()}


def workload(config: Config) -> dict[str, int]:
    """What a study of these probes has to do."""
    tasks = 1 if isinstance(config.task, str) else len(config.task)
    probes = tasks * len(config.fractions) * len(config.seeds)
    return {"linear probes": probes, "strengths": probes * config.num_strengths}


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
            for fraction in config.fractions:
                subsets = [draw_subset(splits, labelled, fraction, seed) for seed in config.seeds]
                for subset, linear in zip(subsets, _solve(config, data, subsets), strict=True):
                    origin = Origin(
                        task=task.name or spec, arm=card.arm, mode=mode, fraction=fraction,
                        seed=subset.record["seed"], pretrain_seed=card.pretrain_seed,
                    )  # fmt: skip
                    probe, made = _finish(config, data, origin, subset, linear)
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
        f"{card.arm}: {len(probes)} probes of {names}, {config.num_strengths} strengths each"
        + (f"; {edges} chose an end of the path" if edges else "")
        + (f"; {few} chosen on fewer than {FEW_VAL} validation patients, partly by chance" if few else "")
    )


def _solve(config: Config, data: _Embedded, subsets: Sequence[Subset]) -> list[_Linear]:
    """All subsets of a fraction at once; equal ones (fraction 1) once."""
    distinct = {subset.train.tobytes(): subset.train for subset in subsets}
    problems: list[Problem] = []
    scales = []
    for positions in distinct.values():
        features = data.at(positions).double()
        mean, std = torch.zeros_like(features[0]), torch.ones_like(features[0])
        if config.standardise:
            mean, std = standardisation(features)
        scales.append((mean, std))
        problems += _problems(config, (features - mean) / std, data.labelled.y[positions], data.task)
    paths = iter(solve(problems, _strengths(config)))
    each, single = len(problems) // len(distinct), data.task.kind != "multilabel"
    linears = [_Linear(mean, std, tuple(islice(paths, each)), single) for mean, std in scales]
    solved = dict(zip(distinct, linears, strict=True))
    return [solved[subset.train.tobytes()] for subset in subsets]


def _strengths(config: Config) -> list[float]:
    low, high = config.strength_range
    if not 0 < low <= high:
        raise InputError(f"strength_range {low:g}, {high:g}: must be above 0 and rise")
    return [float(v) for v in np.geomspace(low, high, config.num_strengths)]


def _problems(config: Config, x: Tensor, y: NDArray[np.int64], task: Task) -> Iterator[Problem]:
    """One problem of classes, or one a finding on the images where it is labelled."""
    for column in y.T if y.ndim == 2 else y[None]:
        known = torch.from_numpy(np.flatnonzero(column >= 0)).to(x.device)
        labels = torch.from_numpy(column).to(x.device)[known]
        num_classes = 2 if y.ndim == 2 else task.num_outputs
        weights = balanced_weights(labels, num_classes) if config.class_weight == "balanced" else None
        yield Problem(x if len(known) == len(x) else x[known], labels, num_classes, weights)


def _finish(
    config: Config, data: _Embedded, origin: Origin, subset: Subset, linear: _Linear
) -> tuple[LinearProbe, list[pd.DataFrame]]:
    """Choose strength and threshold on validation, then predict validation and test."""
    on_val = linear.log_probabilities(data.at(subset.val)).cpu().numpy()
    index, why = choose(on_val, data.labelled.y[subset.val], config.select, _strengths(config))
    notes = [*_remarks(data, subset, linear), why]

    def probabilities(positions: NDArray[np.int64]) -> NDArray[np.float64]:
        p = np.exp(linear.log_probabilities(data.at(positions))[index].cpu().numpy())
        return np.asarray(p if linear.single else p[..., 1])

    chosen = choice_of(subset, notes, strength=_strengths(config)[index])
    choice, frames = predict_held_out(data, subset, origin, chosen, probabilities)
    return LinearProbe(data.task, origin, choice, linear.tensors(index)), frames


def _remarks(data: _Embedded, subset: Subset, linear: _Linear) -> list[str]:
    """What the training part could not teach."""
    notes, y, names = [], data.labelled.y[subset.train], data.labelled.class_names
    if linear.single and len(np.unique(y)) == 1:
        notes.append(f"train has class {names[int(y[0])]} only: predicted for every image")
    if not linear.single:
        flat = [name for k, name in enumerate(names) if len(np.unique(y[y[:, k] >= 0, k])) < 2]
        notes += [f"train has one class only of {', '.join(flat)}"] if flat else []
    loose = sum(int((~solution.converged).sum()) for solution in linear.solutions)
    return [*notes, f"{loose} strengths did not converge"] if loose else notes


def choose(
    log_p: NDArray[np.float64], y: NDArray[np.int64], select: str, strengths: Sequence[float]
) -> tuple[int, str]:
    """The position of the best strength on validation, the strongest penalty of equally good ones.

    A multi-label task has one strength, best on the mean over its findings. An undefined metric (validation
    has one class only) gives way to the log-loss. A note says so, and where the choice is an end of the path.
    log_p: (P, m, K), or (P, m, L, 2) for findings. y: (m,), or (m, L), -1 where masked. strengths: P, rising.
    """
    notes = []
    scores = np.array([_score(values, y, select) for values in log_p])
    if not np.isfinite(scores).all():
        scores = np.array([_score(values, y, "log_loss") for values in log_p])
        notes.append(f"{select} is undefined on validation: strength chosen by log_loss")
    index = int(np.flatnonzero(scores >= scores.max() - _TIE)[0])
    end = "strongest" if index == 0 else "weakest" if index == len(strengths) - 1 else ""
    if end and len(strengths) > 1:
        notes.append(f"strength at the {end} end of the path")
    return index, "; ".join(notes)


def _score(log_p: NDArray[np.float64], y: NDArray[np.int64], select: str) -> float:
    """Higher is better; NaN where validation cannot say."""
    if y.ndim == 2:
        known = [(k, y[:, k] >= 0) for k in range(y.shape[1])]
        each = np.array([_score(log_p[on, k], y[on, k], select) for k, on in known if on.any()])
        return float(each[np.isfinite(each)].mean()) if np.isfinite(each).any() else np.nan
    if select == "log_loss":
        # a class that training lacks has p = 0 at every strength: finite, so that the rest decides
        return float(np.maximum(log_p[np.arange(len(y)), y], np.log(1e-15)).mean())
    metric = balanced_accuracy if select == "balanced_accuracy" else auroc_macro
    return float(metric(y, np.exp(log_p))[0])
