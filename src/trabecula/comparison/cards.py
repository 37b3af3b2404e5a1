"""Encoders' cards as evaluation reads them: what each arm is, and what it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from trabecula.artifacts.encoder import read_encoder_card
from trabecula.artifacts.predictions import snapshot_of
from trabecula.comparison.contrasts import Arm
from trabecula.config import dump
from trabecula.errors import InputError

Row = dict[str, Any]


def read_cards(folders: tuple[Path, ...]) -> list[Row]:
    """The encoders' cards as plain values, their name as "arm": reading weights is not needed here.

    Raises:
        InputError: a folder without a card.
    """
    cards = [dump(read_encoder_card(folder)) for folder in folders]
    return [{**card, "arm": card["name"]} for card in cards]


def arms_of(cards: list[Row], table: pd.DataFrame) -> list[Arm]:
    """The arms among the predictions, described by their cards, by name.

    Raises:
        InputError: predictions without a card, or two unlike cards of one name.
    """
    known: dict[str, Arm] = {}
    for card in cards:
        arm = Arm(card["arm"], card["architecture"], card["family"])
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


def taught_by(card: Mapping[str, Any]) -> str:
    """ "labels of kl >= 2 of 1,234 training patients"; "" for a card whose pretraining saw no labels."""
    if not card.get("labels"):
        return ""
    num = card.get("num_labelled_patients") or 0  # cards of earlier versions do not say
    return f"labels of {card['labels']} of {f'{num:,} ' if num else ''}training patients"


def upper_bounds(cards: list[Row]) -> list[str]:
    """A sentence for each finished arm whose pretraining learned from labels."""
    taught = {card["arm"]: card for card in reversed(cards) if card.get("labels")}
    return [
        f"{name} learned from the {taught_by(card)}: an upper bound, no pretraining without labels"
        for name, card in sorted(taught.items())
        if not snapshot_of(name)
    ]


def flow_arms(cards: list[Row]) -> list[Row]:
    """What each encoder is and what it has seen, for people: by arm and pretraining seed."""
    rows = [
        {
            "arm": card["arm"], "architecture": card["architecture"], "family": card["family"],
            "objective": card.get("objective", ""), "images_seen": card.get("images_seen"),
            "pretrain_seed": card.get("seed"), "num_patients_seen": len(card.get("patients") or ()),
            "pool_fraction": card.get("pool_fraction", 1.0), "pool_cohorts": card.get("pool_cohorts") or [],
            "labels": card.get("labels") or "", "taught_by": taught_by(card),
        }
        for card in cards
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row["arm"], row["pretrain_seed"] or 0))
