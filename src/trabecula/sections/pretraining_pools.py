"""How far a score depends on the pretraining pool: a figure, a table and a sentence for each label share.

Reads the comparisons that `evaluate` made of arms that differ in their pool alone; computes no statistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from trabecula.artifacts.label_budget import labels_used
from trabecula.artifacts.results import Comparison, MetricRow
from trabecula.figures.charts import Chart, PlotAxis, Series, axis_around
from trabecula.objectives import title
from trabecula.sections import wording
from trabecula.sections.formats import Entry, Table, cells
from trabecula.sections.names import metric_name, mode_name, pool_words
from trabecula.sections.numbers import count, interval, number, present, share
from trabecula.sections.results import Arm, Panel, Results
from trabecula.sections.section import Block, Section


def pools_section(results: Results) -> Section | None:
    """None where no arms differ in their pool alone."""
    pools = read_pools(results)
    if not pools:
        return None
    note = (
        "Arms that differ in nothing but the images they were pretrained on, with as many updates: a small "
        f"pool is seen more often. Whiskers are {results.level} % intervals; lines across are networks "
        "without pretraining."
    )
    blocks = [Block("note", note)]
    for one in pools:
        blocks += [Block("heading", one.name), *(Block("text", sentence) for sentence in one.sentences)]
        blocks += [Block("charts", one.charts), Block("table", one.table)]
    files = {"pools": ([one.table for one in pools], None)}
    return Section("pools", "Pool", "How much unlabelled data?", blocks, files)


def read_pools(results: Results) -> list[PoolComparison]:
    """Every group of pools of every task and mode, by the panel's headline metric."""
    found = []
    for panel in results.panels:
        metric = results.headline(panel)
        rows = [row for row in panel.of(results.comparisons.pools) if row.metric == metric]
        for largest in (results.by_name[name] for name in dict.fromkeys(row.baseline for row in rows)):
            pairs = [row for row in rows if row.baseline == largest.name]
            arms = [*(results.by_name[name] for name in dict.fromkeys(row.arm for row in pairs)), largest]
            random = [arm for arm in results.arms_of(largest.architecture) if arm.family == "random"]
            fractions = [f for f in results.fractions(panel) if any(row.fraction == f for row in pairs)]
            arms.sort(key=_size)
            found.append(PoolComparison(results, panel, metric, largest, pairs, arms, random, fractions))
    return found


@dataclass(frozen=True)
class PoolComparison:
    """One group of arms that differ in their pool alone, in one task and mode, by size of the pool."""

    results: Results
    panel: Panel
    metric: str
    largest: Arm
    pairs: Sequence[Comparison]  # of the others with the largest
    arms: Sequence[Arm]
    random: Sequence[Arm]
    fractions: Sequence[float]

    @property
    def name(self) -> str:
        return f"{self.panel.title}: {title(self.largest.objective)} of {self.largest.network}"

    def summary(self, arm: Arm, fraction: float) -> MetricRow | None:
        return self.results.summary(self.panel, self.metric, arm.name, fraction)

    def pair(self, arm: Arm, fraction: float) -> Comparison | None:
        """Its comparison with the largest."""
        return next((row for row in self.pairs if (row.arm, row.fraction) == (arm.name, fraction)), None)

    @cached_property
    def sentences(self) -> list[str]:
        """What each pool scores with each share of labels, and how the smaller differ from the largest."""
        return [f"{self._scores(f)}. {self._against(f)}" for f in self.fractions]

    def _scores(self, fraction: float) -> str:
        def value(arm: Arm) -> str:
            row = self.summary(arm, fraction)
            return number(row.value) if row else "–"

        scored = [
            f"{value(a)} with {pool_name(a)} ({count(a.num_patients_seen)} patients)" for a in self.arms
        ]
        control = self.results.control(self.largest.architecture)
        without = f", {value(control)} without pretraining" if control else ""
        labels = wording.labels_phrase(self.results, self.panel.task, fraction)
        return f"With {labels}, {metric_name(self.metric)} {', '.join(scored)}{without}"

    def _against(self, fraction: float) -> str:
        pairs = [(arm, pair) for arm in self.arms if (pair := self.pair(arm, fraction))]
        words = [f"{pool_name(arm)} {wording.read_difference(self.results, pair)}" for arm, pair in pairs]
        return f"Against {pool_name(self.largest)}: {'; '.join(words)}."

    @cached_property
    def charts(self) -> list[Chart]:
        """Score against the pool's patients, a figure a share of labels; lines across are no pretraining."""
        found = {
            (arm.name, f): row
            for arm in (*self.arms, *self.random)
            for f in self.fractions
            if (row := self.summary(arm, f)) and present(row.value)
        }
        values = [v for row in found.values() for v in (row.value, row.low, row.high) if present(v)]
        sizes = sorted({_size(arm) for arm in self.arms})
        if not values or not sizes[0] or len(sizes) < 2:
            return []
        course = [arm for arm in self.arms if arm.pool_cohorts == self.largest.pool_cohorts]
        ticks = [(_size(arm), f"{count(_size(arm))}\n{share(arm.pool_fraction)}") for arm in course]
        limits = (sizes[0] / 1.25, sizes[-1] * 1.25)
        x_axis = PlotAxis("patients pretrained on (log), share of the pool", ticks, limits, log=True)
        y_axis = axis_around(metric_name(self.metric), values)
        lines = [(course, self.largest.style, f"{self.largest.title}, by size of the pool")]
        lines += [([arm], arm.style, arm.title) for arm in self.arms if arm not in course]
        charts = []
        for fraction in self.fractions:
            series = []
            for arms, style, label in lines:
                here = [arm for arm in arms if (arm.name, fraction) in found]
                rows, at = [found[arm.name, fraction] for arm in here], [_size(arm) for arm in here]
                series.append(Series.of_rows(rows, at, style, label, ("line", "whisker", "mark")))
            for arm in self.random:
                y = [found[arm.name, fraction].value] if (arm.name, fraction) in found else []
                series.append(Series(arm.style, y=y, name=arm.title, parts=("line",)))
            labels = wording.labels_phrase(self.results, self.panel.task, fraction)
            described = f"{self.name}, {labels}. {self._scores(fraction)}."
            charts.append(Chart(f"Pool, {self.name}", labels, x_axis, y_axis, series, described))
        return charts

    @cached_property
    def table(self) -> Table:
        """No pretraining, then the pools by size: scores, and differences from the largest pool."""
        heads = {arm.name: (f"none: {arm.title}", "0", "0") for arm in self.random}
        for arm in self.arms:
            heads[arm.name] = pool_name(arm), count(arm.num_patients_seen), count(arm.images_seen)
        arms = [*self.random, *self.arms]
        values = {arm.name: [self._value(arm, f) for f in self.fractions] for arm in arms}
        rows = [cells(*head, *values[name]) for name, head in heads.items()]
        columns = ("Pool", "Patients", "Images seen", *map(labels_used, self.fractions))
        mode = mode_name(self.panel.mode)
        heading = f"{metric_name(self.metric)} of {self.panel.task} by pretraining pool, {mode}"
        note = "Pools differ in their images alone: network, start, method, settings, batch and images seen, "
        note += "so updates, are the same."
        notes = dict.fromkeys(row.note for row in self.pairs if row.note)
        return Table(heading, columns, rows, note + "".join(f" Differences: {text}." for text in notes))

    def _value(self, arm: Arm, fraction: float) -> Entry:
        row, pair, small = self.summary(arm, fraction), self.pair(arm, fraction), ""
        if row is None or not present(row.value):
            return Entry("–", small=wording.because(row.note) if row else "")
        if pair:
            stuck = wording.stayed_at_chance(self.results.flow.plateaus, pair)
            small = f"against {pool_name(self.largest)} {wording.difference(pair)}: "
            small += wording.claim_words(wording.claim_of(pair))[1] + (f" ({stuck})" if stuck else "")
        return Entry(number(row.value), interval(row.low, row.high), small)


def _size(arm: Arm) -> int:
    return arm.num_patients_seen or 0


def pool_name(arm: Arm) -> str:
    """ "whole pool", "10 % of the pool", "cohort check-like alone"."""
    return pool_words(arm).removeprefix(", ") or "whole pool"
