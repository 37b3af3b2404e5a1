"""Optimizers and learning-rate schedules, as settings of an objective."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from trabecula.config import Record

# torch.optim.lr_scheduler.OneCycleLR's own defaults.
_RISE = 0.3  # part of the budget
_FIRST, _LAST = 25.0, 1e4  # peak / first rate, first rate / last rate
_MOMENTUM = (0.95, 0.85)  # at the ends, at the peak


class Optimizer(Record):
    """How one group of weights moves."""

    name: Literal["adam", "adamw", "sgd", "rmsprop", "lars"] = "adam"
    """The rule. SGD and LARS use `momentum`, the Adams use `betas`; RMSProp decays its squares by 0.99."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate at its highest."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates."""
    beta2_end: float | None = Field(None, ge=0, lt=1)
    """What Adam's second decay rate goes to over the budget, along half a cosine; none: it stays."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD and LARS."""
    trust_coefficient: float = Field(0.001, gt=0)
    """Of LARS: a layer's update is scaled to this part of the layer's own norm before the rate applies;
    biases and norm scales are not (You et al. 2017, arXiv 1708.03888)."""
    weight_decay: float = Field(0.0, ge=0)
    """L2 penalty (SGD, Adam, LARS) or decoupled decay (AdamW)."""
    decay_vectors: bool = True
    """Whether biases and norm scales (1-D weights) decay too."""
    vector_lr: float = Field(1.0, gt=0)
    """Rate of biases and norm scales (1-D weights) as a multiple of `lr`."""
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    """The rate over the budget: unchanged, half a cosine down to `end`, or one cycle (Smith and Topin 2017,
    arXiv 1708.07120, as torch has it): up from 1/25 of the peak over 30 % of the budget, then down to
    1/250,000 of it, while momentum, or Adam's first beta, goes from 0.95 to 0.85 and back."""
    end: float = Field(0.0, ge=0, le=1)
    """What the half cosine ends at, as a part of the rate."""
    peak: float = Field(1.0, gt=0)
    """Of one_cycle: its highest rate as a multiple of `lr`."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Part of the budget over which the rate rises linearly from 0; one_cycle has its own rise."""
    clip_norm: float | None = Field(None, gt=0)
    """Scale the group's gradient down to this norm; none by default."""
    clip_value: float | None = Field(None, gt=0)
    """Cut each gradient value to +- this; none by default."""

    def make(self, weights: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimizer over these weights, in its kernel that reads each of them once.

        Each of its groups says in "lr_scale" by what the rate of a step is to be multiplied.
        """
        apart = not self.decay_vectors or self.vector_lr != 1
        vectors = [w for w in weights if w.ndim <= 1 and apart]
        others = [w for w in weights if w.ndim > 1 or not apart]
        decay, scale = self.weight_decay if self.decay_vectors else 0.0, self.vector_lr
        groups = [
            {"params": others, "weight_decay": self.weight_decay, "lr": self.lr, "lr_scale": 1.0},
            {"params": vectors, "weight_decay": decay, "lr": self.lr * scale, "lr_scale": scale},
        ]
        groups = [group for group in groups if group["params"]]
        if self.name == "lars":
            return Lars(groups, self.lr, self.momentum, trust_coefficient=self.trust_coefficient)
        if self.name == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, fused=True)
        if self.name == "rmsprop":
            return torch.optim.RMSprop(groups, lr=self.lr)
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return kind(groups, lr=self.lr, betas=self.betas, fused=True)

    @model_validator(mode="after")
    def _one_rise(self) -> Self:
        if self.schedule == "one_cycle" and self.warmup:
            raise ValueError("one_cycle rises by itself: leave 'warmup' out, or choose another schedule")
        if self.schedule == "one_cycle" and self.name == "rmsprop":
            raise ValueError("one_cycle cycles a momentum, rmsprop has none: choose sgd, lars, adam or adamw")
        if self.schedule != "one_cycle" and self.peak != 1:
            raise ValueError(f"'peak' belongs to schedule one_cycle, not to {self.schedule}")
        if self.name != "lars" and self.trust_coefficient != 0.001:
            raise ValueError(f"'trust_coefficient' belongs to lars, not to {self.name}")
        if self.beta2_end is not None and self.name not in ("adam", "adamw"):
            raise ValueError(f"'beta2_end' belongs to adam and adamw, not to {self.name}")
        return self

    def at(self, step: int, num_steps: int, lr_scale: float = 1.0) -> dict[str, Any]:
        """What a step of the torch optimizer uses: "lr", and where they change "momentum" or "betas".

        step: from 0; num_steps: of the whole budget; lr_scale: of the group of weights.
        """
        beta2 = self.betas[1]
        if self.beta2_end is not None:
            beta2 = _between(beta2, self.beta2_end, step / num_steps)
        if self.schedule != "one_cycle":
            lr = lr_scale * self.rate(step / num_steps)
            return {"lr": lr} if self.beta2_end is None else {"lr": lr, "betas": (self.betas[0], beta2)}
        highest = self.lr * self.peak
        first, last = highest / _FIRST, highest / _FIRST / _LAST
        top, end = _RISE * num_steps - 1, num_steps - 1
        if step <= top:
            t = step / top
            lr, momentum = _between(first, highest, t), _between(*_MOMENTUM, t)
        else:
            t = (step - top) / (end - top)
            lr, momentum = _between(highest, last, t), _between(_MOMENTUM[1], _MOMENTUM[0], t)
        if self.name in ("sgd", "lars"):
            return {"lr": lr_scale * lr, "momentum": momentum}
        return {"lr": lr_scale * lr, "betas": (momentum, beta2)}

    def rate(self, progress: float) -> float:
        """The learning rate when `progress` (0 to 1) of the budget is spent; not of one_cycle."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        if self.schedule == "constant":
            return self.lr
        rest = (progress - self.warmup) / (1 - self.warmup)
        return self.lr * (self.end + (1 - self.end) * (1 + math.cos(math.pi * rest)) / 2)


def _between(start: float, end: float, t: float) -> float:
    """Half a cosine from start (t = 0) to end (t = 1)."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * t))


class Lars(torch.optim.Optimizer):
    """LARS: gradient descent in which each layer moves in proportion to its own size.

    v <- momentum v + r (g + weight_decay w);  w <- w - lr v.

    You, Gitman, Ginsburg 2017, arXiv 1708.03888, algorithm 1, in the form of the official code of Barlow
    Twins and VICReg: the trust ratio is taken of the gradient with its weight decay, it is inside the
    momentum, and biases and norm scales (1-D weights) move as under plain SGD.

    r = trust_coefficient |w| / |g + weight_decay w| of each matrix or kernel; 1 of vectors and scalars, and
    where either norm is zero.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "trust_coefficient": trust_coefficient})

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
            size, push = (torch.stack(torch._foreach_norm(values)) for values in (weights, updates))
            ratios = torch.where((size > 0) & (push > 0), group["trust_coefficient"] * size / push, 1.0)
            torch._foreach_mul_(updates, ratios.unbind())
        for w in weights:
            if not self.state[w]:
                self.state[w]["momentum_buffer"] = torch.zeros_like(w)
        buffers = [self.state[w]["momentum_buffer"] for w in weights]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(weights, buffers, alpha=-group["lr"])
