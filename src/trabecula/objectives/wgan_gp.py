"""WGAN-GP: a generator of images and a critic that tells them from real ones; the critic is kept.

Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville 2017, arXiv 1704.00028 (algorithm 1, equation 3), with
the nets and settings of den Boer 2025 (TU Delft), "Adversarial generative models applied to diagnosing
Osteoarthritis", sections 4.2 and 4.3. To score real radiographs above generated ones the critic has to learn
what a joint looks like; that knowledge is the start of a diagnosis.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trabecula.nets.input_gradient import input_gradient
from trabecula.objectives.adversarial import CONSTANT_CANCELS, AdversarialConfig, CriticGan
from trabecula.objectives.objective import Batches, Steps, Update


class WganGpConfig(AdversarialConfig):
    """Settings of WGAN-GP; the defaults are those of den Boer 2025, section 4.3."""

    penalty: float = Field(10.0, ge=0)
    """Weight lambda of the gradient penalty (Gulrajani, equation 3)."""
    penalty_precision: Literal["float32", "bf16"] = "float32"
    """Of the products in the penalty's convolutions, whatever the run's precision; norms and sums are in
    float32 always. bf16 is quicker where the hardware multiplies it."""


class WganGp(CriticGan):
    """Critic and generator under the Wasserstein loss with gradient penalty."""

    Config = WganGpConfig
    config: WganGpConfig
    penalised = True
    zero_gradients = {**CriticGan.zero_gradients, **CONSTANT_CANCELS}

    def step(self, batches: Batches, progress: float) -> Steps:  # noqa: ARG002
        dtype = torch.bfloat16 if self.config.penalty_precision == "bf16" else torch.float32
        for batch in batches:
            real, fake = self.real(batch), self.fakes(batch)
            on_real, on_fake = self.scores(real, fake)
            gap = on_real.mean() - on_fake.mean()
            penalty, norm = gradient_penalty(self.critic, real, fake, batch.random.uniform(1, 1, 1), dtype)
            yield Update("critic", self.config.penalty * penalty - gap, {"gap": gap, "gradient_norm": norm})
        yield Update("generator", -self.critic(self.fresh_fakes(batches[-1])).float().mean())
        self.average()


def gradient_penalty(
    critic: nn.Module, real: Tensor, fake: Tensor, mixing: Tensor, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """E (||grad critic(x^)||_2 - 1)^2 at x^ = e real + (1 - e) fake (Gulrajani 2017, equation 3).

    Gives the penalty, differentiable in the critic's weights, and the mean gradient norm, both scalars in
    float32: a square of a difference near 0 has no digits left in 16 bits.

    Args:
        real, fake: (B, C, H, W), which the critic takes to scores (B,).
        mixing: (B, 1, 1, 1), one e a sample.
        dtype: of the products that make the input gradient, see `input_gradient`.
    """
    gradient = input_gradient(critic, mixing * real + (1 - mixing) * fake, dtype)
    norm = gradient.flatten(1).norm(dim=1)  # over all pixels of a sample
    return (norm - 1).square().mean(), norm.detach().mean()
