"""Views, where pixels come from: crops, turns, flips, boxes and scales against torchvision."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pictures import Fixed, Rows, picture, smooth, still
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from trabecula.config import build
from trabecula.data.views import (
    View,
    Views,
    centre,
    draw_affine,
    move_boxes,
    resample,
    view,
)
from trabecula.errors import InputError


@pytest.mark.parametrize(("dtype", "limit"), [(torch.uint8, 255), (torch.uint16, 65535)])
@pytest.mark.parametrize("channels", [1, 3])
def test_identity_is_bit_exact(dtype, limit, channels):
    images = picture(channels=channels, height=50, width=50, dtype=dtype)
    result = view(images, Rows(range(3)), still(size=50))
    assert isinstance(result, View)
    assert result.images.dtype == torch.float32
    assert torch.equal(result.images, images.float() / limit)
    assert torch.equal(result.affine, torch.eye(2, 3).expand(3, 2, 3))


def test_identity_through_the_sampler_is_exact():
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(resample(images, torch.eye(2, 3).expand(2, 2, 3), 64), images)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, lambda x: torch.rot90(x, 1, (2, 3))), (0.0, lambda x: torch.rot90(x, -1, (2, 3)))],
)
def test_quarter_turns_are_exact(value, expected):
    images = picture(height=64, width=64)
    result = view(images, Fixed(3, value), still(size=64, rotate=90)).images
    assert torch.allclose(result, expected(images.float() / 255), atol=1e-5)


def test_flip_is_exact_and_off_by_default():
    images = picture(height=64, width=64)
    result = view(images, Rows(range(3)), still(size=64, flip=1.0)).images
    assert torch.allclose(result, images.flip(3).float() / 255, atol=1e-6)
    assert Views().flip == 0


def test_rotation_agrees_with_torchvision():
    images = smooth(2, 64, 64)
    result = view(images, Fixed(2, 1.0), still(size=64, rotate=30)).images
    expected = tv.rotate(images.float() / 255, 30, interpolation=tv.InterpolationMode.BILINEAR)
    assert torch.allclose(result[..., 20:44, 20:44], expected[..., 20:44, 20:44], atol=1e-4)


def test_affine_names_the_input_pixel_of_every_output_pixel():
    """An image that holds its own coordinates shows, at each output pixel, where the affine points."""
    height, width = 100, 120
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    images = torch.stack([x, y, 0 * x])[None].repeat(8, 1, 1, 1).to(torch.uint8)
    config = still(size=128, crop_scale=(0.1, 0.3), crop_ratio=(0.75, 1.3), rotate=20, flip=0.5)
    result = view(images, Rows(range(8)), config)
    v, u = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    places = torch.stack([u, v, torch.ones_like(u)]).flatten(1)
    expected = (result.affine @ places).view(8, 2, 128, 128)
    inside = (expected >= 0).all(1) & (expected[:, 0] <= width - 1) & (expected[:, 1] <= height - 1)
    assert inside.float().mean() > 0.8
    error = (result.images[:, :2] * 255 - expected).abs().amax(1)
    assert error[inside].max() < 2e-3


def test_a_crop_is_resized_first_and_turned_about_the_view_s_middle():
    images = picture(batch=6, height=90, width=60)
    plain = view(images, Rows(range(6)), Views(size=32, rotate=0, flip=0)).affine
    turned = view(images, Rows(range(6)), Views(size=32, rotate=40, flip=0)).affine
    last = torch.tensor([0.0, 0, 1]).expand(6, 1, 3)
    turn = torch.linalg.solve(torch.cat([plain, last], 1), torch.cat([turned, last], 1))
    assert torch.allclose(turn[:, :2, :2] @ turn[:, :2, :2].mT, torch.eye(2), atol=1e-4)
    assert torch.allclose(torch.linalg.det(turn), torch.ones(6), atol=1e-4)
    middle = torch.tensor([15.5, 15.5, 1])
    assert torch.allclose(turn @ middle, middle.expand(6, 3), atol=1e-3)
    assert turn[:, 0, 1].abs().max() > 0.2


def test_a_marked_box_moves_with_its_view():
    images = torch.zeros(16, 1, 96, 80, dtype=torch.uint8)
    images[:, :, 30:50, 20:44] = 255
    boxes = torch.tensor([[[20.0, 30.0, 44.0, 50.0]]]).repeat(16, 1, 1)
    config = still(size=128, crop_scale=(0.4, 1.0), crop_ratio=(0.75, 1.3), rotate=25, flip=0.5)
    result = view(images, Rows(range(16)), config)
    moved = move_boxes(boxes, result.affine, 128)[:, 0]
    whole = ((moved > 0.5) & (moved < 127.5)).all(1)
    assert whole.sum() >= 8
    for image, box in zip(result.images[whole, 0], moved[whole], strict=True):
        rows, columns = (image > 0.5).nonzero(as_tuple=True)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert torch.allclose(box, torch.tensor(seen).float(), atol=1.6)
    mask = resample((images > 0).float(), result.affine, 128, "zeros", "nearest")
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert ((result.images > 0.5) != (mask > 0.5)).float().mean() < 0.01


def test_boxes_are_given_by_their_edges():
    box = torch.tensor([[[10.0, 20, 30, 40]]])
    doubled = view(picture(1), Rows([0]), still(size=128)).affine
    assert torch.allclose(move_boxes(box, doubled, 128), 2 * box, atol=1e-4)
    flipped = view(picture(1), Rows([0]), still(size=64, flip=1.0)).affine
    assert torch.allclose(move_boxes(box, flipped, 64), torch.tensor([[[34.0, 20, 54, 40]]]), atol=1e-4)


def test_a_box_that_left_the_view_has_no_area():
    affine = torch.tensor([[[1.0, 0, 50], [0, 1, 0]]])
    box = move_boxes(torch.tensor([[[0.0, 0, 10, 10]]]), affine, 32)[0, 0]
    assert (box[2] - box[0]) * (box[3] - box[1]) == 0


def crops(height, width, config, count):
    """(count, 4): width, height, left, top of drawn crops in pixels."""
    draws = torch.rand(count, 13, generator=torch.Generator().manual_seed(3))
    affine = draw_affine(draws, height, width, config).double()
    w, h = affine[:, 0, 0] * config.size, affine[:, 1, 1] * config.size
    left = affine[:, 0, 2] + 0.5 - affine[:, 0, 0] / 2
    top = affine[:, 1, 2] + 0.5 - affine[:, 1, 1] / 2
    return torch.stack([w, h, left, top], 1).numpy()


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(900, 900, (0.2, 1.0)), (1200, 800, (0.2, 1.0)), (900, 900, (0.8, 1.0))]
)
def test_crops_are_distributed_as_torchvision_s(height, width, scale):
    config = still(size=64, crop_scale=scale, crop_ratio=(3 / 4, 4 / 3))
    ours = crops(height, width, config, 4000)
    torch.manual_seed(5)
    image = torch.empty(1, height, width)
    drawn = [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(4000)]
    theirs = np.array([(w, h, left, top) for top, left, h, w in drawn], float)
    slack = (width - theirs[:, 0] > 3) & (height - theirs[:, 1] > 3)
    our_slack = (width - ours[:, 0] > 3) & (height - ours[:, 1] > 3)
    pairs = {
        "area": (ours[:, 0] * ours[:, 1], theirs[:, 0] * theirs[:, 1]),
        "log ratio": tuple(np.log(c[:, 0] / c[:, 1]) for c in (ours, theirs)),
        "left": tuple(c[s, 2] / (width - c[s, 0]) for c, s in ((ours, our_slack), (theirs, slack))),
        "top": tuple(c[s, 3] / (height - c[s, 1]) for c, s in ((ours, our_slack), (theirs, slack))),
    }
    for name, (a, b) in pairs.items():
        assert ks_2samp(a, b).statistic < 0.045, name  # 0.1 % critical value for 4,000 against 4,000
    assert np.corrcoef(ours.T) == pytest.approx(np.corrcoef(theirs.T), abs=0.08)


def test_crops_stay_inside_and_the_impossible_crop_is_the_largest_one():
    box = crops(70, 100, still(size=32, crop_scale=(0.2, 1.0), crop_ratio=(0.5, 2)), 2000)
    assert box[:, 2:].min() > -1e-3
    assert (box[:, 2] + box[:, 0]).max() < 100.01
    assert (box[:, 3] + box[:, 1]).max() < 70.01
    torch.manual_seed(0)
    expected = RandomResizedCrop.get_params(torch.empty(1, 100, 400), [0.9, 1.0], [3 / 4, 4 / 3])
    top, left, height, width = expected
    found = crops(100, 400, still(size=32, crop_scale=(0.9, 1.0), crop_ratio=(3 / 4, 4 / 3)), 5)
    assert found == pytest.approx(np.tile([width, height, left, top], (5, 1)), abs=0.51)


@pytest.mark.parametrize("fill", ["border", "zeros", "reflection"])
def test_fill_outside_the_image(fill):
    images = torch.full((1, 1, 64, 64), 255, dtype=torch.uint8)
    corner = view(images, Fixed(1, 1.0), still(size=64, rotate=45, fill=fill)).images[0, 0, 0, 0]
    assert corner == (0.0 if fill == "zeros" else 1.0)


def test_shrinking_does_not_alias():
    """Stripes finer than an output pixel turn grey, also when rotated; plain sampling keeps them."""
    stripes = (torch.arange(512) // 2 % 2 * 255).to(torch.uint8).expand(4, 1, 512, 512)
    config = still(size=64, rotate=20)
    result = view(stripes, Rows(range(4)), config)
    middle = result.images[..., 16:48, 16:48]
    assert middle.std() < 0.05
    assert middle.mean() == pytest.approx(0.5, abs=0.02)
    plain = resample(stripes.float() / 255, result.affine, 64, mode="nearest")
    assert plain[..., 16:48, 16:48].std() > 0.4


def test_shrinking_agrees_with_an_antialiased_resize():
    images = smooth(2, 256, 256)
    result = view(images, Rows(range(2)), still(size=64)).images
    expected = F.interpolate(images.float() / 255, (64, 64), mode="area")
    assert torch.allclose(result, expected, atol=2e-3)


def test_centre_is_resize_and_crop():
    images = smooth(2, 320, 256)
    expected = tv.center_crop(tv.resize(images.float() / 255, [64], antialias=True), [64])
    found = centre(images, 64)
    assert torch.allclose(found[:, :, 1:-1], expected[:, :, 1:-1], atol=1e-5)
    assert torch.allclose(found, expected, atol=0.03)  # the crop's own edge rows see no pixel outside it
    same = picture(height=40, width=40)
    assert torch.equal(centre(same, 40), same.float() / 255)
    inner = centre(same, 20, crop_fraction=0.5)
    assert torch.equal(inner, same[..., 10:30, 10:30].float() / 255)
    with pytest.raises(ValueError, match="crop_fraction"):
        centre(same, 20, crop_fraction=1.5)


def test_wrong_images_are_refused():
    with pytest.raises(TypeError, match=r"uint8 or uint16, got torch\.float32"):
        view(torch.rand(1, 1, 8, 8), Rows([0]), Views(size=8))
    with pytest.raises(ValueError, match=r"\(B, C, H, W\), got shape \(8, 8\)"):
        view(torch.zeros(8, 8, dtype=torch.uint8), Rows([0]), Views(size=8))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"crop_scale": (0.9, 0.2)}, "crop_scale needs 0 < low <= high and at most 1, got 0.9, 0.2"),
        ({"crop_scale": (0.2, 1.5)}, "at most 1"),
        ({"blur_sigma": (0, 2)}, "blur_sigma needs"),
        ({"flip": 1.2}, "'flip': Input should be less than or equal to 1"),
        ({"rotat": 3}, "did you mean 'rotate'"),
    ],
)
def test_wrong_settings_are_one_line(values, problem):
    with pytest.raises(InputError, match=problem) as caught:
        build(Views, values, "recipe.toml")
    assert "\n" not in str(caught.value)
