"""The arms of an evaluation: what each is, which is whose control, and by how much they differ.

An arm is described by its encoder's card. It is compared with its baselines (`baselines_of`), its control
first: paired differences on the same patients and seeds, and label multipliers. Arms that differ in their
pretraining pool alone are compared as well (`compare_pools`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trabecula.artifacts.encoder import read_encoder_card
from trabecula.artifacts.label_budget import is_shots
from trabecula.artifacts.predictions import snapshot_of
from trabecula.artifacts.results import (
    Comparison,
    EvaluatedEncoder,
    IncompleteArm,
    LabelMultiplier,
    MissingBaseline,
)
from trabecula.config import dump
from trabecula.errors import InputError
from trabecula.metrics.bootstrap import (
    FEW_SEEDS,
    Unit,
    difference,
    has_enough_seeds,
    holm,
    label_multiplier,
    layout_of,
    resample_units,
)

Card = Mapping[str, Any]
Floats = NDArray[np.float64]
Pairs = tuple[Floats, Floats, Floats, Floats]
NAN = float("nan")
PUBLISHED = ("timm:", "torchvision:")  # architectures for which ImageNet weights can exist


@dataclass(frozen=True)
class ComparedArm:
    """An arm as comparisons see it."""

    name: str
    architecture: str
    family: str
    control: str | None = None
    """The random arm that this one is compared with first; None: it is the control itself, or has none."""
    control_reason: str = ""
    """Why it has none; "" of the control itself."""


def read_cards(folders: tuple[Path, ...]) -> list[Card]:
    """The encoders' cards as plain values, their name as "arm": reading weights is not needed here."""
    cards = [dump(read_encoder_card(folder)) for folder in folders]
    return [{**card, "arm": card["name"]} for card in cards]


def arms_of(cards: Sequence[Card], table: pd.DataFrame) -> list[ComparedArm]:
    """The arms among the predictions, by name, described by their cards; their controls are not decided."""
    known: dict[str, ComparedArm] = {}
    for card in cards:
        arm = ComparedArm(card["arm"], card["architecture"], card["family"])
        if known.setdefault(arm.name, arm) != arm:
            raise InputError(
                f"two encoders are called '{arm.name}' and differ in architecture or initialisation; "
                "an arm is one of each: give them other names"
            )
    names = sorted(table["arm"].unique())
    absent = [f"'{name}' has predictions and no encoder" for name in names if name not in known]
    given = {(card["arm"], card.get("seed", 0)) for card in cards}
    used = table[["arm", "pretrain_seed"]].drop_duplicates().sort_values(["arm", "pretrain_seed"])
    absent += [
        f"'{name}' has predictions with pretraining seed {seed} and no encoder of that seed"
        for name, seed in used.itertuples(index=False)
        if (name, seed) not in given
    ]
    if absent:
        raise InputError(
            f"arm {absent[0]}: what it is and which patients it saw is not known; add its encoder's folder "
            "to 'encoders'"
        )
    return [known[name] for name in names]


def left_out(name: str, incomplete: Collection[IncompleteArm]) -> bool:
    """Whether an arm, or the arm that a snapshot is of, is incomplete."""
    snapshot = snapshot_of(name)
    return any(arm.name in (name, snapshot and snapshot[0]) for arm in incomplete)


def decide_controls(
    arms: Iterable[ComparedArm], incomplete: Collection[IncompleteArm] = ()
) -> list[ComparedArm]:
    """The arms, each with its control. This is the only place where controls are decided.

    The control of an architecture is its first random arm by name among all that were planned. Where that one
    is `incomplete` no other random arm takes its place: the arms of the architecture have no control, as
    random weights trained in another way, with more augmentation say, answer another question.
    """
    arms = list(arms)
    random: dict[str, dict[str, str]] = defaultdict(dict)  # architecture -> random arm -> what it lacks
    planned = [(arm.name, arm.architecture, arm.family, "") for arm in arms]
    planned += [(arm.name, arm.architecture, arm.family, arm.reason) for arm in incomplete]
    for name, architecture, family, reason in planned:
        if family == "random" and not snapshot_of(name):
            random[architecture][name] = reason
    found = []
    for arm in arms:
        control, reason = min(random[arm.architecture].items(), default=("", ""))
        if not control:
            reason = "no random arm of this architecture"
        elif reason:
            reason = f"the control {control} is incomplete: {reason}"
        alone = reason or control == arm.name
        found.append(replace(arm, control=None if alone else control, control_reason=reason))
    return found


def baselines_of(arm: ComparedArm, arms: Sequence[ComparedArm]) -> list[ComparedArm]:
    """The control, other random arms of the same architecture, then ImageNet arms, the same network's first.

    A random arm has its control alone. Without a control no random arm is a baseline. A snapshot neither has
    nor is a baseline: it is the same arm at an earlier time.
    """
    if snapshot_of(arm.name):
        return []
    arms = [a for a in arms if not snapshot_of(a.name)]
    random = [a for a in arms if arm.control and a.family == "random" and a.architecture == arm.architecture]
    random.sort(key=lambda a: a.name != arm.control)
    if arm.family == "random":
        return random[:1]
    imagenet = [a for a in arms if a.family == "imagenet" and a.name != arm.name]
    imagenet.sort(key=lambda a: (a.architecture != arm.architecture, a.name))
    return random + (imagenet if arm.family != "imagenet" else [])


def missing_baselines(
    arms: Sequence[ComparedArm], left_out: Mapping[str, str] = {}, incomplete: Collection[IncompleteArm] = ()
) -> list[MissingBaseline]:
    """Architectures whose control or ImageNet arm is missing: no verdict within these.

    ImageNet weights exist for the architectures of timm and torchvision only; no other lacks them.
    `left_out`: arms that were planned and not run, with the reason; the one whose name holds family and
    architecture (`resnet18-imagenet`) gives it. `incomplete`: arms whose runs are not all there.
    """
    rows = []
    for family, name in (("random", "random"), ("imagenet", "ImageNet")):
        for architecture in sorted({arm.architecture for arm in arms}):
            if family == "imagenet" and not architecture.startswith(PUBLISHED):
                continue
            mine = [a for a in arms if a.architecture == architecture]
            there = any(a.family == family for a in mine)
            if there and (family == "imagenet" or not mine[0].control_reason):
                continue
            lost = [a for a in incomplete if (a.architecture, a.family) == (architecture, family)]
            network = architecture.rpartition(":")[2]
            reasons = [min(lost, key=lambda a: a.name).reason] if lost else []
            reasons += [why for arm, why in left_out.items() if network in arm and family in arm.lower()]
            reasons.append(f"no {name} arm of this architecture among the predictions")
            rows.append(MissingBaseline(family, architecture, reasons[0]))
    return rows


def why_none(families: Iterable[str], missing: Iterable[MissingBaseline]) -> str:
    """Why no arm of these families is compared with a baseline; `missing`: see `missing_baselines`."""
    kinds = set(families)
    if kinds <= {"random"}:
        return "every arm has random weights: there is no pretraining to judge"
    lacking = [f"{row.architecture}: {row.reason}" for row in missing if row.family == "random"]
    if not lacking and kinds <= {"random", "imagenet"}:
        return "no arm was pretrained here: there is no pretraining to judge"
    return "; ".join(lacking) or "no arm shares task, mode, fraction and metric with its baseline"


def taught_by(card: Card) -> str:
    """ "labels of kl >= 2 of 1,234 training patients"; "" for a card whose pretraining saw no labels."""
    if not card.get("labels"):
        return ""
    num = card.get("num_labelled_patients") or 0  # cards of earlier versions do not say
    return f"labels of {card['labels']} of {f'{num:,} ' if num else ''}training patients"


def upper_bounds(cards: Sequence[Card]) -> list[str]:
    """A sentence for each finished arm whose pretraining learned from labels."""
    taught = {card["arm"]: card for card in reversed(cards) if card.get("labels")}
    return [
        f"{name} learned from the {taught_by(card)}: an upper bound, not pretraining without labels"
        for name, card in sorted(taught.items())
        if not snapshot_of(name)
    ]


def evaluated_encoders(cards: Sequence[Card], arms: Iterable[ComparedArm]) -> list[EvaluatedEncoder]:
    """Every encoder of flow.json, by arm and pretraining seed; an arm without predictions has no control."""
    of = {arm.name: (arm.control, arm.control_reason) for arm in arms}
    rows = [
        EvaluatedEncoder(
            card["arm"], card["architecture"], card["family"], card.get("objective", ""),
            card.get("images_seen"), len(card.get("patients") or ()),
            *of.get(card["arm"], (None, "no predictions of this arm")), card.get("seed"),
            card.get("pool_fraction", 1.0), card.get("pool_cohorts") or [], card.get("labels") or "",
            taught_by(card),
        )
        for card in cards
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row.arm, row.pretrain_seed or 0))


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
    if paired is None:
        return row
    # of a macro AUROC each arm has its own, by the labels it spreads in, and either may spread the difference
    df = min(result.df_patients, other.df_patients)
    found = difference(*paired, df, level, units)
    return replace(
        row, difference=found.value, low=found.low, high=found.high, p=found.p, num_seeds=found.num_seeds,
        note="; ".join(text for text in (note, found.note) if text),
    )  # fmt: skip


def pair_seeds(a: ArmScores, b: ArmScores) -> tuple[Pairs | None, tuple[Unit, ...], str]:
    """(values, draws, values, draws) of the seeds that both have, these seeds, and a note on the rest.

    Pairs are (pretraining seed, seed) where both arms have the same ones. An arm of one pretraining seed,
    as ImageNet weights are, stands beside each pretraining of the other one. Otherwise each arm is averaged
    over its pretraining seeds first, and the pairs speak of these encoders.
    """
    a, b = _repeated(a, b), _repeated(b, a)
    if a.units == b.units:
        return (a.values, a.draws, b.values, b.draws), a.units, ""
    seeds = [{seed for _, seed in result.units} for result in (a, b)]
    common, left = sorted(seeds[0] & seeds[1]), len(seeds[0] ^ seeds[1])
    if not common:
        return None, (), "the arms share no seed"
    paired = (*_over_pretraining(a, common), *_over_pretraining(b, common))
    num = [len({unit[0] for unit in r.units}) for r in (a, b) if layout_of(r.units).kind != "plain"]
    notes = [f"{left} seeds that one arm lacks are left out"] if left else []
    notes += [f"speaks of these encoders, {' against '.join(map(str, num))}"] if num else []
    return paired, tuple((0, seed) for seed in common), "; ".join(notes)


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


def _over_pretraining(result: ArmScores, seeds: Sequence[int]) -> tuple[Floats, Floats]:
    """Values and draws of these seeds, each the mean over its pretrainings."""
    own = np.array([seed for _, seed in result.units])
    values = np.array([result.values[own == seed].mean() for seed in seeds])
    return values, np.stack([result.draws[:, own == seed].mean(axis=1) for seed in seeds], axis=1)


def multipliers(
    results: Sequence[ArmScores], arms: Sequence[ComparedArm], level: float, seed: int
) -> list[LabelMultiplier]:
    """Label multipliers of every arm and fraction against each baseline's learning curve.

    Without an interval where the arm, or a point of the curve, has too few seeds: bounds over patients alone
    hold the multiplier of new seeds in 68 to 82 % of studies at 95 %, not 95 (bench/null_claims.py).
    """
    curves: dict[tuple[Any, ...], list[ArmScores]] = defaultdict(list)

    def curve_of(result: ArmScores, arm: str) -> tuple[Any, ...]:
        """Shots are of all classes alike, parts of the labels as classes come: they make two curves."""
        return result.task, result.mode, result.metric, arm, is_shots(result.fraction)

    for result in results:
        curves[curve_of(result, result.arm)].append(result)
    rows = []
    for result in results:
        arm = next(a for a in arms if a.name == result.arm)
        for base in baselines_of(arm, arms):
            curve = curves.get(curve_of(result, base.name))
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
    values, draws = np.array([r.values.mean() for r in points]), [mixed(r, seed) for r in points]
    found = label_multiplier(
        [r.train_patients for r in points], values, np.stack(draws, axis=1), result.train_patients,
        float(result.values.mean()), mixed(result, seed), result.df_patients, level,
    )  # fmt: skip
    if not found.note and not all(has_enough_seeds(r.units) for r in (result, *points)):
        found = replace(found, low=NAN, high=NAN, note=FEW_SEEDS)
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
    """
    found = {(*result.place, result.arm): result for result in results}
    rows: list[Comparison] = []
    for group in _groups(cards):
        largest = ComparedArm(group[0]["arm"], group[0]["architecture"], group[0]["family"])
        smaller = {card["arm"] for card in group if _pool(card) != _pool(group[0])}
        why = _ambiguous(group)
        mine = [r for r in results if r.arm in smaller and (*r.place, largest.name) in found]
        pairs = [pair(r, found[*r.place, largest.name], largest, same=True, level=level) for r in mine]
        if why:
            pairs = [replace(row, difference=NAN, low=NAN, high=NAN, p=NAN, note=why) for row in pairs]
        rows += _adjusted(pairs, [result.place for result in mine], alpha)
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
