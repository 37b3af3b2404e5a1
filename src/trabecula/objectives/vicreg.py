"""VICReg: two views of an image have near embeddings, whose features vary and do not covary.

Bardes, Ponce, LeCun 2021, arXiv 2105.04906, algorithm 1, with the settings of the official code. Variance,
invariance, covariance: a hinge keeps each feature's standard deviation over the batch above one, so the
embedding cannot collapse to a point; covariances are drawn to zero, so it cannot collapse to a line.

Three versions are in use. This is the official code's: the hinge is the mean of both views' (equation 6
adds them; `variance = 50` does so), the invariance is a mean over features (equation 5 adds them), the
covariance terms of both views are added.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from trabecula.objectives.optim import Optimizer
from trabecula.objectives.two_views import LARS, TwoViews, TwoViewsConfig, off_diagonal_energy

EPS = 1e-4
"""Added to the variance under the root, whose gradient at 0 would not be finite (equation 2)."""


class VicregConfig(TwoViewsConfig):
    """Settings of VICReg; the defaults are those of the official code."""

    invariance: float = Field(25.0, ge=0)
    """Weight of the mean squared distance of the two embeddings (lambda)."""
    variance: float = Field(25.0, ge=0)
    """Weight of the hinge on the standard deviations (mu), whose mean over both views is taken; 50 for their
    sum, as in equation 6."""
    covariance: float = Field(1.0, ge=0)
    """Weight of the squared covariances (nu)."""
    optimizer: Optimizer = LARS
    """LARS with a warm-up and a half cosine to a thousandth: a rate of 0.2 at 256 images a batch, times batch
    size / 256, is the official code's for 2048. Small batches want larger rates: the authors name 0.5 for
    256 images. The warm-up of ten epochs is a tenth of a run of 100."""


class Vicreg(TwoViews):
    """Encoder and expander under the loss of VICReg."""

    Config = VicregConfig
    config: VicregConfig

    def loss(self, za: Tensor, zb: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        (spread_a, covariance_a), (spread_b, covariance_b) = spread_terms(za), spread_terms(zb)
        terms = {
            "invariance": F.mse_loss(za, zb),
            "variance": (spread_a + spread_b) / 2,
            "covariance": covariance_a + covariance_b,
        }
        weights = {name: getattr(self.config, name) for name in terms}
        return sum((weights[name] * term for name, term in terms.items()), za.new_zeros(())), terms


def spread_terms(z: Tensor) -> tuple[Tensor, Tensor]:
    """The variance and covariance terms of one view (equations 1 to 4).

    z: (N, D) embeddings; variances and covariances are over the rows, with 1/(N-1).
    Gives the mean over features of max(0, 1 - sqrt(variance + 1e-4)), and the sum of the squared covariances
    of different features, divided by D.
    """
    num_rows, dim = z.shape
    centred = z - z.mean(0)
    variance = centred.square().sum(0) / (num_rows - 1)
    hinge = F.relu(1 - (variance + EPS).sqrt()).mean()
    return hinge, off_diagonal_energy(centred, centred) / (num_rows - 1) ** 2 / dim
