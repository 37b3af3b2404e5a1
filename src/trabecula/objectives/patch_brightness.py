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

Numbers = NDArray[np.float64]


def fill_in(pixels: Tensor, predicted: Tensor, mask: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Visible patches as they are, predicted ones at the brightness and contrast of their surroundings.

    Args:
        pixels: (B, L, patch * patch * C), as the result; what hidden patches hold is not read.
        predicted: (B, L, patch * patch * C), each patch up to its mean and standard deviation.
        mask: (B, L) bool, True for hidden; some patches of each image are visible.
    """
    filled = []
    whole = torch.where(mask[:, :, None], predicted.double(), pixels.double())
    for values, hidden in zip(whole.cpu().numpy(), mask.cpu().numpy(), strict=True):
        mean, deviation = _levels(values, hidden, patch, grid)
        filled.append(mean[:, None] + deviation[:, None] * values)
    return torch.from_numpy(np.stack(filled)).to(pixels)


def _levels(
    values: Numbers, hidden: NDArray[np.bool_], patch: int, grid: tuple[int, int]
) -> tuple[Numbers, Numbers]:
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
    values: Numbers, hidden: NDArray[np.bool_], grid: tuple[int, int]
) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation (L,) of the visible patches around each patch, the nearer the more."""
    places = np.stack(np.unravel_index(np.arange(len(values)), grid), axis=1)
    seen = values[~hidden]
    squares = ((places[:, None] - places[None, ~hidden]) ** 2).sum(2)
    weight = np.exp(-(squares - squares.min(1, keepdims=True)) / (2 * _REACH**2))
    weight /= weight.sum(1, keepdims=True)
    return weight @ seen.mean(1), weight @ seen.std(1)


def _seams(values: Numbers, patch: int, grid: tuple[int, int]) -> sparse.csr_array:
    """(pixels on seams, 2 L): times (added, multiplied) the differences across seams; a seam weighs 1."""
    number = len(values)
    pixels, place = values.reshape(*grid, patch, patch, -1), np.arange(number).reshape(grid)

    def edges(patches: NDArray[np.int64], edge: Numbers) -> sparse.csr_array:
        """Of one side of the seams: the patches there, and their pixels along the seams."""
        length = edge[0, 0].size
        column = np.repeat(patches.ravel(), length)
        row = np.arange(column.size)
        entries = np.concatenate([np.ones(row.size), edge.ravel()]) / np.sqrt(length)
        where = (np.concatenate([row, row]), np.concatenate([column, column + number]))
        return sparse.csr_array((entries, where), shape=(row.size, 2 * number))

    across = edges(place[:, :-1], pixels[:, :-1, :, -1]) - edges(place[:, 1:], pixels[:, 1:, :, 0])
    down = edges(place[:-1], pixels[:-1, :, -1]) - edges(place[1:], pixels[1:, :, 0])
    return sparse.vstack([across, down], format="csr")
