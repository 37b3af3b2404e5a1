"""MAE: hide most patches of an image and paint them from the rest (masked autoencoder).

He, Chen, Xie, Li, Dollar, Girshick 2021, arXiv 2111.06377. The encoder is a vision transformer of timm
and sees the visible patches only; a light decoder, thrown away after training, predicts the pixels of
the hidden ones. What lets it guess them, the shape of the anatomy above all, is kept in the encoder.
Rajamohan et al. 2026, arXiv 2603.24903v1, appendix B, train a ViT-Small this way on knees, with 25 to
70 % of the patches hidden: `mask_ratio` 0.25, 0.35, 0.5, 0.6 and 0.7.

Position embeddings are sines and cosines and do not move. An encoder that starts from weights keeps
the positions it was trained with, and they do not move either; fine-tuning moves them.

With `norm_pix` each patch is predicted up to its brightness and contrast, which is what the paper found to
give the better features. A patch of one grey, such as the image's border, then has nothing to predict: its
target is 0 throughout. `blank` in the log is the share of hidden patches that are so.

At the end a few images of the pool are drawn with what was hidden and what was filled in,
`reconstructions.png` in the run's folder. The picture is made of the visible patches and the prediction
alone. Brightness and contrast of a hidden patch are never taken from that patch, which would draw the
answer into the picture: they are fitted so that the patch joins its neighbours
(`objectives/patch_brightness.py`).
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from trabecula.artifacts.store import to_float
from trabecula.config import Record
from trabecula.data.views import Views
from trabecula.errors import InputError
from trabecula.nets import mae as parts
from trabecula.nets.encoder import Encoder
from trabecula.objectives.objective import Batches, Objective, Picture, Setting, Steps, Update
from trabecula.objectives.optim import Optimizer
from trabecula.objectives.patch_brightness import fill_in
from trabecula.random_numbers import RowRandom

_EPS = 1e-6  # added to a patch's variance


class MaeConfig(Record):
    """Settings of MAE; the defaults are the paper's."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Part of the patches that is hidden (section 4.1); the knee study has 0.25 to 0.7."""
    norm_pix: bool = True
    """Predict each patch with its mean subtracted and divided by its standard deviation, the unbiased one
    (section 3, "Reconstruction target"). false predicts the pixels as they are, as lightly's benchmark."""
    decoder_width: int = Field(512, ge=4)
    """Width of the decoder (table 1b); a multiple of 4 and of decoder_heads."""
    decoder_depth: int = Field(8, ge=1)
    """Blocks of the decoder (table 1a)."""
    decoder_heads: int = Field(16, ge=1)
    """Attention heads of the decoder (the official code)."""
    views: Views = Views(crop_scale=(0.2, 1.0), rotate=0, intensity=0, blur=0)
    """Augmentation: random resized crops (appendix A.1); the paper's flip is left out, as sides are
    normalised here. The size is the encoder's."""
    optimizer: Optimizer = Optimizer(
        name="adamw", lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05, decay_vectors=False,
        schedule="cosine", warmup=0.05,
    )  # fmt: skip
    """AdamW with a half cosine after a warm-up of 40 of 800 epochs (appendix A.1, table 8); 1.5e-4 is for 256
    images a batch."""
    scale_lr: bool = True
    """Multiply the rate by batch size / 256 (appendix A.1, the linear rule)."""

    @model_validator(mode="after")
    def _width_fits(self) -> Self:
        if self.decoder_width % self.decoder_heads or self.decoder_width % 4:
            wanted = f"a multiple of 4 and of decoder_heads {self.decoder_heads}"
            raise ValueError(f"decoder_width {self.decoder_width} must be {wanted}")
        return self


class Mae(Objective):
    """An encoder of visible patches and a decoder of hidden ones."""

    Config = MaeConfig
    config: MaeConfig
    group = "autoencoder"
    architectures = ("timm:test_vit_patch8",)
    tiny = {
        "mask_ratio": 0.5, "norm_pix": False, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2,
        "views": {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "rotate": 0, "blur": 0, "intensity": 0},
        "optimizer": {"name": "adamw", "lr": 1e-3}, "scale_lr": False,
    }  # fmt: skip

    def __init__(self, config: MaeConfig, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        self.encoder, backbone = encoder, encoder.backbone
        net = parts.vision_transformer(backbone, "mae")
        self.grid: tuple[int, int] = backbone.grid or (0, 0)
        self.patch = encoder.card.size // self.grid[0]
        self.num_patches = self.grid[0] * self.grid[1]
        self.num_visible = visible_patches(self.num_patches, config.mask_ratio)
        with setting.seeded("mae"):
            fresh = not (encoder.card.images_seen or encoder.card.weights)
            parts.prepare_encoder(net, self.grid, fresh)
            self.decoder = parts.Decoder(
                backbone.num_features, backbone.num_prefix_tokens, self.grid,
                self.patch**2 * backbone.in_channels,
                config.decoder_width, config.decoder_depth, config.decoder_heads,
            )  # fmt: skip

    def step(self, batches: Batches, progress: float) -> Steps:  # noqa: ARG002
        (batch,) = batches
        x = self.encoder.normalise(batch.view(self.config.views).images)
        masking = self.hide(batch.random)
        pixels = parts.patchify(x, self.patch)  # (B, L, patch * patch * C)
        blank = (pixels.var(2) < _EPS)[masking.mask].float().mean()
        target = normalise_patches(pixels) if self.config.norm_pix else pixels
        loss = masked_error(self(x, masking).float(), target, masking.mask)
        yield Update("autoencoder", loss, {"blank": blank})

    def forward(self, x: Tensor, masking: parts.PatchMask) -> Tensor:
        """(B, C, H, W) normalised -> (B, L, patch * patch * C) of all patches; hidden ones are not seen."""
        net = parts.vision_transformer(self.encoder.backbone, "mae")
        values: Tensor = self.decoder(parts.encode(net, x, masking.visible), masking.restore)
        return values

    def hide(self, random: RowRandom) -> parts.PatchMask:
        """Masks for a batch."""
        return parts.hide(random.uniform(self.num_patches), self.num_visible)

    @torch.no_grad()
    def pictures(self, images: Tensor, random: RowRandom) -> dict[str, Picture]:
        whole = to_float(images)
        seen, filled = self.reconstruct(whole, random)
        scale = "The network predicts the hidden pixels themselves."
        if self.config.norm_pix:
            scale = (
                "The network predicts a hidden patch but for its brightness and contrast, and these are "
                "set so that it joins its neighbours; nothing is taken from the hidden patch itself."
            )
        share = f"{100 * (self.num_visible / self.num_patches):.0f} % of the patches"
        rows = {
            "Images of the pool": whole,
            f"What the encoder sees: {share}": seen,
            "What it fills in": filled,
        }
        return {"reconstructions": Picture(f"Reconstructions of {self.encoder.card.name}", scale, rows)}

    @torch.no_grad()
    def reconstruct(self, images: Tensor, random: RowRandom) -> tuple[Tensor, Tensor]:
        """What the encoder sees of images (B, C, H, W) in [0, 1], and the same with the rest filled in.

        Both are functions of the visible patches: the same whatever the others hold.
        """
        x, masking = self.encoder.normalise(images), self.hide(random)
        hidden, channels = masking.mask[:, :, None], images.shape[1]
        predicted = self(x, masking).float()
        pixels = parts.patchify(x, self.patch).masked_fill(hidden, 0)
        if self.config.norm_pix:
            predicted = fill_in(pixels, predicted, masking.mask, self.patch, self.grid)
        page = parts.patchify(self.encoder.normalise(torch.ones_like(images)), self.patch)  # white
        seen, filled = (torch.where(hidden, other, pixels) for other in (page, predicted))
        return self._images(seen, channels), self._images(filled, channels)

    def _images(self, patches: Tensor, channels: int) -> Tensor:
        """Normalised patches (B, L, patch * patch * C) -> (B, channels, H, W) in [0, 1]."""
        x = parts.unpatchify(patches, self.patch, self.grid) * self.encoder.std + self.encoder.mean
        return (x if x.shape[1] == channels else x.mean(1, keepdim=True)).clamp(0, 1)


def visible_patches(num_patches: int, mask_ratio: float) -> int:
    """How many patches are left to see: rounded down, as the official code does. Never none or all."""
    visible = int(num_patches * (1 - mask_ratio) + 1e-6)  # 0.3 is stored as a little less
    if 0 < visible < num_patches:
        return visible
    raise InputError(
        f"mae: of {num_patches} patches an image, mask_ratio {mask_ratio:g} leaves {visible} to see; choose "
        "another mask_ratio, a larger size, or an architecture of smaller patches, such as "
        "timm:vit_small_patch8_224"
    )


def normalise_patches(patches: Tensor) -> Tensor:
    """(B, L, D) with each patch at mean 0 and unbiased variance 1 (section 3, "Reconstruction target")."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return (patches - mean) / (variance + _EPS).sqrt()


def masked_error(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the values of hidden patches: (B, L, D), (B, L, D), (B, L) bool -> scalar."""
    each = (predicted - target).square().mean(2)  # (B, L)
    return (each * mask).sum() / mask.sum()
