"""SN-GAN: a hinge loss and a critic whose weights are divided by their largest singular values.

Miyato, Kataoka, Koyama, Yoshida 2018, arXiv 1802.05957: algorithm 1 (one power iteration a pass), equations
16 and 17 (hinge), section 4 (Adam 2e-4, betas (0, 0.9), five critic updates). Each layer's matrix stretches
no vector, so the critic is held in check without a penalty. What is kept as the encoder are the normalised
weights.
"""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor

from trabecula.nets.critic import Critic
from trabecula.nets.encoder import Encoder
from trabecula.nets.spectral import Spectral
from trabecula.objectives.adversarial import AdversarialConfig, CriticGan
from trabecula.objectives.objective import Batches, Product, Setting, Steps, Update
from trabecula.objectives.optim import Optimizer
from trabecula.random_numbers import mix

_ADAM = Optimizer(name="adam", lr=2e-4, betas=(0.0, 0.9))


class SnGanConfig(AdversarialConfig):
    """Settings of SN-GAN; the defaults are those of Miyato et al. 2018, section 4."""

    critic: Optimizer = _ADAM
    """How the critic moves: Adam 2e-4, betas (0, 0.9)."""
    generator: Optimizer = _ADAM
    """How the generator moves: Adam 2e-4, betas (0, 0.9)."""


class SnGan(CriticGan):
    """Critic and generator under the hinge loss with spectral normalisation."""

    Config = SnGanConfig
    zero_gradients = {
        **CriticGan.zero_gradients,
        "critic.output.bias": "as long as every score is within the margins a constant cancels",
    }

    def __init__(self, config: SnGanConfig, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        self.spectral = Spectral(self.critic, mix(setting.seed, "spectral"))

    def products(self) -> dict[str, Product]:
        """The encoder and the critic hold the normalised weights, in copies that share them."""
        encoder, critic = copy.deepcopy(self.encoder), self.scorer()
        encoder.backbone.net.load_state_dict(critic.blocks.state_dict())
        return {**super().products(), "encoder": encoder, "critic": critic}

    def scorer(self) -> Critic:
        critic = copy.deepcopy(self.critic)
        self.spectral.bake(critic)
        return critic

    def scores(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        self.spectral.iterate(self.critic)  # once, as both are scored by one critic
        on_real, on_fake = (self.spectral(self.critic, images).float() for images in (real, fake))
        return on_real, on_fake

    def step(self, batches: Batches, progress: float) -> Steps:  # noqa: ARG002
        for batch in batches:
            on_real, on_fake = self.scores(self.real(batch), self.fakes(batch))
            loss = F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
            yield Update("critic", loss, {"gap": on_real.mean() - on_fake.mean()})
        self.spectral.iterate(self.critic)
        on_fake = self.spectral(self.critic, self.fresh_fakes(batches[-1])).float()
        yield Update("generator", -on_fake.mean())
        self.average()
