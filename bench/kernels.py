"""Whole training steps with and without each processor-specific kernel (docs/concepts/kernels.md).

    python bench/kernels.py [--repeats 20] [--only wgan_gp,moco] [--precision float32] [--kernels off,linear]
    MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 python bench/kernels.py   # see the page

The steps are `train` as `pretrain` calls it, views included, a batch of 64, one thread: WGAN-GP with the
nets of recipes/hip-gan-demo.toml and hip-gan-small.toml ("wgan_gp") and with those of bench/wgan_gp_step.py
("wgan_gp-wide"); MoCo, Barlow Twins and VICReg on ResNet-18 and MAE on a small vision transformer, with the
widths of recipes/knee-ssl-small.toml; VICReg with the width of its paper ("vicreg-8192"); and the kernel
distance of 5,000 features of 2,048 ("kid"), which is float32 alone. For each the same loop is built with
all kernels ("on"), again with all ("same", the noise), without any ("off") and without each that it can
use; the loops take turns, one step a turn, in another order in each repeat.

One JSON line for each use, size and precision: seconds of processor time a turn with all kernels (median),
and for each other loop the ratio of its time to that, taken within each repeat: median, and lower and upper
quartile. Processor time is for a busy machine; "wall" has the medians of the ratios of wall time. A ratio
above 1 is what the kernel gains. Linear needs matmul, so that "matmul" is without both.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from turns import Memory, smooth_images

from trabecula.config import Record
from trabecula.data.batches import Stream
from trabecula.data.views import Views
from trabecula.kernels import NAMES, VARIABLE
from trabecula.kernels.matmul import inner_products
from trabecula.metrics.fidelity import kernel_distance
from trabecula.nets.devices import Precision
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.barlow import Barlow, BarlowConfig
from trabecula.objectives.mae import Mae, MaeConfig
from trabecula.objectives.moco import Moco, MocoConfig
from trabecula.objectives.objective import Objective, Setting
from trabecula.objectives.vicreg import Vicreg, VicregConfig
from trabecula.objectives.wgan_gp import WganGp, WganGpConfig
from trabecula.train.loop import train

BATCH, NUM_IMAGES = 64, 1024
OF_CRITICS = ("input_gradient", "convolution", "matmul", "linear")
OF_ENCODERS = ("convolution", "matmul", "linear")
Make = Callable[[int], tuple[Record, str, type[Objective]]]
"""Side of the images to settings, architecture and method."""


def _two_views(config: Callable[..., Record], method: type[Objective], width: int, side: int) -> Any:
    views = Views(size=side, crop_scale=(0.5, 1.0), rotate=10.0)
    return config(width=width, views_a=views, views_b=views), "timm:resnet18", method


def _moco(side: int) -> Any:
    views = Views(size=side, crop_scale=(0.5, 1.0), rotate=10.0)
    return MocoConfig(queue=1024, views=views), "timm:resnet18", Moco


def _barlow_lite0(side: int) -> Any:
    config, _, method = _two_views(BarlowConfig, Barlow, 1024, side)
    return config, "timm:tf_efficientnet_lite0", method


def _mae(_: int) -> Any:
    decoder = {"decoder_width": 128, "decoder_depth": 4, "decoder_heads": 4}
    return MaeConfig(mask_ratio=0.5, **decoder), "timm:vit_tiny_patch8_224", Mae


USES: dict[str, tuple[Make, tuple[int, ...], tuple[str, ...]]] = {
    "wgan_gp": (lambda _: (WganGpConfig(ema=0.999), "critic", WganGp), (64,), OF_CRITICS),
    "wgan_gp-penalty-bf16": (
        lambda _: (WganGpConfig(penalty_precision="bf16"), "critic", WganGp), (64,), OF_CRITICS
    ),
    "wgan_gp-wide": (lambda _: (WganGpConfig(), "critic:64-128-256-512", WganGp), (64,), OF_CRITICS),
    "moco": (_moco, (64, 96), OF_ENCODERS),
    "barlow": (partial(_two_views, BarlowConfig, Barlow, 1024), (64, 96), OF_ENCODERS),
    "barlow-lite0": (_barlow_lite0, (64,), ("depthwise",)),
    "vicreg": (partial(_two_views, VicregConfig, Vicreg, 1024), (64, 96), OF_ENCODERS),
    "vicreg-8192": (partial(_two_views, VicregConfig, Vicreg, 8192), (64,), OF_ENCODERS),
    "mae": (_mae, (64,), ("matmul", "linear")),
}  # fmt: skip


def without(kernel: str) -> str:
    """The variable's value that leaves out one kernel."""
    return "off" if kernel == "off" else ",".join(name for name in NAMES if name != kernel)


def steps(make: Make, images: Tensor, precision: Precision) -> Iterator[None]:
    """Train for ever; one item a step."""
    side = images.shape[-1]
    config, architecture, method = make(side)
    objective = method(config, make_encoder(architecture, 1, side), Setting(len(images), BATCH, 0))
    store: Any = Memory(images)
    stream = Stream(store, np.arange(len(images)), BATCH, seed=0)
    every = objective.batches * BATCH
    for _ in train(objective, stream, images=10**9, every=every, precision=precision):
        yield


def chosen(value: str, turn: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of processor and of wall time of a turn under a value of the variable."""
    os.environ[VARIABLE] = value
    start = time.process_time(), time.perf_counter()
    turn()
    return time.process_time() - start[0], time.perf_counter() - start[1]


def compare(turns: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    """Ratios of the time of each turn to that of the turn "on"."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    order, random = list(turns), np.random.default_rng(0)
    for repeat in range(repeats + 1):
        for name in order:
            spent = chosen("on" if name in ("on", "same") else without(name), turns[name])
            if repeat:  # the first turn builds and warms up
                taken[name].append(spent)
        random.shuffle(order)
    times = {name: np.array(values) for name, values in taken.items()}  # (repeats, clocks)
    seconds = round(float(np.median(times["on"][:, 0])), 4)
    found: dict[str, Any] = {"seconds": seconds, "repeats": repeats, "ratio": {}, "wall": {}}
    for name in turns:
        if name != "on":
            ratios = times[name] / times["on"]
            low, middle, high = np.quantile(ratios[:, 0], [0.25, 0.5, 0.75]).round(3)
            found["ratio"][name] = [float(middle), [float(low), float(high)]]
            found["wall"][name] = round(float(np.median(ratios[:, 1])), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", default=",".join((*USES, "kid")), help="uses, with commas between them")
    parser.add_argument("--precision", default="float32,bf16")
    parser.add_argument("--kernels", default=",".join(("off", *NAMES)), help="left out in turn, or off")
    parser.add_argument("--size", type=int, help="one of the sizes in px")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for use in args.only.split(","):
        if use == "kid":
            x, y = np.random.default_rng(0).normal(size=(2, 5000, 2048)).astype(np.float32)
            turn = partial(kernel_distance, x, y, dtype=np.float32, product=inner_products)
            run = {"use": use, "size": 2048, "precision": "float32"}
            print(
                json.dumps(run | compare({"on": turn, "same": turn, "off": turn}, args.repeats)), flush=True
            )
            continue
        make, sizes, kernels = USES[use]
        for size in sizes if args.size is None else (args.size,):
            images = smooth_images(NUM_IMAGES, size, coarse=8)
            for precision in args.precision.split(","):
                left_out = [name for name in args.kernels.split(",") if name in ("off", *kernels)]
                loops = {name: steps(make, images, precision) for name in ("on", "same", *left_out)}
                turns = {name: partial(next, loop) for name, loop in loops.items()}
                run = {"use": use, "size": size, "precision": precision}
                print(json.dumps(run | compare(turns, args.repeats)), flush=True)


if __name__ == "__main__":
    main()
