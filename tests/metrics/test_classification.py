"""Oracle: scikit-learn, with ties and sample weights; properties: hypothesis."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from trabecula.metrics import classification as ours

NUM = 120


def _data(seed: int, num_classes: int = 2):
    rng = np.random.default_rng(seed)
    y = rng.integers(num_classes, size=NUM)
    y[:num_classes] = np.arange(num_classes)
    p = rng.random((NUM, num_classes)) + 0.5 * (y[:, None] == np.arange(num_classes))
    p = np.floor(p / p.sum(axis=1, keepdims=True) * 100) / 100  # few values: ties
    p[:, -1] = 1 - p[:, :-1].sum(axis=1)
    return y, p, rng.integers(0, 4, size=(7, NUM)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (ours.auroc, sk.roc_auc_score),
        (ours.average_precision, sk.average_precision_score),
        (ours.brier, sk.brier_score_loss),
    ],
)
def test_binary_scores_equal_sklearn(mine, theirs, seed):
    y, p, weights = _data(seed)
    assert mine(y, p[:, 1])[0] == pytest.approx(theirs(y, p[:, 1]), abs=1e-12)
    for exact in (weights.astype(np.int64), weights.astype(np.float64), np.asfortranarray(weights, float)):
        expected = [theirs(y, p[:, 1], sample_weight=w) for w in weights]
        np.testing.assert_allclose(mine(y, p[:, 1], exact), expected, atol=1e-12, rtol=0)
    np.testing.assert_allclose(mine(y, p[:, 1], weights), expected, atol=1e-6, rtol=0)


def test_auroc_of_float32_counts_is_exact():
    y, p, weights = _data(5)
    expected = [sk.roc_auc_score(y, p[:, 1], sample_weight=w) for w in weights]
    np.testing.assert_allclose(ours.auroc(y, p[:, 1], weights), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_class_scores_equal_sklearn(seed):
    y, p, weights = _data(seed, 4)
    called = p.argmax(axis=1)
    pairs = {
        ours.accuracy: lambda w: sk.accuracy_score(y, called, sample_weight=w),
        ours.balanced_accuracy: lambda w: sk.balanced_accuracy_score(y, called, sample_weight=w),
        ours.quadratic_kappa: lambda w: sk.cohen_kappa_score(y, called, weights="quadratic", sample_weight=w),
        ours.mean_absolute_error: lambda w: sk.mean_absolute_error(y, called, sample_weight=w),
        ours.brier: lambda w: sk.brier_score_loss(y, p, sample_weight=w, labels=np.arange(4)),
    }
    for mine, theirs in pairs.items():
        assert mine(y, p)[0] == pytest.approx(theirs(None), abs=1e-12), mine.__name__
        expected = [theirs(w) for w in weights]
        np.testing.assert_allclose(
            mine(y, p, weights.astype(float)), expected, atol=1e-12, err_msg=mine.__name__
        )


def test_macro_auroc_equals_sklearn_and_skips_absent_classes():
    y, p, weights = _data(1, 4)
    expected = [
        np.mean([sk.roc_auc_score(y == k, p[:, k], sample_weight=w) for k in range(4)]) for w in weights
    ]
    np.testing.assert_allclose(ours.auroc_macro(y, p, weights), expected, atol=1e-12)
    wider = np.hstack([p, np.zeros((NUM, 1))])  # a fifth class that no image has
    np.testing.assert_allclose(ours.auroc_macro(y, wider, weights), expected, atol=1e-12)
    assert ours.missing_classes(y, ("a", "b", "c", "d", "e")) == ["e"]


def test_macro_auroc_of_labels_leaves_masked_images_out():
    rng = np.random.default_rng(0)
    y = rng.integers(-1, 2, size=(NUM, 3))
    y[:, 2] = 1  # never 0: not estimable, left out
    p = rng.random((NUM, 3))
    weights = rng.integers(0, 3, size=(4, NUM)).astype(np.float32)
    for w, value in zip(weights, ours.auroc_macro(y, p, weights), strict=True):
        each = [
            sk.roc_auc_score(y[y[:, k] >= 0, k], p[y[:, k] >= 0, k], sample_weight=w[y[:, k] >= 0])
            for k in range(2)
        ]
        assert value == pytest.approx(np.mean(each), abs=1e-12)
    assert ours.missing_classes(y, ("a", "b", "c")) == ["c"]


def test_sensitivity_and_specificity_at_a_threshold():
    y, p, weights = _data(2)
    called = p[:, 1] >= 0.55
    for w, sens, spec in zip(
        weights,
        ours.sensitivity(y, p[:, 1], 0.55, weights),
        ours.specificity(y, p[:, 1], 0.55, weights),
        strict=True,
    ):
        assert sens == pytest.approx(sk.recall_score(y, called, sample_weight=w), abs=1e-6)
        assert spec == pytest.approx(sk.recall_score(1 - y, ~called, sample_weight=w), abs=1e-6)


def test_youden_threshold_is_the_best_of_all_cuts():
    y, p, _ = _data(3)
    found = ours.youden_threshold(y, p[:, 1])

    def gain(t):
        return ours.sensitivity(y, p[:, 1], t)[0] + ours.specificity(y, p[:, 1], t)[0]

    assert gain(found) == pytest.approx(max(gain(t) for t in np.linspace(0, 1, 1001)), abs=1e-12)
    assert ours.youden_threshold([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]) == pytest.approx(0.5)
    # of the equally good cuts 0.15 and 0.725 that nearest to 0.5, on either side of it
    assert ours.youden_threshold([0, 1, 0, 1], [0.1, 0.2, 0.7, 0.75]) == pytest.approx(0.725)
    assert ours.youden_threshold([0, 1, 0, 1], [0.2, 0.5, 0.8, 0.9]) == pytest.approx(0.35)
    with pytest.raises(ValueError, match="both classes"):
        ours.youden_threshold([1, 1], [0.2, 0.3])


def test_calibration_error_by_hand():
    p = np.array([0.1, 0.1, 0.6, 0.7])
    y = np.array([0, 1, 1, 1])
    # two bins of two: |0.5 - 0.1| / 2 + |1 - 0.65| / 2
    assert ours.calibration_error(y, p, num_bins=2)[0] == pytest.approx(0.2 + 0.175)
    weights = np.array([[1.0, 1, 2, 0], [0, 0, 1, 1]])
    np.testing.assert_allclose(
        ours.calibration_error(y, p, weights, num_bins=2), [0.5 * 0.4 + 0.5 * 0.4, 0.35]
    )


def test_calibration_error_of_several_classes_is_of_the_called_class():
    y, p = np.array([0, 2, 2, 1]), np.eye(3)[[0, 2, 2, 0]] * 0.7 + 0.1  # called 0, 2, 2, 0 with 0.8
    confidence, right = ours.confidence_and_event(y, p)
    np.testing.assert_allclose(confidence, 0.8)
    assert right.tolist() == [1, 1, 1, 0]
    assert ours.calibration_error(y, p, num_bins=1)[0] == pytest.approx(0.8 - 0.75)


def test_calibration_error_of_true_probabilities_is_small_and_of_overconfident_ones_large():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = (rng.random(p.size) < p).astype(int)
    assert ours.calibration_error(y, p)[0] < 0.02
    assert ours.calibration_error(y, (p > 0.5) * 1.0)[0] > 0.2


def test_bins_are_equal_and_ties_share_one():
    bins = ours.bins_of(np.arange(30.0), 15)
    np.testing.assert_array_equal(np.bincount(bins), np.full(15, 2))
    assert np.unique(ours.bins_of(np.full(30, 0.4), 15)).tolist() == [0]


def test_classes_without_weight_give_nan():
    y, p = np.array([0, 0, 1]), np.array([0.1, 0.2, 0.9])
    weights = np.array([[1.0, 1, 0], [0, 0, 1], [1, 0, 1]])
    for mine in (ours.auroc, lambda *a: ours._ranked(*a, precision=True)[0]):
        np.testing.assert_array_equal(np.isnan(mine(y, p, weights)), [True, True, False])
    two = np.stack([1 - p, p], axis=1)
    np.testing.assert_array_equal(np.isnan(ours.balanced_accuracy(y, two, weights)), [True, True, False])
    assert np.isnan(ours.auroc([1, 1], [0.1, 0.2]))[0]
    assert np.isnan(ours.quadratic_kappa([1, 1], [[0, 1.0], [0, 1.0]]))[0]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="both be"):
        ours.auroc([0, 1], [[0.1, 0.9], [0.2, 0.8]])
    with pytest.raises(ValueError, match="weights"):
        ours.auroc([0, 1], [0.1, 0.9], np.ones((3, 5)))


scores = hnp.arrays(np.float64, 40, elements=st.integers(0, 12).map(float))
labels = hnp.arrays(np.int64, 40, elements=st.integers(0, 1)).filter(lambda y: 0 < y.sum() < y.size)


@settings(max_examples=60, deadline=None)
@given(labels, scores, st.randoms(use_true_random=False))
def test_auroc_properties(y, p, random):
    value = ours.auroc(y, p)[0]
    assert ours.auroc(y, np.exp(p / 3))[0] == value  # only the order counts
    assert ours.auroc(1 - y, p)[0] == pytest.approx(1 - value, abs=1e-12)
    order = np.array(random.sample(range(y.size), y.size))
    weights = np.array([[random.randint(0, 3) for _ in range(y.size)] for _ in range(3)], float)
    np.testing.assert_array_equal(
        ours.auroc(y[order], p[order], weights[:, order]), ours.auroc(y, p, weights)
    )
    # a weight of 2 is the image twice
    assert ours.auroc(np.tile(y, 2), np.tile(p, 2))[0] == pytest.approx(value, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(labels, scores)
def test_precision_and_threshold_properties(y, p):
    assert ours.average_precision(y, p)[0] == pytest.approx(sk.average_precision_score(y, p), abs=1e-12)
    threshold = ours.youden_threshold(y, p)
    gain = ours.sensitivity(y, p, threshold)[0] + ours.specificity(y, p, threshold)[0]
    assert gain >= 1 - 1e-12
    every = [ours.sensitivity(y, p, t)[0] + ours.specificity(y, p, t)[0] for t in np.unique(p)]
    assert gain >= max(every) - 1e-12
