import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sk

from trabecula.metrics import classification as scores
from trabecula.metrics.bootstrap import interval, resample
from trabecula.metrics.classification import (
    METRICS,
    Sample,
    auroc_macro,
    num_events,
    remark,
    score,
    smallest_class,
)

RNG = np.random.default_rng(0)
PATIENTS = np.repeat(np.arange(40), 3)
WEIGHTS = resample(PATIENTS, 50, 0)


def _sample(kind, y, names):
    return Sample(kind, names, PATIENTS, y, WEIGHTS)


def _binary(y=None):
    return _sample("binary", RNG.integers(0, 2, 120) if y is None else y, ("0", "1"))


def _probabilities(num):
    p = RNG.random((120, num))
    return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "ordinal", "multilabel"])
def test_every_metric_of_a_kind_is_given_for_every_resample(kind):
    num = 2 if kind == "binary" else 3
    y = RNG.integers(0, 2, (120, 3)) if kind == "multilabel" else RNG.integers(0, num, 120)
    sample = _sample(kind, y, tuple("abc"[:num]))
    found = score(sample, _probabilities(num), 0.5, METRICS[kind], weighted=True)
    wanted = (
        {"auroc_macro", "auroc[a]", "auroc[b]", "auroc[c]"} if kind == "multilabel" else set(METRICS[kind])
    )
    assert set(found) == wanted
    assert all(values.shape == (50,) and np.isfinite(values).all() for values in found.values())
    assert set(scores.COMPARED[kind]) <= set(found)


def test_masked_labels_count_for_nothing():
    y = RNG.integers(-1, 2, (120, 3))
    sample, p = _sample("multilabel", y, ("a", "b", "c")), _probabilities(3)
    found = score(sample, p, float("nan"), METRICS["multilabel"], weighted=True)
    np.testing.assert_allclose(found["auroc_macro"], auroc_macro(y, p, WEIGHTS), atol=1e-12)
    known = y[:, 1] >= 0
    expected = [sk.roc_auc_score(y[known, 1], p[known, 1], sample_weight=w[known]) for w in WEIGHTS]
    np.testing.assert_allclose(found["auroc[b]"], expected, atol=1e-12)


def test_blocks_of_resamples_change_nothing(monkeypatch):
    sample, p = _binary(), _probabilities(2)
    whole = score(sample, p, 0.5, METRICS["binary"], weighted=True)
    monkeypatch.setattr(scores, "_BLOCK", 7 * 120)
    parts = score(sample, p, 0.5, METRICS["binary"], weighted=True)
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-5)


def test_a_part_keeps_its_draws():
    sample = _binary()
    mask = PATIENTS < 25
    part = sample.only(mask)
    np.testing.assert_array_equal(part.weights, sample.weights[:, mask])
    assert part.num_patients == 25
    p = _probabilities(2)
    expected = [sk.roc_auc_score(part.y, p[mask, 1], sample_weight=w) for w in part.weights]
    np.testing.assert_allclose(
        score(part, p[mask], 0.5, ("auroc",), weighted=True)["auroc"], expected, atol=1e-12
    )


def test_smallest_class_and_events_count_patients_and_images():
    y = np.zeros(120, int)
    y[:4] = 1  # three images of the first patient, one of the second
    sample = _binary(y)
    assert smallest_class(sample, "auroc") == 2
    assert smallest_class(sample, "sensitivity") == 2
    assert smallest_class(sample, "specificity") == 39
    assert smallest_class(sample, "brier") == 40
    assert num_events(sample, "auroc") == 4
    labels = _sample("multilabel", np.stack([y, 1 - y, np.ones(120, int)], axis=1), ("a", "b", "c"))
    assert smallest_class(labels, "auroc_macro") == 2
    assert num_events(labels, "auroc[b]") == 116
    assert num_events(labels, "auroc_macro") is None


def test_remarks_say_what_is_left_out_or_not_estimable():
    one = _binary(np.zeros(120, int))
    assert remark(one, "auroc", True) == "not estimable: no test image of class 1"
    assert remark(one, "brier", True) == ""
    assert "no threshold" in remark(_binary(), "sensitivity", False)
    assert remark(_binary(), "sensitivity", True) == ""
    gap = _sample("ordinal", RNG.integers(0, 2, 120), ("0", "1", "2"))
    assert remark(gap, "balanced_accuracy", False) == "left out, no test image: 2"
    labels = _sample("multilabel", np.stack([RNG.integers(0, 2, 120), np.ones(120, int)], axis=1), ("a", "b"))
    assert "one class" in remark(labels, "auroc[b]", False)
    assert remark(labels, "auroc[a]", False) == ""
    assert remark(labels, "auroc_macro", False) == "left out, test images of one class: b"


def test_the_macro_auroc_leaves_out_labels_of_few_patients_and_says_so():
    """A patient alone with a label would leave two in five resamples without a mean."""
    y = RNG.integers(0, 2, (120, 4))
    y[:, 1] = PATIENTS < 4  # four patients
    y[:, 2] = PATIENTS < 5  # five
    y[:, 3] = 0
    sample, p = _sample("multilabel", y, ("a", "b", "c", "d")), _probabilities(4)
    assert scores.averaged(sample) == ["a", "c"]
    found = score(sample, p, float("nan"), METRICS["multilabel"], weighted=True)
    np.testing.assert_allclose(found["auroc_macro"], (found["auroc[a]"] + found["auroc[c]"]) / 2)
    assert np.isfinite(found["auroc[b]"]).any()  # it keeps a row of its own
    assert smallest_class(sample, "auroc_macro") == 5
    assert smallest_class(sample, "auroc[b]") == 4
    assert remark(sample, "auroc_macro", False) == (
        "left out, test images of one class: d; left out, fewer than 5 test patients with it, or without: b"
    )
    assert remark(sample, "auroc[b]", False) == ""
    rare = _sample("multilabel", y[:, [1, 3]], ("b", "d"))
    assert scores.averaged(rare) == ["b"]  # all there is


def test_a_rare_label_counts_by_its_part_in_the_spread():
    y = np.zeros((120, 3), int)
    y[:, 0], y[:, 1], y[:, 2] = PATIENTS < 6, PATIENTS % 2, (PATIENTS >= 20) & (PATIENTS < 26)
    sample = _sample("multilabel", y, ("rare", "half", "other"))
    spread = {"rare": 2.0, "half": 1.0, "other": 2.0}
    draws = [{f"auroc[{name}]": np.array([-1.0, 1.0, np.nan]) * v**0.5 for name, v in spread.items()}]
    assert scores.degrees_of_freedom(sample, "auroc_macro", draws) == pytest.approx(
        5**2 / (4 / 5 + 1 / 19 + 4 / 5)
    )
    assert scores.degrees_of_freedom(sample, "auroc[rare]", draws) == 5
    same = _sample("multilabel", np.repeat(y[:, :1], 3, axis=1), ("rare", "half", "other"))
    assert scores.degrees_of_freedom(same, "auroc_macro", draws) == 5  # six patients, however often counted
    flat = [{name: np.zeros(3) for name in draws[0]}]
    assert scores.degrees_of_freedom(sample, "auroc_macro", flat) == 5
    assert scores.degrees_of_freedom(_binary(), "auroc", []) == smallest_class(_binary(), "auroc") - 1


@pytest.mark.slow
@pytest.mark.parametrize("num_patients", [60, 150])
def test_intervals_of_the_macro_auroc_hold_what_they_say(num_patients):
    """300 studies, labels of 30 % to 1 % of the images of patients: 95 % within 4 standard errors."""
    share = np.array([0.3, 0.2, 0.12, 0.08, 0.05, 0.03, 0.02, 0.01])
    held = []
    for study in range(300):
        rng = np.random.default_rng([study, num_patients])
        patients = np.repeat(np.arange(num_patients), rng.geometric(0.5, num_patients))

        def hidden(width, lasts, rng=rng, patients=patients):
            own = rng.standard_normal((num_patients, width))[patients]
            return lasts**0.5 * own + (1 - lasts) ** 0.5 * rng.standard_normal((len(patients), 8))

        y = (hidden(8, 0.6) > norm.isf(share)).astype(int)
        p = hidden(1, 0.5) + y  # every label's AUROC is the same, whichever are averaged
        weights = resample(patients, 300, 0)
        sample = Sample("multilabel", tuple("abcdefgh"), patients, y, weights)
        value = score(sample, p, float("nan"), METRICS["multilabel"], weighted=False)["auroc_macro"]
        draws = score(sample, p, float("nan"), METRICS["multilabel"], weighted=True)
        df = scores.degrees_of_freedom(sample, "auroc_macro", [draws])
        found = interval(value, draws["auroc_macro"][:, None], df)
        held.append(found.low <= norm.cdf(0.5**0.5) <= found.high)
    assert np.mean(held) == pytest.approx(0.95, abs=4 * (0.05 * 0.95 / 300) ** 0.5)


def test_without_a_threshold_only_its_metrics_are_nan():
    found = score(_binary(), _probabilities(2), float("nan"), METRICS["binary"], weighted=False)
    assert {name for name, value in found.items() if np.isnan(value[0])} == {
        "balanced_accuracy", "sensitivity", "specificity",
    }  # fmt: skip
