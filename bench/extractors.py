"""What a Frechet distance sees in the eyes of each extractor: `python bench/extractors.py`.

Make-believe left hips of 400 patients at 64 px. 100 of them are made worse, in grades; their distance to
100 others is divided by that of the same 100 before (the floor). `seen`: the distance is above every floor,
in all three draws of the others. `--generator FOLDER` adds samples of each snapshot that `pretrain` left
there, `--weights FILE` an ImageNet SqueezeNet 1.0 beside random-conv, its version 1 and pixels (16 x 16).

One JSON line an extractor and kind, then a table (Markdown). Ends with 1 where random-conv misses a bar:
its largest grade of each kind is not seen, it does not rise with the grade (but for `resample`: a smaller
rank is also smoother, so its grades have no order), or it is slower than 300 images a second of one core's
time.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trabecula.metrics.fidelity import frechet_distance
from trabecula.nets.extractors import load_extractor
from trabecula.nets.generators.generator import load_generator
from trabecula.phantom import drawer
from trabecula.phantoms.patients import Joints

NUM, PATIENTS, DRAWS, SIZE = 100, 400, 3, 64
RATE = 300  # images a second
Features = NDArray[np.float64]
Extract = Callable[[Tensor], Tensor]


def draw(kind: str, num: int, seed: int) -> Tensor:
    settings = Joints(num_patients=num, size=SIZE, seed=seed, effect=1.6)
    films = np.stack([drawer(kind)(settings, patient, "L").image for patient in range(num)])
    return torch.from_numpy(films)[:, None].float() / 255


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(images: Tensor, levels: float) -> Tensor:
    return images + levels / 255 * torch.randn(images.shape, generator=seeded(1))


def blur(images: Tensor, sigma: float) -> Tensor:
    reach = math.ceil(3 * sigma) + 1
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, weights[None, None, None]), weights[None, None, :, None])


def shuffle(images: Tensor, share: float) -> Tensor:
    """A share of the 64 patches of 8 px change places."""
    patches = F.unfold(images, 8, stride=8)
    moved, random = patches.clone(), seeded(2)
    for new, old in zip(moved, patches, strict=True):
        places = torch.randperm(64, generator=random)[: max(2, round(64 * share))]
        new[:, places] = old[:, places.roll(1)]
    return F.fold(moved, SIZE, 8, stride=8)


def swirl(images: Tensor, degrees: float) -> Tensor:
    axis = torch.linspace(-1 + 1 / SIZE, 1 - 1 / SIZE, SIZE)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    angle = math.radians(degrees) * (1 - (u * u + v * v).sqrt()).clamp(0)
    grid = torch.stack([u * angle.cos() - v * angle.sin(), u * angle.sin() + v * angle.cos()], -1)
    places = grid[None].expand(len(images), -1, -1, -1)
    return F.grid_sample(images, places, align_corners=False, padding_mode="reflection")


def mix(images: Tensor, share: float) -> Tensor:
    return (1 - share) * images + share * images.roll(1, 0)


def resample(images: Tensor, rank: float) -> Tensor:
    """Normal images with the mean and the leading covariance of these."""
    flat = images.flatten(1)
    _, values, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    rank = int(rank)
    drawn = torch.randn(len(flat), rank, generator=seeded(3)) * values[:rank] / (len(flat) - 1) ** 0.5
    return (flat.mean(0) + drawn @ directions[:rank]).view_as(images)


def phases(images: Tensor, share: float) -> Tensor:
    """Fourier phases move a share of the way to random ones; amplitudes stay."""
    waves = torch.fft.fft2(images)
    other = torch.fft.fft2(torch.randn(images.shape, generator=seeded(6))).angle()
    return torch.fft.ifft2(waves.abs() * torch.exp(1j * (waves.angle() + share * other))).real


def mirror(images: Tensor, share: float) -> Tensor:
    num = round(share * len(images))
    return torch.cat([images[:num].flip(3), images[num:]])


def fewer(images: Tensor, share: float) -> Tensor:
    """The same few images again and again."""
    return images[torch.arange(len(images)) % max(1, round(share * len(images)))]


def brighten(images: Tensor, levels: float) -> Tensor:
    return images + levels / 255


def other_joint(images: Tensor, share: float) -> Tensor:
    num = round(share * len(images))
    return torch.cat([draw("knees", num, 1), images[num:]])


KINDS: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, ...]]] = {
    "noise": (noise, (2, 6, 20)),  # standard deviation, grey levels
    "blur": (blur, (0.35, 0.6, 1.2)),  # sigma, px
    "shuffle": (shuffle, (0.03, 0.12, 0.5)),  # share of patches
    "swirl": (swirl, (5, 20, 80)),  # degrees in the middle
    "mix": (mix, (0.06, 0.2, 0.5)),  # share of another hip laid over it
    "resample": (resample, (99, 64, 16)),  # rank
    "phases": (phases, (0.06, 0.2, 0.6)),  # share of the way
    "other joint": (other_joint, (0.03, 0.1, 0.4)),  # share of images that are knees
    "mirror": (mirror, (0.1, 0.4, 1)),  # share of images
    "fewer": (fewer, (0.5, 0.15, 0.05)),  # share of images that differ
    "brightness": (brighten, (4, 16, 32)),  # grey levels
}


def sets(images: Tensor, generator: Path | None) -> dict[str, list[tuple[str, Tensor]]]:
    """By kind: the grades, mildest first, and the images at each."""
    made = {
        kind: [(f"{grade:g}", quantised(make(images, grade))) for grade in grades]
        for kind, (make, grades) in KINDS.items()
    }
    if generator:
        made["generator"] = []
        for folder in sorted((generator / "snapshots").iterdir(), reverse=True):
            fakes = load_generator(folder)[0].sample(NUM, 0).float() / 255
            made["generator"].append((str(int(folder.name)), fakes))
    return made


def quantised(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round() / 255


def features(extract: Extract, images: Tensor) -> Features:
    return torch.cat([extract(part) for part in images.split(50)]).double().numpy()


def means(widths: Sequence[int] = (64, 128, 256, 512)) -> Extract:
    """Version 1 of random-conv: the means of every second of eight layers of 3 x 3 convolutions with ReLU."""
    random, filters, before = seeded(0), [], 1
    for width in widths:
        for _ in range(2):
            drawn = torch.randn((width, before, 3, 3), generator=random)
            filters.append(drawn * (2 / (9 * before)) ** 0.5)
            before = width

    def extract(images: Tensor) -> Tensor:
        x, found = 2 * images - 1, []
        for index, weights in enumerate(filters):
            x = F.relu(F.conv2d(x, weights, stride=1 + index % 2, padding=1))
            if index % 2:
                found.append(x.mean((2, 3)))
        return torch.cat(found, 1)

    return extract


def measure(
    extract: Extract, real: Tensor, worse: dict[str, list[tuple[str, Tensor]]]
) -> tuple[dict[str, list[tuple[str, float, bool]]], float]:
    """By kind: grade, distance over the floor, whether it is seen; and images a second of processor time."""
    start = time.process_time()
    base = features(extract, real)
    rate = len(real) / (time.process_time() - start)
    random = np.random.default_rng(0)
    others = [NUM + random.permutation(len(base) - NUM)[:NUM] for _ in range(DRAWS)]
    floors = np.array([frechet_distance(base[rows], base[:NUM]) for rows in others])
    halves = [random.permutation(len(base)) for _ in range(DRAWS)]
    highest = max(*floors, *(frechet_distance(base[p[:NUM]], base[p[NUM : 2 * NUM]]) for p in halves))
    found: dict[str, list[tuple[str, float, bool]]] = {}
    for kind, grades in worse.items():
        found[kind] = []
        for grade, images in grades:
            fakes = features(extract, images)
            distances = np.array([frechet_distance(base[rows], fakes) for rows in others])
            ratio = float(distances.mean() / floors.mean())
            found[kind].append((grade, ratio, bool(distances.min() > highest)))
    return found, rate


def missed(found: dict[str, list[tuple[str, float, bool]]], rate: float) -> list[str]:
    """Bars that random-conv misses; snapshots of a generator have none."""
    graded = {kind: rows for kind, rows in found.items() if kind in KINDS}
    unseen = [f"{kind} not seen" for kind, rows in graded.items() if not rows[-1][2]]
    rising = {kind: [ratio for _, ratio, _ in rows] for kind, rows in graded.items() if kind != "resample"}
    order = [f"{kind} does not rise" for kind, ratios in rising.items() if ratios != sorted(ratios)]
    return unseen + order + ([f"{rate:.0f} images/s"] if rate < RATE else [])


def table(all_found: dict[str, dict[str, list[tuple[str, float, bool]]]]) -> Sequence[str]:
    names = list(all_found)
    lines = [f"| made worse by | grades | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for kind, rows in all_found[names[0]].items():
        columns = [
            ", ".join(f"**{ratio:.2f}**" if seen else f"{ratio:.2f}" for _, ratio, seen in found[kind])
            for found in all_found.values()
        ]
        lines.append(f"| {kind} | {', '.join(grade for grade, _, _ in rows)} | {' | '.join(columns)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", type=Path, help="a folder that pretrain left, with snapshots, of hips")
    parser.add_argument("--weights", type=Path, help="torchvision's ImageNet SqueezeNet 1.0")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    extractors: dict[str, Extract] = {
        "random-conv": load_extractor("random-conv", 1, SIZE),
        "pixels": lambda images: F.adaptive_avg_pool2d(images, 16).flatten(1),
    }
    if args.weights:
        name = "torchvision:squeezenet1_0"
        extractors["squeezenet1_0"] = load_extractor(name, 1, SIZE, args.weights)
    extractors["version 1"] = means()
    real = draw("hips", PATIENTS, 0)
    worse = sets(real[:NUM], args.generator)
    all_found = {}
    failures: list[str] = []
    for name, extract in extractors.items():
        all_found[name], rate = measure(extract, real, worse)
        for kind, rows in all_found[name].items():
            grades, ratios, seen = zip(*rows, strict=True)
            line = {"name": f"extractors-{name}", "kind": kind, "grades": grades, "seen": seen}
            print(
                json.dumps({**line, "ratio": [round(ratio, 3) for ratio in ratios], "rate": round(rate)}),
                flush=True,
            )
        if name == "random-conv":
            failures = missed(all_found[name], rate)
    print("\n".join(table(all_found)))
    if failures:
        raise SystemExit(f"random-conv: {'; '.join(failures)}")


if __name__ == "__main__":
    main()
