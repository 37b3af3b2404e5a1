"""Figures of series that are no arms: a curve over training, a climb, a spread by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from trabecula.figures.drawings import standalone
from trabecula.figures.plots import WIDTH, Axes

STYLES = tuple(f"arm-{number}" for number in range(6))
REFERENCE = "arm-random"  # grey and dashed: what the others are held against


@dataclass(frozen=True)
class Chart:
    """One panel: `svg` is safe markup; `legend` has (name, style); `note` says what cannot be drawn."""

    heading: str
    title: str
    svg: str
    legend: Sequence[tuple[str, str]] = field(default_factory=list)
    note: str = ""


def chart_file(chart: Chart) -> str:
    """The chart as an SVG file of its own."""
    return standalone(chart.heading, chart.title, chart.svg, chart.legend, chart.note)


def level(axes: Axes, y: float, text: str = "", style: str = "diagonal") -> None:
    """A horizontal line through the frame, with its name above its right end."""
    right = WIDTH - 18
    axes.body.append(f'<path class="{style}" d="M46 {axes.py(y):.1f}H{right}"/>')
    if text:
        axes.body.append(
            f'<text x="{right}" y="{axes.py(y) - 4:.1f}" text-anchor="end">{escape(text)}</text>'
        )
