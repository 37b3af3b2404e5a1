"""LARS against its formula, against lightly's and timm's, and through a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import Stream
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.barlow import Barlow, BarlowConfig
from trabecula.objectives.objective import Setting
from trabecula.objectives.optim import Lars, Optimizer
from trabecula.train.loop import train

RULE = Optimizer(name="lars", lr=0.3, momentum=0.9, weight_decay=1e-6, decay_vectors=False)


def some_weights(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    """A kernel, a matrix and a bias."""
    torch.manual_seed(0)
    kernel = torch.randn(8, 4, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    return [nn.Parameter(w) for w in (kernel, torch.randn(5, 8, dtype=dtype), torch.ones(8, dtype=dtype))]


def push(weights: list[nn.Parameter], step: int) -> None:
    """Gradients that depend on the weights and on the step."""
    for index, weight in enumerate(weights):
        weight.grad = (weight.detach() * (index + 1)).sin() + 0.1 * step


def by_formula(weights: list[nn.Parameter], rule: Optimizer, steps: int) -> list[np.ndarray]:
    """The weights after some steps, one at a time in numpy."""
    values = [w.detach().numpy().copy() for w in weights]
    speeds = [np.zeros_like(v) for v in values]
    for step in range(steps):
        for index, w in enumerate(values):
            g = np.sin(w * (index + 1)) + 0.1 * step
            matrix = w.ndim > 1
            u = g + (rule.weight_decay * w if matrix or rule.decay_vectors else 0)
            if matrix:
                u = u * rule.trust_coefficient * np.sqrt((w**2).sum()) / np.sqrt((u**2).sum())
            speeds[index] = rule.momentum * speeds[index] + u
            values[index] = w - rule.lr * (1 if matrix else rule.vector_lr) * speeds[index]
    return values


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight_decay": 0.5},
        {"weight_decay": 0.5, "decay_vectors": True},
        {"vector_lr": 0.024},
        {"trust_coefficient": 0.02, "momentum": 0.0},
    ],
)
def test_steps_are_those_of_the_formula(changes: dict[str, Any]) -> None:
    rule = RULE.model_copy(update=changes)
    weights = some_weights()
    expected = by_formula(weights, rule, 5)
    optimizer = rule.make(weights)
    for step in range(5):
        push(weights, step)
        optimizer.step()
    for weight, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), value, rtol=1e-12)


def test_steps_are_those_of_lightly_and_timm() -> None:
    """Both add the norms of gradient and decay where the official code adds the vectors: equal at 1e-6."""
    from lightly.utils.lars import LARS
    from timm.optim import Lars as TimmLars

    ours, *others = (some_weights() for _ in range(3))
    optimizers = [RULE.make(ours)]
    for kind, weights in zip((LARS, TimmLars), others, strict=True):
        groups = [{"params": weights[:2], "weight_decay": 1e-6}, {"params": weights[2:], "weight_decay": 0.0}]
        optimizers.append(kind(groups, lr=0.3, momentum=0.9))
    for step in range(20):
        for weights, optimizer in zip((ours, *others), optimizers, strict=True):
            push(weights, step)
            optimizer.step()
    start = some_weights()
    for a, b, c, first in zip(ours, *others, start, strict=True):
        assert float((a - first).detach().norm()) > 1e-3
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
        torch.testing.assert_close(a, c, rtol=0, atol=1e-6)


def test_a_layer_s_step_does_not_depend_on_the_size_of_its_gradient() -> None:
    moved = []
    for scale in (1.0, 1000.0):
        weights = some_weights()
        before = [w.detach().clone() for w in weights]
        optimizer = RULE.model_copy(update={"weight_decay": 0.0}).make(weights)
        push(weights, 1)
        for weight in weights:
            assert weight.grad is not None
            weight.grad *= scale
        optimizer.step()
        moved.append(
            [float((w.detach() - b).norm() / b.norm()) for w, b in zip(weights, before, strict=True)]
        )
    kernel, matrix, vector = zip(*moved, strict=True)
    assert kernel == pytest.approx((0.3 * 0.001, 0.3 * 0.001))
    assert matrix == pytest.approx((0.3 * 0.001, 0.3 * 0.001))
    assert vector[1] == pytest.approx(1000 * vector[0])


@pytest.mark.parametrize(("weight", "grad"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_where_a_norm_is_zero_the_step_is_plain_and_finite(weight: float, grad: float) -> None:
    layer = nn.Parameter(torch.full((2, 2), weight))
    optimizer = Optimizer(name="lars", lr=0.5, momentum=0.0).make([layer])
    layer.grad = torch.full((2, 2), grad)
    optimizer.step()
    torch.testing.assert_close(layer.detach(), torch.full((2, 2), weight - 0.5 * grad))


def test_weights_without_a_gradient_stay_and_gradients_are_left_as_they_are() -> None:
    weights = some_weights()
    optimizer = RULE.model_copy(update={"weight_decay": 0.1}).make(weights)
    push(weights, 0)
    weights[1].grad = None
    kept = [w.detach().clone() for w in weights]
    grads = [None if w.grad is None else w.grad.clone() for w in weights]
    optimizer.step()
    assert torch.equal(weights[1], kept[1])
    assert not torch.equal(weights[0], kept[0])
    for weight, grad in zip(weights, grads, strict=True):
        assert grad is None or torch.equal(weight.grad, grad)


def test_the_momentum_resumes_bit_for_bit(tmp_path: Path) -> None:
    rule = RULE.model_copy(update={"vector_lr": 0.1})
    whole, half = some_weights(torch.float32), some_weights(torch.float32)
    first, second = rule.make(whole), rule.make(half)
    for step in range(3):
        for weights, optimizer in ((whole, first), (half, second)):
            push(weights, step)
            optimizer.step()
    torch.save([second.state_dict(), half], tmp_path / "state.pt")
    state, half = torch.load(tmp_path / "state.pt", weights_only=False)
    second = rule.make(half)
    second.load_state_dict(state)
    for step in range(3, 6):
        for weights, optimizer in ((whole, first), (half, second)):
            push(weights, step)
            optimizer.step()
    for a, b in zip(whole, half, strict=True):
        assert torch.equal(a, b)


def barlow(store: Store) -> tuple[Barlow, Stream]:
    """With the official optimizer: warm-up, cosine, a rate of its own for vectors."""
    settings = {k: v for k, v in Barlow.tiny.items() if k not in ("optimizer", "scale_lr")}
    encoder = make_encoder("critic", store.channels, store.size, seed=3)
    objective = Barlow(build(BarlowConfig, settings, "barlow"), encoder, Setting(len(store), 8, 5))
    return objective, Stream(store, np.arange(len(store)), 8, seed=7)


def test_a_run_resumes_bit_for_bit_through_a_checkpoint(store: Store, tmp_path: Path) -> None:
    options: dict[str, Any] = {"images": 48, "every": 8, "precision": "float32"}
    whole, stream = barlow(store)
    list(train(whole, stream, **options))
    path = tmp_path / "checkpoint.pt"
    killed, stream = barlow(store)
    for point in train(killed, stream, **options, checkpoint=path, save_s=0):
        if point.images > 24:
            break
    state = torch.load(path, weights_only=True)
    assert {group["lr_scale"] for group in state["optimizers"]["all"]["param_groups"]} == {1.0, 0.024}
    resumed, stream = barlow(store)
    list(train(resumed, stream, **options, checkpoint=path))
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_loop_gives_weights_and_vectors_their_own_rates(store: Store, monkeypatch: Any) -> None:
    used: list[dict[int, float]] = []
    step = Lars.step

    def spy(self: Lars) -> None:
        used.append({w.ndim: group["lr"] for group in self.param_groups for w in group["params"]})
        step(self)

    monkeypatch.setattr(Lars, "step", spy)
    objective, stream = barlow(store)
    list(train(objective, stream, images=160, every=160, precision="float32"))
    weights = [rates[4] for rates in used]
    vectors = [rates[1] for rates in used]
    base = 0.2 * 8 / 256
    assert len(used) == 20
    # Official schedule: linear from 0 over the warm-up, then half a cosine from the base to a thousandth.
    rest = np.arange(18) / 18
    cosine = (1 + np.cos(np.pi * rest)) / 2
    expected = [0, base / 2, *(base * cosine + 0.001 * base * (1 - cosine))]
    assert weights == pytest.approx(expected)
    assert vectors == pytest.approx([0.024 * rate for rate in expected])
    assert 0.024 * base == pytest.approx(0.0048 * 8 / 256)


def test_a_trust_coefficient_without_lars_is_refused() -> None:
    with pytest.raises(ValidationError, match="'trust_coefficient' belongs to lars, not to sgd"):
        Optimizer(name="sgd", trust_coefficient=0.01)


def test_one_cycle_turns_the_momentum_of_lars() -> None:
    rule = Optimizer(name="lars", schedule="one_cycle", peak=4)
    assert rule.at(0, 100)["momentum"] == pytest.approx(0.95)
    assert min(rule.at(step, 100)["momentum"] for step in range(100)) == pytest.approx(0.85, abs=1e-3)
