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
from dataclasses import dataclass, field, fields
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from trabecula.config import Record, dump
from trabecula.errors import InputError
from trabecula.files import read_json, write_json

Floats = NDArray[np.float64]

METRICS, COMPARISONS, CURVES, FLOW = "metrics.json", "comparisons.json", "curves.json", "flow.json"
_MADE_BY = "`trabecula evaluate`"
VERSION = 2  # of all four files. Version 1 had no number of its own and did not name the control of an arm


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


@dataclass(frozen=True, eq=False, slots=True)
class MetricRow(ResultRecord):
    """One metric of one arm, mode and fraction: of one seed, or over all seeds with its interval."""

    task: str
    arm: str
    architecture: str
    family: str
    mode: str
    fraction: float
    cohort: str  # a cohort of the manifest, or "all"
    stratum: str  # "sex=F", or "all"
    metric: str
    num_images: int
    num_patients: int
    num_events: int | None  # images of the positive class; None where the metric has none
    seed: int | str  # of the few-label subset; "all" in a row over seeds
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
    p_holm: float | None  # adjusted for the comparisons with the same kind of baseline
    claim: str  # "better" or "worse" where `p_holm` is below alpha, else "none"
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
    censored: str  # "above" or "below" where the value is beyond the baseline's learning curve
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

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)

    task: str
    arm: str
    mode: str
    fraction: float
    class_name: Annotated[str, Field(alias="class")] = field(metadata={"key": "class"})
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
    bins: Sequence[ReliabilityBin]


@dataclass(frozen=True, eq=False, slots=True)
class LearningPoint(ResultRecord):
    """A metric with one share of the labels."""

    fraction: float
    num_patients: int | None  # labelled training patients, mean over seeds
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
    points: Sequence[LearningPoint]


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
    images: int | None = None  # seen in pretraining; None of the control


@dataclass(frozen=True, eq=False, slots=True)
class SnapshotCurve(ResultRecord):
    """Scores over pretraining; `control` is the score of the arm's control, None where it has none."""

    task: str
    arm: str
    mode: str
    metric: str
    fraction: float
    points: Sequence[SnapshotPoint]
    split: str = ""  # "val": of validation images; of a file that does not say so nothing is drawn
    control: SnapshotPoint | None = None


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
    control: str | None  # the arm it is compared with first; None: it is the control, or there is none
    control_reason: str  # why there is no control
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
class TuningCount(ResultRecord):
    """Fine-tunings of an arm, and how many of them stayed at chance, are worse on validation than a linear
    probe of their start, came out as the probe that they started from, or were best at their last check."""

    task: str
    arm: str
    mode: str
    fraction: float
    num_runs: int
    num_plateau: int
    num_below_probe: int = 0
    num_kept_probe: int = 0
    num_best_at_end: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Metrics(ResultRecord):
    """metrics.json; `level` of the intervals, `alpha` of the claims."""

    level: float
    alpha: float
    rows: Sequence[MetricRow]
    num_resamples: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Comparisons(ResultRecord):
    """comparisons.json; `pools`: arms of a smaller pretraining pool against the arm of the largest."""

    pairs: Sequence[Comparison]
    label_multipliers: Sequence[LabelMultiplier]
    not_run: Sequence[MissingBaseline]
    pools: Sequence[Comparison] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Curves(ResultRecord):
    """curves.json."""

    roc: Sequence[RocCurve]
    reliability: Sequence[ReliabilityCurve]
    learning: Sequence[LearningCurve]
    snapshots: Sequence[SnapshotCurve] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Flow(ResultRecord):
    """flow.json; `tasks` by name."""

    tasks: Mapping[str, TaskFlow]
    subsets: Sequence[LabelSubset]
    arms: Sequence[EvaluatedEncoder]
    plateaus: Sequence[TuningCount] = ()
    incomplete: Sequence[IncompleteArm] = ()


def write_results(
    folder: Path, metrics: Metrics, comparisons: Comparisons, curves: Curves, flow: Flow
) -> None:
    """Write the four files; the same values give the same bytes."""
    for name, value in ((METRICS, metrics), (COMPARISONS, comparisons), (CURVES, curves), (FLOW, flow)):
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
    """comparisons.json and flow.json, also of a folder without controls. Raises: see `read_results`."""
    return _read(folder / COMPARISONS, Comparisons), _read(folder / FLOW, Flow, earlier=True)


def read_results(folder: Path) -> tuple[Metrics, Comparisons, Curves, Flow]:
    """All four files of a folder; keys that this version does not know are ignored.

    Raises:
        InputError: a file is missing, is not JSON, lacks a key, or was written by an earlier version.
    """
    metrics, comparisons = _read(folder / METRICS, Metrics), _read(folder / COMPARISONS, Comparisons)
    return metrics, comparisons, _read(folder / CURVES, Curves), _read(folder / FLOW, Flow)


def _read(path: Path, cls: type[R], earlier: bool = False) -> R:
    values, again = read_json(path, _MADE_BY), f"write it again with {_MADE_BY}"
    if (version := values.get("version", 1)) > VERSION:
        raise InputError(f"{path}: is of version {version}, this trabecula reads {VERSION}; {again}")
    for row in values.get("arms") or () if earlier else ():
        row.update({"control": None, "control_reason": "", **row})
    try:
        found = TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise InputError(f"{path}: {_problem(error.errors()[0])}; {again}") from None
    if isinstance(found, Metrics) and not found.rows:
        raise InputError(f"{path}: has no rows; {again}")
    return found


def _problem(detail: ErrorDetails) -> str:
    """ "pairs[0] has no 'p'", or what is wrong with a value that is there."""
    named = takewhile(lambda part: isinstance(part, int) or part.isidentifier(), detail["loc"])
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).removeprefix(".")
    if detail["type"] != "missing":
        return f"{place}: {detail['msg']}"
    record, _, key = place.rpartition(".")
    return f"{record} has no '{key}'".strip()
