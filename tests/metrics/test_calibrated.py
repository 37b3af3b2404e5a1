"""Probabilities of classes that weighed alike, corrected to the class frequencies for calibration."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from trabecula.artifacts.predictions import ArmPredictions
from trabecula.metrics import classification as scores


def predictions(p: np.ndarray, frequencies: np.ndarray) -> ArmPredictions:
    nothing = np.array([np.nan])
    return ArmPredictions("arm", "probe", 1.0, ((0, 0),), p[None], nothing, nothing, frequencies[None])


def test_the_correction_is_bayes_rule() -> None:
    """A balanced posterior p(x|k) / sum_j p(x|j) becomes f_k p(x|k) / sum_j f_j p(x|j)."""
    likelihood = np.array([[0.2, 0.4, 0.1], [0.5, 0.1, 0.3]])
    balanced = likelihood / likelihood.sum(1, keepdims=True)
    f = np.array([0.7, 0.2, 0.1])
    expected = likelihood * f / (likelihood * f).sum(1, keepdims=True)
    np.testing.assert_allclose(predictions(balanced, f).calibrated[0], expected)


def test_without_frequencies_nothing_changes() -> None:
    p = np.array([[0.2, 0.8], [0.3, 0.9]])  # labels of their own, too
    assert (predictions(p, np.full(2, np.nan)).calibrated[0] == p).all()


def test_classes_that_training_lacks_leave_a_row_as_it_is() -> None:
    p = np.array([[0.0, 1.0], [0.5, 0.5]])
    np.testing.assert_allclose(predictions(p, np.array([1.0, 0.0])).calibrated[0], [[0.0, 1.0], [1.0, 0.0]])


def test_a_balanced_fit_is_calibrated_again() -> None:
    """Mean probabilities are the class frequencies, as a fit without weights has them."""
    rng = np.random.default_rng(0)
    y = rng.choice(3, 6_000, p=[0.7, 0.2, 0.1])
    x = rng.normal(size=(6_000, 4)) + np.eye(4)[:3][y]
    model = LogisticRegression(class_weight="balanced", C=100).fit(x, y)
    f = np.bincount(y) / len(y)
    p = model.predict_proba(x)
    assert np.abs(p.mean(0) - f).max() > 0.1
    np.testing.assert_allclose(predictions(p, f).calibrated[0].mean(0), f, atol=0.01)


@pytest.mark.parametrize("kind", ["ordinal", "multiclass"])
def test_only_metrics_of_calibration_take_the_corrected_probabilities(kind: str) -> None:
    rng = np.random.default_rng(1)
    y = rng.choice(3, 60)
    p, calibrated = (rng.dirichlet(np.ones(3), 60) for _ in range(2))
    weights = np.ones((4, 60), np.float32)
    sample = scores.Sample(kind, ("0", "1", "2"), np.arange(60), y, weights)
    chosen = scores.METRICS[kind]
    for weighted in (False, True):
        both = scores.score(sample, p, np.nan, chosen, weighted, calibrated)
        ours, theirs = (scores.score(sample, q, np.nan, chosen, weighted) for q in (p, calibrated))
        assert list(both) == list(chosen)
        for metric in chosen:
            expected = theirs if metric in ("brier", "ece") else ours
            np.testing.assert_array_equal(both[metric], expected[metric])
