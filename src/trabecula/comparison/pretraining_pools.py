"""How far a score depends on the pretraining pool: arms that differ in their pool and in nothing else."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trabecula.artifacts.predictions import snapshot_of
from trabecula.comparison.contrasts import Arm, Result, claim, pair
from trabecula.metrics.compare import holm

Row = dict[str, Any]


_ALIKE = (
    "architecture", "channels", "size", "stem", "pool", "family", "init", "weights", "parent", "objective",
    "settings", "store", "preprocessing", "images_seen", "batch_size",
)  # fmt: skip


def compare_pools(
    results: Sequence[Result], cards: Iterable[Mapping[str, Any]], level: float, alpha: float
) -> list[Row]:
    """Each arm of a smaller pool against the arm of the largest: paired differences, as between arms.

    Arms are held together that have network, start, store, method, its settings, the batch and the number
    of images seen in common: as many updates, on other images. Arms that learned from labels are left out.
    The largest pool is the one of most patients. A family of Holm's adjustment is one task, mode, fraction
    and metric of such a group. Where two arms of a group have the same pool they differ in something else,
    fine-tuning say, and nobody knows which one to hold the others against: rows are without figures then,
    and the note says why.

    Args:
        cards: of encoders, as `read_cards` gives them.
    """
    found = {(*result.place, result.arm): result for result in results}
    rows = []
    for group in _groups(cards):
        largest = Arm(group[0]["arm"], group[0]["architecture"], group[0]["family"])
        smaller = {card["arm"] for card in group if _pool(card) != _pool(group[0])}
        why = _ambiguous(group)
        families: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for result in results:
            other = found.get((*result.place, largest.name))
            if result.arm in smaller and other is not None:
                row = pair(result, other, largest, same=True, level=level)
                rows.append(row | _NOTHING | {"note": why} if why else row)
                families[result.place].append(rows[-1])
        for family in families.values():
            for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
                row["p_holm"] = float(p)
                row["claim"] = claim(row, alpha)
    return rows


_NOTHING = dict.fromkeys(("difference", "low", "high", "p"), float("nan"))


def _ambiguous(group: Sequence[Mapping[str, Any]]) -> str:
    """Why no arm of the group can be said to differ in its pool alone; "" where each pool has one arm."""
    arms: dict[Any, list[str]] = defaultdict(list)
    for card in group:
        arms[_pool(card)].append(card["arm"])
    same = next((names for names in arms.values() if len(names) > 1), [])
    return f"not compared: {' and '.join(same)} have the same pool and differ in something else" * bool(same)


def _groups(cards: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Groups of arms that differ in their pool alone, one card an arm, that of the largest pool first.

    Where the pretraining seeds of an arm differ in what should be alike (each started from an encoder of its
    own, say) the arms of a group have the same seeds, alike one by one.
    """
    arms: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for card in cards:
        arms[card["arm"]].append(card)
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
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


def _known(card: Mapping[str, Any]) -> bool:
    """Whether the card tells of a pool of images without labels, and of all that it started from."""
    started = card.get("init") != "encoder" or card.get("parent")
    return bool(card.get("patients") and not card.get("labels") and started)


def _pool(card: Mapping[str, Any]) -> tuple[float, tuple[str, ...]]:
    return card.get("pool_fraction", 1.0), tuple(card.get("pool_cohorts") or ())
