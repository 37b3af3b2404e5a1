"""The optimizers move weights as torch's plain loops do."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import nn

from trabecula.objectives.optim import Optimizer

Name = Literal["adam", "adamw", "sgd"]


@pytest.mark.parametrize(
    ("name", "plain", "settings"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.9}),
        ("adam", torch.optim.Adam, {"betas": (0.5, 0.9)}),
        ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.999)}),
    ],
)
def test_steps_are_those_of_the_plain_rule(
    name: Name, plain: type[torch.optim.Optimizer], settings: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    ours = [
        nn.Parameter(torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)),
        nn.Parameter(torch.ones(8)),
    ]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    mine = Optimizer(name=name, lr=0.1, weight_decay=0.01, **settings).make(ours)
    other = plain(theirs, lr=0.1, weight_decay=0.01, fused=False, foreach=False, **settings)  # type: ignore[call-arg]
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = (
                torch.randn(a.shape).to(memory_format=torch.channels_last)
                if a.ndim == 4
                else a.detach().sin()
            )
            b.grad = a.grad.clone()
        mine.step()
        other.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
