"""Charts as SVG: lines, bands, intervals, points and columns between two axes, with a legend and a note.

A chart is a record of series in data units. `Chart.svg` is for a page that holds the style sheet, which
colours it in light, dark and print; `chart_files` makes SVG files of their own, in light colours, for a
paper or a slide.
"""

from __future__ import annotations

import math
import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from html import escape
from importlib import resources
from typing import Any, Literal

Values = Sequence[float | None]
Part = Literal["column", "band", "line", "dash", "whisker", "ring", "mark"]

NUM_STYLES = 6  # colours of figure.css besides those of random and ImageNet weights
STYLES = tuple(f"arm-{number}" for number in range(NUM_STYLES))
REFERENCE = "arm-random"  # grey and dashed: what the others are compared with
WIDTH, HEIGHT = 310, 245  # px, HEIGHT without tick labels and the x axis' name
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 10, 46
_PLOT_WIDTH = WIDTH - _LEFT - _RIGHT
_TITLE_LETTERS, _NOTE_LETTERS = 42, 54  # of a line of a file's title, which is bold, and of its note
_MIN_TICK_GAP = 30  # px between tick labels that do not run into each other


@dataclass(frozen=True)
class Series:
    """Points of one colour; those that are None or not finite are left out.

    Parts are columns from 0 to y, a band, a line through the points, a dash at each point, whiskers, small
    rings and marks. Without `x`, `y`, `low` and `high` hold one value each, drawn across the whole frame.
    """

    style: str  # a class of figure.css: "arm-0", "arm-random"; "zero" or "diagonal" for lines of the frame
    x: Sequence[float] = ()
    y: Values = ()
    low: Values = ()  # of bands and whiskers
    high: Values = ()
    name: str = ""  # for the legend; "" where the series has no entry of its own
    parts: tuple[Part, ...] = ("line", "mark")
    shift: float = 0.0  # px to the right, of whiskers, rings and marks: points of one x are side by side
    width: float = 0.0  # of columns and dashes, in units of x
    label: str = ""  # above the right end of a line across the frame

    @classmethod
    def of_rows(
        cls,
        rows: Sequence[Mapping[str, Any]],
        x: Sequence[float] | str,
        style: str,
        name: str = "",
        parts: tuple[Part, ...] = ("band", "line", "mark"),
        shift: float = 0.0,
        value: str = "value",
    ) -> Series:
        """From rows with `value` and perhaps "low" and "high"; `x` may be a key too."""
        y, low, high = ([row.get(key) for row in rows] for key in (value, "low", "high"))
        at = [row[x] for row in rows] if isinstance(x, str) else x
        return cls(style, at, y, low, high, name, parts, shift)

    def across(self, ends: Sequence[float]) -> Series:
        """Of one value each, drawn from end to end of the frame."""
        y, low, high = ([*values, *values] for values in (self.y, self.low, self.high))
        return replace(self, x=ends, y=y, low=low, high=high)

    def known(self, *columns: Values) -> list[tuple[float, ...]]:
        """(x, value of each column) of the points that have all of them."""
        rows = zip(self.x, *columns, strict=False)
        return [tuple(known) for row in rows if len(known := _known(row)) == len(row)]


@dataclass(frozen=True)
class PlotAxis:
    """`ticks`: (value, label, "\\n" between its lines); none: round values around the series' values."""

    label: str
    ticks: Sequence[tuple[float, str]] = ()
    limits: tuple[float, float] | None = None  # none: the first and the last tick
    log: bool = False

    def at(self, value: float) -> float:
        """0 at the lower end, 1 at the upper one."""
        ends = self.limits or (self.ticks[0][0], self.ticks[-1][0])
        low, high, here = (math.log(v) if self.log else v for v in (*ends, value))
        return (here - low) / (high - low)


@dataclass(frozen=True)
class Chart:
    """One figure."""

    heading: str  # what it belongs to; in a file it stands above the title
    title: str
    x: PlotAxis
    y: PlotAxis
    series: Sequence[Series]
    described: str  # the figure in words, for those who cannot see it
    note: str = ""  # below the legend
    kind: str = ""  # begins the name of its file

    @property
    def legend(self) -> list[tuple[str, str]]:
        """(name, style) of the series that have a name, each once."""
        return list(dict.fromkeys((one.name, one.style) for one in self.series if one.name))

    @property
    def height(self) -> int:
        """In px, with all lines of tick labels."""
        lines = max((label.count("\n") + 1 for _, label in self.x.ticks), default=1)
        return HEIGHT - _BOTTOM + 28 + 12 * lines

    @cached_property
    def y_axis(self) -> PlotAxis:
        values = [v for one in self.series for v in (*one.y, *one.low, *one.high)]
        return self.y if self.y.ticks else axis_around(self.y.label, values)

    @property
    def drawn(self) -> list[Series]:
        """The series, those across the frame from end to end."""
        ends = self.x.limits or (self.x.ticks[0][0], self.x.ticks[-1][0])
        return [one if one.x or not (one.y or one.low) else one.across(ends) for one in self.series]

    @property
    def labelled(self) -> list[tuple[float, list[str]]]:
        """Ticks of the x axis in px and the lines below them, none where two would run into each other."""
        found, last = [], -math.inf
        for tick, label in self.x.ticks:
            x = self.px(tick)
            free = x - last >= _MIN_TICK_GAP
            last = x if free else last
            found.append((x, label.split("\n") if free else []))
        return found

    def px(self, x: float) -> float:
        return _LEFT + self.x.at(x) * _PLOT_WIDTH

    def py(self, y: float) -> float:
        return HEIGHT - _BOTTOM - self.y_axis.at(y) * (HEIGHT - _TOP - _BOTTOM)

    @property
    def svg(self) -> str:
        """Safe markup for a page that holds the style sheet."""
        return _drawn("inline", self)


@cache
def _template() -> Any:
    """chart.svg.j2, with what its macros need to know of the frame."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trabecula", "figures"), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"px": "{:.1f}".format, "escaped": escape}
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    environment.globals.update(width=WIDTH, left=_LEFT, right=right, top=_TOP, bottom=bottom)
    return environment.get_template("chart.svg.j2").module


def _drawn(macro: str, chart: Chart, *values: Any) -> str:
    return str(getattr(_template(), macro)(chart, *values)).replace("\n", "")


@dataclass(frozen=True)
class ChartGroup:
    """Charts side by side under a title and a caption; `opened`: unfolded when the page is opened."""

    title: str
    caption: str
    charts: list[Chart]
    opened: bool = True


def axis_around(label: str, values: Values) -> PlotAxis:
    """An axis of round ticks that enclose these values."""
    known = _known(values)
    ticks = round_ticks(min(known, default=0.0), max(known, default=1.0))
    return PlotAxis(label, [(tick, tick_text(tick)) for tick in ticks])


def round_ticks(low: float, high: float) -> list[float]:
    """Four to eight round values that enclose [low, high]."""
    spread = max(high - low, 1e-3)
    step = next(s * 10.0**e for e in range(-5, 12) for s in (1, 2, 2.5, 5) if spread / (s * 10.0**e) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def count_ticks(low: float, high: float, room: float = 0.0) -> list[tuple[float, str]]:
    """Round whole numbers from low - room to high + room, with labels for large counts."""
    ticks = [x for x in round_ticks(low, high) if low - room <= x <= high + room and x == round(x)]
    return [(x, short_count(x)) for x in ticks]


def tick_text(value: float) -> str:
    """ "0.25", "−10", "13k"."""
    return short_count(value) if abs(value) >= 10_000 else f"{value:.6g}".replace("-", "−")


def short_count(value: float) -> str:
    """12800 -> "12.8k"."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}".replace("-", "−")
    return f"{value:.0f}".replace("-", "−")


UNIT_TICKS = tuple((i / 5, tick_text(i / 5)) for i in range(6))  # of probabilities and shares


def interval_bar(values: Values, reach: float, style: str) -> str:
    """An interval (middle, low, high) about a line of no difference, for a table's cell; "" if not known.

    `reach` is half the width, in the values' units; what is beyond it is drawn at the edge.
    """
    known = _known(values)
    if len(known) < 3:
        return ""
    middle, low, high = (60 + 56 * max(-1.0, min(1.0, v / reach)) for v in known)
    return (
        '<svg class="bar" viewBox="0 0 120 16" aria-hidden="true"><path class="zero" d="M60 0V16"/>'
        f'<path class="line {style}" d="M{low:.1f} 8H{high:.1f}"/>'
        f'<circle class="mark {style}" cx="{middle:.1f}" cy="8" r="3.6"/></svg>'
    )


def chart_files(charts: Sequence[Chart]) -> dict[str, str]:
    """File name -> SVG; charts of the same name are numbered."""
    files: dict[str, str] = {}
    for chart in charts:
        plain = unicodedata.normalize("NFKD", f"{chart.kind} {chart.heading} {chart.title}")
        name = re.sub(r"[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode().lower()).strip("-")
        names = (f"{name}{end}.svg" for end in ("", *(f"-{k}" for k in range(2, len(charts) + 2))))
        files[next(free for free in names if free not in files)] = chart_file(chart)
    return files


def chart_file(chart: Chart) -> str:
    """The chart with its headings, legend and note as an SVG file of its own.

    Variables of the style sheet are written out: few programs but browsers know them.
    """
    titles, notes = textwrap.wrap(chart.title, _TITLE_LETTERS), textwrap.wrap(chart.note, _NOTE_LETTERS)
    styles = [style for _, style in chart.legend] + re.findall(r"\barm-\w+", _drawn("body", chart))
    return _drawn("file", chart, titles, notes, plain_rules(style_sheet(), styles)) + "\n"


def style_sheet() -> str:
    """figure.css: colours and strokes of everything that is drawn here, for a page."""
    return (resources.files("trabecula.figures") / "figure.css").read_text(encoding="utf-8")


def plain_rules(sheet: str, styles: Sequence[str]) -> str:
    """The sheet's rules for these arms, with light colours in place of variables."""
    values = dict(re.findall(r"--(\w+): (#\w+)", sheet))
    arms = {
        name: dict(re.findall(r"--(c|dash): ([^;]+);", body))
        for name, body in re.findall(r"\.(arm-\w+) \{([^}]*)\}", sheet)
    }
    rules = []
    for selector, body in re.findall(r"^\.((?!arm-)[\w ]+) \{([^}]*)\}", sheet, re.M):
        if "var(--c)" not in body:
            rules.append(f".{selector}{{{body}}}")
            continue
        for style in dict.fromkeys(styles):
            own = body.replace("var(--c)", arms[style]["c"])
            own = own.replace("var(--dash, none)", arms[style].get("dash", "none"))
            rules.append(f".{selector}.{style}{{{own}}}")
    return re.sub(r"var\(--(\w+)\)", lambda m: values[m[1]], "".join(rules))


def _known(values: Values) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]
