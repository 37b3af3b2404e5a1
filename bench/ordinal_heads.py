"""Would an ordinal head or the mean grade be better than the most probable grade of a multinomial probe?

    python bench/ordinal_heads.py runs/probes --arm squeezenet1_0-imagenet

On features and few-label subsets of a finished study, for each label seed: the multinomial probe of `probe`
and a cumulative link (one direction v, K - 1 rising thresholds, P(y > k) = sigmoid(v x - t_k); McCullagh
1980), both with classes weighing alike and the penalty |v|^2 / (2 C), C by the smallest validation log-loss:
of the 50 strengths of `probe`, or of 11 from 1e-5 to 1.
Each decides by its most probable grade or by its rounded mean grade. Scored on validation patients that
chose nothing; no test patient is read. Prints a table (Markdown): mean (SD over seeds).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from embedded_study import read_arm
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score
from torch import Tensor

from trabecula.artifacts.splits import draw_subset
from trabecula.artifacts.tasks import Task
from trabecula.transfer.few_labels import balanced_weights
from trabecula.transfer.linear_probe import ProbeData, ProbeSettings, fit_probes
from trabecula.transfer.logistic import standardisation

STRENGTHS = np.geomspace(1e-5, 1, 11)  # weaker penalties are never chosen here


def multinomial(data: ProbeData, task: Task, new: Tensor) -> np.ndarray:
    """(m, K) probabilities of new images."""
    (probe,) = fit_probes(ProbeSettings(), task, [data])
    return probe.probabilities(new)


def cumulative_link(data: ProbeData, task: Task, new: Tensor) -> np.ndarray:
    """(m, K) probabilities of new images, at the strength of the smallest validation log-loss."""
    mean, std = standardisation(data.train)
    x, x_val, x_new = ((part - mean) / std for part in (data.train, data.val, new))
    y, weights = (
        torch.from_numpy(data.y),
        torch.from_numpy(balanced_weights(data.y, task.num_outputs))[data.y],
    )
    of_val = (1 / np.bincount(data.y_val, minlength=task.num_outputs).clip(1))[data.y_val]
    best, chosen = -np.inf, np.zeros(0)
    for strength in STRENGTHS:
        direction = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
        steps = torch.zeros(task.num_outputs - 1, dtype=torch.float64, requires_grad=True)

        def log_p(features: Tensor, direction: Tensor = direction, steps: Tensor = steps) -> Tensor:
            thresholds = torch.cat([steps[:1], steps[:1] + F.softplus(steps[1:]).cumsum(0)])
            above = torch.sigmoid((features @ direction)[:, None] - thresholds)
            return (F.pad(above, (1, 0), value=1.0) - F.pad(above, (0, 1))).clamp_min(1e-12).log()

        optimizer = torch.optim.LBFGS(
            [direction, steps], max_iter=200, history_size=20, line_search_fn="strong_wolfe"
        )

        def closure(strength=strength, direction=direction, optimizer=optimizer, log_p=log_p) -> Tensor:
            optimizer.zero_grad()
            loss = F.nll_loss(log_p(x) * weights[:, None], y, reduction="sum")
            loss = loss + direction.square().sum() / (2 * strength)
            loss.backward()
            return loss

        optimizer.step(closure)
        with torch.no_grad():
            found = log_p(x_val).numpy()[np.arange(len(data.y_val)), data.y_val]
            score = float((found * of_val).sum() / of_val.sum())
            if score > best:
                best, chosen = score, log_p(x_new).exp().numpy()
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--arm", default="squeezenet1_0-imagenet")
    parser.add_argument("--task", default="kl")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.01, 0.05, 0.1])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    arm = read_arm(options.study, options.arm, options.task)
    x, y, val = torch.from_numpy(arm.x), arm.labelled.y, arm.rows("val")
    found = defaultdict[tuple[str, str], list[list[float]]](list)
    for fraction in options.fractions:
        for seed in range(options.seeds):
            subset = draw_subset(arm.splits, arm.labelled, fraction, seed)
            rest = np.setdiff1d(val, subset.val)
            data = ProbeData(x[subset.train], y[subset.train], x[subset.val], y[subset.val])
            for name, fit in (("multinomial", multinomial), ("cumulative link", cumulative_link)):
                p = fit(data, arm.task, x[rest])
                for rule, called in (
                    ("most probable grade", p.argmax(1)),
                    ("rounded mean grade", np.rint(p @ np.arange(p.shape[1])).astype(int)),
                ):
                    scores = (
                        balanced_accuracy_score(y[rest], called),
                        cohen_kappa_score(y[rest], called, weights="quadratic"),
                    )
                    found[f"{name}, {rule}", f"{fraction:g}"].append(list(scores))
    print("| head and decision | fraction | balanced accuracy | quadratic kappa |\n|---|---|---|---|")
    for (how, fraction), rows in found.items():
        means, sd = np.mean(rows, 0), np.std(rows, 0, ddof=1)
        cells = " | ".join(f"{m:.3f} ({s:.3f})" for m, s in zip(means, sd, strict=True))
        print(f"| {how} | {fraction} | {cells} |")


if __name__ == "__main__":
    main()
