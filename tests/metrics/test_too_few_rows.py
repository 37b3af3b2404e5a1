"""Every metric with none to four rows: no warning of numpy, and a value, NaN, or a refusal that says why."""

import re

import numpy as np
import pytest

from trabecula.errors import InputError
from trabecula.metrics import classification as scores
from trabecula.metrics import curves, feature_quality, fidelity
from trabecula.metrics.bootstrap import difference, interval, label_multiplier, resample
from trabecula.metrics.correlation import CorrelationSums
from trabecula.metrics.memorisation import critic_gap, memorisation

pytestmark = pytest.mark.filterwarnings("error")
NUMS = range(5)


def _rows(num, width=3, constant=False):
    x = np.random.default_rng(num).normal(size=(num, width))
    return np.repeat(x[:1], num, axis=0) if constant else x


@pytest.mark.parametrize("width", [1, 3, 64])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("one_patient", [False, True])
@pytest.mark.parametrize("num", NUMS)
def test_distances_between_sets(num, one_patient, constant, width):
    reals, fakes = _rows(num, width), _rows(num, width, constant)
    patients = np.zeros(num, int) if one_patient else np.arange(num)
    measures = [
        lambda: fidelity.fidelity(reals, fakes, patients, nearest=1, subsets=True),
        lambda: fidelity.frechet_distance(reals, fakes),
        lambda: fidelity.kernel_distance(reals, fakes, patients, subsets=True),
        lambda: fidelity.manifold_scores(reals, fakes, nearest=1),
        lambda: memorisation(reals, fakes, fakes, patients),
        lambda: critic_gap(reals[:, 0], fakes[:, 0], fakes[:, 0], patients, patients),
    ]
    for i, measure in enumerate(measures):
        if num < (1 if i == 5 else 2):
            with pytest.raises(InputError, match="needs"):
                measure()
        else:
            measure()
    if num >= 2:
        kernel = measures[2]()
        assert np.isfinite(kernel.value)
        assert np.isnan([kernel.low, kernel.high]).all()
        assert "fewer than 5" in kernel.note


def test_a_kernel_distance_of_one_patient_has_no_jackknife():
    """Sums that cancel leave a rounding, and infinity minus infinity where nothing is divided by."""
    for seed in range(200):
        x = np.random.default_rng(seed).normal(size=(2, 5))
        found = fidelity.kernel_distance(x, x[::-1] + 1, np.zeros(2))
        assert (np.isnan(found.low), found.note) == (True, "fewer than 5 patients or fakes: no interval")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_collapsed_generator_has_a_frechet_distance(which):
    """Sets that vary in no common column: the distance is that of the means and both traces."""
    x, y = _rows(4, 2), _rows(4, 2)
    x[:, 0], y[:, 1] = 0, 0
    if which:
        y[:] = 1.0
    first, second = (y, x) if which == 2 else (x, y)
    gap = first.mean(0) - second.mean(0)
    expected = gap @ gap + first.var(0, ddof=1).sum() + second.var(0, ddof=1).sum()
    assert fidelity.frechet_distance(first, second) == pytest.approx(expected)


@pytest.mark.parametrize("num", NUMS)
def test_features(num):
    for constant in (False, True):
        x = _rows(num, constant=constant)
        for measure in (feature_quality.effective_rank, feature_quality.rankme, feature_quality.spread):
            assert np.isnan(measure(x)) == (num == 0)
        y, patients = np.arange(num) % 2, np.arange(num)
        assert feature_quality.vote(x, y, patients, 2).shape == (num,)
        feature_quality.neighbour_accuracy(x, y, np.zeros(num), 2)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "ordinal", "multilabel"])
@pytest.mark.parametrize("num", NUMS)
def test_scores_and_curves(num, kind):
    y, p = np.arange(num) % 2, np.random.default_rng(0).uniform(size=num)
    both = np.stack([1 - p, p], axis=1)
    weights = resample(np.arange(num), 30, 0) if num else np.zeros((30, 0), np.float32)
    truth = np.stack([y, y], axis=1) if kind == "multilabel" else y
    sample = scores.Sample(kind, ("0", "1"), np.arange(num), truth, weights)
    point, drawn = (
        scores.score(sample, both, 0.5, scores.METRICS[kind], weighted) for weighted in (False, True)
    )
    for metric, values in point.items():
        assert (values.shape, drawn[metric].shape) == ((1,), (30,))
        assert num or np.isnan(values).all()
        df = scores.degrees_of_freedom(sample, metric, [drawn])
        found = interval(values, drawn[metric][:, None], df, scale=scores.scale_of(metric))
        assert np.isnan([found.low, found.high]).all()
        assert found.note
    curves.roc_band(y, [p], weights, 0.95)
    assert bool(curves.reliability(y, [p], np.arange(num), weights, 0.95)) == (num > 0)


@pytest.mark.parametrize("num", NUMS)
def test_intervals_differences_multipliers_and_correlations(num):
    rng = np.random.default_rng(0)
    for scale in ("logit", "fisher", "log", "identity"):
        for seeds in (1, 5):
            found = interval(np.full(seeds, 0.5), rng.uniform(size=(num, seeds)), num - 1.0, scale=scale)
            assert np.isnan(found.low)
            assert found.note
    draws = rng.uniform(size=(num, 2))
    assert difference([0.5, 0.6], draws, [0.4, 0.4], draws / 2, num - 1.0).note
    assert label_multiplier([10, 20], [0.5, 0.6], draws, 10, 0.55, draws[:, 0], num - 1.0).note
    y = np.arange(num) % 2
    if num < 2:
        with pytest.raises(ValueError, match=re.compile("no label|same")):
            CorrelationSums(y, np.zeros((2, num)))
    else:
        sums = CorrelationSums(y, np.stack([y, y]).astype(float))
        sums.add(rng.normal(size=(num, 3)).astype(np.float32))
        assert sums.result().r.shape == (3,)
