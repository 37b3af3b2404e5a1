"""lightly's published training loop on grey images, and ours beside it.

Shared by the scripts beside it; run by itself it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from turns import Memory
from views import BATCH

from trabecula.data.batches import Stream
from trabecula.nets.devices import Precision
from trabecula.objectives.objective import Objective
from trabecula.train.loop import train


def ours(objective: Objective, images: Tensor, precision: Precision, steps: int) -> Iterator[None]:
    """Train for ever as `pretrain` does; one item every `steps` steps."""
    store: Any = Memory(images)
    stream = Stream(store, np.arange(len(images)), BATCH, seed=0)
    for _ in train(objective, stream, images=10**9, every=steps * BATCH, precision=precision):
        yield


def grey_resnet18() -> nn.Module:
    """ResNet-18 up to its pooled features, with a stem of one channel; (B, 1, H, W) -> (B, 512)."""
    net = resnet18()
    net.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    return nn.Sequential(*list(net.children())[:-1], nn.Flatten())


def lightly(
    batches: Iterable[list[Tensor]],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    steps: int,
) -> Iterator[None]:
    """Train for ever as lightly's documentation does; one item every `steps` steps.

    batches: pairs of views; loss_of: what a step computes of them, under its own autocast flag in bf16.
    """
    count = 0
    while True:
        for first, second in batches:
            with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
                loss = loss_of(first, second)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            float(loss.detach())
            count += 1
            if count % steps == 0:
                yield
