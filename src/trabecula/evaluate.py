"""evaluate: predictions + manifest -> metrics, curves and comparisons, with intervals.

metrics.json        every metric of every arm, by seed and over seeds with its interval
comparisons.json    arms against their baselines, label multipliers, smaller pretraining pools against the
                    largest, baselines that were not run
curves.json         ROC, reliability and learning curves; scores over pretraining, on validation images
flow.json           how many images and patients each task, part, subset and arm had
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from trabecula.artifacts import read_predictions as reading
from trabecula.artifacts.manifest import Manifest, read_manifest
from trabecula.artifacts.predictions import PLATEAU, snapshot_of
from trabecula.artifacts.read_predictions import Group
from trabecula.artifacts.splits import FEW_VAL, PARTS, Splits, counts, read_splits
from trabecula.artifacts.store import Store
from trabecula.artifacts.tasks import Task, Truth, find_task, truth
from trabecula.comparison import contrasts, leakage
from trabecula.comparison.cards import arms_of, flow_arms, read_cards, upper_bounds
from trabecula.comparison.pretraining_pools import compare_pools
from trabecula.comparison.snapshots import snapshot_curves
from trabecula.config import Record
from trabecula.errors import InputError
from trabecula.metrics import curves, scores
from trabecula.metrics.bootstrap import interval, resample
from trabecula.metrics.scores import Sample
from trabecula.progress import Meter
from trabecula.run import Run

Row = dict[str, Any]
_BAND_RESAMPLES = 500  # a pointwise band of a curve is drawn, not tested: fewer do


class Config(Record):
    """Settings of `evaluate`."""

    predictions: tuple[Path, ...]
    """Folders with predictions.csv and choices.csv, as probe, finetune and predict write them."""
    manifest: Path
    """The manifest, or its folder: the truth is read from here."""
    splits: Path
    """The splits, or their folder: decides which images are test images."""
    store: Path | None = None
    """The store: labelled images that `prepare` had to reject are then counted as excluded; without it, a
    test image without a prediction is an error."""
    encoders: tuple[Path, ...] = ()
    """Folders of the encoders behind the arms: architecture, initialisation, and the patients seen."""
    num_resamples: int = Field(default=2000, ge=100)
    """Draws of patients for each interval."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals."""
    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    """A claim needs a Holm-adjusted p below this: stricter than the intervals, so that a study of five
    comparisons among which nothing is to be found still claims something in fewer than 1 of 20."""
    strata: tuple[str, ...] = ()
    """Manifest columns (such as sex, kl) by whose values metrics are given as well."""
    metrics: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Metrics for a kind of task, such as {binary = ["auroc", "brier"]}; those not named have all."""
    not_run: dict[str, str] = Field(default_factory=dict)
    """Arms that a study left out, with the reason; a study fills this in. An arm named after its
    architecture, such as resnet18-imagenet, explains that architecture's missing baseline."""
    lost_controls: dict[str, str] = Field(default_factory=dict)
    """Architectures whose planned control, the first random arm, a study left out, with the reason; a study
    fills this in. No other random arm takes its place: their arms have no control."""


def run(config: Config, out: Run) -> str:
    """Evaluate every prediction of finished arms on the test part, once; snapshots on validation images."""
    manifest, splits = read_manifest(config.manifest), read_splits(config.splits)
    cards = read_cards(config.encoders)
    table = reading.read_predictions(config.predictions)
    choices = reading.read_choices(config.predictions)
    leakage.check_parts(table, manifest, splits)
    leakage.check_cards(cards, splits.patients("test"), manifest)
    lost = config.lost_controls
    arms = [replace(arm, lost_control=lost.get(arm.architecture, "")) for arm in arms_of(cards, table)]
    finished = [arm for arm in arms if not snapshot_of(arm.name)]
    if not finished:
        raise InputError(
            f"every arm among the predictions is a snapshot, such as '{arms[0].name}', and these stand "
            "beside finished arms only; add the predictions of one, of the random arm say"
        )
    work = _Work(config, manifest, splits, {arm.name: arm for arm in arms})
    work.seen = {card["arm"]: card.get("images_seen") or 0 for card in cards}
    whole, table = table, table[(table["split"] == "test") & table["arm"].isin([a.name for a in finished])]
    num = table.groupby(reading.RUN, sort=False).ngroups
    with Meter("evaluating", num, "predictions") as meter:
        for name in sorted(table["task"].unique()):
            work.task(name, table, choices, meter)
            work.sweeps(name, whole)
    pairs = contrasts.compare(work.results, finished, config.level, config.alpha)
    multipliers = contrasts.multipliers(work.results, finished, config.level, config.seed)
    missing = contrasts.not_run(finished, config.not_run)
    _write(out, "metrics.json", {
        "level": config.level, "alpha": config.alpha, "num_resamples": config.num_resamples,
        "rows": work.rows,
    })  # fmt: skip
    _write(out, "comparisons.json", {
        "pairs": pairs, "label_multipliers": multipliers,
        "pools": compare_pools(work.results, cards, config.level, config.alpha),
        "not_run": missing,
    })  # fmt: skip
    work.curves["learning"] = contrasts.learning_curves(work.points)
    _write(out, "curves.json", work.curves)
    plateaus = reading.plateaus(choices)
    _write(out, "flow.json", {
        "tasks": work.flow, "subsets": _subsets(choices), "arms": flow_arms(cards), "plateaus": plateaus,
    })  # fmt: skip
    tasks, swept = ", ".join(work.flow), len(arms) - len(finished)
    compared = _compared(pairs)
    if not pairs:
        why = contrasts.why_none((arm.family for arm in finished), missing)
        compared = f"nothing to compare ({why})"
    return (
        f"{len(finished)} arms on {tasks}: {compared} "
        f"({config.level * 100:g} % intervals over patients){_stuck(plateaus)}"
        + (f"; {swept} snapshot{'s' * (swept > 1)} on validation images" if swept else "")
        + "".join(
            f"; {lost} of {labelled} labelled test images of {name} are not in the store"
            for name, (lost, labelled) in work.lost.items()
            if lost
        )
        + "".join(f"; {told}" for told in upper_bounds(cards))
    )


def _compared(pairs: list[Row]) -> str:
    """The middle of the summary: "8 comparisons with a baseline: 5 better, 2 worse, 1 not told apart"."""
    better, worse = (sum(row["claim"] == claim for row in pairs) for claim in ("better", "worse"))
    gone = sum(not math.isfinite(row["p_holm"]) for row in pairs)  # without p there is no claim
    rest = len(pairs) - better - worse - gone
    return (
        f"{len(pairs)} comparison{'s' * (len(pairs) > 1)} with a baseline: {better} better, {worse} worse, "
        f"{rest} not told apart" + (f", {gone} not estimable" if gone else "")
    )


def _stuck(plateaus: list[Row]) -> str:
    """The end of the summary: "; 3 of 10 fine-tunings of critic-random never left the plateau"."""
    told = ""
    for arm in dict.fromkeys(row["arm"] for row in plateaus if not snapshot_of(row["arm"])):
        mine = [row for row in plateaus if row["arm"] == arm]
        stuck, runs = (sum(row[key] for row in mine) for key in ("num_plateau", "num_runs"))
        told += f"; {stuck} of {runs} fine-tunings of {arm} {PLATEAU}" if stuck else ""
    return told


class _Work:
    """What is gathered while the tasks are gone through."""

    def __init__(
        self, config: Config, manifest: Manifest, splits: Splits, arms: dict[str, contrasts.Arm]
    ) -> None:
        self.config, self.manifest, self.splits, self.arms = config, manifest, splits, arms
        self.rows: list[Row] = []
        self.results: list[contrasts.Result] = []
        self.points: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
        self.curves: dict[str, list[Row]] = {"roc": [], "reliability": [], "snapshots": []}
        self.flow: dict[str, Row] = {}
        self.known: dict[str, Truth] = {}
        self.seen: dict[str, int] = {}
        self.lost: dict[str, tuple[int, int]] = {}  # of a task's labelled test images, those not in the store

    def task(self, name: str, table: pd.DataFrame, choices: pd.DataFrame, meter: Meter) -> None:
        task = find_task(name, self.manifest)
        known = truth(task, self.manifest)
        if self.config.store is not None:
            images = set(Store.open(self.config.store).index["image_id"])
            labelled = self.splits.rows("test", known.patient_ids).sum()
            known = known.among(images, self.config.store, "not in the store")
            self.lost[name] = (
                int(labelled - self.splits.rows("test", known.patient_ids).sum()),
                int(labelled),
            )
        self.flow[name], self.known[name] = _flow(task, known, self.splits), known
        at = np.flatnonzero(self.splits.rows("test", known.patient_ids))
        if not at.size:
            raise InputError(f"task '{name}': no labelled image is in the test part; look at splits.csv")
        patients = known.patient_ids[at]
        weights = resample(patients, self.config.num_resamples, self.config.seed)
        whole = Sample(task.kind, known.class_names, patients, known.y[at], weights)
        mine = table[table["task"] == name]
        leakage.check_predicted(mine, known.image_ids[at], patients, self.manifest)
        parts = self._parts(known.rows[at])
        chosen = _chosen(task.kind, self.config)
        for group in reading.groups(table, choices, name, known.image_ids[at], known.class_names):
            for cohort, stratum, mask in parts:
                sample = whole if mask.all() else whole.only(mask)
                self._group(name, group, sample, group.p[:, mask], (cohort, stratum), chosen)
            self._curves(name, group, whole)
            meter.add(len(group.units))

    def sweeps(self, name: str, table: pd.DataFrame) -> None:
        """Scores over pretraining, for a task gone through before: validation images only."""
        task, draws = find_task(name, self.manifest), (self.config.num_resamples, self.config.seed)
        known, level = self.known[name], self.config.level
        self.curves["snapshots"] += snapshot_curves(task, known, table, self.arms, self.seen, draws, level)

    def _parts(self, rows: NDArray[np.int64]) -> list[tuple[str, str, NDArray[np.bool_]]]:
        """(cohort, stratum, mask): all test images, then each cohort, then each stratum."""
        table = self.manifest.table.iloc[rows]
        parts = [("all", "all", np.ones(len(rows), dtype=bool))]
        cohorts = sorted(set(table["cohort"]) - {""}) if "cohort" in table else []
        if len(cohorts) > 1:
            parts += [(name, "all", (table["cohort"] == name).to_numpy(bool)) for name in cohorts]
        for column in self.config.strata:
            if column not in table:
                raise InputError(f"{self.manifest.path}: no column '{column}' to make strata of")
            values = sorted(set(table[column]) - {""})
            parts += [("all", f"{column}={v}", (table[column] == v).to_numpy(bool)) for v in values]
        return parts

    def _group(
        self,
        task: str,
        group: Group,
        sample: Sample,
        p: NDArray[np.float64],
        place: tuple[str, str],
        chosen: tuple[str, ...],
    ) -> None:
        """Every metric of one arm, mode and fraction on the sample: rows, and results to compare."""
        pairs = list(zip(p, group.thresholds, strict=True))
        points = [scores.score(sample, q, t, chosen, weighted=False) for q, t in pairs]
        draws = [scores.score(sample, q, t, chosen, weighted=True) for q, t in pairs]
        for metric in points[0]:
            result = contrasts.Result(
                task, group.arm, group.mode, group.fraction, metric, group.units,
                np.array([point[metric][0] for point in points]),
                np.stack([draw[metric] for draw in draws], axis=1),
                scores.degrees_of_freedom(sample, metric, draws), sample.num_patients,
                float(np.mean(group.train_patients)),
            )  # fmt: skip
            has_threshold = not np.isnan(group.thresholds).any()
            self._metric(result, sample, place, scores.remark(sample, metric, has_threshold))

    def _metric(self, result: contrasts.Result, sample: Sample, place: tuple[str, str], remark: str) -> None:
        scale = scores.scale_of(result.metric)
        found = interval(
            result.values, result.draws, result.df_patients, self.config.level, scale, result.units
        )
        arm = self.arms[result.arm]
        pretraining = {unit[0] for unit in result.units}
        shared: Row = {
            "task": result.task, "arm": result.arm, "architecture": arm.architecture, "family": arm.family,
            "mode": result.mode, "fraction": result.fraction, "cohort": place[0], "stratum": place[1],
            "metric": result.metric, "num_images": len(sample.y), "num_patients": sample.num_patients,
            "num_events": scores.num_events(sample, result.metric),
        }  # fmt: skip
        notes = dict.fromkeys((remark, found.note if np.isfinite(found.value) else ""))
        note = "; ".join(filter(None, notes)) or found.note
        self.rows.append({
            **shared, "seed": "all", "pretrain_seed": "all" if len(pretraining) > 1 else min(pretraining),
            "value": found.value, "low": found.low, "high": found.high, "sd_seeds": found.sd_seeds,
            "num_seeds": found.num_seeds, "note": note,
        })  # fmt: skip
        if place != ("all", "all"):
            return
        for (pretrain_seed, seed), value in zip(result.units, result.values, strict=True):
            self.rows.append({
                **shared, "seed": seed, "pretrain_seed": pretrain_seed, "value": float(value), "low": None,
                "high": None, "sd_seeds": None, "num_seeds": 1, "note": remark,
            })  # fmt: skip
        if result.metric in scores.COMPARED[sample.kind] and np.isfinite(result.values).all():
            self.results.append(result)
        if result.metric in scores.COMPARED[sample.kind]:
            self.points[(result.task, result.arm, result.mode, result.metric)].append({
                "fraction": result.fraction, "num_patients": _rounded(result.train_patients),
                "value": found.value, "low": found.low, "high": found.high,
                "seeds": [float(value) for value in result.values],
            })  # fmt: skip

    def _curves(self, task: str, group: Group, sample: Sample) -> None:
        shared = {"task": task, "arm": group.arm, "mode": group.mode, "fraction": group.fraction}
        weights, level = sample.weights[:_BAND_RESAMPLES], self.config.level
        classes = [1] if sample.kind == "binary" else range(len(sample.class_names))
        for k in classes:
            if sample.kind == "multilabel":
                known, label = sample.y[:, k] >= 0, sample.y[:, k]
            else:
                known, label = np.ones(len(sample.y), bool), (sample.y == k).astype(np.int64)
            if np.unique(label[known]).size < 2:
                continue
            tpr, low, high = curves.roc_band(
                label[known], list(group.p[:, known, k]), weights.T[known].T, level
            )
            self.curves["roc"].append(
                {
                    **shared,
                    "class": sample.class_names[k],
                    "fpr": curves.GRID,
                    "tpr": tpr,
                    "low": low,
                    "high": high,
                }
            )
        if sample.kind != "multilabel":
            p = list(group.p[:, :, 1] if sample.kind == "binary" else group.p)
            bins = curves.reliability(sample.y, p, sample.patients, weights, level)
            self.curves["reliability"].append({**shared, "bins": bins})


def _chosen(kind: str, config: Config) -> tuple[str, ...]:
    known = scores.METRICS[kind]
    chosen = config.metrics.get(kind, known)
    wrong = [name for name in chosen if name not in known]
    if wrong:
        raise InputError(f"metrics.{kind}: no metric '{wrong[0]}'; known: {', '.join(known)}")
    compared = [name for name in scores.COMPARED[kind] if name not in chosen]
    return (*compared, *chosen)


def _flow(task: Task, known: Truth, splits: Splits) -> Row:
    parts = {part: counts(known, np.flatnonzero(splits.rows(part, known.patient_ids))) for part in PARTS}
    return {
        "kind": task.kind, "classes": list(known.class_names), "exclusions": known.exclusions, "parts": parts,
    }  # fmt: skip


def _subsets(choices: pd.DataFrame) -> list[Row]:
    """How many labels each task, fraction and seed had; arms share them, or the note says they do not."""
    rows = []
    for key, same in choices.groupby(["task", "fraction", "seed"], sort=True):
        task, fraction, seed = cast("tuple[str, float, int]", key)
        first = same.iloc[0]
        alike = len(same[list(reading.COUNTS)].drop_duplicates()) == 1
        notes = [] if alike else ["arms had different subsets"]
        if first["num_val_patients"] < FEW_VAL:
            notes.append("few validation patients: what is chosen on them is partly chance")
        rows.append({
            "task": task, "fraction": float(fraction), "seed": int(seed),
            **{name: _rounded(first[name]) for name in reading.COUNTS},
            "note": "; ".join(notes),
        })  # fmt: skip
    return rows


def _rounded(value: float) -> int | None:
    return round(float(value)) if math.isfinite(value) else None


def _write(out: Run, name: str, value: Any) -> None:
    out.write_json(name, _plain(value))


def _plain(value: Any) -> Any:
    """JSON values: six digits, null where a number is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
