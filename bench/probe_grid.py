"""A grid of linear probes against scikit-learn and an Optuna search: `python bench/probe_grid.py`.

3 label fractions x 10 seeds x 50 settings on 512 features of 5 classes. Each side chooses its
setting on the few-label validation part by log-loss and is scored once on the test part.

    ours      `transfer.logistic.solve` on half of the seeds at once: 2 processes of 1 thread
    sklearn   LogisticRegressionCV, a path of 50 C for each (fraction, seed): 2 processes of 1 thread
    optuna    TPE and median pruner, 50 trials of AdamW on a DataLoader for each (fraction, seed):
              2 processes of 1 thread; once, however many repeats; with --optuna-seeds N the time of N of
              the 10 seeds is scaled up

The sides take turns, with the same allocator on the same 2 cores; the workers are started and warm
before a clock runs. The features are made up like an encoder's (two images a patient, class signal,
patient clusters), or read from a folder with features.npy, y.npy and patients.npy (`--features`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FRACTIONS, NUM_CLASSES, NUM_SEEDS, STRENGTHS = (0.01, 0.05, 0.1), 5, 10, np.logspace(-5, 5, 50)
CHANCE = (0.38, 0.18, 0.26, 0.14, 0.04)  # shares of KL grades in a knee cohort
NUM_TRAIN, NUM_VAL, NUM_TEST = 2308, 577, 828  # patients

Cell = dict[str, Any]


def make_features(seed: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, dim), classes (n,) and patients (n,): two images a patient, a rank that decays."""
    rng = np.random.default_rng(seed)
    num = NUM_TRAIN + NUM_VAL + NUM_TEST
    patients = np.repeat(np.arange(num), 2)
    base = rng.normal(size=num)
    burden = 0.8 * base[patients] + 0.6 * rng.normal(size=patients.size)
    y = np.digitize(burden, np.quantile(burden, np.cumsum(CHANCE)[:-1]))
    decay = np.arange(1, 257) ** -0.6
    latent = 0.8 * rng.normal(size=(num, 256))[patients] + 0.6 * rng.normal(size=(patients.size, 256))
    latent[:, 4:12] += 0.7 * rng.normal(size=(NUM_CLASSES, 8))[y] + 0.5 * burden[:, None]
    X = (latent * decay) @ rng.normal(size=(256, dim)) + 0.1 * rng.normal(size=(patients.size, dim))
    return np.maximum(X, -0.3).astype(np.float32), y, patients


def draw(y: np.ndarray, patients: np.ndarray) -> tuple[list[Cell], np.ndarray]:
    """The few-label subsets by patient, standardised on their training part, and the test rows."""
    ids = np.random.default_rng(0).permutation(np.unique(patients))
    cut = np.round(np.cumsum([NUM_TRAIN, NUM_VAL]) / (NUM_TRAIN + NUM_VAL + NUM_TEST) * len(ids)).astype(int)
    pools = np.split(ids, cut)
    cells = []
    for fraction in FRACTIONS:
        for seed in range(NUM_SEEDS):
            rng = np.random.default_rng(seed)
            rows = []
            for pool in pools[:2]:
                some = rng.permutation(pool)[: max(round(fraction * len(pool)), 1)]
                here = np.isin(patients, pool)
                first = [patients[np.flatnonzero(here & (y == k))[seed]] for k in range(NUM_CLASSES)]
                rows.append(np.flatnonzero(np.isin(patients, np.concatenate([some, first]))))
            cells.append({"fraction": fraction, "seed": seed, "train": rows[0], "val": rows[1]})
    return cells, np.flatnonzero(np.isin(patients, pools[2]))


def scaled(X: np.ndarray, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    mean, std = X[cell["train"]].mean(0), X[cell["train"]].std(0)
    return mean, np.where(std > 1e-6, std, 1)


def ours(X: np.ndarray, y: np.ndarray, cells: list[Cell], test: np.ndarray) -> list[np.ndarray]:
    """Predicted classes of the test images, one array a cell."""
    import torch

    from trabecula.transfer.logistic import Problem, solve

    scales = [scaled(X, cell) for cell in cells]
    problems = [
        Problem(torch.from_numpy((X[c["train"]] - m) / s), torch.from_numpy(y[c["train"]]), NUM_CLASSES)
        for c, (m, s) in zip(cells, scales, strict=True)
    ]
    called = []
    for cell, (mean, std), path in zip(cells, scales, solve(problems, STRENGTHS.tolist()), strict=True):
        log_p = path.log_probabilities(torch.from_numpy((X[cell["val"]] - mean) / std)).numpy()
        score = log_p[:, np.arange(len(cell["val"])), y[cell["val"]]].mean(1)
        W, b = path.weights(int(score.argmax()))
        called.append((((X[test] - mean) / std) @ W.numpy().T + b.numpy()).argmax(1))
    return called


def by_sklearn(X: np.ndarray, y: np.ndarray, cell: Cell, test: np.ndarray) -> np.ndarray:
    import warnings

    from sklearn.linear_model import LogisticRegressionCV

    warnings.simplefilter("ignore")  # its default of 100 iterations ends some fits early
    mean, std = scaled(X, cell)
    rows, n = np.concatenate([cell["train"], cell["val"]]), len(cell["train"])
    model = LogisticRegressionCV(
        Cs=STRENGTHS, cv=[(np.arange(n), np.arange(n, len(rows)))], scoring="neg_log_loss",
        refit=False, l1_ratios=(0.0,), use_legacy_attributes=False,
    )  # fmt: skip
    model.fit((X[rows] - mean) / std, y[rows])
    return model.predict((X[test] - mean) / std)


def by_optuna(X: np.ndarray, y: np.ndarray, cell: Cell, test: np.ndarray) -> np.ndarray:
    import optuna
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, TensorDataset

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    mean, std = scaled(X, cell)
    train, val = (
        TensorDataset(torch.from_numpy((X[cell[k]] - mean) / std), torch.from_numpy(y[cell[k]]))
        for k in ("train", "val")
    )
    best: list[Any] = [np.inf, None]

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        decay = trial.suggest_float("weight_decay", 1e-6, 1e1, log=True)
        epochs = 20
        loader = DataLoader(
            train, batch_size=trial.suggest_categorical("batch_size", [16, 32, 64]), shuffle=True
        )
        head = torch.nn.Linear(X.shape[1], NUM_CLASSES)
        optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * len(loader))
        for epoch in range(epochs):
            for features, labels in loader:
                optimizer.zero_grad()
                cross_entropy(head(features), labels).backward()
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                loss = float(cross_entropy(head(val.tensors[0]), val.tensors[1]))
            if loss < best[0]:
                best[:] = loss, (head.weight.detach().clone(), head.bias.detach().clone())
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    torch.manual_seed(cell["seed"])
    sampler = optuna.samplers.TPESampler(seed=cell["seed"])
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.MedianPruner())
    study.optimize(objective, n_trials=50)
    weight, bias = best[1]
    return ((torch.from_numpy((X[test] - mean) / std)) @ weight.T + bias).argmax(1).numpy()


def warm() -> None:
    """Import what a worker needs, so that no clock counts it."""
    import optuna  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch

    import trabecula.transfer.logistic  # noqa: F401

    torch.set_num_threads(1)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def balanced_accuracy(truth: np.ndarray, called: list[np.ndarray]) -> float:
    recalls = [[(c[truth == k] == k).mean() for k in range(NUM_CLASSES)] for c in called]
    return float(np.mean(recalls))


def compared(
    truth: np.ndarray, ours: list[np.ndarray], theirs: list[np.ndarray], peer: str
) -> dict[str, Any]:
    """Test balanced accuracy of both sides over the same cells; the mean difference, its standard error."""
    apart = [
        balanced_accuracy(truth, [a]) - balanced_accuracy(truth, [b])
        for a, b in zip(ours, theirs, strict=True)
    ]
    return {
        "cells": len(ours),
        "ours": round(balanced_accuracy(truth, ours), 4),
        peer: round(balanced_accuracy(truth, theirs), 4),
        "difference": round(float(np.mean(apart)), 4),
        "standard_error": round(float(np.std(apart, ddof=1) / np.sqrt(len(apart))), 4),
    }


def main() -> None:
    from joblib import Parallel, delayed, parallel_config

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=Path, help="folder with features.npy, y.npy, patients.npy")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--optuna-seeds", type=int, default=10, help="0: leave the search out")
    args = parser.parse_args()
    if args.features:
        X, y, patients = (np.load(args.features / f"{name}.npy") for name in ("features", "y", "patients"))
    else:
        X, y, patients = make_features(0, args.dim)
    cells, test = draw(y, patients)
    some = [cell for cell in cells if cell["seed"] < args.optuna_seeds]
    times: dict[str, list[float]] = {"ours": [], "sklearn": [], "optuna": []}
    with parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=1), Parallel() as pool:
        pool(delayed(warm)() for _ in range(8))

        def by_us() -> list[np.ndarray]:
            halves = pool(delayed(ours)(X, y, cells[k::2], test) for k in (0, 1))
            return [called for pair in zip(*halves, strict=True) for called in pair]

        def peer(function: Callable[..., np.ndarray], which: list[Cell]) -> list[np.ndarray]:
            return pool(delayed(function)(X, y, cell, test) for cell in reversed(which))[::-1]

        for repeat in range(args.repeats):
            seconds, called = timed(by_us)
            times["ours"].append(seconds)
            seconds, by_cv = timed(lambda: peer(by_sklearn, cells))
            times["sklearn"].append(seconds)
            if not repeat and some:
                seconds, by_search = timed(lambda: peer(by_optuna, some))
                times["optuna"].append(seconds * NUM_SEEDS / args.optuna_seeds)
    ratios = np.array(times["sklearn"]) / np.array(times["ours"])
    line: dict[str, Any] = {
        "name": "probe_grid",
        "seconds": {side: round(float(np.median(values)), 2) for side, values in times.items() if values},
        "ratio": round(float(np.median(ratios)), 2),
        "spread": [round(float(ratios.min()), 2), round(float(ratios.max()), 2)],
        "test_balanced_accuracy": compared(y[test], called, by_cv, "sklearn"),
        "peer": "LogisticRegressionCV, 2 processes",
    }
    if some:
        same = [c for cell, c in zip(cells, called, strict=True) if cell["seed"] < args.optuna_seeds]
        line["ratio_optuna"] = round(times["optuna"][0] / float(np.median(times["ours"])), 1)
        line["test_balanced_accuracy_optuna"] = compared(y[test], same, by_search, "optuna")
        if args.optuna_seeds < NUM_SEEDS:
            line["extrapolated"] = f"optuna from {args.optuna_seeds} of {NUM_SEEDS} seeds"
    print(json.dumps(line))


if __name__ == "__main__":
    main()
