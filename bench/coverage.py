"""How often 95 % intervals hold the true AUROC: `python bench/coverage.py --sims 1000`.

Simulated data sets: each patient has two knees; disease liability and scores are correlated between
them (intra-class correlation 0.5); prevalence is drawn in 0.30-0.45 for each data set. A seed is a
model with its own true AUROC, and part of its errors is shared with the other seeds. The estimand is
the mean true AUROC of these models below 5 seeds, and of all models a new seed could give from 5 on.

Prints one JSON line a condition, then a table (Markdown) of the coverage in per cent.

`--pretrainings 2 3 5 --labels 5` asks it of a difference between arms of several pretrainings with the same
label seeds in each, where nothing is to be found: the metric is a mean over patients, the seeds' standard
deviations are those of three mixes. Below 5 pretrainings the interval speaks of these encoders and the
truth is theirs; the other columns have the truth of new pretrainings, 0: the same interval misread so, the
estimate that takes pairs of seeds for independent ones, and the crossed one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trabecula.metrics.bootstrap import (
    MIN_SEEDS,
    crossed_variance,
    interval,
    layout_of,
    resample,
    resample_seeds,
    variance,
)
from trabecula.metrics.classification import auroc

Floats = NDArray[np.float64]
METHODS = ("ours", "percentile", "bca", "no patients")  # the last resamples images


@dataclass(frozen=True)
class World:
    """One condition; `spread` is the seeds' standard deviation of the separation (in score SDs)."""

    num_patients: int
    area: float  # mean true AUROC over the seeds a new seed is drawn from
    num_seeds: int
    spread: float = 0.10  # at AUROC 0.7 a standard deviation of about 0.025, at 0.95 of about 0.007
    images: int = 2  # of a patient
    icc: float = 0.5
    shared: float = 0.7  # part of the scores' variance that the seeds have in common
    difference: bool = False  # two arms of the same mean AUROC, with the same patients and seeds


@dataclass(frozen=True)
class Data:
    patients: NDArray[np.int64]  # (n,)
    y: NDArray[np.int64]  # (n,)
    scores: Floats  # (arms, S, n)
    truth: float


def simulate(world: World, rng: np.random.Generator) -> Data:
    """One data set and the value that its interval should hold."""
    patients = np.repeat(np.arange(world.num_patients), world.images)
    prevalence = rng.uniform(0.30, 0.45)
    y = (_clustered(rng, patients, world.icc) > stats.norm.ppf(1 - prevalence)).astype(np.int64)
    num_arms = 2 if world.difference else 1
    # mean over seeds of Phi((m + spread * z) / sqrt 2) is Phi(m / sqrt(2 + spread^2))
    centre = stats.norm.ppf(world.area) * np.sqrt(2 + world.spread**2)
    separation = centre + world.spread * rng.normal(size=(num_arms, world.num_seeds))
    common = _clustered(rng, patients, world.icc)
    own = np.stack(
        [[_clustered(rng, patients, world.icc) for _ in range(world.num_seeds)] for _ in range(num_arms)]
    )
    noise = np.sqrt(world.shared) * common + np.sqrt(1 - world.shared) * own
    areas = stats.norm.cdf(separation / np.sqrt(2)).mean(axis=1)
    if world.difference:
        truth = 0.0 if world.num_seeds >= MIN_SEEDS else float(areas[0] - areas[1])
    else:
        truth = world.area if world.num_seeds >= MIN_SEEDS else float(areas[0])
    return Data(patients, y, separation[..., None] * y + noise, truth)


def _clustered(rng: np.random.Generator, patients: NDArray[np.int64], icc: float) -> Floats:
    of_patient = rng.normal(size=patients.max() + 1)[patients]
    return np.asarray(np.sqrt(icc) * of_patient + np.sqrt(1 - icc) * rng.normal(size=patients.size))


def areas(data: Data, weights: NDArray[np.float32] | None) -> Floats:
    """(R, S) AUROC, or difference of AUROC between the arms, of each seed."""
    each = [np.stack([auroc(data.y, s, weights) for s in arm], axis=1) for arm in data.scores]
    return each[0] if len(each) == 1 else each[0] - each[1]


def intervals(
    data: Data, num_resamples: int, seed: int, methods: Sequence[str] = METHODS, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """The interval of each method for one data set."""
    smaller = min(np.unique(data.patients[data.y == k]).size for k in (0, 1))
    scale = "logit" if len(data.scores) == 1 else "identity"
    values, found = areas(data, None)[0], {}
    draws = areas(data, resample(data.patients, num_resamples, seed))
    ours = interval(values, draws, smaller - 1, level, scale)
    found["ours"] = (ours.low, ours.high)
    mixed = (draws * resample_seeds(values.size, num_resamples, seed)).sum(axis=1)
    if "percentile" in methods:
        found["percentile"] = tuple(np.nanquantile(mixed, [(1 - level) / 2, (1 + level) / 2]))
    if "bca" in methods:
        jackknife = areas(data, _leave_one_out(data.patients)).mean(axis=1)
        found["bca"] = _bca(values.mean(), mixed, jackknife, level)
    if "no patients" in methods:
        images = areas(data, resample(np.arange(data.y.size), num_resamples, seed))
        naive = interval(values, images, min(np.bincount(data.y)) - 1, level, scale)
        found["no patients"] = (naive.low, naive.high)
    return found


def _leave_one_out(patients: NDArray[np.int64]) -> NDArray[np.float32]:
    """(P, n) weights that leave one patient out each."""
    return (np.arange(patients.max() + 1)[:, None] != patients).astype(np.float32)


def _bca(value: float, draws: Floats, jackknife: Floats, level: float) -> tuple[float, float]:
    """Bias-corrected and accelerated interval (Efron 1987, JASA 82: 171-185), patients left out in turn."""
    draws = draws[np.isfinite(draws)]
    below = np.clip((draws < value).mean() + (draws == value).mean() / 2, 1e-4, 1 - 1e-4)
    bias, gap = stats.norm.ppf(below), np.nanmean(jackknife) - jackknife
    acceleration = np.nansum(gap**3) / (6 * np.nansum(gap**2) ** 1.5 + 1e-300)
    z = bias + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(draws, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def coverage(
    world: World, sims: int, num_resamples: int, seed: int, methods: Sequence[str] = METHODS
) -> dict[str, float]:
    """Share of simulated data sets whose interval holds the truth, and the mean width, by method."""
    rng = np.random.default_rng([seed, world.num_patients, round(1000 * world.area), world.num_seeds])
    held, width = dict.fromkeys(methods, 0.0), dict.fromkeys(methods, 0.0)
    for i in range(sims):
        data = simulate(world, rng)
        for method, (low, high) in intervals(data, num_resamples, i, methods).items():
            held[method] += bool(low <= data.truth <= high) / sims
            width[method] += (high - low) / sims
    return {**held, **{f"width {method}": value for method, value in width.items()}}


ESTIMATES = ("ours", "misread", "independent", "crossed")
MIXES = ((0.03, 0.01), (0.015, 0.015), (0.01, 0.02))
"""Standard deviations of the difference between pretrainings and between label seeds."""
_OF_PATIENTS = (0.20, 0.10, 0.10, 0.20)  # a patient's own, with pretraining, with label seed, with both
_RESIDUAL = 0.005  # between trained models, beside pretraining and label seed
_BLOCK = 50  # data sets that share their draws of patients


def crossed(
    num_patients: int,
    shape: tuple[int, int],
    mix: tuple[float, float],
    sims: int,
    num_resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Per cent of intervals at 95 % that hold their truth, and of p below 0.01 where it does not differ.

    Args:
        shape: numbers of pretrainings and of label seeds. mix: their standard deviations.
    Returns:
        the two by name of the estimate.
    """
    rng = np.random.default_rng([seed, num_patients, *shape, round(1000 * mix[0])])
    units = [(p, label) for p in range(shape[0]) for label in range(shape[1])]
    layout, df = layout_of(units), 0.4 * num_patients - 1
    hits = {name: np.zeros(2) for name in ESTIMATES}
    for i in range(sims):
        if i % _BLOCK == 0:
            weights = resample(np.arange(num_patients), num_resamples, i) / num_patients
        pretraining = mix[0] * rng.normal(size=(shape[0], 1))
        table = pretraining + mix[1] * rng.normal(size=shape[1]) + _RESIDUAL * rng.normal(size=shape)
        sizes = ((1, 1), (shape[0], 1), (1, shape[1]), shape)
        for spread, size in zip(_OF_PATIENTS, sizes, strict=True):
            table = table + spread * rng.normal(size=(num_patients, *size))
        table = table.reshape(num_patients, -1)
        values, draws = table.mean(axis=0), weights @ table
        ours = interval(values, draws, df, 0.95, "identity", units)
        own = pretraining.mean() if layout.kind == "encoders" else 0.0
        estimates = {
            "ours": (ours.spread, own),
            "misread": (ours.spread, 0.0),
            "independent": (variance(values, draws, df), 0.0),
            "crossed": (crossed_variance(values.reshape(shape), draws.reshape(-1, *shape), df), 0.0),
        }
        for name, (spread, truth) in estimates.items():
            assert spread is not None
            p = spread.p(values.mean() - truth)
            hits[name] += np.array([p >= 0.05, p < 0.01]) * 100 / sims
    return {name: (float(held), float(claimed)) for name, (held, claimed) in hits.items()}


def _crossed_table(args: argparse.Namespace) -> None:
    print("| pretrainings | patients | SDs | " + " | ".join(ESTIMATES) + " |")
    print("|---" * (3 + len(ESTIMATES)) + "|")
    for num in args.pretrainings:
        for num_patients in args.patients:
            for mix in MIXES:
                found = crossed(num_patients, (num, args.labels), mix, args.sims, args.resamples, args.seed)
                cells = " | ".join(f"{held:.1f}, {claimed:.1f}" for held, claimed in found.values())
                sds = ", ".join(f"{sd:g}" for sd in mix)
                print(f"| {num} | {num_patients} | {sds} | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sims", type=int, default=1000, help="data sets a condition")
    parser.add_argument("--resamples", type=int, default=1000, help="resamples a data set")
    parser.add_argument("--patients", type=int, nargs="+", default=[30, 50, 100, 400])
    parser.add_argument("--areas", type=float, nargs="+", default=[0.70, 0.95])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 5, 10])
    parser.add_argument("--difference", action="store_true", help="two arms of equal AUROC, truth 0")
    parser.add_argument("--spread", type=float, default=World.spread, help="seeds' SD of the separation")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="ours first")
    parser.add_argument("--images", type=int, default=World.images, help="images of a patient")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pretrainings", type=int, nargs="+", help="crossed seeds: how many pretrainings")
    parser.add_argument("--labels", type=int, default=5, help="crossed seeds: label seeds of each")
    args = parser.parse_args()
    if args.pretrainings:
        _crossed_table(args)
        return
    rows = []
    for area in args.areas:
        for num_patients in args.patients:
            for num_seeds in args.seeds:
                world = World(
                    num_patients, area, num_seeds, args.spread, args.images, difference=args.difference
                )
                found = coverage(world, args.sims, args.resamples, args.seed, args.methods)
                line = {"name": "coverage", "auroc": area, "patients": num_patients, "seeds": num_seeds}
                line |= {"sims": args.sims, "difference": args.difference, "spread": args.spread}
                line |= {"images": args.images}
                print(json.dumps(line | {key: round(v, 4) for key, v in found.items()}), flush=True)
                rows.append((area, num_patients, num_seeds, *(100 * found[m] for m in args.methods)))
    print(
        "\n| AUROC | patients | seeds | "
        + " | ".join(args.methods)
        + " |\n"
        + "|---" * (3 + len(args.methods))
        + "|"
    )
    for area, num_patients, num_seeds, *shares in rows:
        cells = " | ".join(f"{share:.1f}" for share in shares)
        print(f"| {area:.2f} | {num_patients} | {num_seeds} | {cells} |")


if __name__ == "__main__":
    main()
