"""Critic and generator: counts worked out by hand, shapes, and what a gradient penalty asks of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trabecula.errors import InputError
from trabecula.nets.critic import Critic, critic_blocks, widths_of
from trabecula.nets.generators.upsampling import UpsamplingConfig, UpsamplingGenerator, mirrored, spread


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_parameters_at_224_grey() -> None:
    widths = (1, 32, 64, 128, 256, 512)
    convolutions = sum(a * b * 16 + b for a, b in pairwise(widths))
    assert convolutions + 7 * 7 * 512 + 1 == 2_811_873  # the arithmetic itself
    assert count(Critic(1, 224)) == 2_811_873
    assert count(UpsamplingGenerator(UpsamplingConfig(), 1, 224)) == 4_106_849


@pytest.mark.parametrize(("size", "side"), [(32, 1), (96, 3), (224, 7)])
def test_shapes(size: int, side: int) -> None:
    critic, generator = Critic(3, size).eval(), UpsamplingGenerator(UpsamplingConfig(), 3, size).eval()
    with torch.no_grad():
        images = generator(torch.randn(2, 100))
        assert images.shape == (2, 3, size, size)
        assert images.abs().max() <= 1
        assert critic.maps(images).shape == (2, 512, side, side)
        assert critic.features(images).shape == (2, critic.num_features)
        assert critic(images).shape == (2,)


def test_features_at_224_are_25088() -> None:
    assert Critic(1, 224).num_features == 25_088


def test_critic_is_the_papers_formula() -> None:
    """Against plain functional calls: 4x4, stride 2, padding 1, slope 0.2, then one linear layer."""
    torch.manual_seed(0)
    critic = Critic(1, 64, widths=(4, 8))
    x = torch.randn(3, 1, 64, 64)
    weights = dict(critic.named_parameters())
    maps = x
    for index in range(2):
        kernel, bias = weights[f"blocks.conv{index}.weight"], weights[f"blocks.conv{index}.bias"]
        maps = F.conv2d(maps, kernel, bias, stride=2, padding=1)
        maps = torch.where(maps > 0, maps, 0.2 * maps)
    scores = maps.flatten(1) @ weights["output.weight"][0] + weights["output.bias"]
    torch.testing.assert_close(critic(x), scores)


def test_generator_block_is_the_papers_order() -> None:
    """Upsampling repeats pixels; convolution, batch norm, ReLU follow in this order."""
    kinds = [type(layer) for layer in UpsamplingGenerator(UpsamplingConfig(), 1, 32).blocks[0]]
    assert kinds == [nn.Upsample, nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    generator = UpsamplingGenerator(UpsamplingConfig(latent=5, widths=(4, 3, 2, 2, 2, 2)), 1, 32).eval()
    z = torch.randn(2, 5)
    state = generator.state_dict()
    maps = F.linear(z, state["project.weight"], state["project.bias"]).view(2, 4, 1, 1)
    for index in range(5):
        maps = maps.repeat_interleave(2, 2).repeat_interleave(2, 3)
        maps = F.conv2d(maps, state[f"blocks.{index}.1.weight"], state[f"blocks.{index}.1.bias"], padding=1)
        maps = torch.relu(maps / (1 + 1e-5) ** 0.5)
    image = torch.tanh(F.conv2d(maps, state["output.weight"], state["output.bias"], padding=1))
    torch.testing.assert_close(generator(z), image)


def test_scores_of_single_images_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    critic = Critic(1, 32)
    x = torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(critic(x)[1:2], critic(x[1:2]))


def test_critic_differentiates_twice() -> None:
    critic = Critic(1, 32, widths=(2, 2, 2, 2, 2)).double()
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(critic, (x,))
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    weight = critic.blocks.get_parameter("conv0.weight")
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0
    assert not any(getattr(module, "inplace", False) for module in critic.modules())


def test_shared_blocks_are_the_encoders_own() -> None:
    blocks = critic_blocks(1)
    critic = Critic(1, 64, blocks=blocks)
    critic(torch.randn(1, 1, 64, 64)).sum().backward()
    assert all(weight.grad is not None for weight in blocks.parameters())


@pytest.mark.parametrize("size", [0, 16, 33, 100, 225])
def test_sizes_that_do_not_halve_are_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"size {size}: .* multiple of 32 px; the nearest is"):
        Critic(1, size)
    with pytest.raises(InputError, match="multiple of 32"):
        UpsamplingGenerator(UpsamplingConfig(), 1, size)


def test_doubling_and_convolution_as_one_are_the_same_function_and_gradients() -> None:
    torch.manual_seed(0)
    generator = UpsamplingGenerator(UpsamplingConfig(latent=5, widths=(8, 6, 4, 4, 3, 2)), 1, 32).double()
    z = torch.randn(6, 5, dtype=torch.float64)

    def as_it_stands(z: torch.Tensor) -> torch.Tensor:
        maps = generator.project(z).view(6, 8, 1, 1)
        for block in generator.blocks:
            for layer in block:
                maps = layer(maps)
        return torch.tanh(generator.output(maps))

    found = []
    for function in (generator, as_it_stands):
        generator.zero_grad()
        image = function(z)
        (image * torch.linspace(0, 1, 32)).sin().sum().backward()
        found.append([image.detach()] + [weight.grad for weight in generator.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_doubling_and_convolution_as_one_in_single_precision() -> None:
    torch.manual_seed(0)
    kernel, x = torch.randn(5, 7, 3, 3), torch.randn(2, 7, 6, 9)
    kernels = [kernel.clone().requires_grad_(), kernel.clone().requires_grad_()]
    ours = F.conv_transpose2d(x, spread(kernels[0]), stride=2, padding=1)
    theirs = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), kernels[1], padding=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for result in (ours, theirs):
        (result * torch.linspace(0, 1, 18)).sum().backward()
    torch.testing.assert_close(kernels[0].grad, kernels[1].grad, rtol=1e-5, atol=1e-4)


def test_the_papers_shapes_at_224() -> None:
    """Den Boer 2025, section 4.2: 7 x 7 x 512 both ways, five blocks each."""
    generator, critic = UpsamplingGenerator(UpsamplingConfig(), 1, 224), Critic(1, 224)
    assert (generator.side, generator.project.out_features) == (7, 7 * 7 * 512)
    assert (len(generator.blocks), len(widths_of(critic.blocks))) == (5, 5)
    assert critic.output.in_features == 25_088
    assert mirrored((32, 64, 128, 256, 512)) == generator.config.widths


def test_without_norm_the_generators_images_keep_their_contrast() -> None:
    """Weights of the usual start shrink at each of six layers; those of He's do not."""
    torch.manual_seed(0)
    generator = UpsamplingGenerator(UpsamplingConfig(norm="none"), 1, 64)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in generator.modules())
    with torch.no_grad():
        assert 0.05 < float(generator(torch.randn(8, 100)).std()) < 0.9


def test_batch_norm_in_the_critic_makes_scores_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    critic = Critic(1, 32, blocks=critic_blocks(1, norm="batch"))
    x = torch.randn(4, 1, 32, 32)
    assert not torch.allclose(critic(x)[1:2], critic(torch.cat([x[1:2], x[:1]]))[:1], atol=1e-4)
    names = [name for name, layer in critic.blocks.named_children() if isinstance(layer, nn.BatchNorm2d)]
    assert names == ["norm1", "norm2", "norm3", "norm4"]
