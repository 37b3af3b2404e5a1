"""Fine-tuning with early stopping on the few-label validation part; the best checkpoint is kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trabecula.artifacts.store import Store
from trabecula.data.batches import Stream
from trabecula.data.views import centre
from trabecula.errors import RunError
from trabecula.metrics import classification as metrics
from trabecula.nets.devices import Precision
from trabecula.objectives.classify import MASKED, Classify
from trabecula.progress import Meter
from trabecula.train.loop import train

Select = Literal["loss", "metric"]
Told = Callable[[int, float, float], bool]
"""Told (looks so far, loss, metric) at each look at the validation part; True ends the training."""
PLATEAU_MARGIN = 0.05
"""A network has left the plateau once a look's mean training loss is this part below a constant's."""


@dataclass(frozen=True)
class Validation:
    """The few-label validation part: rows of the store and their classes, (n,) or (n, L).

    crop: part of the side that is seen, about the centre.
    """

    store: Store
    rows: NDArray[np.int64]
    y: NDArray[np.int64]
    crop: float = 1.0


@dataclass(frozen=True)
class Fitted:
    """What early stopping chose."""

    images_seen: int
    loss: float
    metric: float
    points: int
    images_spent: int
    train_loss: float  # the lowest mean between two looks
    constant_loss: float  # of the best prediction that is the same for every training image
    ended: bool = False  # by what it was told to, before the patience was over

    @property
    def plateau(self) -> bool:
        """Whether training never did clearly better than the class frequencies alone."""
        if self.constant_loss <= 0:  # one class only: there is nothing to learn
            return False
        return self.train_loss > (1 - PLATEAU_MARGIN) * self.constant_loss


def fit(
    objective: Classify,
    stream: Stream,
    validation: Validation,
    *,
    images: int,
    every: int,
    patience: int,
    select: Select,
    precision: Precision,
    checkpoint: Path | None = None,
    told: Told | None = None,
    label: str = "fine-tuning",
) -> Fitted:
    """Train until the validation part has not improved for `patience` points; restore the best weights.

    select: "loss" (den Boer 2025, section 3.3) or "metric" (Rajamohan 2026, section 2.7: the task's own,
    ties broken by the loss).

    label: of the meter; none is shown where it is "".

    Raises:
        RunError: the validation loss was never a number.
    """
    memory: dict[str, Any] = {"best": None, "waited": 0, "points": 0, "train_loss": float("inf"), "spent": 0}
    ended = False
    with Meter(label, images, "images") if label else nullcontext() as meter:
        for point in train(
            objective, stream, images=images, every=every, precision=precision, checkpoint=checkpoint,
            memory=memory,
        ):  # fmt: skip
            loss, metric = measure(objective, validation, stream.device)
            score = _score(select, loss, metric)
            best = memory["best"]
            memory["points"] += 1
            memory["waited"] += 1
            memory["train_loss"] = min(memory["train_loss"], point.scalars["all/loss"])
            memory["spent"] = point.images
            if best is None or score > best["score"]:
                memory["waited"] = 0
                memory["best"] = {
                    "score": score, "images": point.images, "loss": loss, "metric": metric,
                    "weights": {k: v.detach().clone() for k, v in objective.state_dict().items()},
                }  # fmt: skip
            ended = told is not None and told(memory["points"], loss, metric)
            memory["stopped"] = ended or memory["waited"] >= patience
            if meter:
                meter.add(point.images - meter.done, f"val loss {loss:.3g} metric {metric:.3g}")
    best = memory["best"]
    if not np.isfinite(best["loss"]):
        raise RunError(
            f"{label or 'fine-tuning'}: the loss of the validation part was no number at any of "
            f'{memory["points"]} looks; use a lower rate (optimizer.lr), or precision = "float32"'
        )
    objective.load_state_dict(best["weights"])
    constant = objective.constant_loss(np.asarray(stream.fields["labels"]))
    return Fitted(
        best["images"], best["loss"], best["metric"], memory["points"], memory["spent"],
        memory["train_loss"], constant, ended,
    )  # fmt: skip


def _score(select: Select, loss: float, metric: float) -> list[float]:
    """The larger the better. A loss that is no number, beside which a metric means nothing, is worst."""
    if not np.isfinite(loss):
        return [-np.inf]
    return [-loss] if select == "loss" or np.isnan(metric) else [metric, -loss]


@torch.inference_mode()
def measure(objective: Classify, validation: Validation, device: torch.device) -> tuple[float, float]:
    """Unweighted loss and the task's metric on the validation part, without augmentation.

    The metric is the AUROC (two classes), balanced accuracy (more) or macro AUROC (labels); NaN where the
    part holds too few classes for it.
    """
    objective.eval()
    size = validation.store.size
    logits = torch.cat(
        [
            objective(centre(validation.store.read(rows), size, validation.crop).to(device)).float()
            for rows in np.array_split(validation.rows, -(-len(validation.rows) // 256))
        ]
    )
    y = torch.as_tensor(validation.y, device=device)
    p = objective.probabilities(logits).double().cpu().numpy()
    return float(_loss(logits, y)), task_metric(validation.y, p)


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    if y.ndim == 1:
        return F.cross_entropy(logits, y)
    each = F.binary_cross_entropy_with_logits(logits, y.clamp(min=0).float(), reduction="none")
    known = (y != MASKED).float()
    return (each * known).sum() / known.sum()


def task_metric(y: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    """AUROC, balanced accuracy over the classes that are there, or macro AUROC over estimable labels."""
    if y.ndim == 2:
        return float(metrics.auroc_macro(y, p)[0])
    if p.shape[1] == 2:
        return float(metrics.auroc(y, p[:, 1])[0])
    present = np.unique(y)
    return float(np.mean([(p.argmax(1)[y == k] == k).mean() for k in present]))
