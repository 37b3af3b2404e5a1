"""Parts of a masked autoencoder: patches, fixed positions, an encoder that sees some patches, a decoder.

He, Chen, Xie, Li, Dollar, Girshick 2021, arXiv 2111.06377, section 3 and appendix A.1.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, cast

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from trabecula.errors import InputError
from trabecula.nets.backbone import Backbone

_LARGE = 128  # px from which patches of 16 are enough of them to hide some and see others
_WAVELENGTH = 10000.0  # longest of the position code, in patches / (2 pi)
_TOKEN_STD = 0.02


class PatchMask(NamedTuple):
    """Which patches of each image are hidden.

    visible: (B, V) places of those that are not, in random order.
    restore: (B, L) from places of the image to places of (visible, hidden).
    mask: (B, L) bool, True for hidden.
    """

    visible: Tensor
    restore: Tensor
    mask: Tensor


def vision_transformer(backbone: Backbone, method: str) -> VisionTransformer:
    """The network of a backbone whose patches can be left out one by one.

    Raises:
        InputError: another kind of network, or patches that see each other before the first block.
    """
    net = backbone.net
    plain = isinstance(net, VisionTransformer) and isinstance(net.patch_embed, PatchEmbed)
    if not plain or backbone.grid is None or getattr(net, "pos_embed", None) is None:
        patch = 16 if backbone.size >= _LARGE else 8
        raise InputError(
            f"{method} hides patches of an image from a plain vision transformer of timm's, and the "
            f"architecture '{backbone.architecture}' is none; for {backbone.size} px add "
            f"-s architecture=timm:vit_small_patch{patch}_224"
        )
    return net  # type: ignore[return-value]


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, L, patch * patch * C): patches row by row, so their pixels, channels fastest."""
    batch, channels, height, width = images.shape
    parts = images.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return parts.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """(B, L, patch * patch * C) of a grid of (h, w) patches -> (B, C, H, W)."""
    rows, columns = grid
    parts = patches.reshape(len(patches), rows, columns, patch, patch, -1)
    return parts.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def sincos_positions(width: int, grid: tuple[int, int]) -> Tensor:
    """(h * w, width): half of the code for a patch's column, half for its row, each sines, then cosines.

    Raises:
        InputError: a width that is not a multiple of 4.
    """
    if width % 4:
        raise InputError(f"sine-cosine positions need a width that is a multiple of 4, not {width}")
    frequency = _WAVELENGTH ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [place.reshape(-1, 1) * frequency for place in (column, row)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1).float()


def prepare_encoder(net: VisionTransformer, grid: tuple[int, int], fresh: bool) -> None:
    """Position embeddings that do not learn; with `fresh` weights as the paper starts them.

    Sine-cosine positions, zero for the class token; Xavier-uniform linear layers, the patch embedding as
    one of them; the class token normal. Weights that were learned before stay, positions among them.
    """
    positions: Any = net.pos_embed
    positions.requires_grad_(False)
    if not fresh:
        return
    code = sincos_positions(positions.shape[2], grid)
    with torch.no_grad():
        positions.zero_()
        positions[0, positions.shape[1] - len(code) :] = code
    net.blocks.apply(_xavier)
    net.patch_embed.apply(_xavier)
    for token in (net.cls_token, net.reg_token):
        if token is not None:
            nn.init.normal_(token, std=_TOKEN_STD)


def _xavier(part: nn.Module) -> None:
    if isinstance(part, nn.Linear | nn.Conv2d):  # a convolution that embeds patches is a linear layer
        nn.init.xavier_uniform_(part.weight.data.view(len(part.weight), -1))
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def hide(noise: Tensor, num_visible: int) -> PatchMask:
    """Uniformly random masks with `num_visible` patches left in each image; noise (B, L) is uniform."""
    order = noise.argsort(dim=1, stable=True)
    restore = order.argsort(dim=1)
    return PatchMask(order[:, :num_visible], restore, restore >= num_visible)


def encode(net: VisionTransformer, x: Tensor, visible: Tensor | None = None) -> Tensor:
    """(B, C, H, W) normalised -> (B, prefix + V, K) tokens; hidden patches enter no block.

    visible: (B, V) patches that are seen; None for all, which is what the network gives by itself.
    """
    tokens = net._pos_embed(net.patch_embed(x))  # positions come before patches are left out
    if visible is not None:
        prefix, patches = tokens.tensor_split([net.num_prefix_tokens], dim=1)
        tokens = torch.cat([prefix, _take(patches, visible)], dim=1)
    tokens = net.norm(net.blocks(net.norm_pre(tokens)))
    return net.forward_head(tokens)


class Decoder(nn.Module):
    """A light transformer that fills in what is hidden, with fixed positions of its own.

    num_features: of the encoder's tokens.
    num_prefix: tokens before the patches; they help to decode and are not predicted.
    num_values: of one patch.
    """

    positions: Tensor

    def __init__(
        self, num_features: int, num_prefix: int, grid: tuple[int, int], num_values: int,
        width: int, depth: int, heads: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_prefix = num_prefix
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.embed = nn.Linear(num_features, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.Sequential(
            *(Block(width, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth))  # type: ignore[arg-type]
        )
        self.norm = norm(width)
        self.predict = nn.Linear(width, num_values)
        code = torch.cat([torch.zeros(num_prefix, width), sincos_positions(width, grid)])
        self.register_buffer("positions", code[None], persistent=False)
        self.apply(_xavier)
        nn.init.normal_(self.mask_token, std=_TOKEN_STD)

    def forward(self, tokens: Tensor, restore: Tensor) -> Tensor:
        """(B, prefix + V, num_features), (B, L) -> (B, L, num_values)."""
        prefix, visible = self.embed(tokens).tensor_split([self.num_prefix], dim=1)
        hidden = self.mask_token.expand(len(tokens), restore.shape[1] - visible.shape[1], -1)
        patches = _take(torch.cat([visible, hidden.to(visible.dtype)], dim=1), restore)
        x = self.norm(self.blocks(torch.cat([prefix, patches], dim=1) + self.positions))
        return cast("Tensor", self.predict(x[:, self.num_prefix :]))


def _take(patches: Tensor, places: Tensor) -> Tensor:
    """(B, L, K), (B, V) -> (B, V, K)."""
    return patches.gather(1, places[:, :, None].expand(-1, -1, patches.shape[2]))
