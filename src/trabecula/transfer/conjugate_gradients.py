"""Conjugate gradients for the Newton directions of many softmax regressions at once.

S subsets at P strengths, K classes and R coordinates; every pair (subset, strength) is a system of its
own. A preconditioner changes the number of steps, not the solution. This one starts from the
Hessian's diagonal and adds what the diagonal leaves out:

- Adding the same numbers to the weights of all classes changes no probability. The Hessian does not
  mix these directions with the others, the diagonal does; as no solution needs them, they are left out.
- Where images are fitted to different degrees, the principal axes are correlated within a class. The
  correlations of the leading axes change little along a path, so their inverse is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_LEADING = 96  # coordinates whose correlations are inverted, at most
_LEAST = 1e-5  # added to the correlations, which float32 may make singular
_MAX_STEPS = 500


@dataclass(frozen=True)
class Preconditioner:
    """An approximate inverse of the Hessian within the moves that sum to zero over the present classes."""

    root: Tensor  # (S, P, K, R): 1 / sqrt of the Hessian's diagonal
    share: Tensor  # (S, 1, K, 1): 1 / number of present classes, 0 for the absent ones
    inverse: Tensor | None  # (S * K, Q, Q): of the last Q coordinates' correlations

    def __call__(self, residual: Tensor) -> Tensor:
        scaled = residual * self.root
        if self.inverse is not None:
            S, P, K, _ = scaled.shape
            Q = self.inverse.shape[-1]
            leading = scaled[..., -Q:].transpose(1, 2).reshape(S * K, P, Q)
            scaled[..., -Q:] = torch.bmm(leading, self.inverse).view(S, K, P, Q).transpose(1, 2)
        return zero_sum(scaled.mul_(self.root), self.share)


def zero_sum(move: Tensor, share: Tensor) -> Tensor:
    """(S, P, K, R) without the part that all present classes share."""
    return move - share * move.sum(2, keepdim=True)


def inverse_correlations(design: Tensor, curvature: Tensor, penalty: Tensor) -> Tensor:
    """Inverse correlations (S * K, Q, Q), per class, of the last Q coordinates in the Hessian.

    Args:
        design: (S, n, R): axes in ascending order of variance, then the intercept.
        curvature: (S, K, n): weight of each image in each class's part of the Hessian.
        penalty: scalar, on all but the intercept.
    """
    leading = design[..., -_LEADING:]
    hessian = (leading.mT[:, None] @ (curvature[..., None] * leading[:, None])).flatten(0, 1)
    hessian.diagonal(dim1=1, dim2=2)[:, :-1] += penalty
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    root = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
    correlations = hessian * root[:, :, None] * root[:, None]
    identity = torch.eye(correlations.shape[-1], dtype=design.dtype, device=design.device)
    triangle, failed = torch.linalg.cholesky_ex(correlations + _LEAST * identity)
    # an absent class has no curvature: its row of the intercept is zero, and so are its residuals
    good = (failed == 0)[:, None, None]
    return torch.where(good, torch.cholesky_inverse(torch.where(good, triangle, identity)), identity)


def solve(
    product: Callable[[Tensor], Tensor], precondition: Preconditioner, target: Tensor, forcing: Tensor,
    idle: Tensor,
) -> tuple[Tensor, int]:  # fmt: skip
    """Solutions (S, P, K, R) of product(move) = target, and the number of products.

    Args:
        forcing: (S, P): how much smaller the residual is to be, in the preconditioner's norm.
        idle: (S, P): systems that need no solution.
    """
    move, residual = torch.zeros_like(target), target.clone()
    scaled = precondition(residual)
    direction = scaled.clone()
    energy = (residual * scaled).sum((2, 3))
    goal, active = energy * forcing.square(), ~idle
    count = 0
    while count < _MAX_STEPS:
        image = product(direction)
        count += 1
        curvature = (direction * image).sum((2, 3))
        active = active & (curvature > 0)
        alpha = torch.where(active, energy / torch.where(active, curvature, 1.0), 0.0)[..., None, None]
        move += alpha * direction
        residual -= alpha * image
        scaled = precondition(residual)
        new = (residual * scaled).sum((2, 3))
        active = active & (new > goal)
        if not bool(active.any()):
            break
        direction.mul_((new / torch.where(energy > 0, energy, 1.0))[..., None, None]).add_(scaled)
        energy = new
    return move, count
