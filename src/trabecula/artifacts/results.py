"""Results of `evaluate`: four JSON files whose rows are records, written and read here.

    metrics.json        every metric of every arm, by seed and over seeds with its interval
    comparisons.json    arms against their baselines, label multipliers, smaller pretraining pools against the
                        largest, baselines that were not run
    curves.json         ROC, reliability and learning curves; scores over pretraining, on validation images
    flow.json           images and patients of each task, part and subset; the arms, each with its control

A record is also a mapping from its JSON keys, so that tables, CSV files and page templates take it as it is.
In JSON a number has six digits, and null is in the place of one that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trabecula.config import Record, build, dump
from trabecula.errors import InputError
from trabecula.files import read_json, write_json

Floats = NDArray[np.float64]

METRICS, COMPARISONS, CURVES, FLOW = "metrics.json", "comparisons.json", "curves.json", "flow.json"
VERSION = 2
"""Of all four files. Version 1 had no number of its own and did not name the control of an arm."""


class ResultRecord(Mapping[str, Any]):
    """Typed fields; as a mapping, its JSON keys, which are the names of the fields."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        return getattr(self, _fields(type(self))[key].name)

    def __iter__(self) -> Iterator[str]:
        return iter(_fields(type(self)))

    def __len__(self) -> int:
        return len(_fields(type(self)))


R = TypeVar("R", bound=ResultRecord)


@cache
def _fields(cls: type[Any]) -> dict[str, Any]:
    """JSON key -> field."""
    return {item.metadata.get("key", item.name): item for item in fields(cls)}


def _rows_of(cls: type[ResultRecord | Record], needed: bool = True) -> Any:
    """A field that holds a list of records; a file may lack one that is not needed."""
    return field(metadata={"rows": cls}) if needed else field(default=(), metadata={"rows": cls})


@dataclass(frozen=True, eq=False, slots=True)
class MetricRow(ResultRecord):
    """One metric of one arm, mode and fraction: of one seed, or over all seeds with its interval."""

    task: str
    arm: str
    architecture: str
    family: str
    mode: str
    fraction: float
    cohort: str
    """A cohort of the manifest, or "all"."""
    stratum: str
    """ "sex=F", or "all"."""
    metric: str
    num_images: int
    num_patients: int
    num_events: int | None
    """Images of the positive class; None where the metric has none."""
    seed: int | str
    """Of the few-label subset; "all" in a row over seeds."""
    pretrain_seed: int | str
    value: float | None
    low: float | None
    high: float | None
    sd_seeds: float | None
    num_seeds: int
    note: str


@dataclass(frozen=True, eq=False, slots=True)
class Comparison(ResultRecord):
    """Arm minus baseline on the same patients and seeds."""

    task: str
    mode: str
    fraction: float
    metric: str
    arm: str
    baseline: str
    baseline_family: str
    same_architecture: bool
    num_patients: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    num_seeds: int
    p_holm: float | None
    """Adjusted for the comparisons with the same kind of baseline."""
    claim: str
    """ "better" or "worse" where `p_holm` is below alpha, else "none"."""
    note: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class LabelMultiplier(ResultRecord):
    """How many times the labels the baseline needs for the arm's value."""

    task: str
    mode: str
    metric: str
    arm: str
    baseline: str
    fraction: float
    value: float | None
    low: float | None
    high: float | None
    censored: str
    """ "above" or "below" where the value is beyond the baseline's learning curve."""
    note: str


@dataclass(frozen=True, eq=False, slots=True)
class MissingBaseline(ResultRecord):
    """An architecture without a control ("random") or without ImageNet weights ("imagenet")."""

    family: str
    architecture: str
    reason: str


@dataclass(frozen=True, eq=False, slots=True)
class RocCurve(ResultRecord):
    """ROC curve of one class, mean over seeds, with a pointwise band over patients."""

    task: str
    arm: str
    mode: str
    fraction: float
    class_name: str = field(metadata={"key": "class"})
    fpr: Sequence[float] | Floats
    tpr: Sequence[float] | Floats
    low: Sequence[float | None] | Floats
    high: Sequence[float | None] | Floats


@dataclass(frozen=True, eq=False, slots=True)
class ReliabilityBin(ResultRecord):
    """Images of about one stated probability, and how often it came true."""

    predicted: float | None
    observed: float | None
    low: float | None
    high: float | None
    num_images: int


@dataclass(frozen=True, eq=False, slots=True)
class ReliabilityCurve(ResultRecord):
    task: str
    arm: str
    mode: str
    fraction: float
    bins: Sequence[ReliabilityBin] = _rows_of(ReliabilityBin)


@dataclass(frozen=True, eq=False, slots=True)
class LearningPoint(ResultRecord):
    """A metric with one share of the labels."""

    fraction: float
    num_patients: int | None
    """Labelled training patients, mean over seeds."""
    value: float | None
    low: float | None
    high: float | None
    seeds: Sequence[float | None]


@dataclass(frozen=True, eq=False, slots=True)
class LearningCurve(ResultRecord):
    task: str
    arm: str
    mode: str
    metric: str
    points: Sequence[LearningPoint] = _rows_of(LearningPoint)


@dataclass(frozen=True, eq=False, slots=True)
class SnapshotPoint(ResultRecord):
    """A metric on validation images, of an encoder as it was during pretraining."""

    value: float | None
    low: float | None
    high: float | None
    seeds: Sequence[float | None]
    num_patients: int
    note: str
    arm: str = ""
    images: int | None = None
    """Seen in pretraining; None of the control."""


@dataclass(frozen=True, eq=False, slots=True)
class SnapshotCurve(ResultRecord):
    """Scores over pretraining; `control` is the score of the arm's control, None where it has none."""

    task: str
    arm: str
    mode: str
    metric: str
    fraction: float
    points: Sequence[SnapshotPoint] = _rows_of(SnapshotPoint)
    split: str = ""
    """ "val": the curve is of validation images; of a file that does not say so nothing is drawn."""
    control: SnapshotPoint | None = field(default=None, metadata={"one": SnapshotPoint})


@dataclass(frozen=True, eq=False, slots=True)
class TaskFlow(ResultRecord):
    """What a task left out and why, and the images, patients and classes of its parts."""

    kind: str = ""
    classes: Sequence[str] = ()
    exclusions: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class LabelSubset(ResultRecord):
    """How many labels one seed drew of one task."""

    task: str
    fraction: float
    seed: int
    num_train_images: int | None
    num_train_patients: int | None
    num_val_images: int | None
    num_val_patients: int | None
    note: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class EvaluatedEncoder(ResultRecord):
    """One encoder, by arm and pretraining seed: what it is, what it has seen, and its control."""

    arm: str
    architecture: str
    family: str
    objective: str
    images_seen: int | None
    num_patients_seen: int | None
    control: str | None
    """The arm that this one is compared with first; None: it is the control itself, or there is none."""
    control_reason: str
    """Why there is no control."""
    pretrain_seed: int | None = None
    pool_fraction: float = 1.0
    pool_cohorts: Sequence[str] = ()
    labels: str = ""
    taught_by: str = ""


class IncompleteArm(Record):
    """An arm that was planned and whose runs are not all there; as its encoder's card would have it."""

    name: str
    """The arm, as in the encoder's card: its `arm`, or architecture and initialisation."""
    architecture: str
    """With its library, such as timm:resnet18."""
    family: str
    """random, imagenet, weights or pretrained."""
    reason: str
    """Why runs are missing, without names of patients or folders: "finetune of critic-random failed"."""


@dataclass(frozen=True, eq=False, slots=True)
class PlateauCount(ResultRecord):
    """Fine-tunings of an arm, and how many of them stayed at chance."""

    task: str
    arm: str
    mode: str
    fraction: float
    num_runs: int
    num_plateau: int


@dataclass(frozen=True, eq=False, slots=True)
class Metrics(ResultRecord):
    """metrics.json; `level` of the intervals, `alpha` of the claims."""

    level: float
    alpha: float
    rows: Sequence[MetricRow] = _rows_of(MetricRow)
    num_resamples: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Comparisons(ResultRecord):
    """comparisons.json; `pools`: arms of a smaller pretraining pool against the arm of the largest."""

    pairs: Sequence[Comparison] = _rows_of(Comparison)
    label_multipliers: Sequence[LabelMultiplier] = _rows_of(LabelMultiplier)
    not_run: Sequence[MissingBaseline] = _rows_of(MissingBaseline)
    pools: Sequence[Comparison] = _rows_of(Comparison, needed=False)


@dataclass(frozen=True, eq=False, slots=True)
class Curves(ResultRecord):
    """curves.json."""

    roc: Sequence[RocCurve] = _rows_of(RocCurve)
    reliability: Sequence[ReliabilityCurve] = _rows_of(ReliabilityCurve)
    learning: Sequence[LearningCurve] = _rows_of(LearningCurve)
    snapshots: Sequence[SnapshotCurve] = _rows_of(SnapshotCurve, needed=False)


@dataclass(frozen=True, eq=False, slots=True)
class Flow(ResultRecord):
    """flow.json; `tasks` by name."""

    tasks: Mapping[str, TaskFlow] = field(metadata={"table": TaskFlow})
    subsets: Sequence[LabelSubset] = _rows_of(LabelSubset)
    arms: Sequence[EvaluatedEncoder] = _rows_of(EvaluatedEncoder)
    plateaus: Sequence[PlateauCount] = _rows_of(PlateauCount, needed=False)
    incomplete: Sequence[IncompleteArm] = _rows_of(IncompleteArm, needed=False)


_FILES: Mapping[str, type[ResultRecord]] = {
    METRICS: Metrics, COMPARISONS: Comparisons, CURVES: Curves, FLOW: Flow
}  # fmt: skip


def write_results(
    folder: Path, metrics: Metrics, comparisons: Comparisons, curves: Curves, flow: Flow
) -> None:
    """Write the four files; the same values give the same bytes."""
    for name, value in zip(_FILES, (metrics, comparisons, curves, flow), strict=True):
        write_json(folder / name, {"version": VERSION, **_plain(value)})


def _plain(value: Any) -> Any:
    """JSON values: six digits, null where a number is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Record):
        return dump(value)
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def read_metrics(path: Path) -> Metrics:
    """metrics.json, or that of a folder. Raises: see `read_results`."""
    return _read(path / METRICS if path.is_dir() else path, Metrics)


def read_counts(folder: Path) -> tuple[Comparisons, Flow]:
    """comparisons.json and flow.json of a folder. Raises: see `read_results`."""
    return _read(folder / COMPARISONS, Comparisons), _read(folder / FLOW, Flow)


def read_results(folder: Path) -> tuple[Metrics, Comparisons, Curves, Flow]:
    """All four files of a folder.

    Raises:
        InputError: a file is missing, is not JSON, lacks a key, or was written by an earlier version.
    """
    comparisons, flow = read_counts(folder)
    return _read(folder / METRICS, Metrics), comparisons, _read(folder / CURVES, Curves), flow


def _read(path: Path, cls: type[R]) -> R:
    values = read_json(path, "`trabecula evaluate`")
    try:
        if values.get("version", 1) > VERSION:
            raise _MalformedError(f"is of version {values['version']}, this trabecula reads {VERSION}")
        found = _record(cls, values)
        if isinstance(found, Metrics) and not found.rows:
            raise _MalformedError("has no rows")
    except _MalformedError as error:
        raise InputError(f"{path}: {error}; write it again with `trabecula evaluate`") from None
    return found


class _MalformedError(Exception):
    """What is wrong with a file's values."""


def _record(cls: type[R], values: Any, where: str = "") -> R:
    """A record of plain values; keys that it does not know, of a later version, are ignored.

    Raises:
        _MalformedError: a key that is missing, or a value of another kind.
    """
    if not isinstance(values, dict):
        raise _MalformedError(f"{where} is not a JSON object")
    given: dict[str, Any] = {}
    for key, item in _fields(cls).items():
        kind = next(iter(item.metadata.keys() - {"key"}), "")
        if key in values:
            inner, place = item.metadata.get(kind), f"{where}.{key}".removeprefix(".")
            given[item.name] = _nested(kind, inner, values[key], place) if kind else values[key]
        elif item.default is MISSING and item.default_factory is MISSING:
            what = {"rows": "list ", "table": "table "}.get(kind, "")
            raise _MalformedError(f"{where} has no {what}'{key}'".strip())
    return cls(**given)


def _nested(kind: str, cls: Any, value: Any, where: str) -> Any:
    if kind == "one":
        return None if value is None else _record(cls, value, where)
    if kind == "rows" and isinstance(value, list):
        read = build if issubclass(cls, Record) else _record
        return [read(cls, item, f"{where}[{i}]") for i, item in enumerate(value)]
    if kind == "table" and isinstance(value, dict):
        return {key: _record(cls, item, f"{where}.{key}") for key, item in value.items()}
    raise _MalformedError(f"has no {'list' if kind == 'rows' else kind} '{where}'")
