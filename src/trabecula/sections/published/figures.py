"""Figures 2 to 5 of Rajamohan et al. 2026 as a study has them: sizes of pools, grades predicted for one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from trabecula.artifacts.predictions import corner_of
from trabecula.errors import InputError
from trabecula.figures.charts import REFERENCE, STYLES, Chart
from trabecula.figures.plots import Axes, ticks
from trabecula.sections.pretraining import OTHER, OWN, PretrainedOn
from trabecula.sections.published.arms import is_graded
from trabecula.sections.published.paper import Paper, PublishedFigure, StudyFiles
from trabecula.sections.results import Arm, Panel, Results, Row, read_json
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
    tasks = "grades" if is_graded(results.flow["tasks"].get(panel.task, {})) else "objects"
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
    ends = [row[k] for row in rows.values() for k in ("value", "low", "high") if present(row[k])]
    y_ticks = ticks(min(ends), max(ends))
    left = min(sizes) / 2.2
    axes = Axes(
        (left / 1.3, max(sizes) * 1.3), (y_ticks[0], y_ticks[-1]), "pretraining images (log scale)",
        metric_name(metric), [(left, ("none",)), *((size, (count(size),)) for size in sizes)], y_ticks,
        x_log=True,
    )  # fmt: skip
    for i, fraction in enumerate(fractions):
        style, shift = STYLES[i % len(STYLES)], 4.0 * (i - (len(fractions) - 1) / 2)
        points = [
            (s, rows[a.name, fraction])
            for a, s in zip(arms, sizes, strict=True)
            if (a.name, fraction) in rows
        ]
        axes.line([(size, row["value"]) for size, row in points], style)
        if control and (control.name, fraction) in rows:
            _point(axes, left, rows[control.name, fraction], style, "seed", shift)
        for size, row in points:
            _point(axes, size, row, style, "mark", shift)
    told = "; ".join(
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
    legend = [
        (labels_phrase(results, panel.task, fraction), STYLES[i % len(STYLES)])
        for i, fraction in enumerate(fractions)
    ]
    ringed = control is not None and any((control.name, fraction) in rows for fraction in fractions)
    note = (
        f"Whiskers are {sized_intervals(results, panel)}."
        + " Rings at the left: without pretraining." * ringed
    )
    return Chart(f"{figure}, this study", title, axes.svg(title, told), legend, note)


def figure_metric(results: Results, panel: Panel) -> str:
    """The metric by which the paper scores such a task; "" where the results have none."""
    kind = results.flow["tasks"].get(panel.task, {}).get("kind")
    wanted = {"multilabel": "auroc_macro", "binary": "auroc"}.get(str(kind), "balanced_accuracy")
    return wanted if wanted in results.metric_names(panel) else ""


def _known(results: Results, panel: Panel, metric: str, arm: Arm, fraction: float) -> Row | None:
    row = results.summary(panel, metric, arm.name, fraction)
    return row if row is not None and present(row["value"]) else None


def _point(axes: Axes, x: float, row: Row, style: str, kind: str, shift: float) -> None:
    if present(row["low"]) and present(row["high"]):
        axes.whisker(x, row["low"], row["high"], style, shift)
    axes.mark(x, row["value"], style, kind, shift)


def read_spectrum(folder: Path) -> list[Row]:
    """The audits of a folder's spectrum.json, one a classifier.

    Raises:
        InputError: no such file, or not what `spectrum` writes.
    """
    path = folder / "spectrum.json" if folder.is_dir() else folder
    audits: list[Row] = read_json(path, "`trabecula spectrum`").get("audits") or []
    needed = {"task", "arm", "num_images", "num_patients", "called", "corrected", "correction", "warning"}
    lacking = sorted({key for audit in audits for key in needed - audit.keys()})
    if not audits or lacking:
        what = f"an audit has no '{lacking[0]}'" if lacking else "has no list 'audits'"
        raise InputError(f"{path}: {what}; write it again with `trabecula spectrum`")
    return audits


def spectrum_chart(paper: Paper, figure: PublishedFigure, audit: Row) -> Chart:
    """Share of a pool's images by predicted grade, as called and corrected, and the share the paper gives."""
    called, corrected = audit["called"], {row["class"]: row for row in audit["corrected"]}
    grades = [str(row["class"]) for row in called]
    axes = Axes(
        (-0.6, len(grades) - 0.4), (0, 1), "predicted grade", "share of the pool's images",
        [(i, (grade,)) for i, grade in enumerate(grades)], [i / 5 for i in range(6)],
    )  # fmt: skip
    styles = STYLES[:2]
    for i, row in enumerate(called):
        left, right = axes.px(i - 0.32), axes.px(i + (0.02 if corrected else 0.32))
        top, bottom = axes.py(row["share"]), axes.py(0)
        box = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
        axes.body.append(f'<rect class="fill {styles[0]}" {box}/>')
        _bounds(axes, i - (0.15 if corrected else 0), row, styles[0])
        if row["class"] in corrected:
            row_corrected = corrected[row["class"]]
            _bounds(axes, i + 0.18, row_corrected, styles[1])
            axes.mark(i + 0.18, row_corrected["share"], styles[1])
        if grades[i] in figure.shares:
            axes.mark(i + 0.42, figure.shares[grades[i]], REFERENCE)
    legend = [("this study, as called", styles[0])]
    if corrected:
        legend.append(("this study, corrected", styles[1]))
    if any(grade in figure.shares for grade in grades):
        legend.append((f"{paper.mark}, another pool", REFERENCE))
    told = ", ".join(
        f"{grade}: {share(round(row['share'], 3))}" for grade, row in zip(grades, called, strict=True)
    )
    note = f"{count(audit['num_images'])} images of {count(audit['num_patients'])} patients. Whiskers are "
    note += f"intervals. Correction: {audit['correction']}."
    note += f" Warning: {audit['warning']}." if audit["warning"] else ""
    title = f"{audit['task']} by {audit['arm']}" + (f", seed {audit['seed']}" if "seed" in audit else "")
    return Chart(f"{figure.name}, this study", title, axes.svg(title, told), legend, note)


def _bounds(axes: Axes, x: float, row: Row, style: str) -> None:
    if present(row.get("low")) and present(row.get("high")):
        axes.whisker(x, row["low"], row["high"], style)
