"""How far a score depends on the pretraining pool: a figure, a table and a sentence for each label share.

Reads the comparisons that `evaluate` made of arms that differ in their pool alone; computes no statistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trabecula.figures.charts import Chart, PlotAxis, Series, axis_around
from trabecula.sections.formats import Entry, Table
from trabecula.sections.results import Arm, Panel, Results, Row
from trabecula.sections.section import Block, Section
from trabecula.sections.wording import (
    architecture_name,
    arm_names,
    because,
    claim_of,
    claim_words,
    count,
    difference,
    interval,
    labels_phrase,
    metric_name,
    mode_name,
    number,
    objective_name,
    pool_words,
    present,
    read_difference,
    share,
    stayed_at_chance,
)


@dataclass(frozen=True)
class PoolComparison:
    """One group of arms that differ in their pool alone, in one task and mode."""

    name: str
    sentences: list[str]
    charts: list[Chart]
    table: Table


def pools_section(results: Results) -> Section | None:
    """None where no arms differ in their pool alone."""
    pools = read_pools(results)
    if not pools:
        return None
    blocks = [
        Block(
            "note",
            "Arms that differ in nothing but the images they were pretrained on, with as many updates: a "
            f"small pool is seen more often. Whiskers are {results.level} % intervals; lines across are "
            "networks without pretraining.",
        )
    ]
    for one in pools:
        blocks += [Block("heading", one.name), *(Block("text", sentence) for sentence in one.sentences)]
        blocks += [Block("charts", one.charts), Block("table", one.table)]
    return Section(
        "pools", "Pool", "How much unlabelled data?", blocks, {"pools": ([one.table for one in pools], None)}
    )


def read_pools(results: Results) -> list[PoolComparison]:
    """Every group of pools of every task and mode."""
    return [
        _pools(results, panel, results.by_name[largest])
        for panel in results.panels
        for largest in dict.fromkeys(row["baseline"] for row in _rows(results, panel))
    ]


def _rows(results: Results, panel: Panel) -> list[Row]:
    """The comparisons by the panel's headline metric."""
    wanted = (panel.task, panel.mode, results.headline(panel))
    return [row for row in results.pools if (row["task"], row["mode"], row["metric"]) == wanted]


def _pools(results: Results, panel: Panel, largest: Arm) -> PoolComparison:
    pairs = [row for row in _rows(results, panel) if row["baseline"] == largest.name]
    arms = [results.by_name[name] for name in dict.fromkeys(row["arm"] for row in pairs)] + [largest]
    arms.sort(key=_size)
    random = [arm for arm in results.arms_of(largest.architecture) if arm.family == "random"]
    fractions = [f for f in results.fractions(panel) if any(row["fraction"] == f for row in pairs)]
    by = {(row["arm"], row["fraction"]): row for row in pairs}
    name = (
        f"{panel.task}, {mode_name(panel.mode)}: {objective_name(largest.objective)} of "
        f"{architecture_name(largest.architecture)}"
    )
    return PoolComparison(
        name,
        [_sentence(results, panel, arms, largest, fraction, by) for fraction in fractions],
        _charts(results, panel, name, arms, largest, random, fractions),
        _table(results, panel, arms, largest, random, fractions, by),
    )


def _size(arm: Arm) -> int:
    return arm.num_patients_seen or 0


def pool_name(arm: Arm) -> str:
    """ "whole pool", "10 % of the pool", "cohort check-like alone"."""
    return pool_words(arm).removeprefix(", ") or "whole pool"


def _sentence(
    results: Results,
    panel: Panel,
    arms: Sequence[Arm],
    largest: Arm,
    fraction: float,
    by: dict[tuple[str, float], Row],
) -> str:
    """What each pool scores with this share of labels, and how the smaller ones differ from the largest."""
    metric, control = results.headline(panel), results.control(largest.architecture)

    def value(arm: Arm) -> str:
        row = results.summary(panel, metric, arm.name, fraction)
        return number(row["value"]) if row else "–"

    scored = [f"{value(arm)} with {pool_name(arm)} ({count(arm.num_patients_seen)} patients)" for arm in arms]
    without = f", {value(control)} without pretraining" if control else ""
    against = []
    for arm in arms:
        row = by.get((arm.name, fraction))
        if row is not None:
            against.append(f"{pool_name(arm)} {read_difference(results, row)}")
    labels = labels_phrase(results, panel.task, fraction)
    return (
        f"With {labels}, {metric_name(metric)} {', '.join(scored)}{without}. "
        f"Against {pool_name(largest)}: {'; '.join(against)}."
    )


def _charts(
    results: Results,
    panel: Panel,
    name: str,
    arms: Sequence[Arm],
    largest: Arm,
    random: Sequence[Arm],
    fractions: Sequence[float],
) -> list[Chart]:
    """Score against the pool's patients, one figure a share of labels; lines across are no pretraining."""
    metric = results.headline(panel)
    found = {
        (arm.name, f): row
        for arm in (*arms, *random)
        for f in fractions
        if (row := results.summary(panel, metric, arm.name, f)) and present(row["value"])
    }
    values = [v for row in found.values() for v in (row["value"], row["low"], row["high"]) if present(v)]
    sizes = sorted({_size(arm) for arm in arms})
    if not values or not sizes[0] or len(sizes) < 2:
        return []
    course = [arm for arm in arms if arm.pool_cohorts == largest.pool_cohorts]
    names, charts = arm_names(results), []
    x_axis = PlotAxis(
        "patients pretrained on (log), share of the pool",
        [(_size(arm), f"{count(_size(arm))}\n{share(arm.pool_fraction)}") for arm in course],
        (sizes[0] / 1.25, sizes[-1] * 1.25), log=True,
    )  # fmt: skip
    y_axis = axis_around(metric_name(metric), values)
    for fraction in fractions:
        here = {arm: row for (arm, f), row in found.items() if f == fraction}
        curves = [(course, largest.style, f"{names[largest.name]}, by size of the pool")]
        curves += [([arm], arm.style, names[arm.name]) for arm in arms if arm not in course]
        series = []
        for some, style, label in curves:
            some = [arm for arm in some if arm.name in here]
            rows, at = [here[arm.name] for arm in some], [_size(arm) for arm in some]
            series.append(Series.of_rows(rows, at, style, label, ("line", "whisker", "mark")))
        for arm in random:
            y = [here[arm.name]["value"]] if arm.name in here else []
            series.append(Series(arm.style, y=y, name=names[arm.name], parts=("line",)))
        title = labels_phrase(results, panel.task, fraction)
        sentence = _sentence(results, panel, arms, largest, fraction, {}).partition(" Against")[0]
        charts.append(Chart(f"Pool, {name}", title, x_axis, y_axis, series, f"{name}, {title}. {sentence}"))
    return charts


def _reading(results: Results, pair: Row) -> str:
    """ "−0.07 (−0.09 to −0.05): worse", with what fine-tunings that stayed at chance say."""
    stuck = stayed_at_chance(results.plateaus, pair)
    return f"{difference(pair)}: {claim_words(claim_of(pair))[1]}" + (f" ({stuck})" if stuck else "")


def _table(
    results: Results,
    panel: Panel,
    arms: Sequence[Arm],
    largest: Arm,
    random: Sequence[Arm],
    fractions: Sequence[float],
    by: dict[tuple[str, float], Row],
) -> Table:
    """No pretraining, then the pools by size: scores, and differences from the largest pool."""
    metric, names = results.headline(panel), arm_names(results)
    rows = []
    for arm in (*random, *arms):
        cells = []
        for fraction in fractions:
            row, pair = results.summary(panel, metric, arm.name, fraction), by.get((arm.name, fraction))
            if row is None or not present(row["value"]):
                cells.append(Entry("–", small=because(row["note"]) if row else ""))
                continue
            small = f"against {pool_name(largest)} {_reading(results, pair)}" if pair else ""
            cells.append(Entry(number(row["value"]), interval(row["low"], row["high"]), small))
        pretrained = arm.family != "random"
        rows.append((
            Entry(pool_name(arm) if pretrained else f"none: {names[arm.name]}"),
            Entry(count(arm.num_patients_seen) if pretrained else "0"),
            Entry(count(arm.images_seen) if pretrained else "0"), *cells,
        ))  # fmt: skip
    columns = ("Pool", "Patients", "Images seen", *(f"{share(f)} of labels" for f in fractions))
    title = f"{metric_name(metric)} of {panel.task} by pretraining pool, {mode_name(panel.mode)}"
    note = "Pools differ in their images alone: network, start, method, settings, batch and images seen, so "
    note += "updates, are the same."
    notes = dict.fromkeys(str(row["note"]) for row in by.values() if row.get("note"))
    note += "".join(f" Differences: {text}." for text in notes)
    styles = [arm.style for arm in (*random, *arms)]
    return Table(title, columns, rows, note, heads=1, styles=styles)
