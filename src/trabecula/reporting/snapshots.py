"""Scores over the course of pretraining: a figure of the snapshots that were evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from trabecula.reporting.figures import Axes, Figure, Group, ticks
from trabecula.reporting.results import Arm, Panel, Results, Row
from trabecula.reporting.wording import (
    architecture_name,
    arm_names,
    count,
    metric_name,
    mode_name,
    number,
    present,
    share,
)

_MAX_TICKS = 6


def snapshot_curves(results: Results, panel: Panel, metric: str) -> Group | None:
    """Metric against images seen in pretraining, a panel per network and label fraction.

    The line across is the control: the first random arm of the network.
    """
    found = [
        c
        for c in results.curves.get("snapshots", [])
        if (c["task"], c["mode"], c["metric"]) == (panel.task, panel.mode, metric)
        and any(present(p["value"]) for p in c["points"])
    ]
    figures = []
    for architecture in results.architectures:
        for fraction in sorted({c["fraction"] for c in found}):
            curves = [(_arm(results, c), _points(c)) for c in found if c["fraction"] == fraction]
            curves = [(arm, points) for arm, points in curves if arm.architecture == architecture]
            if curves:
                figures.append(_figure(results, panel, metric, architecture, fraction, curves))
    if not figures:
        return None
    title = f"{metric_name(metric)} over pretraining, {panel.task}, {mode_name(panel.mode)}"
    caption = "Bands are intervals; the line across is random initialisation of the same network."
    return Group(title, caption, figures)


def _points(curve: Row) -> list[Row]:
    return [p for p in curve["points"] if present(p["value"])]


def _arm(results: Results, curve: Row) -> Arm:
    """The finished arm; where it was not evaluated itself, its last snapshot."""
    if curve["arm"] in results.by_name:
        return results.by_name[curve["arm"]]
    return [arm for arm in results.arms if arm.name.startswith(f"{curve['arm']}@")][-1]


def _figure(
    results: Results,
    panel: Panel,
    metric: str,
    architecture: str,
    fraction: float,
    curves: Sequence[tuple[Arm, list[Row]]],
) -> Figure:
    random = [arm for arm in results.arms_of(architecture) if arm.family == "random"][:1]
    control = results.summary(panel, metric, random[0].name, fraction) if random else None
    across = control["value"] if control and present(control["value"]) else None
    values = [v for _, points in curves for p in points for v in (p["value"], p["low"], p["high"])]
    y_ticks = ticks(*_ends([v for v in (*values, across) if present(v)]))
    images = sorted({p["images"] for _, points in curves for p in points})
    last = images[-1] or 1
    shown = images[:: -(-len(images) // _MAX_TICKS)]
    axes = Axes(
        (0, last * 1.05), (y_ticks[0], y_ticks[-1]), "images seen in pretraining", metric_name(metric),
        [(x, (count(x),)) for x in shown], y_ticks,
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
    arms = [arm for arm, _ in curves] + (random if across is not None else [])
    return Figure(name, axes.svg(f"{metric_name(metric)} over pretraining, {panel.task}", told), arms)


def _ends(values: Sequence[float | None]) -> tuple[float, float]:
    known = [value for value in values if value is not None]
    return min(known), max(known)
