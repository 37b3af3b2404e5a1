"""A GAN under the non-saturating logistic loss, its critic held flat at the real images (R1).

Goodfellow et al. 2014, arXiv 1406.2661, section 3 (the generator's loss); Mescheder, Geiger, Nowozin 2018,
arXiv 1801.04406, section 4.1 (the penalty, equation 9, and gamma 10); Karras et al. 2020, arXiv 1912.04958,
appendix B (lazy regularisation). The penalty asks for a zero gradient where real images are: at
equilibrium the critic has nothing to learn there, and training converges near it, which
the plain game need not do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trabecula.nets.encoder import Encoder
from trabecula.nets.input_gradient import input_gradient
from trabecula.objectives.adversarial import AdversarialConfig, CriticGan
from trabecula.objectives.objective import Batches, Group, Setting, Steps, Update


class GanR1Config(AdversarialConfig):
    """Settings of the R1 GAN; nets and rates are den Boer's, so that the penalty is what differs."""

    gamma: float = Field(10.0, ge=0)
    """Weight of the penalty (Mescheder 2018). It belongs to a number of pixels: where the side doubles, the
    same pressure needs four times the gamma."""
    lazy: int = Field(16, ge=1)
    """Critic updates from one penalty to the next, which is then a move of its own and `lazy` times as
    heavy. For the extra moves, with c = lazy / (lazy + 1), the critic's rate is multiplied by c and its
    betas are raised to c (Karras 2020, appendix B). 1 adds the penalty to each update's loss instead."""
    critic_steps: int = Field(1, ge=1)
    """Critic updates per generator update, each on fresh images."""


class GanR1(CriticGan):
    """Critic and generator under the logistic loss with a lazy R1 penalty."""

    Config = GanR1Config
    config: GanR1Config
    critic_updates: Tensor
    tiny = {**CriticGan.tiny, "lazy": 2}

    def __init__(self, config: GanR1Config, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        self.register_buffer("critic_updates", torch.zeros((), dtype=torch.int64))

    def groups(self) -> dict[str, Group]:
        groups, lazy = super().groups(), self.config.lazy
        if lazy > 1:
            given, part = groups["critic"].optimizer, lazy / (lazy + 1)
            raised = {"betas": (given.betas[0] ** part, given.betas[1] ** part)}
            raised |= {"beta2_end": given.beta2_end**part} if given.beta2_end is not None else {}
            changed = given.model_copy(update={"lr": given.lr * part, **raised})
            groups["critic"] = Group(groups["critic"].weights, changed)
        return groups

    def step(self, batches: Batches, progress: float) -> Steps:  # noqa: ARG002
        lazy, gamma = self.config.lazy, self.config.gamma
        for batch in batches:
            real = self.real(batch)
            if lazy > 1 and int(self.critic_updates) % lazy == 0:
                r1 = zero_gradient_penalty(self.critic, real)
                yield Update("critic", lazy * gamma * r1, {"r1": r1})
            on_real, on_fake = self.scores(real, self.fakes(batch))
            loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
            r1 = zero_gradient_penalty(self.critic, real) if lazy == 1 else loss.new_zeros(())
            yield Update("critic", loss + gamma * r1, {"gap": on_real.mean() - on_fake.mean()})
            self.critic_updates += 1
        yield Update("generator", F.softplus(-self.critic(self.fresh_fakes(batches[-1])).float()).mean())
        self.average()


def zero_gradient_penalty(critic: nn.Module, images: Tensor) -> Tensor:
    """1/2 E ||grad critic(x)||_2^2 at these images (Mescheder 2018, equation 9, without gamma), in float32.

    images: (B, C, H, W), which the critic takes to scores (B,); real ones for R1, made ones for R2.
    """
    return input_gradient(critic, images).flatten(1).square().sum(1).mean() / 2
