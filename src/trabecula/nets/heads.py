"""Heads: what stands on an encoder's features, in pretraining or for a task."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """The MLP of MoCo v2: linear, ReLU, linear, no batch norm.

    Source: Chen et al. 2020, arXiv 2003.04297, section 2.
    """

    def __init__(self, num_features: int, hidden: int, out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            OrderedDict(hidden=nn.Linear(num_features, hidden), act=nn.ReLU(), out=nn.Linear(hidden, out))
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, num_features) -> (B, out)."""
        projected: Tensor = self.layers(features)
        return projected


class LinearHead(nn.Module):
    """One linear layer from features to logits, on features that can be brought to a common scale.

    centre, scale: subtracted from the features, and divided by; 0 and 1 until `calibrate`.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.output = nn.Linear(num_features, num_outputs)
        self.register_buffer("centre", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Centre (N, num_features) and bring their mean variance to 1.

        Features of one network can differ a hundredfold between two initialisations; the same learning
        rate would then mean another thing for each arm.
        """
        self.centre.copy_(features.mean(0))
        spread = (features - self.centre).square().mean().sqrt()
        self.scale.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    def forward(self, features: Tensor) -> Tensor:
        """(B, num_features) -> (B, num_outputs) logits."""
        logits: Tensor = self.output((features - self.centre) / self.scale)
        return logits
