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

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet18
from views import BATCH, SIGMA, SIZE, InMemory, lightly_transform, loader

from trabecula.data.batches import Stream
from trabecula.data.views import REFERENCE_SIZE, Views
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.moco import Moco, MocoConfig
from trabecula.objectives.objective import Setting
from trabecula.train.loop import train
from trabecula.train.precision import Precision

QUEUE, NUM_IMAGES = 4096, 4096


class Memory:
    """The part of a store that a stream reads."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def read(self, rows: np.ndarray) -> Tensor:
        return self.images[torch.from_numpy(rows)]


def ours(images: Tensor, precision: Precision, steps: int, bn_rows: int) -> Iterator[None]:
    """Train for ever; one item every `steps` steps."""
    views = Views(size=SIZE, blur_sigma=(SIGMA[0] * REFERENCE_SIZE / SIZE, SIGMA[1] * REFERENCE_SIZE / SIZE))
    config = MocoConfig(queue=QUEUE, bn_rows=bn_rows, views=views)
    encoder = make_encoder("timm:resnet18", channels=1, size=SIZE)
    objective = Moco(config, encoder, Setting(len(images), BATCH, 0))
    store: Any = Memory(images)
    stream = Stream(store, np.arange(len(images)), BATCH, seed=0)
    for _ in train(objective, stream, images=10**9, every=steps * BATCH, precision=precision):
        yield


class LightlyMoco(nn.Module):
    """lightly's MoCo v2 module, as its documentation builds it."""

    def __init__(self) -> None:
        super().__init__()
        net = resnet18()
        net.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.backbone = nn.Sequential(*list(net.children())[:-1])
        self.projection_head = MoCoProjectionHead(512, 512, 128)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def forward(self, x: Tensor) -> Tensor:
        query: Tensor = self.projection_head(self.backbone(x).flatten(start_dim=1))
        return query

    @torch.no_grad()
    def keys(self, x: Tensor) -> Tensor:
        x, shuffle = batch_shuffle(x)
        key = self.projection_head_momentum(self.backbone_momentum(x).flatten(start_dim=1))
        return batch_unshuffle(key, shuffle)


def lightly(images: Tensor, precision: Precision, steps: int, workers: int) -> Iterator[None]:
    """Train for ever; one item every `steps` steps."""
    model = LightlyMoco().train()
    pictures = [Image.fromarray(image[0].numpy()) for image in images]
    batches = loader(InMemory(pictures, lightly_transform()), workers)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(QUEUE, 128))
    optimizer = torch.optim.SGD(
        [w for w in model.parameters() if w.requires_grad],
        lr=0.03 * BATCH / 256,
        momentum=0.9,
        weight_decay=1e-4,
    )
    count = 0
    while True:
        for query_view, key_view in batches:
            update_momentum(model.backbone, model.backbone_momentum, m=0.999)
            update_momentum(model.projection_head, model.projection_head_momentum, m=0.999)
            with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
                loss = criterion(model(query_view), model.keys(key_view))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            float(loss.detach())
            count += 1
            if count % steps == 0:
                yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    args = parser.parse_args()
    wall = args.clock == "wall"
    clock: Callable[[], float] = time.perf_counter if wall else time.process_time
    threads = args.threads if wall else 1
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = nn.functional.interpolate(torch.rand(NUM_IMAGES, 1, 16, 16), (SIZE, SIZE), mode="bicubic")
    images = (images.clamp(0, 1) * 255).to(torch.uint8)  # smooth, like radiographs
    loops = {}
    precisions: tuple[Precision, ...] = ("float32", "bf16")
    for precision in precisions:
        loops[f"ours {precision}"] = ours(images, precision, args.steps, BATCH)
        loops[f"ours {precision}, default"] = ours(images, precision, args.steps, BATCH // 2)
        loops[f"lightly {precision}"] = lightly(images, precision, args.steps, threads if wall else 0)
    found: dict[str, list[float]] = {name: [] for name in loops}
    for repeat in range(args.repeats + 1):  # the first turn warms up
        for name, loop in loops.items():
            start = clock()
            next(loop)
            if repeat:
                found[name].append(args.steps * BATCH / (clock() - start))
    speed = {name: round(statistics.median(values), 1) for name, values in found.items()}
    ratios = {
        p: [a / b for a, b in zip(found[f"ours {p}"], found[f"lightly {p}"], strict=True)] for p in precisions
    }
    print(
        json.dumps(
            {
                "name": "moco_step",
                "unit": "images/s" if wall else "images per CPU second",
                "ours": {name: value for name, value in speed.items() if name.startswith("ours")},
                "peers": {name: value for name, value in speed.items() if name.startswith("lightly")},
                "ratio": {p: round(statistics.median(values), 2) for p, values in ratios.items()},
                "spread": {p: [round(min(v), 2), round(max(v), 2)] for p, v in ratios.items()},
                "threads": threads,
                "repeats": args.repeats,
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
