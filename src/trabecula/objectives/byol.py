"""BYOL: from one view of an image, predict what a slow average of the network says of the other view.

Grill et al. 2020, arXiv 2006.07733, section 3 and algorithm 1. An online network (encoder, projector,
predictor) is to give, up to its length, the projection that a target network gives of another view; the
target is a moving average of the online one and learns nothing itself. There are no negatives: what keeps
all images from becoming alike is that only the online side has a predictor and only it follows the gradient.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trabecula.config import Record
from trabecula.data.views import Views
from trabecula.nets.encoder import Encoder
from trabecula.objectives.objective import Batches, Objective, Product, Setting, Steps, Update, ema, rising
from trabecula.objectives.optim import Optimizer


class ByolConfig(Record):
    """Settings of BYOL; the defaults are the paper's for 1000 epochs."""

    hidden: int = Field(4096, ge=2)
    """Width of the hidden layer of projector and predictor (section 3.2)."""
    dim: int = Field(256, ge=2)
    """Length of a projection and of a prediction (section 3.2)."""
    momentum: float = Field(0.996, ge=0, le=1)
    """Of the target's moving average at the start; it rises to 1 by half a cosine (section 3.2). For 100 and
    300 epochs the official code takes 0.99."""
    views_a: Views = Views(crop_scale=(0.08, 1.0), blur=1.0)
    """Augmentation of the first view: always blurred (appendix B; no colour on grey images). The size is the
    encoder's."""
    views_b: Views = Views(crop_scale=(0.08, 1.0), blur=0.1, solarize=0.2)
    """Augmentation of the second view: blurred with probability 0.1, solarized with probability 0.2."""
    optimizer: Optimizer = Optimizer(
        name="lars", lr=0.2, momentum=0.9, weight_decay=1.5e-6, decay_vectors=False,
        schedule="cosine", warmup=0.01,
    )  # fmt: skip
    """LARS, 10 of 1000 epochs of warm-up, half a cosine to 0; 0.2 is for 256 images a batch (section 3.2).
    For 300 epochs the official code takes 0.3, for 100 epochs 0.45, and a decay of 1e-6."""
    scale_lr: bool = True
    """Multiply the rate by batch size / 256 (section 3.2)."""


class Byol(Objective):
    """An online network with a predictor, and its moving average as target."""

    Config = ByolConfig
    config: ByolConfig
    group = "online"
    batch_coupled = True
    tiny = {
        "hidden": 32, "dim": 8, "momentum": 0.9, "optimizer": {"name": "adam", "lr": 1e-3}, "scale_lr": False,
        "views_a": {"crop_scale": (0.8, 1.0), "rotate": 5, "blur": 0, "intensity": 0},
        "views_b": {"crop_scale": (0.8, 1.0), "rotate": 5, "blur": 0, "intensity": 0},
    }  # fmt: skip

    def __init__(self, config: ByolConfig, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        with setting.seeded("byol"):
            projector = perceptron(encoder.card.num_features, config.hidden, config.dim)
            self.online = nn.Sequential(encoder, projector)
            self.predictor = perceptron(config.dim, config.hidden, config.dim)
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def products(self) -> dict[str, Product]:
        return {"encoder": cast("Encoder", self.online[0])}

    def step(self, batches: Batches, progress: float) -> Steps:
        (batch,) = batches
        a, b = (batch.view(views).images for views in (self.config.views_a, self.config.views_b))
        predicted_a, predicted_b = (self.predictor(self.online(images)) for images in (a, b))
        with torch.no_grad():
            wanted_a, wanted_b = self.target(b), self.target(a)
        yield Update("online", distance(predicted_a, wanted_a) + distance(predicted_b, wanted_b))
        ema(self.target, self.online, rising(self.config.momentum, progress))  # algorithm 1: after the step


def perceptron(num_features: int, hidden: int, out: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, linear (section 3.2); a bias of the first would go in the batch norm."""
    first, last = nn.Linear(num_features, hidden, bias=False), nn.Linear(hidden, out, bias=False)
    return nn.Sequential(OrderedDict(hidden=first, norm=nn.BatchNorm1d(hidden), act=nn.ReLU(), out=last))


def distance(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared distance of rows (B, dim) brought to unit length: 2 - 2 cos (equation 2)."""
    if predicted.dtype != torch.float64:
        predicted, wanted = predicted.float(), wanted.float()
    return 2 - 2 * F.cosine_similarity(predicted, wanted, dim=1).mean()
