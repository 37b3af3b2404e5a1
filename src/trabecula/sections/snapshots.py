"""Scores over the course of pretraining: a figure of the snapshots that were evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from trabecula.figures.charts import Chart, ChartGroup, PlotAxis, Series, short_count
from trabecula.sections.formats import Entry, Table
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
)

_MAX_TICKS = 6


def snapshot_curves(results: Results, panel: Panel, metric: str) -> ChartGroup | None:
    """Metric on validation images against images seen in pretraining, a panel per network and fraction.

    The line across is the control on validation images: the first random arm of the network.
    """
    found = _curves(results, panel, metric)
    title = f"Validation {metric_name(metric)} over pretraining, {panel.task}, {mode_name(panel.mode)}"
    charts = []
    for architecture in results.architectures:
        for fraction in sorted({c["fraction"] for c in found}):
            curves = [c for c in found if c["fraction"] == fraction]
            curves = [c for c in curves if results.by_name[c["arm"]].architecture == architecture]
            if curves:
                name = f"{architecture_name(architecture)}, {share(fraction)} of labels"
                charts.append(_chart(results, metric, title, name, curves))
    if not charts:
        return None
    caption = (
        "On the validation images of each seed, on which its model was chosen: higher than on test images, "
        "and no part of any verdict. Bands are "
        f"{results.level} % intervals; the line across is random initialisation of the same network."
    )
    return ChartGroup(title, caption, charts)


def snapshot_table(results: Results, panel: Panel, metric: str) -> Table:
    """The values behind the figure, the control of each curve first."""
    names, rows, styles = arm_names(results), [], []
    for curve in _curves(results, panel, metric):
        arm, control = results.by_name[curve["arm"]], curve["control"]
        lines = [(results.by_name[control["arm"]], None, control)] if control else []
        for shown, images, point in lines + [(arm, p["images"], p) for p in curve["points"]]:
            value = Entry(number(point["value"]), interval(point["low"], point["high"]), point["note"])
            head = (Entry(architecture_name(arm.architecture)), Entry(names[shown.name]))
            rows.append((*head, Entry(share(curve["fraction"])), Entry(count(images)), value,
                         Entry(count(point["num_patients"]))))  # fmt: skip
            styles.append(shown.style)
    columns = ("Network", "Initialisation", "Labels", "Images seen", metric_name(metric), "Patients")
    title = f"Validation {metric_name(metric)} over pretraining, {panel.task}, {mode_name(panel.mode)}"
    return Table(title, columns, rows, heads=4, styles=styles)


def _curves(results: Results, panel: Panel, metric: str) -> list[Row]:
    return [
        c
        for c in results.curves.snapshots
        if (c["task"], c["mode"], c["metric"]) == (panel.task, panel.mode, metric)
        and c.get("split") == "val"
        and any(present(p["value"]) for p in c["points"])
    ]


def _points(curve: Row) -> list[Row]:
    return [p for p in curve["points"] if present(p["value"])]


def _chart(results: Results, metric: str, group: str, title: str, curves: Sequence[Row]) -> Chart:
    names, series, described = arm_names(results), [], []
    for curve in curves:
        arm, points = results.by_name[curve["arm"]], _points(curve)
        series.append(Series.of_rows(points, "images", arm.style, names[arm.name]))
        values = (f"{number(p['value'])} at {count(p['images'])}" for p in points)
        described.append(f"{names[arm.name]}: {', '.join(values)}")
    control = next((c["control"] for c in curves if c["control"]), None)
    if control and present(control["value"]):
        arm = results.by_name[control["arm"]]
        series.append(Series(arm.style, y=[control["value"]], name=names[arm.name], parts=("line",)))
    images = sorted({p["images"] for curve in curves for p in _points(curve)})
    shown = [(x, short_count(x)) for x in images[:: -(-len(images) // _MAX_TICKS)]]
    x_axis = PlotAxis("images seen in pretraining", shown, (0, (images[-1] or 1) * 1.05))
    y_axis = PlotAxis(f"validation {metric_name(metric)}")
    words = f"Validation {metric_name(metric)} over pretraining. {'; '.join(described)}"
    return Chart(group, title, x_axis, y_axis, series, words, kind="snapshots")
