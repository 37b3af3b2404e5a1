"""BYOL: lightly's loss, modules and moving average, what the target sees, and the order of a step."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import Stream
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.byol import Byol, ByolConfig, distance
from trabecula.objectives.objective import Setting, rising

BATCH = 8


def golden(num_rows: int = 8, dim: int = 6) -> tuple[Tensor, Tensor]:
    """Two embeddings given by closed formulas."""
    i, j = torch.meshgrid(torch.arange(num_rows).double(), torch.arange(dim).double(), indexing="ij")
    return torch.sin(0.7 * i + 1.3 * j + 0.1 * i * j), torch.cos(0.5 * i - 0.9 * j + 0.2 * i * j)


def make(store: Store, architecture: str = "timm:resnet10t", **settings: object) -> tuple[Byol, Stream]:
    encoder = make_encoder(architecture, store.channels, store.size, seed=0)
    config = build(ByolConfig, {**Byol.tiny, **settings}, "byol")
    byol = Byol(config, encoder, Setting(len(store), BATCH, 1))
    return byol.train(), Stream(store, np.arange(len(store)), BATCH, 2)


def test_the_loss_is_the_squared_distance_of_unit_rows() -> None:
    p, z = golden()
    unit = [x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (p, z)]
    assert distance(p, z).item() == pytest.approx(((unit[0] - unit[1]) ** 2).sum(1).mean(), abs=1e-12)
    assert distance(p, z).item() == pytest.approx(distance(3 * p, 0.2 * z).item(), abs=1e-12)
    assert distance(p, p).item() == pytest.approx(0, abs=1e-12)
    assert distance(p, -p).item() == pytest.approx(4, abs=1e-12)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(distance(p[order], z[order]), distance(p, z))


def test_value_and_gradient_are_lightly_s() -> None:
    """lightly leaves out the constant and the factor of equation 2."""
    from lightly.loss import NegativeCosineSimilarity

    ours, target = golden()
    ours.requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    mine, other = distance(ours, target), 2 + 2 * NegativeCosineSimilarity()(theirs, target)
    assert mine.item() == pytest.approx(other.item(), abs=1e-12)
    mine.backward()
    other.backward()
    assert theirs.grad is not None
    assert float(theirs.grad.abs().max()) > 1e-3
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-13)


def test_the_decay_of_the_average_is_lightly_s() -> None:
    from lightly.utils.scheduler import cosine_schedule

    for step in (0, 1, 50, 98, 99):
        assert rising(0.996, step / 99) == pytest.approx(cosine_schedule(step, 100, 0.996, 1.0), abs=1e-12)


class LightlyByol(nn.Module):
    """BYOL as lightly's documentation builds it, on a backbone of ours."""

    def __init__(self, backbone: nn.Module, num_features: int, hidden: int, dim: int) -> None:
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
        from lightly.models.utils import deactivate_requires_grad

        super().__init__()
        self.backbone = backbone
        self.projection_head = BYOLProjectionHead(num_features, hidden, dim)
        self.prediction_head = BYOLPredictionHead(dim, hidden, dim)
        self.copies = copy.deepcopy(nn.Sequential(self.backbone, self.projection_head))
        deactivate_requires_grad(self.copies)

    def forward(self, x: Tensor) -> Tensor:
        prediction: Tensor = self.prediction_head(self.projection_head(self.backbone(x)))
        return prediction

    def forward_momentum(self, x: Tensor) -> Tensor:
        return self.copies(x).detach()


def test_three_steps_are_those_of_lightly_s_modules(store: Store) -> None:
    """Loss, and weights of both networks, with a decay that stays: lightly moves the average a step later."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.utils import update_momentum

    byol, stream = make(store, "critic", momentum=0.9)
    byol.double()
    peer = LightlyByol(copy.deepcopy(byol.online[0]), byol.online[0].card.num_features, 32, 8).double()
    heads = ((peer.projection_head, byol.online[1]), (peer.prediction_head, byol.predictor))
    for theirs, ours in (*heads, (peer.copies[1], byol.online[1])):
        linear = [layer for layer in theirs.layers if isinstance(layer, nn.Linear)]
        for layer, mine in zip(linear, (ours.hidden, ours.out), strict=True):
            layer.weight.data.copy_(mine.weight)
        nn.init.zeros_(linear[-1].bias)  # the official code's last layer has none
        linear[-1].bias.requires_grad_(False)
    criterion = NegativeCosineSimilarity()
    mine = torch.optim.SGD([*byol.online.parameters(), *byol.predictor.parameters()], lr=0.1)
    other = torch.optim.SGD([w for w in peer.parameters() if w.requires_grad], lr=0.1)
    for number in range(3):
        batch = stream.batch(number)
        a, b = (batch.view(views).images.double() for views in (byol.config.views_a, byol.config.views_b))
        if number:
            update_momentum(nn.Sequential(peer.backbone, peer.projection_head), peer.copies, 0.9)
        there, back = ((peer(x), peer.forward_momentum(y)) for x, y in ((a, b), (b, a)))
        loss = 4 + 2 * (criterion(*there) + criterion(*back))
        other.zero_grad()
        loss.backward()
        other.step()
        for update in byol.step([stream.batch(number)], 0.0):
            assert update.loss.item() == pytest.approx(loss.item(), rel=1e-6)
            mine.zero_grad()
            update.loss.backward()
            mine.step()
    update_momentum(nn.Sequential(peer.backbone, peer.projection_head), peer.copies, 0.9)
    for ours, theirs in zip(byol.online[0].parameters(), peer.backbone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(byol.target[0].parameters(), peer.copies[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_each_view_is_predicted_from_the_other_in_a_pass_of_its_own(store: Store) -> None:
    byol, stream = make(store)
    seen: dict[str, list[Tensor]] = {"online": [], "target": []}
    for name in seen:
        net = getattr(byol, name)
        net.register_forward_pre_hook(lambda _m, args, name=name: seen[name].append(args[0]))
    pairs = []
    predicted = byol.predictor
    predicted.register_forward_hook(lambda _m, args, out: pairs.append((args[0], out)))
    update = next(byol.step([stream.batch(0)], 0.0))
    batch = stream.batch(0)
    a, b = (batch.view(views).images for views in (byol.config.views_a, byol.config.views_b))
    assert [torch.equal(x, y) for x, y in zip(seen["online"], (a, b), strict=True)] == [True, True]
    assert [torch.equal(x, y) for x, y in zip(seen["target"], (b, a), strict=True)] == [True, True]
    assert not torch.equal(a, b)
    twin, _ = make(store)
    wanted = [twin.target(x).detach() for x in (b, a)]
    by_hand = sum(distance(out.detach(), z) for (_, out), z in zip(pairs, wanted, strict=True))
    torch.testing.assert_close(update.loss.detach(), by_hand)


def test_the_target_follows_after_the_step_and_has_no_gradient(store: Store) -> None:
    byol, stream = make(store, momentum=0.5)
    before = [w.clone() for w in byol.target.parameters()]
    statistics = [buffer.clone() for buffer in byol.target.buffers()]
    step = byol.step([stream.batch(0)], 0.5)  # halfway, 0.5 has risen to 0.75
    update = next(step)
    update.loss.backward()
    assert all(w.grad is None and not w.requires_grad for w in byol.target.parameters())
    assert all(w.grad is not None for w in [*byol.online.parameters(), *byol.predictor.parameters()])
    for weight in byol.online.parameters():
        weight.data.add_(0.25)
    assert all(torch.equal(a, b) for a, b in zip(byol.target.parameters(), before, strict=True))
    assert next(step, None) is None
    for target, old, online in zip(byol.target.parameters(), before, byol.online.parameters(), strict=True):
        torch.testing.assert_close(target, 0.75 * old + 0.25 * online.detach())
    moved = [not torch.equal(a, b) for a, b in zip(byol.target.buffers(), statistics, strict=True)]
    assert any(moved)  # its batch norms take their own statistics


def test_the_online_encoder_is_kept_and_the_target_is_in_the_checkpoint(store: Store) -> None:
    byol, _ = make(store)
    assert byol.products() == {"encoder": byol.online[0]}
    keys = set(byol.state_dict())
    assert {f"target.{key}" for key in byol.online.state_dict()} <= keys


def test_defaults_are_the_paper_s(store: Store) -> None:
    config = ByolConfig()
    assert (config.hidden, config.dim, config.momentum) == (4096, 256, 0.996)
    assert (config.views_a.blur, config.views_a.solarize) == (1.0, 0.0)
    assert (config.views_b.blur, config.views_b.solarize) == (0.1, 0.2)
    rule = config.optimizer
    assert (rule.name, rule.lr, rule.weight_decay, rule.decay_vectors) == ("lars", 0.2, 1.5e-6, False)
    assert (rule.schedule, rule.end, rule.warmup) == ("cosine", 0, 0.01)
    byol, _ = make(store, optimizer={"name": "lars", "lr": 0.2}, scale_lr=True)
    assert byol.groups()["online"].optimizer.lr == 0.2 * BATCH / 256
    assert {views.size for views in (byol.config.views_a, byol.config.views_b)} == {store.size}
