"""The probes' solver against scikit-learn, its own optimality conditions and its symmetries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from trabecula.transfer import conjugate_gradients, logistic
from trabecula.transfer.few_labels import balanced_weights
from trabecula.transfer.logistic import Problem, StrengthPath, solve

STRENGTHS = (1e-5, 1e-3, 1e-1, 1.0, 1e2, 1e5)
HARD = ("random", "separable", "one image per class", "duplicates", "constant features", "missing class",
        "wide", "shifted", "scaled")  # fmt: skip


def problem(case: str, num_classes: int, seed: int = 0, weighted: bool = False) -> Problem:
    rng = np.random.default_rng(seed)
    n, d = (60, 8) if case == "random" else (30, 20)
    if case == "wide":
        n, d = 25, 120
    y = np.arange(n) % num_classes
    if case == "one image per class":
        n, y = num_classes, np.arange(num_classes)
    X = rng.normal(size=(n, d))
    if case == "separable":
        X[np.arange(n), y] += 8
    if case == "duplicates":
        X = np.concatenate([X, X[:, :5]], axis=1)
        X[1] = X[0]
    if case == "constant features":
        X[:, :6] = (0, 1, -3, 1e3, 0.1, 7)
    if case == "missing class":
        y = np.where(y == 1, 0, y)
    if case == "shifted":
        X += 100
    if case == "scaled":
        X *= np.logspace(-3, 2, d)
    labels = torch.from_numpy(y.astype(np.int64))
    weights = torch.from_numpy(balanced_weights(labels.numpy(), num_classes))[labels] if weighted else None
    return Problem(torch.from_numpy(X), labels, num_classes, weights)


def objective(p: Problem, W: Tensor, b: Tensor, strength: float, binary: bool | None = None) -> Tensor:
    """The objective written out; for tasks of two classes that of the one weight vector W_1 - W_0."""
    binary = p.num_classes == 2 if binary is None else binary
    weights = torch.ones(len(p.labels), dtype=torch.float64) if p.weights is None else p.weights
    logits = p.features.double() @ W.T + b
    loss = torch.nn.functional.cross_entropy(logits, p.labels, reduction="none")
    penalty = (W[1] - W[0]).square().sum() if binary else W.square().sum()
    return (weights * loss).sum() + penalty / (2 * strength)


def present_only(p: Problem, path: StrengthPath, i: int) -> tuple[Problem, Tensor, Tensor]:
    """The problem without its absent classes and with centred features: what scikit-learn can solve.

    The unpenalised intercept takes up the centre: the same problem, without its bad conditioning.
    """
    kept = path.present.nonzero().flatten()
    W, b = path.weights(i)
    labels = torch.searchsorted(kept, p.labels)
    centre = p.features.mean(0)
    return Problem(p.features - centre, labels, len(kept), p.weights), W[kept], (b + W @ centre)[kept]


def by_sklearn(p: Problem, strength: float, case: str) -> tuple[Tensor, Tensor]:
    # L-BFGS does not get to the optimum of badly scaled features in any number of steps
    solver = "newton-cholesky" if case == "scaled" else "lbfgs"
    model = LogisticRegression(C=strength, tol=1e-10, max_iter=50_000, solver=solver)
    weights = None if p.weights is None else p.weights.numpy()
    model.fit(p.features.numpy(), p.labels.numpy(), sample_weight=weights)
    W, b = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    return (torch.cat([-W, W]) / 2, torch.cat([-b, b]) / 2) if p.num_classes == 2 else (W, b)


@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("num_classes", [2, 4])
def test_objective_is_that_of_sklearn(case: str, num_classes: int) -> None:
    if case == "missing class" and num_classes == 2:
        pytest.skip("one class is left: scikit-learn refuses it")
    p = problem(case, num_classes, weighted=case in ("random", "separable"))
    (path,) = solve([p], STRENGTHS)
    assert bool(path.converged.all())
    for i, strength in enumerate(STRENGTHS):
        same, W, b = present_only(p, path, i)
        ours, theirs = (
            objective(same, W, b, strength),
            objective(same, *by_sklearn(same, strength, case), strength),
        )
        assert float(ours) == pytest.approx(float(path.objectives[i]), rel=1e-7)
        assert float(ours) <= float(theirs) * (1 + 1e-8) + 1e-12  # at least as good, whatever its tolerance
        assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("inner", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_gradient_vanishes(case: str, num_classes: int, inner: torch.dtype) -> None:
    if case == "missing class" and num_classes == 2:
        pytest.skip("one class is left: see test_single_class_is_certain")
    p = problem(case, num_classes, seed=3, weighted=True)
    (path,) = solve([p], STRENGTHS, 1e-6, inner)
    for i, strength in enumerate(STRENGTHS):
        same, W, b = present_only(p, path, i)
        W, b = W.clone().requires_grad_(), b.clone().requires_grad_()
        objective(same, W, b, strength, binary=num_classes == 2).backward()
        assert W.grad is not None
        assert b.grad is not None
        scale = float(W.detach().norm()) / strength + 1e-9 * len(p.labels)
        assert float(W.grad.norm()) <= 1e-5 * scale
        assert float(b.grad.norm()) <= 1e-5 * scale


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), K=st.integers(2, 5), strength=st.sampled_from(STRENGTHS))
def test_no_point_on_a_line_through_the_solution_is_lower(seed: int, K: int, strength: float) -> None:
    """The objective is convex: along t it is least at the solution, and never above its chord."""
    p = problem("random", K, seed)
    (path,) = solve([p], [strength], 1e-6)
    W, b = path.weights(0)
    g = torch.Generator().manual_seed(seed)
    V = W + torch.randn(W.shape, generator=g, dtype=torch.float64)
    best, end = float(objective(p, W, b, strength)), float(objective(p, V, b, strength))
    for t in (1e-3, 0.1, 0.5):
        value = float(objective(p, W + t * (V - W), b, strength))
        assert best * (1 - 1e-9) <= value <= (1 - t) * best + t * end + 1e-9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), K=st.integers(2, 4), wide=st.booleans())
def test_rotated_and_shifted_features_give_the_same_probabilities(seed: int, K: int, wide: bool) -> None:
    p = problem("wide" if wide else "random", K, seed)
    d = p.features.shape[1]
    g = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64))
    shift = torch.randn(d, generator=g, dtype=torch.float64)
    (a,) = solve([p], STRENGTHS, 1e-6)
    (b,) = solve([Problem(p.features @ Q + shift, p.labels, K)], STRENGTHS, 1e-6)
    new = torch.randn(7, d, generator=g, dtype=torch.float64)
    torch.testing.assert_close(
        a.log_probabilities(new).exp(), b.log_probabilities(new @ Q + shift).exp(), rtol=0, atol=1e-4
    )


def test_together_is_one_at_a_time() -> None:
    problems = [problem(case, 3, seed) for seed, case in enumerate(HARD)]
    problems += [problem("random", 2, 5), problem("wide", 5, 6)]
    together = solve(problems, STRENGTHS, tolerance=1e-9, inner=torch.float64)
    for p, path in zip(problems, together, strict=True):
        (alone,) = solve([p], STRENGTHS, tolerance=1e-9, inner=torch.float64)
        torch.testing.assert_close(
            path.log_probabilities(p.features).exp(), alone.log_probabilities(p.features).exp(),
            rtol=0, atol=1e-6,
        )  # fmt: skip
        torch.testing.assert_close(path.objectives, alone.objectives, rtol=1e-9, atol=1e-12)


def test_strengths_keep_their_order() -> None:
    p = problem("random", 3)
    (up,), (down,) = solve([p], STRENGTHS, 1e-6), solve([p], STRENGTHS[::-1], 1e-6)
    torch.testing.assert_close(up.objectives, down.objectives.flip(0), rtol=1e-9, atol=0)
    norms = up.coefficients.square().sum((1, 2))
    assert bool((norms.diff() > 0).all())


def test_absent_class_has_probability_zero() -> None:
    p = problem("missing class", 4)
    (path,) = solve([p], STRENGTHS)
    probability = path.log_probabilities(p.features).exp()
    assert path.present.tolist() == [True, False, True, True]
    assert float(probability[..., 1].max()) == 0.0
    torch.testing.assert_close(probability.sum(-1), torch.ones_like(probability[..., 0]))


def test_weights_sum_to_zero_over_present_classes() -> None:
    for case in HARD:
        (path,) = solve([problem(case, 4, 1, weighted=True)], STRENGTHS)
        scale = 1e-12 * (1 + float(path.coefficients.abs().max()) + float(path.intercepts.abs().max()))
        assert float(path.coefficients.sum(1).abs().max()) <= scale
        assert float(path.intercepts.sum(1).abs().max()) <= scale
        assert float(path.coefficients[:, ~path.present].abs().sum()) == 0.0


def test_single_class_is_certain() -> None:
    p = problem("missing class", 2)
    (path,) = solve([p], STRENGTHS)
    assert path.log_probabilities(p.features).exp()[..., 0].min() == 1.0
    assert float(path.coefficients.abs().max()) == 0.0


def test_weights_count_images() -> None:
    """A weight of 2 is the image twice, a weight of 0 is the image left out."""
    p = problem("random", 3)
    counts = torch.arange(len(p.labels)) % 4
    rows = torch.repeat_interleave(torch.arange(len(p.labels)), counts)
    (weighted,) = solve([Problem(p.features, p.labels, 3, counts.double())], STRENGTHS, tolerance=1e-8)
    (repeated,) = solve([Problem(p.features[rows], p.labels[rows], 3)], STRENGTHS, tolerance=1e-8)
    torch.testing.assert_close(
        weighted.log_probabilities(p.features), repeated.log_probabilities(p.features), rtol=1e-5, atol=1e-6
    )


def test_balanced_weights_are_those_of_sklearn() -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    labels = np.array([0, 0, 0, 2, 2, 3])
    expected = compute_sample_weight("balanced", labels)
    np.testing.assert_allclose(balanced_weights(labels, 5)[labels], expected, rtol=1e-12)


def test_saved_weights_are_the_solution() -> None:
    p = problem("shifted", 3)
    (path,) = solve([p], STRENGTHS)
    for i in range(len(STRENGTHS)):
        W, b = path.weights(i)
        torch.testing.assert_close(
            (p.features @ W.T + b).log_softmax(1), path.log_probabilities(p.features)[i], rtol=0, atol=1e-8
        )


def test_correlated_axes_save_inner_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    inner = conjugate_gradients.solve

    def counting(*args: Any) -> tuple[Tensor, int]:
        move, count = inner(*args)
        counts.append(count)
        return move, count

    monkeypatch.setattr(conjugate_gradients, "solve", counting)
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.normal(size=(200, 60)) * np.arange(1, 61) ** -0.6)
    p = Problem(X, torch.arange(200) % 5, 5)
    totals = []
    for coupled in (logistic._COUPLED, 10_000):
        monkeypatch.setattr(logistic, "_COUPLED", coupled)
        (path,) = solve([p], np.logspace(-5, 5, 50).tolist())
        assert bool(path.converged.all())
        totals.append(sum(counts))
        counts.clear()
    assert totals[0] < 0.75 * totals[1], totals
