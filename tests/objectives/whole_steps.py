"""One whole step of an objective beside one written from its paper: losses, gradients, state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import Stream
from trabecula.nets.encoder import make_encoder
from trabecula.objectives import find
from trabecula.objectives.objective import Batches, Objective, Setting, Steps, Update

BATCH = 8
RATE = 0.01  # of the plain gradient descent between two updates

Plain = Callable[[Any, Batches, float], Steps]
"""A step written out: (an objective, for its nets and settings alone; batches; progress)."""

VIEWS = {
    "views_a": {"crop_scale": (0.5, 0.8), "rotate": 20, "blur": 1.0, "intensity": 0},
    "views_b": {"crop_scale": (0.3, 0.9), "rotate": 0, "blur": 0, "intensity": 1.0, "solarize": 0.5},
}
"""Two kinds of views that nobody takes for each other."""


def make(name: str, store: Store, architecture: str, **settings: Any) -> tuple[Objective, Stream]:
    method = find(name)
    encoder = make_encoder(architecture, store.channels, store.size, seed=0)
    config = build(method.Config, {**method.tiny, **settings}, name)
    labels = {"labels": np.arange(len(store)) % 3} if "labels" in method.fields else {}
    objective = method(config, encoder, Setting(len(store), BATCH, 1)).train()
    return objective, Stream(store, np.arange(len(store)), BATCH, 2, fields=labels)


def check_steps(objective: Objective, stream: Stream, plain: Plain, progress: Iterable[float]) -> None:
    """A step for each progress, of the objective and of its twin that moves by `plain`."""
    twin = copy.deepcopy(objective)
    for number, spent in enumerate(progress):
        first = number * objective.batches
        drawn = [[stream.batch(first + i) for i in range(objective.batches)] for _ in range(2)]
        ours = _drive(objective, objective.step(drawn[0], spent))
        theirs = _drive(twin, plain(twin, drawn[1], spent))
        assert [group for group, _, _ in ours] == [group for group, _, _ in theirs]
        for (group, loss, grads), (_, expected, wanted) in zip(ours, theirs, strict=True):
            torch.testing.assert_close(loss, expected, rtol=2e-5, atol=1e-6)
            noise = 1e-5 * max(float(grad.abs().max()) for grad in wanted.values())
            for weight, grad in grads.items():
                _same(grad, wanted[weight], 5e-3, noise, f"{group}: gradient of {weight} in step {number}")
        before, after = objective.state_dict(), twin.state_dict()
        for key, value in before.items():
            _same(value, after[key], 1e-3, 1e-6, f"{key} after step {number}")


def _drive(objective: Objective, steps: Iterable[Update]) -> list[tuple[str, Tensor, dict[str, Tensor]]]:
    """Each update's group, loss and gradients; the group's weights move a little against them."""
    names = {id(weight): name for name, weight in objective.named_parameters()}
    groups, found = objective.groups(), []
    for update in steps:
        weights = groups[update.group].weights
        grads = torch.autograd.grad(update.loss, weights, materialize_grads=True, allow_unused=True)
        with torch.no_grad():
            for weight, grad in zip(weights, grads, strict=True):
                weight.sub_(RATE * grad)
        by_name = {names[id(weight)]: grad for weight, grad in zip(weights, grads, strict=True)}
        found.append((update.group, update.loss.detach(), by_name))
    return found


def _same(value: Tensor, wanted: Tensor, part: float, noise: float, what: str) -> None:
    """Equal up to a part of the largest of them, and to noise."""
    value, wanted = value.double(), wanted.double()
    error, size = float((value - wanted).abs().max()), float(wanted.abs().max())
    assert error <= part * size + noise, f"{what}: off by {error:.2g} of {size:.2g}"


@torch.no_grad()
def disturb(net: nn.Module, seed: int = 0, size: float = 0.02) -> None:
    """Move every weight at random, as of an average that lags behind."""
    generator = torch.Generator().manual_seed(seed)
    for weight in net.parameters():
        weight.add_(size * torch.randn(weight.shape, generator=generator))


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, decay: float) -> None:
    """theta' <- decay theta' + (1 - decay) theta."""
    for mean, weight in zip(average.parameters(), net.parameters(), strict=True):
        mean.copy_(decay * mean + (1 - decay) * weight)
