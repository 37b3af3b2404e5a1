"""Heads: layers on an encoder's features, in pretraining or for a task."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trabecula.artifacts.classifier import HeadChoice, HiddenLayer
from trabecula.errors import InputError
from trabecula.random_numbers import RowRandom

LEAK = 0.2  # slope of leaky_relu below 0: the critic's own (den Boer 2025, section 4.2)


class _Layers(nn.Module):
    """Layers in turn, each with a name."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(OrderedDict(layers))

    def forward(self, features: Tensor) -> Tensor:
        """(B, num_features) -> (B, width of the last layer)."""
        return cast("Tensor", self.layers(features))


class ProjectionHead(_Layers):
    """The MLP of MoCo v2: linear, ReLU, linear, no batch norm.

    Source: Chen et al. 2020, arXiv 2003.04297, section 2.
    """

    def __init__(self, num_features: int, hidden: int, out: int) -> None:
        super().__init__(hidden=nn.Linear(num_features, hidden), act=nn.ReLU(), out=nn.Linear(hidden, out))


class Projector(_Layers):
    """The MLP of Barlow Twins and VICReg: twice linear, batch norm and ReLU, then linear.

    Source: Zbontar et al. 2021, arXiv 2103.03230, section 2.2; Bardes et al. 2021, arXiv 2105.04906, section
    4.2. No layer has a bias: of the first two a batch norm would take it away, and the official codes' last
    has none.
    """

    def __init__(self, num_features: int, width: int) -> None:
        super().__init__(
            linear0=nn.Linear(num_features, width, bias=False), norm0=nn.BatchNorm1d(width), act0=nn.ReLU(),
            linear1=nn.Linear(width, width, bias=False), norm1=nn.BatchNorm1d(width), act1=nn.ReLU(),
            output=nn.Linear(width, width, bias=False),
        )  # fmt: skip


class RowDropout(nn.Module):
    """Dropout whose random numbers belong to the rows of a batch, so that a run can be resumed."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor, random: RowRandom | None) -> Tensor:
        """(B, width) -> the same, in training with a part p set to 0 and the rest grown by 1 / (1 - p).

        Raises:
            ValueError: in training and no random numbers are given.
        """
        if not self.training:
            return x
        if random is None:
            raise ValueError("dropout needs the batch's random numbers in training")
        return x * (random.uniform(x.shape[1]) >= self.p).to(x.dtype) / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class TaskHead(nn.Module):
    """From features to class logits: hidden layers, if any, then one linear layer.

    one_logit: of two classes, score the second alone (one output, as den Boer 2025 and a critic do); the
        first has logit 0, so that softmax gives the sigmoid of the score and cross-entropy its binary form.
    centre, scale: subtracted from the features, and divided by; 0 and 1 until `calibrate`.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self, num_features: int, num_outputs: int, hidden: Sequence[HiddenLayer] = (), one_logit: bool = False
    ) -> None:
        super().__init__()
        if one_logit and num_outputs != 2:
            raise ValueError(f"one logit separates two classes, not {num_outputs}")
        self.one_logit = one_logit
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        width = num_features
        for index, layer in enumerate(hidden):
            layers |= {f"{name}{index}": part for name, part in _parts(width, layer).items()}
            width = layer.width
        self.hidden = nn.Sequential(layers)
        self.output = nn.Linear(width, 1 if one_logit else num_outputs)
        self.register_buffer("centre", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def calibrate(self, features: Tensor, keep_scores: bool = False) -> None:
        """Centre (N, num_features) and bring their mean variance to 1.

        Features of one network can differ a hundredfold between two initialisations; the same learning
        rate would then mean another thing for each arm.

        keep_scores: for a critic's output layer, whose scores on features as they are shall be kept up to
            an origin and a unit: on these features they have mean 0 and spread 1.
        """
        scores = self.output(features) if keep_scores else features.new_zeros(1)
        self.centre.copy_(features.mean(0))
        self.scale.copy_(_spread(features - self.centre))
        if keep_scores:
            self.output.weight.mul_(self.scale / _spread(scores - scores.mean(0)))
            self.output.bias.zero_()

    def forward(self, features: Tensor, random: RowRandom | None = None) -> Tensor:
        """(B, num_features) -> (B, num_outputs) logits; random: the batch's, for dropout in training."""
        x = (features - self.centre) / self.scale
        for layer in self.hidden:
            x = layer(x, random) if isinstance(layer, RowDropout) else layer(x)
        logits: Tensor = self.output(x)
        return F.pad(logits, (1, 0)) if self.one_logit else logits


def make_head(head: HeadChoice, num_features: int, num_outputs: int, kind: str) -> TaskHead:
    """The head of a task; of two classes all but the linear one score the second alone.

    kind: "multilabel", or any other for one class an image.

    Raises:
        InputError: the critic's output layer is to separate more than two classes.
    """
    binary = kind != "multilabel" and num_outputs == 2
    if head == "critic" and not binary:
        what = f"{num_outputs} labels" if kind == "multilabel" else f"{num_outputs} classes"
        raise InputError(
            f"head 'critic': a critic has one score, so it can separate two classes, not {what}; "
            "choose a binary task, or head = 'linear'"
        )
    hidden = head if isinstance(head, tuple) else ()
    return TaskHead(num_features, num_outputs, hidden, one_logit=binary and head != "linear")


def _parts(width: int, layer: HiddenLayer) -> dict[str, nn.Module]:
    """The modules of one hidden layer, in the order of den Boer's Table 2."""
    parts: dict[str, nn.Module] = {"linear": nn.Linear(width, layer.width)}
    if layer.batch_norm:
        parts["norm"] = nn.BatchNorm1d(layer.width)
    if layer.nonlinearity != "none":
        parts["act"] = {
            "relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(LEAK), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(),
        }[layer.nonlinearity]  # fmt: skip
    if layer.dropout:
        parts["dropout"] = RowDropout(layer.dropout)
    return parts


def _spread(centred: Tensor) -> Tensor:
    spread = centred.square().mean().sqrt()
    return torch.where(spread > 0, spread, torch.ones_like(spread))
