"""Brightness and contrast of painted patches, from the picture around them.

A masked autoencoder with normalised targets says what a hidden patch looks like, but for its mean and its
standard deviation. Both are fitted here, by least squares: pixels on the two sides of a seam should be
equal, and both should be near those of visible patches around. What was hidden enters nowhere.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

_REACH = 1.5  # patches at which a visible patch's say has fallen to exp(-1/2)
_BRIGHTNESS = 0.01  # weight of the surroundings against the four seams, which have 1 each
_CONTRAST = 3.0


def fill_in(pixels: Tensor, predicted: Tensor, mask: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Predicted patches at the brightness and contrast that fit their surroundings.

    Args:
        pixels: (B, L, patch * patch * C); what hidden patches hold is not read.
        predicted: (B, L, patch * patch * C), each patch up to its mean and standard deviation.
        mask: (B, L) bool, True for hidden; some patches of each image are visible.

    Returns:
        (B, L, patch * patch * C): the visible patches as they are, and the others filled in.
    """
    filled = []
    for seen, said, hidden in zip(
        pixels.double().cpu().numpy(), predicted.double().cpu().numpy(), mask.cpu().numpy(), strict=True
    ):
        values = np.where(hidden[:, None], said, seen)
        mean, deviation = _levels(values, hidden, patch, grid)
        filled.append(mean[:, None] + deviation[:, None] * values)
    return torch.from_numpy(np.stack(filled)).to(pixels)


def _levels(
    values: NDArray[np.float64], hidden: NDArray[np.bool_], patch: int, grid: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is added to each patch (L,), and what it is multiplied by (L,): 0 and 1 for visible ones."""
    number = len(values)
    near_mean, near_deviation = _surroundings(values, hidden, grid)
    level = np.concatenate([np.where(hidden, near_mean, 0), np.where(hidden, near_deviation, 1)])
    seams = _seams(values, patch, grid)
    free = np.concatenate([hidden, hidden])
    prior = np.repeat([_BRIGHTNESS, _CONTRAST], number)[free]
    ours = seams[:, free]
    # (S' S + P) change = -S' (S level): the least change from the surroundings that closes the seams
    system = (ours.T @ ours + sparse.diags_array(prior)).tocsc()
    level[free] += np.atleast_1d(spsolve(system, -(ours.T @ (seams @ level))))
    return level[:number], np.maximum(level[number:], 0)


def _surroundings(
    values: NDArray[np.float64], hidden: NDArray[np.bool_], grid: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (L,) of the visible patches around each patch, the nearer the more."""
    places = np.stack(np.unravel_index(np.arange(len(values)), grid), axis=1)
    seen = values[~hidden]
    squares = ((places[:, None] - places[None, ~hidden]) ** 2).sum(2)
    weight = np.exp(-(squares - squares.min(1, keepdims=True)) / (2 * _REACH**2))
    weight /= weight.sum(1, keepdims=True)
    return weight @ seen.mean(1), weight @ seen.std(1)


def _seams(values: NDArray[np.float64], patch: int, grid: tuple[int, int]) -> sparse.csr_array:
    """(pixels on seams, 2 L): times (added, multiplied) the differences across seams; a seam weighs 1."""
    number = len(values)
    pixels = values.reshape(*grid, patch, patch, -1)
    place = np.arange(number).reshape(grid)
    rows, columns, entries = [], [], []
    first = 0
    for one, other, near, far in (
        (place[:, :-1], place[:, 1:], pixels[:, :-1, :, -1], pixels[:, 1:, :, 0]),
        (place[:-1], place[1:], pixels[:-1, :, -1], pixels[1:, :, 0]),
    ):
        count, length = one.size, int(np.prod(near.shape[2:]))
        row = first + np.arange(count * length)
        for at, edge, sign in ((one, near, 1.0), (other, far, -1.0)):
            column = np.repeat(at.ravel(), length)
            rows += [row, row]
            columns += [column, column + number]
            entries += [np.full(row.size, sign), sign * edge.ravel()]
        entries[-4:] = [part / np.sqrt(length) for part in entries[-4:]]
        first += count * length
    where = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_array((np.concatenate(entries), where), shape=(first, 2 * number))
