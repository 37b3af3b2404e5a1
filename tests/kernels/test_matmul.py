"""Inner products by oneDNN, and the measures that read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trabecula.kernels import matmul as products
from trabecula.kernels.matmul import inner_products
from trabecula.metrics import gram
from trabecula.metrics.fidelity import fidelity, kernel_distance


def _features(seed: int, num: int, length: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(num, length)).astype(np.float32)


@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (5, 3, 7), (300, 17, 64), (257, 129, 500)])
def test_products_are_as_close_as_float32_allows(n: int, m: int, d: int) -> None:
    first, second = _features(0, n, d), _features(1, m, d)
    ours = inner_products(first, second)
    assert (ours.shape, ours.dtype) == ((n, m), np.float32)
    exact = first.astype(np.float64) @ second.astype(np.float64).T
    lengths = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)
    assert (np.abs(ours - exact) <= 8 * d**0.5 * np.finfo(np.float32).eps / 2 * lengths).all()


def test_without_onednn_products_are_numpy_s(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _features(0, 30, 8), _features(1, 20, 8)
    monkeypatch.setattr(products, "_ONEDNN", None)
    np.testing.assert_array_equal(inner_products(first, second), first @ second.T)


class Counted:
    """The product, and how many numbers each call made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        self.made.append(len(first) * len(second))
        return inner_products(first, second)


def _of_half(num: int, rows: int) -> int:
    return sum(min(rows, num - start) * (num - start) for start in range(0, num, rows))


@pytest.mark.parametrize(
    ("num", "memory", "rows"),
    [(301, gram.MEMORY, (128, 128)), (700, gram.MEMORY, (140, 132)), (700, 0, (128, 128))],
)
def test_the_upper_half_gives_the_whole_kernel_distance(
    num: int, memory: int, rows: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram, "MEMORY", memory)
    x, y, patients = _features(2, num, 40), 1.2 * _features(3, num - 44, 40), np.arange(num) // 2
    counted = Counted()
    found = kernel_distance(x, y, patients, subsets=True, dtype=np.float32, product=counted)
    exact = kernel_distance(x, y, patients, subsets=True, dtype=np.float64)
    for name in ("value", "error", "subsets_mean", "subsets_sd"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=1e-4)
    assert sum(counted.made) == _of_half(len(x), rows[0]) + _of_half(len(y), rows[1]) + len(x) * len(y)


def test_neighbours_read_whole_rows_of_these_products() -> None:
    x, y = _features(4, 400, 30), 1.2 * _features(5, 350, 30)
    counted = Counted()
    found = fidelity(x, y, dtype=np.float32, product=counted)
    alone = fidelity(x, y)
    assert found.manifold == alone.manifold
    assert found.kernel.value == pytest.approx(alone.kernel.value, rel=1e-4)
    assert sum(counted.made) == 400**2 + 350**2 + 400 * 350


def test_float64_is_never_narrowed() -> None:
    x, y = _features(6, 50, 10), _features(7, 50, 10)
    sets = gram.shifted(x, y, product=lambda *_: pytest.fail("a float32 product of float64 features"))
    blocks = [block for _, block in sets.blocks(sets.reals, sets.fakes)]
    np.testing.assert_array_equal(np.concatenate(blocks), sets.reals @ sets.fakes.T)
