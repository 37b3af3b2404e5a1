"""What adversarial methods share: a critic, which is the encoder, and a generator of images to judge.

`Adversarial` has the parts of a step, whatever the nets; a method chooses its nets. Those of `CriticGan` are
den Boer's (2025, section 4.2), whatever the loss, so that arms of different losses differ in the loss alone
and have one random control.
"""

from __future__ import annotations

import copy
from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from trabecula.artifacts.store import to_float
from trabecula.config import Record
from trabecula.data.batches import Batch
from trabecula.errors import InputError
from trabecula.nets.critic import Critic, Norm, is_critic, widths_of
from trabecula.nets.encoder import Encoder
from trabecula.nets.generators.generator import LatentGenerator
from trabecula.nets.generators.upsampling import LATENT, UpsamplingConfig, UpsamplingGenerator, mirrored
from trabecula.nets.input_gradient import piecewise_linear, scores
from trabecula.objectives.objective import Group, Objective, Product, Setting, ema
from trabecula.objectives.optim import Optimizer

ADAM = Optimizer(name="adam", lr=1e-4, betas=(0.0, 0.99))
"""Den Boer 2025, section 4.3."""
CONSTANT_CANCELS = {"critic.output.bias": "the loss depends on differences of scores: a constant cancels"}
"""A weight without gradient, of the Wasserstein and the relativistic losses."""


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
    """Critic and generator; a method builds them in `nets` and adds its losses in `step`."""

    Config = AdversarialConfig
    config: AdversarialConfig
    monitors = ("encoder", "gan")
    tiny = {"critic_steps": 1, "latent": 8, "ema": 0.5}
    updates: Tensor  # of the generator
    penalised: ClassVar[bool] = False
    """Whether the method draws the norm of the critic's input gradient between real and made images to 1."""

    def __init__(self, config: AdversarialConfig, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        self.batches, self.encoder = config.critic_steps, encoder
        with setting.seeded("wgan_gp"):  # one seed, one start, whatever the method
            self.critic, self.generator = self.nets(encoder)
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False) if config.ema else None
        if self.averaged is not None:
            self.averaged.averaged = True
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def nets(self, encoder: Encoder) -> tuple[nn.Module, LatentGenerator]:
        """The critic, (B, C, H, W) in [-1, 1] -> (B,), and the generator of such images."""
        raise NotImplementedError

    def groups(self) -> dict[str, Group]:
        return {
            "critic": Group(list(self.critic.parameters()), self.config.critic),
            "generator": Group(list(self.generator.parameters()), self.config.generator),
        }

    @property
    def kept_generator(self) -> LatentGenerator:
        """The generator that is saved: the averaged one where there is one."""
        return self.generator if self.averaged is None else self.averaged

    def products(self) -> dict[str, Product]:
        return {"encoder": self.encoder, "generator": self.kept_generator}

    def samples(self, num: int, seed: int) -> Tensor:
        return self.kept_generator.to("cpu").sample(num, seed)  # the same images whatever the device

    def scorer(self) -> nn.Module:
        """The critic as it scores; a copy where its weights are not used as they are."""
        return self.critic

    def real(self, batch: Batch) -> Tensor:
        """(B, C, H, W) in [-1, 1], the range of the generator."""
        return self.encoder.normalise(to_float(batch.images))

    @torch.no_grad()
    def fakes(self, batch: Batch) -> Tensor:
        """(B, C, H, W) in [-1, 1], made for the critic: they carry no gradient."""
        return self.fresh_fakes(batch).float()

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
    def average(self, decay: float | None = None) -> None:
        """Move the averaged generator; called once a step, after the generator moved.

        decay: of this step; by default that of the settings. After n updates it is at most
            0.5^(1 / (0.05 n)), a half-life of a twentieth of the run so far (the ramp of StyleGAN2-ADA,
            Karras et al. 2020, arXiv 2006.06676).
        """
        self.updates += 1
        if self.averaged is None:
            return
        decay = self.config.ema if decay is None else decay
        ema(self.averaged, self.generator, min(decay, 0.5 ** (20 / int(self.updates))))
        # Norm statistics are not averaged: those of the generator itself are up to date.
        for mean, buffer in zip(self.averaged.buffers(), self.generator.buffers(), strict=True):
            mean.copy_(buffer)


class CriticGan(Adversarial):
    """The nets of den Boer 2025, section 4.2: the critic is the encoder's own layers with one output."""

    batch_coupled = True  # the generator has batch norm
    zero_gradients = {"generator.blocks.*.1.bias": "the batch norm that follows subtracts the mean"}
    architectures = ("critic",)
    generator_norm: ClassVar[Norm] = "batch"
    critic: Critic

    def nets(self, encoder: Encoder) -> tuple[Critic, UpsamplingGenerator]:
        card, norm = encoder.card, self.generator_norm
        if not is_critic(card.architecture):
            raise InputError(
                f"{self.name()} pretrains the architecture 'critic', not '{card.architecture}'; "
                "add -s architecture=critic"
            )
        blocks = cast("nn.Sequential", encoder.backbone.net)
        critic = Critic(card.channels, card.size, blocks=blocks)
        its = UpsamplingConfig(latent=self.config.latent, widths=mirrored(widths_of(blocks)), norm=norm)
        return critic, UpsamplingGenerator(its, card.channels, card.size)

    def products(self) -> dict[str, Product]:
        return {**super().products(), "critic": self.critic}
