"""Views, what becomes of values: blur, intensity, noise; rows independent of the batch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import EVERYTHING, Fixed, Rows, picture, smooth, still
from scipy.ndimage import gaussian_filter
from torchvision.transforms.v2 import functional as tv

from trabecula.data.views import (
    Views,
    gaussian_blur,
    view,
)
from trabecula.random_numbers import RowRandom


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_equals_reference_gaussians(sigma):
    images = picture(batch=2, channels=3, height=45, width=70).float() / 255
    radius = math.ceil(4 * 2.0)
    ours = gaussian_blur(images, torch.full((2,), sigma), radius)
    theirs = tv.gaussian_blur(images, [2 * radius + 1] * 2, [sigma] * 2)
    inner = (..., slice(radius, -radius), slice(radius, -radius))
    assert torch.allclose(ours[inner], theirs[inner], atol=1e-5)

    def scipy(x):
        return gaussian_filter(x.astype(float), (0, 0, sigma, sigma), mode="constant", radius=radius)

    expected = scipy(images.numpy()) / scipy(np.ones(images.shape))
    assert np.allclose(ours.numpy(), expected, atol=1e-5)


def test_each_row_is_blurred_by_its_own_sigma():
    images = picture(batch=3, height=40, width=40).float() / 255
    sigma = torch.tensor([0.1, 1.0, 2.0])
    together = gaussian_blur(images, sigma, 8)
    for row in range(3):
        alone = gaussian_blur(images[row : row + 1], sigma[row : row + 1], 8)
        assert torch.allclose(together[row : row + 1], alone, atol=1e-6)


def test_blur_is_the_same_fraction_of_the_picture_at_any_size():
    spot = torch.zeros(1, 1, 224, 224, dtype=torch.uint8)
    spot[..., 112, 112] = 255
    for size, pad in ((224, 0), (112, 56)):
        image = spot[..., pad : 224 - pad, pad : 224 - pad]
        result = view(image, Fixed(1, 0.5), still(size=size, blur=1.0, blur_sigma=(2, 4))).images[0, 0]
        row = result.sum(0) / result.sum()
        x = torch.arange(size, dtype=torch.float32)
        spread = (row * (x - (row * x).sum()) ** 2).sum().sqrt()
        assert spread == pytest.approx(3.0 * size / 224, rel=0.02)


def test_brightness_and_contrast():
    images = smooth(1, 32, 32)
    x = images.float() / 255
    half = view(images, Fixed(1, 0.0), still(size=32, intensity=1, brightness=0.5, contrast=0)).images
    assert torch.allclose(half, x / 2, atol=1e-6)
    flat = view(images, Fixed(1, 0.0), still(size=32, intensity=1, brightness=0, contrast=0.6)).images
    assert torch.allclose(flat, tv.adjust_contrast(x, 0.4), atol=1e-5)
    dark = view(
        images, Fixed(1, 1.0 - 1e-7), still(size=32, intensity=1, brightness=0, contrast=0, gamma=0.7)
    )
    assert torch.allclose(dark.images, x ** math.exp(0.7), atol=1e-5)


def test_channels_change_jointly():
    grey = picture(batch=4, channels=1)
    colour = view(grey.repeat(1, 3, 1, 1), Rows(range(4)), Views(size=48, gamma=0.2)).images
    assert torch.allclose(colour, view(grey, Rows(range(4)), Views(size=48, gamma=0.2)).images, atol=1e-5)


def test_solarize_inverts_the_bright_half():
    images = picture()
    x = images.float() / 255
    result = view(images, Rows(range(3)), still(size=64, solarize=1.0)).images
    assert torch.equal(result, torch.where(x >= 0.5, 1 - x, x))


def test_noise_has_the_asked_deviation():
    images = torch.full((4, 1, 64, 64), 128, dtype=torch.uint8)
    result = view(images, Rows(range(4)), still(size=64, noise=0.05)).images
    assert result.std() == pytest.approx(0.05, rel=0.05)
    assert not torch.equal(result[0], result[1])


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 500), min_size=2, max_size=5, unique=True))
def test_a_view_depends_on_its_own_row_only(ids):
    images = picture(batch=501, height=30, width=34)[ids]
    together = view(images, Rows(ids), EVERYTHING)
    for place, row in enumerate(ids):
        alone = view(images[place : place + 1], Rows([row]), EVERYTHING)
        assert torch.equal(together.affine[place], alone.affine[0])
        assert torch.allclose(together.images[place], alone.images[0], atol=1e-5)


def test_a_batch_cut_in_two_gives_the_same_views():
    images = picture(batch=6)

    def rows(low, high):
        return view(images[low:high], RowRandom(5, 6, slice(low, high), torch.device("cpu")), EVERYTHING)

    whole, parts = rows(0, 6), [rows(0, 4), rows(4, 6)]
    assert torch.equal(whole.affine, torch.cat([part.affine for part in parts]))
    assert torch.allclose(whole.images, torch.cat([part.images for part in parts]), atol=1e-5)


def test_the_numbers_drawn_depend_on_the_config_alone():
    calls = []
    for seed in range(4):
        random = Rows(range(seed * 10, seed * 10 + 2))
        view(picture(batch=2), random, EVERYTHING)
        calls.append(random.calls)
    assert calls == [[("uniform", (13,)), ("normal", (1, 48, 48))]] * 4
    with_blur = view(picture(), Rows(range(3)), Views(size=48)).affine
    assert torch.equal(with_blur, view(picture(), Rows(range(3)), Views(size=48, blur=0, rotate=15)).affine)


def test_probabilities_are_kept():
    images = torch.full((600, 1, 8, 8), 100, dtype=torch.uint8)
    result = view(images, Rows(range(600)), still(size=8, intensity=0.8, contrast=0)).images
    changed = (result[:, 0, 0, 0] != 100 / 255).float().mean()
    assert changed == pytest.approx(0.8, abs=0.06)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([(1, 33, 57), (3, 90, 40), (1, 48, 48)]))
def test_views_are_finite_and_in_range(seed, shape):
    images = picture(2, *shape, seed=seed)
    result = view(images, Rows([seed, seed + 1]), EVERYTHING).images
    assert result.shape == (2, shape[0], 48, 48)
    assert torch.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1 + 1e-6


def test_the_images_are_left_alone():
    images = picture()
    before = images.clone()
    view(images, Rows(range(3)), still(size=64, intensity=1, noise=0.1))
    assert torch.equal(images, before)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_views():
    images = picture(batch=8, height=300, width=260)
    here = view(images, Rows(range(8)), EVERYTHING)
    there = view(images.cuda(), Rows(range(8)), EVERYTHING)
    assert there.images.is_cuda
    assert torch.allclose(there.affine.cpu(), here.affine, atol=1e-4)
    assert (there.images.cpu() - here.images).abs().mean() < 1e-4
