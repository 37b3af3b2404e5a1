"""Ways to compute the same thing take turns on one machine; what each does a second, and their ratios.

Shared by the scripts beside it; run by itself it does nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Memory:
    """The part of a store that a stream reads."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def read(self, rows: np.ndarray) -> Tensor:
        return self.images[torch.from_numpy(rows)]


def smooth_images(num: int, size: int, coarse: int = 16) -> Tensor:
    """(num, 1, size, size) uint8, smooth like radiographs."""
    images = nn.functional.interpolate(torch.rand(num, 1, coarse, coarse), (size, size), mode="bicubic")
    return (images.clamp(0, 1) * 255).to(torch.uint8)


def options(doc: str | None, repeats: int = 3, **more: int) -> argparse.ArgumentParser:
    """The flags of every script, and whole numbers of its own by their defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    for name, value in {"repeats": repeats, **more, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    return parser


def prepared(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Flags read, threads set (one where processor time is the clock), seed set."""
    args = parser.parse_args()
    args.wall = args.clock == "wall"
    args.threads = args.threads if args.wall else 1
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return args


def take_turns(
    turns: Mapping[str, Callable[[], Any]], amount: int, args: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """(what each does a second, one number a repeat; what its turns gave): the first turn only warms up.

    Args:
        amount: of what one turn does.
    """
    clock = time.perf_counter if args.wall else time.process_time
    rates: dict[str, list[float]] = {name: [] for name in turns}
    given: dict[str, list[Any]] = {name: [] for name in turns}
    for repeat in range(args.repeats + 1):
        for name, turn in turns.items():
            start = clock()
            given[name].append(turn())
            if repeat:
                rates[name].append(amount / (clock() - start))
    return rates, given


def against(mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, list[float]]:
    """(median, [smallest, largest]) of the ratios within each repeat."""
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    return round(statistics.median(ratios), 2), [round(min(ratios), 2), round(max(ratios), 2)]


def speeds(rates: Mapping[str, Sequence[float]], precisions: Sequence[str]) -> dict[str, Any]:
    """Median rates of ours and of lightly's, and our ratio to it in the same precision."""
    speed = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    ratios = {p: against(rates[f"ours {p}"], rates[f"lightly {p}"]) for p in precisions}
    return {
        "ours": {name: value for name, value in speed.items() if name.startswith("ours")},
        "peers": {name: value for name, value in speed.items() if name.startswith("lightly")},
        "ratio": {p: ratio for p, (ratio, _) in ratios.items()},
        "spread": {p: spread for p, (_, spread) in ratios.items()},
    }


def record(name: str, unit: str, args: argparse.Namespace, **values: Any) -> dict[str, Any]:
    """The parts of the JSON line that every script has."""
    per = f"{unit}/s" if args.wall else f"{unit} per CPU second"
    run = {"threads": args.threads, "repeats": args.repeats, "torch": torch.__version__}
    return {"name": name, "unit": per, **values, **run}
