"""Scores over the course of pretraining: a figure of the snapshots that were evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from trabecula.figures.plots import Axes, Figure, Group, ticks
from trabecula.sections.formats import Cell, Table
from trabecula.sections.results import Panel, Results, Row
from trabecula.sections.wording import (
    architecture_name,
    arm_names,
    count,
    interval,
    metric_name,
    mode_name,
    number,
    present,
    share,
    short_count,
)

_MAX_TICKS = 6


def snapshot_curves(results: Results, panel: Panel, metric: str) -> Group | None:
    """Metric on validation images against images seen in pretraining, a panel per network and fraction.

    The line across is the control on validation images: the first random arm of the network.
    """
    found = _curves(results, panel, metric)
    figures = []
    for architecture in results.architectures:
        for fraction in sorted({c["fraction"] for c in found}):
            curves = [c for c in found if c["fraction"] == fraction]
            curves = [c for c in curves if results.by_name[c["arm"]].architecture == architecture]
            if curves:
                figures.append(_figure(results, panel, metric, architecture, fraction, curves))
    if not figures:
        return None
    title = f"Validation {metric_name(metric)} over pretraining, {panel.task}, {mode_name(panel.mode)}"
    caption = (
        "On the validation images of each seed, on which its model was chosen: higher than on test images, "
        "and no part of any verdict. Bands are "
        f"{results.level} % intervals; the line across is random initialisation of the same network."
    )
    return Group(title, caption, figures)


def snapshot_table(results: Results, panel: Panel, metric: str) -> Table:
    """The values behind the figure, the control of each curve first."""
    names, rows, styles = arm_names(results), [], []
    for curve in _curves(results, panel, metric):
        arm, control = results.by_name[curve["arm"]], curve["control"]
        lines = [(results.by_name[control["arm"]], None, control)] if control else []
        for shown, images, point in lines + [(arm, p["images"], p) for p in curve["points"]]:
            value = Cell(number(point["value"]), interval(point["low"], point["high"]), point["note"])
            head = (Cell(architecture_name(arm.architecture)), Cell(names[shown.name]))
            rows.append((*head, Cell(share(curve["fraction"])), Cell(count(images)), value,
                         Cell(count(point["num_patients"]))))  # fmt: skip
            styles.append(shown.style)
    columns = ("Network", "Initialisation", "Labels", "Images seen", metric_name(metric), "Patients")
    title = f"Validation {metric_name(metric)} over pretraining, {panel.task}, {mode_name(panel.mode)}"
    return Table(title, columns, rows, heads=4, styles=styles)


def _curves(results: Results, panel: Panel, metric: str) -> list[Row]:
    return [
        c
        for c in results.curves.get("snapshots", [])
        if (c["task"], c["mode"], c["metric"]) == (panel.task, panel.mode, metric)
        and c.get("split") == "val"
        and any(present(p["value"]) for p in c["points"])
    ]


def _points(curve: Row) -> list[Row]:
    return [p for p in curve["points"] if present(p["value"])]


def _figure(
    results: Results,
    panel: Panel,
    metric: str,
    architecture: str,
    fraction: float,
    found: Sequence[Row],
) -> Figure:
    curves = [(results.by_name[c["arm"]], _points(c)) for c in found]
    control = next((c["control"] for c in found if c["control"]), None)
    across = control["value"] if control and present(control["value"]) else None
    random = [results.by_name[control["arm"]]] if control and across is not None else []
    values = [v for _, points in curves for p in points for v in (p["value"], p["low"], p["high"])]
    known = [v for v in (*values, across) if v is not None and present(v)]
    y_ticks = ticks(min(known), max(known))
    images = sorted({p["images"] for _, points in curves for p in points})
    last = images[-1] or 1
    shown = images[:: -(-len(images) // _MAX_TICKS)]
    axes = Axes(
        (0, last * 1.05), (y_ticks[0], y_ticks[-1]), "images seen in pretraining",
        f"validation {metric_name(metric)}",
        [(x, (short_count(x),)) for x in shown], y_ticks,
    )  # fmt: skip
    for arm, points in curves:
        bounded = [p for p in points if present(p["low"]) and present(p["high"])]
        axes.band([(p["images"], p["low"], p["high"]) for p in bounded], arm.style)
    if across is not None:
        axes.line([(0, across), (last * 1.05, across)], random[0].style)
    for arm, points in curves:
        axes.line([(p["images"], p["value"]) for p in points], arm.style)
        for p in points:
            axes.mark(p["images"], p["value"], arm.style)
    name = f"{architecture_name(architecture)}, {share(fraction)} of labels"
    names = arm_names(results)
    told = "; ".join(
        f"{names[arm.name]}: " + ", ".join(f"{number(p['value'])} at {count(p['images'])}" for p in points)
        for arm, points in curves
    )
    arms = [arm for arm, _ in curves] + random
    return Figure(
        name, axes.svg(f"Validation {metric_name(metric)} over pretraining, {panel.task}", told), arms
    )
