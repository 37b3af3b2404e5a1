"""WGAN-GP steps on grey 64 px images: ours and the usual public loop, in float32 and in bf16.

    python bench/wgan_gp_step.py [--size 64] [--repeats 3] [--steps 1] [--threads 2]
    python bench/wgan_gp_step.py --clock cpu      # images per CPU second of one thread: for a busy machine

Critic 4x4 convolutions of stride 2 with widths 64-128-256-512 (one more 512 at 128 px), the generator
mirrored, batch 64, five critic updates on fresh images to one of the generator, Adam 1e-4, images in memory.
Ours is `train` as `pretrain` calls it. The peer is the loop found in public repositories on the same layers:
a DataLoader, real and made images scored in two passes, the penalty by autograd with create_graph, one e
a sample. "peer" is kind: its made images are detached from the generator; "as found" keeps the generator's
graph in the critic's step as that loop does; "channels_last" is the kind one with that one line added. The
peer stays in float32, which is what such loops run in. The loops take turns in one process tree, with the
allocator as it is for all of them. One JSON line: real images per second (median over the repeats), the
ratio to the kind peer taken within each repeat, with its smallest and largest value as the spread; how far
our penalty's gradients are from the peer's on one batch; and the critic's gap in bf16 and in float32 at
equal steps, which start and go on from the same seed. Ours in bf16 keeps the penalty in float32, as is the
default; "penalty too" has its products in bf16.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from turns import Memory, against, options, prepared, record, smooth_images, take_turns

from trabecula.data.batches import Stream
from trabecula.nets.critic import Critic
from trabecula.nets.devices import Precision
from trabecula.nets.encoder import make_encoder
from trabecula.nets.generators.upsampling import UpsamplingConfig, UpsamplingGenerator, mirrored
from trabecula.objectives.objective import Setting
from trabecula.objectives.wgan_gp import WganGp, WganGpConfig, gradient_penalty
from trabecula.train.loop import train

BATCH, CRITIC_STEPS, LATENT, WEIGHT, NUM_IMAGES = 64, 5, 100, 10.0, 1024


def widths(size: int) -> tuple[int, ...]:
    return (64, 128, 256, 512) if size == 64 else (64, 128, 256, 512, 512)


def ours(
    images: Tensor, precision: Precision, steps: int, penalty: Literal["float32", "bf16"] = "float32"
) -> Iterator[list[dict[str, float]]]:
    """Train for ever; one item every `steps` steps: what was logged since."""
    size = images.shape[-1]
    encoder = make_encoder(f"critic:{'-'.join(map(str, widths(size)))}", channels=1, size=size)
    config = WganGpConfig(penalty_precision=penalty)
    objective = WganGp(config, encoder, Setting(len(images), BATCH, 0))
    store: Any = Memory(images)
    stream = Stream(store, np.arange(len(images)), BATCH, seed=0)
    every = steps * CRITIC_STEPS * BATCH
    for point in train(objective, stream, images=10**9, every=every, precision=precision):
        yield [point.scalars]


class PlainGenerator(nn.Module):
    """Our generator's layers, each called as it stands."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner = UpsamplingGenerator(
            UpsamplingConfig(latent=LATENT, widths=mirrored(widths(size))), 1, size
        )

    def forward(self, z: Tensor) -> Tensor:
        maps = self.inner.project(z).unflatten(1, (512, self.inner.side, self.inner.side))
        for block in self.inner.blocks:
            for layer in block.children():
                maps = layer(maps)
        images: Tensor = torch.tanh(self.inner.output(maps))
        return images


def penalty_by_autograd(critic: nn.Module, real: Tensor, fake: Tensor, e: Tensor) -> Tensor:
    """The usual gradient penalty of public loops, with one e a sample."""
    between = (e * real + (1 - e) * fake).requires_grad_(True)
    scores = critic(between)
    gradient = torch.autograd.grad(
        scores, between, torch.ones_like(scores), create_graph=True, retain_graph=True, only_inputs=True
    )[0]
    penalty: Tensor = ((gradient.view(len(gradient), -1).norm(2, dim=1) - 1) ** 2).mean()
    return penalty


def peer(images: Tensor, steps: int, detach: bool, layout: torch.memory_format) -> Iterator[None]:
    """Train for ever; one item every `steps` steps."""
    size = images.shape[-1]
    torch.manual_seed(0)
    critic: nn.Module = Critic(1, size, widths(size)).to(memory_format=layout)
    generator: nn.Module = PlainGenerator(size).to(memory_format=layout)
    of_critic = torch.optim.Adam(critic.parameters(), lr=1e-4, betas=(0.0, 0.99))
    of_generator = torch.optim.Adam(generator.parameters(), lr=1e-4, betas=(0.0, 0.99))
    loader = DataLoader(TensorDataset(images), batch_size=BATCH, shuffle=True, drop_last=True)
    count = 0
    while True:
        for (raw,) in loader:
            real = (raw.float() / 127.5 - 1).contiguous(memory_format=layout)
            of_critic.zero_grad()
            z = torch.randn(BATCH, LATENT)
            fake = generator(z)
            if detach:
                fake = fake.detach()
            penalty = penalty_by_autograd(critic, real, fake.data, torch.rand(BATCH, 1, 1, 1))
            loss = critic(fake).mean() - critic(real).mean() + WEIGHT * penalty
            loss.backward()
            of_critic.step()
            count += 1
            if count % CRITIC_STEPS == 0:
                of_generator.zero_grad()
                (-critic(generator(z)).mean()).backward()
                of_generator.step()
                float(loss.detach())
                if count % (steps * CRITIC_STEPS) == 0:
                    yield


def gradient_difference(images: Tensor) -> float:
    """How far the penalty's gradient is from autograd's, over its length, in the worst weight."""
    size = images.shape[-1]
    torch.manual_seed(0)
    critic = Critic(1, size, widths(size))
    real = images[:BATCH].float() / 127.5 - 1
    fake, e = torch.tanh(torch.randn_like(real)), torch.rand(BATCH, 1, 1, 1)
    found = []
    for penalty in (gradient_penalty(critic, real, fake, e)[0], penalty_by_autograd(critic, real, fake, e)):
        critic.zero_grad()
        penalty.backward()
        found.append([w.grad for w in critic.parameters() if w.ndim > 1 and w.grad is not None])
    return max(float((a - b).norm() / b.norm()) for a, b in zip(*found, strict=True))


def main() -> None:
    parser = options(__doc__, steps=1)
    parser.add_argument("--size", type=int, default=64, choices=[64, 128])
    args = prepared(parser)
    images = smooth_images(NUM_IMAGES, args.size, coarse=8)
    loops: dict[str, Iterator[Any]] = {
        "ours float32": ours(images, "float32", args.steps),
        "ours bf16": ours(images, "bf16", args.steps),
        "ours bf16, penalty too": ours(images, "bf16", args.steps, "bf16"),
        "peer": peer(images, args.steps, True, torch.contiguous_format),
        "peer, as found": peer(images, args.steps, False, torch.contiguous_format),
        "peer, channels_last": peer(images, args.steps, True, torch.channels_last),
    }
    turns = {name: partial(next, loop) for name, loop in loops.items()}
    found, logged = take_turns(turns, args.steps * CRITIC_STEPS * BATCH, args)
    gaps = {
        name: [scalars["gap"] for points in each for scalars in points]
        for name, each in logged.items()
        if name.startswith("ours")
    }
    print(json.dumps(result(args, found, gaps, gradient_difference(images))))


def result(
    args: argparse.Namespace,
    found: dict[str, list[float]],
    gaps: dict[str, list[float]],
    difference: float,
) -> dict[str, Any]:
    """The JSON line."""
    ratios = {name.removeprefix("ours "): against(found[name], found["peer"]) for name in gaps}
    values = {
        "size": args.size,
        "images_per_s": {name: round(statistics.median(values), 1) for name, values in found.items()},
        "ratio": {p: ratio for p, (ratio, _) in ratios.items()},
        "spread": {p: spread for p, (_, spread) in ratios.items()},
        "aims": {"float32": 1.8, "bf16": 2.5},
        "gradient_difference": float(f"{difference:.2g}"),
        "critic_gap": {name: [round(v, 3) for v in values] for name, values in gaps.items()},
    }
    return record("wgan_gp_step", "real images", args, **values)


if __name__ == "__main__":
    main()
