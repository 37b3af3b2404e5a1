"""Adversarial pretraining of hips: the paper's figures and tables, and this study's, side by side.

The paper: Teun den Boer 2025, "Adversarial generative models applied to diagnosing Osteoarthritis",
bachelor's thesis, TU Delft. Every number below is from its text or tables; it gives no interval, one
seed, and no values for its figures 4 and 6 beyond those here.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trabecula.errors import InputError
from trabecula.figures.charts import ChartGroup
from trabecula.sections.curves import roc_curves
from trabecula.sections.formats import Cell, Table
from trabecula.sections.generators import Explained, GeneratorQuality
from trabecula.sections.results import Arm, Panel, Results, read_json
from trabecula.sections.wording import (
    arm_names,
    count,
    interval,
    mode_name,
    number,
    probability,
    share,
    signed,
)

CITATION = (
    "T. den Boer, Adversarial generative models applied to diagnosing Osteoarthritis, bachelor's thesis, "
    "TU Delft, 2025"
)
SETTING = (
    "hips of CHECK (labelled) and OAI (unlabelled) at 224 px, 200 epochs of WGAN-GP, Kellgren-Lawrence 2 and "
    "above, one seed, no intervals"
)
FINE_TUNING = (  # section 5.3: way, pretrained, control
    ("the critic as it is (Figure 6)", 0.72, 0.68),
    ("the best of 50 new heads (Table 2)", 0.734, 0.727),
)
SCORES = {"train": 47.855, "test": 47.030, "gap": 0.824}  # section 5.2; its gap is that of unrounded means
FID_IMAGES, FID_EPOCHS, EPOCHS = 2024, 10, 200  # figure 4
UNITS_BOUND = 0.2  # section 7
TABLE_1: dict[str, tuple[str, ...]] = {
    "Nonlinearity": ("ReLU", "LeakyReLU", "Tanh", "Sigmoid"),
    "Depth": ("1", "2", "3", "4"),
    "Batch norm": ("True", "False"),
    "Dropout": ("0", "0.2", "0.5"),
    "Layer size": ("16", "32", "64", "128"),
}
TABLE_2 = (
    ("Linear", "25088 → 64"), ("BatchNorm1d", "64"), ("Tanh", ""), ("Linear", "64 → 128"),
    ("BatchNorm1d", "128"), ("ReLU", ""), ("Dropout", "p = 0.2"), ("Linear", "128 → 16"),
    ("Dropout", "p = 0.5"), ("Linear", "16 → 64"), ("ReLU", ""), ("Dropout", "p = 0.5"), ("Linear", "64 → 1"),
)  # fmt: skip
PAPER = "den Boer 2025 (paper)"
OURS = "this study"
_NONLINEARITIES = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "none": "none",
}


@dataclass(frozen=True)
class Search:
    """One head search: what it chose, and its trials as trials.csv has them."""

    arm: str
    seed: int
    fraction: float
    settings: Mapping[str, Any]
    trials: Sequence[Mapping[str, str]]

    @property
    def heads(self) -> list[list[Mapping[str, Any]]]:
        """Each trial's hidden layers; trials of other settings are passed over."""
        cells = [trial.get("head", "") for trial in self.trials]
        return [json.loads(cell) for cell in cells if cell.startswith("[")]


def read_searches(folders: Sequence[Path]) -> list[Search]:
    """Read the folders that `search` wrote.

    Raises:
        InputError: a file is missing, or not what `search` writes.
    """
    found = []
    for folder in folders:
        chosen = read_json(folder / "chosen.json", "`trabecula search`")
        try:
            with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
                trials = list(csv.DictReader(file))
            found.append(
                Search(chosen["arm"], chosen["seed"], chosen["fraction"], chosen["settings"], trials)
            )
        except FileNotFoundError:
            raise InputError(f"{folder}: no trials.csv; it is written by `trabecula search`") from None
        except KeyError as error:
            raise InputError(f"{folder / 'chosen.json'}: has no {error}; write it again") from None
    return found


def hip_gan_tables(
    results: Results,
    generators: Sequence[GeneratorQuality],
    explained: Sequence[Explained],
    searches: Sequence[Search],
) -> dict[str, Table]:
    """The tables by name; those of which this study has nothing show the paper's numbers alone."""
    return {
        "fine_tuning": fine_tuning(results),
        "overfit": overfit(generators),
        "units": units(explained),
        "table_1": table_1(searches),
        "table_2": table_2(searches),
        "pairs": pairs(searches),
    }


def _cells(*parts: str | Cell) -> tuple[Cell, ...]:
    return tuple(part if isinstance(part, Cell) else Cell(part) for part in parts)


def _missing(columns: int, what: str) -> tuple[Cell, ...]:
    return _cells(OURS, Cell("not run", small=what), *("–" for _ in range(columns - 2)))


def fine_tuning(results: Results) -> Table:
    """Figure 6 and section 5.3: pretrained critic and its control by AUROC."""
    rows = [
        _cells(PAPER, way, "all", f"{ours}", f"{control}", signed(ours - control), "1")
        for way, ours, control in FINE_TUNING
    ]
    for panel in results.panels:
        if panel.mode.partition(":")[0] == "finetune" and "auroc" in results.metric_names(panel):
            rows += [
                row
                for arm in results.arms
                if _is_critic(arm.architecture) and arm.family == "pretrained" and "@" not in arm.name
                for fraction in results.fractions(panel)
                if (row := _fine_tuned(results, panel, arm, fraction))
            ]
    if len(rows) == len(FINE_TUNING):
        rows.append(_missing(7, "no fine-tuned critic among the results"))
    columns = ("Whose", "Fine-tuning", "Labels", "Pretrained", "Random control", "Difference", "Seeds")
    return Table(
        "Figure 6 and section 5.3: AUROC of the fine-tuned critic and of its control", columns, rows,
        "This study's intervals are over patients and seeds; the paper gives none.", heads=2,
    )  # fmt: skip


def _is_critic(architecture: str) -> bool:
    return architecture.partition(":")[0].startswith("critic")


def _fine_tuned(results: Results, panel: Panel, arm: Arm, fraction: float) -> tuple[Cell, ...] | None:
    pair = next(
        (
            p for p in results.comparisons_of(panel, "auroc")
            if (p["arm"], p["fraction"]) == (arm.name, fraction) and results.with_control(p)
        ),
        None,
    )  # fmt: skip
    ours = results.summary(panel, "auroc", arm.name, fraction)
    if ours is None:
        return None
    control = results.summary(panel, "auroc", pair["baseline"], fraction) if pair else None
    difference = Cell(signed(pair["difference"]), interval(pair["low"], pair["high"])) if pair else Cell("–")
    what = f"{panel.task}, {mode_name(panel.mode)}: {arm_names(results)[arm.name]}"
    return _cells(
        OURS, what, share(fraction), _value(ours), _value(control), difference, count(ours["num_seeds"])
    )


def roc(results: Results, panel: Panel) -> list[ChartGroup]:
    """Figure 6: the ROC curves of fine-tuned critics, a group for each share of labels."""
    if panel.mode.partition(":")[0] != "finetune":
        return []
    return roc_curves(results, panel, _is_critic)


def _value(row: Mapping[str, Any] | None) -> Cell:
    if row is None or row["value"] is None:
        return Cell("–")
    return Cell(number(row["value"]), interval(row["low"], row["high"]))


def overfit(generators: Sequence[GeneratorQuality]) -> Table:
    """Section 5.2: mean scores of the final critic on seen and unseen films."""
    unseen = Cell(f"{SCORES['test']:.3f}", small="test")
    rows = [_cells(PAPER, "final critic", f"{SCORES['train']}", unseen, "–", f"{SCORES['gap']}", "–")]
    for generator in generators:
        critic = sorted(generator.record.get("critic") or [], key=lambda row: row["images"])
        if critic:
            last = critic[-1]
            seen = f"{generator.name}, {count(last['images'])} images"
            unseen = Cell(number(last["val"]), small="validation")
            others = [number(last[key]) for key in ("fake", "gap", "relative_gap")]
            rows.append(_cells(OURS, seen, number(last["train"]), unseen, *others))
    if len(rows) == 1:
        rows.append(_missing(7, "no fidelity folder was given"))
    columns = ("Whose", "Critic", "Training films", "Unseen films", "Fakes", "Gap", "Gap / (real − fake)")
    note = (
        "A score has no unit and no origin: gaps of two critics compare only by the last column, which the "
        "paper does not give."
    )
    return Table("Section 5.2: mean score of the critic", columns, rows, note, heads=2)


def units(explained: Sequence[Explained]) -> Table:
    """Section 7: no unit of the last three layers is correlated with the label beyond 0.2."""
    rows = [_cells(PAPER, "last 3 layers", "not said", f"below {UNITS_BOUND}", "0", "–", "–")]
    kinds = {"channel": "mean of a map", "cell": "each cell"}
    for one in explained:
        asked = one.record.get("units") or {"rows": []}
        for kind, words in kinds.items():
            mine = [r for r in asked["rows"] if r["unit"] == kind and r["largest"] is not None]
            if mine:
                best = max(mine, key=lambda r: abs(r["largest"]))
                total = sum(r["num_units"] for r in mine)
                above = sum(r["num_above_paper"] for r in mine)
                largest = Cell(signed(best["largest"]), small=best["layer"])
                chance, p = number(best["null_95"]), probability(best["p"])
                what = f"{one.name}, {asked['task']}"
                rows.append(
                    _cells(OURS, what, words, largest, f"{count(above)} of {count(total)}", chance, p)
                )
    if len(rows) == 1:
        rows.append(_missing(7, "no explain folder with units was given"))
    columns = (
        "Whose",
        "Critic",
        "A unit is",
        "Largest correlation",
        "Units above 0.2",
        "By chance, 95 %",
        "p of the largest",
    )
    return Table(
        "Section 7: correlation of units with the label", columns, rows,
        "By chance: the largest of all units when patients' labels are exchanged.", heads=3,
    )  # fmt: skip


def table_1(searches: Sequence[Search]) -> Table:
    """The space of heads, and how often this study's trials drew each choice."""
    drawn = {name: _drawn([head for one in searches for head in one.heads])[name] for name in TABLE_1}
    total = sum(len(one.heads) for one in searches)
    rows = []
    for name, choices in TABLE_1.items():
        found = drawn[name]
        every = [*choices, *(sorted(set(found) - set(choices)))]
        said = ", ".join(f"{choice}: {found[choice]}" for choice in every if found[choice])
        rows.append((Cell(name), Cell(", ".join(choices)), Cell(said or "not run")))
    unit = f"{count(total)} heads of this study: times drawn (depth by head, the rest by layer)"
    return Table(
        "Table 1: the heads that were searched", ("", "Paper", unit if total else "This study"), rows,
        "The paper sampled 50; its best head has a layer without a nonlinearity, which this table lacks.",
        heads=3,
    )  # fmt: skip


def _drawn(heads: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Counter[str]]:
    layers = [layer for head in heads for layer in head]
    return {
        "Nonlinearity": Counter(
            _NONLINEARITIES.get(k, k) for k in (la.get("nonlinearity", "relu") for la in layers)
        ),
        "Depth": Counter(str(len(head)) for head in heads),
        "Batch norm": Counter(str(bool(layer.get("batch_norm", False))) for layer in layers),
        "Dropout": Counter(f"{layer.get('dropout', 0):g}" for layer in layers),
        "Layer size": Counter(str(layer["width"]) for layer in layers),
    }


def table_2(searches: Sequence[Search]) -> Table:
    """The best head, layer by layer."""
    chosen = [
        (one, head_layers(one.settings["head"])) for one in searches if _is_head(one.settings.get("head"))
    ]
    columns = ("Paper", *(f"{one.arm}, {share(one.fraction)} of labels" for one, _ in chosen))
    columns_of = [list(TABLE_2), *(layers for _, layers in chosen)]
    longest = max(len(column) for column in columns_of)
    rows = [
        tuple(Cell(" ".join(column[i]).strip()) if i < len(column) else Cell("") for column in columns_of)
        for i in range(longest)
    ]
    note = "" if chosen else "This study searched no heads."
    return Table("Table 2: the best head", columns, rows, note, heads=len(columns))


def _is_head(head: Any) -> bool:
    return isinstance(head, list)


def head_layers(head: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """A head as the paper's Table 2 writes it."""
    rows: list[tuple[str, str]] = []
    before = "features"
    for layer in head:
        rows.append(("Linear", f"{before} → {layer['width']}"))
        if layer.get("batch_norm"):
            rows.append(("BatchNorm1d", str(layer["width"])))
        name = layer.get("nonlinearity", "relu")
        if name != "none":
            rows.append((_NONLINEARITIES.get(name, name), ""))
        if layer.get("dropout"):
            rows.append(("Dropout", f"p = {layer['dropout']:g}"))
        before = str(layer["width"])
    return [*rows, ("Linear", f"{before} → 1")]


def pairs(searches: Sequence[Search]) -> Table:
    """Heads tried from a pretrained start and from its control: which was better on validation."""
    rows = []
    for i, one in enumerate(searches):
        for other in searches[i + 1 :]:
            if (one.seed, one.fraction) != (other.seed, other.fraction) or one.arm == other.arm:
                continue
            both = [
                (float(a["metric"]), float(b["metric"]))
                for a, b in zip(one.trials, other.trials, strict=False)
                if a.get("head") == b.get("head") and _known(a) and _known(b)
            ]
            if both:
                wins = sum(a > b for a, b in both)
                losses = sum(a < b for a, b in both)
                counts = [count(n) for n in (len(both), wins, losses)]
                rows.append(_cells(one.arm, other.arm, share(one.fraction), *counts))
    columns = (
        "Start",
        "Other start",
        "Labels",
        "Heads tried with both",
        "First is better",
        "Other is better",
    )
    return Table(
        "The same heads on both starts, by validation metric", columns, rows,
        "The paper reports the one head that was best.", heads=2,
    )  # fmt: skip


def _known(trial: Mapping[str, str]) -> bool:
    text = trial.get("metric", "")
    return trial.get("state", "") != "pruned" and text not in ("", "nan")
