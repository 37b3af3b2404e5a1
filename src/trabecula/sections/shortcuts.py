"""What a network could go by that is no disease: probes of the source, of the side, of the corners alone.

A probe finds something where its interval lies above chance; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trabecula.artifacts.predictions import corner_of
from trabecula.artifacts.results import MetricRow
from trabecula.figures.charts import Chart, PlotAxis, Series
from trabecula.sections.formats import Entry, Table, cells
from trabecula.sections.names import metric_name, mode_name
from trabecula.sections.numbers import count, interval, number, present, share
from trabecula.sections.results import Arm, Panel, Results
from trabecula.sections.section import Block, Section

_MOST_PLACES = 6  # of a figure: their names are side by side


@dataclass(frozen=True)
class ShortcutProbe:
    """One arm's score for what it was asked, with the most labels that were used."""

    panel: Panel
    arm: Arm
    row: MetricRow
    chance: float | None  # None: the metric has none
    shortcut: bool

    @property
    def shown(self) -> str:
        return "whole image" if corner_of(self.panel.mode) is None else "corners alone"

    @property
    def reading(self) -> str:
        low, high = self.row.low, self.row.high
        if self.chance is None or low is None or high is None:
            return "not estimable"
        return "found" if low > self.chance else "below chance" if high < self.chance else "not shown"


def shortcuts_section(results: Results) -> Section | None:
    """The probes, beside those of the corners the same question to whole images; None without a probe."""
    asked = [panel for panel in results.panels if results.is_shortcut(panel)]
    if not asked:
        return None
    tasks = dict.fromkeys(panel.task for panel in asked)
    beside = [panel for panel in results.panels if panel not in asked and panel.mode == "probe"]
    shown = [panel for task in tasks for panel in (*beside, *asked) if panel.task == task]
    probes = [probe for panel in shown for probe in _probes(results, panel)]
    one_in, table = round(2 / (1 - results.metrics.level)), _table(probes)
    note = (
        "These probes ask for something that is no disease, or show the encoder the corners of each image "
        f'alone. A high score is no merit. "Found": the {results.level} % interval lies above what chance '
        f"gives; where there is nothing to find, about one probe in {one_in} says so all the same."
    )
    blocks = [Block("note", note), Block("bullets", _sentences(probes))]
    blocks += [Block("charts", _charts(results, probes)), Block("table", table)]
    title = "Shortcuts: what could a network go by?"
    return Section("shortcuts", "Shortcuts", title, blocks, {"shortcuts": ([table], None)})


def _probes(results: Results, panel: Panel) -> list[ShortcutProbe]:
    metric, found = results.headline(panel), []
    for arm in results.arms:
        rows = [results.summary(panel, metric, arm.name, f) for f in results.fractions(panel)]
        if known := [row for row in rows if row]:
            chance = _chance(results, panel, metric)
            found.append(ShortcutProbe(panel, arm, known[-1], chance, results.is_shortcut(panel)))
    return found


def _chance(results: Results, panel: Panel, metric: str) -> float | None:
    """What a guess scores on average."""
    task = results.flow.tasks.get(panel.task)
    if metric == "balanced_accuracy":
        return 1 / len(task.classes) if task and task.classes else None
    return {"auroc": 0.5, "auroc_macro": 0.5, "quadratic_kappa": 0.0}.get(metric)


def _sentences(probes: Sequence[ShortcutProbe]) -> list[str]:
    """ "cohort from the whole image: found by 2 of 2 encoders (AUROC 0.90 to 0.93, by chance 0.5)."."""
    found = []
    for panel in dict.fromkeys(probe.panel for probe in probes):
        mine = [probe for probe in probes if probe.panel == panel]
        values = sorted(p.row.value for p in mine if p.row.value is not None)
        ends = dict.fromkeys(number(value, 2) for value in (values[:1] + values[-1:])) or ["–"]
        chance = mine[0].chance
        by = f", by chance {chance:.2g}" if chance is not None else ""
        finders = sum(probe.reading == "found" for probe in mine)
        what = "" if mine[0].shortcut else ", for comparison"
        found.append(
            f"{panel.task} from the {mine[0].shown}{what}: found by {finders} of {len(mine)} "
            f"encoder{'s' * (len(mine) > 1)} ({metric_name(mine[0].row.metric)} {' to '.join(ends)}{by})."
        )
    return found


def _charts(results: Results, probes: Sequence[ShortcutProbe]) -> list[Chart]:
    """Scores with intervals, questions side by side, against what chance gives; a figure for each metric."""
    charts = []
    for metric, chance in dict.fromkeys((p.row.metric, p.chance) for p in probes):
        mine = [p for p in probes if (p.row.metric, p.chance) == (metric, chance) and present(p.row.value)]
        places = list(dict.fromkeys(p.panel for p in mine))
        for start in range(0, len(places), _MOST_PLACES):
            some = places[start : start + _MOST_PLACES]
            charts.append(_chart(results, [p for p in mine if p.panel in some], some))
    return charts


def _chart(results: Results, probes: Sequence[ShortcutProbe], places: Sequence[Panel]) -> Chart:
    """Of probes with one metric and one chance."""
    series, chance, metric = [], probes[0].chance, metric_name(probes[0].row.metric)
    if chance is not None:
        series.append(Series("diagonal", y=[chance], parts=("line",)))
    arms = [arm for arm in results.arms if any(p.arm == arm for p in probes)]
    several = len({arm.architecture for arm in arms}) > 1
    for i, arm in enumerate(arms):
        mine = [p for p in probes if p.arm == arm]
        x = [places.index(p.panel) + 0.5 * ((i + 0.5) / len(arms) - 0.5) for p in mine]
        name = f"{arm.network}, " * several + arm.title
        series.append(Series.of_rows([p.row for p in mine], x, arm.style, name, ("whisker", "mark")))
    named = {p.panel: f"{p.panel.task}\n{p.shown.split()[0]}" for p in probes}
    ticks = [(i, named[panel]) for i, panel in enumerate(places)]
    x_axis = PlotAxis("asked for, and what was shown", ticks, (-0.5, len(places) - 0.5))
    title = f"{metric} of shortcut probes"
    described = f"{title}. {' '.join(_sentences(probes))}"
    note = "" if chance is None else f"Dotted: chance, {chance:.2g}. Whiskers are intervals."
    return Chart("Shortcuts", title, x_axis, PlotAxis(metric), series, described, note)


def _table(probes: Sequence[ShortcutProbe]) -> Table:
    rows, metrics = [], list(dict.fromkeys(metric_name(p.row.metric) for p in probes))
    for p in probes:
        spread = f" ({number(p.row.sd_seeds)})" if p.row.sd_seeds is not None else ""
        metric = metric_name(p.row.metric) if len(metrics) > 1 else ""
        rows.append(cells(
            p.panel.task + ", for comparison" * (not p.shortcut), p.shown, p.arm.network, p.arm.title,
            Entry(number(p.row.value) + spread, interval(p.row.low, p.row.high), metric),
            "–" if p.chance is None else f"{p.chance:.3g}", Entry(p.reading, small=p.row.note),
            count(p.row.num_patients), share(p.row.fraction),
        ))  # fmt: skip
    columns = (
        "Asked for", "Shown", "Network", "Initialisation", metrics[0] if len(metrics) == 1 else "Score",
        "By chance", "Reading", "Test patients", "Labels",
    )  # fmt: skip
    modes = dict.fromkeys(mode_name(p.panel.mode) for p in probes)
    return Table("What could be gone by", columns, rows, f"{'; '.join(modes)}.", heads=4)
