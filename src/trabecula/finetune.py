"""encoder + few labels -> classifier, predictions: the whole network learns, nothing is frozen.

The few labels are drawn by patient from the training and the validation part alike; early stopping,
checkpoint and threshold see that small validation part only, the test part is predicted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from trabecula.artifacts.classifier import ClassifierCard
from trabecula.artifacts.label_budget import labels_used
from trabecula.artifacts.manifest import manifest_digest
from trabecula.artifacts.predictions import (
    BELOW_PROBE,
    BEST_AT_END,
    KEPT_PROBE,
    PLATEAU,
    Origin,
    write_predictions,
)
from trabecula.artifacts.search_result import read_chosen
from trabecula.config import dump
from trabecula.nets.classifier import Classifier
from trabecula.nets.devices import choose_device, precision_on
from trabecula.objectives.classify import Classify
from trabecula.run import Run
from trabecula.train.checkpoint import CHECKPOINT
from trabecula.transfer import fine_tuning
from trabecula.transfer.few_labels import choice_of, predict_held_out
from trabecula.transfer.fine_tuning import Fitted, Material, Tuning


class Labels(fine_tuning.FewLabels):
    """What one fine-tuning learns from, and under which name."""

    seed: int = 0
    """Of the few-label subset, the head, the order and the views."""
    chosen: Path | None = None
    """A folder written by `search`: what it chose takes the place of the settings below. The search's own
    seed is refused here: on the labels that chose the settings, these look better than they are. So are
    another task, and splits that test a patient whose labels the search had."""
    variant: str = Field("", pattern=r"^[^,:\n]*$")
    """What sets this way of fine-tuning apart from others in one study, such as "critic head"; a part of the
    mode in tables. Arms are compared within one variant."""


class Config(Tuning, Labels):
    """Settings of `finetune`."""

    keep: bool = True
    """Whether to keep the classifier (the encoder's size on disk); a study of many cells may not."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""


def workload(config: Config) -> dict[str, int]:
    """What a study of this fine-tuning has to do; with `chosen` its length depends on the search."""
    work = {"fine-tunings": 1}
    if config.chosen is not None:
        return work | {"fine-tunings as long as their search chooses": 1}
    if config.epochs:
        return work | {"passes over the labelled images at most": config.epochs}
    return work | {"images seen at most": config.images}


def label_seeds(config: Config) -> dict[tuple[str, str, float], int]:
    """Label seeds by task, mode and fraction: a study warns where there are few."""
    return {(config.task, _mode(config), config.budget): 1}


def _mode(config: Config) -> str:
    return f"finetune:{config.variant}" if config.variant else "finetune"


def run(config: Config, out: Run) -> str:
    """Write predictions.csv, choices.csv and, if kept, the classifier."""
    tuning: Tuning = config
    chosen = read_chosen(config.chosen) if config.chosen is not None else None
    if chosen is not None:
        tuning = fine_tuning.with_chosen(config, chosen, config.seed)
        out.write_json("settings.json", dump(tuning))
    material, device = fine_tuning.read_material(config, config.seed), choose_device(config.device)
    if chosen is not None:
        chosen.check(material.task.name or config.task, material.splits.patients("test"))
    out.log("subset", **material.subset.record)
    out.used(
        device=str(device), precision=precision_on(device, tuning.precision),
        manifest=manifest_digest(config.manifest),
    )  # fmt: skip
    objective, fitted = fine_tuning.tune(tuning, material, config.seed, device, out / CHECKPOINT)
    out.log("fitted", images_seen=fitted.images_seen, loss=fitted.loss, points=fitted.points,
            train_loss=fitted.train_loss, constant_loss=fitted.constant_loss)  # fmt: skip
    notes = _notes(tuning, material, objective, fitted, device)
    classifier = Classifier(_card(config, tuning, material, fitted, notes), objective.encoder, objective.head)
    origin, note = classifier.card.origin, classifier.card.choice.note
    choice, frames = predict_held_out(
        material, material.subset, origin, classifier.card.choice,
        lambda positions: classifier.probabilities(material.store, material.rows[positions], device),
    )  # fmt: skip
    classifier.card = classifier.card.model_copy(update={"choice": choice})
    if config.keep:
        classifier.save(out.path)
    write_predictions(out.path, frames, [(origin, choice)])
    (out / CHECKPOINT).unlink(missing_ok=True)
    known = f"{fitted.metric:.3f}" if np.isfinite(fitted.metric) else "not estimable"
    return (
        f"{origin.arm}, {origin.task}, {labels_used(config.budget)}, seed {config.seed}: stopped at "
        f"{fitted.images_seen:,} images, validation metric {known}" + (f"; {note}" if note else "")
    )


def _notes(
    tuning: Tuning, material: Material, objective: Classify, fitted: Fitted, device: torch.device
) -> list[str]:
    """What a reader must know of how the training went."""
    notes = []
    if fitted.stayed_at_chance:
        losses = f"{fitted.train_loss:.3g}, of the class frequencies alone {fitted.constant_loss:.3g}"
        notes.append(f"{PLATEAU} (training loss {losses})")
    if fitted.best_at_end and tuning.optimizer.schedule == "constant":  # others end at a rate near 0
        notes.append(f"{BEST_AT_END} ({fitted.images_spent:,} images)")
    if fine_tuning.starts_at_probe(tuning):
        return notes + [KEPT_PROBE] * (fitted.images_seen == 0)
    start = material.probe_start(tuning.class_weight, tuning.centre_crop, device)
    if fine_tuning.is_below(objective, material, tuning, start, device):
        notes.append(f"{BELOW_PROBE} (validation loss {fitted.loss:.3g})")
    return notes


def _card(
    config: Config, tuning: Tuning, material: Material, fitted: Fitted, notes: Sequence[str]
) -> ClassifierCard:
    """The classifier's card, without a threshold yet."""
    encoder, store = material.encoder.card, material.store
    origin = Origin(
        task=material.task.name or config.task, arm=encoder.name,
        mode=_mode(config),
        fraction=config.budget, seed=config.seed, pretrain_seed=encoder.seed,
    )  # fmt: skip
    choice = choice_of(material, material.subset, notes, tuning.class_weight, images_seen=fitted.images_seen)
    return ClassifierCard(
        task=material.task, class_names=material.labelled.class_names, origin=origin, size=store.size,
        choice=choice, head=tuning.head, preprocessing=store.preprocessing, prepared=store.prepared,
        encoder=encoder, centre_crop=tuning.centre_crop,
    )  # fmt: skip
