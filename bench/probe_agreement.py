"""Do our probes land where scikit-learn's would? On the features and few-label subsets of a finished study.

    python bench/probe_agreement.py runs/knees --arm squeezenet1_0-imagenet --fraction 0.1 --seeds 3

For each seed scikit-learn's LogisticRegression is fitted at the same 50 strengths on the same standardised
features, the strength with the smallest validation log-loss is taken, and the test AUROC (two classes) or
balanced accuracy (more) is compared with that of our predictions. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from trabecula.artifacts.features import read_features
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.splits import draw_subset, read_splits
from trabecula.artifacts.tasks import find_task, truth

STRENGTHS = np.logspace(-5, 5, 50)


def score(y: np.ndarray, p: np.ndarray) -> float:
    """Test AUROC, or balanced accuracy of the most probable class."""
    if p.shape[1] == 2:
        return float(roc_auc_score(y, p[:, 1]))
    return float(balanced_accuracy_score(y, p.argmax(1)))


def theirs(
    x: np.ndarray, y: np.ndarray, val: tuple[np.ndarray, np.ndarray], classes: int
) -> LogisticRegression:
    """scikit-learn's path; the model of the smallest validation log-loss."""
    best, chosen = np.inf, None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=5000, tol=1e-6).fit(x, y)
        p = np.zeros((len(val[0]), classes))
        p[:, model.classes_] = model.predict_proba(val[0])
        loss = log_loss(val[1], p.clip(1e-12), labels=range(classes))
        if loss < best - 1e-6:
            best, chosen = loss, model
    assert chosen is not None
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("--arm", default="squeezenet1_0-imagenet")
    parser.add_argument("--task", default="kl2")
    parser.add_argument("--fraction", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    def cell(pattern: str) -> Path:
        return next(options.study.glob(f"cells/{pattern}"))

    features = read_features(cell(f"embed-{options.arm}-*"))
    manifest, splits = read_manifest(cell("cohort-*")), read_splits(cell("split-*"))
    task = find_task(options.task, manifest)
    labelled = truth(task, manifest).among(features.row_of, options.study, "without features")
    x = features.values[[features.row_of[i] for i in labelled.image_ids]].astype(np.float64)
    test = np.flatnonzero(splits.rows("test", labelled.patient_ids))
    table = pd.read_csv(cell(f"probe-{options.arm}-*") / "predictions.csv", dtype={"image_id": str})
    table = table[
        (table.task == options.task) & (table.split == "test") & (table.fraction == options.fraction)
    ]
    rows, began = [], time.monotonic()
    for seed in range(options.seeds):
        subset = draw_subset(splits, labelled, options.fraction, seed)
        mean, std = x[subset.train].mean(0), x[subset.train].std(0)
        z = (x - mean) / np.where(std > 0, std, 1)
        model = theirs(
            z[subset.train],
            labelled.y[subset.train],
            (z[subset.val], labelled.y[subset.val]),
            task.num_outputs,
        )
        p = np.zeros((len(test), task.num_outputs))
        p[:, model.classes_] = model.predict_proba(z[test])
        mine = table[table.seed == seed].set_index("image_id").loc[labelled.image_ids[test]]
        ours = mine[[f"p_{name}" for name in labelled.class_names]].to_numpy()
        rows.append(
            {"seed": seed, "ours": score(labelled.y[test], ours), "sklearn": score(labelled.y[test], p)}
        )
    worst = max(abs(row["ours"] - row["sklearn"]) for row in rows)
    record = {
        "name": "probe_agreement", "arm": options.arm, "task": options.task, "fraction": options.fraction,
        "num_test": len(test), "seeds": rows, "largest_difference": worst,
        "sklearn_s": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print(json.dumps(record))
    if worst > 0.01:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
