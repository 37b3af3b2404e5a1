"""A grid of linear probes against scikit-learn and an Optuna search.

    python bench/probe_grid.py                         # one arm: 3 fractions x 10 seeds x 50 strengths
    python bench/probe_grid.py --arms 8 --repeats 1    # the grid of a whole study

Linear probes on 512 features of 5 classes. Each side chooses its setting on the few-label validation part
by log-loss and is scored once on the test part.

    ours      `transfer.logistic.solve`: 2 processes of 1 thread. Of one arm each takes half of the problems
              in one solve; of several each solves an arm's whole grid at once, as a study's probe cells do
    sklearn   LogisticRegressionCV, a path of 50 C for each (arm, fraction, seed): 2 processes of 1 thread
    optuna    TPE and median pruner, 50 trials of AdamW on a DataLoader for each (arm, fraction, seed):
              2 processes of 1 thread; once, however many repeats; with --optuna-seeds N and --optuna-arms M
              the time of N of the 10 seeds of M of the arms is scaled up

The sides take turns, with the same allocator on the same 2 cores; the workers are started and warm
before a clock runs. The features are made up like encoders' (two images a patient, class signal, patient
clusters; arms differ in how fast their spectrum decays), or read from folders with features.npy, y.npy and
patients.npy, one an arm (`--features`). One JSON line. A difference of test accuracy is paired: its standard
error is over the 10 label seeds, each the mean of its arms and fractions, on the same test images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FRACTIONS, NUM_CLASSES, NUM_SEEDS, STRENGTHS = (0.01, 0.05, 0.1), 5, 10, np.logspace(-5, 5, 50)
CHANCE = (0.38, 0.18, 0.26, 0.14, 0.04)  # shares of KL grades in a knee cohort
NUM_TRAIN, NUM_VAL, NUM_TEST = 2308, 577, 828  # patients

DECAYS = (0.6, 0.4, 0.8, 0.5, 0.7, 0.3, 0.9, 1.0)  # of an encoder's singular values: fast ones solve faster

Cell = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """Features (n, dim), classes (n,) and patients (n,) of one encoder, its cells and its test rows."""

    X: np.ndarray
    y: np.ndarray
    cells: list[Cell]
    test: np.ndarray


def make_features(seed: int, dim: int, arms: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Of each arm features (n, dim); classes (n,) and patients (n,): two images a patient."""
    rng = np.random.default_rng(seed)
    num = NUM_TRAIN + NUM_VAL + NUM_TEST
    patients = np.repeat(np.arange(num), 2)
    base = rng.normal(size=num)
    burden = 0.8 * base[patients] + 0.6 * rng.normal(size=patients.size)
    y = np.digitize(burden, np.quantile(burden, np.cumsum(CHANCE)[:-1]))
    latent = 0.8 * rng.normal(size=(num, 256))[patients] + 0.6 * rng.normal(size=(patients.size, 256))
    latent[:, 4:12] += 0.7 * rng.normal(size=(NUM_CLASSES, 8))[y] + 0.5 * burden[:, None]
    features = []
    for arm in range(arms):
        decay = np.arange(1, 257) ** -DECAYS[arm % len(DECAYS)]
        X = (latent * decay) @ rng.normal(size=(256, dim)) + 0.1 * rng.normal(size=(patients.size, dim))
        features.append(np.maximum(X, -0.3).astype(np.float32))
    return features, y, patients


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


Called = list[list[np.ndarray]]  # predicted classes of the test images by arm and cell


def compared(arms: list[Arm], ours: Called, theirs: Called, peer: str) -> dict[str, Any]:
    """Test balanced accuracy of both sides over the same cells; the mean difference, its standard error."""
    scores = {}
    for name, called in (("ours", ours), (peer, theirs)):
        scores[name] = np.array(
            [
                [balanced_accuracy(a.y[a.test], [c]) for c in cells]
                for a, cells in zip(arms, called, strict=True)
            ]
        )
    apart = scores["ours"] - scores[peer]  # (arms, cells)
    seeds = np.array([cell["seed"] for cell in arms[0].cells[: apart.shape[1]]])
    means = np.array([apart[:, seeds == seed].mean() for seed in np.unique(seeds)])
    error = float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None
    return {
        "cells": apart.size,
        **{name: round(float(values.mean()), 4) for name, values in scores.items()},
        "difference": round(float(apart.mean()), 4),
        "standard_error": None if error is None else round(error, 4),
        "seeds": len(means),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--features", type=Path, nargs="*", default=[], help="folders, one an arm")
    parser.add_argument("--arms", type=int, default=1, help="of made-up features")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--optuna-seeds", type=int, default=NUM_SEEDS, help="0: leave the search out")
    parser.add_argument("--optuna-arms", type=int, default=0, help="0: all of them")
    return parser.parse_args()


def read_arms(args: argparse.Namespace) -> list[Arm]:
    if args.features:
        parts = [
            [np.load(folder / f"{n}.npy") for n in ("features", "y", "patients")] for folder in args.features
        ]
    else:
        features, y, patients = make_features(0, args.dim, args.arms)
        parts = [[X, y, patients] for X in features]
    return [Arm(X, y, *draw(y, patients)) for X, y, patients in parts]


def main() -> None:
    from joblib import Parallel, delayed, parallel_config

    args = arguments()
    arms = read_arms(args)
    some = [
        Arm(a.X, a.y, [cell for cell in a.cells if cell["seed"] < args.optuna_seeds], a.test)
        for a in arms[: args.optuna_arms or None]
        if args.optuna_seeds
    ]
    times: dict[str, list[float]] = {"ours": [], "sklearn": [], "optuna": []}
    with parallel_config(backend="loky", n_jobs=2, inner_max_num_threads=1), Parallel() as pool:
        pool(delayed(warm)() for _ in range(8))

        def by_us() -> Called:
            if len(arms) > 1:
                return list(pool(delayed(ours)(a.X, a.y, a.cells, a.test) for a in arms))
            (a,) = arms
            halves = pool(delayed(ours)(a.X, a.y, a.cells[k::2], a.test) for k in (0, 1))
            return [[called for pair in zip(*halves, strict=True) for called in pair]]

        def peer(function: Callable[..., np.ndarray], which: list[Arm]) -> Called:
            calls = [(a, cell) for a in which for cell in a.cells]
            called = pool(delayed(function)(a.X, a.y, cell, a.test) for a, cell in reversed(calls))[::-1]
            num = len(which[0].cells)
            return [called[k * num : (k + 1) * num] for k in range(len(which))]

        for repeat in range(args.repeats):
            seconds, called = timed(by_us)
            times["ours"].append(seconds)
            seconds, by_cv = timed(lambda: peer(by_sklearn, arms))
            times["sklearn"].append(seconds)
            if not repeat and some:
                seconds, by_search = timed(lambda: peer(by_optuna, some))
                part = sum(len(a.cells) for a in some) / sum(len(a.cells) for a in arms)
                times["optuna"].append(seconds / part)
    ratios = np.array(times["sklearn"]) / np.array(times["ours"])
    line: dict[str, Any] = {
        "name": "probe_grid",
        "arms": len(arms),
        "probes": sum(len(a.cells) for a in arms) * len(STRENGTHS),
        "seconds": {side: round(float(np.median(values)), 2) for side, values in times.items() if values},
        "ratio": round(float(np.median(ratios)), 2),
        "spread": [round(float(ratios.min()), 2), round(float(ratios.max()), 2)],
        "test_balanced_accuracy": compared(arms, called, by_cv, "sklearn"),
        "peer": "LogisticRegressionCV, 2 processes",
    }
    if some:
        seeds = [cell["seed"] for cell in arms[0].cells]
        same = [
            [c for seed, c in zip(seeds, its, strict=True) if seed < args.optuna_seeds]
            for its in called[: len(some)]
        ]
        line["ratio_optuna"] = round(times["optuna"][0] / float(np.median(times["ours"])), 1)
        line["test_balanced_accuracy_optuna"] = compared(some, same, by_search, "optuna")
        if part < 1:
            line["extrapolated"] = f"optuna from {len(some)} of {len(arms)} arms, {args.optuna_seeds} seeds"
    print(json.dumps(line))


if __name__ == "__main__":
    main()
