"""The protocol's own noise: what draws of a few labels do to a value, and to what is chosen on validation.

Rajamohan et al. 2026 draw the validation part as small as the training part (section 2.5.1), so with 1 % of
the labels settings and checkpoints are chosen on a handful of patients. Lowest and highest are looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trabecula.artifacts.predictions import choice_rows
from trabecula.errors import InputError
from trabecula.files import read_json
from trabecula.sections.formats import Cell, Table
from trabecula.sections.learned import Learned
from trabecula.sections.papers.knee_ssl_tables import Place, approaches, by_domain, column_name
from trabecula.sections.results import Arm, Results, Row
from trabecula.sections.tables import subset_notes
from trabecula.sections.wording import (
    architecture_name,
    arm_names,
    count,
    metric_name,
    number,
    present,
    share,
    span,
)

Choices = Mapping[tuple[str, str, str, float], Mapping[str, Sequence[float]]]
"""By (task, arm, mode, fraction): strengths of probes and images seen of fine-tunings, one a seed."""

_CHOSEN = ("strength", "images_seen")


def read_choices(folders: Sequence[Path]) -> Choices:
    """What was chosen on validation, from the choices.csv among these folders."""
    found: dict[tuple[str, str, str, float], dict[str, list[float]]] = {}
    for row in (row for folder in folders for row in choice_rows(folder)):
        key = (row["task"], row["arm"], row["mode"], float(row["fraction"]))
        kept = found.setdefault(key, {name: [] for name in _CHOSEN})
        for name in _CHOSEN:
            if row.get(name):
                kept[name].append(float(row[name]))
    return found


def seeds_name(rows: Sequence[Row]) -> str:
    """What values that stand apart by seed differ in: "label seeds", or pretrainings too."""
    several = len({row["pretrain_seed"] for row in rows}) > 1
    return "seeds of pretraining and labels" if several else "label seeds"


def spread_table(results: Results, place: Place, learned: Mapping[str, Learned], choices: Choices) -> Table:
    """Lowest and highest value over seeds, and what was chosen; no rows where no arm has two seeds."""
    names, rows, styles = approaches(results, place.arms, learned), [], []
    for arm in by_domain(place.arms, learned):
        cells = [_cell(results, place, arm, column, choices) for column in place.columns]
        if any(cell.text != "–" for cell in cells):
            rows.append((Cell(architecture_name(arm.architecture)), Cell(names[arm.name]), *cells))
            styles.append(arm.style)
    drawn = "; ".join(
        f"{share(fraction)}: {span([s['num_val_patients'] for s in subsets])} validation and "
        f"{span([s['num_train_patients'] for s in subsets])} training patients"
        for fraction in dict.fromkeys(fraction for _, fraction in place.columns)
        if (subsets := [s for s in results.flow["subsets"]
                        if (s["task"], s["fraction"]) == (place.task, fraction)])
    )  # fmt: skip
    seeds = seeds_name([row for arm in place.arms for row in _seed_rows(results, place, arm.name)])
    note = f"Lowest to highest value over {seeds}, and below it what was chosen on validation. {drawn}."
    note += "".join(f" {text}." for text in subset_notes(results, place.task))
    columns = ("Network", "Approach", *(column_name(column) for column in place.columns))
    title = f"{place.printed.name}: spread of {metric_name(place.metric)} of {place.task} over {seeds}"
    return Table(title, columns, rows, note, heads=2, styles=styles)


def _cell(results: Results, place: Place, arm: Arm, column: tuple[str, float], choices: Choices) -> Cell:
    rows = _seed_rows(results, place, arm.name)
    values = [row["value"] for row in rows if (row["mode"], row["fraction"]) == column]
    if len(values) < 2:
        return Cell("–")
    chosen = choices.get((place.task, arm.name, *column), {})
    told = [
        text
        for text in (
            _range("strength", chosen.get("strength", ()), lambda v: f"{v:.1g}"),
            _range("images seen", chosen.get("images_seen", ()), count),
        )
        if text
    ]
    return Cell(f"{number(min(values))} to {number(max(values))}", small="; ".join(told))


def _seed_rows(results: Results, place: Place, arm: str) -> list[Row]:
    """The values of an arm, seed by seed."""
    return [
        row
        for row in results.rows
        if row["seed"] != "all" and row["cohort"] == row["stratum"] == "all" and present(row["value"])
        if (row["task"], row["metric"], row["arm"]) == (place.task, place.metric, arm)
    ]


def _range(name: str, values: Sequence[float], shown: Callable[[float], str]) -> str:
    if not values:
        return ""
    low, high = shown(min(values)), shown(max(values))
    return f"{name} {low}" if low == high else f"{name} {low} to {high}"


_SEARCHED = ("Optimizer", "Rate", "Weight decay", "Epochs", "Peak, × rate")
_NEEDED = (
    "arm",
    "task",
    "fraction",
    "seed",
    "settings",
    "metric",
    "num_trials",
    "num_pruned",
    "num_val_patients",
)


def searches_table(results: Results, folders: Sequence[Path]) -> Table:
    """What the searches of fine-tuning chose, arm by arm (the space of section C.4.1).

    Args:
        folders: that `search` wrote.

    Raises:
        InputError: no chosen.json, or one that lacks what is shown.
    """
    names, rows, styles = arm_names(results), [], []
    order = [arm.name for arm in results.arms]
    for chosen in sorted(map(_read_chosen, folders), key=lambda one: _place(one, order)):
        arm = results.by_name.get(chosen["arm"])
        if arm is None:
            continue
        settings = chosen["settings"]
        optimizer = settings.get("optimizer") or {}
        shown = (
            optimizer.get("name"), _short(optimizer.get("lr")), _short(optimizer.get("weight_decay")),
            settings.get("epochs"), optimizer.get("peak"),
        )  # fmt: skip
        trials = f"{count(chosen['num_trials'])} ({count(chosen['num_pruned'])} pruned)"
        sizes = share(chosen["fraction"]), chosen["task"], chosen["seed"], trials
        told = count(chosen["num_val_patients"]), number(chosen["metric"])
        values = (*sizes, *told, *("–" if value is None else value for value in shown))
        head = (Cell(architecture_name(arm.architecture)), Cell(names[arm.name]))
        rows.append((*head, *(Cell(str(value)) for value in values)))
        styles.append(arm.style)
    columns = (
        "Network", "Initialisation", "Labels", "Task", "Seed", "Trials", "Validation patients",
        "Best on validation", *_SEARCHED,
    )  # fmt: skip
    note = (
        "One search an arm and share of labels, on a label seed of its own; validation alone chooses. The "
        "paper made 50 trials for each."
    )
    return Table("Settings of fine-tuning that searches chose", columns, rows, note, heads=2, styles=styles)


def _read_chosen(folder: Path) -> dict[str, Any]:
    path = folder / "chosen.json"
    chosen = read_json(path, "`trabecula search`")
    lacking = [key for key in _NEEDED if key not in chosen]
    if lacking:
        raise InputError(f"{path}: has no '{lacking[0]}'; write it again with `trabecula search`")
    return chosen


def _place(chosen: Mapping[str, Any], order: Sequence[str]) -> tuple[int, float, str, int]:
    place = order.index(chosen["arm"]) if chosen["arm"] in order else len(order)
    return place, chosen["fraction"], chosen["task"], chosen["seed"]


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"
