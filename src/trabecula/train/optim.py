"""Optimizers and learning-rate schedules, as settings of an objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from trabecula.config import Record


class Optimizer(Record):
    """How one group of weights moves."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """The rule. SGD uses `momentum`, the Adams use `betas`."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate at its highest."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """SGD's momentum."""
    weight_decay: float = Field(0.0, ge=0)
    """L2 penalty (SGD, Adam) or decoupled decay (AdamW)."""
    decay_vectors: bool = True
    """Whether biases and norm scales (1-D weights) decay too."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The rate over the budget: unchanged, or half a cosine down to 0."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Part of the budget over which the rate rises linearly from 0."""
    clip_norm: float | None = Field(None, gt=0)
    """Scale the group's gradient down to this norm; none by default."""
    clip_value: float | None = Field(None, gt=0)
    """Cut each gradient value to +- this; none by default."""

    def make(self, weights: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer over these weights."""
        groups = [
            {
                "params": [w for w in weights if w.ndim > 1 or self.decay_vectors],
                "weight_decay": self.weight_decay,
            },
            {
                "params": [w for w in weights if not (w.ndim > 1 or self.decay_vectors)],
                "weight_decay": 0.0,
            },
        ]
        groups = [group for group in groups if group["params"]]
        if self.name == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return kind(groups, lr=self.lr, betas=self.betas)

    def rate(self, progress: float) -> float:
        """The learning rate when `progress` (0 to 1) of the budget is spent."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        if self.schedule == "constant":
            return self.lr
        rest = (progress - self.warmup) / (1 - self.warmup)
        return self.lr * (1 + math.cos(math.pi * rest)) / 2
