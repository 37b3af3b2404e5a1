"""The arms of an evaluation: what each is by its encoder's card, and which arm is whose control."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from trabecula.artifacts.encoder import read_encoder_card
from trabecula.artifacts.predictions import snapshot_of
from trabecula.artifacts.results import EvaluatedEncoder, IncompleteArm, MissingBaseline
from trabecula.config import dump
from trabecula.errors import InputError

Card = Mapping[str, Any]

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
    """The encoders' cards as plain values, their name as "arm": reading weights is not needed here.

    Raises:
        InputError: a folder without a card.
    """
    cards = [dump(read_encoder_card(folder)) for folder in folders]
    return [{**card, "arm": card["name"]} for card in cards]


def arms_of(cards: Sequence[Card], table: pd.DataFrame) -> list[ComparedArm]:
    """The arms among the predictions, described by their cards, by name; their controls are not decided.

    Raises:
        InputError: predictions without a card, or two unlike cards of one name.
    """
    known: dict[str, ComparedArm] = {}
    for card in cards:
        arm = ComparedArm(card["arm"], card["architecture"], card["family"])
        if known.setdefault(arm.name, arm) != arm:
            raise InputError(
                f"two encoders are called '{arm.name}' and differ in architecture or initialisation; "
                "an arm is one of each: give them other names"
            )
    names = sorted(table["arm"].unique())
    absent = [name for name in names if name not in known]
    if absent:
        raise InputError(
            f"arm '{absent[0]}' has predictions and no encoder: what it is and which patients it saw is "
            "not known; add its encoder's folder to 'encoders'"
        )
    given = {(card["arm"], card.get("seed", 0)) for card in cards}
    used = table[["arm", "pretrain_seed"]].drop_duplicates().sort_values(["arm", "pretrain_seed"])
    for arm_name, seed in used.itertuples(index=False):
        if (arm_name, seed) not in given:
            raise InputError(
                f"arm '{arm_name}' has predictions with pretraining seed {seed} and no encoder of that seed: "
                "which patients it saw is not known; add its encoder's folder to 'encoders'"
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
    is incomplete no other random arm takes its place: the arms of the architecture have no control, as
    random weights trained in another way, with more augmentation say, answer another question.

    Args:
        arms: those whose runs are all there. incomplete: planned arms of which runs are missing.
    """
    arms = list(arms)
    random: dict[str, dict[str, str]] = {}  # architecture -> random arm -> why it is incomplete
    planned = [(arm.name, arm.architecture, arm.family, "") for arm in arms]
    planned += [(arm.name, arm.architecture, arm.family, arm.reason) for arm in incomplete]
    for name, architecture, family, reason in planned:
        if family == "random" and not snapshot_of(name):
            random.setdefault(architecture, {})[name] = reason
    found = []
    for arm in arms:
        mine = random.get(arm.architecture)
        if not mine:
            found.append(replace(arm, control=None, control_reason="no random arm of this architecture"))
            continue
        first = min(mine)
        if mine[first]:
            found.append(
                replace(arm, control=None, control_reason=f"the control {first} is incomplete: {mine[first]}")
            )
        else:
            found.append(replace(arm, control=None if arm.name == first else first))
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
    arms: Sequence[ComparedArm],
    left_out: Mapping[str, str] | None = None,
    incomplete: Collection[IncompleteArm] = (),
) -> list[MissingBaseline]:
    """Architectures whose control or ImageNet arm is missing: no verdict within these.

    ImageNet weights exist for the architectures of timm and torchvision only; no other lacks them.

    Args:
        left_out: arms that were planned and not run, with the reason; the one whose name holds family
            and architecture (`resnet18-imagenet`) gives the reason.
        incomplete: arms whose runs are not all there.
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
            known = [min(lost, key=lambda a: a.name).reason] if lost else []
            known += [
                why for arm, why in (left_out or {}).items() if network in arm and family in arm.lower()
            ]
            reason = f"no {name} arm of this architecture among the predictions"
            rows.append(MissingBaseline(family, architecture, known[0] if known else reason))
    return rows


def why_none(families: Iterable[str], missing: Iterable[MissingBaseline]) -> str:
    """Why no arm is compared with a baseline, in a few words.

    Args:
        families: of the arms.
        missing: see `missing_baselines`.
    """
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
    of = {arm.name: arm for arm in arms}
    rows = [
        EvaluatedEncoder(
            card["arm"], card["architecture"], card["family"], card.get("objective", ""),
            card.get("images_seen"), len(card.get("patients") or ()),
            of[card["arm"]].control if card["arm"] in of else None,
            of[card["arm"]].control_reason if card["arm"] in of else "no predictions of this arm",
            card.get("seed"), card.get("pool_fraction", 1.0), card.get("pool_cohorts") or [],
            card.get("labels") or "", taught_by(card),
        )
        for card in cards
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row.arm, row.pretrain_seed or 0))
