"""Paths of probes: which strength is chosen, where a path stops, and how classes weigh."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from trabecula.artifacts.tasks import Task
from trabecula.config import build
from trabecula.transfer.linear_probe import (
    FittedProbe,
    ProbeData,
    ProbeSettings,
    fit_probes,
    validation_score,
)

GRADES = Task(kind="ordinal", labels=("kl",), classes=("0", "1", "2", "3"))
BINARY = Task(kind="binary", labels=("kl",), positive="kl >= 2")
FINDINGS = Task(kind="multilabel", labels=("a", "b"))


def data(num_classes: int = 4, seed: int = 0, n: int = 80, d: int = 30, signal: float = 1.0) -> ProbeData:
    """Unequal classes of which some features tell."""
    rng = np.random.default_rng(seed)
    share = np.arange(num_classes, 0, -1.0)
    y = rng.choice(num_classes, 2 * n, p=share / share.sum())
    y[:num_classes] = y[n : n + num_classes] = np.arange(num_classes)
    x = torch.from_numpy(rng.normal(size=(2 * n, d)))
    x[:, :num_classes] += signal * torch.eye(num_classes)[y]
    return ProbeData(x[:n], y[:n], x[n:], y[n:])


def settings(**values: Any) -> ProbeSettings:
    return build(ProbeSettings, {"num_strengths": 21, **values}, "test")


@pytest.mark.parametrize("seed", range(6))
def test_a_path_that_stops_makes_the_choice_of_the_whole_path(seed: int) -> None:
    sets = [data(seed=seed, signal=signal) for signal in (0.3, 1.0, 3.0)]
    stopped, whole = (fit_probes(settings(patience=p), GRADES, sets) for p in (5, 0))
    for short, full in zip(stopped, whole, strict=True):
        assert len(full.scores) == 21
        assert short.index == full.index
        new = torch.randn(7, 30, dtype=torch.float64)
        np.testing.assert_allclose(short.probabilities(new), full.probabilities(new), atol=1e-3)
    assert len(stopped[0].scores) < 21


def test_patience_counts_strengths_without_a_better_score() -> None:
    (probe,) = fit_probes(settings(patience=3), GRADES, [data()])
    tried = len(probe.scores)
    assert tried - 1 - probe.index >= 3
    assert tried - 1 - probe.index < 3 + 5  # it looks after every fifth


def test_a_set_is_fitted_the_same_whatever_stands_beside_it() -> None:
    one, other = data(seed=1), data(seed=2, signal=0.2)
    (alone,), (beside, _) = (
        fit_probes(settings(), GRADES, [one]),
        fit_probes(settings(), GRADES, [one, other]),
    )
    assert alone.index == beside.index
    assert len(alone.scores) == len(beside.scores)
    np.testing.assert_allclose(alone.scores, beside.scores, atol=1e-6)


@pytest.mark.parametrize(("task", "weight"), [(GRADES, "balanced"), (BINARY, None)])
def test_auto_weighs_classes_where_arms_are_compared_by_balanced_accuracy(
    task: Task, weight: str | None
) -> None:
    found = data(num_classes=task.num_outputs)
    (probe,) = fit_probes(
        settings(strength_range=(0.1, 0.1), num_strengths=1, standardise=False), task, [found]
    )
    model = LogisticRegression(C=0.1, class_weight=weight, tol=1e-10, max_iter=10_000)
    model.fit(found.train.numpy(), found.y)
    np.testing.assert_allclose(
        probe.probabilities(found.val), model.predict_proba(found.val.numpy()), atol=1e-4
    )


def test_the_score_weighs_classes_as_training_does() -> None:
    y = np.array([0, 0, 0, 1])
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    assert validation_score(np.log(p), y, "log_loss", False) == pytest.approx(-log_loss(y, p))
    weights = [1, 1, 1, 3]
    expected = -log_loss(y, p, sample_weight=weights)
    assert validation_score(np.log(p), y, "log_loss", True) == pytest.approx(expected)


def test_a_multi_label_task_tries_every_strength() -> None:
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.normal(size=(60, 8))), rng.integers(0, 2, (60, 2))
    (probe,) = fit_probes(settings(patience=2), FINDINGS, [ProbeData(x[:30], y[:30], x[30:], y[30:])])
    assert len(probe.scores) == 21


def test_the_best_score_is_chosen_and_of_equals_the_stronger_penalty() -> None:
    for scores, expected in (([-1.0, -0.5, -1.0], 1), ([-1.0, -0.5, -0.5], 1), ([-1.0, -1.0, -1.0], 0)):
        probe = FittedProbe(torch.zeros(1), torch.ones(1), [], True, scores=scores)
        assert probe.index == expected


def test_an_undefined_metric_gives_way_to_the_log_loss() -> None:
    found = data(num_classes=2)
    flat = ProbeData(found.train, found.y, found.val, found.y_val * 0)
    (by_auroc,) = fit_probes(settings(select="auroc"), BINARY, [flat])
    (by_loss,) = fit_probes(settings(), BINARY, [flat])
    assert by_auroc.select == "log_loss"
    assert by_auroc.index == by_loss.index


def test_masked_findings_do_not_choose() -> None:
    y = np.array([[1, -1], [0, -1]])
    good = np.log(np.array([[[0.1, 0.9], [0.5, 0.5]], [[0.9, 0.1], [0.5, 0.5]]]))
    bad = np.log(np.array([[[0.5, 0.5], [0.01, 0.99]], [[0.5, 0.5], [0.01, 0.99]]]))
    assert validation_score(good, y, "log_loss", False) > validation_score(bad, y, "log_loss", False)


def test_strengths_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValidationError, match="must be above 0 and rise"):
        ProbeSettings(strength_range=(1.0, 0.1))
