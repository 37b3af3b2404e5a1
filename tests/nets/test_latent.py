"""Random inputs of a generator: one row an image, and the way between two on the sphere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trabecula.nets.latent import latents, slerp


def test_a_row_is_a_function_of_the_seed_and_its_number() -> None:
    """Plain randn gives other last rows where their number changes (its last 16 values are drawn anew)."""
    many = latents(range(23), 100, seed=3)
    for start, stop in ((0, 1), (0, 5), (7, 8), (4, 23)):
        assert torch.equal(latents(range(start, stop), 100, seed=3), many[start:stop])
    assert not torch.equal(latents(range(23), 100, seed=4), many)
    assert len(torch.unique(many)) == many.numel()
    assert latents(range(0), 7, 0).shape == (0, 7)


def test_rows_are_standard_normal_and_independent() -> None:
    values = latents(range(2000), 16, seed=0).double().numpy()
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(values.T) - np.eye(16)).max() < 0.1
    assert np.abs((values[1:] * values[:-1]).mean()) < 0.02


def angle(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.acos(float(torch.clamp(a @ b / (a.norm() * b.norm()), -1, 1)))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), t=st.floats(0, 1), length=st.integers(2, 128))
def test_slerp_turns_at_constant_speed_and_changes_its_norm_evenly(seed: int, t: float, length: int) -> None:
    a, b = latents(range(2), length, seed).double()
    between = slerp(a, b, t)
    whole = angle(a, b)
    assert angle(a, between) == pytest.approx(t * whole, abs=1e-6)
    assert angle(between, b) == pytest.approx((1 - t) * whole, abs=1e-6)
    assert float(between.norm()) == pytest.approx(float((1 - t) * a.norm() + t * b.norm()))
    assert torch.allclose(between, slerp(b, a, 1 - t), atol=1e-9)


def test_slerp_by_hand() -> None:
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])
    half = slerp(a, b, 0.5)
    assert torch.allclose(half, torch.tensor([1.0, 1.0]) * 3 / math.sqrt(2))
    assert torch.allclose(slerp(a, b, 0.0), a)
    assert torch.allclose(slerp(a, b, 1.0), b)


def test_slerp_stays_on_the_shell_that_a_straight_line_leaves() -> None:
    a, b = latents(range(200), 100, 0), latents(range(200, 400), 100, 0)
    shell = math.sqrt(100)
    assert float(slerp(a, b, 0.5).norm(dim=1).mean()) == pytest.approx(shell, rel=0.02)
    assert float(((a + b) / 2).norm(dim=1).mean()) == pytest.approx(shell / math.sqrt(2), rel=0.02)


def test_slerp_of_near_parallel_and_impossible_pairs() -> None:
    a = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.allclose(slerp(a, a, 0.3), a)
    assert torch.allclose(slerp(a, 3 * a, 0.5), 2 * a)
    nearly = a * (1 + 1e-7)
    assert slerp(a, nearly, 0.5).isfinite().all()
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -a, 0.5)
    with pytest.raises(ValueError, match="zero"):
        slerp(a, 0 * a, 0.5)
