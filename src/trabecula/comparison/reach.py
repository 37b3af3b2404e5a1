"""Whom claims are for: new seeds, or only the very models that were trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from trabecula.artifacts.results import Comparison
from trabecula.metrics.bootstrap import MIN_SEEDS, SPEAKS_OF, these_networks


def reach_of(row: Comparison) -> str:
    """ "these 3 trained networks of each arm", from the note; "" where a comparison is for new seeds.

    A comparison of few seeds without a note is one of an earlier version.
    """
    notes = row.note.split("; ")
    if row.num_seeds < MIN_SEEDS:
        notes.append(these_networks(row.num_seeds))
    first = next((text for text in notes if text.startswith(SPEAKS_OF)), "")
    return first.removeprefix(SPEAKS_OF).partition(":")[0]


def reach_of_claims(rows: Iterable[Comparison]) -> list[str]:
    """ "5 claims are for these 3 trained networks of each arm, not for new seeds", one for each reach."""
    found = Counter(reach for row in rows if row.claim != "none" and (reach := reach_of(row)))
    return [
        f"{num} claim{'s are' if num > 1 else ' is'} for {reach} only, not for new ones"
        for reach, num in found.items()
    ]
