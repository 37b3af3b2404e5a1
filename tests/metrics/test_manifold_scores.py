"""Precision, recall, density and coverage: golden values, and where other libraries differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import prdc
import pytest
import torch
from feature_sets import Floats, features
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_prc import prc_features_to_metric

from trabecula.errors import InputError
from trabecula.metrics.fidelity import manifold_scores


def peer_manifold(reals: Floats, fakes: Floats, k: int) -> list[float]:
    found = prdc.compute_prdc(reals, fakes, k)
    return [float(found[name]) for name in ("precision", "recall", "density", "coverage")]


def ours(reals: Floats, fakes: Floats, k: int, **given: Any) -> list[float]:
    found = manifold_scores(reals, fakes, k, **given)
    return [found.precision, found.recall, found.density, found.coverage]


LINE = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([[0.4], [10.0], [11.0]])


def test_four_reals_and_three_fakes_on_a_line() -> None:
    assert ours(*LINE, 1) == pytest.approx([1 / 3, 1, 2 / 3, 1 / 2])
    assert ours(*LINE, 1, dtype=np.float32) == pytest.approx([1 / 3, 1, 2 / 3, 1 / 2])


@pytest.mark.parametrize(("n", "m", "k"), [(200, 200, 5), (200, 100, 5), (100, 300, 3)])
@pytest.mark.parametrize("d", [1, 24])
def test_expected_density_and_coverage_of_one_distribution(n: int, m: int, k: int, d: int) -> None:
    """Coverage is 1 - prod (N - 1 - i) / (N + M - 1 - i) and density 1, for any law in any dimension."""
    expected = 1 - np.prod([(n - 1 - i) / (n + m - 1 - i) for i in range(k)])
    rng = np.random.default_rng(5)
    found = np.array([ours(rng.gamma(1.0, size=(n, d)), rng.gamma(1.0, size=(m, d)), k) for _ in range(60)])
    errors = found.std(axis=0) / np.sqrt(len(found))
    assert abs(found[:, 3].mean() - expected) < 4 * errors[3]
    assert abs(found[:, 2].mean() - 1) < 4 * errors[2]


def test_golden_coverages() -> None:
    for (n, m, k), value in {
        (200, 200, 5): 0.969916, (200, 100, 5): 0.871614, (100, 300, 3): 0.985073,
    }.items():  # fmt: skip
        assert 1 - np.prod([(n - 1 - i) / (n + m - 1 - i) for i in range(k)]) == pytest.approx(
            value, abs=1e-6
        )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_rule_of_ties(dtype: Any) -> None:
    x = features(32, 60, 20)
    assert ours(x, x.copy(), 5, dtype=dtype) == [1, 1, 1, 1]
    assert ours(x, x[::-1], 5, ties="weak", dtype=dtype) == pytest.approx([1, 1, 6 / 5, 1])
    far = x + 1000.0
    assert ours(x, far, 5, dtype=dtype) == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_generator_collapsed_on_one_real_image(dtype: Any) -> None:
    x = features(33, 60, 20)
    fakes = np.repeat(x[7:8], 60, axis=0)
    precision, recall, density, coverage = ours(x, fakes, 5, dtype=dtype)
    assert precision == 1
    assert recall == 0  # the fakes' balls have radius 0 and are open
    holds = np.array([np.sort(np.linalg.norm(x - r, axis=1))[5] > np.linalg.norm(x[7] - r) for r in x])
    assert density == pytest.approx(holds.sum() / 5)
    assert coverage == pytest.approx(holds.mean())
    assert ours(x, fakes, 5, ties="weak", dtype=dtype)[1] == pytest.approx(1 / 60)  # the copied real itself


def test_swapping_the_sets_swaps_precision_and_recall() -> None:
    x, y = features(34, 80, 6), 0.7 * features(35, 70, 6)
    one, other = ours(x, y, 4), ours(y, x, 4)
    assert one[0] > one[1]  # shrunk fakes: precise, and not diverse
    assert one[:2] == other[1::-1]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "m", "d", "k"), [(90, 70, 3, 1), (120, 120, 40, 5), (200, 60, 300, 3)])
def test_equals_prdc(n: int, m: int, d: int, k: int, dtype: Any) -> None:
    x, y = features(36, n, d), 0.9 * features(37, m, d) + 0.02
    assert ours(x, y, k, dtype=dtype) == pytest.approx(peer_manifold(x, y, k), abs=1e-12)


@pytest.mark.parametrize("k", [3, 5])
def test_precision_and_recall_equal_torch_fidelity(k: int) -> None:
    x, y = features(38, 120, 30), 0.9 * features(39, 110, 30)
    found = prc_features_to_metric(
        torch.from_numpy(y), torch.from_numpy(x), prc_neighborhood=k, verbose=False
    )
    assert ours(x, y, k, ties="weak")[:2] == pytest.approx([found["precision"], found["recall"]], abs=1e-7)


def test_the_smallest_sets_work_where_prdc_cannot_index_them() -> None:
    x, y = features(40, 6, 4), features(41, 6, 4)
    with pytest.raises(ValueError, match="out of bounds"):
        peer_manifold(x, y, 5)
    assert len(ours(x, y, 5)) == 4


def test_prdc_and_torch_fidelity_disagree_about_constant_sets_and_ours_says_why() -> None:
    x = np.ones((20, 8))
    assert peer_manifold(x, x, 5) == [0, 0, 0, 0]
    found = prc_features_to_metric(torch.from_numpy(x), torch.from_numpy(x), verbose=False)
    assert (found["precision"], found["recall"]) == (1, 1)
    with pytest.raises(InputError, match="all 20 real images have the same features"):
        manifold_scores(x, x)


@settings(max_examples=40, deadline=None)
@example(2071, 3, 1, "strict")  # shifted to the mean first, equal distances come apart
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 4), st.sampled_from(["strict", "weak"]))
def test_equals_the_definitions_on_grids_full_of_ties(seed: int, d: int, k: int, ties: Any) -> None:
    """Small whole numbers: every distance is exact, and many are equal."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 3, size=(9, d)).astype(float), rng.integers(0, 3, size=(8, d)).astype(float)
    x[0] = 7  # not all equal
    inside = np.less if ties == "strict" else np.less_equal
    cross = np.square(x[:, None] - y[None]).sum(axis=2)
    radii = []
    for z in (x, y):
        own = np.square(z[:, None] - z[None]).sum(axis=2)
        np.fill_diagonal(own, np.inf)
        radii.append(np.sort(own, axis=1)[:, k - 1])
    in_real, in_fake = inside(cross, radii[0][:, None]), inside(cross, radii[1])
    expected = [
        in_real.any(axis=0).mean(), in_fake.any(axis=1).mean(),
        in_real.sum() / (8 * k), in_real.any(axis=1).mean(),
    ]  # fmt: skip
    for dtype in (np.float64, np.float32):
        assert ours(x, y, k, ties=ties, dtype=dtype) == pytest.approx(expected, abs=1e-12)


def test_float32_products_decide_as_float64_ones_far_from_the_origin() -> None:
    """Two far clusters: inner products of single precision can't tell neighbours, and are not trusted to."""
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=(300, 16)) + 3000 * (np.arange(300) % 2)[:, None] for _ in range(2))
    assert ours(x, y, 5, dtype=np.float32) == ours(x, y, 5, dtype=np.float64)


def test_many_equal_fakes_take_no_time_to_decide() -> None:
    rng = np.random.default_rng(2)
    x, fakes = rng.normal(size=(600, 64)), np.repeat(rng.normal(size=(3, 64)), 200, axis=0)
    assert ours(x, fakes, 5)[1] == 0
    assert ours(x, fakes, 5, dtype=np.float32) == ours(x, fakes, 5)
