"""Paired differences of arms and their baselines, label multipliers, and differences between pools."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trabecula.artifacts.predictions import snapshot_of
from trabecula.artifacts.results import Comparison, LabelMultiplier
from trabecula.comparison.arms import Card, ComparedArm, baselines_of
from trabecula.metrics.bootstrap import Unit, difference, holm, label_multiplier, layout_of, resample_units

Floats = NDArray[np.float64]
NAN = float("nan")


@dataclass(frozen=True)
class ArmScores:
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


def compare(
    results: Sequence[ArmScores], arms: Sequence[ComparedArm], level: float, alpha: float
) -> list[Comparison]:
    """Paired differences with intervals at `level`; a claim where Holm's adjusted p is below `alpha`.

    A family of comparisons is the arms held against one kind of baseline: one task, mode, fraction,
    metric, kind of baseline, and within or across architectures. Random arms trained in another way make
    families of their own, against the control and as baselines: none makes the control a stricter one.
    """
    found = {(*result.place, result.arm): result for result in results}
    rows, kinds = [], []
    for result in results:
        arm = next(a for a in arms if a.name == result.arm)
        bases = baselines_of(arm, arms)
        random = [base.name for base in bases if base.family == "random"]
        for base in bases:
            other = found.get((*result.place, base.name))
            if other is not None:
                same = base.architecture == arm.architecture
                rank = random.index(base.name) if base.family == "random" else 0  # the control is 0
                rows.append(pair(result, other, base, same, level))
                kinds.append((*result.place, base.family, same, rank, arm.family == "random"))
    return _adjusted(rows, kinds, alpha)


def _adjusted(rows: Sequence[Comparison], kinds: Sequence[Any], alpha: float) -> list[Comparison]:
    """The rows with Holm's adjusted p within each kind, and the claims."""
    families: dict[Any, list[int]] = defaultdict(list)
    for i, kind in enumerate(kinds):
        families[kind].append(i)
    adjusted = list(rows)
    for members in families.values():
        for i, p in zip(members, holm(np.array([rows[i].p for i in members], float)), strict=True):
            gap = rows[i].difference or 0.0
            claim = ("better" if gap > 0 else "worse") if p < alpha else "none"
            adjusted[i] = replace(rows[i], p_holm=float(p), claim=claim)
    return adjusted


def pair(result: ArmScores, other: ArmScores, base: ComparedArm, same: bool, level: float) -> Comparison:
    """The paired difference of an arm's result and its baseline's, before Holm's adjustment."""
    paired, units, note = pair_seeds(result, other)
    row = Comparison(
        result.task, result.mode, result.fraction, result.metric, result.arm, base.name, base.family, same,
        result.num_patients, NAN, NAN, NAN, NAN, 0, NAN, "none", note,
    )  # fmt: skip
    if not paired[0].size:
        return row
    # of a macro AUROC each arm has its own, by the labels it spreads in, and either may spread the difference
    df = min(result.df_patients, other.df_patients)
    found = difference(*paired, df, level, units)
    return replace(
        row, difference=found.value, low=found.low, high=found.high, p=found.p, num_seeds=found.num_seeds,
        note="; ".join(text for text in (note, found.note) if text),
    )  # fmt: skip


Pairs = tuple[Floats, Floats, Floats, Floats]


def pair_seeds(a: ArmScores, b: ArmScores) -> tuple[Pairs, tuple[Unit, ...], str]:
    """(values, draws, values, draws) of the seeds that both have, these seeds, and a note on the rest.

    Pairs are (pretraining seed, seed) where both arms have the same ones. An arm of one pretraining seed,
    as ImageNet weights are, stands beside each pretraining of the other one. Otherwise each arm is averaged
    over its pretraining seeds first, and the pairs speak of these encoders.
    """
    a, b = _repeated(a, b), _repeated(b, a)
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
    notes = [f"{left} seeds that one arm lacks are left out"] if left else []
    notes += [f"speaks of these encoders, {' against '.join(map(str, num))}"] if num else []
    return (av, ad, bv, bd), tuple((0, seed) for seed in common), "; ".join(notes)


def _repeated(result: ArmScores, other: ArmScores) -> ArmScores:
    """The result, repeated for each pretraining of the other one where it has one and both the same seeds."""
    labels = [seed for _, seed in result.units]
    at = {seed: i for i, seed in enumerate(labels)}
    one = len({unit[0] for unit in result.units}) == 1
    layout = layout_of(other.units)
    if not one or layout.kind in ("plain", "models") or {seed for _, seed in other.units} != set(labels):
        return result
    columns = np.array([at[seed] for _, seed in other.units])
    return replace(result, units=other.units, values=result.values[columns], draws=result.draws[:, columns])


def _over_pretraining(result: ArmScores) -> dict[int, tuple[float, Floats]]:
    seeds = np.array([seed for _, seed in result.units])
    return {
        int(seed): (float(result.values[seeds == seed].mean()), result.draws[:, seeds == seed].mean(axis=1))
        for seed in np.unique(seeds)
    }


def multipliers(
    results: Sequence[ArmScores], arms: Sequence[ComparedArm], level: float, seed: int
) -> list[LabelMultiplier]:
    """Label multipliers of every arm and fraction against each baseline's learning curve."""
    curves: dict[tuple[str, str, str, str], list[ArmScores]] = defaultdict(list)
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


def _multiplier(
    result: ArmScores, curve: Sequence[ArmScores], baseline: str, level: float, seed: int
) -> LabelMultiplier:
    points = sorted((r for r in curve if np.isfinite(r.train_patients)), key=lambda r: r.train_patients)
    place = result.task, result.mode, result.metric, result.arm, baseline, result.fraction
    if not points or not np.isfinite(result.train_patients):
        note = "the number of training patients is not recorded"
        return LabelMultiplier(*place, NAN, NAN, NAN, "", note)
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
    low = NAN if found.low == 0 else found.low  # the curve ends first: no bound on that side
    return LabelMultiplier(*place, found.value, low, found.high, found.censored, found.note)


def mixed(result: ArmScores, seed: int) -> Floats:
    """(R,) the mean over seeds under draws of patients and of the seeds that an interval is over."""
    weights = resample_units(result.units, len(result.draws), seed)
    mean: Floats = (result.draws * weights).sum(axis=1)
    return mean


_ALIKE = (
    "architecture", "channels", "size", "stem", "pool", "family", "init", "weights", "parent", "objective",
    "settings", "store", "preprocessing", "images_seen", "batch_size",
)  # fmt: skip


def compare_pools(
    results: Sequence[ArmScores], cards: Iterable[Card], level: float, alpha: float
) -> list[Comparison]:
    """Each arm of a smaller pool against the arm of the largest: paired differences, as between arms.

    Arms are held together that have network, start, store, method, its settings, the batch and the number
    of images seen in common: as many updates, on other images. Arms that learned from labels are left out.
    The largest pool is the one of most patients. A family of Holm's adjustment is one task, mode, fraction
    and metric of such a group. Where two arms of a group have the same pool they differ in something else,
    fine-tuning say, and which of them the others should be compared with is not known: rows are without
    figures then, and the note says why.

    Args:
        cards: of encoders, as `read_cards` gives them.
    """
    found = {(*result.place, result.arm): result for result in results}
    rows: list[Comparison] = []
    for group in _groups(cards):
        largest = ComparedArm(group[0]["arm"], group[0]["architecture"], group[0]["family"])
        smaller = {card["arm"] for card in group if _pool(card) != _pool(group[0])}
        why = _ambiguous(group)
        mine, places = [], []
        for result in results:
            other = found.get((*result.place, largest.name))
            if result.arm in smaller and other is not None:
                row = pair(result, other, largest, same=True, level=level)
                if why:
                    row = replace(row, difference=NAN, low=NAN, high=NAN, p=NAN, note=why)
                mine.append(row)
                places.append(result.place)
        rows += _adjusted(mine, places, alpha)
    return rows


def _ambiguous(group: Sequence[Card]) -> str:
    """Why no arm of the group can be said to differ in its pool alone; "" where each pool has one arm."""
    arms: dict[Any, list[str]] = defaultdict(list)
    for card in group:
        arms[_pool(card)].append(card["arm"])
    same = next((names for names in arms.values() if len(names) > 1), [])
    return f"not compared: {' and '.join(same)} have the same pool and differ in something else" * bool(same)


def _groups(cards: Iterable[Card]) -> list[list[Card]]:
    """Groups of arms that differ in their pool alone, one card an arm, that of the largest pool first.

    Where the pretraining seeds of an arm differ in what should be alike (each started from an encoder of its
    own, say) the arms of a group have the same seeds, alike one by one.
    """
    arms: dict[str, list[Card]] = defaultdict(list)
    for card in cards:
        arms[card["arm"]].append(card)
    groups: dict[str, list[Card]] = defaultdict(list)
    for name, own in arms.items():
        if snapshot_of(name) or not all(_known(card) for card in own):
            continue
        alike = {str(card.get("seed", 0)): [card.get(key) for key in _ALIKE] for card in own}
        first = next(iter(alike.values()))
        key = {"": first} if all(values == first for values in alike.values()) else alike
        groups[json.dumps(key, sort_keys=True)].append(own[0])
    return [
        sorted(group, key=lambda card: (-len(card["patients"]), card["arm"]))
        for group in groups.values()
        if len({_pool(card) for card in group}) > 1
    ]


def _known(card: Card) -> bool:
    """Whether the card names the patients of a pool without labels, and all that it started from."""
    started = card.get("init") != "encoder" or card.get("parent")
    return bool(card.get("patients") and not card.get("labels") and started)


def _pool(card: Card) -> tuple[float, tuple[str, ...]]:
    return card.get("pool_fraction", 1.0), tuple(card.get("pool_cohorts") or ())
