"""Scores over the course of pretraining: a figure of the snapshots that were evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from trabecula.artifacts.label_budget import fewest_first, labels_used
from trabecula.artifacts.results import SnapshotCurve, SnapshotPoint
from trabecula.figures.charts import Chart, ChartGroup, PlotAxis, Series, short_count
from trabecula.sections.formats import Entry, Table, arm_cells, cells
from trabecula.sections.names import architecture_name, metric_name
from trabecula.sections.numbers import count, interval, number, present, share
from trabecula.sections.results import Panel, Results

_MAX_TICKS = 6


def snapshot_curves(results: Results, panel: Panel, metric: str) -> ChartGroup | None:
    """Metric on validation images against images seen in pretraining, a panel per network and fraction.

    The line across is the control on validation images: the first random arm of the network.
    """
    found = _curves(results, panel, metric)
    title, charts = _title(panel, metric), []
    for architecture in results.architectures:
        own = [c for c in found if results.by_name[c.arm].architecture == architecture]
        for fraction in sorted({c.fraction for c in own}, key=fewest_first):
            name = f"{architecture_name(architecture)}, {labels_used(fraction)}"
            curves = [c for c in own if c.fraction == fraction]
            charts.append(_chart(results, metric, title, name, curves))
    caption = (
        "On the validation images of each seed, on which its model was chosen: higher than on test images, "
        "and no part of any verdict. Bands are "
        f"{results.level} % intervals; the line across is random initialisation of the same network."
    )
    return ChartGroup(title, caption, charts) if charts else None


def _title(panel: Panel, metric: str) -> str:
    return f"Validation {metric_name(metric)} over pretraining, {panel.title}"


def snapshot_table(results: Results, panel: Panel, metric: str) -> Table:
    """The values behind the figure, the control of each curve first."""
    rows = []
    for curve in _curves(results, panel, metric):
        arm, control = results.by_name[curve.arm], curve.control
        lines = [(results.by_name[control.arm], None, control)] if control else []
        for shown, images, point in lines + [(arm, p.images, p) for p in curve.points]:
            value = Entry(number(point.value), interval(point.low, point.high), point.note)
            head = (arm.network, arm_cells(shown)[1], share(curve.fraction), count(images))
            rows.append(cells(*head, value, count(point.num_patients)))
    columns = ("Network", "Initialisation", "Labels", "Images seen", metric_name(metric), "Patients")
    return Table(_title(panel, metric), columns, rows, heads=4)


def _curves(results: Results, panel: Panel, metric: str) -> list[SnapshotCurve]:
    return [
        curve
        for curve in panel.of(results.curves.snapshots)
        if curve.metric == metric and curve.split == "val" and _points(curve)
    ]


def _points(curve: SnapshotCurve) -> list[SnapshotPoint]:
    return [p for p in curve.points if present(p.value)]


def _chart(results: Results, metric: str, group: str, title: str, curves: Sequence[SnapshotCurve]) -> Chart:
    series, described = [], []
    for curve in curves:
        arm, points = results.by_name[curve.arm], _points(curve)
        series.append(Series.of_rows(points, "images", arm.style, arm.title))
        values = (f"{number(p.value)} at {count(p.images)}" for p in points)
        described.append(f"{arm.title}: {', '.join(values)}")
    control = next((c.control for c in curves if c.control), None)
    if control and present(control.value):
        arm = results.by_name[control.arm]
        series.append(Series(arm.style, y=[control.value], name=arm.title, parts=("line",)))
    images = sorted({p.images or 0 for curve in curves for p in _points(curve)})
    shown = [(x, short_count(x)) for x in images[:: -(-len(images) // _MAX_TICKS)]]
    x_axis = PlotAxis("images seen in pretraining", shown, (0, (images[-1] or 1) * 1.05))
    y_axis = PlotAxis(f"validation {metric_name(metric)}")
    words = f"Validation {metric_name(metric)} over pretraining. {'; '.join(described)}"
    return Chart(group, title, x_axis, y_axis, series, words, kind="snapshots")
