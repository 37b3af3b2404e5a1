"""Convolutions with nine products: the library's numbers, and gradients that are transposes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trabecula.nets import conv, winograd
from trabecula.nets.winograd import convolve, convolve_back, kernel_gradient

SIDES = st.integers(1, 4).map(lambda quarter: 4 * quarter)


def make(
    batch: int, narrow: int, wide: int, height: int, width: int, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """A map, a kernel, a bias and a gradient of the result."""
    random = torch.Generator().manual_seed(batch + 10 * narrow + 100 * wide + 1000 * height + 10000 * width)
    shapes = (
        (batch, narrow, height, width),
        (wide, narrow, 4, 4),
        (wide,),
        (batch, wide, height // 2, width // 2),
    )
    x, kernel, bias, grad = (torch.randn(shape, generator=random, dtype=dtype) for shape in shapes)
    return x, kernel, bias, grad


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), SIDES, SIDES)
@settings(max_examples=40, deadline=None)
def test_results_and_gradients_are_those_of_torch(
    batch: int, narrow: int, wide: int, height: int, width: int
) -> None:
    x, kernel, bias, grad = make(batch, narrow, wide, height, width, torch.float64)
    x.requires_grad_()
    kernel.requires_grad_()
    y = F.conv2d(x, kernel, bias, stride=2, padding=1)
    of_x, of_kernel = torch.autograd.grad(y, (x, kernel), grad)
    with torch.no_grad():
        torch.testing.assert_close(convolve(x, kernel, bias, torch.matmul), y, rtol=0, atol=1e-12)
        torch.testing.assert_close(convolve_back(grad, kernel, torch.matmul), of_x, rtol=0, atol=1e-12)
        torch.testing.assert_close(kernel_gradient(grad, x, torch.matmul), of_kernel, rtol=0, atol=1e-11)


def test_gradients_are_the_transposes() -> None:
    x, kernel, _, grad = make(2, 3, 4, 8, 12, torch.float64)
    forward = (convolve(x, kernel, None, torch.matmul) * grad).sum()
    assert float((convolve_back(grad, kernel, torch.matmul) * x).sum()) == pytest.approx(
        float(forward), rel=1e-12
    )
    assert float((kernel_gradient(grad, x, torch.matmul) * kernel).sum()) == pytest.approx(
        float(forward), rel=1e-12
    )


def test_nine_products_of_the_smaller_matrices() -> None:
    x, kernel, _, _ = make(2, 3, 4, 8, 8, torch.float64)
    made: list[tuple[int, int, int]] = []

    def counted(a: Tensor, b: Tensor) -> Tensor:
        made.append((*a.shape, b.shape[1]))
        return a @ b

    convolve(x, kernel, None, counted)
    assert made == [(2 * 2 * 2, 4 * 3, 4)] * 9  # tiles of 2 x 2 results, four phases of 3 channels, 4 results


def test_rounding_is_little_more_than_the_library_s() -> None:
    x, kernel, bias, _ = make(8, 256, 64, 8, 8, torch.float32)
    exact = F.conv2d(x.double(), kernel.double(), bias.double(), 2, 1)
    library = (F.conv2d(x, kernel, bias, 2, 1) - exact).square().mean().sqrt()
    ours = (convolve(x, kernel, bias, torch.matmul) - exact).square().mean().sqrt()
    assert ours < 4 * library


@pytest.mark.parametrize(
    ("narrow", "side", "size", "step", "edge", "taken"),
    [
        (conv._NINE, 8, 4, 2, 1, True),
        (conv._NINE - 1, 8, 4, 2, 1, False),
        (conv._NINE, 6, 4, 2, 1, False),
        (conv._NINE, 8, 3, 2, 1, False),
        (conv._NINE, 8, 4, 1, 1, False),
        (conv._NINE, 8, 4, 2, 2, False),
    ],
)
def test_where_it_is_taken(
    narrow: int, side: int, size: int, step: int, edge: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv, "_ONEDNN", lambda a, b, *_: a @ b.t())
    calls: list[str] = []
    for name in ("convolve", "convolve_back", "kernel_gradient"):
        whole = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *args, w=whole, n=name: calls.append(n) or w(*args))
    x, kernel = torch.randn(2, narrow, side, side), torch.randn(3, narrow, size, size)
    y = F.conv2d(x, kernel, None, step, edge)
    grad = torch.randn_like(y)
    of_x, of_kernel, _ = torch.ops.aten.convolution_backward(
        grad, x, kernel, None, [step] * 2, [edge] * 2, [1, 1], False, [0, 0], 1, (True, True, False)
    )
    with torch.no_grad():
        torch.testing.assert_close(conv.convolve(x, kernel, None, step, edge), y, rtol=0, atol=3e-4)
        assert not calls  # a unit's sign decides about its gradient
        quick = conv.convolve(x, kernel, None, step, edge, signs=False)
        torch.testing.assert_close(quick, y, rtol=0, atol=3e-4)
        torch.testing.assert_close(conv.convolve_back(grad, x, kernel, step, edge), of_x, rtol=0, atol=3e-4)
        found = conv.kernel_gradient(grad, x, kernel, step, edge)
        torch.testing.assert_close(found, of_kernel, rtol=0, atol=3e-4)
    assert calls == (["convolve", "convolve_back", "kernel_gradient"] if taken else [])
