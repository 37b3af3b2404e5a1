"""The closed form of a critic's input gradient: against autograd, and when it is not used."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trabecula.nets.critic import Critic, critic_blocks
from trabecula.nets.input_gradient import input_gradient, piecewise_linear, scores


class Hidden(nn.Module):
    """A critic that is not recognised as one, so that autograd differentiates it."""

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.critic(x)
        return scores


def penalty(critic: nn.Module, x: Tensor) -> Tensor:
    """Something that depends on every value of the input gradient in its own way."""
    gradient = input_gradient(critic, x)
    total: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean() + (gradient * torch.cos(x)).sum()
    return total


WIDTHS = (8, 16, 24)


@pytest.mark.parametrize("channels", [1, 3, 6])  # six take the library's transposed convolution
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_and_its_derivatives_are_autograds(channels: int, layout: torch.memory_format) -> None:
    torch.manual_seed(channels)
    critic = Critic(channels, 32, WIDTHS).to(memory_format=layout)
    x = torch.randn(5, channels, 32, 32)
    found = []
    for net in (critic, Hidden(critic)):
        critic.zero_grad()
        penalty(net, x).backward()
        grads = [w.grad for w in critic.parameters() if w.ndim > 1 and w.grad is not None]
        assert len(grads) == 4  # three kernels and the output layer
        found.append([input_gradient(net, x).detach(), *grads])
        for bias in (w for w in critic.parameters() if w.ndim == 1):  # they are not in the gradient
            assert bias.grad is None or not bias.grad.any()
    for ours, theirs in zip(*found, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_scores_and_their_gradients_are_autograds(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    critic = Critic(2, 32, WIDTHS).to(memory_format=layout)
    x, along = torch.randn(5, 2, 32, 32), torch.linspace(-1, 2, 5)
    found = []
    for made in (scores(critic, x), critic(x)):
        made.backward(along)
        found.append([made.detach(), *(w.grad for w in critic.parameters() if w.grad is not None)])
        critic.zero_grad()
    assert len(found[0]) == len(found[1]) == 9  # the scores, then weights and biases of four layers
    for ours, theirs in zip(*found, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def test_scores_in_bf16_stay_near() -> None:
    torch.manual_seed(0)
    critic, x = Critic(1, 32, widths=(16, 32, 32)), torch.randn(6, 1, 32, 32)
    exact = scores(critic, x)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = scores(critic, x)
    assert coarse.dtype == torch.float32
    assert not torch.equal(exact, coarse)
    torch.testing.assert_close(coarse, exact, rtol=0, atol=0.02 * float(exact.detach().abs().max()))


def test_relu_critics_have_the_closed_form_too() -> None:
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 4, 2, 1), nn.ReLU())
    critic = Critic(1, 32, blocks=blocks)
    x = torch.randn(2, 1, 32, 32)
    assert piecewise_linear(critic) is not None
    torch.testing.assert_close(input_gradient(critic, x), input_gradient(Hidden(critic), x))


def test_what_is_not_piecewise_linear_is_left_to_autograd() -> None:
    critics = [
        Critic(1, 32, blocks=critic_blocks(1, (4, 8), "batch")),
        Critic(1, 32, blocks=nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.Tanh())),
        Critic(1, 32, blocks=nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(0.0))),
        Critic(1, 32, blocks=nn.Sequential(nn.Conv2d(2, 4, 4, 2, 1, groups=2), nn.ReLU())),
    ]
    for critic in critics:
        assert piecewise_linear(critic) is None
    x = torch.randn(4, 1, 32, 32, requires_grad=True)
    (expected,) = torch.autograd.grad(critics[0](x).sum(), x)
    torch.testing.assert_close(input_gradient(critics[0], x), expected)


def test_the_closed_form_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("autograd was asked for the gradient")

    monkeypatch.setattr("torch.autograd.grad", fail)
    input_gradient(Critic(1, 32), torch.randn(1, 1, 32, 32))


def test_the_gradient_is_float32_under_autocast() -> None:
    torch.manual_seed(0)
    critic, x = Critic(1, 32, widths=(4, 8)), torch.randn(2, 1, 32, 32)
    expected = input_gradient(critic, x)
    with torch.autocast("cpu", torch.bfloat16):
        for net in (critic, Hidden(critic)):
            gradient = input_gradient(net, x)
            assert gradient.dtype == torch.float32
            torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("channels", "widths"), [(1, (16, 32, 32)), (6, (16, 32, 32)), (1, (4, 32, 32))])
def test_products_in_bf16_stay_near(channels: int, widths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    critic = Critic(channels, 32, widths=widths)
    x = torch.randn(6, channels, 32, 32)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        critic.zero_grad()
        gradient = input_gradient(critic, x, dtype)
        assert gradient.dtype == torch.float32
        (gradient.flatten(1).norm(dim=1) - 1).square().mean().backward()
        found.append([gradient.detach(), *(w.grad for w in critic.parameters() if w.grad is not None)])
    assert not torch.equal(found[0][0], found[1][0])
    for exact, coarse in zip(*found, strict=True):
        assert float(F.cosine_similarity(exact.flatten(), coarse.flatten(), dim=0)) > 0.99
