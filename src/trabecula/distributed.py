"""Several processes that train as one.

Gradients are averaged by hand instead of by a wrapper, because penalties differentiate twice.
Everything here is the identity in a single process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _all_reduced(value: Tensor) -> Tensor:
    summed = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed


class _Sum(torch.autograd.Function):
    """Sum over ranks; backward sums too, since every rank's loss depends on every rank's input."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004
        return _all_reduced(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        return _all_reduced(grads[0])


def total(value: Tensor) -> Tensor:
    """Sum over ranks, with the gradient that belongs to it."""
    return value if world_size() == 1 else _Sum.apply(value)


def any_rank(said: bool, device: torch.device) -> bool:
    """Whether one rank or more says so: what ends work must end it on all of them after the same step."""
    return said if world_size() == 1 else bool(_all_reduced(torch.tensor(float(said), device=device)))


def gather_rows(rows: Tensor) -> Tensor:
    """(B, ...) on each rank to (B * ranks, ...) in the order of the global batch; no gradient."""
    if world_size() == 1:
        return rows.detach()
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def all_rows(rows: Tensor) -> Tensor:
    """(B, ...) on each rank to (B * ranks, ...) in the order of the global batch, with its gradient.

    Each rank then computes the loss of the global batch; the mean of the ranks' gradients is that loss's own.
    """
    if world_size() == 1:
        return rows
    num_rows = len(rows) * world_size()
    mine, blank = my_rows(num_rows), rows.new_zeros(num_rows, *rows.shape[1:])
    return total(blank.slice_scatter(rows, 0, mine.start, mine.stop))


def my_rows(num_rows: int) -> slice:
    """This rank's part of a global batch."""
    part = num_rows // world_size()
    return slice(rank() * part, (rank() + 1) * part)


def average_gradients(weights: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its mean over ranks."""
    if world_size() == 1:
        return
    grads = [w.grad for w in weights if w.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= world_size()
    for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))
