"""The verdict: each arm against the random arm of its architecture and against ImageNet arms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trabecula.artifacts.predictions import snapshot_of
from trabecula.metrics.bootstrap import resample_units
from trabecula.metrics.compare import difference, holm, label_multiplier
from trabecula.metrics.seeds import Unit, layout_of

Floats = NDArray[np.float64]
Row = dict[str, Any]

PUBLISHED = ("timm:", "torchvision:")  # architectures for which ImageNet weights can exist


@dataclass(frozen=True)
class Result:
    """A metric of one arm, task, mode and fraction: `values` (S,), `draws` (R, S), one a seed."""

    task: str
    arm: str
    mode: str
    fraction: float
    metric: str
    units: tuple[Unit, ...]
    values: Floats
    draws: Floats
    df_patients: float
    num_patients: int  # of the test part
    train_patients: float  # labelled, mean over seeds; NaN where not known

    @property
    def place(self) -> tuple[str, str, float, str]:
        """What two results must share to be compared."""
        return self.task, self.mode, self.fraction, self.metric


@dataclass(frozen=True)
class Arm:
    """An arm as comparisons see it."""

    name: str
    architecture: str
    family: str
    lost_control: str = ""  # why the control planned for its architecture is gone; "": it is not


def baselines_of(arm: Arm, arms: Sequence[Arm]) -> list[Arm]:
    """The random arms of the same architecture, then ImageNet arms, the same architecture first.

    Of several random arms of one architecture the first is the control of the others: random weights
    trained in another way, with more augmentation say, answer what pretraining is worth beside that. Where
    the planned control is gone no other takes its place, and none is a random baseline.
    A snapshot has no baseline and is none: it is a point on its arm's way, not another try.
    """
    if snapshot_of(arm.name):
        return []
    arms = [a for a in arms if not snapshot_of(a.name)]
    random = [a for a in arms if a.family == "random" and a.architecture == arm.architecture]
    if arm.lost_control:
        random = []
    if arm.family == "random":
        return [] if arm in random[:1] else random[:1]
    imagenet = [a for a in arms if a.family == "imagenet" and a.name != arm.name]
    imagenet.sort(key=lambda a: (a.architecture != arm.architecture, a.name))
    return random + (imagenet if arm.family != "imagenet" else [])


def not_run(arms: Sequence[Arm], left_out: Mapping[str, str] | None = None) -> list[Row]:
    """Architectures whose control or ImageNet arm is missing: no verdict within these.

    ImageNet weights exist for the architectures of timm and torchvision only; no other lacks them.

    Args:
        left_out: arms that were planned and not run, with the reason; the one whose name holds family
            and architecture (`resnet18-imagenet`) gives the reason.
    """
    rows = []
    for family, name in (("random", "random"), ("imagenet", "ImageNet")):
        for architecture in sorted({arm.architecture for arm in arms}):
            if family == "imagenet" and not architecture.startswith(PUBLISHED):
                continue
            mine = [a for a in arms if a.architecture == architecture]
            lost = mine[0].lost_control if family == "random" else ""
            if lost or not any(a.family == family for a in mine):
                reason = f"no {name} arm of this architecture among the predictions"
                network = architecture.rpartition(":")[2]
                known = [
                    why for arm, why in (left_out or {}).items() if network in arm and family in arm.lower()
                ]
                row = {
                    "family": family,
                    "architecture": architecture,
                    "reason": lost or (known[0] if known else reason),
                }
                rows.append(row)
    return rows


def why_none(families: Iterable[str], missing: Iterable[Row]) -> str:
    """Why no arm stands beside a baseline, in a few words.

    Args:
        families: of the arms.
        missing: rows of `not_run`.
    """
    kinds = set(families)
    if kinds <= {"random"}:
        return "every arm has random weights: there is no pretraining to judge"
    lacking = [f"{row['architecture']}: {row['reason']}" for row in missing if row["family"] == "random"]
    if not lacking and kinds <= {"random", "imagenet"}:
        return "no arm was pretrained here: there is no pretraining to judge"
    return "; ".join(lacking) or "no arm shares task, mode, fraction and metric with its baseline"


def compare(results: Sequence[Result], arms: Sequence[Arm], level: float, alpha: float) -> list[Row]:
    """Paired differences with intervals at `level`; a claim where Holm's adjusted p is below `alpha`.

    A family of comparisons is the arms held against one kind of baseline: one task, mode, fraction,
    metric, kind of baseline, and within or across architectures. Random arms trained in another way make
    families of their own, against the control and as baselines: none makes the control a stricter one.
    """
    found = {(*result.place, result.arm): result for result in results}
    rows = []
    families: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for result in results:
        arm = next(a for a in arms if a.name == result.arm)
        bases = baselines_of(arm, arms)
        random = [base.name for base in bases if base.family == "random"]
        for base in bases:
            other = found.get((*result.place, base.name))
            if other is not None:
                same = base.architecture == arm.architecture
                rows.append(pair(result, other, base, same, level))
                rank = random.index(base.name) if base.family == "random" else 0  # the control is 0
                kind = (base.family, same, rank, arm.family == "random")
                families[(*result.place, *kind)].append(rows[-1])
    for family in families.values():
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = float(p)
            row["claim"] = claim(row, alpha)
    return rows


def claim(row: Row, alpha: float) -> str:
    """ "better" or "worse" where Holm's adjusted p is below `alpha`, else "none"."""
    sure = row["p_holm"] < alpha
    return ("better" if row["difference"] > 0 else "worse") if sure else "none"


def pair(result: Result, other: Result, base: Arm, same: bool, level: float) -> Row:
    """The paired difference of an arm's result and its baseline's, before Holm's adjustment."""
    row: Row = {
        "task": result.task,
        "mode": result.mode,
        "fraction": result.fraction,
        "metric": result.metric,
        "arm": result.arm,
        "baseline": base.name,
        "baseline_family": base.family,
        "same_architecture": same,
        "num_patients": result.num_patients,
    }
    paired, units, note = pair_seeds(result, other)
    if not paired[0].size:
        nan = float("nan")
        return row | {"difference": nan, "low": nan, "high": nan, "p": nan, "num_seeds": 0, "note": note}
    # of a macro AUROC each arm has its own, by the labels it spreads in, and either may spread the difference
    df = min(result.df_patients, other.df_patients)
    found = difference(*paired, df, level, units)
    return row | {
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "num_seeds": found.num_seeds,
        "note": "; ".join(text for text in (note, found.note) if text),
    }


Pairs = tuple[Floats, Floats, Floats, Floats]


def pair_seeds(a: Result, b: Result) -> tuple[Pairs, tuple[Unit, ...], str]:
    """(values, draws, values, draws) of the seeds that both have, these seeds, and a note on the rest.

    Pairs are (pretraining seed, seed) where both arms have the same ones. An arm of one pretraining seed,
    as ImageNet weights are, stands beside each pretraining of the other one. Otherwise each arm is averaged
    over its pretraining seeds first, and the pairs speak of these encoders.
    """
    a, b = _beside(a, b), _beside(b, a)
    if a.units == b.units:
        return (a.values, a.draws, b.values, b.draws), a.units, ""
    by_seed = [_over_pretraining(result) for result in (a, b)]
    common = sorted(by_seed[0].keys() & by_seed[1].keys())
    left = len(by_seed[0].keys() ^ by_seed[1].keys())
    if not common:
        empty = np.empty(0)
        return (empty, empty, empty, empty), (), "the arms share no seed"
    (av, ad), (bv, bd) = (
        (np.array([s[seed][0] for seed in common]), np.stack([s[seed][1] for seed in common], axis=1))
        for s in by_seed
    )
    num = [len({unit[0] for unit in r.units}) for r in (a, b) if layout_of(r.units).kind != "plain"]
    told = [f"{left} seeds that one arm lacks are left out"] if left else []
    told += [f"speaks of these encoders, {' against '.join(map(str, num))}"] if num else []
    return (av, ad, bv, bd), tuple((0, seed) for seed in common), "; ".join(told)


def _beside(result: Result, other: Result) -> Result:
    """The result, repeated for each pretraining of the other one where it has one and both the same seeds."""
    labels = [seed for _, seed in result.units]
    at = {seed: i for i, seed in enumerate(labels)}
    one = len({unit[0] for unit in result.units}) == 1
    layout = layout_of(other.units)
    if not one or layout.kind in ("plain", "models") or {seed for _, seed in other.units} != set(labels):
        return result
    columns = np.array([at[seed] for _, seed in other.units])
    return replace(result, units=other.units, values=result.values[columns], draws=result.draws[:, columns])


def _over_pretraining(result: Result) -> dict[int, tuple[float, Floats]]:
    seeds = np.array([seed for _, seed in result.units])
    return {
        int(seed): (float(result.values[seeds == seed].mean()), result.draws[:, seeds == seed].mean(axis=1))
        for seed in np.unique(seeds)
    }


def multipliers(results: Sequence[Result], arms: Sequence[Arm], level: float, seed: int) -> list[Row]:
    """Label multipliers of every arm and fraction against each baseline's learning curve."""
    curves: dict[tuple[str, str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        curves[(result.task, result.mode, result.metric, result.arm)].append(result)
    rows = []
    for result in results:
        arm = next(a for a in arms if a.name == result.arm)
        for base in baselines_of(arm, arms):
            curve = curves.get((result.task, result.mode, result.metric, base.name))
            if curve:
                rows.append(_multiplier(result, curve, base.name, level, seed))
    return rows


def _multiplier(result: Result, curve: Sequence[Result], baseline: str, level: float, seed: int) -> Row:
    points = sorted((r for r in curve if np.isfinite(r.train_patients)), key=lambda r: r.train_patients)
    row: Row = {
        "task": result.task,
        "mode": result.mode,
        "metric": result.metric,
        "arm": result.arm,
        "baseline": baseline,
        "fraction": result.fraction,
    }
    if not points or not np.isfinite(result.train_patients):
        nan = float("nan")
        note = "the number of training patients is not recorded"
        return row | {"value": nan, "low": nan, "high": nan, "censored": "", "note": note}
    found = label_multiplier(
        [r.train_patients for r in points],
        np.array([r.values.mean() for r in points]),
        np.stack([mixed(r, seed) for r in points], axis=1),
        result.train_patients,
        float(result.values.mean()),
        mixed(result, seed),
        result.df_patients,
        level,
    )
    low = float("nan") if found.low == 0 else found.low  # the curve ends first: no bound on that side
    return row | {
        "value": found.value, "low": low, "high": found.high, "censored": found.censored, "note": found.note,
    }  # fmt: skip


def mixed(result: Result, seed: int) -> Floats:
    """(R,) the mean over seeds under draws of patients and of the seeds that an interval is over."""
    weights = resample_units(result.units, len(result.draws), seed)
    mean: Floats = (result.draws * weights).sum(axis=1)
    return mean


def learning_curves(summaries: Mapping[tuple[str, str, str, str], Sequence[Row]]) -> list[Row]:
    """Learning curves from the rows over all seeds, grouped by (task, arm, mode, metric)."""
    return [
        {
            "task": task, "arm": arm, "mode": mode, "metric": metric,
            "points": sorted(points, key=lambda point: float(point["fraction"])),
        }
        for (task, arm, mode, metric), points in sorted(summaries.items())
    ]  # fmt: skip
