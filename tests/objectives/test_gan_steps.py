"""A whole step of every adversarial method, beside one written out from its paper with autograd alone."""

# ruff: noqa: ARG001 -- a step is given the progress, whether it uses it or not

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import softplus
from whole_steps import check_steps, disturb, follow, make

from trabecula.artifacts.store import Store
from trabecula.data.batches import Batch
from trabecula.objectives.objective import Batches, Steps, Update


def real_images(batch: Batch) -> Tensor:
    return batch.images / 127.5 - 1


def made(net: Any, batch: Batch) -> Tensor:
    """z first of a batch's numbers; the generator's own update draws once more of the last batch."""
    return net.generator(batch.random.normal(net.config.latent))  # type: ignore[no-any-return]


def pairs(net: Any, batches: Batches) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Of each critic update: the batch, real images, and made ones that carry no gradient."""
    for batch in batches:
        with torch.no_grad():
            fake = made(net, batch)
        yield batch, real_images(batch), fake


def slopes(net: Any, x: Tensor) -> Tensor:
    """(B,) ||grad D(x)||^2, differentiable in D's weights."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.critic(x).sum(), x, create_graph=True)
    return gradient.square().sum((1, 2, 3))


def average(net: Any, decay: float) -> None:
    """The average looks back a twentieth of the updates at most (Karras et al. 2020, arXiv 2006.06676)."""
    net.updates += 1
    follow(net.averaged, net.generator, min(decay, 0.5 ** (1 / (0.05 * float(net.updates)))))
    for mean, buffer in zip(net.averaged.buffers(), net.generator.buffers(), strict=True):
        mean.copy_(buffer)


def wgan(net: Any, batches: Batches, progress: float) -> Steps:
    """Arjovsky et al. 2017, algorithm 1."""
    for _, real, fake in pairs(net, batches):
        yield Update("critic", net.critic(fake).mean() - net.critic(real).mean())
        for weight in net.critic.parameters():
            weight.data = weight.data.clip(-net.config.clip, net.config.clip)
    yield Update("generator", -net.critic(made(net, batches[-1])).mean())
    average(net, net.config.ema)


def wgan_gp(net: Any, batches: Batches, progress: float) -> Steps:
    """Gulrajani et al. 2017, algorithm 1: one e for each image, drawn after z."""
    for batch, real, fake in pairs(net, batches):
        e = batch.random.uniform(1, 1, 1)
        penalty = (slopes(net, e * real + (1 - e) * fake).sqrt() - 1).square().mean()
        yield Update("critic", net.critic(fake).mean() - net.critic(real).mean() + 10 * penalty)
    yield Update("generator", -net.critic(made(net, batches[-1])).mean())
    average(net, net.config.ema)


def sn_gan(net: Any, batches: Batches, progress: float) -> Steps:
    """Miyato et al. 2018, algorithm 1 and equations 16 and 17: one power iteration before each update."""

    def critic() -> Any:
        weights = {}
        for name, weight in net.critic.named_parameters():
            if weight.ndim > 1:
                u, matrix = net.spectral.get_buffer(name.replace(".", "_")), weight.flatten(1).detach()
                v = matrix.t() @ u / (matrix.t() @ u).norm()
                u.copy_(matrix @ v / (matrix @ v).norm())
                v = matrix.t() @ u / (matrix.t() @ u).norm()
                weights[name] = weight / (u @ weight.flatten(1) @ v)
        return lambda x: functional_call(net.critic, weights, (x,))

    for _, real, fake in pairs(net, batches):
        d = critic()
        yield Update("critic", torch.relu(1 - d(real)).mean() + torch.relu(1 + d(fake)).mean())
    d = critic()
    yield Update("generator", -d(made(net, batches[-1])).mean())
    average(net, net.config.ema)


def gan_r1(net: Any, batches: Batches, progress: float) -> Steps:
    """Mescheder et al. 2018, equation 9; Karras et al. 2020, appendix B: R1 each `lazy` updates, as heavy."""
    for _, real, fake in pairs(net, batches):
        lazy = net.config.lazy
        if lazy > 1 and int(net.critic_updates) % lazy == 0:
            yield Update("critic", lazy * net.config.gamma / 2 * slopes(net, real).mean())
        loss = softplus(-net.critic(real)).mean() + softplus(net.critic(fake)).mean()
        r1 = net.config.gamma / 2 * slopes(net, real).mean() if lazy == 1 else 0
        yield Update("critic", loss + r1)
        net.critic_updates += 1
    yield Update("generator", softplus(-net.critic(made(net, batches[-1]))).mean())
    average(net, net.config.ema)


def r3gan(net: Any, batches: Batches, progress: float) -> Steps:
    """Huang et al. 2024, equations 2 and 4: R1 at real images, R2 at made ones."""
    start, end = net.config.gamma, net.config.gamma_end
    gamma = end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
    for _, real, fake in pairs(net, batches):
        penalty = (slopes(net, real) + slopes(net, fake)).mean() * gamma / 2
        yield Update("critic", softplus(-(net.critic(real) - net.critic(fake))).mean() + penalty)
    on_fake, on_real = net.critic(made(net, batches[-1])), net.critic(real_images(batches[-1]))
    yield Update("generator", softplus(-(on_fake - on_real.detach())).mean())
    half_life = math.log(0.5, net.config.ema) * (1 - math.cos(math.pi * progress)) / 2
    average(net, 0.5 ** (1 / half_life))


@pytest.mark.parametrize(
    ("plain", "settings"),
    [
        (wgan, {"clip": 0.03}),
        (wgan_gp, {}),
        (sn_gan, {}),
        (gan_r1, {"lazy": 1, "gamma": 3.0}),
        (gan_r1, {"lazy": 3, "gamma": 3.0}),
        (r3gan, {"gamma": 3.0, "gamma_end": 1.0}),
    ],
)
def test_three_critic_updates_and_one_of_the_generator(plain: Any, settings: Any, store: Store) -> None:
    objective, stream = make(plain.__name__, store, "critic:8-16-32", critic_steps=3, **settings)
    net: Any = objective
    with torch.no_grad():  # so steep that penalties count
        for weight in net.critic.parameters():
            weight.mul_(3)
    disturb(net.averaged)
    net.updates.fill_(30)
    check_steps(objective, stream, plain, (0.2, 0.7))
