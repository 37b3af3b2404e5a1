"""Ways of training the same arm, one against another: `python bench/ways.py runs/head-start`.

`evaluate` holds arms against each other within one way of training. This holds the ways against each other,
the linear probe among them, within one arm: AUROC of a binary task on the study's test part, means over the
label seeds, and paired differences from the way named by --against with 95 % intervals over patients (for
these seeds where they are fewer than five). Prints a table (Markdown).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.predictions import ArmPredictions, arm_predictions, read_choices, read_predictions
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.tasks import find_task, truth
from trabecula.metrics.bootstrap import degrees_of_freedom, difference, interval, resample
from trabecula.metrics.classification import auroc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--task", default="kl2")
    parser.add_argument("--against", default="finetune:random 1e-4", help="a mode, as in predictions.csv")
    parser.add_argument("--resamples", type=int, default=2000)
    args = parser.parse_args()
    cells = json.loads((args.study / "cells.json").read_text(encoding="utf-8"))["cells"]
    folders = [args.study / cell["folder"] for cell in cells]
    cohort, split = (folders[[cell["verb"] for cell in cells].index(verb)] for verb in ("cohort", "split"))
    manifest = read_manifest(cohort)
    task = find_task(args.task, manifest)
    labelled = truth(task, manifest)
    test = np.flatnonzero(read_splits(split).rows("test", labelled.patient_ids))
    y, patients = labelled.y[test], labelled.patient_ids[test]
    folders = [folder for folder in folders if (folder / "predictions.csv").is_file()]
    made = arm_predictions(
        read_predictions(folders), read_choices(folders), args.task, labelled.image_ids[test],
        task.class_names,
    )  # fmt: skip
    weights = resample(patients, args.resamples, 0)
    df = degrees_of_freedom([len(set(patients[y == k])) for k in (0, 1)])
    found: dict[tuple[str, float], dict[str, tuple[np.ndarray, np.ndarray, ArmPredictions]]] = defaultdict(
        dict
    )
    for one in made:
        scores = [p[:, 1] for p in one.p]
        values = np.array([auroc(y, s)[0] for s in scores])
        found[one.arm, one.fraction][one.mode] = (
            values,
            np.stack([auroc(y, s, weights) for s in scores], 1),
            one,
        )
    print(f"{len(test)} images, {len(set(patients))} patients, {int(y.sum())} positive\n")
    print(f"| arm | fraction | way | seeds | AUROC | minus {args.against} |\n|---|---|---|---|---|---|")
    for (arm, fraction), ways in sorted(found.items()):
        base = ways.get(args.against)
        for mode, (values, draws, one) in ways.items():
            own = interval(values, draws, df, units=one.units)
            beside = ""
            if base is not None and mode != args.against and len(base[0]) == len(values):
                gap = difference(values, draws, base[0], base[1], df, units=one.units)
                beside = f"{gap.value:+.3f} [{gap.low:.3f}, {gap.high:.3f}]"
            cells = f"{len(values)} | {own.value:.3f} [{own.low:.3f}, {own.high:.3f}] | {beside}"
            print(f"| {arm} | {fraction:g} | {mode} | {cells} |")


if __name__ == "__main__":
    main()
