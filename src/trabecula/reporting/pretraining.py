"""How the encoders were trained: loss, collapse and neighbours as `pretrain` measured them; a line each.

Reads training.json and the card of every run that trained an encoder; computes no statistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trabecula.reporting.formats import Cell, Table
from trabecula.reporting.results import Row, read_json
from trabecula.reporting.wording import count, number

_MEASURES = {
    "monitor/rank": ("Effective rank", 1),
    "monitor/spread": ("Spread", 3),
    "monitor/knn": ("Neighbours", 3),
}


@dataclass(frozen=True)
class Pretrainings:
    """A row a run, and a sentence for everything that was wrong."""

    table: Table
    wrong: list[str]


def read_pretrainings(folders: Sequence[Path]) -> Pretrainings | None:
    """Of these runs, those that trained an encoder; None where there is none.

    Raises:
        InputError: training.json or a card that is no JSON object.
    """
    found = []
    for folder in folders:
        if (folder / "training.json").exists() and (folder / "encoder.json").exists():
            card = read_json(folder / "encoder.json", "`trabecula pretrain`")
            found.append((card, read_json(folder / "training.json", "`trabecula pretrain`")))
    if not found:
        return None
    found.sort(key=lambda pair: (str(pair[0].get("name")), pair[0].get("seed") or 0))
    wrong = [sentence for card, training in found for sentence in _wrong(card, training)]
    columns = ("Arm", "Seed", "Images", "Loss", *(name for name, _ in _MEASURES.values()))
    note = (
        "From the first measurement to the last: a loss begins with its mean up to the first point, the "
        "others before training. Effective rank: directions that features of pool images use. Spread: 1 "
        "without order, 0 where all features are the same. Neighbours: balanced accuracy of the nearest "
        "images of other training patients."
    )
    rows = [_row(card, training) for card, training in found]
    return Pretrainings(Table("How the encoders were trained", columns, rows, note, heads=2), wrong)


def _row(card: Row, training: dict[str, Any]) -> tuple[Cell, ...]:
    points: list[Row] = training.get("points") or []
    losses = [name for name in (points[0] if points else {}) if name.endswith("/loss")]
    shown = "; ".join(
        f"{name.removesuffix('/loss')} {_from_to([p[name] for p in points if name in p], 3)}"
        for name in losses
    )
    measured = [training.get("start") or {}, *points]
    cells = [
        Cell(_from_to([row[key] for row in measured if key in row], digits))
        for key, (_, digits) in _MEASURES.items()
    ]
    images = count(points[-1]["images"]) if points else "–"
    head = (Cell(str(card.get("name"))), Cell(str(card.get("seed", "–"))), Cell(images))
    return (*head, Cell(shown or "–"), *cells)


def _from_to(values: Sequence[float], digits: int) -> str:
    """ "83.1 → 41.2"; one value alone as it is."""
    ends = [values[0], values[-1]] if len(values) > 1 else values
    return " → ".join(number(value, digits) for value in ends) or "–"


def _wrong(card: Row, training: dict[str, Any]) -> list[str]:
    said = []
    for finding in training.get("findings") or ():
        first, last = count(finding["first"]), count(finding["last"])
        when = f"at {first} images" if first == last else f"from {first} to {last} images"
        said.append(f"{card.get('name')}, seed {card.get('seed', '–')}, {when}: {finding['text']}.")
    return said
