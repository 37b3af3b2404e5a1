"""predictions of a proxy on a pool without labels -> spectrum.json: which grades the pool holds.

A pool that is nearly all of one grade teaches little of the others (93 % KL 3 in Rajamohan et al. 2026, 3.4,
by a proxy's calls). Hard calls and mean probabilities are counted as they are; with `validation` they are
corrected for how the proxy errs. A proxy's shares are not prevalences: docs/guides/controls.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd
from pydantic import Field

from trabecula.artifacts.label_values import in_any_spelling
from trabecula.artifacts.manifest import Manifest, read_manifest
from trabecula.artifacts.predictions import RUN, read_choices, read_predictions
from trabecula.artifacts.spectrum import ClassShare, SpectrumAudit, write_spectrum
from trabecula.artifacts.tasks import Truth, find_task, truth
from trabecula.config import Record
from trabecula.errors import InputError
from trabecula.metrics.spectrum import WIDE, Calls, Known, audit, dominant
from trabecula.run import Run

_SUM = 1e-3  # how far from 1 the probabilities of an image's grades may be: they are written with 8 digits


class Config(Record):
    """Settings of `spectrum`."""

    predictions: tuple[Path, ...]
    """Folders that `predict` wrote for the pool."""
    manifest: Path
    """The pool's manifest: whose image is which."""
    cohorts: tuple[str, ...] = ()
    """Cohorts that are counted, by the manifest's column `cohort`; empty: all."""
    validation: tuple[Path, ...] = ()
    """Folders of the `finetune` or `probe` that made the proxies: by their predictions of labelled images the
    shares are corrected."""
    labels: Path | None = None
    """The manifest of these labelled images. Without, the pool's manifest holds them too, and images with a
    label are not counted as of the pool: the proxy learned from them."""
    part: Literal["val", "test"] = "val"
    """The labelled images that correct: of the validation part, or of the test part, which is seen once
    only and by nothing that chooses."""
    dominance: float = Field(0.75, gt=0, le=1)
    """A grade of this share of the pool dominates, and is warned of."""
    num_resamples: int = Field(2000, ge=100)
    """Resamples of patients for the intervals."""
    level: float = Field(0.95, gt=0, lt=1)
    """Level of the intervals."""
    seed: int = 0
    """Of the resamples."""


def run(config: Config, out: Run) -> str:
    """Write spectrum.json."""
    manifest = read_manifest(config.manifest)
    labels = read_manifest(config.labels) if config.labels else manifest
    apart = labels.path.resolve() != manifest.path.resolve()
    table, choices = read_predictions(config.predictions), read_choices(config.predictions)
    known = read_predictions(config.validation) if config.validation else table.iloc[:0]
    known = known[known["split"] == config.part]
    audits: list[SpectrumAudit] = []
    for key, rows in table[table["split"] == "test"].groupby(RUN, sort=True):
        names, origin = _classes(rows), dict(zip(RUN, key, strict=True))
        chosen = choices.loc[(choices[RUN] == list(key)).all(axis=1), "threshold"].to_list()
        threshold = float(chosen[0]) if chosen and chosen[0] else None  # of a binary task
        labelled = _labelled(str(origin["task"]), labels)
        left_out = () if apart or labelled is None else labelled.image_ids.tolist()
        pool = _pool(config, rows, manifest, set(left_out))
        own = known[(known[RUN] == list(key)).all(axis=1)]
        found = audit(
            _calls(pool, names, threshold), _known(own, labelled, names, threshold), names,
            config.num_resamples, config.seed, config.level,
        )  # fmt: skip
        if found["known"] is not None:
            found["known"]["part"] = config.part
        found["dominant"], found["warning"] = dominant(found, config.dominance)
        if found["warning"]:
            out.log("warning", **origin, text=found["warning"])
        audits.append(cast("SpectrumAudit", {**origin, **found}))
    if not audits:
        raise InputError("spectrum: no predictions of a test part; give folders that `predict` wrote")
    settings = {"num_resamples": config.num_resamples, "level": config.level, "dominance": config.dominance}
    write_spectrum(out.path, audits, settings)
    return _summary(audits, asked=bool(config.validation))


def _summary(audits: Sequence[SpectrumAudit], asked: bool) -> str:
    """The first classifier's shares, why they are not corrected where that was asked for, and its warning."""
    first = audits[0]
    calls = ", ".join(f"{one['class']}: {100 * one['share']:.1f} %" for one in first["called"])
    text = f"{first['num_images']:,} images of {first['num_patients']:,} patients called {calls}"
    if first["corrected"]:
        text += f"; corrected {', '.join(_corrected(one) for one in first['corrected'])}"
    elif asked:
        text += f"; {first['correction']}"
    if first["warning"]:
        text += f"; warning: {first['warning']}"
    more = len(audits) - 1
    return f"{first['arm']}, {first['task']}: {text}" + (f"; {more} more classifiers" if more else "")


def _corrected(one: ClassShare) -> str:
    """A corrected share with its interval; where that is too wide to say anything, no share."""
    low, high = one["low"], one["high"]
    if low is None or high is None or high - low > WIDE:
        return f"{one['class']}: not known"
    return f"{one['class']}: {100 * one['share']:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def _classes(rows: pd.DataFrame) -> list[str]:
    """The class names of one classifier's predictions; findings that may come together are refused."""
    columns = [column for column in rows if str(column).startswith("p_") and bool(rows[column].notna().all())]
    if not columns or not np.allclose(rows[columns].sum(axis=1), 1, atol=_SUM):
        raise InputError(
            f"spectrum: task '{rows['task'].iloc[0]}' does not give one class an image (the probabilities do "
            "not sum to 1); a spectrum is of grades that exclude each other"
        )
    return [str(column).removeprefix("p_") for column in columns]


def _calls(rows: pd.DataFrame, names: Sequence[str], threshold: float | None) -> Calls:
    p = rows[[f"p_{name}" for name in names]].to_numpy(np.float64)
    called = p.argmax(axis=1) if threshold is None or len(names) != 2 else (p[:, 1] >= threshold).astype(int)
    return Calls(rows["patient_id"].to_numpy(str), p, called.astype(np.int64))


def _pool(config: Config, rows: pd.DataFrame, manifest: Manifest, left_out: set[str]) -> pd.DataFrame:
    """The predictions that are counted, with their patients."""
    table = manifest.table.set_index("image_id")
    absent = [image for image in rows["image_id"] if image not in table.index]
    if absent:
        raise InputError(
            f"{config.manifest}: {len(absent)} of {len(rows)} predicted images are not in it, the first is "
            f"'{absent[0]}'; give the pool's own manifest"
        )
    rows = rows[~rows["image_id"].isin(left_out)]
    if config.cohorts:
        if "cohort" not in table:
            raise InputError(f"{config.manifest}: no column 'cohort', so {config.cohorts} are unknown")
        rows = rows[in_any_spelling(rows["image_id"].map(table["cohort"]), config.cohorts)]
    if rows.empty:
        why = "all have a label, or none is of these cohorts"
        raise InputError(f"spectrum: no predicted image is left: {why}; predict the images without labels")
    return rows.assign(patient_id=rows["image_id"].map(table["patient_id"]))


def _labelled(task: str, manifest: Manifest) -> Truth | None:
    """The labelled images of a manifest; None where it does not know the task, or its columns are empty."""
    try:
        found = find_task(task, manifest)
    except InputError:
        return None
    columns = manifest.table.reindex(columns=list(found.columns), fill_value="")
    return truth(found, manifest) if (columns != "").any(axis=None) else None


def _known(
    rows: pd.DataFrame, labelled: Truth | None, names: Sequence[str], threshold: float | None
) -> Known | None:
    """A proxy's calls on labelled images and their grades; None where there are none."""
    if rows.empty:
        return None
    if labelled is None or list(labelled.class_names) != list(names):
        raise InputError(
            f"spectrum: the labels of task '{rows['task'].iloc[0]}' are not those of the predictions "
            f"({', '.join(names)}); name the labelled images' manifest with labels = ..."
        )
    place = pd.Index(labelled.image_ids).get_indexer(pd.Index(rows["image_id"]))
    if (place < 0).any():
        image = rows["image_id"].iloc[int(np.argmax(place < 0))]
        raise InputError(f"spectrum: image '{image}' of the validation predictions has no label")
    rows = rows.assign(patient_id=labelled.patient_ids[place])
    return Known(_calls(rows, names, threshold), labelled.y[place])
