"""The order in which a path of strengths is solved, and where each of its solutions is looked for.

Solutions are smooth in log C. A coarse path is solved from the strong penalties to the weak, each
start extrapolated from the solutions before it; the strengths between are started from a polynomial
through their six nearest solutions, at halved distance each round: the last round, half of all
strengths, starts almost solved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_STRIDE = 4  # between neighbours of the coarse path; a power of two
_AHEAD = 2  # strengths of the coarse path solved together
_BEFORE = 2  # solutions an extrapolation goes through
_AROUND = 6  # and an interpolation
_LARGEST = 10.0  # sum of a start's absolute weights: beyond, it would magnify the solutions' errors


def lots(count: int, most: int) -> Iterator[list[int]]:
    """Indices 0..count-1 of ascending strengths, each once, in lots of at most `most` to solve together."""
    done: set[int] = set()
    stride = _STRIDE
    while stride:
        waiting = [i for i in range(0, count, stride) if i not in done]
        if stride == _STRIDE and waiting[-1] != count - 1:
            waiting.append(count - 1)  # so that all others lie between
        done.update(waiting)
        size = min(_AHEAD, most) if stride == _STRIDE else most
        number = -(-len(waiting) // size)
        for lot in range(number):
            yield waiting[lot * len(waiting) // number : (lot + 1) * len(waiting) // number]
        stride //= 2


def start(points: Tensor, log: Tensor, done: list[int], lot: list[int]) -> Tensor:
    """Polynomials in log C through the nearest solutions: (S, P, K, R) -> (S, len(lot), K, R).

    Args:
        points: of all strengths; those not in `done` are not used.
        log: (P,) of the strengths, ascending and distinct.
        done: indices of the solved strengths, ascending; without any, the start is 0.
        lot: indices of the strengths to start.
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
