"""What no resample changes has no interval, however it rounds; at the end of its range binomial limits."""

import numpy as np
import pytest
from scipy import stats

from trabecula.metrics import classification as scores
from trabecula.metrics.bootstrap import (
    NO_INTERVAL,
    NO_SPREAD,
    crossed_variance,
    difference,
    interval,
    label_multiplier,
    resample,
    variance,
)
from trabecula.metrics.correlation import CorrelationSums

PATIENTS = np.repeat(np.arange(40), 2)
WEIGHTS = resample(PATIENTS, 200, 0)


def _drawn(metric, y, p):
    function = getattr(scores, metric)
    return function(y, p), function(y, p, WEIGHTS)[:, None]


def _one_class(num, called=1):
    p = np.zeros((80, num))
    p[:, called] = 1
    return p


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("num", range(2, 9))
@pytest.mark.parametrize("metric", ["balanced_accuracy", "quadratic_kappa", "auroc_macro", "brier"])
def test_a_constant_classifier_has_no_interval_whatever_its_number_of_classes(metric, num, seeds):
    y = np.arange(80) % num
    p = np.full((80, num), 1 / num) if metric == "brier" else _one_class(num)
    values, draws = _drawn(metric, y, p)
    found = interval(np.tile(values, seeds), np.tile(draws, seeds), 19, scale=scores.scale_of(metric))
    assert np.isnan([found.low, found.high]).all()
    assert (found.value, found.note) == (pytest.approx(values[0], abs=1e-12), NO_INTERVAL)


@pytest.mark.parametrize("num", range(2, 9))
def test_two_constant_classifiers_are_not_compared(num):
    y = np.arange(80) % num
    one, other = (_drawn("balanced_accuracy", y, _one_class(num, called)) for called in (0, 1))
    perfect = _drawn("balanced_accuracy", y, np.eye(num)[y])
    for first, second in ((one, other), (perfect, one)):
        found = difference(*first, *second, 19)
        assert found.note == NO_SPREAD
        assert np.isnan([found.low, found.high, found.p]).all()


@pytest.mark.parametrize("size", [1e-13, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("scale", ["log", "identity"])
def test_a_spread_counts_by_the_size_of_what_spreads(scale, size):
    rng = np.random.default_rng(0)
    value, real = 0.3 * size, 0.3 * size * (1 + 0.1 * rng.normal(size=(200, 1)))
    rounding = value * (1 + 1e-15 * rng.normal(size=(200, 1)))
    assert np.isfinite(interval(value, real, 30, scale=scale).low)
    assert np.isnan(interval(value, rounding, 30, scale=scale).low)
    apart = difference(value, real, 0.5 * value, np.full((200, 1), 0.5 * value), 30)
    assert np.isfinite(apart.p)
    # the difference is rounding too, and so large a part of itself that only the two values tell
    assert difference(value, rounding, value, np.full((200, 1), value), 30).note == NO_SPREAD


@pytest.mark.parametrize("scale", ["logit", "fisher"])
def test_the_ends_of_a_range_have_binomial_limits_within_rounding(scale):
    low_end = 0.0 if scale == "logit" else -1.0
    for value in (1.0, 1 - 2e-16, low_end, low_end + 1e-16):
        found = interval(value, value + 1e-16 * np.tile([0.0, 1.0], 50)[:, None], 19, scale=scale)
        assert "binomial" in found.note
        width = found.high - found.low
        assert width == pytest.approx((1 - 0.025 ** (1 / 20)) * (1 if scale == "logit" else 2))


def test_a_small_spread_near_the_end_is_one():
    """One discordant pair of a hundred million: far below rounding of single precision, and real."""
    draws = 1 - 1e-8 * np.random.default_rng(0).poisson(1, size=(400, 1))
    found = interval(1 - 1e-8, draws, 9999)
    assert 0.9 < found.low < 1 - 1e-8 < found.high < 1
    assert found.note == ""


def test_a_calibration_error_that_no_patient_changes_has_no_interval():
    y = np.arange(80) % 3
    values, draws = _drawn("calibration_error", y, 0.85 * np.eye(3)[y] + 0.05)
    assert np.isnan(interval(values, draws, 39).low)


@pytest.mark.parametrize("num", range(2, 12))
def test_kappa_of_one_true_and_one_called_class_is_not_defined(num):
    """The last of many classes: the squares that cancel are large."""
    y = np.full(80, num - 1)
    assert np.isnan(scores.quadratic_kappa(y, _one_class(num, num - 1), WEIGHTS)).all()


def test_a_label_that_never_varies_takes_no_part_in_degrees_of_freedom():
    y = np.stack([np.arange(80) % 2, np.arange(80) % 4 == 0], axis=1).astype(int)
    sample = scores.Sample("multilabel", ("a", "b"), PATIENTS, y, WEIGHTS)
    flat = {f"auroc[{name}]": 0.1 + 1e-17 * np.random.default_rng(0).normal(size=200) for name in "ab"}
    least = scores.smallest_class(sample, "auroc_macro") - 1
    assert scores.degrees_of_freedom(sample, "auroc_macro", [flat]) == least


@pytest.mark.parametrize("noise", [0, 1, -1])
def test_a_multiplier_of_equal_values_does_not_hang_on_rounding(noise):
    """The arm stands on the curve's first point, but for the last bit."""
    spread = 0.01 * np.random.default_rng(0).normal(size=(300, 1))
    curve = np.array([1 / 3, 0.5, 0.6]) + spread
    value = 1 / 3 + noise * 6e-17
    own = value + 0.01 * np.random.default_rng(1).normal(size=300)
    found = label_multiplier([10, 100, 1000], [1 / 3, 0.5, 0.6], curve, 10, value, own, 30)
    assert (found.value, found.censored) == (pytest.approx(1), "")
    flat = np.full((300, 3), 1 / 3) + 6e-17 * np.random.default_rng(1).integers(-1, 2, size=(300, 3))
    assert label_multiplier([10, 100, 1000], [1 / 3] * 3, flat, 10, value, flat[:, 0], 30).note == NO_SPREAD


def test_labels_and_units_that_change_by_rounding_alone_do_not_change():
    with pytest.raises(ValueError, match="every label is the same"):
        CorrelationSums(np.full(7, 0.1), np.full((3, 7), 0.1))
    y = np.arange(20) % 2
    sums = CorrelationSums(y, np.stack([np.roll(y, k // 2 + k) for k in range(5)]).astype(float))
    units = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    units[:, 1] = 3.0 + 2.4e-7 * (np.arange(20) % 3)
    sums.add(units)
    assert np.isnan(sums.result().r).tolist() == [False, True]


@pytest.mark.parametrize("num", [5, 6, 10])
@pytest.mark.parametrize("df_patients", [4.0, 7.0, 9.0, 150.0])
def test_a_large_interaction_gives_no_astronomic_width(num, df_patients):
    """Seeds that differ on each patient, and not in the mean: the interaction is nearly all there is."""
    for i in range(300):
        rng = np.random.default_rng(i)
        draws = rng.normal(size=(60, 1)) * rng.uniform(0, 0.3) + rng.normal(size=(60, num))
        values = rng.normal(size=num) * rng.uniform(0.3, 1.2)
        spread = variance(values, draws, df_patients)
        widest = stats.t.isf(0.025, min(df_patients, num - 1))
        patients = draws.mean(axis=1).std(ddof=1)
        assert patients * stats.t.isf(0.025, df_patients) <= spread.half_width(0.025) * (1 + 1e-12)
        assert 0 < spread.half_width(0.025) <= widest * np.hypot(spread.error, patients)


def test_nearly_all_interaction_by_hand():
    """What patients do to seeds cancels, so the seeds' own spread is all, with four degrees of freedom."""
    draws = np.array([[1.0, -1, 1, -1, 0], [-1, 1, -1, 1, 0]] * 15)
    interaction = draws.var(axis=0, ddof=1).mean() / 4
    values = np.array([1.0, 0.5, 0.0, -0.5, -1.0])
    values *= np.sqrt(1.1 * interaction * 5 / values.var(ddof=1))
    between = pytest.approx(1.1 * interaction)
    assert variance(values, draws, 30).sums == (((0.0, 30),), ((0.0, 30), (between, 4)))
    found = difference(values, draws, np.zeros(5), np.zeros_like(draws), 30)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 4) * np.sqrt(1.1 * interaction))


@pytest.mark.parametrize("shape", [(5, 5), (5, 8), (7, 5)])
def test_degrees_of_freedom_of_crossed_seeds_have_a_floor(shape):
    lowest = np.inf
    for i in range(300):
        rng = np.random.default_rng(i)
        draws = rng.normal(size=(60, *shape)) * rng.uniform(0, 1) + rng.normal(size=(60, 1, 1)) * 0.1
        values = rng.normal(size=shape) * 0.3 + rng.normal(size=(shape[0], 1)) * rng.uniform(0, 0.5)
        (_, (between, df)) = crossed_variance(values, draws, 9.0).sums[-1]
        assert between > 0
        assert df >= min(shape[0] - 1, shape[1] - 1)
        lowest = min(lowest, df)
    assert lowest < 9.0
