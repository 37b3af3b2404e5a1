"""Predictions of many arms, read and set against the truth.

    predictions.csv     image_id, task, cohort, arm, mode, fraction, seed, pretrain_seed, split, p_<class> ...
    choices.csv         what each arm and seed chose on validation, and how many labels it had

Predictions hold no labels: the truth is joined from the manifest here.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trabecula.artifacts.predictions import PLATEAU
from trabecula.errors import InputError
from trabecula.metrics.seeds import Unit

Array = NDArray[Any]
Floats = NDArray[np.float64]

FILE, CHOICES = "predictions.csv", "choices.csv"
ARM = ["task", "arm", "mode", "fraction"]
RUN = [*ARM, "pretrain_seed", "seed"]
_TEXT = ("image_id", "task", "cohort", "arm", "mode", "split")
COUNTS = ("num_train_images", "num_train_patients", "num_val_images", "num_val_patients")


@dataclass(frozen=True)
class Group:
    """One arm under one mode and fraction.

    `p`: (S, n, K) probabilities of the seeds in `units`, images in the truth's order.
    `thresholds`: (S,), NaN where none was chosen. `train_patients`: (S,), NaN where not known.
    """

    arm: str
    mode: str
    fraction: float
    units: tuple[Unit, ...]
    p: Floats
    thresholds: Floats
    train_patients: Floats


def read_predictions(folders: Sequence[Path]) -> pd.DataFrame:
    """All predictions, typed, p_ columns of other tasks NaN.

    Raises:
        InputError: a missing file or column, a value that is no number, a prediction made twice.
    """
    tables = [_read(folder, FILE, (*_TEXT, "fraction", "seed", "pretrain_seed")) for folder in folders]
    if not tables:
        raise InputError("no predictions are given; name folders that probe, finetune or predict wrote")
    table = pd.concat(tables, ignore_index=True)
    wrong = table.loc[~table["split"].isin(["val", "test"]), "split"]
    if len(wrong):
        raise InputError(f"{FILE}: split '{wrong.iloc[0]}' is neither val nor test")
    twice = table.duplicated([*RUN, "split", "image_id"])
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"{FILE}: {int(twice.sum())} predictions are made twice, the first of image "
            f"'{row['image_id']}' by arm '{row['arm']}' ({row['mode']}, fraction {row['fraction']:g}, "
            f"seed {row['seed']}); name each folder once; models of other pretraining seeds need "
            "another pretrain_seed, other ways of fine-tuning a variant"
        )
    return table


def read_choices(folders: Sequence[Path]) -> pd.DataFrame:
    """All choices, typed; `threshold` stays text.

    Raises:
        InputError: a missing file or column, a value that is no number, two choices for one run.
    """
    needed = ("task", "arm", "mode", "fraction", "seed", "pretrain_seed", "threshold", *COUNTS)
    table = pd.concat([_read(folder, CHOICES, needed) for folder in folders], ignore_index=True)
    table = table.drop_duplicates([*RUN, "threshold", *COUNTS])
    twice = table.duplicated(RUN)
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"{CHOICES}: two choices for arm '{row['arm']}', task '{row['task']}', fraction "
            f"{row['fraction']:g}, seed {row['seed']}; give only the folders of one study"
        )
    return table.sort_values(RUN, kind="stable", ignore_index=True)


def plateaus(choices: pd.DataFrame) -> list[dict[str, Any]]:
    """How many fine-tunings of each arm never left the plateau: task, arm, mode, fraction, two counts."""
    if "note" not in choices:
        return []
    tuned = choices[choices["mode"].str.startswith("finetune")]
    stuck = tuned["note"].astype(str).str.contains(PLATEAU, regex=False)
    return [
        {
            "task": task, "arm": arm, "mode": mode, "fraction": float(fraction), "num_runs": len(runs),
            "num_plateau": int(runs["stuck"].sum()),
        }
        for (task, arm, mode, fraction), runs in _grouped(tuned.assign(stuck=stuck), ARM)
    ]  # fmt: skip


def choice_rows(folder: Path) -> list[dict[str, str]]:
    """One folder's choices.csv as text, whichever columns it has; [] where there is no such file."""
    if not (folder / CHOICES).exists():
        return []
    with (folder / CHOICES).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read(folder: Path, name: str, needed: Sequence[str]) -> pd.DataFrame:
    path = folder / name if folder.is_dir() else folder.parent / name
    try:
        header = pd.read_csv(path, nrows=0).columns
        absent = [column for column in needed if column not in header]
        if absent:
            raise InputError(f"{path}: no column '{absent[0]}'")
        numeric = {c: "float64" for c in header if c.startswith("p_") or c == "fraction" or c in COUNTS}
        text = {c: "str" for c in header if c not in numeric}
        table = pd.read_csv(
            path, dtype={**text, **numeric}, keep_default_na=False, na_values={c: [""] for c in numeric}
        )
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; name a folder that probe, finetune or predict wrote"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    for column in ("seed", "pretrain_seed"):
        try:  # an arm without pretraining has no pretraining seed: 0
            table[column] = table[column].replace("", "0").astype("int64")
        except ValueError:
            raise InputError(f"{path}: column '{column}' must hold whole numbers") from None
    return table


def groups(
    predictions: pd.DataFrame, choices: pd.DataFrame, task: str, image_ids: Array, class_names: Sequence[str]
) -> Iterator[Group]:
    """Every arm, mode and fraction of a task, with its seeds, on these test images.

    Args:
        image_ids: (n,) the test images that carry a label; predictions of others are left aside.
    Raises:
        InputError: a class without its column, test images without a prediction (with how many), a
            probability that is none.
    """
    part = predictions[(predictions["task"] == task) & (predictions["split"] == "test")]
    columns = probability_columns(part, task, class_names)
    made = {tuple(row[name] for name in RUN): row for row in choices.to_dict("records")}
    index = pd.Index(image_ids)
    for (arm, mode, fraction), rows in _grouped(part, ARM[1:]):
        units, tables, thresholds, patients = [], [], [], []
        for (pretrain_seed, seed), one in _grouped(rows, ["pretrain_seed", "seed"]):
            where = f"arm '{arm}', task '{task}' ({mode}, fraction {fraction:g}, seed {seed})"
            choice = made.get((task, arm, mode, fraction, pretrain_seed, seed), {})
            units.append((int(pretrain_seed), int(seed)))
            tables.append(probabilities(one, columns, index, where))
            thresholds.append(_threshold(choice.get("threshold", "")))
            patients.append(choice.get("num_train_patients", np.nan))
        yield Group(
            arm,
            mode,
            float(fraction),
            tuple(units),
            np.stack(tables),
            np.array(thresholds),
            np.array(patients),
        )


def _grouped(table: pd.DataFrame, columns: list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Groups in the order of their keys."""
    yield from table.groupby(columns, sort=True)


def probability_columns(predictions: pd.DataFrame, task: str, class_names: Sequence[str]) -> list[str]:
    """The p_ columns of a task's classes.

    Raises:
        InputError: a class has none.
    """
    columns = [f"p_{name}" for name in class_names]
    absent = [c for c in columns if c not in predictions.columns]
    if absent:
        raise InputError(
            f"{FILE}: task '{task}' has no column '{absent[0]}' (classes: {', '.join(class_names)})"
        )
    return columns


def probabilities(rows: pd.DataFrame, columns: list[str], index: pd.Index, where: str) -> Floats:
    """(n, K) of the images in `index`; `where` names the model in what is raised.

    Raises:
        InputError: an image without a prediction (with how many), a probability that is none.
    """
    position = pd.Index(rows["image_id"]).get_indexer(index)
    missing = position < 0
    if missing.any():
        raise InputError(
            f"{where}: {int(missing.sum())} of {len(index)} test images have no prediction, the first "
            f"is '{index[int(np.argmax(missing))]}'; predict them, or take them out of the task by its "
            "'eligible' rule"
        )
    p: Floats = rows[columns].to_numpy(np.float64)[position]
    bad = ~((p >= -1e-6) & (p <= 1 + 1e-6)).all(axis=1)
    if bad.any():
        raise InputError(
            f"{where}: {int(bad.sum())} predictions are not probabilities, the first is of image "
            f"'{index[int(np.argmax(bad))]}'; was the training diverging?"
        )
    return p


def _threshold(text: str) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:  # one for each label of a multilabel task
        return float("nan")
