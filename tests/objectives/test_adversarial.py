"""The adversarial family: golden values at score 0, closed forms of penalties, laziness, clipping, norms."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trabecula.artifacts.store import Store
from trabecula.config import build, describe
from trabecula.data.batches import Stream
from trabecula.errors import InputError
from trabecula.nets.critic import Critic
from trabecula.nets.encoder import make_encoder
from trabecula.nets.generators.upsampling import UpsamplingGenerator
from trabecula.nets.input_gradient import input_gradient
from trabecula.objectives import find
from trabecula.objectives.adversarial import Adversarial
from trabecula.objectives.gan_r1 import GanR1Config, zero_gradient_penalty
from trabecula.objectives.objective import Setting, Update
from trabecula.objectives.optim import Optimizer
from trabecula.objectives.r3gan import R3GanConfig
from trabecula.objectives.sn_gan import SnGan, SnGanConfig
from trabecula.objectives.wgan import WganConfig
from trabecula.train.loop import train

FAMILY = ["wgan_gp", "wgan", "gan_r1", "sn_gan", "r3gan"]


def make(
    name: str, store: Store, architecture: str = "critic", **settings: Any
) -> tuple[Adversarial, Stream]:
    method = find(name)
    encoder = make_encoder(architecture, store.channels, store.size, seed=0)
    config = build(method.Config, {**method.tiny, **settings}, name)
    objective = cast("Adversarial", method(config, encoder, Setting(len(store), 8, 1)))
    return objective, Stream(store, np.arange(len(store)), 8, 2)


def updates(objective: Adversarial, stream: Stream, first: int = 0, progress: float = 0.0) -> list[Update]:
    batches = [stream.batch(first + i) for i in range(objective.batches)]
    return list(objective.step(batches, progress))


@pytest.mark.parametrize(
    ("name", "critic", "generator"),
    [
        ("wgan", 0.0, 0.0),
        ("gan_r1", 2 * math.log(2), math.log(2)),
        ("sn_gan", 2.0, 0.0),
        ("r3gan", math.log(2), math.log(2)),
    ],
)
def test_losses_where_every_score_is_zero(name: str, critic: float, generator: float, store: Store) -> None:
    settings: dict[str, Any] = {"gamma": 0, "gamma_end": 0} if name == "r3gan" else {}  # the loss alone
    objective, stream = make(name, store, **settings)
    nought = objective.critic.output
    with torch.no_grad():
        nought.bias.zero_()
        if name != "sn_gan":
            nought.weight.zero_()
    if name == "sn_gan":  # the features are nought: no weight can be divided by the norm of none
        objective.critic.blocks.register_forward_hook(lambda *passed: passed[2] * 0)
    if name == "gan_r1":
        cast("Any", objective).critic_updates.fill_(1)  # between two penalties
    found = {update.group: float(update.loss.detach()) for update in updates(objective, stream)}
    assert found == {
        "critic": pytest.approx(critic, abs=1e-6),
        "generator": pytest.approx(generator, abs=1e-6),
    }


def test_hinge_and_logistic_by_hand(store: Store) -> None:
    """Scores put in by hand: the formulas, written out with numpy."""
    real, fake = torch.tensor([0.5, -2.0, 3.0, 0.0] * 2), torch.tensor([1.5, -0.5, -3.0, 0.2] * 2)
    r, f = real.numpy().astype(float), fake.numpy().astype(float)
    expected = {
        "sn_gan": np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean(),
        "gan_r1": np.log1p(np.exp(-r)).mean() + np.log1p(np.exp(f)).mean(),
        "r3gan": np.log1p(np.exp(-(r - f))).mean(),
        "wgan": f.mean() - r.mean(),
    }
    for name, value in expected.items():
        settings: dict[str, Any] = {"gamma": 0, "gamma_end": 0} if name == "r3gan" else {}
        objective, stream = make(name, store, **settings)
        objective.scores = lambda *_: (real, fake)  # type: ignore[method-assign]
        found = [
            u.loss.item() for u in updates(objective, stream) if u.group == "critic" and "gap" in u.scalars
        ]
        assert found == [pytest.approx(value, rel=1e-5)], name


class Form(nn.Module):
    """f(x) = w.x + |x|^2 q / 2."""

    def __init__(self, w: Tensor, q: float) -> None:
        super().__init__()
        self.w, self.q = nn.Parameter(w), q

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w + self.q * x.flatten(1).square().sum(1) / 2


def test_r1_of_a_linear_and_of_a_quadratic_critic() -> None:
    """f = w.x: |w|^2 / 2. f = |x|^2 / 2: mean |x|^2 / 2; over all pixels and channels of a sample."""
    torch.manual_seed(0)
    x, w = torch.randn(4, 3, 8, 8), torch.randn(3 * 64)
    assert zero_gradient_penalty(Form(w, 0.0), x).item() == pytest.approx(
        w.square().sum().item() / 2, rel=1e-5
    )
    expected = x.flatten(1).square().sum(1).mean().item() / 2
    assert zero_gradient_penalty(Form(w * 0, 1.0), x).item() == pytest.approx(expected, rel=1e-5)


def test_the_lazy_penalty_comes_every_so_many_updates_and_is_that_much_heavier(store: Store) -> None:
    objective, stream = make("gan_r1", store, lazy=3, gamma=5.0, critic_steps=1)
    kinds = []
    for step in range(7):
        for update in updates(objective, stream, step):
            if update.group == "critic":
                kinds.append("r1" if "r1" in update.scalars else "loss")
                if "r1" in update.scalars:
                    assert update.loss.item() == pytest.approx(
                        3 * 5.0 * update.scalars["r1"].item(), rel=1e-6
                    )
    assert kinds == ["r1", "loss", "loss", "loss"] * 2 + ["r1", "loss"]
    adam = objective.groups()["critic"].optimizer
    assert adam.lr == pytest.approx(1e-4 * 3 / 4)
    assert adam.betas == pytest.approx((0.0, 0.99**0.75))
    eager, stream = make("gan_r1", store, lazy=1, gamma=5e5)  # the slope of fresh weights is tiny
    assert eager.groups()["critic"].optimizer.lr == 1e-4
    real = eager.real(stream.batch(0))
    plain, _ = make("gan_r1", store, lazy=1, gamma=0.0)
    with_it, without = (updates(o, stream)[0].loss.item() for o in (eager, plain))
    assert with_it - without == pytest.approx(
        5e5 * zero_gradient_penalty(eager.critic, real).item(), rel=1e-4
    )


def test_clipped_weights_stay_in_their_box(store: Store) -> None:
    objective, stream = make("wgan", store, clip=0.02)
    list(train(objective, stream, images=32, every=8, precision="float32"))
    largest = max(float(w.detach().abs().max()) for w in objective.critic.parameters())
    assert largest == pytest.approx(0.02)  # the box is full, and nothing is outside
    assert max(float(w.detach().abs().max()) for w in objective.generator.parameters()) > 0.02


def test_normalised_weights_have_the_largest_singular_value_one(store: Store) -> None:
    objective = cast("SnGan", make("sn_gan", store)[0])
    for _ in range(200):  # the largest singular values of random matrices lie close together
        objective.spectral.iterate(objective.critic)
    for name, weight in objective.spectral.normalised(objective.critic).items():
        assert float(torch.linalg.svdvals(weight.detach().flatten(1))[0]) == pytest.approx(1, abs=1e-3), name


def test_sigma_is_differentiable_in_the_weight_alone() -> None:
    """d(W / sigma)/dW with u and v held: against the formula of Miyato 2018, equation 12."""
    torch.manual_seed(0)
    critic = Critic(1, 32, widths=(4, 6))
    from trabecula.nets.spectral import Spectral

    spectral = Spectral(critic, seed=1)
    weight, u = critic.output.weight, spectral.get_buffer("output_weight")
    along = torch.randn_like(weight)
    (grad,) = torch.autograd.grad((spectral.normalised(critic)["output.weight"] * along).sum(), weight)
    v = nn.functional.normalize(weight.detach().t() @ u, dim=0)
    sigma = float(u @ weight.detach() @ v)
    uv = torch.outer(u, v)
    expected = along / sigma - (along * weight.detach()).sum() / sigma**2 * uv
    torch.testing.assert_close(grad, expected)


def test_spectral_scores_do_not_change_by_being_asked(store: Store) -> None:
    objective, stream = make("sn_gan", store)
    sn = cast("SnGan", objective)
    x = sn.real(stream.batch(0))
    state = copy.deepcopy(sn.spectral.state_dict())
    first, second = (sn.spectral(sn.critic, x) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(value, sn.spectral.state_dict()[key]) for key, value in state.items())
    with torch.no_grad():
        torch.testing.assert_close(sn.scorer()(x), first)
        torch.testing.assert_close(
            sn.products()["encoder"](x / 2 + 0.5), sn.scorer().features(x), rtol=1e-5, atol=1e-6
        )


def test_one_power_iteration_a_pass(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sn = cast("SnGan", make("sn_gan", store, critic_steps=2)[0])
    stream = make("sn_gan", store)[1]
    calls: list[int] = []
    real = sn.spectral.iterate

    def counted(critic: nn.Module) -> None:
        calls.append(1)
        real(critic)

    monkeypatch.setattr(sn.spectral, "iterate", counted)
    updates(sn, stream)
    assert len(calls) == 3  # two of the critic, one of the generator


def test_both_penalties_anneal(store: Store) -> None:
    for progress, gamma in ((0.0, 2e5), (0.5, 1.1e5), (1.0, 2e4)):  # the slope of fresh weights is tiny
        objective, stream = make("r3gan", store, gamma=2e5, gamma_end=2e4)
        plain, _ = make("r3gan", store, gamma=0.0, gamma_end=0.0)
        update, without = (updates(o, stream, progress=progress)[0] for o in (objective, plain))
        added = update.loss.item() - without.loss.item()
        assert added == pytest.approx(gamma * (update.scalars["r1"] + update.scalars["r2"]).item(), rel=1e-4)


@pytest.mark.parametrize(
    ("progress", "half_life"), [(0.0, 0), (0.25, 50 * (1 - 0.5**0.5)), (0.5, 50), (1, 100)]
)
def test_the_half_life_of_the_average_rises_from_none(
    progress: float, half_life: float, store: Store
) -> None:
    objective, stream = make("r3gan", store, ema=0.5 ** (1 / 100))
    objective.updates.fill_(10**6)  # far beyond the ramp of short runs
    averaged = cast("nn.Module", objective.averaged)
    before = [w.clone() for w in averaged.parameters()]
    for update in objective.step([stream.batch(0)], progress):
        if update.group == "generator":
            for weight in objective.generator.parameters():
                weight.data.add_(1.0)
    moved = 1 - 0.5 ** (1 / half_life) if half_life else 1.0
    for old, new in zip(before, averaged.parameters(), strict=True):
        torch.testing.assert_close(new, old + moved, rtol=0, atol=1e-5)


def test_the_second_beta_moves_and_the_extra_moves_of_r1_change_both_its_ends(store: Store) -> None:
    cycle = Optimizer(betas=(0.9, 0.9), beta2_end=0.99, schedule="one_cycle")
    assert [cycle.at(step, 4)["betas"][1] for step in (0, 2, 4)] == pytest.approx([0.9, 0.945, 0.99])
    lazy = make("gan_r1", store, lazy=3, critic={"betas": (0.0, 0.9), "beta2_end": 0.99})[0]
    adam = lazy.groups()["critic"].optimizer
    assert (adam.betas[1], adam.beta2_end) == pytest.approx((0.9**0.75, 0.99**0.75))
    with pytest.raises(InputError, match="'beta2_end' belongs to adam and adamw, not to rmsprop"):
        make("wgan", store, critic={"name": "rmsprop", "beta2_end": 0.99})


def test_defaults_are_those_of_the_papers() -> None:
    clipped, r1, sn, r3 = WganConfig(), GanR1Config(), SnGanConfig(), R3GanConfig()
    assert (clipped.clip, clipped.critic.name, clipped.critic.lr, clipped.critic_steps) == (
        0.01,
        "rmsprop",
        5e-5,
        5,
    )
    assert (r1.gamma, r1.lazy, r1.critic_steps) == (10.0, 16, 1)
    assert (sn.critic.lr, sn.critic.betas, sn.critic_steps) == (2e-4, (0.0, 0.9), 5)
    assert (r3.gamma, r3.gamma_end, r3.latent, r3.critic_steps) == (2.0, 0.2, 64, 1)
    assert r3.ema == pytest.approx(0.5 ** (256 / 500_000), abs=1e-6)
    for adam in (r3.critic, r3.generator):
        assert [adam.at(step, 4)["lr"] for step in (0, 2, 4)] == pytest.approx([2e-4, 1.25e-4, 5e-5])
        assert [adam.at(step, 4)["betas"][1] for step in (0, 2, 4)] == pytest.approx([0.9, 0.945, 0.99])
        assert {adam.at(step, 4)["betas"][0] for step in range(5)} == {0.0}
    assert [config.ema for config in (clipped, r1, sn)] == [0, 0, 0]


@pytest.mark.parametrize("name", FAMILY)
def test_one_seed_is_one_start_of_the_critic_whatever_the_method(name: str, store: Store) -> None:
    objective, first = make(name, store)[0], make("wgan_gp", store)[0]
    for key, weight in first.critic.state_dict().items():
        assert torch.equal(weight, objective.critic.state_dict()[key]), key


@pytest.mark.parametrize("name", FAMILY)
def test_other_widths_and_a_critic_with_batch_norm_train(name: str, store: Store) -> None:
    for architecture in ("critic:4-8-16", "critic_bn:4-8-16"):
        objective, stream = make(name, store, architecture)
        assert cast("UpsamplingGenerator", objective.generator).config.widths == (16, 8, 4, 2)
        points = list(train(objective, stream, images=16, every=8, precision="float32"))
        assert np.isfinite([v for p in points for v in p.scalars.values()]).all()
        x = objective.real(stream.batch(0))
        assert input_gradient(objective.scorer(), x).shape == x.shape


def test_the_pages_of_settings_show_each_methods_own_defaults() -> None:
    shown = {name: {row[0]: row[2] for row in describe(find(name).Config)} for name in FAMILY}
    assert shown["wgan"]["critic.name"] == '"rmsprop"'
    assert [shown[name]["critic.lr"] for name in FAMILY] == ["0.0001", "5e-05", "0.0001", "0.0002", "0.0002"]
    assert shown["r3gan"]["generator.end"] == "0.25"


@pytest.mark.parametrize("num_images", [1, 2, 3])
def test_a_pool_that_is_too_small_gets_advice_that_helps(num_images: int, store: Store) -> None:
    """`pretrain` takes no batch of one image, so for a pool of one there is none that would do."""
    method, encoder = find("wgan_gp"), make_encoder("critic", store.channels, store.size, seed=0)
    with pytest.raises(InputError) as refused:
        method(method.Config(), encoder, Setting(num_images, 64, 0))
    assert ("-s batch_size=2 would do" in str(refused.value)) == (num_images > 1)
    assert ("the pool holds one image" in str(refused.value)) == (num_images == 1)
    assert "batch_size=1" not in str(refused.value)
