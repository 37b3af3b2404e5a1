"""Barlow Twins: golden values, gradients of lightly, the biased statistics, two passes, asymmetric views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import Stream
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.barlow import Barlow, BarlowConfig, correlation_terms
from trabecula.objectives.objective import Setting
from trabecula.objectives.two_views import off_diagonal_energy
from trabecula.objectives.vicreg import VicregConfig

BATCH = 8


def golden(num_rows: int = 8, dim: int = 6) -> tuple[Tensor, Tensor]:
    """Two embeddings given by closed formulas."""
    i, j = torch.meshgrid(torch.arange(num_rows).double(), torch.arange(dim).double(), indexing="ij")
    return torch.sin(0.7 * i + 1.3 * j + 0.1 * i * j), torch.cos(0.5 * i - 0.9 * j + 0.2 * i * j)


def make(store: Store, **settings: object) -> Barlow:
    encoder = make_encoder("timm:resnet10t", store.channels, store.size, seed=0)
    config = build(BarlowConfig, {**Barlow.tiny, **settings}, "barlow")
    return Barlow(config, encoder, Setting(len(store), BATCH, 1))


def loss_of(za: Tensor, zb: Tensor, redundancy: float) -> Tensor:
    on, off = correlation_terms(za, zb)
    return on + redundancy * off


@pytest.mark.parametrize(("redundancy", "value"), [(0.0051, 6.6901256204259), (0.005, 6.6894336249213)])
def test_the_loss_has_the_golden_values(redundancy: float, value: float) -> None:
    assert loss_of(*golden(), redundancy).item() == pytest.approx(value, abs=1e-11)


@pytest.mark.parametrize("shape", [(8, 6), (6, 6), (5, 40)])
def test_value_and_gradient_are_lightly_s(shape: tuple[int, int]) -> None:
    """With more rows than features and with fewer, which takes another way."""
    from lightly.loss import BarlowTwinsLoss

    ours = [z.requires_grad_() for z in golden(*shape)]
    theirs = [z.detach().clone().requires_grad_() for z in ours]
    mine, other = loss_of(*ours, 0.0051), BarlowTwinsLoss(0.0051)(*theirs)
    assert mine.item() == pytest.approx(other.item(), rel=1e-11)
    mine.backward()
    other.backward()
    for a, b in zip(ours, theirs, strict=True):
        assert float(b.grad.abs().max()) > 1e-3
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-11)


def test_the_statistics_are_biased_and_an_unbiased_deviation_would_give_another_loss() -> None:
    """With 1/(N-1) equal views correlate to (N-1)/N, and the loss has another minimum."""
    za, zb = golden()

    def unbiased(z: Tensor) -> Tensor:
        return (z - z.mean(0)) / z.std(0)

    c = unbiased(za).t() @ unbiased(zb) / len(za)
    eye = torch.eye(6, dtype=torch.bool)
    wrong = (c[eye] - 1).square().sum() + 0.0051 * c[~eye].square().sum()
    assert wrong.item() == pytest.approx(6.3179946664554, abs=1e-11)
    assert abs(loss_of(za, zb, 0.0051).item() - wrong.item()) > 0.3
    on, _ = correlation_terms(za, za)
    assert on.item() < 1e-8
    assert (unbiased(za).square().sum(0) / len(za)).numpy() == pytest.approx(np.full(6, 7 / 8))


def test_order_of_rows_scale_and_shift_of_features_do_not_matter() -> None:
    za, zb = golden()
    loss = loss_of(za, zb, 0.0051)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss_of(za[order], zb[order], 0.0051), loss)
    scale, shift = torch.linspace(50, 100, 6), torch.linspace(-1, 1, 6)
    torch.testing.assert_close(loss_of(za * scale + shift, zb, 0.0051), loss, rtol=1e-4, atol=0)
    assert abs(float(loss_of(za[order], zb, 0.0051) - loss)) > 1e-2  # but rows belong together


def test_a_collapsed_embedding_costs_one_for_each_feature() -> None:
    same = torch.ones(8, 6).double()
    on, off = correlation_terms(same, same)
    assert (on.item(), off.item()) == (6, 0)


def test_the_energy_off_the_diagonal_is_that_of_the_whole_matrix() -> None:
    torch.manual_seed(0)
    for num_rows, dim in ((7, 30), (30, 7), (9, 9)):
        a, b = torch.randn(num_rows, dim).double(), torch.randn(num_rows, dim).double()
        whole = (a.t() @ b).masked_fill(torch.eye(dim, dtype=torch.bool), 0).square().sum()
        torch.testing.assert_close(off_diagonal_energy(a, b), whole)
        own = (a.t() @ a).masked_fill(torch.eye(dim, dtype=torch.bool), 0).square().sum()
        torch.testing.assert_close(off_diagonal_energy(a, a), own)


def test_off_the_diagonal_is_zero_where_features_share_nothing() -> None:
    a = torch.eye(8)[:, :4]
    assert off_diagonal_energy(a, a).item() == 0


def test_each_view_is_a_pass_of_its_own(store: Store) -> None:
    """One pass of both views would give batch norm the statistics of their mixture."""
    barlow = make(store)
    seen: list[Tensor] = []
    barlow.encoder.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    norm = barlow.projector.layers.norm0
    barlow.train()
    batch = Stream(store, np.arange(len(store)), BATCH, 2).batch(0)
    (update,) = list(barlow.step([batch], 0.0))
    assert [len(images) for images in seen] == [BATCH, BATCH]
    assert not torch.equal(*seen)
    assert int(norm.num_batches_tracked) == 2
    assert update.scalars.keys() == {"invariance", "redundancy"}
    expected = update.scalars["invariance"] + 0.0051 * update.scalars["redundancy"]
    torch.testing.assert_close(update.loss.detach(), expected)
    assert update.loss.dtype == torch.float32


def test_in_bf16_the_loss_is_taken_in_float32(store: Store) -> None:
    barlow = make(store)
    taken: list[tuple[torch.dtype, bool]] = []
    loss = barlow.loss

    def spy(za: Tensor, zb: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        taken.append((za.dtype, torch.is_autocast_enabled("cpu")))
        return loss(za, zb)

    barlow.loss = spy  # type: ignore[method-assign]
    batch = Stream(store, np.arange(len(store)), BATCH, 2).batch(0)
    step = barlow.step([batch], 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        next(step)
    assert taken == [(torch.float32, False)]


def test_defaults_are_those_of_the_official_codes(store: Store) -> None:
    config = BarlowConfig()
    assert (config.width, config.redundancy) == (8192, 0.0051)
    assert (config.views_a.blur, config.views_a.solarize) == (1.0, 0.0)
    assert (config.views_b.blur, config.views_b.solarize) == (0.1, 0.2)
    assert config.views_a.crop_scale == config.views_b.crop_scale == (0.08, 1.0)
    rule = config.optimizer
    assert (rule.name, rule.lr, rule.trust_coefficient, rule.momentum) == ("lars", 0.2, 0.001, 0.9)
    assert (rule.weight_decay, rule.decay_vectors, rule.end) == (1e-6, False, 0.001)
    assert rule.lr * rule.vector_lr == pytest.approx(0.0048)
    assert VicregConfig().optimizer == rule.model_copy(update={"vector_lr": 1.0})
    optimizer = {"name": "lars", "lr": 0.2}
    assert make(store, optimizer=optimizer, scale_lr=True).groups()["all"].optimizer.lr == 0.2 * BATCH / 256
    assert make(store, optimizer=optimizer, scale_lr=False).groups()["all"].optimizer.lr == 0.2
    made = make(store).config
    assert made.views_a.size == made.views_b.size == store.size


def test_only_the_encoder_is_kept(store: Store) -> None:
    barlow = make(store)
    assert barlow.products() == {"encoder": barlow.encoder}
