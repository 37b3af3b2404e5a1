"""A study's results in the form that evaluate writes, made up: three networks, two tasks, three fractions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from compared_arms import cards_with_controls

ARCHITECTURES = ("timm:resnet18", "timm:resnet50", "critic")
NETWORKS = {"timm:resnet18": "resnet18", "timm:resnet50": "resnet50", "critic": "critic"}
OBJECTIVES = ("moco", "wgan_gp")
TASKS = ("kl >= 2", "joint_space & 5 %")
FRACTIONS = (0.01, 0.1, 1.0)
PATIENTS = {0.01: 23, 0.1: 231, 1.0: 2310}
SEEDS = (0, 1, 2)
GAINS = {0.01: 0.08, 0.1: 0.04, 1.0: 0.002}
NOT_ESTIMABLE = ("resnet50-moco", "finetune", 0.01)


def arms() -> list[dict[str, Any]]:
    rows = []
    for architecture in ARCHITECTURES:
        kinds = [("random", "none"), *(("pretrained", o) for o in OBJECTIVES)]
        if architecture == "timm:resnet18":
            kinds.insert(1, ("imagenet", "none"))
        for family, objective in kinds:
            tag = objective if family == "pretrained" else family
            pretrained = family == "pretrained"
            rows.append(
                {
                    "arm": f"{NETWORKS[architecture]}-{tag}", "architecture": architecture, "family": family,
                    "objective": objective, "images_seen": 200000 if pretrained else 0, "pretrain_seed": 0,
                    "num_patients_seen": 4100 if pretrained else 0,
                }
            )  # fmt: skip
    return rows


def level(arm: dict[str, Any], fraction: float, task: str, mode: str) -> float:
    value = 0.58 + 0.08 * FRACTIONS.index(fraction) + 0.02 * (task == TASKS[0]) + 0.015 * (mode == "finetune")
    weights = -0.6 if (task, mode) == (TASKS[1], "probe") else 0.6  # ImageNet weights harm once
    gain = {"none": 0.0, "moco": 1.0, "wgan_gp": 0.5}[arm["objective"]] + weights * (
        arm["family"] == "imagenet"
    )
    value += 0.01 * ARCHITECTURES.index(arm["architecture"])
    return round(value + gain * GAINS[fraction], 4)


def grid() -> list[tuple[str, str, dict[str, Any], float]]:
    return [(t, m, a, f) for t in TASKS for m in ("probe", "finetune") for a in arms() for f in FRACTIONS]


def metrics() -> dict[str, Any]:
    rows = []
    for task, mode, arm, fraction in grid():
        gone = (arm["arm"], mode, fraction) == NOT_ESTIMABLE
        for metric in ("balanced_accuracy", "auroc"):
            value = level(arm, fraction, task, mode) - 0.03 * (metric != "auroc")
            head = {"task": task, "arm": arm["arm"], "architecture": arm["architecture"],
                    "family": arm["family"], "mode": mode, "fraction": fraction, "cohort": "all",
                    "stratum": "all", "metric": metric, "num_images": 640, "num_patients": 402,
                    "num_events": 131}  # fmt: skip
            note = "no patient of class 1 in 4 of 4 draws" if gone else ""
            total = {"seed": "all", "pretrain_seed": "all", "value": None if gone else value,
                     "low": None if gone else round(value - 0.047, 4),
                     "high": None if gone else round(value + 0.045, 4),
                     "sd_seeds": None if gone else 0.0123, "num_seeds": 3, "note": note}  # fmt: skip
            rows.append({**head, **total})
            if metric == "auroc" and arm["arm"] == "resnet18-moco":
                rows.append({**head, **total, "cohort": "MOST", "num_images": 211})
            for seed in SEEDS:
                rows.append({**head, **total, "seed": seed, "pretrain_seed": 0, "low": None, "high": None,
                             "value": None if gone else round(value + 0.01 * (seed - 1), 4),
                             "sd_seeds": None, "num_seeds": 1})  # fmt: skip
    return {"level": 0.95, "alpha": 0.01, "num_resamples": 2000, "rows": rows}


def comparisons() -> dict[str, Any]:
    pairs, multipliers = [], []
    of = {(a["architecture"], a["family"]): a for a in arms() if a["family"] != "pretrained"}
    for task, mode, arm, fraction in grid():
        for family in ("random", "imagenet"):
            baseline = of.get((arm["architecture"], family))
            if baseline is None or arm["family"] in ("random", family):
                continue
            gone = (arm["arm"], mode, fraction) == NOT_ESTIMABLE
            gap = round(level(arm, fraction, task, mode) - level(baseline, fraction, task, mode), 4)
            if arm["arm"] == "critic-wgan_gp" and family == "random":
                gap = -gap
            low, high = round(gap - 0.021, 4), round(gap + 0.019, 4)
            claim = "better" if low > 0 else "worse" if high < 0 else "none"
            head = {"task": task, "mode": mode, "fraction": fraction, "metric": "auroc", "arm": arm["arm"],
                    "baseline": baseline["arm"]}  # fmt: skip
            pairs.append(
                {
                    **head, "baseline_family": family, "same_architecture": True,
                    "difference": None if gone else gap, "low": None if gone else low,
                    "high": None if gone else high, "num_patients": 402,
                    "p": None if gone else 0.0011 if claim != "none" else 0.41,
                    "p_holm": None if gone else 0.0044 if claim != "none" else 0.82,
                    "num_seeds": 3, "claim": "none" if gone else claim,
                }
            )  # fmt: skip
            if family == "random":
                multipliers.append(multiplier(head, gone))
    pairs_first = sorted(pairs, key=lambda p: p["task"] != TASKS[0])
    reason = "no ImageNet arm in this study"
    not_run = [
        {"family": "imagenet", "architecture": "timm:resnet50", "reason": reason},
        {"family": "imagenet", "architecture": "critic", "reason": "no weights of this architecture"},
    ]
    return {"pairs": pairs_first, "label_multipliers": multipliers, "not_run": not_run}


def multiplier(head: dict[str, Any], gone: bool) -> dict[str, Any]:
    if gone:
        return {**head, "value": None, "low": None, "high": None, "censored": "", "note": "no value"}
    if head["arm"] == "critic-wgan_gp":
        return {**head, "value": 0.45, "low": None, "high": 0.93, "censored": "", "note": ""}
    if head["fraction"] == 1.0:
        bounds = {"value": 1.0, "low": 0.8, "high": None, "censored": "above"}
        return {**head, **bounds, "note": "beyond the baseline's curve"}
    if head["fraction"] == 0.1:
        return {**head, "value": 10.0, "low": 2.4, "high": None, "censored": "above", "note": ""}
    return {**head, "value": 3.21, "low": 1.84, "high": 9.4, "censored": "", "note": ""}


def curves() -> dict[str, Any]:
    roc, reliability, learning = [], [], []
    fpr = np.linspace(0, 1, 21)
    for task, mode, arm, fraction in grid():
        if (arm["arm"], mode, fraction) == NOT_ESTIMABLE:
            continue
        head = {"task": task, "arm": arm["arm"], "mode": mode}
        power = 1 / (2.2 * level(arm, fraction, task, mode)) ** 3
        tpr = fpr**power
        low, high = np.clip(tpr - 0.06, 0, 1), np.clip(tpr + 0.06, 0, 1)
        roc.append({**head, "fraction": fraction, "class": "1", "fpr": fpr.round(4).tolist(),
                    "tpr": tpr.round(4).tolist(), "low": low.round(4).tolist(),
                    "high": high.round(4).tolist()})  # fmt: skip
        bins = [
            {"predicted": x, "observed": round(0.1 + 0.8 * x, 3), "low": round(0.8 * x, 3),
             "high": round(min(1.0, 0.2 + 0.8 * x), 3), "num_images": 64}
            for x in (0.1, 0.3, 0.5, 0.7, 0.9)
        ]  # fmt: skip
        bins.append({"predicted": None, "observed": None, "low": None, "high": None, "num_images": 0})
        reliability.append({**head, "fraction": fraction, "bins": bins})
    for task, mode in {(t, m): None for t, m, _, _ in grid()}:
        for arm in arms():
            points = []
            for fraction in FRACTIONS:
                value = level(arm, fraction, task, mode)
                gone = (arm["arm"], mode, fraction) == NOT_ESTIMABLE
                points.append({"fraction": fraction, "num_patients": PATIENTS[fraction],
                               "value": None if gone else value, "low": None if gone else value - 0.047,
                               "high": None if gone else value + 0.045,
                               "seeds": [] if gone else [value - 0.02, value, value + 0.025]})  # fmt: skip
            learning.append(
                {"task": task, "arm": arm["arm"], "mode": mode, "metric": "auroc", "points": points}
            )
    return {"roc": roc, "reliability": reliability, "learning": learning}


def flow() -> dict[str, Any]:
    def part(n: int) -> dict[str, Any]:
        return {"images": n * 2, "patients": n, "per_class": {"0": n, "1": n}}

    parts = {"train": part(2310), "val": part(577), "test": part(402)}
    exclusions = {"label missing": 321, "not eligible: side == 'L'": 88}
    tasks = {
        t: {"kind": "binary", "classes": ["0", "1"], "exclusions": exclusions, "parts": parts} for t in TASKS
    }
    subsets = [
        {"task": t, "fraction": f, "seed": s, "num_train_images": 2 * PATIENTS[f] - s,
         "num_train_patients": PATIENTS[f] - (s == 2 and f == 0.1), "num_val_images": PATIENTS[f] // 2,
         "num_val_patients": PATIENTS[f] // 4}
        for t in TASKS for f in FRACTIONS for s in SEEDS
    ]  # fmt: skip
    return {"tasks": tasks, "subsets": subsets, "arms": cards_with_controls(arms())}


FILES = {"metrics.json": metrics, "comparisons.json": comparisons, "curves.json": curves, "flow.json": flow}


def write_results(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, make in FILES.items():
        (folder / name).write_text(json.dumps(make()))
    return folder


def write_manifest(folder: Path) -> Path:
    folder.mkdir(parents=True)
    lines = [
        f"img-{i:03d},SECRETPATIENT{i // 2:03d},films/SECRETPATIENT{i // 2:03d}_{i}.png" for i in range(60)
    ]
    (folder / "manifest.csv").write_text("image_id,patient_id,path\n" + "\n".join(lines) + "\n")
    return folder / "manifest.csv"


def write_run(folder: Path, verb: str, seed: int) -> Path:
    folder.mkdir(parents=True)
    config = {"verb": verb, "settings": {"arm": "resnet18-moco", "seed": seed, "where": "/home/ann/SECRET/x"},
              "inputs": {"store": ["ab" * 32]}, "threads": 1, "id": f"{seed:02d}" * 32}  # fmt: skip
    machine = {"trabecula": "0.1.0", "python": "3.12.1", "platform": "Linux", "cpus": 8,
               "packages": {"torch": "2.9.0"}, "inputs": {"store": ["/home/ann/SECRET/store"]}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "provenance.json").write_text(json.dumps(machine))
    (folder / "DONE").write_text("done")
    return folder


def write_store(folder: Path) -> Path:
    """Thirty images of 8 pixels, bits 8, and three rejected files."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(1).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8)
    np.save(folder / "images-00000.npy", images)
    names = [f"img-{29 - i:03d},SECRETPATIENT{i:03d}" for i in range(30)]
    (folder / "index.csv").write_text("image_id,patient_id\n" + "\n".join(names) + "\n")
    shard = {"file": "images-00000.npy", "num_images": 30, "sha256": hashlib.sha256(images.data).hexdigest()}
    record = {"format": 1, "size": 8, "channels": 1, "bits": 8, "preprocessing": "ab", "num_images": 30,
              "num_rejected": 3, "shards": [shard]}  # fmt: skip
    (folder / "store.json").write_text(json.dumps(record))
    bad = ["films/SECRET1.png,damaged file: films/SECRET1.png", "films/SECRET2.png,damaged file: SECRET2.png",
           "films/SECRET3.png,3 pixels wide"]  # fmt: skip
    (folder / "rejected.csv").write_text("path,reason\n" + "\n".join(bad) + "\n")
    return folder
