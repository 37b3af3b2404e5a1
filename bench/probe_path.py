"""One probe of all labels, on one core, beside scikit-learn: `python bench/probe_path.py`.

Five classes, 5,778 training images x 1,024 features, classes weighing alike, strength chosen on 1,444
validation images. Both sides take turns on one thread.

    ours       `transfer.linear_probe.fit_probes` as it comes: it stops 10 strengths after the best one
    same       LogisticRegressionCV over the strengths that ours tried
    shortest   the same over those up to the one that ours chose: the fewest that could lead to this choice,
               known only afterwards
    sklearn    with --all: LogisticRegressionCV over all 50 strengths

Features are made up like encoders' (see probe_grid.py), or with --features FOLDER features.npy and y.npy of a
folder. One JSON line: seconds of each (median), what each chose, the validation log-loss of the choices.
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from probe_grid import make_features
from sklearn.linear_model import LogisticRegressionCV
from turns import options

from trabecula.artifacts.tasks import Task
from trabecula.transfer.linear_probe import FittedProbe, ProbeData, ProbeSettings, fit_probes

SIZES = (5_778, 1_444)  # training and validation images
TASK = Task(kind="multiclass", name="grade", labels=("grade",), classes=("0", "1", "2", "3", "4"))


def read(folder: str) -> tuple[np.ndarray, np.ndarray]:
    if folder:
        return np.load(Path(folder) / "features.npy"), np.load(Path(folder) / "y.npy")
    features, y, _ = make_features(0, 1_024, 1)
    return features[0], y


def by_us(data: ProbeData) -> FittedProbe:
    (probe,) = fit_probes(ProbeSettings(), TASK, [data])
    return probe


def by_sklearn(data: ProbeData, strengths: np.ndarray) -> tuple[float, float]:
    """The chosen C, and its validation log-loss with classes alike."""
    n, x = len(data.y), torch.cat([data.train, data.val]).double()
    mean, std = x[:n].mean(0), x[:n].std(0, correction=0)
    std = torch.where(std > 1e-7 * mean.abs(), std, 1.0)
    y = np.concatenate([data.y, data.y_val])
    weights = 1 / np.bincount(data.y_val)[y]

    def alike(model: LogisticRegressionCV, some: np.ndarray, of: np.ndarray) -> float:
        p = model.predict_proba(some)[np.arange(len(of)), of]
        return float(np.average(np.log(p), weights=weights[n : n + len(of)]))

    model = LogisticRegressionCV(
        Cs=strengths, cv=[(np.arange(n), np.arange(n, len(y)))], scoring=alike, class_weight="balanced",
        max_iter=1_000, refit=False, l1_ratios=(0.0,), use_legacy_attributes=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it gives up on some of the weakest penalties
        model.fit(((x - mean) / std).numpy(), y)
    return float(model.C_), float(-model.scores_.max())


def main() -> None:
    parser = options(__doc__, repeats=3)
    parser.add_argument("--features", default="", help="a folder with features.npy, y.npy, patients.npy")
    parser.add_argument("--all", action="store_true", help="scikit-learn over all 50 strengths too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    X, y = read(args.features)
    rows = np.random.default_rng(0).permutation(len(y))[: sum(SIZES)]
    train, val = np.split(rows, [min(SIZES[0], round(0.8 * len(rows)))])
    data = ProbeData(torch.from_numpy(X[train]), y[train], torch.from_numpy(X[val]), y[val])
    strengths = ProbeSettings().strengths
    known = by_us(data)  # warms up too
    tried, shortest = strengths[: len(known.scores)], strengths[: known.index + 1]
    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: by_us(data),
        "same": lambda: by_sklearn(data, tried),
        "shortest": lambda: by_sklearn(data, shortest),
    }
    if args.all:
        sides["sklearn"] = lambda: by_sklearn(data, strengths)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    found = {}
    for _ in range(args.repeats):
        for side, run in sides.items():
            began = time.perf_counter()
            found[side] = run()
            seconds[side].append(time.perf_counter() - began)
    probe = found.pop("ours")
    result = {
        "images": len(train), "features": X.shape[1],
        "seconds": {side: round(statistics.median(values), 2) for side, values in seconds.items()},
        "strengths_solved": len(probe.scores),
        "chosen": {"ours": probe.strength, **{side: chosen for side, (chosen, _) in found.items()}},
        "log_loss": {"ours": -max(probe.scores), **{side: loss for side, (_, loss) in found.items()}},
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        main()
