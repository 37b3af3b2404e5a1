"""Distances between sets of features against torch-fidelity and prdc: `python bench/fidelity.py`.

2,048 features, made up like a network's: 256 factors of falling size, rectified, with noise; fakes are
stretched by 1.1. Sides take turns in one process on the same array, after one unmeasured turn of each.

    frechet n    ours: nuclear norm; peer: torch-fidelity's covariances and eigenvalues of their product.
                 `error`: relative difference from singular values of QR factors in float64
    kernel n     ours: the whole U-statistic with its interval; peer: torch-fidelity's 100 subsets of 1,000
    manifold n   precision, recall, density, coverage, k = 5; peer: prdc. `error`: largest difference
    together n   all of these in one call; peer: the sum of the three tools

One JSON line each. `bars` are the ratios aimed at; the script ends with 1 if one is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import prdc
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from trabecula.kernels.matmul import inner_products
from trabecula.metrics import frechet
from trabecula.metrics.fidelity import fidelity, frechet_distance, kernel_distance, manifold_scores

BARS = {
    ("frechet", 500): 40.0, ("frechet", 2000): 3.0, ("frechet", 5000): 1.7,
    ("kernel", 2000): 10.0, ("kernel", 5000): 3.0, ("manifold", 5000): 3.0, ("together", 2000): 8.0,
}  # fmt: skip
DIM, FACTORS = 2048, 256


def features(seed: int, num: int, stretch: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(FACTORS, DIM))
    factors = rng.normal(size=(num, FACTORS)) * np.arange(1.0, FACTORS + 1) ** -0.5
    rows = np.maximum(0.3 * factors @ mixing + 0.1 * rng.normal(size=(num, DIM)), -0.1)
    return (stretch * rows).astype(np.float32)


def their_frechet(x: np.ndarray, y: np.ndarray) -> float:
    stats = [fid_features_to_statistics(torch.from_numpy(z)) for z in (x, y)]
    return float(fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"])


def their_kernel(x: np.ndarray, y: np.ndarray) -> float:
    result = kid_features_to_metric(torch.from_numpy(x), torch.from_numpy(y), verbose=False)
    return float(result["kernel_inception_distance_mean"])


def their_manifold(x: np.ndarray, y: np.ndarray) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        found = prdc.compute_prdc(x, y, 5)
    return [float(found[name]) for name in ("precision", "recall", "density", "coverage")]


def our_manifold(x: np.ndarray, y: np.ndarray) -> list[float]:
    found = manifold_scores(x, y)
    return [found.precision, found.recall, found.density, found.coverage]


def careful_frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Singular values of a product of QR factors: no square of anything."""
    first, second = x.astype(np.float64), y.astype(np.float64)
    a, b = (frechet._scaled(z, z.mean(axis=0)) for z in (first, second))
    gap = first.mean(axis=0) - second.mean(axis=0)
    inner = np.linalg.svd(frechet._triangle(a) @ frechet._triangle(b).T, compute_uv=False)
    return float(gap @ gap + np.square(a).sum() + np.square(b).sum() - 2 * inner.sum())


def sides(kind: str, num: int) -> tuple[Callable[[], Any], list[Callable[[], Any]]]:
    """Ours, and the peers whose times are added up."""
    x, y = features(1, num), features(2, num, 1.1)
    ours: dict[str, Callable[[], Any]] = {
        "frechet": lambda: frechet_distance(x, y),
        "kernel": lambda: kernel_distance(x, y, product=inner_products).value,
        "manifold": lambda: our_manifold(x, y),
        "together": lambda: fidelity(x, y, product=inner_products),
    }
    peers: dict[str, Callable[[], Any]] = {
        "frechet": lambda: their_frechet(x, y),
        "kernel": lambda: their_kernel(x, y),
        "manifold": lambda: their_manifold(x, y),
    }
    return ours[kind], list(peers.values()) if kind == "together" else [peers[kind]]


def error(kind: str, num: int, ours: Any, peer: Any) -> float:
    if kind == "frechet":
        careful = careful_frechet(features(1, num), features(2, num, 1.1))
        return abs(ours - careful) / careful
    if kind == "kernel":
        return abs(ours - peer[0]) / abs(ours)  # the noise of the peer's subsets, for the most part
    if kind == "manifold":
        return float(np.abs(np.array(ours) - np.array(peer[0])).max())
    return 0.0


def timed(run: Callable[[], Any], clock: Callable[[], float]) -> tuple[float, Any]:
    start = clock()
    result = run()
    return clock() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="frechet, kernel, manifold or together")
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine, with one thread")
    args = parser.parse_args()
    clock = time.process_time if args.processor_time else time.perf_counter
    alone = [(kind, num) for kind in ("frechet", "kernel", "manifold") for num in (500, 2000, 5000)]
    missed = False
    for kind, num in [*alone, ("together", 2000)]:
        if (args.only and args.only != kind) or (kind == "kernel" and num < 1000):  # torch-fidelity refuses
            continue
        ours, peers = sides(kind, num)
        result, theirs = ours(), [peer() for peer in peers]  # both warm
        taken: list[tuple[float, float]] = []
        for _ in range(args.repeats):
            taken.append((timed(ours, clock)[0], sum(timed(peer, clock)[0] for peer in peers)))
        ratios = [peer / own for own, peer in taken]
        line = {
            "name": f"fidelity-{kind}-{num}",
            "ours_s": round(float(np.median([own for own, _ in taken])), 4),
            "peer_s": round(float(np.median([peer for _, peer in taken])), 4),
            "ratio": round(float(np.median(ratios)), 2),
            "spread": [round(min(ratios), 2), round(max(ratios), 2)],
            "bar": BARS.get((kind, num)),
            "error": error(kind, num, result, theirs),
            "threads": torch.get_num_threads(),
            "clock": "processor" if args.processor_time else "wall",
            "load": round(os.getloadavg()[0], 1),
        }
        print(json.dumps(line), flush=True)
        missed |= line["bar"] is not None and line["ratio"] < line["bar"]
        missed |= kind == "frechet" and line["error"] > 1e-10
        missed |= kind == "manifold" and line["error"] > 1e-9
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
