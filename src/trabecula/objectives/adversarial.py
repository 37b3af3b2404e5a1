"""What adversarial methods share: a critic, which is the encoder, and a generator of images to judge.

The nets are those of den Boer 2025, section 4.2, whatever the method, so that arms of different methods
differ in the method alone and have one random control.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from trabecula.artifacts.store import to_float
from trabecula.config import Record
from trabecula.data.batches import Batch
from trabecula.errors import InputError
from trabecula.nets.critic import LATENT, Critic, Generator, Norm, is_critic, mirrored, widths_of
from trabecula.nets.encoder import Encoder
from trabecula.nets.input_gradient import piecewise_linear, scores
from trabecula.objectives.objective import Group, Objective, Setting, ema
from trabecula.objectives.optim import Optimizer
from trabecula.random_numbers import mix

ADAM = Optimizer(name="adam", lr=1e-4, betas=(0.0, 0.99))
"""Den Boer 2025, section 4.3."""


class AdversarialConfig(Record):
    """Settings of every adversarial method."""

    latent: int = Field(LATENT, ge=1)
    """Length of the generator's random input."""
    critic_steps: int = Field(5, ge=1)
    """Critic updates per generator update, each on fresh images."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the averaged generator that is saved, reached gradually: the average never looks back further
    than a twentieth of the updates so far. 0 saves the generator itself, as den Boer does."""
    critic: Optimizer = ADAM
    """How the critic moves."""
    generator: Optimizer = ADAM
    """How the generator moves."""


class Adversarial(Objective):
    """Critic and generator; a method adds its losses in `step`."""

    Config = AdversarialConfig
    batch_coupled = True  # the generator has batch norm
    zero_gradients: ClassVar[Mapping[str, str]] = {
        "generator.blocks.*.1.bias": "the batch norm that follows subtracts the mean",
    }
    tiny: ClassVar[Mapping[str, Any]] = {"critic_steps": 1, "latent": 8, "ema": 0.5}
    architectures = ("critic",)
    generator_norm: ClassVar[Norm] = "batch"
    penalised: ClassVar[bool] = False
    """Whether the method draws the critic's slope between real and made images to 1."""

    def __init__(self, config: AdversarialConfig, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        card = encoder.card
        if not is_critic(card.architecture):
            raise InputError(
                f"{self.name()} pretrains the architecture 'critic', not '{card.architecture}'; "
                "add -s architecture=critic"
            )
        self.config = config
        self.batches = config.critic_steps
        self.encoder = encoder
        blocks = cast("nn.Sequential", encoder.backbone.net)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(setting.seed, "wgan_gp"))  # one seed, one start, whatever the method
            self.critic = Critic(card.channels, card.size, blocks=blocks)
            widths = mirrored(widths_of(blocks))
            self.generator = Generator(card.channels, card.size, config.latent, widths, self.generator_norm)
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False) if config.ema else None
        self.updates: Tensor
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))  # of the generator

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

    def scorer(self) -> Critic:
        """The critic as it scores; a copy where its weights are not used as they stand."""
        return self.critic

    def real(self, batch: Batch) -> Tensor:
        """(B, C, H, W) in [-1, 1], the range of the generator."""
        return self.encoder.normalise(to_float(batch.images))

    @torch.no_grad()
    def fakes(self, batch: Batch) -> Tensor:
        """(B, C, H, W) in [-1, 1], made for the critic: they carry no gradient."""
        return self.generator(batch.random.normal(self.config.latent)).float()  # type: ignore[no-any-return]

    def fresh_fakes(self, batch: Batch) -> Tensor:
        """(B, C, H, W) in [-1, 1], made for the generator's own update."""
        return self.generator(batch.random.normal(self.config.latent))  # type: ignore[no-any-return]

    def scores(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The critic's scores of both, (B,) each, in float32, differentiable in its weights alone."""
        if piecewise_linear(self.critic) is None:  # batch norm must not see both
            return scores(self.critic, real), scores(self.critic, fake)
        on_real, on_fake = scores(self.critic, torch.cat((real, fake))).split((len(real), len(fake)))
        return on_real, on_fake

    @torch.no_grad()
    def average(self) -> None:
        """Move the averaged generator; called once a step, after the generator moved.

        The decay is at most 0.5^(1 / (0.05 n)) after n updates: a half-life of a twentieth of the run so far
        (the ramp of StyleGAN2-ADA, Karras et al. 2020, arXiv 2006.06676).
        """
        self.updates += 1
        if self.averaged is None:
            return
        ema(self.averaged, self.generator, min(self.config.ema, 0.5 ** (20 / int(self.updates))))
        # Norm statistics are not averaged: those of the generator itself are up to date.
        for mean, buffer in zip(self.averaged.buffers(), self.generator.buffers(), strict=True):
            mean.copy_(buffer)
