"""A hospital's splits and two random encoders, and searches on them of a few seconds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd

from trabecula import pretrain, search, split
from trabecula.artifacts.splits import read_splits
from trabecula.run import execute

QUICK = {"images": 64, "every": 16, "batch_size": 8, "precision": "float32"}


def start(hospital: Path, root: Path) -> Path:
    """Folders split, encoder0 and encoder1 in `root`."""
    parts = split.Config(manifest=hospital / "cohort", task="kl", train=0.5, val=0.25, test=0.25)
    execute("split", parts, root / "split")
    for seed in (0, 1):
        made = pretrain.Config(store=hospital / "store", architecture="critic", seed=seed)
        execute("pretrain", made, root / f"encoder{seed}")
    return root


def config(hospital: Path, root: Path, **settings: Any) -> search.Config:
    values = {
        "encoder": root / "encoder0", "store": hospital / "store", "manifest": hospital / "cohort",
        "splits": root / "split", "task": "kl >= 1", "trials": 4, "settings": QUICK,
        "space": {"optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "patience": [1, 2]},
    }  # fmt: skip
    return search.Config(**{**values, **settings})


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def artifacts(folder: Path) -> dict[str, bytes]:
    left_out = {"log.jsonl", "provenance.json", ".lock"}
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in left_out}


def labelled(hospital: Path) -> pd.DataFrame:
    """The hospital's manifest, to be changed and written elsewhere."""
    table = pd.read_csv(hospital / "cohort" / "manifest.csv", dtype=str, keep_default_na=False)
    table["path"] = [str((hospital / "cohort" / path).resolve()) for path in table["path"]]
    return table


def written(table: pd.DataFrame, out: Path) -> Path:
    """The folder of a manifest."""
    out.mkdir()
    table.to_csv(out / "manifest.csv", index=False)
    return out


def of_part(table: pd.DataFrame, root: Path, part: str) -> pd.Series:
    """Which rows are of patients of a part."""
    return table["patient_id"].isin(read_splits(root / "split").patients(part))
