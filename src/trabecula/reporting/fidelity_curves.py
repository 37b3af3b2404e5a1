"""Figures of a generator's course: distances to real images, and the critic's gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trabecula.reporting.drawings import standalone
from trabecula.reporting.figures import Axes, ticks
from trabecula.reporting.wording import count, present

Row = Mapping[str, Any]
_MAX_TICKS = 6
_SETS = (("train", "to training images", "arm-0"), ("val", "to held-out images", "arm-1"))
_FLOOR = "training to held-out images"


def distance_figure(points: Sequence[Row], metric: str, name: str) -> str | None:
    """An SVG file: a distance against images seen, with the distance of two sets of reals across."""
    rows = [p for p in points if p["metric"] == metric and present(p["value"])]
    curves = [(label, style, [p for p in rows if p["set"] == part]) for part, label, style in _SETS]
    floor = next((p["value"] for p in rows if p["set"] == "floor"), None)
    drawn = [p for _, _, curve in curves for p in curve]
    if not drawn:
        return None
    values = [p[key] for p in drawn for key in ("value", "low", "high") if present(p[key])]
    axes = _axes([p["images"] for p in drawn], [*values, *([] if floor is None else [floor])], name)
    for _, style, curve in curves:
        axes.band([(p["images"], p["low"], p["high"]) for p in curve if present(p["low"])], style)
    if floor is not None:
        axes.line([(axes.x[0], floor), (axes.x[1], floor)], "arm-random")
    for _, style, curve in curves:
        _draw(axes, [(p["images"], p["value"]) for p in curve], style)
    legend = [(label, style) for label, style, curve in curves if curve]
    legend += [(_FLOOR, "arm-random")] if floor is not None else []
    told = "; ".join(f"{label}: " + _told(curve, "value") for label, _, curve in curves if curve)
    note = f"Sets of {count(drawn[0]['num_reals'])} images each. The line across is real against real."
    return standalone("Generated images", name, axes.svg(f"{name} over training", told), legend, note)


def gap_figure(critic: Sequence[Row]) -> str | None:
    """An SVG file: the critic's gap as a share of its range, against images seen."""
    rows = [c for c in critic if present(c["relative_gap"])]
    if not rows:
        return None
    axes = _axes([c["images"] for c in rows], [0.0, *(c["relative_gap"] for c in rows)], "relative gap")
    axes.line([(axes.x[0], 0.0), (axes.x[1], 0.0)], "arm-random")
    _draw(axes, [(c["images"], c["relative_gap"]) for c in rows], "arm-0")
    legend = [("(train − held out) / (train − fake)", "arm-0"), ("no overfitting", "arm-random")]
    svg = axes.svg("Overfit gap of the critic over training", _told(rows, "relative_gap"))
    return standalone("Mean scores of the critic", "Overfit gap", svg, legend)


def _axes(images: Sequence[int], values: Sequence[float], label: str) -> Axes:
    y_ticks = ticks(min(values), max(values))
    some = sorted(set(images))
    shown = some[:: -(-len(some) // _MAX_TICKS)]
    return Axes(
        (0, (some[-1] or 1) * 1.05), (y_ticks[0], y_ticks[-1]), "images seen in training", label,
        [(x, (count(x),)) for x in shown], y_ticks,
    )  # fmt: skip


def _draw(axes: Axes, points: Sequence[tuple[float, float]], style: str) -> None:
    axes.line(points, style)
    for x, y in points:
        axes.mark(x, y, style)


def _told(rows: Sequence[Row], key: str) -> str:
    return ", ".join(f"{row[key]:.4g} at {count(row['images'])}" for row in rows)
