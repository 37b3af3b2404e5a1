"""Schedules step by step against torch's own."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.optim import lr_scheduler

from trabecula.objectives.optim import Optimizer


def followed(ours: Optimizer, scheduler: str, steps: int, **options: object) -> list[tuple[float, ...]]:
    """(rate, momentum or first beta) of each step under a scheduler of torch."""
    optimizer = ours.make([torch.nn.Parameter(torch.zeros(2, 2))])
    theirs = getattr(lr_scheduler, scheduler)(optimizer, **options)
    values = []
    for _ in range(steps):
        group = optimizer.param_groups[0]
        values.append((group["lr"], group["momentum"] if "momentum" in group else group["betas"][0]))
        optimizer.step()
        theirs.step()
    return values


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("steps", [2, 7, 10, 41, 300])
def test_one_cycle_is_torch_s(name: str, steps: int) -> None:
    ours = Optimizer(name=name, lr=3e-3, peak=4, schedule="one_cycle", momentum=0.5, betas=(0.5, 0.9))
    expected = followed(ours, "OneCycleLR", steps, max_lr=4 * 3e-3, total_steps=steps)
    told = [ours.at(step, steps) for step in range(steps)]
    assert [values["lr"] for values in told] == pytest.approx([lr for lr, _ in expected], rel=1e-12)
    cycled = [values["momentum"] if name == "sgd" else values["betas"][0] for values in told]
    assert cycled == pytest.approx([momentum for _, momentum in expected], rel=1e-12)
    if name != "sgd":
        assert {values["betas"][1] for values in told} == {0.9}
    if steps >= 10:
        assert max(values["lr"] for values in told) == pytest.approx(4 * 3e-3, rel=0.02)
        assert told[-1]["lr"] == pytest.approx(4 * 3e-3 / 25 / 1e4)


def test_cosine_is_torch_s() -> None:
    ours = Optimizer(name="sgd", lr=0.2, schedule="cosine")
    expected = followed(ours, "CosineAnnealingLR", 30, T_max=30)
    assert [ours.at(step, 30)["lr"] for step in range(30)] == pytest.approx([lr for lr, _ in expected])


def test_warm_up_is_linear_then_the_schedule_goes_on() -> None:
    """torch's own way: a LinearLR that starts near 0, then cosine over the rest."""
    ours = Optimizer(name="sgd", lr=0.2, schedule="cosine", warmup=0.2)
    optimizer = ours.make([torch.nn.Parameter(torch.zeros(2, 2))])
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1e-9, total_iters=10)
    rest = lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    theirs = lr_scheduler.SequentialLR(optimizer, [rise, rest], milestones=[10])
    for step in range(50):
        assert ours.at(step, 50)["lr"] == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-8)
        optimizer.step()
        theirs.step()


def test_warm_up_starts_at_nothing_as_the_official_codes_and_a_step_later_than_lightly_s() -> None:
    """Golden values of lightly's scheduler, 10 of 100 steps; its cosine ends a step early, at `end`."""
    from lightly.utils.scheduler import cosine_warmup_schedule

    golden = {0: 0.1, 1: 0.2, 9: 1.0, 10: 1.0, 11: 0.999689, 55: 0.491685, 99: 0.001}
    theirs = [cosine_warmup_schedule(step, 100, 1.0, 0.001, 10, 0.0) for step in range(100)]
    for step, value in golden.items():
        assert theirs[step] == pytest.approx(value, abs=5e-7)
    rule = Optimizer(name="lars", lr=1.0, schedule="cosine", warmup=0.1, end=0.001)
    ours = [rule.at(step, 100)["lr"] for step in range(101)]
    assert ours[:10] == pytest.approx([0.0, *theirs[:9]])
    assert ours[10] == theirs[10] == 1
    assert ours[100] == pytest.approx(theirs[99])
    assert max(abs(a - b) for a, b in zip(ours[11:100], theirs[11:], strict=True)) < 0.02


def test_the_rate_reaches_the_weights() -> None:
    """One step of plain SGD moves a weight by rate times gradient."""
    ours = Optimizer(name="sgd", lr=1.0, schedule="one_cycle", momentum=0.0)
    weight = torch.nn.Parameter(torch.zeros(1, 1))
    optimizer = ours.make([weight])
    weight.grad = torch.ones(1, 1)
    for group in optimizer.param_groups:
        group.update(ours.at(0, 100))
    optimizer.step()
    assert weight.item() == pytest.approx(-1 / 25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "one_cycle", "warmup": 0.1}, "rises by itself"),
        ({"schedule": "cosine", "peak": 2}, "belongs to schedule one_cycle"),
        ({"schedule": "one_cycle", "name": "rmsprop"}, "rmsprop"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Optimizer(**settings)
