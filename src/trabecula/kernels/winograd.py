"""Convolutions with kernels of 4 and stride 2, a critic's, with 9 products in the place of 16.

A result of such a convolution sees four rows of the padded map, two even and two odd ones, so it is the sum
of two convolutions with kernels of 2 and stride 1, one of each phase. With a kernel (g0, g1) two neighbouring
results cost three products instead of four (Winograd 1980, "Arithmetic Complexity of Computations"; F(2, 2)
in the notation of Lavin and Gray 2016, arXiv 1509.09308):

    x0 g0 + x1 g1 = (x0 - x1) g0 + x1 (g0 + g1)
    x1 g0 + x2 g1 = x1 (g0 + g1) + (x2 - x1) g1

and likewise along columns. All factors are 1 or -1; still, results are rounded about three times as much as a
library's, gradients less than twice. Three linear maps (of maps to tiles, of kernels to factors, of products
to results) or their transposes make both gradients too.

Maps are (B, C, H, W) with H and W multiples of 4, kernels (O, C, 4, 4), the padding is 1. Nothing here
carries a gradient. `matmul` takes two matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise, product

import torch
from torch import Tensor

Matmul = Callable[[Tensor, Tensor], Tensor]
Grid = list[list[Tensor]]  # [row][column], three rows of three tensors


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, matmul: Matmul) -> Tensor:
    """`F.conv2d(x, kernel, bias, stride=2, padding=1)`."""
    height, width = (side // 4 for side in x.shape[2:])
    products = _each(lambda tile, factor: matmul(tile, factor.t()), _tiles(x), _factors(kernel))
    y = x.new_empty(len(x), height, 2, width, 2, len(kernel))
    _sum(products, y.permute(2, 4, 0, 1, 3, 5))
    y = y.flatten(3, 4).flatten(1, 2)
    return (y if bias is None else y.add_(bias)).permute(0, 3, 1, 2)


def convolve_back(grad: Tensor, kernel: Tensor, matmul: Matmul) -> Tensor:
    """The gradient in `x`, from that in the result."""
    shape = (len(grad), grad.shape[2] // 2, grad.shape[3] // 2, 2, 2, kernel.shape[1])
    tiles = _each(matmul, _spread(grad), _factors(kernel))
    phases = _joined([_joined([tile.view(shape) for tile in row], 2) for row in tiles], 1)
    x = grad.new_empty(len(grad), 2 * grad.shape[2], 2 * grad.shape[3], kernel.shape[1])
    for of_phase, of_map in _phases(phases, x):
        of_map.copy_(of_phase)
    return x.permute(0, 3, 1, 2)


def kernel_gradient(grad: Tensor, x: Tensor, matmul: Matmul) -> Tensor:
    """The gradient in the kernel, from that in the result."""
    products = _each(lambda part, tile: matmul(part.t(), tile), _spread(grad), _tiles(x))
    found = x.new_empty(grad.shape[1], 2, 2, 2, 2, x.shape[1])  # tap and phase of the row, then of the column
    _sum(products, found.permute(1, 3, 0, 2, 4, 5))
    return found.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _each(multiply: Matmul, first: Grid, second: Grid) -> Grid:
    return [[multiply(a, b) for a, b in zip(x, y, strict=True)] for x, y in zip(first, second, strict=True)]


def _tiles(x: Tensor) -> Grid:
    """Maps to tiles: (tiles, 4 C) each, the phases side by side."""
    maps = x.permute(0, 2, 3, 1)
    batch, height, width, channels = maps.shape
    phases = x.new_zeros(batch, height // 2 + 1, width // 2 + 1, 2, 2, channels)
    for of_phase, of_map in _phases(phases, maps):
        of_phase.copy_(of_map)
    return [
        [part.reshape(-1, 4 * channels).contiguous() for part in _differences(row, 2)]
        for row in _differences(phases, 1)
    ]


def _phases(phases: Tensor, maps: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Where each phase of padded maps stands, and where in the maps (B, H, W, C) it is from."""
    for row, column in product(range(2), repeat=2):  # row 2 a + r of the padded map is row 2 a + r - 1
        rows, columns = (slice(1 - r, phases.shape[1 + k] - r) for k, r in enumerate((row, column)))
        yield phases[:, rows, columns, row, column], maps[:, 1 - row :: 2, 1 - column :: 2]


def _differences(x: Tensor, dim: int) -> list[Tensor]:
    first, middle, last = _places(x, dim)
    return [first - middle, middle, last - middle]


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    """The transpose of `_differences`."""
    first, middle, last = parts
    shape = list(first.shape)
    shape[dim] = 2 * shape[dim] + 1
    x = first.new_empty(shape)
    at_first, at_middle, at_last = _places(x, dim)
    at_middle.copy_(middle).sub_(first).sub_(last)
    at_first.copy_(first)
    x.select(dim, -1).zero_()
    at_last.add_(last)
    return x


def _places(x: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """First, middle and last places of tiles of three; the last of one tile is the first of the next."""
    before = (slice(None),) * dim
    return x[(*before, slice(0, -1, 2))], x[(*before, slice(1, None, 2))], x[(*before, slice(2, None, 2))]


def _factors(kernel: Tensor) -> Grid:
    """Kernels to factors: (O, 4 C) each, phases as in `_tiles`."""
    taps = kernel.permute(0, 2, 3, 1).contiguous()  # once: sums over scattered channels take long
    taps = taps.unflatten(2, (2, 2)).unflatten(1, (2, 2))
    return [
        [part.reshape(len(kernel), -1) for part in row] for row in _triples(taps.permute(1, 3, 0, 2, 4, 5))
    ]


def _spread(grad: Tensor) -> Grid:
    """Results to products, the transpose of `_sum`: (tiles, O) each."""
    tiled = grad.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    return [
        [part.reshape(-1, grad.shape[1]).contiguous() for part in row]
        for row in _triples(tiled.permute(2, 4, 0, 1, 3, 5))
    ]


def _triples(pairs: Tensor) -> Grid:
    """(2, 2, ...) -> first, first + second and second, along both."""
    return [[row[0], row[0] + row[1], row[1]] for row in (pairs[0], pairs[0] + pairs[1], pairs[1])]


def _sum(products: Grid, into: Tensor) -> None:
    """Products to results (2, 2, ...), the transpose of `_triples`."""
    for row, (above, below) in zip(into, pairwise(products), strict=True):
        sums = [first + second for first, second in zip(above, below, strict=True)]
        for place, (left, right) in zip(row, pairwise(sums), strict=True):
            torch.add(left.view(place.shape), right.view(place.shape), out=place)
