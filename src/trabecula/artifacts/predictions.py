"""Predictions and the choices behind them: two tables that probe, finetune and predict write alike.

    predictions.csv   image_id, task, cohort, arm, mode, fraction, seed, pretrain_seed, split, p_<class>...
    choices.csv       task, arm, mode, fraction, seed, pretrain_seed, threshold, strength, images_seen,
                      counts of the few-label parts, note

No labels: `evaluate` joins the truth from the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trabecula.artifacts.manifest import Manifest
from trabecula.config import Record
from trabecula.run import Run

PLATEAU = "never left the plateau"
"""The note of a fine-tuning whose training loss stayed at that of the class frequencies."""


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
    """Name of the task."""
    arm: str
    """Name of the encoder's arm."""
    mode: str
    """"probe" or "finetune"; "finetune:NAME" for a named way of fine-tuning, "probe:corners 0.25" where the
    encoder was shown the corners alone."""
    fraction: float
    """Part of the labels that was used."""
    seed: int
    """Of the few-label subset and the training on it."""
    pretrain_seed: int
    """Of the encoder."""


class Choice(Record):
    """What was chosen on the few-label validation part, and on how much."""

    threshold: tuple[float, ...] = ()
    """Above it an image is called positive: one for a binary task, one a label for a multi-label one."""
    strength: float | None = None
    """A probe's inverse regularisation C."""
    images_seen: int | None = None
    """Fine-tuning: images seen at the chosen checkpoint."""
    num_train_images: int
    """Labelled images of the training part."""
    num_train_patients: int
    """Their patients."""
    num_val_images: int
    """Labelled images of the validation part."""
    num_val_patients: int
    """Their patients."""
    note: str = ""
    """What could not be done as asked."""


def prediction_rows(
    origin: Origin,
    image_ids: Sequence[str] | NDArray[np.str_],
    cohorts: Sequence[str] | NDArray[np.str_],
    split: str,
    probabilities: NDArray[np.floating[Any]],
    class_names: Sequence[str],
) -> pd.DataFrame:
    """One row an image. probabilities: (n, K), a column a class."""
    key = origin.model_dump()
    frame = pd.DataFrame({"image_id": image_ids, "task": key.pop("task"), "cohort": cohorts, **key})
    frame["split"] = split
    for column, name in enumerate(class_names):
        frame[f"p_{name}"] = probabilities[:, column].astype(np.float64)
    return frame


def cohorts_of(manifest: Manifest, rows: NDArray[np.integer[Any]]) -> NDArray[np.str_]:
    """(n,) cohort of each manifest row; "" where the manifest names none."""
    if "cohort" not in manifest.table.columns:
        return np.full(len(rows), "", dtype=str)
    return np.array(manifest.table["cohort"].to_numpy()[rows], dtype=str)


def write_predictions(
    out: Run, frames: Sequence[pd.DataFrame], choices: Sequence[tuple[Origin, Choice]]
) -> None:
    """Write both tables; the same values give the same bytes."""
    table = pd.concat(frames, ignore_index=True)
    out.write("predictions.csv", table.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
    rows = []
    for origin, choice in choices:
        row = {**origin.model_dump(), **choice.model_dump()}
        row["threshold"] = ";".join(f"{value:.8g}" for value in choice.threshold)
        rows.append(row)
    csv = pd.DataFrame(rows).to_csv(index=False, float_format="%.8g", lineterminator="\n")
    out.write("choices.csv", csv)
