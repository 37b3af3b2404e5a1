"""TRABECULA_KERNELS: a step with all kernels and one with torch's own operators are the same to rounding."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from trabecula.artifacts.store import Store
from trabecula.config import Record, build
from trabecula.data.batches import Stream
from trabecula.errors import InputError
from trabecula.kernels import NAMES, VARIABLE, conv, enabled, linear
from trabecula.nets.backbone import build_backbone
from trabecula.nets.critic import Critic
from trabecula.nets.encoder import make_encoder
from trabecula.nets.input_gradient import piecewise_linear
from trabecula.objectives import find
from trabecula.objectives.adversarial import Adversarial
from trabecula.objectives.objective import Setting
from trabecula.run import provenance

CALLED = ("matmul", "_kernel_product", "_patches")


@pytest.fixture
def all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are used for small layers too."""
    monkeypatch.setattr(linear, "_MANY", 0)


def never(*_: object) -> Tensor:
    raise AssertionError("a kernel was used")


def wgan_gp_gradients(store: Store) -> list[Tensor]:
    """Losses and gradients of both updates of a step."""
    method = find("wgan_gp")
    encoder = make_encoder("critic", store.channels, store.size, seed=0)
    config = build(method.Config, dict(method.tiny), "wgan_gp")
    objective = cast("Adversarial", method(config, encoder, Setting(len(store), 8, 1)))
    stream = Stream(store, np.arange(len(store)), 8, 2)
    found = []
    for update in objective.step([stream.batch(0)], 0.0):
        weights = objective.groups()[update.group].weights
        grads = torch.autograd.grad(update.loss, weights, allow_unused=True)
        found += [update.loss.detach(), *(grad for grad in grads if grad is not None)]
    return found


@pytest.mark.usefixtures("all_sizes")
def test_a_wgan_gp_step_is_the_same_without_kernels(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = wgan_gp_gradients(store)
    monkeypatch.setenv(VARIABLE, "off")
    for name in CALLED:
        monkeypatch.setattr(conv, name, never)
    theirs = wgan_gp_gradients(store)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.abs().max()) + 1e-7)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_backward_pass_of_convolutions_is_the_same_without_kernels(
    precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for value in ("on", "off"):
        monkeypatch.setenv(VARIABLE, value)
        if value == "off":
            monkeypatch.setattr(conv, "_kernel_product", never)
        torch.manual_seed(0)
        net = build_backbone("timm:resnet18", 1, 64).net
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            net(torch.rand(4, 1, 64, 64)).float().square().mean().backward()
        found.append([w.grad for w in net.parameters() if w.grad is not None])
    for a, b in zip(*found, strict=True):
        far = float((a - b).norm() / b.norm().clamp_min(1e-12))
        assert far < (1e-5 if precision == torch.float32 else 0.1)


def test_values_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, used in [
        ("", NAMES),
        ("on", NAMES),
        ("off", ()),
        ("convolution,linear", ("convolution", "linear")),
    ]:
        monkeypatch.setenv(VARIABLE, value)
        assert tuple(name for name in NAMES if enabled(name)) == used
    monkeypatch.setenv(VARIABLE, "0")
    with pytest.raises(InputError, match="TRABECULA_KERNELS: 0 is not a kernel; set on, off or names of"):
        enabled("linear")


def test_off_leaves_the_input_gradient_to_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    assert piecewise_linear(Critic(1, 32)) is not None
    monkeypatch.setenv(VARIABLE, "off")
    assert piecewise_linear(Critic(1, 32)) is None


def test_the_variable_is_part_of_a_runs_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, recorded in ((None, "on"), ("off", "off"), ("matmul,linear", "matmul,linear")):
        monkeypatch.delenv("TRABECULA_KERNELS", raising=False)
        if value:
            monkeypatch.setenv("TRABECULA_KERNELS", value)
        assert provenance(Record())["kernels"] == recorded
