"""A generator's random input: one seeded row an image, and the way from one row to another."""

from __future__ import annotations

import torch
from torch import Tensor

from trabecula.random_numbers import mix

_PARALLEL = 1e-6  # rad; below it two directions are one


def latents(rows: range, length: int, seed: int) -> Tensor:
    """(len(rows), length) standard normal; row i is a function of (seed, i) alone.

    One call of torch's generator for all rows would not do: its last numbers change with their count.
    """
    seeded = (torch.Generator().manual_seed(mix(seed, "latent", row)) for row in rows)
    made = [torch.randn(length, generator=generator) for generator in seeded]
    return torch.stack(made) if made else torch.empty(0, length)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation from a (t = 0) to b (t = 1), any shape with the latent as last dimension.

    The direction turns at constant speed along the great circle (Shoemake 1985, section 3.3) and the
    norm goes linearly from one to the other. A straight line would pass below the shell on which nearly
    all of a Gaussian lies: half-way between two of its draws the norm is sqrt(1/2) of theirs.

    Raises:
        ValueError: opposite directions, between which there is no one shortest way, or a zero vector.
    """
    norm_a, norm_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    if not (norm_a.all() and norm_b.all()):
        raise ValueError("a zero vector has no direction")
    start, end = a / norm_a, b / norm_b
    # Of the half-angle's two formulas this one is exact for small angles and for large ones alike.
    across, along = (part.norm(dim=-1, keepdim=True) for part in (start - end, start + end))
    angle = 2 * torch.atan2(across, along)
    if bool((angle > torch.pi - 1e-3).any()):
        raise ValueError("opposite directions have no one shortest way between them")
    sine, near = torch.sin(angle), angle < _PARALLEL
    weight_a = torch.where(near, torch.full_like(angle, 1 - t), torch.sin((1 - t) * angle) / sine)
    weight_b = torch.where(near, torch.full_like(angle, t), torch.sin(t * angle) / sine)
    walked: Tensor = (weight_a * start + weight_b * end) * ((1 - t) * norm_a + t * norm_b)
    return walked
