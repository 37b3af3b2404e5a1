"""WGAN: the Wasserstein loss with the critic's weights clipped, before there were gradient penalties.

Arjovsky, Chintala, Bottou 2017, arXiv 1701.07875, algorithm 1: RMSProp at 5e-5, weights kept in
[-0.01, 0.01], five critic updates to one of the generator. Clipping bounds the critic's gradient by a
constant that depends on its depth and widths; without the batch norm of the paper's nets five layers of such
weights pass little on, so scores and gradients are small. Built as written, to be compared with what
replaced it.
"""

from __future__ import annotations

import torch
from pydantic import Field

from trabecula.objectives.adversarial import CONSTANT_CANCELS, AdversarialConfig, CriticGan
from trabecula.objectives.objective import Batches, Steps, Update
from trabecula.objectives.optim import Optimizer

_RMSPROP = Optimizer(name="rmsprop", lr=5e-5)


class WganConfig(AdversarialConfig):
    """Settings of WGAN; the defaults are those of Arjovsky et al. 2017, algorithm 1."""

    clip: float = Field(0.01, gt=0)
    """Largest size of any weight or bias of the critic (c)."""
    critic: Optimizer = _RMSPROP
    """How the critic moves: RMSProp, 5e-5; with momentum training was found to be unstable (section 4.2)."""
    generator: Optimizer = _RMSPROP
    """How the generator moves: RMSProp, 5e-5."""


class Wgan(CriticGan):
    """Critic and generator under the Wasserstein loss with weight clipping."""

    Config = WganConfig
    config: WganConfig
    zero_gradients = {**CriticGan.zero_gradients, **CONSTANT_CANCELS}
    tiny = {**CriticGan.tiny, "clip": 0.1}

    def step(self, batches: Batches, progress: float) -> Steps:  # noqa: ARG002
        for batch in batches:
            on_real, on_fake = self.scores(self.real(batch), self.fakes(batch))
            gap = on_real.mean() - on_fake.mean()
            yield Update("critic", -gap, {"gap": gap})
            self.clip()
        yield Update("generator", -self.critic(self.fresh_fakes(batches[-1])).float().mean())
        self.average()

    @torch.no_grad()
    def clip(self) -> None:
        """Cut every weight of the critic to [-c, c]."""
        for weight in self.critic.parameters():
            weight.clamp_(-self.config.clip, self.config.clip)
