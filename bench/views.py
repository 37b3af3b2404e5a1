"""Two augmented 128 px views of each grey image, from memory: ours, lightly, torchvision v2, kornia.

    python bench/views.py [--repeats 5] [--images 512] [--threads 2]
    python bench/views.py --clock cpu      # views per CPU second of one thread: for a busy machine

Crop 0.2-1 with ratio 3/4-4/3, rotation +-15 degrees, brightness and contrast 0.4 (p 0.8), blur with
sigma 0.1-2 pixels (p 0.5), to float32 batches of 64. Ours and kornia work on whole batches with
`threads` threads; lightly (on PIL images, its kindest input) and torchvision v2 (uint8 tensors) work
image by image, both in this process and in `threads` loader processes, and the faster of the two
counts. All run in turn in one process tree, with the allocator as it is for all of them. One JSON
line is printed: views per second (median over the repeats) and the ratio to the best peer, taken
within each repeat, with its smallest and largest value as the spread.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from kornia import augmentation as K
from lightly.transforms.gaussian_blur import GaussianBlur
from lightly.transforms.multi_view_transform import MultiViewTransform
from lightly.transforms.rotation import RandomRotateDegrees
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.transforms import v2
from turns import against, options, prepared, record, smooth_images, take_turns

from trabecula.data.views import REFERENCE_SIZE, Views, view
from trabecula.random_numbers import RowRandom

SIZE, BATCH = 128, 64
CROP, RATIO, ANGLE, JITTER, SIGMA = (0.2, 1.0), (3 / 4, 4 / 3), 15.0, 0.4, (0.1, 2.0)
TAPS = 13  # of the peers' blur; ours reaches 4 sigma to each side, which is 17


def ours(images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    low, high = (sigma * REFERENCE_SIZE / SIZE for sigma in SIGMA)
    config = Views(size=SIZE, blur_sigma=(low, high))
    for number, batch in enumerate(images.split(BATCH)):
        random = RowRandom(number, len(batch), slice(0, len(batch)), torch.device("cpu"))
        yield view(batch, random, config).images, view(batch, random, config).images


def kornia(images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    steps = nn.Sequential(
        K.RandomResizedCrop((SIZE, SIZE), scale=CROP, ratio=RATIO, p=1.0),
        K.RandomRotation(ANGLE, p=1.0),
        K.RandomBrightness((1 - JITTER, 1 + JITTER), p=0.8),
        K.RandomContrast((1 - JITTER, 1 + JITTER), p=0.8),
        K.RandomGaussianBlur((TAPS, TAPS), SIGMA, p=0.5),
    )
    for batch in images.split(BATCH):
        floats = batch.float() / 255
        yield steps(floats), steps(floats)


def lightly_transform() -> Callable[[Image.Image], list[Tensor]]:
    steps = v1.Compose(
        [
            v1.RandomResizedCrop(SIZE, scale=CROP, ratio=RATIO),
            RandomRotateDegrees(prob=1.0, degrees=ANGLE),
            v1.RandomApply([v1.ColorJitter(JITTER, JITTER)], p=0.8),
            GaussianBlur(prob=0.5, sigmas=SIGMA),
            v1.ToTensor(),
        ]
    )
    return MultiViewTransform([steps, steps])


def torchvision_transform() -> Callable[[Tensor], list[Tensor]]:
    steps = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=CROP, ratio=RATIO, antialias=False),
            v2.RandomRotation(ANGLE),
            v2.RandomApply([v2.ColorJitter(JITTER, JITTER)], p=0.8),
            v2.RandomApply([v2.GaussianBlur(TAPS, SIGMA)], p=0.5),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return lambda image: [steps(image), steps(image)]


class InMemory(Dataset[list[Tensor]]):
    """Decoded images and the transform of one library."""

    def __init__(
        self, images: list[Image.Image] | list[Tensor], transform: Callable[..., list[Tensor]]
    ) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(self.images[index])


def loader(dataset: InMemory, workers: int) -> DataLoader[list[Tensor]]:
    return DataLoader(
        dataset,
        BATCH,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )


def consume(batches: Callable[[], Iterator[object]]) -> None:
    for _ in batches():
        pass


def main() -> None:
    args = prepared(options(__doc__, repeats=5, images=512))
    images = smooth_images(args.images, SIZE)
    pictures = [Image.fromarray(image[0].numpy()) for image in images]
    runs: dict[str, Callable[[], Iterator[object]]] = {
        "ours": lambda: ours(images),
        "kornia": lambda: kornia(images),
    }
    for name, dataset in {
        "lightly": InMemory(pictures, lightly_transform()),
        "torchvision": InMemory(list(images), torchvision_transform()),
    }.items():
        runs[f"{name}, this process"] = loader(dataset, 0).__iter__
        if args.wall:
            runs[f"{name}, {args.threads} workers"] = loader(dataset, args.threads).__iter__
    found, _ = take_turns({name: partial(consume, run) for name, run in runs.items()}, 2 * args.images, args)
    speed = {name: round(statistics.median(values)) for name, values in found.items()}
    peers = {name: value for name, value in speed.items() if name != "ours"}
    best = max(peers, key=lambda name: peers[name])
    ratio, spread = against(found["ours"], found[best])
    told = {"ours": speed["ours"], "peers": peers, "best_peer": best, "ratio": ratio, "spread": spread}
    print(json.dumps(record("views", "views", args, **told)))


if __name__ == "__main__":
    main()
