"""The generator of the hip GAN (paper A, section 4.2): upsampling and convolutions.

The paper names kernels, strides and activations but no widths or initialisation. Inferred: widths that mirror
the critic's (`nets/critic.py`), nearest-neighbour upsampling, convolutions with bias, torch's initialisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trabecula.config import Record
from trabecula.nets.critic import Norm, grid_side
from trabecula.nets.generators.generator import LatentGenerator

LATENT = 100


class UpsamplingConfig(Record):
    """Settings of the generator."""

    latent: int = Field(LATENT, ge=1)
    """Length of its random input."""
    widths: tuple[int, ...] = (512, 256, 128, 64, 32, 16)
    """Channels from its coarsest maps to its finest."""
    norm: Norm = "batch"
    """Norm in its blocks."""


class UpsamplingGenerator(LatentGenerator):
    """Noise to images in [-1, 1]: a linear layer, then blocks of upsampling, convolution, batch norm, ReLU.

    Without norm, for methods that want none, weights start with the variance of He et al. 2015 (arXiv
    1502.01852, section 2.2), which batch norm makes needless.

    Raises:
        InputError: a size that the doublings do not reach.
    """

    Config = UpsamplingConfig
    config: UpsamplingConfig

    def __init__(self, config: UpsamplingConfig, channels: int, size: int) -> None:
        super().__init__(config, channels, size)
        latent, widths, norm = config.latent, config.widths, config.norm
        self.latent = latent
        self.side = grid_side(size, len(widths) - 1)
        self.project = nn.Linear(latent, self.side**2 * widths[0])
        self.blocks = nn.Sequential(*(_UpBlock(wide, narrow, norm) for wide, narrow in pairwise(widths)))
        self.output = nn.Conv2d(widths[-1], channels, kernel_size=3, padding=1)
        if norm == "none":
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(cast("Tensor", layer.bias))

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) standard normal -> (B, C, S, S) in [-1, 1]."""
        maps = self.project(z).unflatten(1, (self.config.widths[0], self.side, self.side))
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

    def __init__(self, wide: int, narrow: int, norm: Norm) -> None:
        norms = [nn.BatchNorm2d(narrow)] if norm == "batch" else []
        conv = nn.Conv2d(wide, narrow, kernel_size=3, padding=1)
        super().__init__(nn.Upsample(scale_factor=2, mode="nearest"), conv, *norms, nn.ReLU(inplace=True))

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
