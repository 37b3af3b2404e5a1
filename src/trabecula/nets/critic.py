"""The critic and the generator of the hip GAN (paper A, section 4.2).

Images here are in [-1, 1], the range the generator's tanh makes. Sizes are 32 px times a whole
number: five blocks halve (or double) the side, so 224 px gives maps of 7 x 7.

The paper names kernels, strides and activations but no widths, padding or initialisation. Inferred:
widths 32-64-128-256-512, the only doubling that ends at the stated 512; padding 1, which halves an
even side exactly; torch's own initialisation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trabecula.errors import InputError

WIDTHS = (32, 64, 128, 256, 512)
LATENT = 100
_SLOPE = 0.2

Norm = Literal["none", "batch"]
NORMS: dict[str, Norm] = {"critic": "none", "critic_bn": "batch"}
"""Architectures that are critics, and the norm in their blocks."""


def is_critic(architecture: str) -> bool:
    """Whether an architecture ("critic", "critic:16-32-64", "critic_bn") is this one."""
    return architecture.partition(":")[0] in NORMS


def grid_side(size: int, num_blocks: int = len(WIDTHS)) -> int:
    """Side of the coarsest maps for images of `size` px.

    Raises:
        InputError: the side cannot be halved `num_blocks` times.
    """
    step = 1 << num_blocks
    if size < step or size % step:
        nearest = max(step, round(size / step) * step)
        raise InputError(
            f"size {size}: the critic halves the side {num_blocks} times, so the size must be a multiple "
            f"of {step} px; the nearest is {nearest}"
        )
    return size // step


def critic_blocks(channels: int, widths: Sequence[int] = WIDTHS, norm: Norm = "none") -> nn.Sequential:
    """The critic up to its output layer: 4x4 convolutions of stride 2, each with LeakyReLU 0.2.

    No normalisation layer, as a gradient penalty is a statement about single images (Gulrajani et
    al. 2017, arXiv 1704.00028, section 4), and nothing in place, as it is differentiated twice.
    With norm "batch", for the ablation, every convolution but the first is followed by batch norm
    (Radford, Metz, Chintala 2016, arXiv 1511.06434, section 3).
    """
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (narrow, wide) in enumerate(pairwise((channels, *widths))):
        blocks[f"conv{index}"] = nn.Conv2d(narrow, wide, kernel_size=4, stride=2, padding=1)
        if norm == "batch" and index:
            blocks[f"norm{index}"] = nn.BatchNorm2d(wide)
        blocks[f"act{index}"] = nn.LeakyReLU(_SLOPE)
    return nn.Sequential(blocks)


def widths_of(blocks: nn.Sequential) -> tuple[int, ...]:
    """The number of channels after each of a critic's convolutions."""
    return tuple(layer.out_channels for layer in blocks if isinstance(layer, nn.Conv2d))


class Critic(nn.Module):
    """Images to one unbounded score each; higher means more like a real image.

    Pass `blocks` to score through an encoder's own layers (`encoder.backbone.net`), so that
    training the critic trains the encoder.

    Raises:
        InputError: a size that five halvings do not divide.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        widths: Sequence[int] = WIDTHS,
        blocks: nn.Sequential | None = None,
    ) -> None:
        super().__init__()
        self.blocks = critic_blocks(channels, widths) if blocks is None else blocks
        widths = widths_of(self.blocks)
        side = grid_side(size, len(widths))
        self.num_features = side * side * widths[-1]
        self.output = nn.Linear(self.num_features, 1)

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B, 512, S / 32, S / 32)."""
        maps: Tensor = self.blocks(x)
        return maps

    def features(self, x: Tensor) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B, num_features), the flattened maps."""
        return self.maps(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B,) scores."""
        scores: Tensor = self.output(self.features(x))
        return scores.squeeze(1)


GENERATOR_WIDTHS = (512, 256, 128, 64, 32, 16)


class Generator(nn.Module):
    """Noise to images in [-1, 1]: a linear layer, then blocks of upsampling, convolution, batch norm, ReLU.

    Upsampling is nearest-neighbour and the convolutions keep their bias, both inferred; the widths
    512-256-128-64-32-16 mirror the critic's. Without norm, for methods that want none, weights start with
    the variance of He et al. 2015 (arXiv 1502.01852, section 2.2), which batch norm makes needless.

    Raises:
        InputError: a size that the doublings do not reach.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        latent: int = LATENT,
        widths: Sequence[int] = GENERATOR_WIDTHS,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.latent, self.widths, self.norm = latent, tuple(widths), norm
        self.side = grid_side(size, len(widths) - 1)
        self.project = nn.Linear(latent, self.side**2 * widths[0])
        self.blocks = nn.Sequential(*(_up_block(wide, narrow, norm) for wide, narrow in pairwise(widths)))
        self.output = nn.Conv2d(widths[-1], channels, kernel_size=3, padding=1)
        if norm == "none":
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(cast("Tensor", layer.bias))

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) standard normal -> (B, C, S, S) in [-1, 1]."""
        maps = self.project(z).unflatten(1, (self.widths[0], self.side, self.side))
        maps = maps.contiguous(memory_format=torch.channels_last)  # the layers that follow keep the layout
        return torch.tanh(self.output(self.blocks(maps)))


def mirrored(widths: Sequence[int]) -> tuple[int, ...]:
    """A generator's widths for a critic's: backwards, and half the narrowest at the end."""
    return (*reversed(widths), max(widths[0] // 2, 1))


class _UpBlock(nn.Sequential):
    """Upsampling, convolution, norm and activation, the first two computed as one.

    Doubling by nearest neighbour and then a 3x3 convolution is a transposed 4x4 convolution of stride 2:
    the same function of the same weights, with 16 products a coarse pixel and channel pair where the
    convolution on the fine pixels has 36.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        _, conv, *rest = cast("tuple[nn.Upsample, nn.Conv2d, nn.Module, nn.Module]", tuple(self))
        maps = F.conv_transpose2d(input, spread(conv.weight), conv.bias, stride=2, padding=1)
        for layer in rest:
            maps = layer(maps)
        return maps


def spread(kernel: Tensor) -> Tensor:
    """The transposed kernel (in, out, 4, 4) of doubling, then convolving with (out, in, 3, 3) and padding 1.

    Row 2y - 1 + i of the result sees coarse row y through those rows a of the kernel for which
    2y - 1 + i + a - 1 is 2y or 2y + 1, so through a = 2 - i and a = 3 - i, where these are 0, 1 or 2.
    """
    kernel = kernel.permute(1, 2, 3, 0)
    for dim in (1, 2):
        first, second, third = kernel.unbind(dim)
        kernel = torch.stack((third, second + third, first + second, first), dim)
    return kernel.permute(0, 3, 1, 2)  # channels last: the library need not reorder it


def _up_block(wide: int, narrow: int, norm: Norm) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(wide, narrow, kernel_size=3, padding=1),
        nn.BatchNorm2d(narrow),
        nn.ReLU(inplace=True),
    ]
    return _UpBlock(*(layers if norm == "batch" else layers[:2] + layers[3:]))
