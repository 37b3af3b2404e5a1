"""What fidelity, explain and search write, made up, for the tests of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def fidelity_record() -> dict[str, Any]:
    points = []
    for step, (train, val) in enumerate(((60.0, 62.0), (40.0, 45.0), (30.0, 38.0)), 1):
        for name, value in (("train", train), ("val", val)):
            base = {"images": 4000 * step, "set": name, "num_fakes": 200, "num_reals": 200}
            points.append({**base, "metric": "fd", "value": value, "low": value - 2, "high": value + 2})
            points.append({**base, "metric": "recall", "value": step / 10, "low": None, "high": None})
    last = {
        "images": 12000,
        "num_fakes": 200,
        "num_reals": 200,
        "low": None,
        "high": None,
        "metric": "fd",
    }
    points.append({**last, "set": "test", "value": 37.0})
    points.append({**last, "images": None, "set": "floor", "value": 9.0})
    points.append({**last, "images": None, "set": "floor_test", "value": 9.5})
    critic = [
        {"images": 4000 * k, "train": 2.0 * k, "val": 1.5 * k, "fake": -3.0, "gap": 0.5 * k,
         "relative_gap": 0.5 * k / (2.0 * k + 3)}
        for k in (1, 2, 3)
    ]  # fmt: skip
    return {
        "extractor": "random_conv", "protocol": {"resize": "none", "dtype": "float64", "weights": "a" * 64,
                     "frechet": "FD[random_conv]", "kernel": "KD[random_conv]"},
        "points": points, "critic": critic,
        "memorisation": {
            "authenticity": {"value": 0.91, "low": 0.8, "high": 0.95}, "finding": "no sign of copying",
            "nearest_pairs": [{"image_id": "SECRET"}],
        },
    }  # fmt: skip


def write_fidelity(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "fidelity.json").write_text(json.dumps(fidelity_record()))
    return folder


def explain_record() -> dict[str, Any]:
    real = {
        "num": 10,
        "mean": 0.0,
        "sd": 1.0,
        "quantiles": {"0": -2, "0.05": -1, "0.5": 0, "0.95": 1, "1": 2},
    }
    start = {"first": -1.0, "score": 9.0, "step": 2, "above_real": 100.0, "climb": [-1.0, 4.0, 9.0]}
    row = {
        "num_units": 8, "num_constant": 0, "p": 0.04, "num_above_paper": 1, "num_significant": 1,
        "quantiles": {"0.05": 0.01, "0.25": 0.04, "0.5": 0.08, "0.75": 0.1, "0.95": 0.15}, "null_95": 0.25,
    }  # fmt: skip
    at = {"channel": 1}
    rows = [
        {**row, "layer": "act3", "unit": "channel", "grid": [4, 4], "largest": -0.31, "at": at},
        {**row, "layer": "act3", "unit": "cell", "grid": [4, 4], "largest": 0.4, "at": at},
        {**row, "layer": "score", "unit": "channel", "grid": [1, 1], "largest": 0.1, "at": at},
        {
            **row,
            "layer": "dead",
            "unit": "channel",
            "grid": [1, 1],
            "largest": None,
            "at": None,
            "quantiles": {},
        },
    ]
    return {
        "maximise": {"arm": "critic-wgan_gp", "images_seen": 12000, "steps": 2, "rate": 0.1,
                     "real": {"train": real, "val": real}, "starts": [start, {**start, "score": 8.0}]},
        "units": {"arm": "critic-wgan_gp", "images_seen": 12000, "task": "kl2", "num_images": 12,
                  "num_patients": 6, "permutations": 99, "paper": 0.2, "rows": rows},
    }  # fmt: skip


def write_explained(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "explain.json").write_text(json.dumps(explain_record()))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "maximise.png")
    return folder


HEAD = [
    {"width": 64, "nonlinearity": "tanh", "batch_norm": True, "dropout": 0.0},
    {"width": 128, "nonlinearity": "none", "batch_norm": False, "dropout": 0.2},
]


def write_chosen(folder: Path, **values: Any) -> None:
    """chosen.json of a search with these values; the others are made up."""
    others = {
        "by": "metric", "trial": 0, "loss": 0.5, "metric": 0.7, "task": "kl2", "seed": 1000,
        "pretrain_seed": 0,
        "num_val_patients": 6, "num_pruned": 0, "num_diverged": 0, "images": 100, "patients": [],
        "patients_key": "00000000",
    }  # fmt: skip
    (folder / "chosen.json").write_text(json.dumps({**others, **values}))


def write_search(folder: Path, arm: str, metrics: tuple[float, ...]) -> Path:
    """A search of as many heads as there are metrics, the first of which was chosen."""
    folder.mkdir(parents=True)
    write_chosen(folder, arm=arm, fraction=0.1, settings={"head": HEAD}, num_trials=len(metrics))
    lines = ["trial,state,loss,metric,images_seen,images_spent,note,head"]
    for k, metric in enumerate(metrics):
        head = json.dumps([{**HEAD[0], "width": 16 << k}, HEAD[1]][: 1 + k % 2]).replace('"', '""')
        lines.append(f'{k},complete,0.5,{metric},10,20,,"{head}"')
    (folder / "trials.csv").write_text("\n".join(lines) + "\n")
    return folder
