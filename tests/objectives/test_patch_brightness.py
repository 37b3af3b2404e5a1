"""Brightness and contrast of painted patches: found again where the answer is known."""

from __future__ import annotations

import numpy as np
import torch

from trabecula.nets.mae import patchify, unpatchify
from trabecula.objectives.mae import normalise_patches
from trabecula.objectives.patch_brightness import _seams, fill_in


def scene(size: int = 64) -> torch.Tensor:
    """A smooth picture (1, 1, size, size) with brightness and contrast that change over it."""
    y, x = torch.meshgrid(*(torch.linspace(0, 1, size, dtype=torch.float64),) * 2, indexing="ij")
    return (0.3 * x + 0.25 * torch.sin(5 * x * y + 2 * y) + 0.4 * (y - 0.4) ** 2)[None, None]


def half(number: int, seed: int = 0) -> torch.Tensor:
    """(1, number) bool: half of the patches."""
    return torch.from_numpy(np.random.default_rng(seed).permutation(number) < number // 2)[None]


def test_right_shapes_get_nearly_their_own_levels() -> None:
    image = scene()
    pixels = patchify(image, 8)
    mask = half(64)
    filled = fill_in(pixels, normalise_patches(pixels), mask, 8, (8, 8))
    error = (filled - pixels)[mask].square().mean().sqrt()
    assert float(error) < 0.35 * float(pixels[mask].std())
    assert torch.equal(filled[~mask], pixels[~mask])
    flat = pixels.clone()  # for comparison: every patch at the mean and the contrast of the visible ones
    seen = pixels[~mask]
    flat[mask] = normalise_patches(pixels)[mask] * seen.std(1).mean() + seen.mean()
    assert float(error) < 0.35 * float((flat - pixels)[mask].square().mean().sqrt())


def test_seams_are_neighbouring_pixels() -> None:
    """Of the true picture the differences over seams are those between its rows and columns."""
    image = scene(24)
    values = patchify(image, 8)[0].numpy()
    seams = _seams(values, 8, (3, 3))
    level = np.concatenate([np.zeros(9), np.ones(9)])
    across = np.sort(np.abs(seams @ level))
    grid = image[0, 0].numpy()
    columns = (grid[:, [7, 15]] - grid[:, [8, 16]]).ravel()
    rows = (grid[[7, 15]] - grid[[8, 16]]).ravel()
    np.testing.assert_allclose(
        across, np.sort(np.abs(np.concatenate([columns, rows]))) / np.sqrt(8), atol=1e-12
    )


def test_each_image_by_itself_and_channels_together() -> None:
    images = torch.cat([scene().expand(1, 3, -1, -1), scene().flip(3).expand(1, 3, -1, -1) * 0.5])
    pixels, mask = patchify(images, 8), torch.cat([half(64, 1), half(64, 2)])
    said = normalise_patches(pixels)
    both = fill_in(pixels, said, mask, 8, (8, 8))
    assert torch.equal(both[1:], fill_in(pixels[1:], said[1:], mask[1:], 8, (8, 8)))
    painted = unpatchify(both, 8, (8, 8))
    torch.testing.assert_close(painted[:, 0], painted[:, 2])


def test_what_is_hidden_is_not_read() -> None:
    pixels = patchify(scene(), 8)
    mask = half(64)
    said = normalise_patches(pixels)
    other = torch.where(mask[:, :, None], torch.full_like(pixels, float("nan")), pixels)
    assert torch.equal(fill_in(pixels, said, mask, 8, (8, 8)), fill_in(other, said, mask, 8, (8, 8)))


def test_blank_surroundings_give_a_blank_patch() -> None:
    pixels = torch.full((1, 9, 16), 0.25, dtype=torch.float64)
    mask = torch.tensor([[False] * 4 + [True] + [False] * 4])
    filled = fill_in(pixels, torch.randn(1, 9, 16, dtype=torch.float64), mask, 4, (3, 3))
    assert float((filled - 0.25).abs().max()) < 0.02


def test_levels_are_the_least_squares_fit_written_out() -> None:
    """Unknown a and b of each hidden patch: seams of a + b v, and the surroundings' mean and deviation."""
    patch, grid = 4, (3, 4)
    generator = np.random.default_rng(0)
    v, hidden = generator.normal(0.5, 1, (12, 16)), generator.permutation(12) < 6
    place = np.stack(np.unravel_index(np.arange(12), grid), 1)
    equations, wanted = [], []

    def equation(terms: list[tuple[int, int, float]], value: float, weight: float) -> None:
        row = np.zeros((12, 2))
        for which, column, factor in terms:
            row[which, column] += factor
        known = row[~hidden, 1].sum()  # visible patches are as they are: a = 0, b = 1
        equations.append(weight**0.5 * row[hidden].ravel())
        wanted.append(weight**0.5 * (value - known))

    for i, j in ((i, j) for i in range(12) for j in range(12)):
        step = tuple(place[j] - place[i])
        if step in ((0, 1), (1, 0)):
            a, b = v[i].reshape(4, 4), v[j].reshape(4, 4)
            sides = (a[:, 3], b[:, 0]) if step == (0, 1) else (a[3], b[0])
            for ours, theirs in zip(*sides, strict=True):
                equation([(i, 0, 1), (i, 1, ours), (j, 0, -1), (j, 1, -theirs)], 0, 1 / 4)
    for i in hidden.nonzero()[0]:
        near = np.exp(-((place[i] - place[~hidden]) ** 2).sum(1) / (2 * 1.5**2))
        near /= near.sum()
        equation([(i, 0, 1)], near @ v[~hidden].mean(1), 0.01)
        equation([(i, 1, 1)], near @ v[~hidden].std(1), 3.0)
    level = np.linalg.lstsq(np.array(equations), np.array(wanted), rcond=None)[0].reshape(-1, 2)
    assert (level[:, 1] > 0).all()  # else it would be cut off at 0
    expected = level[:, :1] + level[:, 1:] * v[hidden]
    filled = fill_in(*(torch.from_numpy(x[None]) for x in (v, v, hidden)), patch, grid)
    np.testing.assert_allclose(filled[0].numpy()[hidden], expected, rtol=1e-8)
