"""Barlow Twins: two views of an image should agree in every feature, and no two features should agree.

Zbontar, Jing, Misra, LeCun, Deny 2021, arXiv 2103.03230, equations 1 and 2, section 2.2, with the settings of
the official code. The cross-correlation between the embeddings of both views, over the whole batch, is drawn
to the identity: ones on its diagonal make features independent of the augmentation, zeros beside it keep
them from saying the same thing, so the embedding cannot collapse and no negatives are needed.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trabecula.objectives.optim import Optimizer
from trabecula.objectives.two_views import LARS, TwoViews, TwoViewsConfig, off_diagonal_energy

EPS = 1e-5
"""Added to the variances, as by the official code's batch norm."""


class BarlowConfig(TwoViewsConfig):
    """Settings of Barlow Twins; the defaults are those of the official code."""

    redundancy: float = Field(0.0051, ge=0)
    """Weight of the terms off the diagonal (lambda); the paper rounds it to 0.005."""
    optimizer: Optimizer = LARS.model_copy(update={"vector_lr": 0.024})
    """LARS with a warm-up and a half cosine to a thousandth: at 256 images a batch the rate is 0.2 for
    weights and 0.0048 for biases and norm scales. The warm-up of ten epochs is a tenth of a run of 100, and
    0.01 of the paper's 1000. Small batches want larger rates: the authors name 0.4 for 256 and 0.7 for 128
    images."""


class Barlow(TwoViews):
    """Encoder and projector under the loss of Barlow Twins."""

    Config = BarlowConfig
    config: BarlowConfig

    def loss(self, za: Tensor, zb: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        invariance, redundancy = correlation_terms(za, zb)
        terms = {"invariance": invariance, "redundancy": redundancy}
        return invariance + self.config.redundancy * redundancy, terms


def correlation_terms(za: Tensor, zb: Tensor) -> tuple[Tensor, Tensor]:
    """How far the cross-correlation of two embeddings is from the identity (equations 1 and 2).

    za, zb: (N, D) embeddings of the two views. Each feature is centred and divided by its standard deviation
    over the rows, with 1/N: with 1/(N-1) equal views would not correlate to 1.
    Gives sum_i (1 - c_ii)^2 and sum_{i != j} c_ij^2.
    """
    num_rows = len(za)
    a, b = (F.batch_norm(z, None, None, training=True, eps=EPS) for z in (za, zb))
    diagonal = (a * b).sum(0) / num_rows
    return (1 - diagonal).square().sum(), off_diagonal_energy(a, b) / num_rows**2
