"""Linear layers in training, float32 on a CPU: `nn.Linear` as torch computes it, and ours.

    python bench/linear.py [--repeats 5] [--steps 3] [--threads 2]

Forward and backward passes of one layer at shapes of this project: projectors of Barlow Twins and VICReg (a
batch of 64), and a layer of a small vision transformer (64 images of 65 tokens). The two take turns. One
JSON line: for each shape milliseconds a pass of both (median over the repeats), and the ratio, with its
smallest and largest value as the spread.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from turns import against, options, prepared, record, take_turns

from trabecula.kernels.linear import use_product_linears
from trabecula.train.memory import kept_memory

SHAPES = [(64, 512, 2048), (64, 2048, 2048), (64, 8192, 8192), (64 * 65, 192, 768), (64 * 65, 384, 1536)]


def passes(layer: nn.Linear, x: Tensor, along: Tensor, steps: int) -> None:
    for _ in range(steps):
        layer(x).backward(along)
        layer.zero_grad()
        x.grad = None


def turns(rows: int, inside: int, out: int, steps: int) -> dict[str, Callable[[], None]]:
    """Both layers at one shape, with the same weights and numbers."""
    torch.manual_seed(0)
    plain, ours = (nn.Linear(inside, out) for _ in range(2))
    ours.load_state_dict(plain.state_dict())
    use_product_linears(ours)
    x, along = torch.randn(rows, inside, requires_grad=True), torch.randn(rows, out)
    return {"ours": partial(passes, ours, x, along, steps), "torch": partial(passes, plain, x, along, steps)}


def main() -> None:
    args = prepared(options(__doc__, repeats=5, steps=3))
    found = {}
    with kept_memory():
        for shape in SHAPES:
            rates, _ = take_turns(turns(*shape, args.steps), args.steps, args)
            ratio, spread = against(rates["ours"], rates["torch"])
            ms = {name: round(1000 / statistics.median(values), 2) for name, values in rates.items()}
            found["x".join(map(str, shape))] = {"ms": ms, "ratio": ratio, "spread": spread}
    print(json.dumps(record("linear", "passes", args, layers=found)))


if __name__ == "__main__":
    main()
