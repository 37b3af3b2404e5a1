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

import json
from collections.abc import Callable, Iterator
from functools import partial

import peers
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from lightly.transforms.gaussian_blur import GaussianBlur
from lightly.transforms.multi_view_transform import MultiViewTransform
from lightly.transforms.rotation import RandomRotateDegrees
from lightly.transforms.solarize import RandomSolarization
from lightly.utils.lars import LARS
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms
from turns import options, prepared, record, smooth_images, speeds, take_turns
from views import ANGLE, BATCH, JITTER, RATIO, SIGMA, SIZE, InMemory, loader

from trabecula.data.views import REFERENCE_SIZE, Views
from trabecula.nets.devices import Precision
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.barlow import Barlow, BarlowConfig
from trabecula.objectives.objective import Setting

NUM_IMAGES = 4096
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
    return peers.ours(objective, images, precision, steps)


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


def lightly(images: Tensor, precision: Precision, steps: int, workers: int, width: int) -> Iterator[None]:
    """Train for ever lightly's Barlow Twins as its documentation builds it; one item every `steps` steps."""
    model = nn.Sequential(peers.grey_resnet18(), BarlowTwinsProjectionHead(512, width, width)).train()
    pictures = [Image.fromarray(image[0].numpy()) for image in images]
    batches = loader(InMemory(pictures, lightly_transform()), workers)
    criterion = BarlowTwinsLoss(0.0051)
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": 1e-6},
        {"params": [w for w in weights if w.ndim == 1], "weight_decay": 0.0, "lr": 0.0048 * BATCH / 256},
    ]
    optimizer = LARS(groups, lr=0.2 * BATCH / 256, momentum=0.9)
    return peers.lightly(batches, lambda a, b: criterion(model(a), model(b)), optimizer, precision, steps)


def main() -> None:
    args = prepared(options(__doc__, steps=3, width=2048))
    images = smooth_images(NUM_IMAGES, SIZE)
    workers = args.threads if args.wall else 0
    loops = {}
    precisions: tuple[Precision, ...] = ("float32", "bf16")
    for precision in precisions:
        loops[f"ours {precision}"] = ours(images, precision, args.steps, args.width)
        loops[f"lightly {precision}"] = lightly(images, precision, args.steps, workers, args.width)
    turns = {name: partial(next, loop) for name, loop in loops.items()}
    found, _ = take_turns(turns, args.steps * BATCH, args)
    values = speeds(found, precisions)
    print(json.dumps(record("barlow_step", "images", args, width=args.width, **values)))


if __name__ == "__main__":
    main()
