"""Linear layers by oneDNN's product: the library's numbers and gradients, and only where they are quicker."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from trabecula.kernels import linear
from trabecula.kernels import matmul as products
from trabecula.kernels.linear import ProductLinear, use_product_linears


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the products, all of which are taken, however small; made by `@`."""
    made: list[tuple[int, ...]] = []

    def product(a: Tensor, b: Tensor, *_: object) -> Tensor:
        made.append((*a.shape, len(b)))
        return a @ b.t()

    monkeypatch.setattr(linear, "_MANY", 0)
    monkeypatch.setattr(products, "_ONEDNN", product)
    return made


def pair(inside: int, out: int, bias: bool) -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(inside, out, bias=bias)
    ours = copy.deepcopy(plain)
    assert use_product_linears(ours) == 1
    assert isinstance(ours, ProductLinear)
    return plain, ours


def results(layer: nn.Linear, x: Tensor, along: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    return [y, *torch.autograd.grad(y, (x, *layer.parameters()), along)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(300, 70), (3, 100, 70)])
def test_outputs_and_gradients_are_the_library_s(
    shape: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_MANY", 0)
    plain, ours = pair(70, 90, bias)
    x = torch.randn(shape).transpose(0, -2)  # rows that do not lie in order
    along = torch.randn(*x.shape[:-1], 90)
    for expected, found in zip(results(plain, x, along), results(ours, x, along), strict=True):
        scale = float(expected.detach().abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * scale)
        assert found.is_contiguous()


def test_a_gradient_that_is_one_number_spread_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_MANY", 0)
    plain, ours = pair(40, 30, bias=True)
    x = torch.randn(50, 40)
    for layer in (plain, ours):
        layer(x).sum().backward()
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad, rtol=1e-5, atol=1e-5)


def test_gradients_have_gradients(calls: list[tuple[int, ...]]) -> None:
    found = []
    for layer in pair(7, 5, bias=True):
        x = torch.linspace(-1, 1, 21).view(3, 7).requires_grad_()
        y = layer(x).square().sum()
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        slope.square().sum().backward()
        found.append(layer.weight.grad)
    torch.testing.assert_close(*found)
    assert calls == [(3, 7, 5), (3, 5, 7), (5, 3, 7)]  # none of the slope: it keeps gradients


def test_products_of_a_step(calls: list[tuple[int, ...]]) -> None:
    _, ours = pair(7, 5, bias=False)
    ours(torch.randn(2, 3, 7, requires_grad=True)).sum().backward()
    assert calls == [(6, 7, 5), (6, 5, 7), (5, 6, 7)]


@pytest.mark.parametrize(
    ("frozen", "made"), [("input", [(2, 7, 5), (5, 2, 7)]), ("weight", [(2, 7, 5), (2, 5, 7)])]
)
def test_no_gradient_is_made_of_what_is_frozen(
    frozen: str, made: list[tuple[int, ...]], calls: list[tuple[int, ...]]
) -> None:
    _, ours = pair(7, 5, bias=True)
    x = torch.randn(2, 7, requires_grad=frozen != "input")
    ours.weight.requires_grad_(frozen != "weight")
    ours(x).sum().backward()
    assert calls == made
    assert [one.grad is None for one in (x, ours.weight)] == [frozen == "input", frozen == "weight"]


def test_types_that_differ_are_the_library_s_to_refuse(calls: list[tuple[int, ...]]) -> None:
    _, ours = pair(8, 6, bias=True)
    with pytest.raises(RuntimeError, match="dtype"):
        ours.double()(torch.randn(4, 8))
    assert calls == []


@pytest.mark.parametrize("why", ["evaluation", "autocast", "float64", "small", "no oneDNN", "meta"])
def test_where_it_is_not_taken(
    why: str, calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ours = pair(8, 6, bias=True)
    x = torch.randn(4, 8)
    if why == "evaluation":
        ours.eval()
    if why == "float64":
        ours, x = ours.double(), x.double()
    if why == "meta":
        ours, x = ours.to("meta"), x.to("meta")
    if why == "small":
        monkeypatch.setattr(linear, "_MANY", 4 * 8 * 6 + 1)
    if why == "no oneDNN":
        monkeypatch.setattr(products, "_ONEDNN", None)
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
        ours(x).float().sum().backward()
    assert calls == []


def test_other_layers_stay_what_they_are() -> None:
    attention = nn.MultiheadAttention(8, 2)
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2))
    net = nn.Sequential(nn.Linear(3, 3), attention, normed, nn.Bilinear(2, 2, 2))
    assert use_product_linears(net) == 1
    assert type(net[0]) is ProductLinear
    assert use_product_linears(net) == 0
