"""Tables of what searches of fine-tuning tried and chose: heads, optimizers, rates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, zip_longest
from pathlib import Path
from typing import Any

from trabecula.artifacts.label_budget import fewest_first, labels_used
from trabecula.artifacts.search_result import ChosenSettings, read_chosen, read_trials
from trabecula.sections.formats import Cells, Table, arm_cells, cells
from trabecula.sections.numbers import count, number, share
from trabecula.sections.published.paper import Paper, PublishedTable, StudyFiles
from trabecula.sections.results import Results

_NONLINEARITIES = {
    "relu": "ReLU", "leaky_relu": "LeakyReLU", "tanh": "Tanh", "sigmoid": "Sigmoid", "none": "none",
}  # fmt: skip


@dataclass(frozen=True)
class HeadSearch:
    """One search: chosen.json, and its trials as trials.csv has them."""

    chosen: ChosenSettings
    trials: Sequence[Mapping[str, str]]

    @property
    def name(self) -> str:
        return f"{self.chosen.arm}, {labels_used(self.chosen.fraction)}"

    @property
    def heads(self) -> list[list[Mapping[str, Any]]]:
        """Each trial's hidden layers; trials of other settings are passed over."""
        found = [trial.get("head", "") for trial in self.trials]
        return [json.loads(head) for head in found if head.startswith("[")]


def read_head_searches(folders: Sequence[Path]) -> list[HeadSearch]:
    """Read chosen.json and trials.csv of the folders that `search` wrote."""
    return [HeadSearch(read_chosen(folder), read_trials(folder)) for folder in folders]


def head_choices(_paper: Paper, table: PublishedTable, study: StudyFiles) -> Table:
    """The space of heads, and how often this study's trials drew each choice."""
    heads = [head for one in read_head_searches(study.searches) for head in one.heads]
    drawn, rows = _drawn(heads), []
    for row in table.rows:
        found, printed = drawn[row.label], row.values[0].split(", ")
        every = [*printed, *sorted(set(found) - set(printed))]
        counts = ", ".join(f"{choice}: {found[choice]}" for choice in every if found[choice])
        rows.append(cells(row.label, row.values[0], counts or "not run"))
    ours = f"{count(len(heads))} heads of this study: times drawn (depth by head, the rest by layer)"
    columns = (*table.columns, ours if heads else "This study")
    return Table(table.title, columns, rows, table.note, table.heads)


def _drawn(heads: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Counter[str]]:
    layers = [layer for head in heads for layer in head]
    kinds = [layer.get("nonlinearity", "relu") for layer in layers]
    return {
        "Nonlinearity": Counter(_NONLINEARITIES.get(kind, kind) for kind in kinds),
        "Depth": Counter(str(len(head)) for head in heads),
        "Batch norm": Counter(str(bool(layer.get("batch_norm", False))) for layer in layers),
        "Dropout": Counter(f"{layer.get('dropout', 0):g}" for layer in layers),
        "Layer size": Counter(str(layer["width"]) for layer in layers),
    }


def best_heads(_paper: Paper, table: PublishedTable, study: StudyFiles) -> Table:
    """The paper's best head and the chosen ones, layer by layer, a column each."""
    found = read_head_searches(study.searches)
    searches = [one for one in found if isinstance(one.chosen.settings.get("head"), list)]
    columns = [[" ".join((row.label, *row.values)) for row in table.rows]]
    columns += [head_layers(one.chosen.settings["head"]) for one in searches]
    rows = [cells(*row) for row in zip_longest(*columns, fillvalue="")]
    names = (*table.columns, *(one.name for one in searches))
    return Table(table.title, names, rows, "" if searches else table.missing, heads=len(names))


def head_layers(head: Sequence[Mapping[str, Any]]) -> list[str]:
    """A head as den Boer's Table 2 writes it."""
    rows: list[str] = []
    before = "features"
    for layer in head:
        rows.append(f"Linear {before} → {layer['width']}")
        if layer.get("batch_norm"):
            rows.append(f"BatchNorm1d {layer['width']}")
        name = layer.get("nonlinearity", "relu")
        if name != "none":
            rows.append(_NONLINEARITIES.get(name, name))
        if layer.get("dropout"):
            rows.append(f"Dropout p = {layer['dropout']:g}")
        before = str(layer["width"])
    return [*rows, f"Linear {before} → 1"]


def head_pairs(_paper: Paper, table: PublishedTable, study: StudyFiles) -> Table:
    """Heads tried from a pretrained start and from its control: which was better on validation."""
    rows = []
    for one, other in combinations(read_head_searches(study.searches), 2):
        first, second = one.chosen, other.chosen
        same = (first.seed, first.fraction) == (second.seed, second.fraction) and first.arm != second.arm
        both = [
            (float(a["metric"]), float(b["metric"]))
            for a, b in zip(one.trials, other.trials, strict=False)
            if a.get("head") == b.get("head") and _known(a) and _known(b)
        ]
        if same and both:
            counts = len(both), sum(a > b for a, b in both), sum(a < b for a, b in both)
            rows.append(cells(first.arm, second.arm, share(first.fraction), *map(count, counts)))
    return Table(table.title, table.columns, rows, table.note, table.heads)


def _known(trial: Mapping[str, str]) -> bool:
    return trial.get("state", "") != "pruned" and trial.get("metric", "") not in ("", "nan")


def chosen_settings(results: Results, folders: Sequence[Path]) -> Table:
    """What the searches of fine-tuning chose, arm by arm (the space of section C.4.1 of Rajamohan 2026)."""
    rows, order = list[Cells](), list(results.by_name)
    found = [chosen for folder in folders if (chosen := read_chosen(folder)).arm in order]
    for chosen in sorted(found, key=lambda c: (order.index(c.arm), fewest_first(c.fraction), c.task, c.seed)):
        optimizer, epochs = chosen.settings.get("optimizer") or {}, chosen.settings.get("epochs")
        rates = (_short(optimizer.get(key)) for key in ("lr", "weight_decay"))
        shown = (optimizer.get("name"), *rates, epochs, optimizer.get("peak"))
        rows.append(cells(
            *arm_cells(results.by_name[chosen.arm]), share(chosen.fraction), chosen.task, str(chosen.seed),
            f"{count(chosen.num_trials)} ({count(chosen.num_pruned)} pruned)", count(chosen.num_val_patients),
            number(chosen.metric), *("–" if value is None else str(value) for value in shown),
        ))  # fmt: skip
    columns = (
        "Network", "Initialisation", "Labels", "Task", "Seed", "Trials", "Validation patients",
        "Best on validation", "Optimizer", "Rate", "Weight decay", "Epochs", "Peak, × rate",
    )  # fmt: skip
    note = "One search an arm and share of labels, on a label seed of its own; validation alone chooses. "
    note += "The paper made 50 trials for each."
    return Table("Settings of fine-tuning that searches chose", columns, rows, note, heads=2)


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"
