"""Figures 2 to 5 of Rajamohan et al. 2026 as a study has them: sizes of pools, grades predicted for one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trabecula.artifacts.label_budget import labels_used
from trabecula.artifacts.predictions import corner_of
from trabecula.artifacts.results import MetricRow, TaskFlow
from trabecula.artifacts.spectrum import read_spectrum
from trabecula.figures.charts import REFERENCE, STYLES, UNIT_TICKS, Chart, PlotAxis, Series
from trabecula.objectives import title
from trabecula.sections.names import metric_name
from trabecula.sections.numbers import count, number, present, share
from trabecula.sections.pretraining import OTHER, OWN, PretrainedOn
from trabecula.sections.published.arms import is_graded
from trabecula.sections.published.paper import Paper, PublishedFigure, StudyFiles
from trabecula.sections.results import Arm, Panel, Results
from trabecula.sections.wording import labels_phrase, sized_intervals

_SOURCES = {OWN: "images like the task's own", OTHER: "images of another kind"}
_FITTED = ("queue",)  # settings that a small pool bounds


def drawn(paper: Paper, study: StudyFiles) -> list[tuple[PublishedFigure, list[Chart]]]:
    """The figures of which this study has something, with its panels."""
    charts: dict[str, list[Chart]] = {figure.name: [] for figure in paper.figures}
    results, learned = study.results, study.learned
    for panel in results.panels:
        if corner_of(panel.mode) is None and not results.is_shortcut(panel):
            for arms in _courses(results, learned):
                source = learned[arms[min(arms)].name].source
                figure = _figure_of(paper, results, panel, source)
                chart = _course_chart(results, panel, arms, figure, source)
                charts[figure.name] += [chart] if chart else []
    for path in study.spectra:
        figure = paper.figure("spectrum")
        charts[figure.name] += [spectrum_chart(paper, figure, audit) for audit in read_spectrum(path)]
    return [(figure, charts[figure.name]) for figure in paper.figures if charts[figure.name]]


def _figure_of(paper: Paper, results: Results, panel: Panel, source: str) -> PublishedFigure:
    tasks = "grades" if is_graded(results.flow.tasks.get(panel.task, TaskFlow())) else "objects"
    images = "own" if source == OWN else "other"
    return next(f for f in paper.figures if f.tasks == tasks and f.images in ("", images))


def _courses(results: Results, learned: Mapping[str, PretrainedOn]) -> list[dict[int, Arm]]:
    """Arms of one network, method, settings and store, by their number of images, fewest first."""
    groups: dict[tuple[str, ...], dict[int, Arm]] = {}
    for arm in results.arms:
        known = learned.get(arm.name)
        if known is None or known.num_images is None or arm.labels or arm.pool_cohorts:
            continue
        settings = {k: v for k, v in known.card.settings.items() if k not in _FITTED}
        alike = json.dumps(settings, sort_keys=True, default=str)
        key = (arm.architecture, arm.objective, *known.stores, alike)
        groups.setdefault(key, {}).setdefault(known.num_images, arm)
    return [dict(sorted(group.items())) for group in groups.values() if len(group) > 1]


def figure_metric(results: Results, panel: Panel) -> str:
    """The metric by which the paper scores such a task; "" where the results have none."""
    task = results.flow.tasks.get(panel.task)
    kinds = {"multilabel": "auroc_macro", "binary": "auroc"}
    wanted = kinds.get(task.kind if task else "", "balanced_accuracy")
    return wanted if wanted in results.metric_names(panel) else ""


def _course_chart(
    results: Results, panel: Panel, arms: Mapping[int, Arm], figure: PublishedFigure, source: str
) -> Chart | None:
    """Score against images of the pool, a line a share of labels; rings at the left: random networks."""
    metric, first = figure_metric(results, panel), arms[min(arms)]

    def score(arm: Arm, fraction: float) -> MetricRow | None:
        row = results.summary(panel, metric, arm.name, fraction)
        return row if row and present(row.value) else None

    scored = {
        fraction: {size: row for size, arm in arms.items() if (row := score(arm, fraction))}
        for fraction in results.fractions(panel)
    }
    scored = {fraction: scores for fraction, scores in scored.items() if scores}
    if not scored:
        return None
    control, left, ringed = results.control(first.architecture), min(arms) / 2.2, False
    series, described = [], []
    for i, (fraction, scores) in enumerate(scored.items()):
        shift, style = 4.0 * (i - (len(scored) - 1) / 2), STYLES[i % len(STYLES)]
        name, rows = labels_phrase(results, panel.task, fraction), list(scores.values())
        series.append(Series.of_rows(rows, list(scores), style, name, ("line", "whisker", "mark"), shift))
        if control and (without := score(control, fraction)):
            ringed = True
            series.append(Series.of_rows([without], [left], style, "", ("whisker", "ring"), shift))
        values = (f"{number(row.value)} from {count(size)} images" for size, row in scores.items())
        described.append(f"{labels_used(fraction)}: {', '.join(values)}")
    ticks = [(left, "none"), *((size, count(size)) for size in arms)]
    x_axis = PlotAxis("pretraining images (log scale)", ticks, (left / 1.3, max(arms) * 1.3), log=True)
    images = _SOURCES.get(source, "mixed images")
    words = f"{panel.title}: {title(first.objective)} of {first.network} on {images}"
    note = f"Whiskers are {sized_intervals(results, panel)}."
    note += " Rings at the left: without pretraining." * ringed
    y_axis, text = PlotAxis(metric_name(metric)), f"{words}. {'; '.join(described)}"
    return Chart(f"{figure.name}, this study", words, x_axis, y_axis, series, text, note)


def spectrum_chart(paper: Paper, figure: PublishedFigure, audit: Mapping[str, Any]) -> Chart:
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
        at = [i + 0.18 for i, row in enumerate(called) if row["class"] in corrected]
        rows = [corrected[row["class"]] for row in called if row["class"] in corrected]
        name = "this study, corrected"
        series.append(Series.of_rows(rows, at, STYLES[1], name, ("whisker", "mark"), value="share"))
    theirs = {i + 0.42: figure.shares[grade] for i, grade in enumerate(grades) if grade in figure.shares}
    if theirs:
        name = f"{paper.mark}, another pool"
        series.append(Series(REFERENCE, list(theirs), list(theirs.values()), name=name, parts=("mark",)))
    described = ", ".join(
        f"{grade}: {share(round(row['share'], 3))}" for grade, row in zip(grades, called, strict=True)
    )
    note = f"{count(audit['num_images'])} images of {count(audit['num_patients'])} patients. Whiskers are "
    note += f"intervals. Correction: {audit['correction']}."
    note += f" Warning: {audit['warning']}." if audit["warning"] else ""
    words = f"{audit['task']} by {audit['arm']}" + (f", seed {audit['seed']}" if "seed" in audit else "")
    x_axis = PlotAxis("predicted grade", list(enumerate(grades)), (-0.6, len(grades) - 0.4))
    y_axis = PlotAxis("share of the pool's images", UNIT_TICKS)
    return Chart(f"{figure.name}, this study", words, x_axis, y_axis, series, f"{words}. {described}", note)
