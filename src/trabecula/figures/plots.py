"""Figures as inline SVG: coloured by the page's style sheet, so legible in light, dark and print.

One panel per architecture, arms as colours; an arm keeps its colour through the whole report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from trabecula.sections.results import Arm, Panel, Results, Row
from trabecula.sections.wording import (
    architecture_name,
    arm_names,
    count,
    metric_name,
    mode_name,
    number,
    present,
    share,
    short_count,
    sized_intervals,
)

WIDTH, HEIGHT = 310, 245
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 10, 46
_MIN_TICK_GAP = 30  # px between tick labels that do not run into each other
_ARM_STEP = 36  # px between arms that stand side by side
_MANY_CLASSES = 5  # above it, each class has a panel, not a group of panels
_FEW_SEEDS = 5  # below it the seeds are shown as points (the interval is over patients only)


@dataclass(frozen=True)
class Figure:
    """One panel: `svg` is safe markup, `title` stands above it, `arms` for its legend."""

    title: str
    svg: str
    arms: list[Arm]


@dataclass(frozen=True)
class Group:
    """Panels that share their axes, one per architecture."""

    title: str
    caption: str
    figures: list[Figure]
    opened: bool = True


@dataclass
class Axes:
    """A frame in data units; `x_log` puts x on a logarithmic axis."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    x_ticks: Sequence[tuple[float, Sequence[str]]]
    y_ticks: Sequence[float]
    x_log: bool = False
    body: list[str] = field(default_factory=list)

    @property
    def _lines(self) -> int:
        """Lines of text below a tick."""
        return max((len(labels) for _, labels in self.x_ticks), default=1)

    def px(self, x: float) -> float:
        low, high, value = (math.log(v) if self.x_log else v for v in (*self.x, x))
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def py(self, y: float) -> float:
        low, high = self.y
        return HEIGHT - _BOTTOM - (y - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def at(self, x: float, y: float) -> str:
        return f"{self.px(x):.1f},{self.py(y):.1f}"

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        if len(points) > 1:
            path = " ".join(self.at(x, y) for x, y in points)
            self.body.append(f'<polyline class="line {style}" points="{path}"/>')

    def band(self, points: Sequence[tuple[float, float, float]], style: str) -> None:
        """Points are (x, low, high)."""
        if len(points) > 1:
            outline = [self.at(x, low) for x, low, _ in points]
            outline += [self.at(x, high) for x, _, high in reversed(points)]
            self.body.append(f'<polygon class="band {style}" points="{" ".join(outline)}"/>')

    def whisker(self, x: float, low: float, high: float, style: str, shift: float = 0) -> None:
        at, top, bottom = self.px(x) + shift, self.py(high), self.py(low)
        self.body.append(f'<path class="whisker {style}" d="M{at:.1f} {top:.1f}V{bottom:.1f}"/>')

    def mark(self, x: float, y: float, style: str, kind: str = "mark", shift: float = 0) -> None:
        radius = 3.4 if kind == "mark" else 2.2
        centre = f'cx="{self.px(x) + shift:.1f}" cy="{self.py(y):.1f}"'
        self.body.append(f'<circle class="{kind} {style}" {centre} r="{radius}"/>')

    def svg(self, title: str, description: str) -> str:
        parts = [
            f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT - _BOTTOM + 28 + 12 * self._lines}" role="img" '
            f'aria-label="{escape(f"{title}. {description}")}">',
            *self._frame(),
            *self.body,
            "</svg>",
        ]
        return "".join(parts)

    def _frame(self) -> list[str]:
        left, right, bottom = _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM
        parts = []
        for tick in self.y_ticks:
            y = self.py(tick)
            parts.append(f'<path class="rule" d="M{left} {y:.1f}H{right}"/>')
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick(tick)}</text>')
        last = -math.inf
        for tick, labels in self.x_ticks:
            x = self.px(tick)
            parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
            if x - last >= _MIN_TICK_GAP:
                last = x
                for i, label in enumerate(labels):
                    middle = f'x="{x:.1f}" y="{bottom + 16 + 12 * i}" text-anchor="middle"'
                    parts.append(f"<text {middle}>{escape(label)}</text>")
        parts.append(f'<path class="axis" d="M{left} {bottom}H{right}"/>')
        centre = (left + right) / 2
        under = bottom + 22 + 12 * self._lines
        y_centre = (_TOP + bottom) / 2
        parts.append(f'<text x="{centre:.0f}" y="{under}" text-anchor="middle">{escape(self.x_label)}</text>')
        parts.append(
            f'<text x="11" y="{y_centre:.0f}" text-anchor="middle" '
            f'transform="rotate(-90 11 {y_centre:.0f})">{escape(self.y_label)}</text>'
        )
        return parts


def learning_curves(results: Results, panel: Panel, metric: str) -> Group | None:
    """Metric against training patients on a logarithmic axis, with bands; few seeds as points."""
    curves = {
        c["arm"]: [p for p in c["points"] if present(p["value"]) and present(p["num_patients"])]
        for c in results.curves["learning"]
        if (c["task"], c["mode"], c["metric"]) == (panel.task, panel.mode, metric)
    }
    points = [p for drawn in curves.values() for p in drawn if p["num_patients"] > 0]
    if not points:
        return None
    values = [v for p in points for v in (p["value"], p["low"], p["high"], *_seeds(p)) if present(v)]
    y_ticks = ticks(*_room(min(values), max(values)))
    at = {p["num_patients"]: p["fraction"] for p in points}
    x_ticks = [(x, (count(x), share(at[x]))) for x in sorted(at)]
    x_range = (min(at) / 1.25, max(at) * 1.25)
    figures = []
    fractions = {p["fraction"] for p in points}
    single = len(set(at.values())) == 1
    x_label = f"training patients{'' if single else ' (log scale)'}, share of labels"
    for architecture, arms in _by_architecture(results, curves):
        axes = Axes(
            x_range, (y_ticks[0], y_ticks[-1]), x_label,
            metric_name(metric), x_ticks, y_ticks, x_log=True,
        )  # fmt: skip
        places = [i - (len(arms) - 1) / 2 for i in range(len(arms))]
        if single:
            step = min(_ARM_STEP, 0.7 * (WIDTH - _LEFT - _RIGHT) / len(arms))
            for arm, place in zip(arms, places, strict=True):
                _draw_beside(axes, curves[arm.name], arm.style, step * place)
        else:
            for arm in arms:  # bands first: no band may cover another arm's line
                axes.band(_bounds(curves[arm.name]), arm.style)
            for arm, place in zip(arms, places, strict=True):
                _draw_learning(axes, curves[arm.name], arm.style, shift=4.0 * place)
        names = arm_names(results)
        ends = [
            f"{names[a.name]}: {number(c[0]['value'])} at {count(c[0]['num_patients'])} patients, "
            f"{number(c[-1]['value'])} at {count(c[-1]['num_patients'])}"
            for a in arms
            if (c := curves[a.name])
        ]
        title = f"Learning curves of {architecture_name(architecture)}, {panel.task}, {mode_name(panel.mode)}"
        figures.append(Figure(architecture_name(architecture), axes.svg(title, "; ".join(ends)), arms))
    few = any(0 < len(_seeds(p)) < _FEW_SEEDS for p in points)
    alone = "All label fractions drew as many patients" if len(fractions) > len(at) else "One label fraction"
    sentences = [f"{alone}, so no curve: the arms stand side by side."] if single else []
    if any(_bounds(drawn) for drawn in curves.values()):
        sentences.append(f"{'Whiskers' if single else 'Bands'} are {sized_intervals(results, panel)}.")
    if few:
        sentences.append("Filled marks are means over seeds, small rings single seeds.")
    title = f"{metric_name(metric)} of {panel.task}, {mode_name(panel.mode)}"
    return Group(title, " ".join(sentences), figures)


def _draw_beside(axes: Axes, points: Sequence[Row], style: str, shift: float) -> None:
    for x, low, high in _bounds(points):
        axes.whisker(x, low, high, style, shift)
    for p in points:
        seeds = _seeds(p)
        for value in seeds if len(seeds) < _FEW_SEEDS else ():
            axes.mark(p["num_patients"], value, style, "seed", shift + 7)
        axes.mark(p["num_patients"], p["value"], style, shift=shift)


def _draw_learning(axes: Axes, points: Sequence[Row], style: str, shift: float) -> None:
    axes.line([(p["num_patients"], p["value"]) for p in points], style)
    for p in points:
        seeds = _seeds(p)
        if len(seeds) < _FEW_SEEDS:
            for value in seeds:
                axes.mark(p["num_patients"], value, style, "seed", shift)
        axes.mark(p["num_patients"], p["value"], style)


def _bounds(points: Sequence[Row]) -> list[tuple[float, float, float]]:
    return [
        (p["num_patients"], p["low"], p["high"]) for p in points if present(p["low"]) and present(p["high"])
    ]


def roc_curves(results: Results, panel: Panel) -> list[Group]:
    """One group per label fraction and class, a panel per architecture; the smallest fraction is opened.

    Of many classes, the findings of a chest film say, one group per label fraction and architecture, a
    panel per class: fourteen curves of each arm in one frame could not be told apart.
    """
    rows = [r for r in results.curves["roc"] if (r["task"], r["mode"]) == (panel.task, panel.mode)]
    found = dict.fromkeys((r["fraction"], str(r["class"])) for r in rows)
    kinds = sorted(found, key=lambda kind: kind[0])  # classes in the task's order
    of = {kind: {r["arm"]: r for r in rows if (r["fraction"], str(r["class"])) == kind} for kind in kinds}
    what = f"ROC of {panel.task}, {mode_name(panel.mode)}"
    drawn: dict[str, list[tuple[Figure, bool]]] = {}
    for (fraction, name), chosen in of.items():
        many = len([1 for other, _ in kinds if other == fraction]) > _MANY_CLASSES
        for architecture, arms in _by_architecture(results, chosen):
            network = architecture_name(architecture)
            title = f"{what}, {share(fraction)} of labels, {network if many else f'class {name}'}"
            drawn.setdefault(title, []).append(
                _roc(results, panel, (fraction, name), (network, arms), chosen, name if many else network)
            )
    groups: list[Group] = []
    bands = f" Bands are pointwise {sized_intervals(results, panel)}."
    for title, figures in drawn.items():
        caption = "Curves are means over seeds." + bands * any(banded for _, banded in figures)
        groups.append(Group(title, caption, [figure for figure, _ in figures], opened=not groups))
    return groups


def _roc(
    results: Results,
    panel: Panel,
    kind: tuple[float, str],
    network: tuple[str, list[Arm]],
    chosen: dict[str, Row],
    title: str,
) -> tuple[Figure, bool]:
    """One frame, and whether it has a band."""
    axes, banded = _unit_axes("1 − specificity", "sensitivity"), False
    for arm in network[1]:
        r = chosen[arm.name]
        edges = zip(r["fpr"], r["low"] or (), r["high"] or (), strict=False)
        band = [e for e in edges if all(present(v) for v in e)]
        banded = banded or len(band) > 1
        axes.band(band, arm.style)
    for arm in network[1]:
        axes.line(list(zip(chosen[arm.name]["fpr"], chosen[arm.name]["tpr"], strict=False)), arm.style)
    told = f"ROC of {network[0]}, {panel.task}, {mode_name(panel.mode)}"
    described = f"{share(kind[0])} of labels, class {kind[1]}, arms: {_listed(results, network[1])}"
    return Figure(title, axes.svg(told, described), network[1]), banded


def reliability_plots(results: Results, panel: Panel) -> list[Group]:
    """Observed frequency against predicted probability, with intervals per bin."""
    rows = [r for r in results.curves["reliability"] if (r["task"], r["mode"]) == (panel.task, panel.mode)]
    groups: list[Group] = []
    for fraction in sorted({r["fraction"] for r in rows}):
        chosen = {r["arm"]: r for r in rows if r["fraction"] == fraction}
        figures = []
        for architecture, arms in _by_architecture(results, chosen):
            axes = _unit_axes("predicted probability", "observed frequency")
            for i, arm in enumerate(arms):
                _draw_bins(axes, chosen[arm.name]["bins"], arm.style, 3.0 * (i - (len(arms) - 1) / 2))
            title = f"Reliability of {architecture_name(architecture)}, {panel.task}, {mode_name(panel.mode)}"
            described = f"{share(fraction)} of labels, arms: {_listed(results, arms)}"
            figures.append(Figure(architecture_name(architecture), axes.svg(title, described), arms))
        title = f"Reliability of {panel.task}, {mode_name(panel.mode)}, {share(fraction)} of labels"
        caption = (
            "On the diagonal, what was predicted is what was observed. Each mark is a tenth of all seeds' "
            f"predictions. Whiskers are {sized_intervals(results, panel)}."
        )
        groups.append(Group(title, caption, figures, opened=not groups))
    return groups


def _draw_bins(axes: Axes, bins: Sequence[Row], style: str, shift: float) -> None:
    known = [b for b in bins if present(b["predicted"]) and present(b["observed"])]
    axes.line([(b["predicted"], b["observed"]) for b in known], style)
    for b in known:
        if present(b["low"]) and present(b["high"]):
            axes.whisker(b["predicted"], b["low"], b["high"], style, shift)
        axes.mark(b["predicted"], b["observed"], style)


def difference_bar(pair: Row, reach: float, style: str) -> str:
    """A small interval around the line of no difference; `reach` is the half-width in metric units."""
    if not all(present(pair[k]) for k in ("difference", "low", "high")):
        return ""
    x = {k: 60 + 56 * max(-1.0, min(1.0, pair[k] / reach)) for k in ("difference", "low", "high")}
    return (
        '<svg class="bar" viewBox="0 0 120 16" aria-hidden="true"><path class="zero" d="M60 0V16"/>'
        f'<path class="line {style}" d="M{x["low"]:.1f} 8H{x["high"]:.1f}"/>'
        f'<circle class="mark {style}" cx="{x["difference"]:.1f}" cy="8" r="3.6"/></svg>'
    )


def _unit_axes(x_label: str, y_label: str) -> Axes:
    ticks = [i / 5 for i in range(6)]
    axes = Axes((0, 1), (0, 1), x_label, y_label, [(t, (_tick(t),)) for t in ticks], ticks)
    axes.body.append(f'<path class="diagonal" d="M{axes.at(0, 0)}L{axes.at(1, 1)}"/>')
    return axes


def _by_architecture(
    results: Results, chosen: dict[str, Row] | dict[str, list[Row]]
) -> list[tuple[str, list[Arm]]]:
    groups = [(a, [arm for arm in results.arms_of(a) if arm.name in chosen]) for a in results.architectures]
    return [(architecture, arms) for architecture, arms in groups if arms]


def _listed(results: Results, arms: Sequence[Arm]) -> str:
    names = arm_names(results)
    return ", ".join(names[arm.name] for arm in arms)


def _seeds(point: Row) -> list[float]:
    return [s for s in point["seeds"] if present(s)]


def _tick(value: float) -> str:
    return short_count(value) if abs(value) >= 10_000 else f"{value:.6g}".replace("-", "−")


def _room(low: float, high: float) -> tuple[float, float]:
    """Scores that are all equal get an axis by which they can be read, not beyond 0 and 1 for their sake."""
    if high - low > 1e-3:
        return low, high
    return max(low - 0.05, min(low, 0.0)), min(high + 0.05, max(high, 1.0))


def ticks(low: float, high: float) -> list[float]:
    """Four to eight round values that enclose [low, high]."""
    spread = max(high - low, 1e-3)
    step = next(s * 10.0**e for e in range(-5, 12) for s in (1, 2, 2.5, 5) if spread / (s * 10.0**e) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
