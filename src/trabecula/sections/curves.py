"""Learning curves, ROC and reliability: a chart for each architecture; an arm keeps its colour throughout."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from trabecula.artifacts.label_budget import fewest_first, is_shots, labels_used, shots_of
from trabecula.figures.charts import UNIT_TICKS, Chart, ChartGroup, Part, PlotAxis, Series, axis_around
from trabecula.sections.names import architecture_name, metric_name
from trabecula.sections.numbers import count, number, present, share
from trabecula.sections.results import Arm, Panel, Results, Row
from trabecula.sections.wording import sized_intervals

_ARM_STEP, _ALL_STEPS = 36, 172  # px between arms that are side by side, and at most for all of them
_MANY_CLASSES = 5  # above it, each class has a chart, not a group of charts
_FEW_SEEDS = 5  # below it the seeds are shown as points (the interval is over patients only)
_DIAGONAL = Series("diagonal", (0, 1), (0, 1), parts=("line",))


def learning_curves(
    results: Results, panel: Panel, metric: str, per_class: bool = False
) -> ChartGroup | None:
    """Metric against training patients on a logarithmic axis, with bands; few seeds as points.

    per_class: of so many labelled patients per class, else of parts of the labels.
    """
    curves = {
        c.arm: [
            p
            for p in c.points
            if present(p.value) and (p.num_patients or 0) > 0 and is_shots(p.fraction) == per_class
        ]
        for c in panel.of(results.curves.learning)
        if c.metric == metric
    }
    points = [p for drawn in curves.values() for p in drawn]
    if not points:
        return None
    values = [v for p in points for v in (p.value, p.low, p.high, *p.seeds) if present(v)]
    at = {p.num_patients: p.fraction for p in points}
    single = len(at) == 1
    scale = "" if single else " (log scale)"
    label = f"training patients{scale}, share of labels"
    ticks = [(x, f"{count(x)}\n{share(at[x])}") for x in sorted(at)]
    if per_class:
        label = f"labelled patients per class{scale}"
        ticks = [(x, count(shots_of(at[x]))) for x in sorted(at)]
    x = PlotAxis(label, ticks, (min(at) / 1.25, max(at) * 1.25), log=True)
    y = axis_around(metric_name(metric), _room(min(values), max(values)))
    title, charts = f"{metric_name(metric)} of {panel.title}{', patients per class' * per_class}", []
    for architecture, arms in _by_architecture(results, curves):
        series, num_beside, ends = [], len(arms) if single else 0, []
        for i, arm in enumerate(arms):
            curve, place = curves[arm.name], i - (len(arms) - 1) / 2
            series += _learned(curve, arm.style, arm.title, place, num_beside)
            places = [f"{number(p.value)} at {count(p.num_patients)}" for p in (curve[:1] + curve[-1:])]
            ends += [f"{arm.title}: {' patients, '.join(places)}"] if curve else []
        network = architecture_name(architecture)
        described = f"Learning curves of {network}, {panel.title}. {'; '.join(ends)}"
        charts.append(Chart(title, network, x, y, series, described, kind="learning"))
    drew = {p.fraction for p in points}
    alone = "All label fractions drew as many patients" if len(drew) > len(at) else "One number of labels"
    sentences = [f"{alone}, so no curve: the arms are side by side."] if single else []
    if any(present(p.low) and present(p.high) for p in points):
        sentences.append(f"{'Whiskers' if single else 'Bands'} are {sized_intervals(results, panel)}.")
    if any(0 < len(_seeds(p)) < _FEW_SEEDS for p in points):
        sentences.append("Filled marks are means over seeds, small rings single seeds.")
    return ChartGroup(title, " ".join(sentences), charts)


def _learned(points: Sequence[Row], style: str, name: str, place: float, num_beside: int) -> list[Series]:
    """An arm's curve with a band, or its one value beside those of `num_beside` arms; and its seeds."""
    shift = place * min(_ARM_STEP, _ALL_STEPS / num_beside) if num_beside else 0.0
    few = [(p.num_patients, _seeds(p)) for p in points if len(_seeds(p)) < _FEW_SEEDS]
    rings = ([x for x, seeds in few for _ in seeds], [seed for _, seeds in few for seed in seeds])
    parts: tuple[Part, ...] = ("whisker", "mark") if num_beside else ("band", "line", "mark")
    return [
        Series.of_rows(points, "num_patients", style, name, parts, shift),
        Series(style, *rings, parts=("ring",), shift=shift + 7 if num_beside else 4.0 * place),
    ]


def roc_curves(results: Results, panel: Panel, networks: str = "") -> list[ChartGroup]:
    """One group per label fraction and class, a chart per architecture; the smallest fraction is opened.

    Of architectures whose name begins with `networks`. Of many classes, such as the findings of a chest
    radiograph, one group per label fraction and architecture, a chart per class: fourteen curves of each arm
    in one frame could not be distinguished.
    """
    rows = panel.of(results.curves.roc)
    found = dict.fromkeys((r.fraction, str(r.class_name)) for r in rows)
    kinds = sorted(found, key=lambda kind: fewest_first(kind[0]))  # classes in the task's order
    drawn: dict[str, list[Chart]] = {}
    for fraction, name in kinds:
        chosen = {r.arm: r for r in rows if (r.fraction, str(r.class_name)) == (fraction, name)}
        many = len([1 for other, _ in kinds if other == fraction]) > _MANY_CLASSES
        for architecture, arms in _by_architecture(results, chosen):
            if not architecture.startswith(networks):
                continue
            network, labels = architecture_name(architecture), labels_used(fraction)
            group = f"ROC of {panel.title}, {labels}, {network if many else f'class {name}'}"
            titles = ", ".join(arm.title for arm in arms)
            described = f"ROC of {network}, {panel.title}. {labels}, class {name}, arms: {titles}"
            series = [_DIAGONAL]
            for arm in arms:
                r = chosen[arm.name]
                series.append(Series(arm.style, r.fpr, r.tpr, r.low, r.high, arm.title, ("band", "line")))
            x, y = PlotAxis("1 − specificity", UNIT_TICKS), PlotAxis("sensitivity", UNIT_TICKS)
            chart = Chart(group, name if many else network, x, y, series, described, kind="roc")
            drawn.setdefault(group, []).append(chart)
    bands = f" Bands are pointwise {sized_intervals(results, panel)}."
    groups: list[ChartGroup] = []
    for title, charts in drawn.items():
        banded = any(len(one.known(one.low, one.high)) > 1 for chart in charts for one in chart.series)
        caption = "Curves are means over seeds." + bands * banded
        groups.append(ChartGroup(title, caption, charts, opened=not groups))
    return groups


def reliability_plots(results: Results, panel: Panel) -> list[ChartGroup]:
    """Observed frequency against predicted probability, with intervals per bin."""
    rows, groups = panel.of(results.curves.reliability), list[ChartGroup]()
    for fraction in sorted({r.fraction for r in rows}, key=fewest_first):
        chosen = {r.arm: r for r in rows if r.fraction == fraction}
        labels = labels_used(fraction)
        title = f"Reliability of {panel.title}, {labels}"
        charts = []
        for architecture, arms in _by_architecture(results, chosen):
            series = [_DIAGONAL]
            for i, arm in enumerate(arms):
                shift = 3.0 * (i - (len(arms) - 1) / 2)
                series += _bins(chosen[arm.name].bins, arm.style, arm.title, shift)
            network = architecture_name(architecture)
            titles = ", ".join(arm.title for arm in arms)
            described = f"Reliability of {network}, {panel.title}. {labels}, arms: {titles}"
            x, y = PlotAxis("predicted probability", UNIT_TICKS), PlotAxis("observed frequency", UNIT_TICKS)
            charts.append(Chart(title, network, x, y, series, described, kind="reliability"))
        caption = (
            "On the diagonal, what was predicted is what was observed. Each mark is a tenth of all seeds' "
            f"predictions. Whiskers are {sized_intervals(results, panel)}."
        )
        groups.append(ChartGroup(title, caption, charts, opened=not groups))
    return groups


def _bins(bins: Sequence[Row], style: str, name: str, shift: float) -> list[Series]:
    known = [b for b in bins if present(b.predicted) and present(b.observed)]
    whiskers = Series.of_rows(known, "predicted", style, parts=("whisker",), shift=shift, value="observed")
    return [replace(whiskers, name=name, parts=("line", "mark"), shift=0.0), whiskers]


def _by_architecture(results: Results, chosen: Container[str]) -> list[tuple[str, list[Arm]]]:
    groups = [(a, [arm for arm in results.arms_of(a) if arm.name in chosen]) for a in results.architectures]
    return [(architecture, arms) for architecture, arms in groups if arms]


def _seeds(point: Row) -> list[float]:
    return [s for s in point.seeds if present(s)]


def _room(low: float, high: float) -> tuple[float, float]:
    """Scores that are all equal get an axis by which they can be read, not beyond 0 and 1 for their sake."""
    if high - low > 1e-3:
        return low, high
    return max(low - 0.05, min(low, 0.0)), min(high + 0.05, max(high, 1.0))
