"""A convolutional encoder that sees some cells of an image and computes nothing of the others.

Tian, Jiang, Lin, Diao, Wang, Yuan 2023, arXiv 2301.03580, section 3 (sparse convolution for masked images).
A plain network would carry the edges of the masked cells inwards, layer by layer, and count their zeros in
its batch norms. Here masked positions are zero after every convolution and pooling, and norms see the
visible positions alone. The layers are the encoder's own: nothing is converted and no weight is copied,
only hooked for the length of one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trabecula.errors import InputError
from trabecula.nets.encoder import Encoder

_POINTWISE = (
    nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Tanh,
    nn.Dropout,
)  # fmt: skip
"""Layers that leave a zero a zero."""


def sparse_maps(encoder: Encoder, images: Tensor, visible: Tensor) -> Tensor:
    """What `encoder.maps` says of the visible cells of each image; 0 in the others.

    With every cell visible this is `encoder.maps`. No masked pixel has a part in it. In training mode the
    batch norms take their statistics over the visible positions of the batch, of all processes under
    `nets.norm.GlobalBatchNorm`.

    (B, C, H, W) in [0, 1], (B, h, w) bool for the cells of the encoder's maps -> (B, K, h, w).

    Raises:
        InputError: a layer that mixes positions in another way than convolution and pooling, a norm over
            other things than the batch, or maps whose sides are not multiples of the grid's.
    """
    cells = _Cells(visible, encoder.card.architecture)
    pixels = encoder.normalise(images)
    pixels = torch.where(cells.mask(pixels), pixels, 0)  # after the normalisation, which moves zeros
    with _hooked(encoder.backbone.net, cells):
        maps = encoder.backbone.maps(pixels)
    if maps.shape[-2:] != visible.shape[-2:]:
        raise InputError(
            f"{encoder.card.architecture} gives maps of {maps.shape[-2]} x {maps.shape[-1]}, "
            f"the mask has {visible.shape[-2]} x {visible.shape[-1]} cells; mask the cells of the maps"
        )
    return maps


class _Cells:
    """The visible cells at the resolution of any layer."""

    def __init__(self, visible: Tensor, architecture: str) -> None:
        self.visible, self.architecture = visible, architecture
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._rows: dict[tuple[int, int], Tensor] = {}

    def mask(self, maps: Tensor) -> Tensor:
        """(B, 1, H, W) bool, the visible positions of maps (B, C, H, W)."""
        height, width = maps.shape[-2:]
        if (height, width) not in self._masks:
            rows, columns = self.visible.shape[-2:]
            if height % rows or width % columns:
                raise InputError(
                    f"{self.architecture}: one of its layers gives maps of {height} x {width}, whose "
                    f"positions are not whole parts of {rows} x {columns} cells; choose a size that every "
                    "stride divides (a multiple of 32 px for a ResNet), or a ResNet of timm or torchvision"
                )
            enlarged = self.visible.repeat_interleave(height // rows, 1)
            self._masks[height, width] = enlarged.repeat_interleave(width // columns, 2)[:, None]
        return self._masks[height, width]

    def gather(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (visible positions, C, 1, 1).

        Positions are along the first axis: along a transposed one, torch 2.15's batch norm on a CPU gives a
        wrong gradient.
        """
        height, width = maps.shape[-2:]
        if (height, width) not in self._rows:
            self._rows[height, width] = self.mask(maps).flatten().nonzero()[:, 0]
        rows = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).index_select(0, self._rows[height, width])
        return rows[:, :, None, None]

    def scatter(self, values: Tensor, height: int, width: int) -> Tensor:
        """The way back; zeros elsewhere."""
        rows = values[:, :, 0, 0]
        empty = rows.new_zeros(len(self.visible) * height * width, rows.shape[1])
        filled = empty.index_copy(0, self._rows[height, width], rows)
        return filled.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


@contextmanager
def _hooked(net: nn.Module, cells: _Cells) -> Iterator[None]:
    """Within it, every pass through `net` is one of these cells. The hooks end with it: no state is left."""
    from timm.layers.blur_pool import BlurPool2d

    spatial = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, BlurPool2d)
    sizes: dict[nn.Module, torch.Size] = {}

    def gather(norm: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        sizes[norm] = args[0].shape[-2:]
        return (cells.gather(args[0]),)

    def scatter(norm: nn.Module, args: tuple[Tensor], values: Tensor) -> Tensor:  # noqa: ARG001
        return cells.scatter(values, *sizes[norm])

    def blank(layer: nn.Module, args: tuple[Tensor], maps: Tensor) -> Tensor:  # noqa: ARG001
        return maps * cells.mask(maps)

    def refuse(layer: nn.Module, args: tuple[Tensor]) -> None:  # noqa: ARG001
        raise InputError(
            f"{cells.architecture} has a layer {type(layer).__name__}, which cannot be run on part of an "
            "image; choose a ResNet of timm or torchvision with batch norm (timm:resnet34), or a critic"
        )

    with ExitStack() as hooks:
        for layer in net.modules():
            if isinstance(layer, _BatchNorm):
                hooks.enter_context(layer.register_forward_pre_hook(gather))
                hooks.enter_context(layer.register_forward_hook(scatter))
            elif isinstance(layer, spatial):
                hooks.enter_context(layer.register_forward_hook(blank))
            elif not (isinstance(layer, _POINTWISE) or any(True for _ in layer.children())):
                hooks.enter_context(layer.register_forward_pre_hook(refuse))
        yield
