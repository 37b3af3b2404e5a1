"""How often studies in which no arm is better claim one all the same: `python bench/null_claims.py`.

A simulated study has a control and 8 arms, all of one mean AUROC, on 150 test patients with two knees. Each
label seed of each arm is a model with a true AUROC of its own (`--spread`: standard deviation of the
separation, 0.10 is about 0.025 in AUROC). It goes through the comparison code of `evaluate`: paired
differences, Holm's adjustment, claims at p < 0.01, label multipliers of the first arm at the middle of three
fractions. No arm is better with new seeds, so every claim is false of them, and every multiplier is 1.

Prints a table (Markdown), in per cent of studies: with any claim; label multipliers that have an interval;
of those, intervals that hold 1; and how many would hold it were intervals given for few seeds too.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trabecula.comparison.arms import ArmScores, ComparedArm, compare, mixed, multipliers
from trabecula.metrics.bootstrap import label_multiplier, resample
from trabecula.metrics.classification import auroc

Floats = NDArray[np.float64]
CURVE = {0.05: (20.0, 0.66), 0.2: (80.0, 0.72), 1.0: (400.0, 0.78)}
"""Fraction -> labelled patients, mean true AUROC of every arm."""
MIDDLE, LEVEL, ALPHA, ICC, SHARED = 0.2, 0.95, 0.01, 0.5, 0.7


@dataclass(frozen=True)
class NullWorld:
    num_patients: int
    num_arms: int
    num_seeds: int
    spread: float
    num_resamples: int


def clustered(rng: np.random.Generator, num_patients: int, rows: int) -> Floats:
    """(rows, 2 num_patients) normal numbers, those of a patient's two knees correlated by ICC."""
    own = rng.normal(size=(rows, num_patients)).repeat(2, axis=1)
    return np.asarray(np.sqrt(ICC) * own + np.sqrt(1 - ICC) * rng.normal(size=(rows, 2 * num_patients)))


def simulate(world: NullWorld, rng: np.random.Generator) -> tuple[list[ArmScores], list[ComparedArm]]:
    """The results of one study: the first arm and the control at all fractions, the others at the middle."""
    patients = np.arange(world.num_patients).repeat(2)
    prevalence = rng.uniform(0.30, 0.45)
    y = (clustered(rng, world.num_patients, 1)[0] > stats.norm.ppf(1 - prevalence)).astype(np.int64)
    common = np.sqrt(SHARED) * clustered(rng, world.num_patients, 1)
    weights = resample(patients, world.num_resamples, int(rng.integers(2**31)))
    df = min(np.unique(patients[y == k]).size for k in (0, 1)) - 1.0
    names = ["random", *(f"arm{i}" for i in range(world.num_arms))]
    units, results = tuple((0, seed) for seed in range(world.num_seeds)), []
    for name in names:
        for fraction, (labelled, area) in CURVE.items():
            if name not in names[:2] and fraction != MIDDLE:
                continue
            # the mean over seeds of Phi((m + spread z) / sqrt 2) is Phi(m / sqrt(2 + spread^2))
            centre = stats.norm.ppf(area) * np.sqrt(2 + world.spread**2)
            separation = centre + world.spread * rng.normal(size=(world.num_seeds, 1))
            own = np.sqrt(1 - SHARED) * clustered(rng, world.num_patients, world.num_seeds)
            scores = separation * y + common + own
            results.append(ArmScores(
                "oa", name, "probe", fraction, "auroc", units,
                np.array([auroc(y, s)[0] for s in scores]),
                np.stack([auroc(y, s, weights) for s in scores], axis=1), df, world.num_patients, labelled,
            ))  # fmt: skip
    arms = [ComparedArm("random", "net", "random")]
    return results, arms + [ComparedArm(name, "net", "pretrained", "random") for name in names[1:]]


def judge(results: list[ArmScores], arms: list[ComparedArm], seed: int) -> Floats:
    """(any claim, multiplier has an interval, which holds 1, would hold 1 if never withheld): 0, 1 or NaN."""
    middle = [r for r in results if r.fraction == MIDDLE]
    claims = any(row.claim != "none" for row in compare(middle, arms, LEVEL, ALPHA))
    curve = [r for r in results if r.arm == "random"]
    arm = next(r for r in middle if r.arm == "arm0")
    found = next(
        row for row in multipliers([*curve, arm], arms, LEVEL, seed) if row.arm == "arm0"
    )  # the control has no baseline
    given = not found.note
    free = label_multiplier(
        [r.train_patients for r in curve], [float(r.values.mean()) for r in curve],
        np.stack([mixed(r, seed) for r in curve], axis=1), arm.train_patients, float(arm.values.mean()),
        mixed(arm, seed), arm.df_patients, LEVEL,
    )  # fmt: skip
    held = float(_bound(found.low, 0) <= 1 <= _bound(found.high, np.inf)) if given else np.nan
    return np.array([claims, given, held, free.low <= 1 <= free.high], float)


def _bound(value: float | None, end: float) -> float:
    """A bound beyond the curve is no bound."""
    return end if value is None or np.isnan(value) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sims", type=int, default=1000, help="studies a row")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--patients", type=int, default=150)
    parser.add_argument("--arms", type=int, default=8)
    parser.add_argument("--spread", type=float, default=0.10, help="seeds' SD of the separation")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| seeds | any claim | multiplier has an interval | it holds 1 | would, if never withheld |")
    print("|---|---|---|---|---|")
    for num_seeds in args.seeds:
        world = NullWorld(args.patients, args.arms, num_seeds, args.spread, args.resamples)
        rng = np.random.default_rng([args.seed, num_seeds])
        rows = np.array([judge(*simulate(world, rng), seed=i) for i in range(args.sims)])
        shares = [100 * np.nanmean(column) if np.isfinite(column).any() else np.nan for column in rows.T]
        cells = " | ".join("–" if np.isnan(share) else f"{share:.1f}" for share in shares)
        print(f"| {num_seeds} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
