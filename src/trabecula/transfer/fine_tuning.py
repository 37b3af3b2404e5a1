"""Fine-tuning: its settings, what it learns from, and one training of encoder and head with early stopping.

`finetune` predicts with what comes out; `search` only compares trainings on the validation part.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from trabecula.artifacts.classifier import HeadChoice, HiddenLayer
from trabecula.artifacts.encoder import check_fit
from trabecula.artifacts.label_budget import of_shots
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.search_result import ChosenSettings, SelectBy
from trabecula.artifacts.splits import Subset, draw_subset, read_splits
from trabecula.artifacts.store import Store, rows_of
from trabecula.artifacts.tasks import find_task, truth
from trabecula.config import Record, build, dump
from trabecula.data.batches import Stream, images_in_order
from trabecula.data.views import Views
from trabecula.errors import InputError, RunError
from trabecula.metrics import classification as metrics
from trabecula.nets.devices import Precision
from trabecula.nets.encoder import Encoder, load_critic, load_encoder
from trabecula.objectives.classify import MASKED, Classify, ClassifyConfig
from trabecula.objectives.objective import Setting
from trabecula.objectives.optim import Optimizer
from trabecula.progress import Meter
from trabecula.train.loop import train
from trabecula.transfer.few_labels import ClassWeight, LabelledImages, balanced_weights, is_balanced
from trabecula.transfer.linear_probe import ProbeData, ProbeSettings, fit_probes
from trabecula.transfer.probe_start import ProbeStart, below, features_of, started

ShouldStop = Callable[[int, float, float], bool]
"""(number of validation checks so far, loss, metric) -> whether training ends after this check."""
CHANCE_MARGIN = 0.05
"""Training is better than chance once its mean loss between two checks is this part below a constant's."""
_AT_ONCE = 256  # images of validation or calibration


HeadStart = Literal["auto", "probe", "random"]


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
    shots: int = Field(0, ge=0)
    """In the place of `fraction`: labelled patients per class, in train and as many in val; a patient counts
    for its worst class. Each seed draws others. 0: `fraction` counts."""

    @model_validator(mode="after")
    def _has_one_budget(self) -> Self:
        if self.shots and self.fraction != 1:
            raise ValueError("fraction and shots exclude each other: give one of them")
        return self

    @property
    def budget(self) -> float:
        """What is drawn, as `label_budget` writes it."""
        return of_shots(self.shots) if self.shots else self.fraction


class Tuning(Record):
    """How encoder and head are trained; what a search may search."""

    images: int = Field(40_000, ge=1)
    """Budget in images seen; early stopping usually ends before."""
    epochs: int = Field(0, ge=0)
    """Budget in passes over the labelled training images, in place of `images`; 0: `images` counts."""
    every: int = Field(0, ge=0)
    """Images between two validation checks; 0: one pass, or without `epochs` 10 batches where that
    is more."""
    patience: int = Field(5, ge=1)
    """Validation checks without a lower loss (or better metric) after which training stops (inferred: den
    Boer 2025 gives no number)."""
    select: SelectBy = "loss"
    """What chooses the checkpoint on validation: loss (den Boer 2025) or metric (Rajamohan et al. 2026)."""
    tolerance: float = Field(2.0, ge=0)
    """With select = loss: taken is the latest checkpoint whose validation loss lies above the lowest by no
    more than so many standard errors over patients. With few labels the loss soon rises because the network
    grows too sure, while it still learns to rank. 0: the checkpoint of the lowest loss (den Boer 2025)."""
    batch_size: int = Field(64, ge=2)
    """Images a batch; at most the labelled training images there are (inferred)."""
    head_start: HeadStart = "auto"
    """Where the head starts: `probe`, at the exact linear probe of the same few labels on the encoder as it
    is (linear probing then fine-tuning, Kumar et al. 2022, arXiv 2202.10054); `random`; auto: the probe for a
    linear head, random for others. From the probe, no network comes out that validation shows to be worse."""
    optimizer: Optimizer = Optimizer(name="adam", lr=1e-4)
    """Adam 1e-4 (inferred: den Boer gives the rate for the GAN only; from the probe the best of three rates
    on knees with few labels)."""
    head: HeadChoice = "linear"
    """What is put on the encoder: linear; critic, the output layer of a pretrained critic trained on as it is
    (of a random critic a random one); or hidden layers before a linear one, such as [{width = 64,
    nonlinearity = "tanh", batch_norm = true, dropout = 0.2}]."""
    class_weight: ClassWeight = "auto"
    """balanced: each class weighs as much as the others in the loss, whatever its number of images. auto:
    balanced for three or more classes, none for binary and multi-label tasks, as for `probe`."""
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
class Material(LabelledImages):
    """What one fine-tuning learns from, read once. rows: of the store, for each labelled image."""

    encoder: Encoder
    folder: Path
    store: Store
    subset: Subset
    rows: NDArray[np.int64]
    starts: dict[tuple[str, float], ProbeStart] = field(default_factory=dict)  # those already fitted

    def images(self, positions: NDArray[np.int64], device: torch.device, crop: float) -> Iterator[Tensor]:
        """Those of labelled images, as networks take them in evaluation."""
        return images_in_order(self.store, self.rows[positions], device, _AT_ONCE, crop, equal=True)

    def probe_start(self, class_weight: ClassWeight, crop: float, device: torch.device) -> ProbeStart:
        """The linear probe of the few labels on the encoder as it is; fitted once."""
        if (class_weight, crop) not in self.starts:
            train, val, y = self.subset.train, self.subset.val, self.labelled.y
            encoder = started(self.encoder.to(device), self.images(train, device, crop))
            features = [features_of(encoder, self.images(part, device, crop)) for part in (train, val)]
            data = ProbeData(features[0], y[train], features[1], y[val])
            (probe,) = fit_probes(ProbeSettings(class_weight=class_weight), self.task, [data])
            log_p = probe.log_probabilities(data.val)[0].cpu().numpy()
            buffers = dict(encoder.named_buffers())
            self.starts[class_weight, crop] = ProbeStart(probe, buffers, log_p)
        return self.starts[class_weight, crop]

    @property
    def validation(self) -> Validation:
        """The few-label validation part."""
        val = self.subset.val
        return Validation(self.store, self.rows[val], self.labelled.y[val], self.labelled.patient_ids[val])


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
    subset = draw_subset(splits, labelled, few.budget, seed)
    rows = rows_of(store, labelled.image_ids)
    folder = few.encoder if few.encoder.is_dir() else few.encoder.parent
    return Material(manifest, splits, task, labelled, encoder, folder, store, subset, rows)


def tune(
    tuning: Tuning, material: Material, seed: int, device: torch.device, checkpoint: Path | None = None,
    should_stop: ShouldStop | None = None, label: str = "fine-tuning",
) -> tuple[Classify, Fitted]:  # fmt: skip
    """Train a copy of the encoder and a new head; both end as they were at the chosen checkpoint.

    Raises:
        InputError: the head does not fit the task or the encoder.
        RunError: a loss or gradient is not finite.
    """
    train = material.subset.train
    y, rows = material.labelled.y[train], material.rows[train]
    objective = make_objective(tuning, material, seed)
    batch_size = min(tuning.batch_size, len(y))
    objective.to(device)
    if starts_at_probe(tuning):
        material.probe_start(tuning.class_weight, tuning.centre_crop, device).put_into(objective)
    elif tuning.standardise:
        objective.prepare(material.images(train, device, 1.0))
    stream = Stream(material.store, rows, batch_size, seed, device, {"labels": y})
    usual = len(y) if tuning.epochs else max(len(y), 10 * batch_size)
    return objective, fit(
        objective, stream, replace(material.validation, crop=tuning.centre_crop),
        images=tuning.epochs * len(y) or tuning.images, every=tuning.every or usual,
        patience=tuning.patience, select=tuning.select, tolerance=tuning.tolerance,
        precision=tuning.precision, checkpoint=checkpoint, should_stop=should_stop, label=label,
        keep_start=starts_at_probe(tuning),
    )  # fmt: skip


def starts_at_probe(tuning: Tuning) -> bool:
    """Whether the head starts at the linear probe.

    Raises:
        InputError: asked for, with a head that is not linear.
    """
    if tuning.head_start == "probe" and tuning.head != "linear":
        raise InputError(
            "head_start 'probe' is the start of a linear head; use head = 'linear', or head_start = 'auto'"
        )
    return tuning.head_start != "random" and tuning.head == "linear"


def with_chosen(tuning: Tuning, chosen: ChosenSettings, seed: int) -> Tuning:
    """The settings that a search chose in the place of those given.

    Raises:
        InputError: the labels of this seed are those that the settings were chosen on.
    """
    if seed == chosen.seed:
        raise InputError(
            f"seed {seed}: the search itself used the labels of this seed; report other seeds, or search "
            "with another one"
        )
    given = {key: value for key, value in dump(tuning).items() if key in Tuning.model_fields}
    return build(Tuning, {**given, **chosen.settings}, "chosen settings")


def make_objective(tuning: Tuning, material: Material, seed: int) -> Classify:
    """Encoder and head before training, on the CPU; the critic's head is its own if it was pretrained."""
    task, y = material.task, material.labelled.y[material.subset.train]
    balanced = is_balanced(tuning.class_weight, task)
    settings = ClassifyConfig(
        kind="multilabel" if task.kind == "multilabel" else "single", num_classes=task.num_outputs,
        class_weights=tuple(balanced_weights(y, task.num_outputs).tolist()) if balanced else (),
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


@dataclass(frozen=True)
class Validation:
    """The few-label validation part: rows of the store, their classes, (n,) or (n, L), and patients."""

    store: Store
    rows: NDArray[np.int64]
    y: NDArray[np.int64]
    patients: NDArray[np.str_]
    crop: float = 1.0  # part of the side that is seen, about the centre


class Check(NamedTuple):
    """What one look at the validation part found. each: (m,) losses of its images, whose mean is `loss`."""

    loss: float
    metric: float
    each: NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """What early stopping chose. best_at, best_loss: of the checkpoint with the best score itself."""

    images_seen: int
    loss: float
    metric: float
    best_at: int
    best_loss: float
    points: int
    images_spent: int
    train_loss: float  # the lowest mean between two checks
    constant_loss: float  # of the best prediction that is the same for every training image
    ended: bool = False  # by `should_stop`

    @property
    def stayed_at_chance(self) -> bool:
        """Whether training never did clearly better than the class frequencies alone.

        False for one class, and where the probe that it started from is kept.
        """
        return self.images_seen > 0 and self.train_loss > (1 - CHANCE_MARGIN) * self.constant_loss > 0

    @property
    def best_at_end(self) -> bool:
        """Whether the last check of several was the best one."""
        return self.points > 1 and 0 < self.best_at == self.images_spent


def fit(
    objective: Classify, stream: Stream, validation: Validation, *, images: int, every: int, patience: int,
    select: SelectBy, precision: Precision, tolerance: float = 0.0, checkpoint: Path | None = None,
    should_stop: ShouldStop | None = None, label: str = "fine-tuning", keep_start: bool = False,
) -> Fitted:  # fmt: skip
    """Train until validation has not improved for `patience` checks; restore the weights that are kept.

    keep_start: the network as it is counts too, as a checkpoint after no image.

    select: "loss" (den Boer 2025, section 3.3) or "metric" (Rajamohan 2026, section 2.7: the task's own, ties
    broken by the loss). tolerance: as in `Tuning`. label: of the meter; none is shown where it is "".

    Raises:
        RunError: the validation loss was never finite.
    """
    memory: dict[str, Any] = {
        "best": None, "kept": None, "waited": 0, "points": 0, "train_loss": float("inf"), "spent": 0,
        "checks": [], "ended": False,
    }  # fmt: skip
    seen = 0  # checks that `should_stop` has seen: of a training that goes on, those before come again
    if keep_start:
        objective.to(memory_format=torch.channels_last)  # as `train` has it
        _keep(memory, objective, 0, check(objective, validation, stream.device), select)
    with Meter(label, images, "images") if label else nullcontext() as meter:
        for point in train(
            objective, stream, images=images, every=every, precision=precision, checkpoint=checkpoint,
            memory=memory,
        ):  # fmt: skip
            found = check(objective, validation, stream.device)
            memory["points"] += 1
            memory["waited"] += 1
            memory["train_loss"] = min(memory["train_loss"], point.scalars["all/loss"])
            memory["spent"] = point.images
            if not _keep(memory, objective, point.images, found, select) and tolerance and select == "loss":
                _keep_if_near(memory, objective, point.images, found, validation.patients, tolerance)
            memory.setdefault("checks", []).append((found.loss, found.metric))
            seen = _tell(should_stop, memory, seen)
            memory["stopped"] = memory["ended"] or memory["waited"] >= patience
            if meter:
                meter.add(point.images - meter.done, f"val loss {found.loss:.3g} metric {found.metric:.3g}")
    _tell(should_stop, memory, seen)
    best = memory["best"]
    if not np.isfinite(best["loss"]):
        raise RunError(
            f"{label or 'fine-tuning'}: the validation loss was not finite at any of "
            f'{memory["points"]} checks; use a lower rate (optimizer.lr), or precision = "float32"'
        )
    kept = memory.get("kept") or best  # checkpoints of earlier versions have none
    objective.load_state_dict(kept["weights"])
    constant = objective.constant_loss(np.asarray(stream.fields["labels"]))
    return Fitted(
        kept["images"], kept["loss"], kept["metric"], best["images"], best["loss"], memory["points"],
        memory["spent"], memory["train_loss"], constant, memory.get("ended", False),
    )  # fmt: skip


def _tell(should_stop: ShouldStop | None, memory: dict[str, Any], seen: int) -> int:
    """Ask `should_stop` after each check that it has not seen; gives their number."""
    checks = memory.setdefault("checks", [])  # checkpoints of earlier versions have none
    if should_stop is not None:
        for number, (loss, metric) in enumerate(checks[seen:], start=seen + 1):
            memory["ended"] = should_stop(number, loss, metric)
    return len(checks)


def _keep(memory: dict[str, Any], objective: Classify, images: int, found: Check, select: SelectBy) -> bool:
    """Keep the network if its score is the best so far; say whether it is."""
    score, best = _score(select, found.loss, found.metric), memory["best"]
    if best is not None and score <= best["score"]:
        return False
    memory["waited"] = 0
    memory["best"] = memory["kept"] = {"score": score, **_snapshot(objective, images, found)}
    return True


def _keep_if_near(
    memory: dict[str, Any], objective: Classify, images: int, found: Check, patients: NDArray[np.str_],
    tolerance: float,
) -> None:  # fmt: skip
    """Keep a later network whose loss is not above the lowest by more than noise."""
    lowest = memory["best"].get("each")
    if lowest is None or not np.isfinite(found.loss) or len(set(patients)) < 2:
        return
    if not below(found.each, lowest.numpy(), patients, tolerance):
        memory["kept"] = _snapshot(objective, images, found)


def _snapshot(objective: Classify, images: int, found: Check) -> dict[str, Any]:
    weights = {k: v.detach().clone() for k, v in objective.state_dict().items()}
    return {
        "images": images, "loss": found.loss, "metric": found.metric, "each": torch.from_numpy(found.each),
        "weights": weights,
    }  # fmt: skip


def _score(select: SelectBy, loss: float, metric: float) -> list[float]:
    """The larger the better. A loss that is not finite, beside which a metric means nothing, is worst."""
    if not np.isfinite(loss):
        return [-np.inf]
    return [-loss] if select == "loss" or np.isnan(metric) else [metric, -loss]


def check(objective: Classify, validation: Validation, device: torch.device) -> Check:
    """Loss and `task_metric` on the validation part, without augmentation.

    The loss weighs classes alike where training does, and every known label of a multi-label task.
    """
    losses, p = validation_losses(objective, validation, device)
    each = _weighted(objective, losses, validation.y)
    return Check(float(each.mean()), task_metric(validation.y, p), each)


@torch.inference_mode()
def validation_losses(
    objective: Classify, validation: Validation, device: torch.device
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each image's loss (m,), or each label's (m, L), and probabilities (m, K)."""
    objective.eval()
    store, rows, crop = validation.store, validation.rows, validation.crop
    batches = images_in_order(store, rows, device, _AT_ONCE, crop, equal=True)
    logits = torch.cat([objective(images).float() for images in batches])
    y = torch.as_tensor(validation.y, device=device)
    if y.ndim == 1:
        each = F.cross_entropy(logits, y, reduction="none")
    else:
        each = F.binary_cross_entropy_with_logits(logits, y.clamp(min=0).float(), reduction="none")
    return each.double().cpu().numpy(), objective.probabilities(logits).double().cpu().numpy()


def is_below(
    objective: Classify, material: Material, tuning: Tuning, start: ProbeStart, device: torch.device
) -> bool:
    """Whether the network's validation loss is above that of its start's probe, by more than noise.

    Classes weigh as in `check`.
    """
    validation = replace(material.validation, crop=tuning.centre_crop)
    each, _ = validation_losses(objective, validation, device)
    y, log_p = validation.y, np.maximum(start.log_p, np.log(1e-15))
    of_probe = -np.take_along_axis(log_p, np.maximum(y, 0)[..., None], -1)[..., 0]
    each, of_probe = (_weighted(objective, losses, y) for losses in (each, of_probe))
    return below(each, of_probe, validation.patients)


def _weighted(objective: Classify, losses: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """(m,) images' parts in the validation loss, which is their mean, from (m,) or (m, L) losses."""
    if y.ndim == 1 and objective.class_weights is not None:
        weights = 1 / np.bincount(y)[y]
    else:
        weights = np.asarray(y != MASKED, dtype=np.float64)
    parts = losses * weights * len(y) / weights.sum()
    return np.asarray(parts.reshape(len(y), -1).sum(1))


def task_metric(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    """AUROC (two classes), balanced accuracy over the classes that are there (more), or macro AUROC (labels).

    NaN where there are too few classes for it; labels of one class are left out.
    """
    if y.ndim == 1 and p.shape[1] == 2:
        return float(metrics.auroc(y, p[:, 1])[0])
    return float((metrics.auroc_macro if y.ndim == 2 else metrics.balanced_accuracy)(y, p)[0])
