"""Does the demo's verdict hold with other seeds? `python bench/demo_seeds.py --seeds 0 1 2 3 4`

The whole demo once a seed: other phantom patients, another split, other random weights and pretrainings.
Prints a line a study: minutes, comparisons that are better, worse, or show no difference, fine-tunings at
chance; then each comparison with its differences and claims over the seeds (Markdown). Exits with 1 where a
fine-tuning stayed at chance, or where a comparison is better with one seed and worse with another. Studies
that are there already are not run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from trabecula.files import read_json

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("phantom", "split", "pretrain")
Key = tuple[str, str, float]


def study(recipe: Path, seed: int, out: Path, workers: int) -> tuple[float, dict[Key, Any], int]:
    """Minutes, the comparisons with random arms, and the number of runs that stayed at chance."""
    began = time.perf_counter()
    seeds = [word for stage in STAGES for word in ("-s", f"{stage}.seed={seed}")]
    command = ["study", str(recipe), "--out", str(out), "--workers", str(workers), *seeds]
    subprocess.run([Path(sys.executable).with_name("trabecula"), *command], check=True, cwd=ROOT)
    minutes = (time.perf_counter() - began) / 60
    (results,) = (out / "cells").glob("evaluate-*")
    pairs = read_json(results / "comparisons.json", "evaluate")["pairs"]
    flow = read_json(results / "flow.json", "evaluate")
    at_chance = sum(count["num_plateau"] for count in flow["plateaus"])
    against_random = [row for row in pairs if row["baseline_family"] == "random"]
    return minutes, {(row["arm"], row["mode"], row["fraction"]): row for row in against_random}, at_chance


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "demo.toml")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "demo-seeds")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    found, stayed = [], 0
    for seed in args.seeds:
        minutes, pairs, at_chance = study(args.recipe, seed, args.out / str(seed), args.workers)
        claims = Counter(row["claim"] for row in pairs.values())
        counts = ", ".join(f"{claims[kind]} {kind}" for kind in ("better", "worse", "none"))
        print(f"seed {seed}: {minutes:.1f} min; {counts}; {at_chance} at chance", flush=True)
        found.append(pairs)
        stayed += at_chance
    print(
        "\n| arm | how | fraction | difference with each seed | better, worse, none |\n|---|---|---|---|---|"
    )
    opposed = False
    for key in found[0]:
        rows = [pairs[key] for pairs in found]
        claims = Counter(row["claim"] for row in rows)
        opposed |= claims["better"] > 0 < claims["worse"]
        differences = ", ".join(f"{row['difference']:+.3f}" for row in rows)
        arm, mode, fraction = key
        kinds = ", ".join(str(claims[kind]) for kind in ("better", "worse", "none"))
        print(f"| {arm} | {mode} | {fraction:g} | {differences} | {kinds} |")
    return int(opposed or stayed > 0)


if __name__ == "__main__":
    sys.exit(main())
