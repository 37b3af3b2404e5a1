"""encoder + few labels -> classifier, predictions: the whole network learns, nothing is frozen.

The few labels are drawn by patient from the training and the validation part alike; early stopping,
checkpoint and threshold see that small validation part only, the test part is predicted once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from trabecula.artifacts.predictions import (
    PLATEAU,
    Choice,
    Origin,
    cohorts_of,
    prediction_rows,
    write_predictions,
)  # fmt: skip
from trabecula.artifacts.splits import Subset
from trabecula.config import dump
from trabecula.nets.classifier import Classifier, ClassifierCard, save_classifier
from trabecula.nets.devices import choose_device, precision_on
from trabecula.run import Run
from trabecula.transfer.chosen import read_chosen
from trabecula.transfer.fit import Fitted
from trabecula.transfer.threshold import thresholds
from trabecula.transfer.tuning import FewLabels, Material, Tuning, read_material, tune


class Labels(FewLabels):
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


def run(config: Config, out: Run) -> str:
    """Write predictions.csv, choices.csv and, if kept, the classifier."""
    tuning: Tuning = config
    chosen = read_chosen(config.chosen) if config.chosen is not None else None
    if chosen is not None:
        tuning = chosen.over(config, config.seed)
        out.write_json("settings.json", dump(tuning))
    material, device = read_material(config, config.seed), choose_device(config.device)
    if chosen is not None:
        chosen.check(material.task.name or config.task, material.splits.patients("test"))
    out.log("subset", **material.subset.record)
    out.used(device=str(device), precision=precision_on(device, tuning.precision))
    objective, fitted = tune(tuning, material, config.seed, device, out / "checkpoint.pt")
    out.log("fitted", images_seen=fitted.images_seen, loss=fitted.loss, points=fitted.points,
            train_loss=fitted.train_loss, constant_loss=fitted.constant_loss)  # fmt: skip
    card = _card(config, tuning, material, fitted)
    classifier = Classifier(card, objective.encoder, objective.head)
    _predict(classifier, material, config, out)
    (out / "checkpoint.pt").unlink(missing_ok=True)
    known = f"{fitted.metric:.3f}" if np.isfinite(fitted.metric) else "not estimable"
    note = card.choice.note
    return (
        f"{card.origin.arm}, {card.origin.task}, {config.fraction:.3g} of labels, seed {config.seed}: "
        f"stopped at {fitted.images_seen:,} images, validation metric {known}" + (f"; {note}" if note else "")
    )


def _card(config: Config, tuning: Tuning, material: Material, fitted: Fitted) -> ClassifierCard:
    encoder = material.encoder.card
    origin = Origin(
        task=material.task.name or config.task, arm=encoder.name,
        mode=f"finetune:{config.variant}" if config.variant else "finetune",
        fraction=config.fraction, seed=config.seed, pretrain_seed=encoder.seed,
    )  # fmt: skip
    return ClassifierCard(
        task=material.task, class_names=material.labelled.class_names, origin=origin,
        size=material.store.size, choice=_choice(material.subset, fitted), head=tuning.head,
        preprocessing=material.store.preprocessing, prepared=material.store.prepared, encoder=encoder,
        centre_crop=tuning.centre_crop,
    )  # fmt: skip


def _predict(classifier: Classifier, material: Material, config: Config, out: Run) -> None:
    """Predict validation, fix the threshold on it, predict the test part."""
    labelled, card, frames = material.labelled, classifier.card, []
    test = np.flatnonzero(material.splits.rows("test", labelled.patient_ids))
    device = choose_device(config.device)
    for part, positions in (("val", material.subset.val), ("test", test)):
        p = classifier.probabilities(material.store, material.rows[positions], device)
        if part == "val":
            threshold, note = thresholds(material.task, labelled.y[positions], p)
            notes = "; ".join(filter(None, (card.choice.note, note)))
            choice = card.choice.model_copy(update={"threshold": threshold, "note": notes})
            classifier.card = card.model_copy(update={"choice": choice})
        cohorts = cohorts_of(material.manifest, labelled.rows[positions])
        ids = labelled.image_ids[positions]
        frames.append(prediction_rows(card.origin, ids, cohorts, part, p, labelled.class_names))
    if config.keep:
        save_classifier(classifier, out)
    write_predictions(out, frames, [(card.origin, classifier.card.choice)])


def _choice(subset: Subset, fitted: Fitted) -> Choice:
    train, val, notes = subset.record["train"], subset.record["val"], [subset.record["note"]]
    if fitted.plateau:
        notes.append(
            f"{PLATEAU} (training loss {fitted.train_loss:.3g}, of the class frequencies alone "
            f"{fitted.constant_loss:.3g})"
        )
    return Choice(
        images_seen=fitted.images_seen, num_train_images=train["images"],
        num_train_patients=train["patients"], num_val_images=val["images"],
        num_val_patients=val["patients"], note="; ".join(filter(None, notes)),
    )  # fmt: skip
