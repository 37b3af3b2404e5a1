"""MoCo v2: tell an image's other view from a queue of earlier images (contrastive learning).

He, Fan, Wu, Xie, Girshick 2020, arXiv 1911.05722 (v1: algorithm 1, section 3.3 on shuffled batch
norm); Chen, Fan, Girshick, He 2020, arXiv 2003.04297 (v2: MLP head, blur, temperature 0.2).
Two random views of a radiograph should be recognised as the same picture among thousands of
others; what is needed to do so is kept in the encoder.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trabecula import distributed
from trabecula.config import Record
from trabecula.data.batches import Batch
from trabecula.data.views import Views
from trabecula.errors import InputError
from trabecula.nets.encoder import Encoder
from trabecula.nets.heads import ProjectionHead
from trabecula.nets.norm import use_global_batch_norm
from trabecula.objectives.objective import Batches, Objective, Product, Setting, Steps, Update, ema
from trabecula.objectives.optim import Optimizer
from trabecula.random_numbers import mix


class MocoConfig(Record):
    """Settings of MoCo v2; the defaults are the paper's."""

    dim: int = Field(128, ge=2)
    """Length of the embedding that is compared (v1, section 3.3)."""
    queue: int = Field(65536, ge=1)
    """Earlier keys kept as negatives (v1, table 2). A multiple of the batch size; above the number of
    images the queue would hold older keys of the same image as negatives."""
    momentum: float = Field(0.999, ge=0, le=1)
    """Of the key encoder's moving average (v1, table 4)."""
    temperature: float = Field(0.2, gt=0)
    """Divides the similarities (v2, section 2)."""
    bn_rows: int = Field(32, ge=2)
    """Rows that share batch-norm statistics: the paper's 256 images on 8 GPUs. Keys are shuffled over
    these groups, or the statistics would give the positive away (v1, section 3.3)."""
    views: Views = Views()
    """Augmentation of both views (v2: crop 0.2 to 1 and blur; no colour on grey images). The size is the
    encoder's."""
    optimizer: Optimizer = Optimizer(name="sgd", lr=0.03, momentum=0.9, weight_decay=1e-4, schedule="cosine")
    """SGD with a half cosine; 0.03 is for 256 images a batch (v2)."""
    scale_lr: bool = True
    """Multiply the rate by batch size / 256 (the linear rule of the official code)."""


class Moco(Objective):
    """MoCo v2 with split batch norm in place of GPUs."""

    Config = MocoConfig
    config: MocoConfig
    group = "query"
    batch_coupled = True
    queue: Tensor
    pointer: Tensor
    tiny = {
        "dim": 16, "queue": 16, "bn_rows": 4, "momentum": 0.99, "optimizer": {"name": "adam", "lr": 3e-4},
        "scale_lr": False, "views": {"crop_scale": (0.8, 1.0), "rotate": 5, "blur": 0, "intensity": 0},
    }  # fmt: skip

    def __init__(self, config: MocoConfig, encoder: Encoder, setting: Setting) -> None:
        _check(config, setting)  # first: it knows what else has to change with the batch
        super().__init__(config, encoder, setting)
        generator = torch.Generator().manual_seed(mix(setting.seed, "moco"))
        with setting.seeded("moco head"):
            head = ProjectionHead(encoder.card.num_features, encoder.card.num_features, config.dim)
        use_global_batch_norm(encoder, rows=config.bn_rows)
        self.query = nn.Sequential(encoder, head)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        queue = torch.randn(config.queue, config.dim, generator=generator)
        self.register_buffer("queue", F.normalize(queue, dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def products(self) -> dict[str, Product]:
        return {"encoder": cast("Encoder", self.query[0])}

    def step(self, batches: Batches, progress: float) -> Steps:  # noqa: ARG002
        (batch,) = batches
        q = F.normalize(self.query(batch.view(self.config.views).images).float(), dim=1)  # (B, dim)
        ema(self.key, self.query, self.config.momentum)  # before the keys (algorithm 1)
        keys = self._keys(batch)  # (B * ranks, dim)
        k = keys[distributed.my_rows(len(keys))]  # (B, dim)
        loss, top1 = contrast(q, k, self.queue, self.config.temperature)
        yield Update("query", loss, {"top1": top1})
        start = int(self.pointer)  # after the backward pass, which reads the queue
        self.queue[start : start + len(keys)] = keys
        self.pointer.fill_((start + len(keys)) % len(self.queue))

    @torch.no_grad()
    def _keys(self, batch: Batch) -> Tensor:
        """Keys of the whole global batch, in its order, encoded in another order."""
        images = distributed.gather_rows(batch.view(self.config.views).images)  # (B * ranks, C, H, W)
        shuffle = batch.random.permutation()
        mine = shuffle[distributed.my_rows(len(images))]
        k = F.normalize(self.key(images[mine]).float(), dim=1)
        return distributed.gather_rows(k)[torch.argsort(shuffle)]


def contrast(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE: the cross-entropy of finding a query's own key among the queue (v1, equation 1).

    All have unit rows: of q and k (B, dim) those of one place are a pair, the queue (K, dim) are negatives.
    Gives the mean loss, and the share of rows whose positive came first.
    """
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.t()], dim=1) / temperature  # (B, 1 + K)
    labels = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return F.cross_entropy(logits, labels), (logits.detach().argmax(1) == 0).float().mean()


def _check(config: MocoConfig, setting: Setting) -> None:
    """Refuse settings that cannot work, with ones that do."""
    batch_size, num_images, world = setting.batch_size, setting.num_images, distributed.world_size()
    if min(num_images, batch_size) < 2:
        return  # refused for every method
    fits = setting.fitting
    if fits // world < 2:
        few, remedy = f"batch of {batch_size}", f"-s batch_size={2 * world}"
        if num_images < 2 * world:
            few, remedy = f"pool of {num_images} images", "more images"
        raise InputError(
            f"moco: a {few} gives each of {world} processes no two images, and batch norm needs two; "
            f"give it {remedy} or fewer processes"
        )
    rows = next(n for n in range(min(config.bn_rows, fits // world), 1, -1) if fits // world % n == 0)
    queue = min(config.queue, num_images) // fits * fits
    too_large = f"is larger than the pool of {num_images} images"
    if batch_size > num_images:
        problem = f"a batch of {batch_size} {too_large}"
    elif config.queue > num_images:
        problem = f"queue {config.queue} {too_large}: the same image would be its own negative"
    elif config.queue % batch_size:
        problem = f"queue {config.queue} is not a multiple of the batch size {batch_size}"
    elif batch_size // world % config.bn_rows:
        problem = f"{batch_size // world} images per process are not whole groups of bn_rows {config.bn_rows}"
    else:
        return
    changed = [f"-s batch_size={fits}"] if fits != batch_size else []
    changed += [f"-s settings.bn_rows={rows}"] if rows != config.bn_rows else []
    changed += [f"-s settings.queue={queue}"] if queue != config.queue else []
    raise InputError(
        f"moco: {problem}; these would do: {' '.join(changed)} "
        "(in a study: the same keys of the arm's pretrain)"
    )
