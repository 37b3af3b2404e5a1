"""Conjugate gradients against a dense solver, and what the preconditioner is there for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trabecula.transfer.conjugate_gradients import Preconditioner, inverse_correlations, solve, zero_sum

K, N, R = 4, 60, 21


def system(penalty: float, absent: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Design (1, N, R), probabilities (1, 1, K, N), Hessian (K R, K R) and shares of one problem."""
    g = torch.Generator().manual_seed(0)
    design = torch.randn(1, N, R, generator=g, dtype=torch.float64)
    design *= torch.logspace(-1, 1, R, dtype=torch.float64)
    design[..., -1] = 1.0
    logits = 0.3 * torch.randn(K, R, generator=g, dtype=torch.float64) @ design[0].T
    share = torch.full((1, 1, K, 1), 1 / K, dtype=torch.float64)
    if absent:
        logits[1] = -torch.inf
        share = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)[None, None, :, None] / 3
    p = logits.softmax(0)
    weights = torch.diag_embed(p.T) - p.T[:, :, None] * p.T[:, None]  # (N, K, K)
    hessian = torch.einsum("nr,nkl,ns->krls", design[0], weights, design[0]).reshape(K * R, K * R)
    ridge = torch.full((K, R), penalty, dtype=torch.float64)
    ridge[:, -1] = 0.0
    return design, p[None, None], hessian + torch.diag(ridge.flatten()), share


def times(hessian: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda v: (v.flatten(2) @ hessian).view(v.shape)


def preconditioners(penalty: float, absent: bool = False) -> tuple[Preconditioner, Preconditioner, Tensor]:
    design, p, hessian, share = system(penalty, absent)
    diagonal = hessian.diagonal().view(1, 1, K, R)
    root = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
    inverse = inverse_correlations(design, (p * (1 - p))[:, 0], torch.tensor(penalty))
    return Preconditioner(root, share, None), Preconditioner(root, share, inverse), hessian


def target(share: Tensor) -> Tensor:
    right = torch.randn(1, 1, K, R, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return zero_sum(right * (share > 0), share)


def test_the_solution_is_that_of_a_dense_solver() -> None:
    for absent in (False, True):
        for precondition in preconditioners(0.1, absent)[:2]:
            hessian, share = preconditioners(0.1, absent)[2], precondition.share
            right = target(share)
            none = torch.zeros(1, 1, dtype=torch.bool)
            move, _ = solve(times(hessian), precondition, right, torch.full((1, 1), 1e-9).double(), none)
            # without curvature along equal intercepts, the dense solution is the shortest
            exact = torch.linalg.lstsq(hessian, right.flatten(), driver="gelsd").solution.view(move.shape)
            torch.testing.assert_close(move, exact, rtol=1e-6, atol=1e-7)


def test_correlations_save_steps() -> None:
    jacobi, correlated, hessian = preconditioners(1e-3)
    right, none = target(jacobi.share), torch.zeros(1, 1, dtype=torch.bool)
    forcing = torch.full((1, 1), 1e-4, dtype=torch.float64)
    counts = [solve(times(hessian), each, right, forcing, none)[1] for each in (jacobi, correlated)]
    assert counts[1] < 0.5 * counts[0]


def test_it_is_symmetric_and_positive_where_moves_sum_to_zero() -> None:
    jacobi, correlated, _ = preconditioners(0.1)
    basis = torch.eye(K * R, dtype=torch.float64).view(-1, 1, K, R)
    centred = zero_sum(basis, jacobi.share)
    for each in (jacobi, correlated):
        rows = [zero_sum(each(row[None]), each.share).flatten() for row in centred]
        matrix = torch.stack(rows)
        torch.testing.assert_close(matrix, matrix.T)
        assert int((torch.linalg.eigvalsh(matrix) > 1e-9).sum()) == (K - 1) * R


def test_constant_and_repeated_axes_have_an_inverse() -> None:
    design, p, _, _ = system(0.1)
    design[..., 3] = 0.0
    design[..., 5] = design[..., 6]
    inverse = inverse_correlations(design.float(), (p * (1 - p))[:, 0].float(), torch.tensor(0.0))
    assert bool(inverse.isfinite().all())


def test_an_idle_system_does_not_move() -> None:
    jacobi, _, hessian = preconditioners(0.1)
    right = target(jacobi.share)
    move, _ = solve(times(hessian), jacobi, right, torch.full((1, 1), 0.1).double(), torch.ones(1, 1).bool())
    assert float(move.abs().max()) == 0.0
