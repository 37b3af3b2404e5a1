import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from trabecula.metrics.bootstrap import difference, holm, isotonic, label_multiplier, resample

RNG = np.random.default_rng(0)


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(float, (3, 6), elements=st.floats(-5, 5)),
    hnp.arrays(float, 6, elements=st.floats(0.1, 4)),
)
def test_isotonic_equals_sklearn(values, weights):
    for row, fit in zip(values, isotonic(values, weights), strict=True):
        expected = IsotonicRegression().fit_transform(np.arange(6), row, sample_weight=weights)
        np.testing.assert_allclose(fit, expected, atol=1e-9)


def test_difference_equals_the_paired_t_test():
    """Means over patients: the bootstrap's error is the paired t-test's, and so are interval and p."""
    arm = RNG.normal(0.3, 1, 60)
    base = 0.5 * arm + RNG.normal(0, 1, 60)
    weights = resample(np.arange(60), 20_000, 0) / 60
    found = difference(arm.mean(), weights @ arm, base.mean(), weights @ base, 59)
    expected = stats.ttest_rel(arm, base)
    assert found.p == pytest.approx(expected.pvalue, rel=0.1)
    bounds = expected.confidence_interval()
    np.testing.assert_allclose([found.low, found.high], bounds, atol=0.02)


@settings(max_examples=60, deadline=None)
@given(st.floats(-0.2, 0.2), st.integers(1, 8), st.integers(0, 1000))
def test_p_is_below_five_per_cent_exactly_where_the_interval_excludes_zero(shift, seeds, seed):
    rng = np.random.default_rng(seed)
    base, base_draws = rng.normal(0.7, 0.02, seeds), rng.normal(0.7, 0.04, (200, seeds))
    arm, arm_draws = base + shift + rng.normal(0, 0.01, seeds), rng.normal(0.7, 0.04, (200, seeds))
    found = difference(arm, arm_draws, base, base_draws, 30)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    back = difference(base, base_draws, arm, arm_draws, 30)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert back.p == pytest.approx(found.p)


@pytest.mark.parametrize("gap", [0.0, 0.25])
def test_a_difference_without_spread_is_not_estimable(gap):
    """An arm against itself, or both the same in every resample: a width of zero would be a proof."""
    draws = RNG.normal(0.7, 0.05, (100, 6))
    found = difference(draws[0] + gap, draws + gap, draws[0], draws, 30)
    assert found.value == pytest.approx(gap)
    assert np.isnan([found.low, found.high, found.p]).all()
    assert found.note == "not estimable: no resample differs"


def test_seeds_must_be_paired():
    with pytest.raises(ValueError, match="pair the seeds"):
        difference(np.zeros(3), np.zeros((9, 3)), np.zeros(2), np.zeros((9, 2)), 30)


def test_holm_by_hand_and_with_missing_values():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.02, np.nan, 0.5]), [0.04, np.nan, 0.5])
    assert holm([np.nan]).shape == (1,)
    assert holm([]).shape == (0,)
    assert holm([0.9, 0.8]).max() <= 1


def _multiplier(value, baseline=(0.6, 0.7, 0.8), at=10.0, spread=0.01, df=30):
    noise = spread * RNG.normal(size=(500, 4))
    return label_multiplier(
        [10, 100, 1000], baseline, np.array(baseline) + noise[:, :3], at, value, value + noise[:, 3], df
    )


def test_label_multiplier_reads_the_curve_over_log_patients():
    assert _multiplier(0.7).value == pytest.approx(10)
    assert _multiplier(0.75).value == pytest.approx(10**1.5)
    assert _multiplier(0.6).value == pytest.approx(1)
    assert _multiplier(0.65, at=100).value == pytest.approx(10**0.5 / 10)
    # a dip in the baseline's curve is pooled: 0.6, 0.65, 0.65, so 0.64 lies before 100
    assert _multiplier(0.64, (0.6, 0.7, 0.6)).value == pytest.approx(10**0.8)
    assert _multiplier(0.8).censored == ""


def test_label_multiplier_is_censored_outside_the_curve():
    above, below = _multiplier(0.9, spread=0.01), _multiplier(0.5, at=100, spread=0.01)
    assert (above.censored, above.value) == ("above", pytest.approx(100))
    assert (above.low, above.high) == (pytest.approx(100), np.inf)  # more than 100 times, throughout
    assert (below.censored, below.value) == ("below", pytest.approx(0.1))
    assert (below.low, below.high) == (0, pytest.approx(0.1))
    edge = _multiplier(0.795, spread=0.01)
    assert edge.censored == ""
    assert 1 < edge.low < edge.value < 100
    assert edge.high == np.inf


def test_label_multiplier_of_nothing_is_not_estimable():
    assert _multiplier(float("nan")).note == "not estimable"


def test_one_point_curve_only_says_above_or_below():
    for value, censored in ((0.7, "above"), (0.5, "below")):
        draws = value + RNG.normal(0, 0.001, 30)
        found = label_multiplier([50], [0.6], np.full((30, 1), 0.6), 50, value, draws, 30)
        assert (found.censored, found.value) == (censored, pytest.approx(1))


def test_label_multiplier_has_bounds_only_where_a_difference_has():
    few = _multiplier(0.7, df=3)  # four patients in the smaller class
    assert few.value == pytest.approx(10)
    assert np.isnan([few.low, few.high]).all()
    assert few.note == "fewer than 5 patients in a class: no interval"
    assert np.isfinite(_multiplier(0.7, df=4).low)


@pytest.mark.parametrize("value", [0.7, 0.9, 0.5])
def test_label_multiplier_without_spread_is_not_estimable(value):
    found = _multiplier(value, spread=0.0)
    assert np.isnan([found.value, found.low, found.high]).all()
    assert (found.censored, found.note) == ("", "not estimable: no resample differs")


def test_label_multiplier_at_the_ceiling_is_not_estimable():
    """Both perfect at the last fraction, whatever the baseline does before."""
    noise = RNG.uniform(0.6, 0.9, (200, 1))
    curve = np.column_stack([noise, np.ones(200)])
    found = label_multiplier([10, 100], [0.8, 1.0], curve, 100, 1.0, np.ones(200), 30)
    assert (found.note, found.censored) == ("not estimable: no resample differs", "")
