"""VICReg: golden values, gradients of lightly, the versions in use, what collapse costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import Stream
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.objective import Setting
from trabecula.objectives.vicreg import Vicreg, VicregConfig, spread_terms

FAIR = 27.7542737019566


def golden(num_rows: int = 8, dim: int = 6) -> tuple[Tensor, Tensor]:
    """Two embeddings given by closed formulas."""
    i, j = torch.meshgrid(torch.arange(num_rows).double(), torch.arange(dim).double(), indexing="ij")
    return torch.sin(0.7 * i + 1.3 * j + 0.1 * i * j), torch.cos(0.5 * i - 0.9 * j + 0.2 * i * j)


def make(store: Store, **settings: object) -> Vicreg:
    encoder = make_encoder("critic", store.channels, store.size, seed=0)
    return Vicreg(
        build(VicregConfig, {**Vicreg.tiny, **settings}, "vicreg"), encoder, Setting(len(store), 8, 1)
    )


def test_the_terms_have_the_golden_values(store: Store) -> None:
    za, zb = golden()
    assert F.mse_loss(za, zb).item() == pytest.approx(0.8201041431, abs=1e-9)
    assert [term.item() for term in spread_terms(za)] == pytest.approx([0.2574377788, 0.4484898403], abs=1e-9)
    assert [term.item() for term in spread_terms(zb)] == pytest.approx([0.2380155546, 0.6100136155], abs=1e-9)
    loss, terms = make(store).loss(za, zb)
    assert loss.item() == pytest.approx(FAIR, abs=1e-11)
    assert [terms[name].item() for name in ("invariance", "variance", "covariance")] == pytest.approx(
        [0.8201041431, (0.2574377788 + 0.2380155546) / 2, 0.4484898403 + 0.6100136155], abs=1e-9
    )


@pytest.mark.parametrize("shape", [(8, 6), (6, 6), (5, 40)])
def test_value_and_gradient_are_lightly_s(shape: tuple[int, int], store: Store) -> None:
    """With more rows than features and with fewer, which takes another way."""
    from lightly.loss import VICRegLoss

    ours = [z.requires_grad_() for z in golden(*shape)]
    theirs = [z.detach().clone().requires_grad_() for z in ours]
    mine, other = make(store).loss(*ours)[0], VICRegLoss()(*theirs)
    assert mine.item() == pytest.approx(other.item(), rel=1e-11)
    mine.backward()
    other.backward()
    for a, b in zip(ours, theirs, strict=True):
        assert float(b.grad.abs().max()) > 1e-3
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-11)


def test_the_variance_is_halved_for_both_views_alike(store: Store) -> None:
    """Versions in use: the sum of both hinges (the paper's equation), and the second one alone halved."""
    za, zb = golden()
    vicreg = make(store)
    _, terms = vicreg.loss(za, zb)
    first, second = spread_terms(za)[0], spread_terms(zb)[0]
    rest = 25 * terms["invariance"] + terms["covariance"]
    summed, lopsided = rest + 25 * (first + second), rest + 25 * (first + second / 2)
    assert summed.item() == pytest.approx(33.9474403702480, abs=1e-11)
    assert make(store, variance=50).loss(za, zb)[0].item() == pytest.approx(summed.item(), abs=1e-11)
    loss = vicreg.loss(za, zb)[0].item()
    assert loss == pytest.approx(FAIR, abs=1e-11)
    assert min(abs(loss - summed.item()), abs(loss - lopsided.item())) > 1
    assert vicreg.loss(zb, za)[0].item() == pytest.approx(loss, abs=1e-11)  # lopsided would not be


def test_moments_are_those_of_numpy_with_one_row_less() -> None:
    z, _ = golden(9, 5)
    c = np.cov(z.numpy(), rowvar=False)  # 1 / (N - 1), centred
    hinge, covariance = spread_terms(z)
    assert hinge.item() == pytest.approx(np.maximum(0, 1 - np.sqrt(np.diag(c) + 1e-4)).mean(), abs=1e-12)
    assert covariance.item() == pytest.approx(((c - np.diag(np.diag(c))) ** 2).sum() / 5, abs=1e-12)


def test_a_collapsed_embedding_costs_the_whole_hinge_and_has_a_finite_gradient(store: Store) -> None:
    same = torch.ones(8, 6).double().requires_grad_()
    loss, terms = make(store).loss(same, same.detach())
    assert loss.item() == pytest.approx(25 * (1 - 0.01), abs=1e-12)
    assert (terms["invariance"].item(), terms["covariance"].item()) == (0, 0)
    loss.backward()
    assert torch.isfinite(same.grad).all()


def test_spread_enough_costs_nothing_and_copies_of_a_feature_do() -> None:
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(64, 7).double())[0]
    white = torch.linalg.qr(q - q.mean(0))[0] * 8 * 1.5  # orthogonal, centred, deviation above 1
    assert [term.item() for term in spread_terms(white)] == pytest.approx([0, 0], abs=1e-12)
    copied = white.clone()
    copied[:, 1] = copied[:, 0]
    variance = float(copied[:, 0].var())
    assert spread_terms(copied)[1].item() == pytest.approx(2 * variance**2 / 7)


def test_rows_may_change_order_but_scale_and_partner_matter(store: Store) -> None:
    za, zb = golden()
    vicreg = make(store)
    loss = vicreg.loss(za, zb)[0].item()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert vicreg.loss(za[order], zb[order])[0].item() == pytest.approx(loss)
    assert abs(vicreg.loss(za[order], zb)[0].item() - loss) > 0.1
    assert abs(vicreg.loss(2 * za, 2 * zb)[0].item() - loss) > 0.1


def test_a_step_logs_the_terms_and_weighs_them(store: Store) -> None:
    vicreg = make(store, invariance=3, variance=5, covariance=7)
    vicreg.train()
    batch = Stream(store, np.arange(len(store)), 8, 2).batch(0)
    (update,) = list(vicreg.step([batch], 0.0))
    logged = update.scalars
    expected = 3 * logged["invariance"] + 5 * logged["variance"] + 7 * logged["covariance"]
    torch.testing.assert_close(update.loss.detach(), expected)
    assert all(not value.requires_grad for value in logged.values())


def test_defaults_are_those_of_the_official_code() -> None:
    config = VicregConfig()
    assert (config.invariance, config.variance, config.covariance, config.width) == (25, 25, 1, 8192)
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.vector_lr) == ("lars", 0.2, 1)
