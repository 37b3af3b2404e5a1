"""Results of a small study in the form that evaluate writes, made up: one network, arms as they are named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compared_arms import cards_with_controls

ARMS: dict[str, dict[str, Any]] = {
    "critic-random": {"family": "random", "objective": "none", "images_seen": 0, "num_patients_seen": 0},
    "critic-random-augmented": {
        "family": "random", "objective": "none", "images_seen": 0, "num_patients_seen": 0,
    },
    "critic-wgan_gp": {"num_patients_seen": 600},
    "critic-wgan_gp-labelled": {"num_patients_seen": 240, "pool_cohorts": ["check-like"]},
    "critic-wgan_gp-pool10": {"num_patients_seen": 60, "pool_fraction": 0.1},
}  # fmt: skip
_PRETRAINED = {
    "family": "pretrained", "objective": "wgan_gp", "images_seen": 6400, "pool_fraction": 1.0,
    "pool_cohorts": [], "architecture": "critic", "pretrain_seed": 0,
}  # fmt: skip


def card(arm: str) -> dict[str, Any]:
    return {**_PRETRAINED, **ARMS[arm], "arm": arm}


def score(arm: str, value: float, low: float | None, high: float | None, **other: Any) -> dict[str, Any]:
    """A row of metrics.json over three seeds."""
    row = {
        "task": "kl2", "arm": arm, "architecture": "critic", "family": card(arm)["family"],
        "mode": "finetune", "fraction": 0.25, "cohort": "all", "stratum": "all", "metric": "auroc",
        "num_images": 600, "num_patients": 300, "num_events": 250, "seed": "all", "pretrain_seed": "all",
        "value": value, "low": low, "high": high, "sd_seeds": 0.01, "num_seeds": 3, "note": "",
    }  # fmt: skip
    return row | other


def pair(arm: str, baseline: str, difference: float, claim: str, **other: Any) -> dict[str, Any]:
    """A row of comparisons.json, its interval 0.02 to either side."""
    row = {
        "task": "kl2", "mode": "finetune", "fraction": 0.25, "metric": "auroc", "arm": arm,
        "baseline": baseline, "baseline_family": card(baseline)["family"], "same_architecture": True,
        "difference": difference, "low": difference - 0.02, "high": difference + 0.02,
        "p": 0.0004 if claim != "none" else 0.4, "p_holm": 0.0008 if claim != "none" else 0.8,
        "num_patients": 300, "num_seeds": 3, "claim": claim, "note": "",
    }  # fmt: skip
    return row | other


def write_study(
    folder: Path,
    scores: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]] = (),
    pools: Sequence[Mapping[str, Any]] = (),
    classes: Sequence[str] = ("0", "1"),
) -> Path:
    folder.mkdir(parents=True)
    parts = {
        name: {"images": 2 * n, "patients": n, "per_class": {"0": n, "1": n}}
        for name, n in (("train", 240), ("val", 60), ("test", 300))
    }
    task = {"kind": "binary", "classes": list(classes), "exclusions": {}, "parts": parts}
    tasks = {row["task"]: task for row in scores}
    subsets = [
        {"task": name, "fraction": fraction, "seed": seed, "num_train_images": 120,
         "num_train_patients": round(240 * fraction), "num_val_images": 30, "num_val_patients": 15}
        for name in tasks for fraction in sorted({row["fraction"] for row in scores}) for seed in range(3)
    ]  # fmt: skip
    files: dict[str, dict[str, Any]] = {
        "metrics.json": {"level": 0.95, "alpha": 0.01, "num_resamples": 2000, "rows": list(scores)},
        "comparisons.json": {
            "pairs": list(pairs), "label_multipliers": [], "not_run": [], "pools": list(pools),
        },
        "curves.json": {"roc": [], "reliability": [], "learning": []},
        "flow.json": {
            "tasks": tasks, "subsets": subsets,
            "arms": cards_with_controls([card(arm) for arm in dict.fromkeys(row["arm"] for row in scores)]),
        },
    }  # fmt: skip
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    return folder
