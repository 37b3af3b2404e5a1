"""Fine-tuning as a noun: its settings, what it learns from, and one training of encoder and head.

`finetune` predicts with what comes out; `search` only looks at the validation part.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from trabecula.artifacts.encoder import check_fit
from trabecula.artifacts.manifest import Manifest, read_manifest
from trabecula.artifacts.splits import Splits, Subset, draw_subset, read_splits
from trabecula.artifacts.store import Store, rows_of
from trabecula.artifacts.tasks import Task, Truth, find_task, truth
from trabecula.config import Record
from trabecula.data.batches import Stream, images_in_order
from trabecula.data.views import Views
from trabecula.errors import InputError
from trabecula.nets.devices import Precision
from trabecula.nets.encoder import Encoder, load_critic, load_encoder
from trabecula.nets.heads import HeadChoice, HiddenLayer
from trabecula.objectives.classify import Classify, ClassifyConfig
from trabecula.objectives.objective import Setting
from trabecula.objectives.optim import Optimizer
from trabecula.transfer.fit import Fitted, Told, Validation, fit


class FewLabels(Record):
    """An encoder, images, and the few labels that are used."""

    encoder: Path
    """A folder written by `pretrain`, or a snapshot in it."""
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


class Tuning(Record):
    """How encoder and head are trained; what a search may search."""

    images: int = Field(40_000, ge=1)
    """Budget in images seen; early stopping usually ends before."""
    epochs: int = Field(0, ge=0)
    """Budget in passes over the labelled training images, in place of `images`; 0: `images` counts."""
    every: int = Field(0, ge=0)
    """Images between two looks at the validation part; 0: one pass, or without `epochs` 10 batches where that
    is more."""
    patience: int = Field(5, ge=1)
    """Looks without improvement after which training stops (inferred: den Boer 2025 gives no number)."""
    select: Literal["loss", "metric"] = "loss"
    """What chooses the checkpoint on validation: loss (den Boer 2025) or metric (Rajamohan et al. 2026)."""
    batch_size: int = Field(64, ge=2)
    """Images a batch; at most the labelled training images there are (inferred)."""
    optimizer: Optimizer = Optimizer(name="adam", lr=1e-4)
    """Adam 1e-4 (inferred: the rate of den Boer's GAN)."""
    head: HeadChoice = "linear"
    """What is put on the encoder: linear; critic, the output layer of a pretrained critic trained on as it is
    (of a random critic a random one); or hidden layers before a linear one, such as [{width = 64,
    nonlinearity = "tanh", batch_norm = true, dropout = 0.2}]."""
    class_weight: Literal["none", "balanced"] = "none"
    """balanced: each class weighs as much as the others in the loss, whatever its number of images."""
    standardise: bool = True
    """Whether the head's input is centred and scaled by the features of the labelled training images before
    training starts, so that a learning rate means the same for every arm. A critic's own output layer keeps
    its scores up to an origin and a unit."""
    augment: bool = True
    """Whether training images are augmented by `views`."""
    views: Views = ClassifyConfig().views
    """Random resized crop, rotation and, with `flip`, flips; the size is the encoder's."""
    centre_crop: float = Field(1.0, gt=0, le=1)
    """Validation and test images are a square about the centre, this part of the side, resized to the whole
    size: 0.875 is Rajamohan et al. 2026, C.3 (to 256 px, the central 224; sizes inferred). 1: all of it."""
    precision: Precision = "auto"
    """float32, bf16, or auto: bf16 where the hardware multiplies it. Predictions are always float32."""


@dataclass(frozen=True)
class Material:
    """What one fine-tuning learns from, read once. rows: of the store, for each labelled image."""

    encoder: Encoder
    folder: Path
    store: Store
    manifest: Manifest
    splits: Splits
    task: Task
    labelled: Truth
    subset: Subset
    rows: NDArray[np.int64]

    @property
    def validation(self) -> Validation:
        """The few-label validation part."""
        return Validation(self.store, self.rows[self.subset.val], self.labelled.y[self.subset.val])


def read_material(few: FewLabels, seed: int) -> Material:
    """Read encoder, images and labels, and draw the seed's few labels.

    Raises:
        InputError: an input that is missing or belongs to another one.
    """
    encoder, store = load_encoder(few.encoder), Store.open(few.store)
    check_fit(encoder.card, store, few.store)
    manifest, splits = read_manifest(few.manifest), read_splits(few.splits)
    task = find_task(few.task, manifest)
    labelled = truth(task, manifest).among(set(store.index["image_id"]), few.store, "not in the store")
    subset = draw_subset(splits, labelled, few.fraction, seed)
    rows = rows_of(store, labelled.image_ids)
    folder = few.encoder if few.encoder.is_dir() else few.encoder.parent
    return Material(encoder, folder, store, manifest, splits, task, labelled, subset, rows)


def tune(
    tuning: Tuning,
    material: Material,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    told: Told | None = None,
    label: str = "fine-tuning",
) -> tuple[Classify, Fitted]:
    """Train a copy of the encoder and a new head; both end as they were at the chosen checkpoint.

    Raises:
        InputError: the head does not fit the task or the encoder.
        RunError: a loss or gradient is not finite.
    """
    train = material.subset.train
    y, rows = material.labelled.y[train], material.rows[train]
    objective = make_objective(tuning, material, seed)
    batch_size = min(tuning.batch_size, len(y))
    if tuning.standardise:
        objective.to(device).prepare(images_in_order(material.store, rows, device, 256, equal=True))
    stream = Stream(material.store, rows, batch_size, seed, device, {"labels": y})
    looks = len(y) if tuning.epochs else max(len(y), 10 * batch_size)
    fitted = fit(
        objective, stream, replace(material.validation, crop=tuning.centre_crop),
        images=tuning.epochs * len(y) or tuning.images, every=tuning.every or looks,
        patience=tuning.patience, select=tuning.select, precision=tuning.precision, checkpoint=checkpoint,
        told=told, label=label,
    )  # fmt: skip
    return objective, fitted


def make_objective(tuning: Tuning, material: Material, seed: int) -> Classify:
    """Encoder and head before training, on the CPU; the critic's head is its own if it was pretrained."""
    task, y = material.task, material.labelled.y[material.subset.train]
    settings = ClassifyConfig(
        kind="multilabel" if task.kind == "multilabel" else "single", num_classes=task.num_outputs,
        class_weights=balanced_weights(y, task.num_outputs) if tuning.class_weight == "balanced" else (),
        head=tuning.head, augment=tuning.augment, views=tuning.views, optimizer=tuning.optimizer,
    )  # fmt: skip
    card = material.encoder.card
    if tuning.head == "critic" and card.pool != "flatten":
        raise InputError(
            f"{material.folder}: head 'critic' needs a critic with pool 'flatten', encoder '{card.name}' is "
            f"{card.architecture} with pool '{card.pool}'; use head = 'linear'"
        )
    if len(y) == 1 and any(layer.batch_norm for layer in tuning.head if isinstance(layer, HiddenLayer)):
        raise InputError("head: batch norm needs two labelled training images or more, there is one")
    setting = Setting(len(y), min(tuning.batch_size, len(y)), seed)
    objective = Classify(settings, copy.deepcopy(material.encoder), setting)
    if tuning.head == "critic" and card.family != "random":
        objective.head.output.load_state_dict(load_critic(material.folder).output.state_dict())
    return objective


def balanced_weights(y: NDArray[np.int64], num_classes: int) -> tuple[float, ...]:
    """n / (K n_k) for classes; for labels the odds of a negative, which weigh the positives."""
    if y.ndim == 2:
        positive, negative = (y == 1).sum(0), (y == 0).sum(0)
        return tuple(float(v) for v in negative / np.maximum(positive, 1))
    counts = np.bincount(y, minlength=num_classes)
    return tuple(float(v) for v in len(y) / (num_classes * np.maximum(counts, 1)))
