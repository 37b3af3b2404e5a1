"""What methods share that compare two views of an image without negatives: nets, views, optimizer, step.

The recipe is that of the official codes of Barlow Twins and VICReg, which agree in all but the loss: two
views made in different ways, each a forward pass of its own (so that batch norm sees one view at a time),
a wide projector that is thrown away, LARS.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from trabecula import distributed
from trabecula.config import Record
from trabecula.data.views import Views
from trabecula.nets.encoder import Encoder
from trabecula.nets.heads import Projector
from trabecula.objectives.objective import Batches, Objective, Setting, Steps, Update
from trabecula.objectives.optim import Optimizer

LARS = Optimizer(
    name="lars", lr=0.2, momentum=0.9, weight_decay=1e-6, decay_vectors=False,
    schedule="cosine", end=0.001, warmup=0.1,
)  # fmt: skip
"""Of both official codes; their warm-up of ten epochs is a tenth of the 100 that VICReg's code trains for."""


class TwoViewsConfig(Record):
    """Settings of every such method."""

    width: int = Field(8192, ge=2)
    """Outputs of each of the projector's three layers. Memory and time grow with its square: 8192 are half a
    gigabyte of weights, 2048 are 1/14 of that on 512 features."""
    views_a: Views = Views(crop_scale=(0.08, 1.0), blur=1.0)
    """Augmentation of the first view: always blurred (Zbontar et al. 2021, section 2.2, as BYOL; no colour on
    grey images). The size is the encoder's."""
    views_b: Views = Views(crop_scale=(0.08, 1.0), blur=0.1, solarize=0.2)
    """Augmentation of the second view: blurred with probability 0.1, solarized with probability 0.2."""
    optimizer: Optimizer = LARS
    """LARS with a warm-up and a half cosine to a thousandth."""
    scale_lr: bool = True
    """Multiply the rate by batch size / 256, as the official codes do."""


class TwoViews(Objective):
    """Encoder and projector; a method adds its loss of the two embeddings."""

    Config = TwoViewsConfig
    config: TwoViewsConfig
    batch_coupled = True
    tiny = {
        "width": 8, "optimizer": {"name": "lars", "lr": 2.0, "vector_lr": 0.001}, "scale_lr": False,
        "views_a": {"crop_scale": (0.8, 1.0), "rotate": 5, "blur": 0, "intensity": 0},
        "views_b": {"crop_scale": (0.8, 1.0), "rotate": 5, "blur": 0, "intensity": 0},
    }  # fmt: skip

    def __init__(self, config: TwoViewsConfig, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        self.encoder = encoder
        with setting.seeded("projector"):
            self.projector = Projector(encoder.card.num_features, config.width)

    def step(self, batches: Batches, progress: float) -> Steps:  # noqa: ARG002
        (batch,) = batches
        both = (batch.view(views).images for views in (self.config.views_a, self.config.views_b))
        za, zb = (self.projector(self.encoder(images)) for images in both)
        with torch.autocast(za.device.type, enabled=False):  # every process has the loss of the global batch
            loss, terms = self.loss(distributed.all_rows(za.float()), distributed.all_rows(zb.float()))
        yield Update("all", loss, {name: term.detach() for name, term in terms.items()})

    def loss(self, za: Tensor, zb: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of (N, width) embeddings of both views of the global batch, and its terms by name."""
        raise NotImplementedError


def off_diagonal_energy(a: Tensor, b: Tensor) -> Tensor:
    """Sum of squares of a^T b off its diagonal; a, b: (N, D).

    Of few rows the D x D matrix is never formed: |a^T b|^2 is the sum of the products of two N x N matrices.
    """
    if len(a) >= a.shape[1]:
        product = a.t() @ b
        return (product - torch.diag(product.diagonal())).square().sum()
    left = a @ a.t()
    right = left if b is a else b @ b.t()
    return (left * right).sum() - (a * b).sum(0).square().sum()
