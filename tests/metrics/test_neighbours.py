"""Nearest neighbours of other patients, against scikit-learn's classifier with the patient left out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from trabecula.metrics.feature_quality import neighbour_accuracy, vote


def drawn(seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = generator.integers(0, classes, 60)
    features = generator.normal(size=(60, 10)) + 0.8 * np.eye(classes, 10)[y]
    return features, y, generator.integers(0, 25, 60).astype(str)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_votes_are_scikit_learn_s_without_the_patient(k: int, metric: str) -> None:
    """On unit features both metrics have one order; scikit-learn too takes the first of equal votes."""
    features, y, patients = drawn(k)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    wanted = np.empty(len(y), np.int64)
    for patient in np.unique(patients):
        own = patients == patient
        classifier = KNeighborsClassifier(k, metric=metric).fit(unit[~own], y[~own])
        wanted[own] = classifier.predict(unit[own])
    assert vote(features, y, patients, k).tolist() == wanted.tolist()
    known = neighbour_accuracy(features, y, patients, k)
    assert known == pytest.approx(balanced_accuracy_score(y, wanted), abs=1e-12)


def test_a_patient_s_own_images_do_not_vote() -> None:
    """Pairs of one patient lie on each other, other patients of the same class far off."""
    generator = np.random.default_rng(0)
    features = np.repeat(generator.normal(size=(30, 40)), 2, axis=0)
    y = np.repeat(generator.integers(0, 2, 30), 2)
    patients = np.repeat(np.arange(30), 2).astype(str)
    assert neighbour_accuracy(features, y, np.arange(60).astype(str), 1) == 1.0  # were they strangers
    assert neighbour_accuracy(features, y, patients, 1) < 0.75


def test_where_few_others_are_all_of_them_vote() -> None:
    features, y = np.eye(4), np.array([0, 1, 1, 0])
    patients = np.array(["a", "a", "b", "c"])
    assert vote(features, y, patients, 20).tolist() == [0, 0, 0, 1]  # of equal votes the first
    assert vote(features, y, np.full(4, "a"), 20).tolist() == [-1] * 4


def test_findings_are_asked_one_by_one_where_known() -> None:
    features, first, patients = drawn(1, classes=2)
    second = np.roll(first, 7)
    second[:10] = -1
    both = neighbour_accuracy(features, np.stack([first, second], 1), patients, 5)
    one = neighbour_accuracy(features, first, patients, 5)
    other = neighbour_accuracy(features[10:], second[10:], patients[10:], 5)
    assert both == pytest.approx((one + other) / 2)


def test_one_class_or_one_patient_gives_no_number() -> None:
    features, y, patients = drawn(2)
    assert np.isnan(neighbour_accuracy(features, np.zeros_like(y), patients, 5))
    assert np.isnan(neighbour_accuracy(features, y, np.full(60, "a"), 5))
