"""Predictions and the choices behind them: two tables that probe, finetune and predict write alike.

    predictions.csv   image_id, task, cohort, arm, mode, fraction, seed, pretrain_seed, split, p_<class>...
    choices.csv       task, arm, mode, fraction, seed, pretrain_seed, threshold, strength, images_seen,
                      counts of the few-label parts, class_frequencies, note

No labels: `evaluate` joins the truth from the manifest.
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

from trabecula.artifacts.label_budget import fewest_first, labels_used
from trabecula.artifacts.manifest import Manifest
from trabecula.artifacts.results import TuningCount
from trabecula.config import Record
from trabecula.errors import InputError
from trabecula.files import write_atomically

Floats = NDArray[np.float64]
Names = Sequence[str] | NDArray[np.str_]

PREDICTIONS, CHOICES = "predictions.csv", "choices.csv"
ARM = ["task", "arm", "mode", "fraction"]  # columns that name an arm in one mode with one share of the labels
RUN = [*ARM, "pretrain_seed", "seed"]  # columns that name one trained model
COUNTS = ("num_train_images", "num_train_patients", "num_val_images", "num_val_patients")
_TEXT = ("image_id", "task", "cohort", "arm", "mode", "split")

PLATEAU = "stayed at chance"
"""The note of a fine-tuning whose training loss stayed at that of the class frequencies."""
BELOW_PROBE = "worse on validation than a linear probe of its start"
"""The note of a fine-tuning that its own start's probe beats by more than noise."""
KEPT_PROBE = "no checkpoint was better on validation than the probe it started from"
"""The note of a fine-tuning that comes out as its start: a linear probe."""
BEST_AT_END = "best on validation at the end of its budget"
"""The note of a fine-tuning whose best checkpoint of several is its last: a larger budget may be better."""
_OLD_PLATEAU = "never left the plateau"  # the note of earlier versions


def snapshot_name(arm: str, images: int) -> str:
    """The arm of an encoder as it was after so many images of pretraining."""
    return f"{arm}@{images}"


def snapshot_of(arm: str) -> tuple[str, int] | None:
    """(arm, images) of a snapshot's arm; None for the arm of a finished pretraining."""
    whole, sign, images = arm.rpartition("@")
    return (whole, int(images)) if sign and whole and images.isdecimal() else None


_CORNERS = "corners "


def region_name(region: str, corner: float) -> str:
    """ "corners 0.25", what an encoder was shown of each image: features.json's `region`."""
    return f"{_CORNERS}{corner:g}" if region == "corners" else region


def probe_mode(region: str) -> str:
    """The mode of a probe of an encoder that was shown this region."""
    return "probe" if region == "all" else f"probe:{region}"


def corner_of(mode: str) -> str | None:
    """Side of each corner, as a fraction of the image's, of probes of the corners alone; None of others."""
    side = mode.removeprefix(probe_mode(_CORNERS))
    return side if side != mode else None


class Origin(Record):
    """Where a prediction comes from: the key of a row in every later table."""

    task: str
    arm: str
    mode: str
    """"probe" or "finetune"; "finetune:NAME" for a named way of fine-tuning, "probe:corners 0.25" where the
    encoder was shown the corners alone."""
    fraction: float  # part of the labels that was used, or -k for k patients per class: `label_budget`
    seed: int  # of the few-label subset and the training on it
    pretrain_seed: int  # of the encoder


class Choice(Record):
    """What was chosen on the few-label validation part, and the labelled images and patients of both."""

    threshold: tuple[float, ...] = ()  # above it an image is positive: one, or one a label of several
    strength: float | None = None  # a probe's inverse regularisation C
    images_seen: int | None = None  # fine-tuning: images seen at the chosen checkpoint
    num_train_images: int
    num_train_patients: int
    num_val_images: int
    num_val_patients: int
    class_frequencies: tuple[float, ...] = ()
    """Where the loss weighed all classes alike: how often each is among the training images. Probabilities
    times these, divided by their sum, are those of the images as they come."""
    note: str = ""  # what could not be done as asked


def prediction_rows(
    origin: Origin, image_ids: Names, cohorts: Names, split: str, p: NDArray[Any], class_names: Sequence[str]
) -> pd.DataFrame:
    """One row an image. p: (n, K) probabilities, a column a class."""
    key = origin.model_dump()
    frame = pd.DataFrame({"image_id": image_ids, "task": key.pop("task"), "cohort": cohorts, **key})
    frame["split"] = split
    for column, name in enumerate(class_names):
        frame[f"p_{name}"] = p[:, column].astype(np.float64)
    return frame


def cohorts_of(manifest: Manifest, rows: NDArray[np.integer[Any]]) -> NDArray[np.str_]:
    """(n,) cohort of each manifest row; "" where the manifest names none."""
    table = manifest.table
    cohorts = table["cohort"].to_numpy()[rows] if "cohort" in table else [""] * len(rows)
    return np.array(cohorts, dtype=str)


def write_predictions(
    folder: Path, frames: Sequence[pd.DataFrame], choices: Sequence[tuple[Origin, Choice]]
) -> None:
    """Write both tables; the same values give the same bytes."""
    rows = []
    for origin, choice in choices:
        texts = {name: _numbers_text(getattr(choice, name)) for name in ("threshold", "class_frequencies")}
        rows.append({**origin.model_dump(), **choice.model_dump(), **texts})
    for name, table in ((PREDICTIONS, pd.concat(frames, ignore_index=True)), (CHOICES, pd.DataFrame(rows))):
        text = table.to_csv(index=False, float_format="%.8g", lineterminator="\n")
        write_atomically(folder / name, text)


@dataclass(frozen=True)
class ArmPredictions:
    """One arm under one mode and fraction.

    `p`: (S, n, K) probabilities of the seeds in `units`, images in the truth's order.
    `thresholds`: (S,), NaN where none was chosen. `train_patients`: (S,), NaN where not known.
    `frequencies`: (S, K) of the classes in training where the loss weighed them alike, else NaN.
    """

    arm: str
    mode: str
    fraction: float
    units: tuple[tuple[int, int], ...]
    p: Floats
    thresholds: Floats
    train_patients: Floats
    frequencies: Floats

    @property
    def calibrated(self) -> Floats:
        """(S, n, K) probabilities of the images as they come: Bayes' rule with the class frequencies.

        Source: Saerens, Latinne and Decaestecker, Neural Computation 2002; 14: 21-41, equation 2.4.
        """
        corrected = self.p * self.frequencies[:, None]
        total = corrected.sum(2, keepdims=True)  # NaN, or 0 where only absent classes have a probability
        return np.where(total > 0, corrected / np.where(total > 0, total, 1.0), self.p)


def read_predictions(folders: Sequence[Path], others: Sequence[pd.DataFrame] = ()) -> pd.DataFrame:
    """All predictions, typed, p_ columns of other tasks NaN; a prediction made twice is refused.

    `others`: of other tools, as `read_imported` gives them.
    """
    tables = [_read(folder, PREDICTIONS, (*_TEXT, "fraction", "seed", "pretrain_seed")) for folder in folders]
    tables += others
    if not tables:
        raise InputError("no predictions are given; name folders that probe, finetune or predict wrote")
    table = pd.concat(tables, ignore_index=True)
    wrong = table.loc[~table["split"].isin(["val", "test"]), "split"]
    if len(wrong):
        raise InputError(f"{PREDICTIONS}: split '{wrong.iloc[0]}' is neither val nor test")
    twice = table.duplicated([*RUN, "split", "image_id"])
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"{PREDICTIONS}: {int(twice.sum())} predictions are made twice, the first of image "
            f"'{row['image_id']}' by arm '{row['arm']}' ({row['mode']}, {labels_used(row['fraction'])}, "
            f"seed {row['seed']}); name each folder once; models of other pretraining seeds need "
            "another pretrain_seed, other ways of fine-tuning a variant"
        )
    return table


def read_choices(folders: Sequence[Path]) -> pd.DataFrame:
    """All choices, typed; `threshold` stays text. Two choices for one run are refused."""
    tables = [_read(folder, CHOICES, (*RUN, "threshold", *COUNTS)) for folder in folders]
    if not tables:
        return pd.DataFrame(columns=[*RUN, "threshold", *COUNTS])
    table = pd.concat(tables, ignore_index=True)
    table = table.drop_duplicates([*RUN, "threshold", *COUNTS])
    twice = table[table.duplicated(RUN)]
    if len(twice):
        row = twice.iloc[0]
        raise InputError(
            f"{CHOICES}: two choices for arm '{row['arm']}', task '{row['task']}', "
            f"{labels_used(row['fraction'])}, seed {row['seed']}; give only the folders of one study"
        )
    return table.sort_values(RUN, kind="stable", ignore_index=True)


def tuning_counts(choices: pd.DataFrame) -> list[TuningCount]:
    """How many fine-tunings of each arm have which note, by task, arm, mode and fraction."""
    if "note" not in choices:
        return []
    tuned = choices[choices["mode"].str.startswith("finetune")]

    def num_with(runs: pd.DataFrame, *notes: str) -> int:
        return sum(any(note in text for note in notes) for text in runs["note"].astype(str))

    return [
        TuningCount(
            task, arm, mode, float(fraction), len(runs), num_with(runs, PLATEAU, _OLD_PLATEAU),
            num_with(runs, BELOW_PROBE), num_with(runs, KEPT_PROBE), num_with(runs, BEST_AT_END),
        )
        for (task, arm, mode, fraction), runs in grouped(tuned, ARM)
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
        numeric = {c: "float64" for c in header if c.startswith("p_") or c == "fraction" or c in COUNTS}
        text = {c: "str" for c in header if c not in numeric}
        table = pd.read_csv(
            path, dtype={**text, **numeric}, keep_default_na=False, na_values={c: [""] for c in numeric}
        )
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; name a folder that probe, finetune or predict wrote"
        ) from None
    except ValueError as error:  # pandas raises its own kinds of it
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    if absent := [column for column in needed if column not in header]:
        raise InputError(f"{path}: no column '{absent[0]}'")
    for column in ("seed", "pretrain_seed"):
        try:  # an arm without pretraining has no pretraining seed: 0
            table[column] = table[column].replace("", "0").astype("int64")
        except ValueError:
            raise InputError(f"{path}: column '{column}' must hold whole numbers") from None
    return table


def arm_predictions(
    predictions: pd.DataFrame, choices: pd.DataFrame, task: str, image_ids: NDArray[Any], names: Sequence[str]
) -> Iterator[ArmPredictions]:
    """Every arm, mode and fraction of a task, with its seeds, on these test images.

    `image_ids`: (n,) the test images that carry a label; predictions of others are ignored. `names`: the
    classes. What is refused: see `probability_columns` and `probabilities`.
    """
    part = predictions[(predictions["task"] == task) & (predictions["split"] == "test")]
    columns = probability_columns(part, task, names)
    made = {tuple(row[name] for name in RUN): row for row in choices.to_dict("records")}
    index = pd.Index(image_ids)
    for (arm, mode, fraction), rows in grouped(part, ARM[1:]):
        units, tables, thresholds, patients, frequencies = [], [], [], [], []
        for (pretrain_seed, seed), one in grouped(rows, ["pretrain_seed", "seed"]):
            where = f"arm '{arm}', task '{task}' ({mode}, {labels_used(fraction)}, seed {seed})"
            choice = made.get((task, arm, mode, fraction, pretrain_seed, seed), {})
            units.append((int(pretrain_seed), int(seed)))
            tables.append(probabilities(one, columns, index, where))
            thresholds.append(_threshold(choice.get("threshold", "")))
            patients.append(choice.get("num_train_patients", np.nan))
            given = str(choice.get("class_frequencies", ""))
            frequencies.append([*map(float, given.split(";"))] if given else [np.nan] * len(names))
        yield ArmPredictions(
            arm, mode, float(fraction), tuple(units), np.stack(tables), np.array(thresholds),
            np.array(patients), np.array(frequencies),
        )  # fmt: skip


def grouped(table: pd.DataFrame, columns: list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Groups in the order of their keys, label budgets from few labels to many."""

    def order(group: tuple[Any, pd.DataFrame]) -> tuple[Any, ...]:
        values = zip(columns, group[0], strict=True)
        return tuple(fewest_first(value) if name == "fraction" else value for name, value in values)

    yield from sorted(table.groupby(columns, sort=False), key=order)


def probability_columns(predictions: pd.DataFrame, task: str, class_names: Sequence[str]) -> list[str]:
    """The p_ columns of a task's classes; a class without one is refused."""
    columns = [f"p_{name}" for name in class_names]
    if absent := [c for c in columns if c not in predictions.columns]:
        raise InputError(
            f"{PREDICTIONS}: task '{task}' has no column '{absent[0]}' (classes: {', '.join(class_names)})"
        )
    return columns


def probabilities(rows: pd.DataFrame, columns: list[str], index: pd.Index, where: str) -> Floats:
    """(n, K) of the images in `index`, each of which must have one; `where` names the model."""
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


def _numbers_text(values: Sequence[float]) -> str:
    return ";".join(f"{value:.8g}" for value in values)


def _threshold(text: str) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:  # one for each label of a multilabel task
        return float("nan")
