"""Exact L2-regularised multinomial logistic regression: all problems of a probe's grid in one solve.

One problem is a training subset; its path is the solution at each strength C of

    minimise over W, b:   sum_i w_i CE(softmax(W x_i + b), y_i) + ||W||^2 / (2 C)

with the intercept b unpenalised: C times this is the objective of scikit-learn's
`LogisticRegression(C=C)`, for two classes too (whose one weight vector is w = W_1 - W_0).

How it is solved. The optimum lies in the span of the centred images, and the penalty does not feel
rotations, so each subset is first rotated to the principal axes of its images: at most
min(n - 1, d) coordinates, in which the Hessian at W = 0 is diagonal. Then subsets of like size and
some strengths are solved together by a truncated Newton method (Nocedal and Wright, Numerical
Optimization, 2nd ed. 2006, algorithm 7.1) with preconditioned conjugate gradients
(`conjugate_gradients`), each strength starting from where the solved ones point.
Objective and gradient are float64; the inner products with the Hessian may be float32, which costs
steps but no exactness.

Solutions are smooth in log C. A coarse path is solved from the strong penalties to the weak, each start
extrapolated from the solutions before it; the strengths between are started from a polynomial through
their six nearest solutions, at halved distance each round: the last round, half of all strengths, starts
almost solved (`lots`, `start`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trabecula.transfer import conjugate_gradients
from trabecula.transfer.conjugate_gradients import Preconditioner

_MAX_ELEMENTS = 600_000  # of the design and of one value an image, class and strength: stays in cache
_PADDING = 1.25  # subsets whose sizes differ by more are not solved together
_TOGETHER = 7  # strengths solved together, at most
_ROUGH = 1e-8  # share of the variance below which inner products between images blur an axis
_MAX_STEPS = 30
_MAX_HALVINGS = 40
_COUPLED = 10  # with so many inner steps, axes are too correlated for the Hessian's diagonal alone
_SLOW = 10  # after so many steps the directions themselves are too coarse
_ARMIJO = 1e-4
_TINY = torch.finfo(torch.float64).tiny
_STRIDE = 4  # between neighbours of the coarse path; a power of two
_AHEAD = 2  # strengths of the coarse path solved together
_BEFORE = 2  # solutions an extrapolation goes through
_AROUND = 6  # and an interpolation
_EACH = ("coefficients", "intercepts", "objectives", "residuals", "converged", "steps")  # a row a strength
_LARGEST = 10.0  # sum of a start's absolute weights: beyond, it would magnify the solutions' errors


@dataclass(frozen=True)
class Problem:
    """One training subset: features (n, d), labels (n,) in 0..num_classes-1, image weights (n,) or None."""

    features: Tensor
    labels: Tensor
    num_classes: int
    weights: Tensor | None = None


@dataclass(frozen=True)
class StrengthPath:
    """The solutions of one problem, one per strength.

    Classes without a training image have no finite optimum (their intercept falls without end);
    `present` is False for them and their probability is 0.
    """

    strengths: NDArray[np.float64]  # (P,)
    centre: Tensor  # (d,)
    basis: Tensor  # (d, r): orthonormal columns
    coefficients: Tensor  # (P, K, r): weights in the basis
    intercepts: Tensor  # (P, K): of centred features, summing to zero over present classes
    present: Tensor  # (K,) bool
    objectives: Tensor  # (P,): the objective above
    residuals: Tensor  # (P,): ||gradient|| / (||W|| / C), a bound on the relative error of W
    converged: Tensor  # (P,) bool
    steps: Tensor  # (P,): Newton steps

    def weights(self, index: int) -> tuple[Tensor, Tensor]:
        """W (K, d) and b (K,) of one strength, for uncentred features; b is -inf for absent classes."""
        weights = self.coefficients[index] @ self.basis.T
        intercept = self.intercepts[index] - weights @ self.centre
        return weights, intercept.masked_fill(~self.present, -torch.inf)

    def extended(self, weaker: StrengthPath) -> StrengthPath:
        """With the solutions of weaker penalties, solved after these, behind its own."""
        parts = {name: torch.cat([getattr(self, name), getattr(weaker, name)]) for name in _EACH}
        return replace(self, strengths=np.concatenate([self.strengths, weaker.strengths]), **parts)

    def only(self, index: int) -> StrengthPath:
        """The solution at one strength alone."""
        one = slice(index, index + 1)
        return replace(
            self, strengths=self.strengths[one], **{name: getattr(self, name)[one] for name in _EACH}
        )

    def log_probabilities(self, features: Tensor) -> Tensor:
        """(m, d) -> (P, m, K), -inf for absent classes."""
        coordinates = (features.to(self.basis) - self.centre) @ self.basis  # (m, r)
        logits = torch.einsum("mr,pkr->pmk", coordinates, self.coefficients) + self.intercepts[:, None]
        return logits.masked_fill(~self.present, -torch.inf).log_softmax(-1)


def standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (d,) of features (n, d), in float64; 1 for constant features.

    To be measured on the training images of a subset only. A feature that is constant there gets
    no weight, whatever it does elsewhere.
    """
    wide = features.double()
    mean, std = wide.mean(0), wide.std(0, correction=0)
    return mean, torch.where(std > 1e-7 * mean.abs(), std, 1.0)


def solve(
    problems: Sequence[Problem], strengths: Sequence[float], tolerance: float = 1e-4,
    inner: torch.dtype = torch.float32, after: Sequence[StrengthPath] = (),
) -> list[StrengthPath]:  # fmt: skip
    """Solve every problem at every strength.

    Args:
        problems: one without images gives every class the same probability.
        strengths: C, positive, in any order; the paths keep that order. inner: of the Hessian products.
        tolerance: stop where ||gradient|| <= tolerance * ||W|| / C. As the objective is strongly convex in W
            with modulus 1/C, W is then exact to `tolerance` and the objective to its square, relatively.
        after: of each problem the solutions at smaller strengths, from which these are started.
    """
    problems = [_counting(problem) for problem in problems]
    ascending, inverse = np.unique(np.asarray(strengths, dtype=np.float64), return_inverse=True)
    back = torch.from_numpy(inverse)
    paths: dict[int, StrengthPath] = {}
    for members in _groups(problems):
        bundle = _Bundle([problems[i] for i in members], inner, [after[i] for i in members if after])
        solved = bundle.path(ascending, tolerance)
        for slot, i in enumerate(members):
            paths[i] = bundle.unpack(slot, solved, np.asarray(strengths, np.float64), back)
    return [paths.get(i) or _uniform(problem, strengths) for i, problem in enumerate(problems)]


def _uniform(problem: Problem, strengths: Sequence[float]) -> StrengthPath:
    """Without an image, the optimum is W = 0, b = 0: all classes alike."""
    d, P, K = problem.features.shape[1], len(strengths), problem.num_classes
    zeros = torch.zeros(P, dtype=torch.float64, device=problem.features.device)
    path = zeros.new_zeros(d), zeros.new_zeros(d, 0), zeros.new_zeros(P, K, 0), zeros.new_zeros(P, K)
    present = zeros.new_ones(K).bool()
    found = zeros, zeros, zeros == 0, zeros.long()
    return StrengthPath(np.asarray(strengths, np.float64), *path, present, *found)


def _counting(problem: Problem) -> Problem:
    """The problem without the images of weight 0, whose classes may be absent otherwise."""
    if problem.weights is None or bool((problem.weights > 0).all()):
        return problem
    rows = problem.weights > 0
    return Problem(problem.features[rows], problem.labels[rows], problem.num_classes, problem.weights[rows])


def _groups(problems: Sequence[Problem]) -> Iterator[list[int]]:
    """Problems of like size, small enough together; those without images are left out."""
    some = [i for i in range(len(problems)) if len(problems[i].labels)]
    order = sorted(some, key=lambda i: (problems[i].num_classes, len(problems[i].labels), i))
    group: list[int] = []
    for i in order:
        n, K = len(problems[i].labels), problems[i].num_classes
        if group:
            first = problems[group[0]]
            alike = first.num_classes == K and n <= _PADDING * len(first.labels) + 4
            width = max(min(problems[i].features.shape), K * _TOGETHER)
            if not alike or (len(group) + 1) * n * width > _MAX_ELEMENTS:
                yield group
                group = []
        group.append(i)
    if group:
        yield group


def _rotate(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, d) -> centre (d,), orthonormal basis (d, r), coordinates (n, r) along the principal axes."""
    features = features.double()
    centre = features.mean(0)
    centred = features - centre
    n, d = centred.shape
    if n <= d:
        squares, axes = torch.linalg.eigh(centred @ centred.T)  # ascending
        squares, axes = squares[1:], axes[:, 1:]  # all but the one that the centre takes up
        floor = max(_ROUGH * float(squares.sum()), 1e-20 * float(features.square().sum()))
        if n > 1 and float(squares[0]) > floor:
            lengths = squares.sqrt()
            return centre, centred.T @ (axes / lengths), axes * lengths
        span, triangle = torch.linalg.qr(centred.T)  # (d, n), (n, n)
        axes = torch.linalg.eigh(triangle @ triangle.T).eigenvectors
        return centre, span @ axes, triangle.T @ axes
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors
    return centre, axes, centred @ axes


@dataclass
class _State:
    """Solutions of S subsets at P strengths."""

    point: Tensor  # (S, P, K, R): coefficients, intercept last
    value: Tensor  # (S, P)
    residual: Tensor  # (S, P)
    converged: Tensor  # (S, P)
    steps: Tensor  # (S, P)


class _Bundle:
    """S subsets of like size, padded with images of weight 0 and axes of length 0.

    R = r + 1 coordinates: the axes, the longest last, then the intercept. Solutions are rows,
    (S, P, K, R): a product of few rows with a large matrix is several times as fast as of a large
    matrix with few columns.
    """

    def __init__(
        self, problems: Sequence[Problem], inner: torch.dtype, after: Sequence[StrengthPath] = ()
    ) -> None:
        self.after = after
        self.rotated = [
            (path.centre, path.basis, (problem.features.double() - path.centre) @ path.basis)
            for problem, path in zip(problems, after, strict=False)
        ] or [_rotate(problem.features) for problem in problems]
        S, K = len(problems), problems[0].num_classes
        n = max(len(p.labels) for p in problems)
        r = max(coordinates.shape[1] for _, _, coordinates in self.rotated)
        self.design = torch.zeros(S, n, r + 1, dtype=torch.float64, device=problems[0].features.device)
        self.image_weights = self.design.new_zeros(S, n)
        self.present = self.design.new_zeros(S, K).bool()
        labels = self.image_weights.long()
        for s, problem in enumerate(problems):
            coordinates, m = self.rotated[s][2], len(problem.labels)
            self.design[s, :m, r - coordinates.shape[1] : r] = coordinates
            self.design[s, :m, -1] = 1.0
            labels[s] = problem.labels[0]  # of padding: a class with a finite logit
            labels[s, :m] = problem.labels
            self.image_weights[s, :m] = 1.0 if problem.weights is None else problem.weights
            self.present[s, problem.labels] = True
        self.share = (self.present / self.present.sum(1, keepdim=True)).double()[:, None, :, None]
        self.inverse: Tensor | None = None  # of the leading axes' correlations, once they matter
        self.labels = labels[:, None, None]  # (S, 1, 1, n)
        self.inner = self.design.to(inner)
        self.absent = self.design.new_zeros(S, 1, K, 1)
        self.absent.masked_fill_(~self.present[:, None, :, None], -torch.inf)

    def path(self, strengths: NDArray[np.float64], tolerance: float) -> _State:
        """Solve ascending strengths, a few at a time, each lot from where the solved ones point."""
        (S, K), R = self.present.shape, self.design.shape[2]
        before = min(_BEFORE, *(len(path.strengths) for path in self.after)) if self.after else 0
        if before:
            strengths = np.concatenate([self.after[0].strengths[-before:], strengths])
        # a binary problem has one weight vector w = W_1 - W_0, and W_1 = -W_0 at the optimum:
        # ||w||^2 = 2 (||W_0||^2 + ||W_1||^2)
        penalties = (2.0 if K == 2 else 1.0) / torch.from_numpy(strengths).to(self.design.device)
        P = len(penalties)
        zeros = self.design.new_zeros(S, P)
        state = _State(zeros.new_zeros(S, P, K, R), zeros, zeros.clone(), zeros.bool(), zeros.long())
        for s, path in enumerate(self.after):
            state.point[s, :before, :, R - 1 - path.basis.shape[1] : -1] = path.coefficients[-before:]
            state.point[s, :before, :, -1] = path.intercepts[-before:]
        done, reference = list(range(before)), P
        for lot in ([before + i for i in few] for few in lots(P - before, _TOGETHER)):
            point = start(state.point, -penalties.log(), done, lot)
            inverse = self.inverse if lot[len(lot) // 2] > reference else None
            part, count = self._newton(point, penalties[lot], tolerance, self.inner, inverse)
            if self.inner.dtype != torch.float64 and not bool(part.converged.all()):
                # one image with two labels, almost no penalty: float32 curvature is too coarse
                part, _ = self._newton(part.point, penalties[lot], tolerance, self.design, None)
            for all_strengths, of_lot in zip(vars(state).values(), vars(part).values(), strict=True):
                all_strengths[:, lot] = of_lot
            done = sorted(done + lot)
            if self.inverse is None and count >= _COUPLED:
                reference = lot[-1]
                p = self._logits(part.point[:, -1:])[:, 0].softmax(1)
                curvature = (p * (1 - p) * self.image_weights[:, None]).to(self.inner)
                penalty = penalties[reference].to(self.inner)
                self.inverse = conjugate_gradients.inverse_correlations(self.inner, curvature, penalty)
        return _State(*(value[:, before:] for value in vars(state).values()))

    def unpack(self, slot: int, solved: _State, strengths: NDArray[np.float64], back: Tensor) -> StrengthPath:
        centre, basis, _ = self.rotated[slot]
        point, *rest = (value[slot, back] for value in vars(solved).values())
        coefficients = point[..., point.shape[-1] - 1 - basis.shape[1] : -1].contiguous()
        intercepts = point[..., -1].contiguous()
        return StrengthPath(strengths, centre, basis, coefficients, intercepts, self.present[slot], *rest)

    def _newton(
        self, point: Tensor, penalties: Tensor, tolerance: float, inner: Tensor, inverse: Tensor | None
    ) -> tuple[_State, int]:
        """Newton steps, each (subset, strength) stops on its own; also the largest number of inner steps."""
        S, P, _, _ = point.shape
        total = self.image_weights.sum(1, keepdim=True)  # (S, 1)
        steps, most = torch.zeros(S, P, dtype=torch.int64, device=point.device), 0
        logits = self._logits(point)
        value, probability, others = self._value(logits, point, penalties)
        for step in range(_MAX_STEPS + 1):
            errors = probability.scatter(2, self._index(P), -others).mul_(self.image_weights[:, None, None])
            gradient = _times(errors, self.design)
            gradient[..., :-1] += penalties[:, None, None] * point[..., :-1]
            norm = _norm(gradient)
            scale = penalties * _norm(point[..., :-1])
            converged = norm <= tolerance * scale + 1e-14 * total
            if step == _MAX_STEPS or bool(converged.all()):
                break
            forcing = (0.5 * (norm / total).sqrt()).clamp(1e-2, 0.1) * (1.0 if step < _SLOW else 1e-3)
            enough = 0.3 * tolerance * scale / norm.clamp(min=_TINY)
            forcing = torch.maximum(forcing, enough.clamp(max=0.3))
            system = gradient, probability, penalties
            move, count = self._direction(*system, forcing, converged, inner, inverse)
            most = max(most, count)
            there = point, logits, value, gradient
            point, logits, value, probability, others = self._search(*there, move, penalties, ~converged)
            steps += ~converged
        return _State(point, value, norm / scale.clamp(min=_TINY), converged, steps), most

    def _index(self, P: int) -> Tensor:
        return self.labels.expand(-1, P, -1, -1)

    def _logits(self, point: Tensor) -> Tensor:
        return _times(point, self.design.mT) + self.absent

    def _value(self, logits: Tensor, point: Tensor, penalties: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Objective (S, P), probabilities (S, P, K, n), and those of all wrong classes (S, P, 1, n).

        1 - p of the true class is summed from the others: where the classes are separated it is
        far below float64's eps, and both objective and gradient are made of it.
        """
        index = self._index(logits.shape[1])
        log_p = logits.log_softmax(2)
        probability = log_p.exp()
        others = probability.scatter(2, index, 0.0).sum(2, keepdim=True)
        loss = torch.where(others < 0.5, -torch.log1p(-others.clamp(max=0.5)), -log_p.gather(2, index))
        penalty = 0.5 * penalties * point[..., :-1].square().sum((2, 3))
        return penalty + (loss.squeeze(2) @ self.image_weights[:, :, None]).squeeze(2), probability, others

    def _direction(
        self, gradient: Tensor, probability: Tensor, penalties: Tensor, forcing: Tensor, idle: Tensor,
        design: Tensor, inverse: Tensor | None,
    ) -> tuple[Tensor, int]:  # fmt: skip
        """An approximate solution of Hessian @ move = -gradient, (S, P, K, R), in the design's dtype."""
        inner = design.dtype
        p = probability.to(inner)
        weighted = (probability * self.image_weights[:, None, None]).to(inner)
        index = self._index(p.shape[1])
        ridge = penalties.to(inner)[:, None, None]

        def hessian(v: Tensor) -> Tensor:
            u = _times(v, design.mT)  # (S, P, K, n)
            # relative to the true class: a curvature p(1-p) far below float32's eps stays accurate
            u -= u.gather(2, index)
            u *= weighted
            u -= p * u.sum(2, keepdim=True)
            product = _times(u, design)
            product[..., :-1] += ridge * v[..., :-1]
            return product

        diagonal = _times(weighted * (1 - p), design.square())
        diagonal[..., :-1] += ridge
        diagonal = torch.where(diagonal > 0, diagonal, 1.0)
        size = _norm(gradient).clamp(min=_TINY)[..., None, None]
        target = (-gradient / size).to(inner)
        precondition = Preconditioner(diagonal.rsqrt(), self.share.to(inner), inverse)
        move, count = conjugate_gradients.solve(hessian, precondition, target, forcing.to(inner), idle)
        move = move.double() * size
        downhill = (move * gradient).sum((2, 3)) < 0
        move = torch.where(downhill[..., None, None], move, -gradient / diagonal.double())
        # again in float64: the objective has no curvature but the penalty's against a common part
        return conjugate_gradients.zero_sum(move, self.share), count

    def _search(
        self, point: Tensor, logits: Tensor, value: Tensor, gradient: Tensor, move: Tensor,
        penalties: Tensor, active: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """Halve the step until the objective falls as it should (Armijo); idle problems stay put."""
        slope = (move * gradient).sum((2, 3))
        length = active.double()
        change = _times(move, self.design.mT)
        for _ in range(_MAX_HALVINGS):
            there = point + length[..., None, None] * move
            new_logits = logits + length[..., None, None] * change
            new, probability, others = self._value(new_logits, there, penalties)
            short = active & (new > value + _ARMIJO * length * slope + 1e-13 * value)
            if not bool(short.any()):
                break
            length = torch.where(short, length / 2, length)
        return there, new_logits, new, probability, others


def _times(rows: Tensor, matrix: Tensor) -> Tensor:
    """(S, P, K, a) times (S, a, b) -> (S, P, K, b)."""
    product = torch.bmm(rows.flatten(1, 2), matrix)
    return product.view(*rows.shape[:3], -1)


def _norm(x: Tensor) -> Tensor:
    """Of each problem: (S, P, K, R) -> (S, P)."""
    return torch.sqrt(x.square().sum((2, 3)))


def lots(count: int, most: int) -> Iterator[list[int]]:
    """Indices 0..count-1 of ascending strengths, each once, in lots of at most `most` to solve together."""
    done: set[int] = set()
    stride = _STRIDE
    while stride:
        waiting = [i for i in range(0, count, stride) if i not in done]
        if stride == _STRIDE and waiting[-1] != count - 1:
            waiting.append(count - 1)  # so that all others are between
        done.update(waiting)
        size = min(_AHEAD, most) if stride == _STRIDE else most
        number = -(-len(waiting) // size)
        for lot in range(number):
            yield waiting[lot * len(waiting) // number : (lot + 1) * len(waiting) // number]
        stride //= 2


def start(points: Tensor, log: Tensor, done: list[int], lot: list[int]) -> Tensor:
    """Polynomials in log C through the nearest solutions: (S, P, K, R) -> (S, len(lot), K, R).

    Args:
        points: of all strengths; those not in `done` are not used. log: (P,), ascending and distinct.
        done: indices of the solved strengths, ascending; without any, the start is 0. lot: those to start.
    """
    weights = torch.zeros(len(lot), len(log), dtype=torch.float64)
    place = log.tolist()
    for row, i in enumerate(lot):
        near = sorted(done, key=lambda j: abs(place[j] - place[i]))
        near = near[: _BEFORE if done and i > done[-1] else _AROUND]
        for j in near:
            ratios = [(place[i] - place[k]) / (place[j] - place[k]) for k in near if k != j]
            weights[row, j] = math.prod(ratios)
        if float(weights[row].abs().sum()) > _LARGEST:
            weights[row] = 0.0
            weights[row, near[0]] = 1.0
    return torch.einsum("lp,spkr->slkr", weights.to(points), points)
