"""Figures 2 to 5 of Rajamohan et al. 2026 as a study has them: sizes of pools, grades predicted for one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from trabecula.artifacts.predictions import corner_of
from trabecula.artifacts.spectrum import read_spectrum
from trabecula.figures.charts import REFERENCE, STYLES, UNIT_TICKS, Chart, PlotAxis, Series
from trabecula.sections.pretraining import OTHER, OWN, PretrainedOn
from trabecula.sections.published.arms import is_graded
from trabecula.sections.published.paper import Paper, PublishedFigure, StudyFiles
from trabecula.sections.results import Arm, Panel, Results, Row
from trabecula.sections.wording import (
    architecture_name,
    count,
    labels_phrase,
    metric_name,
    mode_name,
    number,
    objective_name,
    present,
    share,
    sized_intervals,
)

_SOURCES = {OWN: "images like the task's own", OTHER: "images of another kind"}


def drawn(paper: Paper, study: StudyFiles) -> list[tuple[PublishedFigure, list[Chart]]]:
    """The figures of which this study has something, with its panels."""
    charts: dict[str, list[Chart]] = {figure.name: [] for figure in paper.figures}
    results, learned = study.results, study.learned
    for panel in results.panels:
        if corner_of(panel.mode) is None and not results.is_shortcut(panel):
            for arms in _courses(results, learned):
                figure = _figure_of(paper, results, panel, learned[arms[0].name].source)
                chart = size_chart(results, panel, arms, learned, figure.name)
                charts[figure.name] += [chart] if chart else []
    for path in study.spectra:
        figure = paper.figure("spectrum")
        charts[figure.name] += [spectrum_chart(paper, figure, audit) for audit in read_spectrum(path)]
    return [(figure, charts[figure.name]) for figure in paper.figures if charts[figure.name]]


def _figure_of(paper: Paper, results: Results, panel: Panel, source: str) -> PublishedFigure:
    tasks = "grades" if is_graded(results.flow.tasks.get(panel.task, {})) else "objects"
    images = "own" if source == OWN else "other"
    return next(f for f in paper.figures if f.tasks == tasks and f.images in ("", images))


def _courses(results: Results, learned: Mapping[str, PretrainedOn]) -> list[list[Arm]]:
    """Arms of one network, method, settings and store that differ in the number of images, fewest first."""
    groups: dict[tuple[str, ...], dict[int, Arm]] = {}
    for arm in results.arms:
        known = learned.get(arm.name)
        if known is None or known.num_images is None or arm.labels or arm.pool_cohorts:
            continue
        settings = {k: v for k, v in known.settings.items() if k not in _FITTED}
        alike = json.dumps(settings, sort_keys=True, default=str)
        key = (arm.architecture, arm.objective, *known.stores, alike)
        groups.setdefault(key, {}).setdefault(known.num_images, arm)
    return [[group[size] for size in sorted(group)] for group in groups.values() if len(group) > 1]


_FITTED = ("queue",)  # settings that a small pool bounds


def size_chart(
    results: Results, panel: Panel, arms: Sequence[Arm], learned: Mapping[str, PretrainedOn], figure: str
) -> Chart | None:
    """Score against images of the pool, a line a share of labels; rings at the left are random networks."""
    metric = figure_metric(results, panel)
    fractions = [
        fraction
        for fraction in results.fractions(panel)
        if any(_known(results, panel, metric, arm, fraction) for arm in arms)
    ]
    if not metric or not fractions:
        return None
    control = results.control(arms[0].architecture)
    sizes = [learned[arm.name].num_images or 0 for arm in arms]
    rows = {(a.name, f): row for a in (*arms, *([control] if control else [])) for f in fractions
            if (row := _known(results, panel, metric, a, f))}  # fmt: skip
    left, series = min(sizes) / 2.2, []
    for i, fraction in enumerate(fractions):
        run = [
            (s, rows[a.name, fraction])
            for a, s in zip(arms, sizes, strict=True)
            if (a.name, fraction) in rows
        ]
        shift, style = 4.0 * (i - (len(fractions) - 1) / 2), STYLES[i % len(STYLES)]
        name, at = labels_phrase(results, panel.task, fraction), [size for size, _ in run]
        series.append(
            Series.of_rows([row for _, row in run], at, style, name, ("line", "whisker", "mark"), shift)
        )
        if control and (control.name, fraction) in rows:
            without = rows[control.name, fraction]
            series.append(Series.of_rows([without], [left], style, "", ("whisker", "ring"), shift))
    ticks = [(left, "none"), *((size, count(size)) for size in sizes)]
    x_axis = PlotAxis("pretraining images (log scale)", ticks, (left / 1.3, max(sizes) * 1.3), log=True)
    description = "; ".join(
        f"{share(f)} of labels: "
        + ", ".join(f"{number(rows[a.name, f]['value'])} from {count(s)} images"
                    for a, s in zip(arms, sizes, strict=True) if (a.name, f) in rows)
        for f in fractions
    )  # fmt: skip
    source = learned[arms[0].name].source
    title = (
        f"{panel.task}, {mode_name(panel.mode)}: {objective_name(arms[0].objective)} of "
        f"{architecture_name(arms[0].architecture)} on {_SOURCES.get(source, 'mixed images')}"
    )
    ringed = control is not None and any((control.name, fraction) in rows for fraction in fractions)
    note = (
        f"Whiskers are {sized_intervals(results, panel)}."
        + " Rings at the left: without pretraining." * ringed
    )
    y_axis = PlotAxis(metric_name(metric))
    return Chart(f"{figure}, this study", title, x_axis, y_axis, series, f"{title}. {description}", note)


def figure_metric(results: Results, panel: Panel) -> str:
    """The metric by which the paper scores such a task; "" where the results have none."""
    task = results.flow.tasks.get(panel.task)
    kind = task.kind if task else ""
    wanted = {"multilabel": "auroc_macro", "binary": "auroc"}.get(str(kind), "balanced_accuracy")
    return wanted if wanted in results.metric_names(panel) else ""


def _known(results: Results, panel: Panel, metric: str, arm: Arm, fraction: float) -> Row | None:
    row = results.summary(panel, metric, arm.name, fraction)
    return row if row is not None and present(row["value"]) else None


def spectrum_chart(paper: Paper, figure: PublishedFigure, audit: Row) -> Chart:
    """Share of a pool's images by predicted grade, as called and corrected, and the share the paper gives."""
    called, corrected = audit["called"], {row["class"]: row for row in audit["corrected"]}
    grades = [str(row["class"]) for row in called]
    side, width = (0.15, 0.34) if corrected else (0.0, 0.64)
    x = [i - side for i in range(len(grades))]
    shares = [row["share"] for row in called]
    series = [
        Series(STYLES[0], x, shares, name="this study, as called", parts=("column",), width=width),
        Series.of_rows(called, x, STYLES[0], parts=("whisker",), value="share"),
    ]
    if corrected:
        both = [
            (i + 0.18, corrected[row["class"]]) for i, row in enumerate(called) if row["class"] in corrected
        ]
        at, rows, name = [x for x, _ in both], [row for _, row in both], "this study, corrected"
        series.append(Series.of_rows(rows, at, STYLES[1], name, ("whisker", "mark"), value="share"))
    theirs = [(i + 0.42, figure.shares[grade]) for i, grade in enumerate(grades) if grade in figure.shares]
    if theirs:
        at, shares, name = [x for x, _ in theirs], [y for _, y in theirs], f"{paper.mark}, another pool"
        series.append(Series(REFERENCE, at, shares, name=name, parts=("mark",)))
    description = ", ".join(
        f"{grade}: {share(round(row['share'], 3))}" for grade, row in zip(grades, called, strict=True)
    )
    note = f"{count(audit['num_images'])} images of {count(audit['num_patients'])} patients. Whiskers are "
    note += f"intervals. Correction: {audit['correction']}."
    note += f" Warning: {audit['warning']}." if audit["warning"] else ""
    title = f"{audit['task']} by {audit['arm']}" + (f", seed {audit['seed']}" if "seed" in audit else "")
    x_axis = PlotAxis("predicted grade", list(enumerate(grades)), (-0.6, len(grades) - 0.4))
    y_axis = PlotAxis("share of the pool's images", UNIT_TICKS)
    return Chart(f"{figure.name}, this study", title, x_axis, y_axis, series, f"{title}. {description}", note)
