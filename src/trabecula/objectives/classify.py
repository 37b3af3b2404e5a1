"""Fine-tuning: an encoder and a head learn a task's labels, nothing frozen.

Den Boer 2025, section 3.3 (whole model, early stopping); Rajamohan et al. 2026, arXiv 2603.24903v1,
section C.4 (random resized crop and rotation while training).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import entr
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from trabecula.artifacts.classifier import HeadChoice
from trabecula.artifacts.store import to_float
from trabecula.config import Record
from trabecula.data.views import Views
from trabecula.nets.encoder import Encoder
from trabecula.nets.heads import make_head
from trabecula.objectives.objective import Batches, Objective, Setting, Steps, Update
from trabecula.objectives.optim import Optimizer
from trabecula.random_numbers import RowRandom

MASKED = -1
"""In multi-label targets: this label is not known for this image."""


class ClassifyConfig(Record):
    """Settings of fine-tuning."""

    kind: Literal["single", "multilabel"] = "single"
    """One class an image (cross-entropy), or any number of labels (binary cross-entropy each)."""
    num_classes: int = Field(2, ge=1)
    """Outputs of the head: classes, or labels."""
    class_weights: tuple[float, ...] = ()
    """Weight of each class in the loss; empty for none."""
    head: HeadChoice = "linear"
    """linear, critic (one score of two classes), or hidden layers before a linear one."""
    augment: bool = True
    """Whether training images are augmented by `views`."""
    views: Views = Views(crop_scale=(0.8, 1.0), blur=0.0, intensity=0.0)
    """Mild crop and rotation: a hard crop can remove the joint space (inferred: the paper gives no scale).
    The size is the encoder's."""
    optimizer: Optimizer = Optimizer(name="adam", lr=1e-4)
    """Adam 1e-4 (inferred: den Boer gives the rate for the GAN only)."""

    @model_validator(mode="after")
    def _one_weight_a_class(self) -> Self:
        weights = self.class_weights
        if weights and (len(weights) != self.num_classes or min(weights) < 0):
            wanted = f"one number, 0 or more, for each of {self.num_classes} classes"
            raise ValueError(f"class_weights needs {wanted}, got {list(weights)}")
        return self


class Classify(Objective):
    """Encoder and head under cross-entropy."""

    Config = ClassifyConfig
    config: ClassifyConfig
    class_weights: Tensor | None
    fields = ("labels",)
    of_task = {
        "kind": lambda task: "multilabel" if task.kind == "multilabel" else "single",
        "num_classes": lambda task: task.num_outputs,
    }
    tiny = {"head": [{"width": 16, "nonlinearity": "tanh", "dropout": 0.2}]}

    def __init__(self, config: ClassifyConfig, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        self.encoder = encoder
        with setting.seeded("classify head"):
            self.head = make_head(config.head, encoder.card.num_features, config.num_classes, config.kind)
        self.batch_coupled = any(isinstance(part, _BatchNorm) for part in self.modules())
        weights = torch.tensor(config.class_weights) if config.class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)

    @torch.no_grad()
    def prepare(self, images: Iterable[Tensor]) -> None:
        """Scale the head's input as training will see it: batch norm by the batch.

        By its running statistics a random network's features are up to a thousand times smaller than in
        training. These statistics are left as they were.
        """
        self.train()
        kept = {name: buffer.clone() for name, buffer in self.encoder.named_buffers()}
        features = [self.encoder(part).float() for part in images]
        for name, buffer in self.encoder.named_buffers():
            buffer.copy_(kept[name])
        self.head.calibrate(torch.cat(features), keep_scores=self.config.head == "critic")

    def forward(self, images: Tensor, random: RowRandom | None = None) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, num_classes); random: the batch's, for dropout in training."""
        return self.head(self.encoder(images), random)  # type: ignore[no-any-return]

    def step(self, batches: Batches, progress: float) -> Steps:  # noqa: ARG002
        (batch,) = batches
        images = batch.view(self.config.views).images if self.config.augment else to_float(batch.images)
        yield Update("all", self.loss(self(images, batch.random).float(), batch.fields["labels"]))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of (B, K) logits under (B,) classes or (B, L) labels in {0, 1, MASKED}."""
        if self.config.kind == "single":
            each = F.cross_entropy(logits, labels, reduction="none")
            if self.class_weights is not None:
                each = each * self.class_weights[labels]
            return each.mean()  # over images, not over weights: parts of a batch then add up exactly
        known = (labels != MASKED).float()
        each = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).float(), reduction="none")
        if self.class_weights is not None:
            each = each * (1 + labels.clamp(min=0) * (self.class_weights - 1))
        return (each * known).mean()

    def constant_loss(self, labels: NDArray[np.int64]) -> float:
        """Loss on these (n,) or (n, L) labels of the best prediction that is the same for every image.

        Without class weights it is the entropy of the class frequencies, in nats.
        """
        weights = self.class_weights.double().cpu().numpy() if self.class_weights is not None else 1.0
        if self.config.kind == "single":
            counts = weights * np.bincount(labels, minlength=self.config.num_classes)
            return float(entr(counts / counts.sum()).sum() * counts.sum() / len(labels))
        counts = np.stack([(labels == 0).sum(0), weights * (labels == 1).sum(0)])  # (2, L)
        known = np.maximum(counts.sum(0), 1)
        return float((entr(counts / known).sum(0) * counts.sum(0)).sum() / labels.size)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, K): softmax over classes, or each label's own sigmoid."""
        logits = logits.float()
        return logits.softmax(1) if self.config.kind == "single" else logits.sigmoid()
