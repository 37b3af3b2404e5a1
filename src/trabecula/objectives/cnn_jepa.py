"""CNN-JEPA: predict, from the visible part of an image, what an encoder would say of the hidden part.

Kalapos, Gyires-Toth 2024, arXiv 2408.07514 (the method on convolutional networks, and its official code
for the settings the paper leaves out); Assran et al. 2023, arXiv 2301.08243 (I-JEPA: targets, blocks,
moving average). A student sees an image with cells left out, a predictor fills in the maps there, and the
maps of the whole image by a slow average of the student are the answer. No second view, no negatives, no
pixels to reproduce: what is learned is what one part of a radiograph says of another. The average is the
encoder that is kept: it is the one that has seen whole images.

A cell is one position of the encoder's last maps, 32 px for a ResNet, so a grid of 7 x 7 wants views of
224 px. Small images need larger views (`size`) to have cells enough.
"""

from __future__ import annotations

import copy
import math
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from annotated_types import Gt, Lt
from pydantic import Field, model_validator
from torch import Tensor, nn

from trabecula import distributed
from trabecula.config import Record
from trabecula.data.views import Views
from trabecula.errors import InputError
from trabecula.nets.encoder import Encoder
from trabecula.nets.sparse import sparse_maps
from trabecula.objectives.objective import Batches, Objective, Product, Setting, Steps, Update, ema, rising
from trabecula.objectives.optim import Optimizer
from trabecula.random_numbers import RowRandom

Share = Annotated[float, Gt(0), Lt(1)]
Grid = tuple[int, int]


class Masking(Record):
    """Which cells are hidden; the defaults are the official code's for images of 224 px."""

    sampler: Literal["fixed", "faithful"] = "fixed"
    """How blocks are placed. "fixed": anywhere in the grid. "faithful": as in the official code (and
    I-JEPA's), whose positions end one short of the last, so that no block reaches the last row or column:
    13 of 49 cells are never predicted, and the centre nearly always."""
    blocks: float = Field(0.75, ge=0, le=1)
    """Part of the batches that hide blocks; the others hide single cells at random."""
    num_blocks: int = Field(4, ge=1)
    """Blocks an image; they may overlap."""
    block_scale: tuple[Share, Share] = (0.15, 0.2)
    """Smallest and largest block, as a part of the cells."""
    block_ratio: tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)]] = (0.75, 1.5)
    """Smallest and largest height / width of a block. One number a batch sets scale and ratio together,
    as in the official code: large blocks are tall ones."""
    min_visible: Share = 0.12
    """Least part of the cells that stay visible: 6 of 49. Where the blocks leave fewer, the last ones are
    dropped."""
    hidden: Share = 0.6
    """Part of the cells hidden in the batches without blocks."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("block_scale", "block_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} needs low <= high, got {low:g}, {high:g}")
        return self


class CnnJepaConfig(Record):
    """Settings of CNN-JEPA; the defaults are the official code's for ImageNet-100 where nothing is said."""

    size: int = Field(0, ge=0)
    """Side of the views, px; 0: the encoder's. A multiple of 32 for a ResNet, whose grid is size / 32."""
    masking: Masking = Masking()
    """Which cells are hidden."""
    layers: int = Field(3, ge=1)
    """Layers of the predictor, each a depthwise and a pointwise convolution, batch norm and ReLU."""
    kernel: int = Field(3, ge=1)
    """Side of its depthwise kernels; odd."""
    momentum: float = Field(0.996, ge=0, le=1)
    """Of the target encoder's average at the start; it rises to 1 by half a cosine, here at each step and
    not at each epoch."""
    views: Views = Views(rotate=0, intensity=0, blur=0)
    """The one view of an image: crop 0.2 to 1, nothing else. The size is that of `size`."""
    optimizer: Optimizer = Optimizer(
        name="adamw", lr=0.01, weight_decay=0.01, decay_vectors=False, schedule="cosine", warmup=0.05
    )
    """AdamW, 10 of 200 epochs of warm-up, half a cosine. 0.01 is for 512 images a batch. The official code
    lets norms, biases and the mask token decay too (`decay_vectors = true`), and decay alone draws a token,
    which sees little gradient, to zero."""
    scale_lr: bool = True
    """Multiply the rate by batch size / 512 (inferred: no rule is given, and 0.01 is much for 64 images)."""

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}: {self.kernel + 1} would do")
        return self


class CnnJepa(Objective):
    """A masked student, a predictor, and the student's moving average as target."""

    Config = CnnJepaConfig
    config: CnnJepaConfig
    group, rate_batch = "student", 512
    batch_coupled = True
    tiny = {
        "size": 96, "momentum": 0.99, "optimizer": {"name": "adamw", "lr": 1e-3}, "scale_lr": False,
        "views": {"crop_scale": (0.8, 1.0), "rotate": 0, "blur": 0, "intensity": 0},
    }  # fmt: skip

    def __init__(self, config: CnnJepaConfig, encoder: Encoder, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        self.grid = find_grid(encoder, self.config.views.size)
        self.student = encoder
        with setting.seeded("cnn_jepa predictor"):
            self.predictor = Predictor(encoder.backbone.num_features, config.layers, config.kernel)
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)

    def products(self) -> dict[str, Product]:
        return {"encoder": self.teacher}

    def step(self, batches: Batches, progress: float) -> Steps:
        (batch,) = batches
        ema(self.teacher, self.student, rising(self.config.momentum, progress))
        images = batch.view(self.config.views).images
        hidden = draw_hidden(batch.random, self.grid, self.config.masking).to(images.device)
        predicted = self.predictor(sparse_maps(self.student, images, ~hidden), hidden)
        with torch.no_grad():
            wanted = self.teacher.maps(images)  # its norms take their statistics of whole images
        yield Update("student", prediction_loss(predicted, wanted, hidden), {"hidden": hidden.float().mean()})


class Predictor(nn.Module):
    """The maps of all cells from those of the visible ones: depthwise-separable convolutions.

    The convolutions have no bias: the batch norm that follows would take it away.

    token: (C,) stands in each hidden cell; its first values are the truncated normal of the official code.
    """

    def __init__(self, channels: int, layers: int, kernel: int) -> None:
        super().__init__()
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(channels), std=0.02, a=-0.02, b=0.02))
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [
                nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*parts)

    def forward(self, maps: Tensor, hidden: Tensor) -> Tensor:
        """(B, C, h, w) and (B, h, w) bool -> (B, C, h, w), not negative."""
        token = self.token.to(maps.dtype)[:, None, None]
        predicted: Tensor = self.layers(torch.where(hidden[:, None], token, maps))
        return predicted


def prediction_loss(predicted: Tensor, wanted: Tensor, hidden: Tensor) -> Tensor:
    """Smooth L1 between maps of unit length in each cell: sum over channels, mean over the hidden cells.

    The mean is over the cells of all processes, each of which gets the loss of the global batch.
    predicted, wanted: (B, C, h, w), of which only the direction in each cell matters; hidden: (B, h, w) bool.
    """
    if predicted.dtype != torch.float64:
        predicted, wanted = predicted.float(), wanted.float()
    ours, theirs = F.normalize(predicted, dim=1), F.normalize(wanted, dim=1)
    each = F.smooth_l1_loss(ours, theirs, reduction="none").sum(1)  # (B, h, w)
    chosen = hidden.to(each.dtype)
    return distributed.total((each * chosen).sum()) / distributed.total(chosen.sum()).clamp(min=1)


def draw_hidden(random: RowRandom, grid: Grid, masking: Masking) -> Tensor:
    """(B, h, w) bool, the cells that are hidden: blocks or single ones, one kind for the whole batch."""
    kind, size = random.once(2).tolist()
    if kind < masking.blocks:
        return draw_blocks(random, grid, masking, block_size(size, grid, masking))
    return draw_cells(random, grid, masking)


def block_size(u: float, grid: Grid, masking: Masking) -> tuple[int, int]:
    """Height and width of a batch's blocks, in cells; u in [0, 1) sets scale and ratio.

    At least one cell, and small enough that one block leaves the cells that have to stay visible.
    """
    rows, columns = grid
    low, high = masking.block_scale
    area = int(rows * columns * (low + u * (high - low)))
    flat, tall = masking.block_ratio
    ratio = flat + u * (tall - flat)
    height = min(max(round(math.sqrt(area * ratio)), 1), rows)
    width = min(max(round(math.sqrt(area / ratio)), 1), columns)
    while height * width > rows * columns - _least(grid, masking):
        height, width = (height - 1, width) if height >= width else (height, width - 1)
    return height, width


def draw_blocks(random: RowRandom, grid: Grid, masking: Masking, size: tuple[int, int]) -> Tensor:
    """(B, h, w) bool, the union of an image's blocks of this size."""
    places = random.uniform(masking.num_blocks, 2)  # (B, n, 2)
    extra = 1 if masking.sampler == "fixed" else 0
    counts = [side - part + extra for side, part in zip(grid, size, strict=True)]
    if min(counts) <= 0:  # "faithful": a block that fills a side stands in the first corner
        counts = [1, 1]
    inside = []
    for axis, (side, part, count) in enumerate(zip(grid, size, counts, strict=True)):
        first = (places[..., axis, None] * count).long().clamp(max=count - 1)  # (B, n, 1)
        cells = torch.arange(side, device=places.device)
        inside.append((cells >= first) & (cells < first + part))  # (B, n, side)
    blocks = inside[0][..., :, None] & inside[1][..., None, :]  # (B, n, h, w)
    unions = blocks.cumsum(1) > 0  # of the first 1, 2 ... n blocks
    enough = (~unions).flatten(2).sum(2) >= _least(grid, masking)  # (B, n): true, then false
    return unions[torch.arange(len(unions)), enough.sum(1) - 1]


def draw_cells(random: RowRandom, grid: Grid, masking: Masking) -> Tensor:
    """(B, h, w) bool, single cells, the same number in each image."""
    cells = grid[0] * grid[1]
    kept = min(max(round(cells * (1 - masking.hidden)), 1), cells - 1)
    order = random.uniform(cells).argsort(1)
    return torch.ones_like(order, dtype=torch.bool).scatter(1, order[:, :kept], False).view(-1, *grid)


@torch.no_grad()
def find_grid(encoder: Encoder, size: int) -> Grid:
    """Rows and columns of the encoder's maps for views of `size` px.

    Raises:
        InputError: no maps, layers that cannot be run on part of an image, or fewer than 2 x 2 cells.
    """
    card, what = encoder.card, f"cnn_jepa: {encoder.card.architecture}"
    if encoder.backbone.layout != "maps":
        raise InputError(f"{what} is no convolutional network; use timm:resnet34, say")
    encoder, blank = copy.deepcopy(encoder).eval(), torch.zeros(1, card.channels, size, size)
    try:
        rows, columns = encoder.maps(blank).shape[-2:]
    except (RuntimeError, AssertionError, ValueError) as error:  # a size the network cannot take
        raise InputError(
            f"{what} cannot take views of {size} px ({str(error).splitlines()[0]}); give a larger "
            "settings.size, or 0 for the encoder's own"
        ) from None
    if min(rows, columns) < 2:
        raise InputError(
            f"{what} gives {rows} x {columns} cells for views of {size} px, too few to predict one from "
            f"another; enlarge the views: -s settings.size={-(-4 * size // max(rows, columns))}"
        )
    sparse_maps(encoder, blank, torch.ones(1, rows, columns, dtype=torch.bool))
    return rows, columns


def _least(grid: Grid, masking: Masking) -> int:
    """Cells that have to stay visible."""
    cells = grid[0] * grid[1]
    return min(math.ceil(masking.min_visible * cells), cells - 1)
