"""encoder + few labels -> classifier, predictions: the whole network learns, nothing is frozen.

The few labels are drawn by patient from the training and the validation part alike; early stopping,
checkpoint and threshold see that small validation part only, the test part is predicted once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from trabecula.config import Record
from trabecula.data.batches import Stream
from trabecula.data.manifest import read_manifest
from trabecula.data.predictions import Choice, Origin, cohorts_of, prediction_rows, write_predictions
from trabecula.data.splits import Subset, draw_subset, read_splits
from trabecula.data.store import Store, rows_of, to_float
from trabecula.data.tasks import Task, Truth, find_task, truth
from trabecula.data.views import Views
from trabecula.nets.classifier import Classifier, ClassifierCard, save_classifier
from trabecula.nets.devices import choose_device
from trabecula.nets.encoder import Encoder, check_fit, load_encoder
from trabecula.objectives.classify import Classify, ClassifyConfig
from trabecula.objectives.objective import Setting
from trabecula.run import Run
from trabecula.train.optim import Optimizer
from trabecula.train.precision import Precision, resolve
from trabecula.transfer.fit import Fitted, Validation, fit
from trabecula.transfer.threshold import thresholds


class Config(Record):
    """Settings of `finetune`."""

    encoder: Path
    """A folder written by `pretrain`."""
    store: Path
    """Prepared images, prepared as the encoder's own were."""
    manifest: Path
    """manifest.csv with the labels."""
    splits: Path
    """splits.csv by patient."""
    task: str
    """A task of tasks.json, a rule such as "kl >= 2", or a label column."""
    fraction: float = Field(1.0, gt=0, le=1)
    """Part of the labelled patients of train and val that is used."""
    seed: int = 0
    """Of the few-label subset, the head, the order and the views."""
    images: int = Field(40_000, ge=1)
    """Budget in images seen; early stopping usually ends before."""
    every: int = Field(0, ge=0)
    """Images between two looks at the validation part; 0: one pass, or 10 batches where that is more."""
    patience: int = Field(5, ge=1)
    """Looks without improvement after which training stops (inferred: den Boer 2025 gives no number)."""
    select: Literal["loss", "metric"] = "loss"
    """What chooses the checkpoint on validation: loss (den Boer 2025) or metric (Rajamohan et al. 2026)."""
    batch_size: int = Field(64, ge=2)
    """Images a batch; at most the labelled training images there are (inferred)."""
    optimizer: Optimizer = Optimizer(name="adam", lr=1e-4)
    """Adam 1e-4 (inferred: the rate of den Boer's GAN)."""
    class_weight: Literal["none", "balanced"] = "none"
    """balanced: each class weighs as much as the others in the loss, whatever its number of images."""
    standardise: bool = True
    """Whether the head's input is centred and scaled by the features of the labelled training images before
    training starts, so that a learning rate means the same for every arm."""
    augment: bool = True
    """Whether training images are augmented by `views`."""
    views: Views = ClassifyConfig().views
    """Random resized crop and rotation; the size is the encoder's."""
    precision: Precision = "auto"
    """float32, bf16, or auto: bf16 where the hardware multiplies it. Predictions are always float32."""
    keep: bool = True
    """Whether to keep the classifier (the encoder's size on disk); a study of many cells may not."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU if there is one."""


def run(config: Config, out: Run) -> str:
    """Write predictions.csv, choices.csv and, if kept, the classifier."""
    encoder, store = load_encoder(config.encoder), Store.open(config.store)
    check_fit(encoder.card, store, config.store)
    manifest, splits = read_manifest(config.manifest), read_splits(config.splits)
    task = find_task(config.task, manifest)
    labelled = truth(task, manifest).among(set(store.index["image_id"]), config.store, "not in the store")
    subset = draw_subset(splits, labelled, config.fraction, config.seed)
    out.log("subset", **subset.record)
    rows = rows_of(store, labelled.image_ids)
    objective, fitted = _fit(config, out, encoder, store, task, labelled, subset, rows)
    origin = Origin(
        task=task.name or config.task, arm=encoder.card.name, mode="finetune", fraction=config.fraction,
        seed=config.seed, pretrain_seed=encoder.card.seed,
    )  # fmt: skip
    card = ClassifierCard(
        task=task, class_names=labelled.class_names, origin=origin, size=store.size,
        choice=_choice(subset, fitted.images_seen), preprocessing=store.preprocessing, encoder=encoder.card,
    )  # fmt: skip
    classifier = Classifier(card, objective.encoder, objective.head)
    test = np.flatnonzero(splits.rows("test", labelled.patient_ids))
    device, frames = choose_device(config.device), []
    for part, positions in (("val", subset.val), ("test", test)):
        p = classifier.probabilities(store, rows[positions], device)
        if part == "val":
            threshold, note = thresholds(task, labelled.y[positions], p)
            notes = "; ".join(filter(None, (card.choice.note, note)))
            choice = card.choice.model_copy(update={"threshold": threshold, "note": notes})
            classifier.card = card.model_copy(update={"choice": choice})
        cohorts = cohorts_of(manifest, labelled.rows[positions])
        ids = labelled.image_ids[positions]
        frames.append(prediction_rows(origin, ids, cohorts, part, p, labelled.class_names))
    if config.keep:
        save_classifier(classifier, out)
    write_predictions(out, frames, [(origin, classifier.card.choice)])
    (out / "checkpoint.pt").unlink(missing_ok=True)
    known = f"{fitted.metric:.3f}" if np.isfinite(fitted.metric) else "not estimable"
    note = subset.record["note"]
    return (
        f"{origin.arm}, {origin.task}, {config.fraction:.3g} of labels, seed {config.seed}: stopped at "
        f"{fitted.images_seen:,} images, validation metric {known}" + (f"; {note}" if note else "")
    )


def _fit(
    config: Config,
    out: Run,
    encoder: Encoder,
    store: Store,
    task: Task,
    labelled: Truth,
    subset: Subset,
    rows: NDArray[np.int64],
) -> tuple[Classify, Fitted]:
    y = labelled.y[subset.train]
    single = task.kind != "multilabel"
    settings = ClassifyConfig(
        kind="single" if single else "multilabel", num_classes=task.num_outputs,
        class_weights=balanced_weights(y, task.num_outputs) if config.class_weight == "balanced" else (),
        augment=config.augment, views=config.views, optimizer=config.optimizer,
    )  # fmt: skip
    batch_size = min(config.batch_size, len(y))
    objective = Classify(settings, encoder, Setting(len(y), batch_size, config.seed))
    device = choose_device(config.device)
    out.used(device=str(device), precision=resolve(config.precision, device))
    if config.standardise:
        _calibrate(objective, store, rows[subset.train], device)
    stream = Stream(store, rows[subset.train], batch_size, config.seed, device, labels=y)
    fitted = fit(
        objective, stream, Validation(store, rows[subset.val], labelled.y[subset.val]),
        images=config.images, every=config.every or max(len(y), 10 * batch_size),
        patience=config.patience, select=config.select, precision=config.precision,
        checkpoint=out / "checkpoint.pt",
    )  # fmt: skip
    out.log("fitted", images_seen=fitted.images_seen, loss=fitted.loss, points=fitted.points)
    return objective, fitted


@torch.no_grad()
def _calibrate(objective: Classify, store: Store, rows: NDArray[np.int64], device: torch.device) -> None:
    """Scale the head's input as training will see it: batch norm by the batch.

    By its running statistics a random network's features are up to a thousand times smaller than in
    training. These statistics are left as they were.
    """
    objective.to(device).train()
    kept = {name: buffer.clone() for name, buffer in objective.encoder.named_buffers()}
    parts = np.array_split(rows, -(-len(rows) // 256))
    features = [objective.encoder(to_float(store.read(part)).to(device)).float() for part in parts]
    for name, buffer in objective.encoder.named_buffers():
        buffer.copy_(kept[name])
    objective.head.calibrate(torch.cat(features))


def _choice(subset: Subset, images_seen: int) -> Choice:
    train, val = subset.record["train"], subset.record["val"]
    return Choice(
        images_seen=images_seen, num_train_images=train["images"], num_train_patients=train["patients"],
        num_val_images=val["images"], num_val_patients=val["patients"], note=subset.record["note"],
    )  # fmt: skip


def balanced_weights(y: NDArray[np.int64], num_classes: int) -> tuple[float, ...]:
    """n / (K n_k) for classes; for labels the odds of a negative, which weigh the positives."""
    if y.ndim == 2:
        positive, negative = (y == 1).sum(0), (y == 0).sum(0)
        return tuple(float(v) for v in negative / np.maximum(positive, 1))
    counts = np.bincount(y, minlength=num_classes)
    return tuple(float(v) for v in len(y) / (num_classes * np.maximum(counts, 1)))
