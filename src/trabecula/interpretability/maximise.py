"""The image that a critic takes for the most real: found by gradient ascent from noise.

den Boer 2025, section 5.2 and figure 5: such an image shows what a critic responds to, and what it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trabecula.errors import RunError
from trabecula.nets.latent import latents


@dataclass(frozen=True)
class Climb:
    """From noise to the highest score found."""

    images: Tensor  # (B, C, S, S) in [-1, 1], at each start's highest score
    scores: Tensor  # (steps + 1, B), before the first step and after each
    best: Tensor  # (B,) the steps at which `images` were met


def noise_images(num: int, channels: int, size: int, seed: int) -> Tensor:
    """(num, channels, size, size) in [-1, 1]: uniform noise, image i a function of (seed, i)."""
    normal = latents(range(num), channels * size * size, seed)
    uniform: Tensor = 2 * torch.special.ndtr(normal) - 1
    return uniform.view(num, channels, size, size)


def maximise(critic: Callable[[Tensor], Tensor], start: Tensor, steps: int, rate: float) -> Climb:
    """Climb the critic's score by Adam from (B, C, S, S) in [-1, 1]; a RunError if it is not finite.

    Each pixel is clamped to [-1, 1]: so the ascent can reach the box's faces, where a piecewise linear critic
    has its maximum; through a tanh it never would. `rate` is about how far a pixel moves in one step.
    """
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=rate, maximize=True)
    best = start.clone()
    highest = torch.full((len(start),), -torch.inf, device=start.device)
    at = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    climb = []
    for step in range(steps + 1):
        scores = critic(x)
        if not scores.isfinite().all():
            raise RunError("the critic's score is not finite; its training diverged, use an earlier one")
        climb.append(scores.detach().clone())
        higher = climb[-1] > highest
        with torch.no_grad():
            best[higher] = x[higher]
            highest[higher], at[higher] = climb[-1][higher], step
        if step == steps:
            break
        (x.grad,) = torch.autograd.grad(scores.sum(), x)
        optimizer.step()
        with torch.no_grad():
            x.clamp_(-1, 1)
    return Climb(best, torch.stack(climb), at)
