"""Unit-label correlation: NumPy's and SciPy's numbers, exchanged patients, p-values that are p-values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trabecula.errors import InputError
from trabecula.metrics.correlation import CorrelationSums, max_p_value, permuted_labels


def correlate(activations: np.ndarray, y: np.ndarray, permuted: np.ndarray, batch: int = 7):
    sums = CorrelationSums(y, permuted)
    for start in range(0, len(y), batch):
        sums.add(activations[start : start + batch].astype(np.float32))
    return sums.result()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(8, 60), shift=st.sampled_from([0.0, 1e3]))
def test_correlation_is_that_of_scipy(seed: int, num: int, shift: float) -> None:
    random = np.random.default_rng(seed)
    activations = (random.normal(size=(num, 5)) * [1e-3, 1, 1, 10, 100] + shift).astype(np.float32)
    y = np.append(random.integers(0, 3, num - 2), [0, 1])
    permuted = permuted_labels(y, [str(i) for i in range(num)], 6, seed)
    found = correlate(activations, y, permuted)
    for unit in range(1, 5):
        expected = stats.pearsonr(activations[:, unit].astype(float), y).statistic
        assert found.r[unit] == pytest.approx(expected, abs=2e-5)
    wide = activations[:, 1:].astype(float)
    for labels, largest in zip(permuted, correlate(activations[:, 1:], y, permuted).null_max, strict=True):
        r = np.corrcoef(np.column_stack([wide, labels]).T)[-1, :-1]
        assert largest == pytest.approx(np.abs(r).max(), abs=2e-5)


def test_units_that_never_change_have_no_correlation() -> None:
    random = np.random.default_rng(0)
    activations = random.normal(size=(20, 3)).astype(np.float32)
    activations[:, 1] = 0.1
    y = np.arange(20) % 2
    permuted = permuted_labels(y, [str(i) for i in range(20)], 9, 0)
    found = correlate(activations, y, permuted)
    assert np.isnan(found.r).tolist() == [False, True, False]
    assert found.largest in (0, 2)
    dead = correlate(activations[:, 1:2], y, permuted)
    assert (dead.largest, dead.null_max.max()) == (-1, 0)


def test_patients_trade_their_labels_whole() -> None:
    patients = ["a", "a", "b", "b", "c", "d", "e", "e", "e"]
    y = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8])
    drawn = permuted_labels(y, patients, 200, seed=1)
    assert {tuple(row[:2]) for row in drawn} == {(0, 1), (2, 3)}  # never broken up, never turned round
    assert {tuple(row[4:6]) for row in drawn} == {(4, 5), (5, 4)}
    assert {tuple(row[6:]) for row in drawn} == {(6, 7, 8)}  # no other patient has three images
    assert all(sorted(row) == sorted(y) for row in drawn)
    assert 60 < sum(row[0] == 0 for row in drawn) < 140
    assert np.array_equal(drawn, permuted_labels(y, patients, 200, seed=1))


def test_every_permutation_is_as_likely() -> None:
    drawn = permuted_labels(np.arange(3), ["a", "b", "c"], 6000, seed=0).astype(int)
    seen = [int((drawn == order).all(1).sum()) for order in itertools.permutations(range(3))]
    assert stats.chisquare(seen).pvalue > 1e-3


def test_nothing_to_exchange_is_said() -> None:
    with pytest.raises(InputError, match="no two of 2 patients have equally many images"):
        permuted_labels(np.array([0, 1, 1]), ["a", "b", "b"], 5, 0)
    with pytest.raises(ValueError, match="same"):
        CorrelationSums(np.ones(4), np.ones((2, 4)))
    short = CorrelationSums(np.array([0, 1]), np.array([[1.0, 0.0]]))
    short.add(np.ones((1, 1), np.float32))
    with pytest.raises(ValueError, match="1 of 2"):
        short.result()


def p_value(seed: int, effect: float, by_image: bool = False) -> float:
    """p of the largest of 30 units; two like images a patient, and a label that belongs to the patient."""
    random = np.random.default_rng(seed)
    patients = np.repeat(np.arange(30), 2)
    y = np.repeat(random.permutation(np.arange(30) % 2), 2)
    noise = np.repeat(random.normal(size=(30, 30)), 2, axis=0) + 0.3 * random.normal(size=(60, 30))
    noise[:, 3] += effect * y
    ids = np.arange(60) if by_image else patients
    found = correlate(noise, y, permuted_labels(y, ids.astype(str), 99, seed), batch=60)
    return max_p_value(np.nanmax(np.abs(found.r)), found.null_max)


def test_p_values_of_no_effect_are_uniform() -> None:
    drawn = np.array([p_value(seed, 0.0) for seed in range(300)])
    assert drawn.min() >= 0.01
    # Uniform on 1/100 ... 100/100: shifted to the middles of the steps.
    assert stats.kstest(drawn - 0.005, "uniform").pvalue > 1e-3
    assert 0.02 <= (drawn <= 0.05).mean() <= 0.09


def test_exchanging_images_in_place_of_patients_would_claim_too_much() -> None:
    drawn = np.array([p_value(seed, 0.0, by_image=True) for seed in range(100)])
    assert (drawn <= 0.05).mean() > 0.2


def test_a_planted_effect_is_found() -> None:
    assert np.mean([p_value(seed, 3.0) <= 0.02 for seed in range(20)]) > 0.9


def test_p_value_by_hand() -> None:
    null = np.array([0.1, 0.2, 0.3, 0.4])
    assert max_p_value(-0.3, null) == 3 / 5
    assert max_p_value(0.5, null) == 1 / 5
