"""MoCo v2 steps on grey 128 px images, views included: ours and lightly's loop, in float32 and in bf16.

    python bench/moco_step.py [--repeats 3] [--steps 3] [--threads 2]
    python bench/moco_step.py --clock cpu      # images per CPU second of one thread: for a busy machine

ResNet-18 with a one-channel stem, batch 64, queue 4096, images in memory, the views of bench/views.py.
Ours is `train` as `pretrain` calls it. The peer is lightly's published MoCo loop: its transforms on PIL
images in `threads` loader processes, its projection head, loss, memory bank and momentum update, SGD;
bf16 is its own autocast flag. Batch norm takes the whole batch on both sides (`bn_rows` 64), because
lightly's loop has no shuffled groups on one device; "default" is ours with its own 32.
The loops take turns in one process, so that what `train` asks of the allocator (`train/memory.py`) holds
for lightly's loop too. One JSON
line: images per second (median over the repeats), and the ratio to lightly in the same precision,
taken within each repeat, with its smallest and largest value as the spread.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import partial

import peers
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum
from PIL import Image
from torch import Tensor, nn
from turns import options, prepared, record, smooth_images, speeds, take_turns
from views import BATCH, SIGMA, SIZE, InMemory, lightly_transform, loader

from trabecula.data.views import REFERENCE_SIZE, Views
from trabecula.nets.devices import Precision
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.moco import Moco, MocoConfig
from trabecula.objectives.objective import Setting

QUEUE, NUM_IMAGES = 4096, 4096


def ours(images: Tensor, precision: Precision, steps: int, bn_rows: int) -> Iterator[None]:
    """Train for ever; one item every `steps` steps."""
    views = Views(size=SIZE, blur_sigma=(SIGMA[0] * REFERENCE_SIZE / SIZE, SIGMA[1] * REFERENCE_SIZE / SIZE))
    config = MocoConfig(queue=QUEUE, bn_rows=bn_rows, views=views)
    encoder = make_encoder("timm:resnet18", channels=1, size=SIZE)
    objective = Moco(config, encoder, Setting(len(images), BATCH, 0))
    return peers.ours(objective, images, precision, steps)


class LightlyMoco(nn.Module):
    """lightly's MoCo v2 module, as its documentation builds it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = peers.grey_resnet18()
        self.projection_head = MoCoProjectionHead(512, 512, 128)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def forward(self, x: Tensor) -> Tensor:
        query: Tensor = self.projection_head(self.backbone(x))
        return query

    @torch.no_grad()
    def keys(self, x: Tensor) -> Tensor:
        x, shuffle = batch_shuffle(x)
        key = self.projection_head_momentum(self.backbone_momentum(x))
        return batch_unshuffle(key, shuffle)


def lightly(images: Tensor, precision: Precision, steps: int, workers: int) -> Iterator[None]:
    """Train lightly's MoCo for ever; one item every `steps` steps."""
    model = LightlyMoco().train()
    pictures = [Image.fromarray(image[0].numpy()) for image in images]
    batches = loader(InMemory(pictures, lightly_transform()), workers)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(QUEUE, 128))
    weights = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.03 * BATCH / 256, momentum=0.9, weight_decay=1e-4)

    def loss_of(query_view: Tensor, key_view: Tensor) -> Tensor:
        update_momentum(model.backbone, model.backbone_momentum, m=0.999)
        update_momentum(model.projection_head, model.projection_head_momentum, m=0.999)
        loss: Tensor = criterion(model(query_view), model.keys(key_view))
        return loss

    return peers.lightly(batches, loss_of, optimizer, precision, steps)


def main() -> None:
    args = prepared(options(__doc__, steps=3))
    images = smooth_images(NUM_IMAGES, SIZE)
    workers = args.threads if args.wall else 0
    loops = {}
    precisions: tuple[Precision, ...] = ("float32", "bf16")
    for precision in precisions:
        loops[f"ours {precision}"] = ours(images, precision, args.steps, BATCH)
        loops[f"ours {precision}, default"] = ours(images, precision, args.steps, BATCH // 2)
        loops[f"lightly {precision}"] = lightly(images, precision, args.steps, workers)
    turns = {name: partial(next, loop) for name, loop in loops.items()}
    found, _ = take_turns(turns, args.steps * BATCH, args)
    print(json.dumps(record("moco_step", "images", args, **speeds(found, precisions))))


if __name__ == "__main__":
    main()
