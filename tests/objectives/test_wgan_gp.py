"""WGAN-GP: golden values, closed forms, gradients of the penalty, what the critic may not have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import Stream
from trabecula.errors import InputError
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.objective import Setting
from trabecula.objectives.wgan_gp import WganGp, WganGpConfig, gradient_penalty


class Quadratic(nn.Module):
    """f(x) = w.x + v.x^2 / 2, whose gradient is w + v x."""

    def __init__(self, w: torch.Tensor, v: torch.Tensor) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(w), nn.Parameter(v)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        return flat @ self.w + (flat.square() @ self.v) / 2


def golden() -> tuple[Quadratic, torch.Tensor, torch.Tensor, torch.Tensor]:
    i, j = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    real, fake = torch.sin(0.7 * i + 1.3 * j), torch.cos(0.5 * i - 0.9 * j)
    k = torch.arange(6.0)
    e = torch.tensor([0.1, 0.4, 0.6, 0.9])
    shape = (4, 1, 2, 3)
    return (
        Quadratic(torch.sin(0.3 * k), torch.cos(0.2 * k)),
        real.view(shape),
        fake.view(shape),
        e.view(4, 1, 1, 1),
    )


def test_the_penalty_and_the_loss_have_their_golden_values() -> None:
    critic, real, fake, mixing = golden()
    penalty, _ = gradient_penalty(critic, real, fake, mixing)
    assert penalty.item() == pytest.approx(0.8790027262148, rel=1e-5)
    loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
    assert loss.item() == pytest.approx(7.5752315641633, rel=1e-5)


def test_the_gradient_of_the_penalty_is_that_of_finite_differences() -> None:
    critic, real, fake, mixing = golden()
    penalty, _ = gradient_penalty(critic, real, fake, mixing)
    (grad,) = torch.autograd.grad(penalty, critic.v)
    for k in range(6):
        values = []
        for sign in (1, -1):
            moved = critic.v.detach().clone()
            moved[k] += sign * 1e-2
            values.append(gradient_penalty(Quadratic(critic.w.detach(), moved), real, fake, mixing)[0].item())
        assert grad[k].item() == pytest.approx((values[0] - values[1]) / 2e-2, rel=2e-2, abs=2e-3)


def test_a_linear_critic_has_the_closed_form() -> None:
    _, real, fake, mixing = golden()
    w = torch.tensor([3.0, 4.0, 0, 0, 0, 0])
    penalty, slope = gradient_penalty(Quadratic(w, torch.zeros(6)), real, fake, mixing)
    assert (penalty.item(), slope.item()) == (16.0, 5.0)  # (|w| - 1)^2, over all pixels of a sample


def test_the_penalty_does_not_depend_on_the_order_of_the_batch() -> None:
    critic, real, fake, mixing = golden()
    order = torch.tensor([2, 0, 3, 1])
    a = gradient_penalty(critic, real, fake, mixing)[0]
    b = gradient_penalty(critic, real[order], fake[order], mixing[order])[0]
    torch.testing.assert_close(a, b)


def test_two_point_masses_are_told_apart_as_theory_says() -> None:
    """Point masses D apart, linear critic: |w| = 1 + D / (2 lambda), gap D + D^2 / (4 lambda)."""
    w = nn.Parameter(torch.zeros(1))
    distance, weight = 3.0, 10.0
    critic = Quadratic(torch.zeros(1), torch.zeros(1))
    critic.w = w
    real, fake = torch.full((4, 1, 1, 1), distance), torch.zeros(4, 1, 1, 1)
    optimizer = torch.optim.SGD([w], lr=0.02)
    w.data.fill_(0.5)
    for _ in range(400):
        gap = critic(real).mean() - critic(fake).mean()
        loss = weight * gradient_penalty(critic, real, fake, torch.full((4, 1, 1, 1), 0.3))[0] - gap
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert w.item() == pytest.approx(1.15, abs=1e-4)
    assert -loss.item() == pytest.approx(3.225, abs=1e-3)


def make(store: Store, **settings: object) -> tuple[WganGp, Stream]:
    encoder = make_encoder("critic", store.channels, store.size, seed=0)
    config = build(WganGpConfig, {**WganGp.tiny, **settings}, "wgan_gp")
    objective = WganGp(config, encoder, Setting(len(store), 8, 1))
    return objective, Stream(store, np.arange(len(store)), 8, 2)


def test_a_step_is_critic_updates_on_fresh_images_then_one_of_the_generator(store: Store) -> None:
    objective, stream = make(store, critic_steps=5)
    batches = [stream.batch(i) for i in range(objective.batches)]
    assert [update.group for update in objective.step(batches, 0.0)] == ["critic"] * 5 + ["generator"]
    assert len({tuple(b.rows) for b in batches}) == 5


def test_the_critic_has_no_norm_and_no_dropout_and_its_loss_no_rowmates(store: Store) -> None:
    objective, _ = make(store)
    assert not any(isinstance(m, _BatchNorm | nn.Dropout) for m in objective.critic.modules())
    x = torch.rand(6, 1, 32, 32)
    torch.testing.assert_close(objective.critic(x)[2:3], objective.critic(x[2:3]))


def test_the_encoder_is_the_critic_and_the_fakes_carry_no_gradient(store: Store) -> None:
    objective, stream = make(store)
    update = next(objective.step([stream.batch(0), stream.batch(1)], 0.0))
    before = objective.encoder(torch.ones(2, 1, 32, 32) * 0.3).detach().clone()
    update.loss.backward()
    assert all(w.grad is None for w in objective.generator.parameters())
    with torch.no_grad():
        for weight in objective.critic.parameters():
            weight.sub_(0.1 * weight.grad)
    assert not torch.equal(before, objective.encoder(torch.ones(2, 1, 32, 32) * 0.3))


def test_the_averaged_generator_follows_and_is_what_is_kept(store: Store) -> None:
    objective, stream = make(store, ema=0.9)
    plain, _ = make(store, ema=0.0)
    assert plain.products()["generator"] is plain.generator
    assert objective.products()["generator"] is objective.averaged
    objective.updates.fill_(10_000)  # far beyond the ramp
    start = [w.clone() for w in objective.averaged.parameters()]
    for update in objective.step([stream.batch(0), stream.batch(1)], 0.0):
        if update.group == "generator":
            for weight in objective.generator.parameters():
                weight.data.add_(1.0)
    for old, new in zip(start, objective.averaged.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1, rtol=0, atol=1e-5)


def test_the_average_looks_back_a_twentieth_of_the_run_at_most(store: Store) -> None:
    objective, _ = make(store, ema=0.999)
    objective.updates.fill_(39)
    for weight in objective.generator.parameters():
        weight.data.add_(1.0)
    start = [w.clone() for w in objective.averaged.parameters()]
    objective.average()  # the fortieth update: a half-life of two updates
    for old, new in zip(start, objective.averaged.parameters(), strict=True):
        torch.testing.assert_close(new, old + 1 - 0.5**0.5, rtol=0, atol=1e-5)


def test_another_architecture_is_refused(store: Store) -> None:
    encoder = make_encoder("timm:resnet10t", store.channels, store.size)
    with pytest.raises(InputError, match="wgan_gp pretrains the architecture 'critic', not 'timm:resnet10t'"):
        WganGp(WganGpConfig(), encoder, Setting(24, 8, 0))


def test_the_defaults_are_those_of_the_paper() -> None:
    config = WganGpConfig()
    assert (config.latent, config.critic_steps, config.penalty, config.ema) == (100, 5, 10, 0)
    for optimizer in (config.critic, config.generator):
        assert (optimizer.name, optimizer.lr, optimizer.betas) == ("adam", 1e-4, (0.0, 0.99))
