"""R3GAN: a relativistic loss, the critic held flat at real and at made images (R1 + R2), no norm layers.

Huang, Gokaslan, Kuleshov, Tompkin 2024, arXiv 2501.05441: equation 2 (relativistic loss), equation 4 (R1 and
R2), table 2 (what of StyleGAN2 is left out). The settings are those of the official code's preset for faces
of 64 px (FFHQ-64, batches of 256). What changes there over the first 20 million images, along half a cosine,
changes here over the whole budget (inferred): the rate, gamma, Adam's second beta and the half-life of the
averaged generator.

Not built: the preset's augmentation of what the critic sees (the pipeline of StyleGAN2-ADA, Karras et al.
2020, arXiv 2006.06676, whose probability rises from 0 to 0.3) and its mirrored images. With a small pool the
critic then overfits sooner than the paper's. The nets are den Boer's, without norm in the generator, and not
its own residual ones (inferred): arms of one architecture can be compared and share one random control.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from pydantic import Field

from trabecula.objectives.adversarial import CONSTANT_CANCELS, AdversarialConfig, CriticGan
from trabecula.objectives.gan_r1 import zero_gradient_penalty
from trabecula.objectives.objective import Batches, Steps, Update
from trabecula.objectives.optim import Optimizer

_ADAM = Optimizer(name="adam", lr=2e-4, betas=(0.0, 0.9), beta2_end=0.99, schedule="cosine", end=0.25)


class R3GanConfig(AdversarialConfig):
    """Settings of R3GAN: the official 64 px preset, without its augmentation, which is not built."""

    latent: int = Field(64, ge=1)
    """Length of the generator's random input."""
    critic_steps: int = Field(1, ge=1)
    """Critic updates per generator update, each on fresh images."""
    gamma: float = Field(2.0, ge=0)
    """Weight of both penalties at the start. It belongs to 64 px; where the side doubles, the same pressure
    needs four times the gamma (its settings of 256 px: 150 to 15)."""
    gamma_end: float = Field(0.2, ge=0)
    """The same at the end, reached along half a cosine (inferred: its burn-in is counted in images)."""
    ema: float = Field(0.999645, ge=0, lt=1)
    """Decay of the averaged generator that is saved, at the end: a half-life of 500,000 images at batch 256
    (0.5 ** (256 / 500,000)). The half-life rises from 0 along half a cosine, and is never more than a
    twentieth of the updates so far, which holds in budgets below 10 million images or so. 0 saves the
    generator itself."""
    critic: Optimizer = _ADAM
    """How the critic moves: Adam, betas (0, 0.9 up to 0.99), 2e-4 down to 5e-5."""
    generator: Optimizer = _ADAM
    """How the generator moves: as the critic."""


class R3Gan(CriticGan):
    """Critic and generator under the relativistic loss with R1 and R2."""

    Config = R3GanConfig
    config: R3GanConfig
    generator_norm = "none"
    zero_gradients = CONSTANT_CANCELS
    tiny = {"latent": 8, "ema": 0.5}

    def step(self, batches: Batches, progress: float) -> Steps:
        left = (1 + math.cos(math.pi * progress)) / 2  # from 1 to 0
        gamma = self.config.gamma_end + (self.config.gamma - self.config.gamma_end) * left
        for batch in batches:
            real, fake = self.real(batch), self.fakes(batch)
            on_real, on_fake = self.scores(real, fake)
            loss = F.softplus(on_fake - on_real).mean()
            r1, r2 = zero_gradient_penalty(self.critic, real), zero_gradient_penalty(self.critic, fake)
            scalars = {"gap": on_real.mean() - on_fake.mean(), "r1": r1, "r2": r2}
            yield Update("critic", loss + gamma * (r1 + r2), scalars)
        on_real = self.critic(self.real(batches[-1])).float().detach()
        on_fake = self.critic(self.fresh_fakes(batches[-1])).float()
        yield Update("generator", F.softplus(on_real - on_fake).mean())
        half_life = 1 - left  # as a part of the last one
        self.average(self.config.ema ** (1 / half_life) if half_life else 0.0)
