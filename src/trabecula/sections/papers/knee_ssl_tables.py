"""The tables of Rajamohan et al. 2026 as a study has them: which of them, and its values beside the paper's.

Nothing is computed: values, intervals and differences are those that `evaluate` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trabecula.artifacts.predictions import corner_of
from trabecula.sections.formats import Cell, Table, said_once
from trabecula.sections.learned import MIXED, OTHER, OWN, Learned
from trabecula.sections.papers import knee_ssl_numbers as numbers
from trabecula.sections.papers.knee_ssl_figures import is_graded
from trabecula.sections.papers.knee_ssl_numbers import Printed
from trabecula.sections.results import Arm, Panel, Results, Row
from trabecula.sections.tables import difference_cell, result_cell, shared_counts
from trabecula.sections.wording import (
    FAMILY_NAMES,
    architecture_name,
    arm_names,
    claim_of,
    metric_name,
    mode_name,
    multiplier_interval,
    multiplier_value,
    share,
)

OURS = "this study"
GRADED = ("ordinal", "multiclass")
MODES = {"finetune": "FT", "probe": "LP"}
_DOMAINS = ("Table A.1", "Table A.2")
_SHORT = {FAMILY_NAMES["random"]: "Random", FAMILY_NAMES["imagenet"]: "ImageNet"}


@dataclass(frozen=True)
class Place:
    """Where a number stands: one of the paper's tables, and a task, metric and arms of this study."""

    printed: Printed
    task: str
    metric: str
    arms: Sequence[Arm]
    columns: Sequence[tuple[str, float]]  # (mode, fraction) that this study has

    @property
    def title(self) -> str:
        return f"{self.printed.name}: {self.printed.what}"


def places(results: Results, learned: Mapping[str, Learned]) -> list[Place]:
    """Each of the paper's tables of which this study has something, by task.

    A network stands in one table: MAE's in B.1, one that learned from other or mixed images too in A.1 or
    A.2, every other one in 3 or 4. Parts of a pool stand in the figures of pool sizes instead.
    """
    found = []
    for task, record in results.flow["tasks"].items():
        chests = record.get("kind") == "multilabel"
        if not chests and not (record.get("kind") in GRADED and is_graded(record)):
            continue
        kinds: dict[str, list[Arm]] = {}
        for architecture in results.architectures:
            arms = [arm for arm in results.arms_of(architecture) if arm.pool_fraction == 1]
            kinds.setdefault(_table_of(arms, learned, chests), []).extend(arms)
        for name, printed in numbers.TABLES.items():
            arms = kinds.get(name, [])
            columns = _columns(results, task, printed.metric, arms)
            if columns and any(arm.family != "random" for arm in arms):
                found.append(Place(printed, task, printed.metric, arms, columns))
    return found


def _table_of(arms: Sequence[Arm], learned: Mapping[str, Learned], chests: bool) -> str:
    if not chests and any(arm.objective == "mae" for arm in arms):
        return "Table B.1"
    if any(learned[arm.name].source != OWN for arm in arms if arm.name in learned):
        return "Table A.2" if chests else "Table A.1"
    return "Table 4" if chests else "Table 3"


def _columns(results: Results, task: str, metric: str, arms: Sequence[Arm]) -> list[tuple[str, float]]:
    """(mode, fraction) of whole images that any of the arms has, fine-tuning before probes."""
    names = {arm.name for arm in arms}
    found = {
        (row["mode"], row["fraction"])
        for row in results.summaries
        if row["task"] == task and row["metric"] == metric and row["arm"] in names
        if row["mode"].partition(":")[0] in MODES and corner_of(row["mode"]) is None
    }
    return sorted(found, key=_order)


def _order(column: tuple[str, float]) -> tuple[float, int, str]:
    mode, fraction = column
    return fraction, list(MODES).index(mode.partition(":")[0]), mode


def column_name(column: tuple[str, float]) -> str:
    """ "FT, 1 %"; "FT best head, 1 %"."""
    kind, _, variant = column[0].partition(":")
    return f"{MODES[kind]}{' ' * bool(variant)}{variant}, {share(column[1])}"


def approaches(results: Results, arms: Sequence[Arm], learned: Mapping[str, Learned]) -> dict[str, str]:
    """What each arm is called in the paper's tables: "MoCo", "MAE 0.25", "MoCo, cross-domain"."""
    names, found = arm_names(results), {}
    for arm in arms:
        known = learned.get(arm.name)
        name = _SHORT.get(names[arm.name], names[arm.name].replace(" pretraining", "", 1))
        if arm.family == "pretrained":
            name = name.removesuffix(f" ({arm.name})")
        if known is not None and known.mask_ratio is not None:
            name = f"MAE {known.mask_ratio:g}"
        if known is not None and known.source != OWN:
            name += f", {known.source}"
        found[arm.name] = name
    kinds = [(arm.architecture, found[arm.name]) for arm in arms]

    def alike(kind: tuple[str, str], arm: str) -> bool:
        return kinds.count(kind) > 1 and arm not in kind[1]

    return {
        arm.name: f"{kind[1]} ({arm.name})" if alike(kind, arm.name) else kind[1]
        for arm, kind in zip(arms, kinds, strict=True)
    }


def value_table(results: Results, place: Place, learned: Mapping[str, Learned]) -> Table:
    """This study's arms by network, then the paper's: mean (SD over seeds), and below it our interval."""
    printed = place.printed
    columns = sorted({*place.columns, *printed.columns}, key=_order)
    if not set(place.columns) & set(printed.columns):
        columns = [*place.columns, *printed.columns]
    ours = _our_rows(results, place, learned, columns)
    rows, styles = list(ours.rows), list(ours.styles)
    for line in printed.lines:
        cells = [_printed_cell(printed.value(line, *column)) for column in columns]
        rows.append((Cell(f"{printed.network} {numbers.MARK}"), Cell(line.approach), *cells))
        styles.append("")
    what = (
        "FT: fine-tuning; LP: linear probing, here an exact solve over a path of strengths. In brackets the "
    )
    what += "SD over seeds"
    dagger = any(numbers.NO_SD in cell.text for row in rows for cell in row)
    what += f"; {numbers.NO_SD} the paper prints none." if dagger else "."
    if printed.name in _DOMAINS:
        what += f" {OTHER[0].upper()}{OTHER[1:]}: learned from images of another kind; {MIXED}: from both."
    note = " ".join(part for part in (what, ours.note, numbers.DOUBTS[printed.name]) if part)
    heads = ("Network", "Approach", *(column_name(column) for column in columns))
    return Table(f"{place.title}; {place.task}", heads, rows, note, heads=2, styles=styles)


def _our_rows(
    results: Results, place: Place, learned: Mapping[str, Learned], columns: Sequence[tuple[str, float]]
) -> Table:
    """This study's rows; an ImageNet arm that a network could have is "not run" where it has none."""
    names, absent = approaches(results, place.arms, learned), results.missing_imagenet()
    alike, shared = _counts(results, place)
    rows: list[tuple[Cell, ...]] = []
    styles: list[str] = []
    arms = by_domain(place.arms, learned)
    for i, arm in enumerate(arms):
        network = Cell(architecture_name(arm.architecture))
        better = _better(results, place, arm)
        found = [(column, _summary(results, place, arm, column)) for column in columns]
        cells = [result_cell(row, alike, column in better) if row else Cell("–") for column, row in found]
        rows.append((network, Cell(names[arm.name]), *cells))
        styles.append(arm.style)
        following = arms[i + 1] if i + 1 < len(arms) else None
        last = following is None or following.architecture != arm.architecture or following.family != "random"
        if arm.family == "random" and last and arm.architecture in absent:
            cells = [Cell("not run" if column in place.columns else "–") for column in columns]
            rows.append((network, Cell(_SHORT[FAMILY_NAMES["imagenet"]]), *cells))
            styles.append("arm-imagenet")
    table = said_once(Table("", (), rows, shared, heads=2, styles=styles), 2)
    return replace(table, note=table.note.replace("All cells:", "All of this study's:"))


def _counts(results: Results, place: Place) -> tuple[bool, str]:
    """Whether all values of a mode speak of the same images and as many seeds, and the words for it."""
    told = {}
    for mode in dict.fromkeys(mode for mode, _ in place.columns):
        columns = [column for column in place.columns if column[0] == mode]
        rows = [_summary(results, place, arm, column) for arm in place.arms for column in columns]
        alike, shared = shared_counts([row for row in rows if row])
        if not alike:
            return False, ""
        told[mode_name(mode)] = shared.removeprefix("Every value: ")
    same = len(set(told.values())) == 1
    words = dict(list(told.items())[:1]) if same else told
    return True, " ".join(f"This study{'' if same else f', {mode}'}: {text}" for mode, text in words.items())


def by_domain(arms: Sequence[Arm], learned: Mapping[str, Learned]) -> list[Arm]:
    """Networks in their order; within one, arms of the study's own images first, and masks by size."""
    networks = list(dict.fromkeys(arm.architecture for arm in arms))

    def key(arm: Arm) -> tuple[int, bool, bool, float]:
        known = learned.get(arm.name)
        source = known.source if known else OWN
        mask = known.mask_ratio if known else None
        return networks.index(arm.architecture), source != OWN, source != OTHER, mask or 0.0

    return sorted(arms, key=key)


def _summary(results: Results, place: Place, arm: Arm, column: tuple[str, float]) -> Row | None:
    return results.summary(Panel(place.task, column[0]), place.metric, arm.name, column[1])


def _printed_cell(value: numbers.Value | None) -> Cell:
    if value is None:
        return Cell("–")
    mean, sd = value
    return Cell(f"{mean:.3f} {numbers.NO_SD}" if sd is None else f"{mean:.3f} ({sd:.3f})")


def pairs_of(results: Results, place: Place, arm: Arm) -> list[Row]:
    """Its comparisons with the control and with ImageNet weights of its own network."""
    return [
        pair
        for mode in dict.fromkeys(mode for mode, _ in place.columns)
        for pair in results.comparisons_of(Panel(place.task, mode), place.metric)
        if pair["arm"] == arm.name and pair["same_architecture"]
        if results.with_control(pair) or pair["baseline_family"] == "imagenet"
    ]


def _better(results: Results, place: Place, arm: Arm) -> set[tuple[str, float]]:
    return {
        (pair["mode"], pair["fraction"])
        for pair in pairs_of(results, place, arm)
        if claim_of(pair) == "better" and results.with_control(pair)
    }


def difference_table(results: Results, place: Place, learned: Mapping[str, Learned]) -> Table:
    """Paired differences to the network's random arm and to ImageNet, with what they are worth in labels."""
    names, rows, styles = approaches(results, place.arms, learned), [], []
    for arm in by_domain(place.arms, learned):
        pairs = pairs_of(results, place, arm)
        for baseline in dict.fromkeys(pair["baseline"] for pair in pairs):
            own = {(p["mode"], p["fraction"]): p for p in pairs if p["baseline"] == baseline}
            cells = [_difference(results, own.get(column)) for column in place.columns]
            head = (
                Cell(architecture_name(arm.architecture)),
                Cell(names[arm.name]),
                Cell(names.get(baseline, baseline)),
            )
            rows.append((*head, *cells))
            styles.append(arm.style)
    note = (
        "This study alone, on the same test patients and label seeds; p adjusted over arms by Holm's method; "
        "bold: better. Worth: how many times as many labels the baseline needs for the arm's value."
    )
    columns = ("Network", "Approach", "Against", *(column_name(column) for column in place.columns))
    title = f"{place.printed.name}: differences in {metric_name(place.metric)} of {place.task}"
    return said_once(Table(title, columns, rows, note, heads=3, styles=styles), 3)


def _difference(results: Results, pair: Row | None) -> Cell:
    cell = difference_cell(results, pair, shortcut=False)
    worth = results.multiplier(pair) if pair is not None and claim_of(pair) else None
    if worth is None or (worth["value"] is None and not worth["censored"]):
        return cell
    bounds = multiplier_interval(worth)
    told = multiplier_value(worth) + (f" ({bounds})" if bounds != "–" else "")
    return Cell(cell.text, cell.second, f"{cell.small}; worth {told}", cell.strong)


def raw_rows(results: Results, place: Place, learned: Mapping[str, Learned]) -> list[dict[str, Any]]:
    """The values of a table for CSV, the paper's among them."""
    names, rows = approaches(results, place.arms, learned), []
    shared = {"table": place.printed.name, "task": place.task, "metric": place.metric}
    for arm in by_domain(place.arms, learned):
        pairs = pairs_of(results, place, arm)
        for column in place.columns:
            row = _summary(results, place, arm, column)
            if row is not None:
                rows.append({
                    **shared, "whose": OURS, "network": arm.architecture, "approach": names[arm.name],
                    "domain": learned[arm.name].source if arm.name in learned else "", "arm": arm.name,
                    "mode": column[0], "fraction": column[1],
                    **{key: row[key] for key in ("value", "sd_seeds", "low", "high", "num_seeds",
                                                 "num_patients", "num_images", "note")},
                    **_against(results, [p for p in pairs if (p["mode"], p["fraction"]) == column]),
                })  # fmt: skip
    for line in place.printed.lines:
        for mode, fraction in place.printed.columns:
            value = place.printed.value(line, mode, fraction)
            if value is not None:
                rows.append({
                    **shared, "whose": numbers.PAPER, "network": place.printed.network,
                    "approach": line.approach, "domain": line.group, "mode": mode, "fraction": fraction,
                    "value": value[0], "sd_seeds": value[1],
                })  # fmt: skip
    return rows


def _against(results: Results, pairs: Sequence[Row]) -> dict[str, Any]:
    """Of each baseline: difference, bounds, p and label multiplier."""
    found: dict[str, Any] = {}
    for family in ("random", "imagenet"):
        pair = next((p for p in pairs if p["baseline_family"] == family), None)
        worth = results.multiplier(pair) if pair else None
        for key in ("difference", "low", "high", "p", "p_holm", "claim"):
            found[f"{key}_to_{family}"] = pair[key] if pair else None
        for key in ("value", "low", "high", "censored"):
            found[f"label_multiplier_{key}_{family}"] = worth[key] if worth else None
    return found
