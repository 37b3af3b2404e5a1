"""Scores over the course of pretraining, from validation images.

A test score that is read for every snapshot is a test score that one chooses by. So the curve is made of the
few-label validation part of each seed, as predictions hold it, and the test part is not used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd

from trabecula.artifacts.predictions import grouped, probabilities, probability_columns, snapshot_of
from trabecula.artifacts.results import SnapshotCurve, SnapshotPoint
from trabecula.artifacts.tasks import Task, Truth
from trabecula.comparison.arms import ComparedArm
from trabecula.metrics import classification as scores
from trabecula.metrics.bootstrap import Unit, interval, resample


def snapshot_curves(
    task: Task,
    known: Truth,
    table: pd.DataFrame,
    arms: Mapping[str, ComparedArm],
    images_seen: Mapping[str, int],
    draws: tuple[int, int],
    level: float,
) -> list[SnapshotCurve]:
    """Of every arm with snapshots: the metrics it is compared by against the images seen, on validation.

    `table`: predictions; an arm without validation rows of the task has no point. `arms`, `images_seen`: by
    name, snapshots and finished arms. `draws`: how many resamples of patients, and their seed.
    """
    table = table[(table["task"] == task.name) & (table["split"] == "val")]
    rows = []
    for key, one in grouped(table, ["mode", "fraction"]):
        mode, fraction = cast("tuple[str, float]", key)
        of: dict[str, dict[int, str]] = defaultdict(dict)
        for name in one["arm"].unique():
            if snapshot := snapshot_of(name):
                of[snapshot[0]][images_seen[name]] = name
        for whole, points in sorted(of.items()):
            control = arms[next(iter(points.values()))].control
            if whole in arms:
                points[images_seen[whole]] = whole
            made = {
                name: found
                for name in (*points.values(), *([control] if control else []))
                if (found := _scores(task, known, one[one["arm"] == name], draws, level))
            }
            rows += [
                SnapshotCurve(
                    task.name, whole, mode, metric, float(fraction),
                    [replace(made[points[n]][metric], images=n) for n in sorted(points) if points[n] in made],
                    "val", made[control][metric] if control in made else None,
                )
                for metric in scores.COMPARED[task.kind]
            ]  # fmt: skip
    return rows


def _scores(
    task: Task, known: Truth, rows: pd.DataFrame, draws: tuple[int, int], level: float
) -> dict[str, SnapshotPoint]:
    """metric -> value with its interval, and the value of each seed; {} without a labelled image.

    Seeds have different validation parts. Patients of all parts are drawn together, and each seed's metric
    is taken on its own part under these draws: what seeds share of patients is counted as shared.
    """
    position = pd.Index(known.image_ids).get_indexer(pd.Index(rows["image_id"]))
    rows, position = rows[position >= 0], position[position >= 0]
    if not len(rows):
        return {}
    at = np.unique(position)
    weights = resample(known.patient_ids[at], *draws)
    whole = scores.Sample(task.kind, known.class_names, known.patient_ids[at], known.y[at], weights)
    columns = probability_columns(rows, task.name, known.class_names)
    chosen = scores.COMPARED[task.kind]
    parts, units, points, resampled = [], [], [], []
    places = pd.Series(np.searchsorted(at, position), index=rows.index)
    for seed, one in rows.groupby(["pretrain_seed", "seed"], sort=True):
        units.append(cast("Unit", seed))
        here = places[one.index].to_numpy()
        sample = whole.only(here)
        where = f"arm '{one['arm'].iloc[0]}', task '{task.name}', validation, seeds {seed}"
        p = probabilities(one, columns, pd.Index(known.image_ids[at[here]]), where)
        parts.append(sample)
        points.append(scores.score(sample, p, float("nan"), chosen, weighted=False))
        resampled.append(scores.score(sample, p, float("nan"), chosen, weighted=True))
    result = {}
    for metric in chosen:
        df = min(scores.smallest_class(sample, metric) for sample in parts) - 1.0
        values = [float(point[metric][0]) for point in points]
        table = np.stack([drawn[metric] for drawn in resampled], axis=1)
        found = interval(values, table, df, level, scores.scale_of(metric), units)
        result[metric] = SnapshotPoint(
            found.value, found.low, found.high, values, whole.num_patients, found.note,
            arm=str(rows["arm"].iloc[0]),
        )  # fmt: skip
    return result
