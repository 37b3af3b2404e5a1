"""Climbing a critic's score: to the known maximum where there is one, and never out of the box."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from trabecula.errors import RunError
from trabecula.interpretability.maximise import maximise, noise_images
from trabecula.nets.critic import Critic


def test_a_linear_critic_reaches_its_maximum_in_the_box() -> None:
    """max over [-1, 1]^n of w x + b is the sum of |w|, plus b, at sign(w)."""
    torch.manual_seed(0)
    weights, bias = torch.randn(1, 8, 8), 0.3
    weights[0, 0, 0] = 1e-3  # hardly matters, and is found all the same

    def critic(x: Tensor) -> Tensor:
        return (x * weights).sum((1, 2, 3)) + bias

    climb = maximise(critic, noise_images(3, 1, 8, seed=0), steps=120, rate=0.05)
    assert torch.allclose(climb.scores[-1], weights.abs().sum() + bias)
    assert torch.equal(climb.images, weights.sign().expand(3, 1, 8, 8))


def test_a_bump_inside_the_box_is_found() -> None:
    centre = torch.tensor([0.5, -0.25, 0.0, 0.9]).view(1, 2, 2)

    def critic(x: Tensor) -> Tensor:
        return -(x - centre).square().sum((1, 2, 3))

    climb = maximise(critic, noise_images(4, 1, 2, seed=1), steps=400, rate=0.02)
    assert torch.allclose(climb.images, centre.expand(4, 1, 2, 2), atol=0.02)
    assert float(climb.scores.max()) > -1e-3


def test_the_best_image_is_the_one_of_the_best_score_and_lies_in_the_box() -> None:
    critic = Critic(1, 32, widths=(4, 4)).eval()
    start = noise_images(3, 1, 32, seed=2)
    climb = maximise(critic, start, steps=30, rate=0.3)
    assert climb.scores.shape == (31, 3)
    with torch.no_grad():
        assert torch.allclose(critic(climb.images), climb.scores.max(0).values, atol=1e-5)
        assert torch.allclose(critic(start), climb.scores[0], atol=1e-5)
    assert torch.equal(climb.best, climb.scores.argmax(0))
    assert float(climb.images.abs().max()) <= 1
    assert (climb.scores.max(0).values > climb.scores[0]).all()
    assert torch.equal(start, noise_images(3, 1, 32, seed=2))


def test_starts_do_not_influence_each_other() -> None:
    critic = Critic(1, 32, widths=(4, 4)).eval()
    start = noise_images(3, 1, 32, seed=2)
    together = maximise(critic, start, steps=5, rate=0.02)
    alone = maximise(critic, start[1:2], steps=5, rate=0.02)
    assert torch.allclose(together.images[1:2], alone.images, atol=1e-4)
    assert torch.equal(noise_images(2, 1, 32, seed=2), start[:2])


def test_noise_is_uniform_in_the_box() -> None:
    values = noise_images(4, 1, 64, seed=3)
    assert float(values.abs().max()) <= 1
    assert stats.kstest(values.flatten().numpy(), "uniform", (-1, 2)).pvalue > 1e-3


def test_a_score_that_is_no_number_is_said() -> None:
    with pytest.raises(RunError, match="not finite"):
        maximise(lambda x: x.sum((1, 2, 3)) * torch.nan, noise_images(1, 1, 4, 0), 2, 0.1)
