"""Convolutions with nine products: the library's numbers, and gradients that are transposes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trabecula.kernels import conv, winograd
from trabecula.kernels import matmul as products
from trabecula.kernels.winograd import convolve, convolve_back, kernel_gradient
from trabecula.nets.critic import Critic
from trabecula.nets.input_gradient import input_gradient, scores

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


def test_nine_products_of_the_smaller_matrices() -> None:
    x, kernel, _, _ = make(2, 3, 4, 8, 8, torch.float64)
    made: list[tuple[int, int, int]] = []

    def counted(a: Tensor, b: Tensor) -> Tensor:
        made.append((*a.shape, b.shape[1]))
        return a @ b

    convolve(x, kernel, None, counted)
    assert made == [(2 * 2 * 2, 4 * 3, 4)] * 9  # tiles of 2 x 2 results, four phases of 3 channels, 4 results


@torch.no_grad()
def test_rounding_of_the_products_that_are_used() -> None:
    x, kernel, bias, grad = make(8, 256, 64, 8, 8, torch.float32)
    exact = [t.double().requires_grad_() for t in (x, kernel)]
    with torch.enable_grad():
        y = F.conv2d(exact[0], exact[1], bias.double(), 2, 1)
        of_x, of_kernel = torch.autograd.grad(y, exact, grad.double())
    ours = (
        convolve(x, kernel, bias, products.matmul),
        convolve_back(grad, kernel, products.matmul),
        kernel_gradient(grad, x, products.matmul),
    )
    for found, wanted, most in zip(ours, (y, of_x, of_kernel), (3e-6, 1e-6, 1.3e-6), strict=True):
        assert float((found - wanted).norm() / wanted.norm()) < most  # measured: 9e-7, 3e-7 and 4e-7


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the functions as they are called."""
    calls: list[str] = []
    for name in ("convolve", "convolve_back", "kernel_gradient"):
        whole = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *args, w=whole, n=name: calls.append(n) or w(*args))
    return calls


CHANNELS = 16


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine products are taken for small layers too, as if they were fast there."""
    monkeypatch.setattr(conv, "_LONG", 4)


@pytest.mark.parametrize(
    ("batch", "side", "narrow", "wide", "taken"),
    [
        (64, 8, 256, 512, True),
        (64, 16, 128, 256, True),
        (32, 8, 256, 512, False),  # too few tiles for what the kernels cost
        (64, 4, 256, 512, False),
        (64, 16, 128, 128, False),
        (64, 16, 32, 256, False),
    ],
)
def test_layers_it_is_taken_for(
    batch: int, side: int, narrow: int, wide: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of critics for 64 px, at batches that train them."""
    monkeypatch.setattr(products, "_ONEDNN", torch.matmul)
    x, kernel = torch.empty(batch, narrow, side, side), torch.empty(wide, narrow, 4, 4)
    with torch.no_grad():
        assert conv._takes_nine_products(x, kernel, 2, 1) is taken


@torch.no_grad()
def test_matrices_lie_in_order() -> None:
    """Rows far apart, as views of maps of 4 x 4 have them, make oneDNN's product hundreds of times slower."""
    x, kernel, _, grad = make(3, 5, 6, 4, 4, torch.float64)

    def checked(a: Tensor, b: Tensor) -> Tensor:
        assert all(one.is_contiguous() or one.t().is_contiguous() for one in (a, b))
        return a @ b

    convolve(x, kernel, None, checked)
    convolve_back(grad, kernel, checked)
    kernel_gradient(grad, x, checked)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("shape", "wide", "size", "step", "edge", "taken"),
    [
        ((CHANNELS, 8, 8), CHANNELS, 4, 2, 1, True),
        ((3, 8, 8), CHANNELS, 4, 2, 1, False),
        ((CHANNELS, 8, 8), CHANNELS // 2, 4, 2, 1, False),
        ((CHANNELS, 4, 4), CHANNELS, 4, 2, 1, False),
        ((CHANNELS, 6, 8), CHANNELS, 4, 2, 1, False),
        ((CHANNELS, 8, 6), CHANNELS, 4, 2, 1, False),
        ((CHANNELS, 8, 8), CHANNELS, 3, 2, 1, False),
        ((CHANNELS, 8, 8), CHANNELS, 4, 1, 1, False),
        ((CHANNELS, 8, 8), CHANNELS, 4, 2, 2, False),
    ],
)
def test_where_it_is_taken(
    shape: tuple[int, ...],
    wide: int,
    size: int,
    step: int,
    edge: int,
    taken: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "_ONEDNN", lambda a, b, *_: a @ b.t())
    calls = counted(monkeypatch)
    x, kernel = torch.randn(2, *shape), torch.randn(wide, shape[0], size, size)
    y = F.conv2d(x, kernel, None, step, edge)
    grad = torch.randn_like(y)
    of_x, of_kernel, _ = torch.ops.aten.convolution_backward(
        grad, x, kernel, None, [step] * 2, [edge] * 2, [1, 1], False, [0, 0], 1, (True, True, False)
    )
    with torch.no_grad():
        torch.testing.assert_close(conv.convolve(x, kernel, None, step, edge), y, rtol=0, atol=5e-4)
        assert not calls  # a unit's sign decides about its gradient
        quick = conv.convolve(x, kernel, None, step, edge, signs=False)
        torch.testing.assert_close(quick, y, rtol=0, atol=5e-4)
        torch.testing.assert_close(conv.convolve_back(grad, x, kernel, step, edge), of_x, rtol=0, atol=5e-4)
        found = conv.kernel_gradient(grad, x, kernel, step, edge)
        torch.testing.assert_close(found, of_kernel, rtol=0, atol=5e-4)
    assert calls == (["convolve", "convolve_back", "kernel_gradient"] if taken else [])


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("why", ["bf16", "gradients", "no oneDNN"])
def test_where_it_cannot_be_taken(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    x, kernel = torch.randn(2, CHANNELS, 8, 8), torch.randn(CHANNELS, CHANNELS, 4, 4)
    if why == "bf16":
        x, kernel = x.bfloat16(), kernel.bfloat16()
    monkeypatch.setattr(products, "_ONEDNN", None if why == "no oneDNN" else lambda a, b, *_: a @ b.t())
    with torch.set_grad_enabled(why == "gradients"):
        conv.convolve(x, kernel, None, 2, 1, signs=False)
        conv.kernel_gradient(torch.randn(2, CHANNELS, 4, 4, dtype=x.dtype), x, kernel, 2, 1)
    assert calls == []


@pytest.mark.usefixtures("short")
@pytest.mark.skipif(products._ONEDNN is None, reason="this torch has no oneDNN product")
def test_nine_products_where_no_sign_depends_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    critic = Critic(1, 32, (2, 8, 16))
    x = torch.randn(3, 1, 32, 32)
    found = scores(critic, x)
    assert calls == []  # signs of units
    found.sum().backward()
    assert calls == ["kernel_gradient", "convolve_back"]
    calls.clear()
    slope = input_gradient(critic, x)
    assert calls == ["convolve_back"]
    slope.square().sum().backward()
    assert calls == ["convolve_back", "kernel_gradient", "convolve"]
