"""Do our probes land where scikit-learn's would? On the features and few-label subsets of a finished study.

    python bench/probe_agreement.py runs/knees --arm squeezenet1_0-imagenet --task kl --fractions 0.05 0.1

For each seed scikit-learn's LogisticRegression is fitted on the same standardised features of the same
subset, with balanced class weights where there are three classes or more:

    fixed   at C = 0.001, as a user would who knows that features are many and labels few
    path    at the 50 strengths of `probe`; of the first --path-seeds seeds, since it is slow. The smallest
            validation log-loss chooses, classes weighing alike where they do in training

The score on the test part is AUROC (two classes) or balanced accuracy. One JSON line a fraction: means and SD
over seeds. Exits with 1 where our mean is more than one SD below `fixed`, or a seed more than 0.01 from
`path`.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from embedded_study import cell, read_arm
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from trabecula.artifacts.splits import draw_subset

STRENGTHS, FIXED = np.logspace(-5, 5, 50), 1e-3
Part = tuple[np.ndarray, np.ndarray]


def score(y: np.ndarray, p: np.ndarray) -> float:
    """Test AUROC, or balanced accuracy of the most probable class."""
    if p.shape[1] == 2:
        return float(roc_auc_score(y, p[:, 1]))
    return float(balanced_accuracy_score(y, p.argmax(1)))


def fitted(train: Part, new: np.ndarray, classes: int, strength: float) -> np.ndarray:
    """(m, classes) probabilities of new images, 0 of a class that training lacks."""
    weight = "balanced" if classes > 2 else None
    model = LogisticRegression(C=strength, class_weight=weight, max_iter=5_000, tol=1e-6).fit(*train)
    p = np.zeros((len(new), classes))
    p[:, model.classes_] = model.predict_proba(new)
    return p


def by_path(train: Part, val: Part, test: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities of test images at the strength of the smallest validation log-loss."""
    weights = 1 / np.bincount(val[1], minlength=classes)[val[1]] if classes > 2 else None
    best, chosen = np.inf, np.zeros(0)
    for strength in STRENGTHS:
        p = fitted(train, np.concatenate([val[0], test]), classes, strength)
        loss = log_loss(val[1], p[: len(val[1])].clip(1e-15), labels=range(classes), sample_weight=weights)
        if loss < best - 1e-6:
            best, chosen = loss, p[len(val[1]) :]
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--arm", default="squeezenet1_0-imagenet")
    parser.add_argument("--task", default="kl2")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.1])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--path-seeds", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    arm = read_arm(options.study, options.arm, options.task)
    x, labelled, classes, test = arm.x, arm.labelled, arm.task.num_outputs, arm.rows("test")
    table = pd.read_csv(
        cell(options.study, f"probe-{options.arm}") / "predictions.csv", dtype={"image_id": str}
    )
    table = table[(table.task == options.task) & (table.split == "test")]
    missed = False
    for fraction in options.fractions:
        found: dict[str, list[float]] = {"ours": [], "fixed": [], "path": []}
        for seed in range(options.seeds):
            subset = draw_subset(arm.splits, labelled, fraction, seed)
            mean, std = x[subset.train].mean(0), x[subset.train].std(0)
            z = (x - mean) / np.where(std > 1e-7 * np.abs(mean), std, 1)
            train, val = ((z[part], labelled.y[part]) for part in (subset.train, subset.val))
            mine = table[(table.seed == seed) & (table.fraction == fraction)].set_index("image_id")
            columns = [f"p_{name}" for name in labelled.class_names]
            probabilities = {
                "ours": mine.loc[labelled.image_ids[test], columns].to_numpy(),
                "fixed": fitted(train, z[test], classes, FIXED),
            }
            if seed < options.path_seeds:
                probabilities["path"] = by_path(train, val, z[test], classes)
            for side, p in probabilities.items():
                found[side].append(score(labelled.y[test], p))
        means = {side: float(np.mean(values)) for side, values in found.items() if values}
        sd = {side: float(np.std(values, ddof=1)) for side, values in found.items() if len(values) > 1}
        apart = [abs(a - b) for a, b in zip(found["ours"], found["path"], strict=False)]
        missed |= means["ours"] < means["fixed"] - sd["ours"] or max(apart, default=0.0) > 0.01
        print(json.dumps({
            "name": "probe_agreement", "arm": options.arm, "task": options.task, "fraction": fraction,
            "num_test": len(test), "seeds": options.seeds, "mean": means, "sd": sd,
            "largest_difference_from_path": max(apart, default=None),
        }), flush=True)  # fmt: skip
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
