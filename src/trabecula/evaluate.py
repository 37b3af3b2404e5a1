"""evaluate: predictions + manifest -> metrics, curves and comparisons, with intervals.

metrics.json  comparisons.json  curves.json  flow.json      see artifacts/results.py
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from trabecula.artifacts import predictions as reading
from trabecula.artifacts import results
from trabecula.artifacts.imported_predictions import MODE, imported_table, read_imported
from trabecula.artifacts.label_budget import fewest_first
from trabecula.artifacts.label_values import first_spellings
from trabecula.artifacts.manifest import Manifest, read_manifest
from trabecula.artifacts.predictions import ArmPredictions, snapshot_of
from trabecula.artifacts.splits import FEW_VAL, PARTS, Splits, counts, read_splits
from trabecula.artifacts.store import Store
from trabecula.artifacts.tasks import find_task, truth
from trabecula.comparison import arms as arms_
from trabecula.comparison import leakage
from trabecula.comparison.arms import ArmScores, ComparedArm, compare, compare_pools, multipliers
from trabecula.comparison.reach import reach_of_claims
from trabecula.comparison.snapshots import snapshot_curves
from trabecula.config import Record
from trabecula.errors import InputError
from trabecula.metrics import classification as scores
from trabecula.metrics import curves
from trabecula.metrics.bootstrap import interval, resample
from trabecula.progress import Meter
from trabecula.run import Run

_BAND_RESAMPLES = 500  # a pointwise band of a curve is drawn, not tested: fewer do


class Config(Record):
    """Settings of `evaluate`."""

    renamed = {"lost_controls": "incomplete"}
    predictions: tuple[Path, ...]
    """Folders with the predictions and choices that probe, finetune and predict write, and tables of another
    tool: `image_id` and a column of probabilities a class (see "Another tool's predictions" in the docs)."""
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
    incomplete: tuple[results.IncompleteArm, ...] = ()
    """Arms that were planned and whose runs are not all there; a study fills this in. They are in no table
    and no comparison. Where one of them is the control of an architecture no other random arm replaces it."""


def run(config: Config, out: Run) -> str:
    """Evaluate every prediction of finished arms on the test part, once; snapshots on validation images."""
    manifest, splits = read_manifest(config.manifest), read_splits(config.splits)
    imported = _import(config.predictions, manifest, splits)
    own = [path for path in config.predictions if path not in imported.files]
    leakage.check_manifest(own, manifest)
    table = _complete(reading.read_predictions(own, imported.tables), config.incomplete)
    choices = _complete(reading.read_choices(own), config.incomplete)
    cards = [c for c in arms_.read_cards(config.encoders) if not arms_.left_out(c["arm"], config.incomplete)]
    cards += imported.cards(cards)
    leakage.check_parts(table, manifest, splits)
    leakage.check_cards(cards, splits.patients("test"), manifest)
    arms = arms_.decide_controls(arms_.arms_of(cards, table), config.incomplete)
    finished = [arm for arm in arms if not snapshot_of(arm.name)]
    _check_arms(arms, finished, config)
    seen = {card["arm"]: card.get("images_seen") or 0 for card in cards}
    work = _Evaluation(config, manifest, splits, {arm.name: arm for arm in arms}, seen)
    tested = table[(table["split"] == "test") & table["arm"].isin([arm.name for arm in finished])]
    with Meter("evaluating", tested.groupby(reading.RUN, sort=False).ngroups, "predictions") as meter:
        for name in sorted(tested["task"].unique()):
            work.task(name, tested, table, choices, meter)
    pairs = compare(work.scored, finished, config.level, config.alpha)
    missing = arms_.missing_baselines(finished, config.not_run, config.incomplete)
    plateaus = reading.tuning_counts(choices)
    learning = [
        results.LearningCurve(*place, sorted(points, key=lambda point: fewest_first(point.fraction)))
        for place, points in sorted(work.points.items())
    ]
    results.write_results(
        out.path,
        results.Metrics(config.level, config.alpha, work.rows, config.num_resamples),
        results.Comparisons(
            pairs, multipliers(work.scored, finished, config.level, config.seed), missing,
            compare_pools(work.scored, cards, config.level, config.alpha),
        ),
        results.Curves(work.roc, work.reliability, learning, work.snapshots),
        results.Flow(work.flow, _subsets(choices), arms_.evaluated_encoders(cards, arms), plateaus,
                     config.incomplete),
    )  # fmt: skip
    compared = _compared(pairs)
    if not pairs:
        compared = f"nothing to compare ({arms_.why_none((arm.family for arm in finished), missing)})"
    swept = len(arms) - len(finished)
    summary = f"{len(finished)} arms on {', '.join(work.flow)}: {compared}"
    notes = [f"{summary} ({config.level * 100:g} % intervals over patients)", *_tuning_notes(plateaus)]
    notes += [f"{swept} snapshot{'s' * (swept > 1)} on validation images"] if swept else []
    for name, (lost, labelled) in work.lost.items():
        notes += [f"{lost} of {labelled} labelled test images of {name} are not in the store"] if lost else []
    left_out = [f"left out: {arm.name} ({arm.reason})" for arm in config.incomplete]
    return "; ".join([*notes, *arms_.upper_bounds(cards), *imported.notes(cards), *left_out])


@dataclass(frozen=True)
class _Imported:
    """Predictions of other tools: path -> rows of held-out images, and how many others there were."""

    files: Mapping[Path, tuple[pd.DataFrame, int]]

    @property
    def tables(self) -> list[pd.DataFrame]:
        return [table for table, _ in self.files.values()]

    def cards(self, known: Sequence[arms_.Card]) -> list[arms_.Card]:
        """A card of every arm and pretraining seed without one: nothing is known but its name."""
        given = {(card["arm"], card.get("seed", 0)) for card in known}
        found = {pair: None for t in self.tables for pair in zip(t["arm"], t["pretrain_seed"], strict=True)}
        return [
            {"arm": arm, "architecture": MODE, "family": MODE, "seed": int(seed)}
            for arm, seed in found
            if (arm, seed) not in given
        ]

    def notes(self, cards: Sequence[arms_.Card]) -> list[str]:
        unknown = sorted({card["arm"] for card in cards if card["family"] == MODE})
        notes = [
            f"whom {', '.join(unknown)} learned from is not known: make sure that it was no test patient"
        ]
        unused = sum(num for _, num in self.files.values())
        more = [f"{unused} imported rows of training or unsplit patients are not used"] if unused else []
        return (notes if unknown else []) + more


def _import(paths: Sequence[Path], manifest: Manifest, splits: Splits) -> _Imported:
    found = {path: imported_table(path) for path in paths}
    return _Imported({path: read_imported(file, manifest, splits) for path, file in found.items() if file})


def _complete(table: pd.DataFrame, incomplete: Sequence[results.IncompleteArm]) -> pd.DataFrame:
    """The rows of arms that are complete."""
    gone = [name for name in table["arm"].unique() if arms_.left_out(name, incomplete)]
    return table[~table["arm"].isin(gone)]


def _check_arms(arms: Sequence[ComparedArm], finished: Sequence[ComparedArm], config: Config) -> None:
    """Refuse an evaluation without a finished arm, and incomplete arms not named as on the cards."""
    known = {arm.architecture for arm in arms}
    for one in config.incomplete:
        alike = [name for name in known - {one.architecture} if name.endswith(f":{one.architecture}")]
        if alike:
            raise InputError(f"incomplete: '{one.architecture}' is '{alike[0]}' on the cards; name it so")
    if not arms:
        one = config.incomplete[0]
        raise InputError(f"every arm is incomplete, such as '{one.name}' ({one.reason}); nothing is left")
    if not finished:
        raise InputError(
            f"every arm among the predictions is a snapshot, such as '{arms[0].name}'; snapshots are shown "
            "beside finished arms only: add the predictions of one, such as the random arm"
        )


def _compared(pairs: Sequence[results.Comparison]) -> str:
    """Of the summary: "8 comparisons with a baseline: 5 better, 2 worse, 1 with no difference shown"."""
    better, worse = (sum(row.claim == claim for row in pairs) for claim in ("better", "worse"))
    gone = sum(row.p_holm is None or not math.isfinite(row.p_holm) for row in pairs)  # no p, no claim
    rest = len(pairs) - better - worse - gone
    return (
        f"{len(pairs)} comparison{'s' * (len(pairs) > 1)} with a baseline: {better} better, {worse} worse, "
        f"{rest} with no difference shown" + (f", {gone} not estimable" if gone else "")
    ) + "".join(f"; {text}" for text in reach_of_claims(pairs))


def _tuning_notes(plateaus: Sequence[results.TuningCount]) -> list[str]:
    """Of the summary, for each kind of note: 3 of 10 fine-tunings of critic-random stayed at chance."""
    kinds = {
        "num_plateau": reading.PLATEAU,
        "num_below_probe": "are worse on validation than a linear probe of their start",
        "num_kept_probe": "kept the linear probe that they started from",
        "num_best_at_end": "were best on validation at the end of their budget",
    }
    rows = [row for row in plateaus if not snapshot_of(row.arm)]
    runs = Counter[str]()
    for row in rows:
        runs[row.arm] += row.num_runs
    notes = []
    for key, words in kinds.items():
        nums = Counter[str]()
        for row in rows:
            nums[row.arm] += getattr(row, key)
        notes += [f"{num} of {runs[arm]} fine-tunings of {arm} {words}" for arm, num in nums.items() if num]
    return notes


@dataclass
class _Evaluation:
    """Rows, curves and counts of the tasks evaluated so far."""

    config: Config
    manifest: Manifest
    splits: Splits
    arms: dict[str, ComparedArm]
    images_seen: dict[str, int]  # by arm
    rows: list[results.MetricRow] = field(default_factory=list)
    scored: list[ArmScores] = field(default_factory=list)
    points: dict[tuple[str, str, str, str], list[results.LearningPoint]] = field(default_factory=dict)
    roc: list[results.RocCurve] = field(default_factory=list)
    reliability: list[results.ReliabilityCurve] = field(default_factory=list)
    snapshots: list[results.SnapshotCurve] = field(default_factory=list)
    flow: dict[str, results.TaskFlow] = field(default_factory=dict)
    lost: dict[str, tuple[int, int]] = field(default_factory=dict)  # test images not in the store, of all

    def task(
        self, name: str, tested: pd.DataFrame, table: pd.DataFrame, choices: pd.DataFrame, meter: Meter
    ) -> None:
        """Test images of finished arms; of snapshots, in the whole table, validation images."""
        task = find_task(name, self.manifest)
        known = truth(task, self.manifest)
        if self.config.store is not None:
            stored = set(Store.open(self.config.store).index["image_id"])
            labelled = int(self.splits.rows("test", known.patient_ids).sum())
            known = known.among(stored, self.config.store, "not in the store")
            self.lost[name] = labelled - int(self.splits.rows("test", known.patient_ids).sum()), labelled
        of = {part: np.flatnonzero(self.splits.rows(part, known.patient_ids)) for part in PARTS}
        drawn = {part: counts(known, rows) for part, rows in of.items()}
        self.flow[name] = results.TaskFlow(task.kind, list(known.class_names), known.exclusions, drawn)
        at = of["test"]
        if not at.size:
            raise InputError(f"task '{name}': no labelled image is in the test part; check the splits")
        patients, images = known.patient_ids[at], known.image_ids[at]
        draws = self.config.num_resamples, self.config.seed
        whole = scores.Sample(task.kind, known.class_names, patients, known.y[at], resample(patients, *draws))
        leakage.check_predicted(tested[tested["task"] == name], images, patients, self.manifest)
        parts = self._parts(known.rows[at])
        for group in reading.arm_predictions(tested, choices, name, images, known.class_names):
            for cohort, stratum, mask in parts:
                sample = whole if mask.all() else whole.only(mask)
                self._group(name, replace(group, p=group.p[:, mask]), sample, (cohort, stratum))
            self._curves(name, group, whole)
            meter.add(len(group.units))
        seen, level = self.images_seen, self.config.level
        self.snapshots += snapshot_curves(task, known, table, self.arms, seen, draws, level)

    def _parts(self, rows: NDArray[np.int64]) -> list[tuple[str, str, NDArray[np.bool_]]]:
        """(cohort, stratum, mask): all test images, then each cohort, then each stratum."""
        parts = [("all", "all", np.ones(len(rows), dtype=bool))]
        cohorts = self._by_value("cohort", rows) if "cohort" in self.manifest.table else {}
        if len(cohorts) > 1:
            parts += [(name, "all", mask) for name, mask in cohorts.items()]
        for column in self.config.strata:
            if column not in self.manifest.table:
                raise InputError(f"{self.manifest.path}: no column '{column}' to make strata of")
            values = self._by_value(column, rows)
            parts += [("all", f"{column}={value}", mask) for value, mask in values.items()]
        return parts

    def _by_value(self, column: str, rows: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
        """Which of the rows have each value of a column; one in several spellings is named by the first."""
        cells = self.manifest.table[column]
        named = cells.map(first_spellings(cells)).iloc[rows]
        return {value: (named == value).to_numpy(bool) for value in sorted(set(named) - {""})}

    def _group(self, task: str, group: ArmPredictions, sample: scores.Sample, place: tuple[str, str]) -> None:
        """Every metric of one arm, mode and fraction on the sample: rows, and results to compare."""
        chosen = _chosen(sample.kind, self.config)
        seeds = list(zip(group.p, group.thresholds, group.calibrated, strict=True))
        points = [scores.score(sample, q, t, chosen, False, calibrated) for q, t, calibrated in seeds]
        draws = [scores.score(sample, q, t, chosen, True, calibrated) for q, t, calibrated in seeds]
        for metric in points[0]:
            result = ArmScores(
                task, group.arm, group.mode, group.fraction, metric, group.units,
                np.array([point[metric][0] for point in points]),
                np.stack([draw[metric] for draw in draws], axis=1),
                scores.degrees_of_freedom(sample, metric, draws), sample.num_patients,
                float(np.mean(group.train_patients)),
            )  # fmt: skip
            has_threshold = not np.isnan(group.thresholds).any()
            self._metric(result, sample, place, scores.remark(sample, metric, has_threshold))

    def _metric(self, result: ArmScores, sample: scores.Sample, place: tuple[str, str], remark: str) -> None:
        scale, level = scores.scale_of(result.metric), self.config.level
        found = interval(result.values, result.draws, result.df_patients, level, scale, result.units)
        arm = self.arms[result.arm]
        pretraining = {unit[0] for unit in result.units}
        shared = (
            result.task, result.arm, arm.architecture, arm.family, result.mode, result.fraction, *place,
            result.metric, len(sample.y), sample.num_patients, scores.num_events(sample, result.metric),
        )  # fmt: skip
        notes = dict.fromkeys((remark, found.note if np.isfinite(found.value) else ""))
        note = "; ".join(filter(None, notes)) or found.note
        self.rows.append(results.MetricRow(
            *shared, "all", "all" if len(pretraining) > 1 else min(pretraining), found.value, found.low,
            found.high, found.sd_seeds, found.num_seeds, note,
        ))  # fmt: skip
        if place != ("all", "all"):
            return
        self.rows += [
            results.MetricRow(*shared, seed, pretrain_seed, float(value), None, None, None, 1, remark)
            for (pretrain_seed, seed), value in zip(result.units, result.values, strict=True)
        ]
        if result.metric in scores.COMPARED[sample.kind]:
            if np.isfinite(result.values).all():
                self.scored.append(result)
            curve = self.points.setdefault((result.task, result.arm, result.mode, result.metric), [])
            curve.append(results.LearningPoint(
                result.fraction, _rounded(result.train_patients), found.value, found.low, found.high,
                [float(value) for value in result.values],
            ))  # fmt: skip

    def _curves(self, task: str, group: ArmPredictions, sample: scores.Sample) -> None:
        shared = task, group.arm, group.mode, group.fraction
        weights, level = sample.weights[:_BAND_RESAMPLES], self.config.level
        classes = [1] if sample.kind == "binary" else range(len(sample.class_names))
        for k in classes:
            if sample.kind == "multilabel":
                known, label = sample.y[:, k] >= 0, sample.y[:, k]
            else:
                known, label = np.ones(len(sample.y), bool), (sample.y == k).astype(np.int64)
            if np.unique(label[known]).size < 2:
                continue
            band = curves.roc_band(label[known], list(group.p[:, known, k]), weights.T[known].T, level)
            self.roc.append(results.RocCurve(*shared, sample.class_names[k], curves.GRID, *band))
        if sample.kind != "multilabel":
            p = list(group.calibrated[:, :, 1] if sample.kind == "binary" else group.calibrated)
            found = curves.reliability(sample.y, p, sample.patients, weights, level)
            bins = [results.ReliabilityBin(**one) for one in found]
            self.reliability.append(results.ReliabilityCurve(*shared, bins))


def _chosen(kind: str, config: Config) -> tuple[str, ...]:
    known = scores.METRICS[kind]
    chosen = config.metrics.get(kind, known)
    wrong = [name for name in chosen if name not in known]
    if wrong:
        raise InputError(f"metrics.{kind}: no metric '{wrong[0]}'; known: {', '.join(known)}")
    compared = [name for name in scores.COMPARED[kind] if name not in chosen]
    return (*compared, *chosen)


def _subsets(choices: pd.DataFrame) -> list[results.LabelSubset]:
    """How many labels each task, fraction and seed had; arms share them, or the note says they do not."""
    rows = []
    for key, same in reading.grouped(choices, ["task", "fraction", "seed"]):
        task, fraction, seed = cast("tuple[str, float, int]", key)
        first = same.iloc[0]
        alike = len(same[list(reading.COUNTS)].drop_duplicates()) == 1
        notes = [] if alike else ["arms had different subsets"]
        if first["num_val_patients"] < FEW_VAL:
            notes.append("few validation patients: what is chosen on them is partly chance")
        drawn = {name: _rounded(first[name]) for name in reading.COUNTS}
        rows.append(results.LabelSubset(task, float(fraction), int(seed), **drawn, note="; ".join(notes)))
    return rows


def _rounded(value: float) -> int | None:
    return round(float(value)) if math.isfinite(value) else None
