"""The critic of the hip GAN (paper A, section 4.2).

Images here are in [-1, 1], the range of the generator (`nets/generators/upsampling.py`). Sizes are 32 px
times a whole number: five blocks halve the side, so 224 px gives maps of 7 x 7.

The paper names kernels, strides and activations but no widths, padding or initialisation. Inferred:
widths 32-64-128-256-512, the only doubling that ends at the stated 512; padding 1, which halves an
even side exactly; torch's own initialisation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, cast

from torch import Tensor, nn

from trabecula.artifacts.encoder import EncoderCard, write_critic
from trabecula.errors import InputError

WIDTHS = (32, 64, 128, 256, 512)
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

    No normalisation layer, as a gradient penalty is a statement about single images (Gulrajani et al. 2017,
    arXiv 1704.00028, section 4), and nothing in place, as it is differentiated twice. With norm "batch", for
    the ablation, batch norm follows every convolution but the first (Radford, Metz, Chintala 2016, arXiv
    1511.06434, section 3).
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
        self, channels: int, size: int, widths: Sequence[int] = WIDTHS, blocks: nn.Sequential | None = None
    ) -> None:
        super().__init__()
        self.blocks = critic_blocks(channels, widths) if blocks is None else blocks
        widths = widths_of(self.blocks)
        side = grid_side(size, len(widths))
        self.num_features = side * side * widths[-1]
        self.output = nn.Linear(self.num_features, 1)

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B, 512, S / 32, S / 32)."""
        return cast("Tensor", self.blocks(x))

    def features(self, x: Tensor) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B, num_features), the flattened maps."""
        return self.maps(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B,) scores."""
        return cast("Tensor", self.output(self.features(x))).squeeze(1)

    def save(self, folder: Path, card: EncoderCard, images: int) -> None:  # noqa: ARG002
        """Write the output layer; the blocks are the weights of the encoder in the same folder."""
        write_critic(folder, self.output.state_dict())
