"""WGAN-GP: a generator of images and a critic that tells them from real ones; the critic is kept.

Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville 2017, arXiv 1704.00028 (algorithm 1, equation 3), with
the nets and settings of den Boer 2025 (TU Delft), "Adversarial generative models applied to diagnosing
Osteoarthritis", sections 4.2 and 4.3. To score real films above made-up ones the critic has to learn
what a joint looks like; that knowledge is the start of a diagnosis.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from trabecula.config import Record
from trabecula.data.batches import Batch, mix
from trabecula.data.store import to_float
from trabecula.errors import InputError
from trabecula.nets.critic import Critic, Generator, is_critic
from trabecula.nets.encoder import Encoder
from trabecula.objectives.objective import Group, Objective, Setting, Steps, Update, ema
from trabecula.train.optim import Optimizer

_ADAM = Optimizer(name="adam", lr=1e-4, betas=(0.0, 0.99))


class WganGpConfig(Record):
    """Settings of WGAN-GP; the defaults are those of den Boer 2025, section 4.3."""

    latent: int = Field(100, ge=1)
    """Length of the generator's random input."""
    critic_steps: int = Field(5, ge=1)
    """Critic updates per generator update, each on fresh images."""
    penalty: float = Field(10.0, ge=0)
    """Weight lambda of the gradient penalty (Gulrajani, equation 3)."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the averaged generator that is saved; 0 saves the generator itself, as the paper does."""
    critic: Optimizer = _ADAM
    """Adam 1e-4, betas (0, 0.99)."""
    generator: Optimizer = _ADAM
    """Adam 1e-4, betas (0, 0.99)."""


class WganGp(Objective):
    """Critic and generator under the Wasserstein loss with gradient penalty."""

    Config = WganGpConfig
    batch_coupled = True  # the generator has batch norm
    zero_gradients: ClassVar[Mapping[str, str]] = {
        "critic.output.bias": "the Wasserstein loss is a difference of scores, so a constant cancels",
        "generator.blocks.*.1.bias": "the batch norm that follows subtracts the mean",
    }

    tiny: ClassVar[Mapping[str, Any]] = {"critic_steps": 1, "latent": 8, "ema": 0.5}

    def __init__(self, config: WganGpConfig, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        card = encoder.card
        if not isinstance(encoder.backbone.net, nn.Sequential) or not is_critic(card.architecture):
            raise InputError(
                f"wgan_gp pretrains the architecture 'critic', not '{card.architecture}'; "
                "add -s architecture=critic"
            )
        self.config = config
        self.batches = config.critic_steps
        self.encoder = encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(setting.seed, "wgan_gp"))
            self.critic = Critic(card.channels, card.size, blocks=encoder.backbone.net)
            self.generator = Generator(card.channels, card.size, config.latent)
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False) if config.ema else None

    def groups(self) -> dict[str, Group]:
        return {
            "critic": Group(list(self.critic.parameters()), self.config.critic),
            "generator": Group(list(self.generator.parameters()), self.config.generator),
        }

    def products(self) -> dict[str, nn.Module]:
        return {
            "encoder": self.encoder,
            "critic": self.critic,
            "generator": self.generator if self.averaged is None else self.averaged,
        }

    def step(self, batches: Sequence[Batch], progress: float) -> Steps:  # noqa: ARG002
        for batch in batches:
            real = self.encoder.normalise(to_float(batch.images))  # (B, C, H, W) in [-1, 1]
            fake = self._fakes(batch)
            scores = self.critic(torch.cat([real, fake])).float()
            gap = scores[: len(real)].mean() - scores[len(real) :].mean()
            penalty, slope = gradient_penalty(self.critic, real, fake, batch.random.uniform(1, 1, 1))
            yield Update("critic", self.config.penalty * penalty - gap, {"gap": gap, "slope": slope})
        latent = batches[-1].random.normal(self.config.latent)
        yield Update("generator", -self.critic(self.generator(latent)).float().mean())
        if self.averaged is not None:
            ema(self.averaged, self.generator, self.config.ema)
            # Norm statistics are not averaged: those of the generator itself are up to date.
            for mean, buffer in zip(self.averaged.buffers(), self.generator.buffers(), strict=True):
                mean.copy_(buffer)

    @torch.no_grad()
    def _fakes(self, batch: Batch) -> Tensor:
        return self.generator(batch.random.normal(self.config.latent)).float()  # type: ignore[no-any-return]


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, mixing: Tensor) -> tuple[Tensor, Tensor]:
    """E (||grad critic(x^)||_2 - 1)^2 at x^ = e real + (1 - e) fake (Gulrajani 2017, equation 3).

    Args:
        critic: (B, C, H, W) -> (B,).
        real, fake: (B, C, H, W).
        mixing: (B, 1, 1, 1), one e a sample.

    Returns:
        The penalty, a scalar differentiable in the critic's weights, and the mean gradient norm. Always
        in float32: a square of a difference near 0 has no digits left in 16 bits.
    """
    with torch.autocast(real.device.type, enabled=False):
        between = (mixing * real + (1 - mixing) * fake).float().requires_grad_()
        score = critic(between).sum()
        (slope,) = torch.autograd.grad(score, between, create_graph=True)
        norm = slope.flatten(1).norm(dim=1)  # over all pixels of a sample
        return (norm - 1).square().mean(), norm.detach().mean()
