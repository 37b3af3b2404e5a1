"""Augmented views of whole batches: one record of settings, one resampling per view.

Crop, aspect ratio, flip, rotation and resize are composed into one affine map, so every pixel is
interpolated once; brightness, contrast, blur and noise follow on the resampled view. All of it is
vectorised over the batch and runs on the device of the images.

Coordinates: pixel (x, y) has its centre at (x, y) and the first pixel of a row is x = 0. A view's
affine maps output coordinates to input coordinates, `input = affine @ (x, y, 1)`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, Lt
from pydantic import model_validator
from torch import Tensor

from trabecula.config import Record
from trabecula.random_numbers import RowRandom

Probability = Annotated[float, Ge(0), Le(1)]
Fill = Literal["border", "zeros", "reflection"]
Mode = Literal["bilinear", "nearest"]

REFERENCE_SIZE = 224
"""Output size in pixels at which `Views.blur_sigma` is given."""

_AREA, _RATIO, _TOP, _LEFT, _ANGLE, _FLIP = range(6)
_INTENSITY, _BRIGHTNESS, _CONTRAST, _GAMMA, _BLUR, _SIGMA, _SOLARIZE = range(6, 13)
_DRAWS = 13
_TABLE = 1024  # steps of the table that turns a uniform number into a crop area
_BLOCK = 32  # output rows of the banded blur matrix handled by one product
_SAMPLES = 1 << 22  # samples held at a time when a large image is shrunk


class Views(Record):
    """How a view is made of an image. Defaults: MoCo v2 (Chen et al. 2020, arXiv:2003.04297) for grey
    radiographs; no flip, because left and right knees are mirrored to one side beforehand."""

    size: Annotated[int, Ge(8)] = 224
    """Side of the square view in pixels."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest crop area as a fraction of the image area; uniform between. MoCo v2: 0.2-1."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width/height of the crop; log-uniform between. MoCo v2: 3/4-4/3."""
    rotate: Annotated[float, Ge(0), Le(180)] = 15.0
    """Largest rotation in degrees, either way. 15 is usual for knee radiographs; MoCo v2 has none."""
    flip: Probability = 0.0
    """Probability of a horizontal flip. MoCo v2: 0.5; 0 where sides are normalised."""
    fill: Fill = "border"
    """What lies outside the image: its nearest edge pixel, zeros, or its reflection. Zeros also darken
    the outermost pixels of a magnified crop at the image's edge, so border is the default."""
    intensity: Probability = 0.8
    """Probability that brightness and contrast (and gamma, if set) change. MoCo v2: 0.8."""
    brightness: Annotated[float, Ge(0), Le(1)] = 0.4
    """Largest relative change of brightness: the factor is uniform in 1 +- this. MoCo v2: 0.4."""
    contrast: Annotated[float, Ge(0), Le(1)] = 0.4
    """Largest relative change of contrast about the view's mean, uniform in 1 +- this. MoCo v2: 0.4."""
    gamma: Annotated[float, Ge(0), Lt(4)] = 0.0
    """Largest |log| of the exponent applied to intensities in [0, 1]; 0 is off."""
    blur: Probability = 0.5
    """Probability of a Gaussian blur. MoCo v2: 0.5."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest sigma in pixels of a 224 px view (uniform between); a view of another size
    uses sigma * size / 224, the same fraction of the picture. MoCo v2: 0.1-2."""
    solarize: Probability = 0.0
    """Probability that intensities of 0.5 and more are inverted. Barlow Twins' second view: 0.2."""
    noise: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Standard deviation of added Gaussian noise, in units of the full intensity range."""

    @model_validator(mode="after")
    def _ranges(self) -> Views:
        for name, most in (("crop_scale", 1.0), ("crop_ratio", math.inf), ("blur_sigma", REFERENCE_SIZE / 8)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                limit = "" if math.isinf(most) else f" and at most {most:g}"
                raise ValueError(f"{name} needs 0 < low <= high{limit}, got {low:g}, {high:g}")
        return self

    @property
    def moves_pixels(self) -> bool:
        """Whether crop, rotation or flip can do anything to a square image."""
        whole = self.crop_scale == (1.0, 1.0) and self.crop_ratio[0] <= 1 <= self.crop_ratio[1]
        return not whole or self.rotate > 0 or self.flip > 0


class View(NamedTuple):
    """Augmented images and where their pixels came from."""

    images: Tensor  # (B, C, S, S) float32 in [0, 1]
    affine: Tensor  # (B, 2, 3) float32: output pixel coordinates (x, y, 1) to input pixel coordinates (x, y)


def view(images: Tensor | np.ndarray, random: RowRandom, config: Views) -> View:
    """One augmented view of each image.

    The numbers drawn from `random` depend on the config alone, never on their values: `uniform(13)`,
    then `normal(C, S, S)` if `noise` is set. Changing one setting leaves the other effects as they were.

    images: (B, C, H, W), uint8 or uint16; brightness and contrast act on all channels jointly.
    random: numbers whose row b depends on the identity of image b only.
    """
    source = to_unit(torch.as_tensor(images))
    draws = random.uniform(_DRAWS).to(source.device)  # (B, 13)
    height, width = source.shape[-2:]
    if height == width == config.size and not config.moves_pixels:
        affine = torch.eye(2, 3, device=source.device).repeat(len(source), 1, 1)
        pixels = source
    else:
        affine = draw_affine(draws, height, width, config)
        pixels = resample(source, affine, config.size, config.fill)
    _change_intensity(pixels, draws, config)
    if config.blur > 0:
        rows = (draws[:, _BLUR] < config.blur).nonzero()[:, 0]
        low, high = (value * config.size / REFERENCE_SIZE for value in config.blur_sigma)
        sigma = low + (high - low) * draws[rows, _SIGMA]
        pixels.index_copy_(0, rows, gaussian_blur(pixels[rows], sigma, math.ceil(4 * high)))
    if config.solarize > 0:
        chosen = (draws[:, _SOLARIZE] < config.solarize)[:, None, None, None] & (pixels >= 0.5)
        pixels = torch.where(chosen, 1 - pixels, pixels)
    if config.noise > 0:
        pixels.add_(random.normal(*pixels.shape[1:]).to(pixels.device), alpha=config.noise).clamp_(0, 1)
    return View(pixels, affine)


def to_unit(images: Tensor) -> Tensor:
    """uint8 or uint16 images (B, C, H, W) as new float32 in [0, 1]: the value over 255 or 65535."""
    limits = {torch.uint8: 255, torch.uint16: 65535}
    if images.dtype not in limits:
        raise TypeError(f"images must be uint8 or uint16, got {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"images must be (B, C, H, W), got shape {tuple(images.shape)}")
    return images.float().div_(limits[images.dtype])


def centre(images: Tensor, size: int, crop_fraction: float = 1.0) -> Tensor:
    """The evaluation view: a central square of `crop_fraction` of the short side, resized with antialiasing.

    (B, C, H, W), uint8 or uint16, to (B, C, size, size) float32 in [0, 1]. Resize to 256 and crop 224 is
    `crop_fraction=224/256`. A square that already has `size` pixels a side is returned as it is.
    """
    if not 0 < crop_fraction <= 1:
        raise ValueError(f"crop_fraction must be in (0, 1], got {crop_fraction}")
    height, width = images.shape[-2:]
    side = max(1, round(min(height, width) * crop_fraction))
    top, left = (height - side) // 2, (width - side) // 2
    pixels = to_unit(images[..., top : top + side, left : left + side])
    if side == size:
        return pixels
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)


def draw_affine(draws: Tensor, height: int, width: int, config: Views) -> Tensor:
    """The affine (B, 2, 3) of each view, output to input pixel coordinates, from uniform draws (B, 13).

    A crop has the distribution of torchvision's RandomResizedCrop: area and log ratio uniform over the
    pairs that fit into the image. Those pairs are sampled directly instead of by rejection, so no crop
    falls back to another rule, and positions are not rounded to whole pixels. Where no pair fits, the
    largest centred crop with the nearest allowed ratio is taken.
    """
    quantiles = _area_quantiles(config.crop_scale, config.crop_ratio, width / height)
    table = torch.from_numpy(quantiles).to(draws.device)
    place = draws[:, _AREA] * _TABLE
    step = place.long().clamp_(max=_TABLE - 1)
    area = torch.lerp(table[step], table[step + 1], place - step)
    image = math.log(width / height)
    low = (area.log() + image).clamp_(min=math.log(config.crop_ratio[0]))
    high = (image - area.log()).clamp_(max=math.log(config.crop_ratio[1]))
    ratio = (low + (high - low) * draws[:, _RATIO]).exp()
    crop_width = (area * ratio * (width * height)).sqrt().clamp_(max=width)
    crop_height = (area / ratio * (width * height)).sqrt().clamp_(max=height)
    fits = float(_fits(config.crop_scale, config.crop_ratio, width / height))
    x_place, y_place = (0.5 + fits * (draws[:, column] - 0.5) for column in (_LEFT, _TOP))
    x_centre = x_place * (width - crop_width) + crop_width / 2 - 0.5
    y_centre = y_place * (height - crop_height) + crop_height / 2 - 0.5

    angle = (2 * draws[:, _ANGLE] - 1) * math.radians(config.rotate)
    mirror = 1 - 2 * (draws[:, _FLIP] < config.flip).to(draws.dtype)
    x_scale, y_scale = crop_width / config.size, crop_height / config.size
    cos, sin = angle.cos(), angle.sin()
    a, b = x_scale * mirror * cos, -x_scale * mirror * sin
    c, d = y_scale * sin, y_scale * cos
    middle = (config.size - 1) / 2
    x_shift, y_shift = x_centre - middle * (a + b), y_centre - middle * (c + d)
    return torch.stack([a, b, x_shift, c, d, y_shift], 1).view(-1, 2, 3)


def _lengths(area: np.ndarray, ratio: tuple[float, float], image: float) -> np.ndarray:
    """Length of the interval of log ratios that fit, by area; negative: none. Image: width/height."""
    low = np.maximum(math.log(ratio[0]), math.log(image) + np.log(area))
    high = np.minimum(math.log(ratio[1]), math.log(image) - np.log(area))
    return high - low  # type: ignore[no-any-return]


def _fits(scale: tuple[float, float], ratio: tuple[float, float], image: float) -> bool:
    """Whether a crop of the smallest area fits with some allowed ratio."""
    return bool(_lengths(np.array(scale[0]), ratio, image) >= -1e-9)


@lru_cache(maxsize=64)
def _area_quantiles(scale: tuple[float, float], ratio: tuple[float, float], image: float) -> np.ndarray:
    """Crop area as a fraction of the image at the quantiles 0, 1/1024 ... 1, shape (1025,) float32."""
    if not _fits(scale, ratio, image):
        nearest = min(max(image, ratio[0]), ratio[1])
        return np.full(_TABLE + 1, min(nearest / image, image / nearest), np.float32)
    area = np.linspace(*scale, 16 * _TABLE + 1)
    length = _lengths(area, ratio, image)
    weight = np.where(length >= -1e-9, np.maximum(length, 1e-9), 0)  # a single ratio is no empty range
    mass = np.concatenate([[0.0], np.cumsum((weight[1:] + weight[:-1]) / 2)])
    return np.interp(np.linspace(0, mass[-1], _TABLE + 1), mass, area).astype(np.float32)


def resample(
    images: Tensor, affine: Tensor, size: int, fill: Fill = "border", mode: Mode = "bilinear"
) -> Tensor:
    """Images seen through an affine; masks take the same affine and `mode="nearest"`.

    Bilinear. Where a view shrinks its image by more than 1, each output pixel is the mean of a grid of
    samples at most one input pixel apart, so that fine texture averages out instead of aliasing.

    images: (B, C, H, W) float32. affine: (B, 2, 3), output to input pixel coordinates.
    """
    if mode == "nearest" or not (affine[:, :, :2].norm(dim=1) > 1 + 1e-3).any():
        return _sample(images, affine, size, (1, 1), fill, mode)
    finer = (affine[:, :, :2].norm(dim=1) - 1e-3).ceil_().clamp_(min=1).int()  # (B, 2): samples along x and y
    result = images.new_empty(*images.shape[:2], size, size)
    for many in torch.unique(finer, dim=0).tolist():
        rows = (finer == finer.new_tensor(many)).all(1).nonzero()[:, 0]
        for part in rows.split(max(1, _SAMPLES // (size * size * many[0] * many[1]))):
            fine = _sample(images[part], affine[part], size, (many[0], many[1]), fill, mode)
            result[part] = F.avg_pool2d(fine, (many[1], many[0])) if max(many) > 1 else fine
    return result


def _sample(
    images: Tensor, affine: Tensor, size: int, finer: tuple[int, int], fill: Fill, mode: str
) -> Tensor:
    """Interpolated samples (B, C, finer_y * size, finer_x * size), evenly spread over the output pixels."""
    height, width = images.shape[-2:]
    steps = (torch.arange(size * many, device=images.device, dtype=torch.float32) for many in finer)
    x, y = ((step + 0.5) / many - 0.5 for step, many in zip(steps, finer, strict=True))
    scale = affine.new_tensor([2 / width, 2 / height])[:, None]  # grid_sample counts from -1 to 1
    along_x = affine[:, :, 0:1] * scale * x  # (B, 2, S)
    along_y = affine[:, :, 1:2] * scale * y + (affine[:, :, 2:3] + 0.5) * scale - 1
    # x and y in two planes: grid_sample reads them twice as fast as interleaved pairs
    grid = along_x[:, :, None, :] + along_y[:, :, :, None]  # (B, 2, S, S)
    return F.grid_sample(images, grid.permute(0, 2, 3, 1), mode, fill, align_corners=False)


def _change_intensity(pixels: Tensor, draws: Tensor, config: Views) -> None:
    """Brightness, contrast and gamma, in place: x <- clip(b (c (x - mean) + mean)), then x ** g."""
    if config.intensity == 0:
        return
    on = (draws[:, _INTENSITY] < config.intensity).to(draws.dtype)
    if config.brightness > 0 or config.contrast > 0:
        brightness = 1 + on * config.brightness * (2 * draws[:, _BRIGHTNESS] - 1)
        contrast = 1 + on * config.contrast * (2 * draws[:, _CONTRAST] - 1)
        shift = brightness * (1 - contrast) * pixels.mean((1, 2, 3))
        pixels.mul_((brightness * contrast)[:, None, None, None])
        pixels.add_(shift[:, None, None, None]).clamp_(0, 1)
    if config.gamma > 0:
        exponent = (on * config.gamma * (2 * draws[:, _GAMMA] - 1)).exp()
        pixels.pow_(exponent[:, None, None, None])


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Gaussian blur with a sigma of its own for each image.

    At an edge the mean is taken over the pixels inside the image (a normalised convolution). Rows, then
    columns, are multiplied by blocks of a banded matrix: with the radii of augmentation this is faster on
    a CPU than a grouped convolution, and as fast as a full matrix product on any device.

    images: (B, C, H, W) float32. sigma: (B,) standard deviation in pixels. radius: pixels at which the kernel
    is cut off, the same for all; 4 times the largest sigma loses less than 1e-4 of it.
    """
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    exponent = (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2 / 2
    kernel = torch.exp(-exponent.clamp_(max=80)) * (exponent < 80)  # exact zeros: denormals are slow
    batch, channels, height, width = images.shape
    flat = images.reshape(batch * channels, height, width)
    kernel = kernel.repeat_interleave(channels, 0) if channels > 1 else kernel
    band = _band(kernel, _BLOCK)
    columns = [torch.bmm(rows, flat[:, low:high]) for rows, low, high in _blocks(band, radius, height)]
    flat = torch.cat(columns, 1)
    lines = [torch.bmm(flat[:, :, low:high], rows.mT) for rows, low, high in _blocks(band, radius, width)]
    return torch.cat(lines, 2).view_as(images)


def _band(kernel: Tensor, block: int) -> Tensor:
    """(N, block, block + 2 radius): row i holds the kernel (N, 2 radius + 1), shifted right by i."""
    count, length = kernel.shape
    wide = F.pad(kernel, (0, block)).repeat(1, block)[:, : block * (length + block - 1)]
    return wide.view(count, block, length + block - 1)


def _blocks(band: Tensor, radius: int, length: int) -> list[tuple[Tensor, int, int]]:
    """For each block of output pixels: its normalised matrix, and the input pixels it reads."""
    found = []
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        low, high = max(0, start - radius), min(length, stop + radius)
        rows = band[:, : stop - start, low - start + radius : high - start + radius]
        found.append((rows / rows.sum(2, keepdim=True), low, high))
    return found


def move_boxes(boxes: Tensor, affine: Tensor, size: int) -> Tensor:
    """Boxes of the input images as boxes of their views.

    A rotated box becomes the upright box around it; what lies outside the view is cut off, so a box that
    left it has no area.

    boxes: (B, N, 4) as left, top, right, bottom edges in pixels; the first pixel spans 0 to 1.
    affine: (B, 2, 3) of the view. size: side of the view in pixels.
    """
    left, top, right, bottom = (boxes - 0.5).unbind(-1)  # edges to the coordinates of pixel centres
    horizontal, vertical = [left, right, right, left], [top, top, bottom, bottom]
    corners = torch.stack([torch.stack(horizontal, -1), torch.stack(vertical, -1)], -1)  # (B, N, 4, 2)
    (a, b), (c, d) = affine[:, 0, :2].unbind(1), affine[:, 1, :2].unbind(1)
    inverse = torch.stack([d, -b, -c, a], 1).view(-1, 2, 2) / (a * d - b * c)[:, None, None]
    moved = ((corners - affine[:, None, None, :, 2]) @ inverse.mT[:, None] + 0.5).clamp(
        0, size
    )  # (B, N, 4, 2)
    return torch.cat([moved.amin(2), moved.amax(2)], -1)
