"""How far a score depends on the pretraining pool: arms that differ in their pool and in nothing else."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trabecula.data.predictions import snapshot_of
from trabecula.metrics.compare import holm
from trabecula.metrics.contrasts import Arm, Result, claim, pair

Row = dict[str, Any]


def compare_pools(
    results: Sequence[Result], cards: Iterable[Mapping[str, Any]], level: float, alpha: float
) -> list[Row]:
    """Each arm of a smaller pool against the arm of the largest: paired differences, as between arms.

    Arms are held together that have network, start, method, its settings and the number of images seen in
    common: as many updates, on other images. The largest pool is the one of most patients. A family of
    Holm's adjustment is one task, mode, fraction and metric of such a group.

    Args:
        cards: of encoders, as `read_cards` gives them.
    """
    found = {(*result.place, result.arm): result for result in results}
    rows = []
    for group in _groups(cards):
        largest = Arm(group[0]["arm"], group[0]["architecture"], group[0]["family"])
        smaller = {card["arm"] for card in group if _pool(card) != _pool(group[0])}
        families: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for result in results:
            other = found.get((*result.place, largest.name))
            if result.arm in smaller and other is not None:
                rows.append(pair(result, other, largest, same=True, level=level))
                families[result.place].append(rows[-1])
        for family in families.values():
            for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
                row["p_holm"] = float(p)
                row["claim"] = claim(row, alpha)
    return rows


def _groups(cards: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Groups of cards that differ in their pool alone, one card an arm, that of the largest pool first."""
    groups: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for card in cards:
        if card.get("patients") and not snapshot_of(card["arm"]):
            alike = [card["architecture"], card["family"]]
            alike += [card.get(key) for key in ("init", "weights", "objective", "settings", "images_seen")]
            groups[json.dumps(alike, sort_keys=True)].setdefault(card["arm"], card)
    return [
        sorted(group.values(), key=lambda card: (-len(card["patients"]), card["arm"]))
        for group in groups.values()
        if len({_pool(card) for card in group.values()}) > 1
    ]


def _pool(card: Mapping[str, Any]) -> tuple[float, tuple[str, ...]]:
    return card.get("pool_fraction", 1.0), tuple(card.get("pool_cohorts") or ())
