"""Rank and spread of features: closed forms, invariances, and collapses of each kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trabecula.metrics.feature_quality import effective_rank, rankme, spread


@pytest.mark.parametrize("r", [1, 3, 8])
def test_r_equal_directions_have_rank_r(r: int) -> None:
    """Plus and minus each of r axes: centred already, r equal singular values."""
    features = np.concatenate([np.eye(r, 12), -np.eye(r, 12)])
    assert effective_rank(features) == pytest.approx(r, rel=1e-6)
    assert rankme(features) == pytest.approx(r, rel=1e-4)


def test_singular_values_in_the_ratio_of_two_to_one() -> None:
    """p = 2/3, 1/3: exp(entropy) = 3 / 2^(2/3)."""
    features = np.diag([2.0, 1.0]) @ np.eye(2, 5)
    features = np.concatenate([features, -features])
    assert effective_rank(features) == pytest.approx(3 / 2 ** (2 / 3), rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 40))
def test_both_ranks_are_those_of_an_svd(seed: int, n: int, d: int) -> None:
    features = np.random.default_rng(seed).normal(2, 1, (n, d))
    for rank, matrix, extra in (
        (effective_rank(features), features - features.mean(0), 0.0),
        (rankme(features), features, 1e-7),
    ):
        values = np.linalg.svd(matrix, compute_uv=False)
        values = values[values > 1e-9 * np.linalg.norm(features)]
        parts = values / values.sum() + extra
        # Equation 1 adds its epsilon to the zeros too: min(n, d) against n of them, 1e-7 each.
        assert rank == pytest.approx(np.exp(-(parts * np.log(parts)).sum()), rel=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_scale_and_rotation_change_nothing(seed: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    features = generator.normal(0.5, 1, (20, 6))
    turn, _ = np.linalg.qr(generator.normal(size=(6, 6)))
    assert effective_rank(scale * features @ turn) == pytest.approx(effective_rank(features), rel=1e-6)
    assert spread(scale * features) == pytest.approx(spread(features), rel=1e-6)


def test_a_mean_is_no_direction() -> None:
    """RankMe counts it, and with it far out sees little else."""
    features = np.random.default_rng(0).normal(size=(64, 16))
    assert effective_rank(features + 50) == pytest.approx(effective_rank(features), rel=1e-6)
    assert rankme(features + 50) < 3 < 10 < rankme(features)


def test_features_without_order_spread_by_one() -> None:
    """Unit vectors in all directions: standard deviation 1 / sqrt(d) in each dimension."""
    features = np.random.default_rng(0).normal(size=(2000, 32))
    assert spread(features) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("value", [1.0, 0.3333, 0.0])
def test_features_that_are_all_the_same_have_neither(value: float) -> None:
    features = np.full((50, 24), value, np.float32)
    assert effective_rank(features) == 0
    assert spread(features) == pytest.approx(0, abs=1e-6)


def test_rounding_is_no_direction() -> None:
    noise = np.random.default_rng(0).normal(size=(50, 24)).astype(np.float32)
    assert effective_rank(1 + 1e-8 * noise) == 0
