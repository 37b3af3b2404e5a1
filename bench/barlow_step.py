"""Barlow Twins steps on grey 128 px images, views included: ours and lightly's loop, in float32 and in bf16.

    python bench/barlow_step.py [--repeats 3] [--steps 3] [--threads 2] [--width 2048]
    python bench/barlow_step.py --clock cpu      # images per CPU second of one thread: for a busy machine

ResNet-18 with a one-channel stem, batch 64, images in memory, a projector of three layers of `width` (2048 as
in lightly's example for ResNet-18), LARS, the same two kinds of views on both sides. Ours is `train` as
`pretrain` calls it. The peer is lightly's published Barlow Twins loop: its transforms on PIL images in
`threads` loader processes, its projection head and loss, its LARS (the optimizer of its ImageNet benchmark),
each view a pass of its own; bf16 is its own autocast flag. The loops take turns in one process, so that what
`train` asks of the allocator (`train/memory.py`) holds for lightly's loop too. One JSON line: images per
second (median over the repeats; an image counts once, not once a view), and the ratio to lightly in the same
precision, taken within each repeat, with its smallest and largest value as the spread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from lightly.transforms.gaussian_blur import GaussianBlur
from lightly.transforms.multi_view_transform import MultiViewTransform
from lightly.transforms.rotation import RandomRotateDegrees
from lightly.transforms.solarize import RandomSolarization
from lightly.utils.lars import LARS
from moco_step import NUM_IMAGES, Memory
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import resnet18
from views import ANGLE, BATCH, JITTER, RATIO, SIGMA, SIZE, InMemory, loader

from trabecula.data.batches import Stream
from trabecula.data.views import REFERENCE_SIZE, Views
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.barlow import Barlow, BarlowConfig
from trabecula.objectives.objective import Setting
from trabecula.train.loop import train
from trabecula.train.precision import Precision

CROP = (0.08, 1.0)
BLUR, SOLARIZE = (1.0, 0.1), (0.0, 0.2)  # of the first view, of the second


def ours(images: Tensor, precision: Precision, steps: int, width: int) -> Iterator[None]:
    """Train for ever; one item every `steps` steps."""
    sigma = (SIGMA[0] * REFERENCE_SIZE / SIZE, SIGMA[1] * REFERENCE_SIZE / SIZE)
    views = [
        Views(size=SIZE, crop_scale=CROP, blur=blur, blur_sigma=sigma, solarize=solarize)
        for blur, solarize in zip(BLUR, SOLARIZE, strict=True)
    ]
    config = BarlowConfig(width=width, views_a=views[0], views_b=views[1])
    encoder = make_encoder("timm:resnet18", channels=1, size=SIZE)
    objective = Barlow(config, encoder, Setting(len(images), BATCH, 0))
    store: Any = Memory(images)
    stream = Stream(store, np.arange(len(images)), BATCH, seed=0)
    for _ in train(objective, stream, images=10**9, every=steps * BATCH, precision=precision):
        yield


def lightly_transform() -> Callable[[Image.Image], list[Tensor]]:
    """The views of lightly's BYOL transform, which its Barlow Twins uses, for grey images."""
    return MultiViewTransform(
        [
            transforms.Compose(
                [
                    transforms.RandomResizedCrop(SIZE, scale=CROP, ratio=RATIO),
                    RandomRotateDegrees(prob=1.0, degrees=ANGLE),
                    transforms.RandomApply([transforms.ColorJitter(JITTER, JITTER)], p=0.8),
                    GaussianBlur(prob=blur, sigmas=SIGMA),
                    RandomSolarization(prob=solarize),
                    transforms.ToTensor(),
                ]
            )
            for blur, solarize in zip(BLUR, SOLARIZE, strict=True)
        ]
    )


class LightlyBarlow(nn.Module):
    """lightly's Barlow Twins module, as its documentation builds it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        net = resnet18()
        net.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.backbone = nn.Sequential(*list(net.children())[:-1])
        self.projection_head = BarlowTwinsProjectionHead(512, width, width)

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.projection_head(self.backbone(x).flatten(start_dim=1))
        return embedding


def lightly(images: Tensor, precision: Precision, steps: int, workers: int, width: int) -> Iterator[None]:
    """Train for ever; one item every `steps` steps."""
    model = LightlyBarlow(width).train()
    pictures = [Image.fromarray(image[0].numpy()) for image in images]
    batches = loader(InMemory(pictures, lightly_transform()), workers)
    criterion = BarlowTwinsLoss(0.0051)
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": 1e-6},
        {"params": [w for w in weights if w.ndim == 1], "weight_decay": 0.0, "lr": 0.0048 * BATCH / 256},
    ]
    optimizer = LARS(groups, lr=0.2 * BATCH / 256, momentum=0.9)
    count = 0
    while True:
        for first, second in batches:
            with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
                loss = criterion(model(first), model(second))
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
    parser.add_argument("--width", type=int, default=2048)
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
        loops[f"ours {precision}"] = ours(images, precision, args.steps, args.width)
        loops[f"lightly {precision}"] = lightly(
            images, precision, args.steps, threads if wall else 0, args.width
        )
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
                "name": "barlow_step",
                "unit": "images/s" if wall else "images per CPU second",
                "ours": {name: value for name, value in speed.items() if name.startswith("ours")},
                "peers": {name: value for name, value in speed.items() if name.startswith("lightly")},
                "ratio": {p: round(statistics.median(values), 2) for p, values in ratios.items()},
                "spread": {p: [round(min(v), 2), round(max(v), 2)] for p, v in ratios.items()},
                "threads": threads,
                "width": args.width,
                "repeats": args.repeats,
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
