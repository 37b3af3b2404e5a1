"""The order of a path's strengths and the starts of their solutions."""

from __future__ import annotations

import pytest
import torch

from trabecula.transfer import logistic
from trabecula.transfer.logistic import Problem, solve


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 9, 50])
@pytest.mark.parametrize("most", [1, 3, 13])
def test_every_strength_is_in_one_lot(count: int, most: int) -> None:
    lots = list(logistic.lots(count, most))
    assert sorted(i for lot in lots for i in lot) == list(range(count))
    assert all(0 < len(lot) <= most for lot in lots)


def test_starts_follow_a_quintic_between_and_a_line_beyond() -> None:
    log = torch.linspace(-3, 4, 25, dtype=torch.float64)
    quintic = (log**5 - 4 * log**3 + log)[None, :, None, None]
    line = (2 * log + 1)[None, :, None, None]
    between = logistic.start(quintic, log, [0, 4, 8, 12, 16, 20], [2, 9, 18])
    torch.testing.assert_close(between, quintic[:, [2, 9, 18]])
    beyond = logistic.start(line, log, [0, 4], [8, 12])
    torch.testing.assert_close(beyond, line[:, [8, 12]])


def test_a_far_extrapolation_stays_at_the_nearest_solution() -> None:
    log = torch.tensor([0.0, 1e-6, 5.0], dtype=torch.float64)
    points = torch.tensor([1.0, 1.1, 0.0], dtype=torch.float64)[None, :, None, None]
    assert float(logistic.start(points, log, [0, 1], [2])) == pytest.approx(1.1)


def test_a_strength_may_come_twice() -> None:
    g = torch.Generator().manual_seed(0)
    p = Problem(torch.randn(30, 6, generator=g), torch.arange(30) % 3, 3)
    (path,) = solve([p], [1.0, 0.1, 1.0])
    assert bool(path.converged.all())
    torch.testing.assert_close(path.coefficients[0], path.coefficients[2], rtol=0, atol=0)
    assert float(path.objectives[1]) != float(path.objectives[0])
