"""LARS: gradient descent in which each layer moves in proportion to its own size.

You, Gitman, Ginsburg 2017, arXiv 1708.03888, algorithm 1, in the form of the official code of Barlow Twins
and VICReg: the trust ratio is taken of the gradient with its weight decay, it stands inside the momentum,
and biases and norm scales (1-D weights) move as under plain SGD.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Lars(torch.optim.Optimizer):
    """v <- momentum v + r (g + weight_decay w);  w <- w - lr v.

    r = trust_coefficient |w| / |g + weight_decay w| of each matrix or kernel; 1 of vectors and scalars, and
    where either norm is zero.

    Args:
        params: weights, or groups of them with settings of their own, as torch takes them.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        settings = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Move every weight that has a gradient; the gradients stay as they are."""
        for group in self.param_groups:
            moving = [w for w in group["params"] if w.grad is not None]
            for adapted in (True, False):
                weights = [w for w in moving if (w.ndim > 1) == adapted]
                if weights:
                    self._move(weights, group, adapted)

    def _move(self, weights: list[Tensor], group: dict[str, Any], adapted: bool) -> None:
        grads = [w.grad for w in weights]
        updates = torch._foreach_add(grads, weights, alpha=group["weight_decay"])  # type: ignore[arg-type]
        if adapted:
            ratios = _trust(weights, updates, group["trust_coefficient"])
            torch._foreach_mul_(updates, ratios.unbind())
        for w in weights:
            if not self.state[w]:
                self.state[w]["momentum_buffer"] = torch.zeros_like(w)
        buffers = [self.state[w]["momentum_buffer"] for w in weights]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(weights, buffers, alpha=-group["lr"])


def _trust(weights: list[Tensor], updates: tuple[Tensor, ...], coefficient: float) -> Tensor:
    """(len(weights),): by how much each layer's update is multiplied."""
    size = torch.stack(torch._foreach_norm(weights))
    push = torch.stack(torch._foreach_norm(updates))
    return torch.where((size > 0) & (push > 0), coefficient * size / push, 1.0)
