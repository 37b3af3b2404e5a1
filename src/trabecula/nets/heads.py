"""Heads: what stands on an encoder's features, in pretraining or for a task."""

from __future__ import annotations

from collections import OrderedDict

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
    """One linear layer from features to logits."""

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.output = nn.Linear(num_features, num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """(B, num_features) -> (B, num_outputs) logits."""
        logits: Tensor = self.output(features)
        return logits
