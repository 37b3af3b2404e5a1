import numpy as np
import pytest
from sklearn.metrics import roc_curve

from trabecula.metrics.bootstrap import resample
from trabecula.metrics.curves import GRID, reliability, roc, roc_band

RNG = np.random.default_rng(0)
PATIENTS = np.repeat(np.arange(60), 2)
Y = RNG.integers(0, 2, 120)
SCORE = np.round(Y + RNG.normal(size=120), 1)


def _sklearn(y, p, w=None):
    fpr, tpr, _ = roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    return np.interp(GRID + 1e-9, fpr, tpr)  # just right of the grid: the top of each vertical rise


def test_roc_is_sklearns_curve():
    np.testing.assert_allclose(roc(Y, SCORE)[0], _sklearn(Y, SCORE), atol=1e-6)
    weights = resample(PATIENTS, 20, 0)
    for w, tpr in zip(weights, roc(Y, SCORE, weights), strict=True):
        np.testing.assert_allclose(tpr, _sklearn(Y, SCORE, w), atol=1e-5)


def test_roc_of_one_class_is_nan_and_of_a_perfect_score_is_one():
    weights = np.array([[0.0, 0, 1, 1], [1, 1, 1, 1]], np.float32)
    curves = roc([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], weights)
    assert np.isnan(curves[0]).all()
    np.testing.assert_array_equal(curves[1], 1)


def test_band_holds_its_curve_and_narrows_with_patients():
    mean, low, high = roc_band(Y, [SCORE, SCORE], resample(PATIENTS, 400, 0), 0.95)
    np.testing.assert_allclose(mean, roc(Y, SCORE)[0])
    inside = slice(5, 95)
    assert ((low <= mean + 0.02) & (mean <= high + 0.02))[inside].all()
    many = np.tile(Y, 16), np.tile(SCORE, 16), np.arange(Y.size * 16) // 2
    _, low16, high16 = roc_band(many[0], [many[1]], resample(many[2], 400, 0), 0.95)
    assert (high16 - low16)[inside].mean() < 0.4 * (high - low)[inside].mean()
    assert np.isnan(roc_band(np.ones(120, int), [SCORE], resample(PATIENTS, 9, 0), 0.95)[1]).all()


def test_reliability_of_honest_probabilities_lies_on_the_diagonal():
    p = RNG.random(4000)
    y = (RNG.random(4000) < p).astype(int)
    patients = np.arange(4000) // 2
    bins = reliability(y, [p, p], patients, resample(patients, 300, 0), 0.95)
    assert len(bins) == 10
    assert {b["num_images"] for b in bins} == {400}
    inside = [b["low"] <= b["predicted"] <= b["high"] for b in bins]
    assert np.mean(inside) >= 0.8
    assert bins[0]["observed"] == pytest.approx(y[np.argsort(p)[:400]].mean())
    wrong = reliability(y, [np.sqrt(p)], patients, resample(patients, 300, 0), 0.95)
    assert not any(b["low"] <= b["predicted"] <= b["high"] for b in wrong[2:7])
