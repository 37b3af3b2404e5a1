"""Tables of a report, as people read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from trabecula.artifacts.label_budget import fewest_first, is_shots, labels_used
from trabecula.artifacts.results import Comparison, LabelMultiplier, MetricRow
from trabecula.figures.charts import interval_bar
from trabecula.sections import wording
from trabecula.sections.formats import Cells, Entry, Mark, Table, arm_cells, cells, said_in_title, said_once
from trabecula.sections.names import architecture_name, metric_name, mode_name
from trabecula.sections.numbers import count, interval, number, probability, share, signed
from trabecula.sections.results import Arm, Panel, Results

_ARM = ("Network", "Initialisation")


def results_tables(results: Results, panel: Panel) -> list[Table]:
    """Arms as rows and label fractions as columns, one table per metric, the headline first.

    A multi-label task has one table per label fraction with the values of each label.
    """
    metrics = results.metric_names(panel)
    each = [metric for metric in metrics if label_of(metric)]
    whole = [_results_table(results, panel, metric) for metric in metrics if metric not in each]
    of_labels = [_labels_table(results, panel, each, f) for f in results.fractions(panel)] if each else []
    return [*whole, *of_labels]


def label_of(metric: str) -> str:
    """The label of `auroc[label]`; "" where a metric is of the whole task."""
    return metric.partition("[")[2].removesuffix("]")


def _labels_table(results: Results, panel: Panel, metrics: Sequence[str], fraction: float) -> Table:
    """Labels as rows and arms as columns."""
    arms = [
        arm for arm in results.arms if any(results.summary(panel, m, arm.name, fraction) for m in metrics)
    ]
    rows = []
    for metric in metrics:
        found = [results.summary(panel, metric, arm.name, fraction) for arm in arms]
        events = next((row.num_events for row in found if row), None)
        rows.append(cells(label_of(metric), count(events), *(result_cell(row, True) for row in found)))
    kind = metric_name(metrics[0].partition("[")[0])
    title = f"{kind} of each label of {panel.title}, {labels_used(fraction)}"
    names = (f"{arm.network}, {arm.title}" for arm in arms)
    return Table(title, ("Label", "Test images with it", *names), rows)


def _results_table(results: Results, panel: Panel, metric: str) -> Table:
    fractions = results.fractions(panel)
    better = {
        (p.arm, p.fraction)
        for p in results.comparisons_of(panel, metric)
        if wording.claim_of(p) == "better" and results.with_control(p) and not results.is_shortcut(panel)
    }
    found = {(a.name, f): results.summary(panel, metric, a.name, f) for a in results.arms for f in fractions}
    alike, shared = shared_counts([row for row in found.values() if row])
    rows = list[Cells]()
    absent = results.missing_imagenet()
    for architecture in results.architectures:
        own = []
        for arm in results.arms_of(architecture):
            values = [result_cell(found[arm.name, f], alike, (arm.name, f) in better) for f in fractions]
            own.append((*arm_cells(arm), *values))
        if architecture in absent:  # where its numbers would stand: after the random arms
            place = sum(arm.family == "random" for arm in results.arms_of(architecture))
            own.insert(place, absent_imagenet(architecture, "ImageNet weights", ["not run"] * len(fractions)))
        rows += own
    columns = (*_ARM, *map(labels_used, fractions))
    return said_once(Table(f"{metric_name(metric)} of {panel.title}", columns, rows, shared, heads=2), 2)


def absent_imagenet(architecture: str, name: str, values: Sequence[str]) -> Cells:
    """The row of an arm of ImageNet weights that a network could have and has not."""
    return cells(architecture_name(architecture), Entry(name, style="arm-imagenet"), *values)


_COUNTS = ("num_images", "num_patients", "num_events", "num_seeds")


def shared_counts(rows: Sequence[MetricRow]) -> tuple[bool, str]:
    """Whether all rows speak of the same test images, and the words for it."""
    kinds = {tuple(row[k] for k in _COUNTS) for row in rows if row.value is not None}
    if len(kinds) != 1:
        return False, ""
    first = next(row for row in rows if row.value is not None)
    return True, f"Every value: {_counts(first)}."


def _counts(row: MetricRow) -> str:
    """ "700 test images · 290 positive · 350 patients · 3 seeds"."""
    sizes = [
        f"{count(row[key])} {unit}{'s' if several and row[key] != 1 else ''}"
        for key, unit, several in (
            ("num_images", "test image", True), ("num_events", "positive", False),
            ("num_patients", "patient", True), ("num_seeds", "seed", True),
        )
        if row[key] is not None
    ]  # fmt: skip
    return " · ".join(sizes)


def result_cell(row: MetricRow | None, alike: bool, strong: bool = False) -> Entry:
    if row is None:
        return Entry("not run")
    if row.value is None:
        return Entry("not estimable", small=wording.because(row.note))
    spread = f" ({number(row.sd_seeds)})" if row.sd_seeds is not None else ""
    counts = "" if alike else _counts(row)
    small = " · ".join(part for part in (counts, row.note) if part)
    return Entry(number(row.value) + spread, interval(row.low, row.high), small, strong)


def other_groups(results: Results, panel: Panel) -> Table | None:
    """The headline metric by cohort and stratum, where there are any."""
    metric, rows = results.headline(panel), []
    for r in panel.of(results.summaries):
        group = [r[k] for k in ("cohort", "stratum") if r[k] != "all"]
        if group and r.metric == metric:
            arm = results.by_name[r.arm]
            head = (", ".join(group), Entry(arm.network, style=arm.style), arm.title, share(r.fraction))
            rows.append(cells(*head, result_cell(r, False)))
    columns = ("Group", *_ARM, "Labels", metric_name(metric))
    title = f"{metric_name(metric)} of {panel.task} by group, {mode_name(panel.mode)}"
    return Table(title, columns, rows, heads=3) if rows else None


def comparison_table(results: Results, panel: Panel, metric: str) -> Table:
    rows, shortcut = [], results.is_shortcut(panel)
    for pair in results.comparisons_of(panel, metric):
        arm, claim = results.by_name[pair.arm], wording.claim_of(pair)
        stuck = wording.stayed_at_chance(results.flow.plateaus, pair)
        reading = wording.claim_words(claim, shortcut)[1] + (f" ({stuck})" if stuck else "")
        rows.append(cells(
            *arm_cells(arm), _against(results, arm, pair.baseline), share(pair.fraction),
            Entry(signed(pair.difference), strong=claim == "better" and not shortcut),
            interval(pair.low, pair.high) if claim else "–", probability(pair.p), probability(pair.p_holm),
            count(pair.num_patients), count(pair.num_seeds), Entry(reading, small=wording.because(pair.note)),
        ))  # fmt: skip
    columns = (
        *_ARM, "Against", "Labels", "Difference", "Interval", "p", "Holm p", "Patients", "Seeds", "Reading",
    )  # fmt: skip
    title = f"Differences in {metric_name(metric)} of {panel.title}"
    return said_once(Table(title, columns, rows, heads=3), len(columns) - 1)


def multiplier_table(results: Results, panel: Panel) -> Table:
    rows = []
    for m in panel.of(results.comparisons.label_multipliers):
        against = results.by_name[m.baseline].title
        note = "; ".join(filter(None, (m.note, _stuck(results, m))))
        head = (*arm_cells(results.by_name[m.arm]), against, metric_name(m.metric), share(m.fraction))
        rows.append(cells(*head, wording.multiplier_value(m), wording.multiplier_interval(m), note))
    columns = (*_ARM, "Against", "Metric", "Labels", "Worth", "Interval", "Note")
    return Table(f"Label multipliers, {panel.title}", columns, rows, heads=3)


def comparison_grid(results: Results, panel: Panel, metric: str, reach: float) -> Table:
    """Differences with fractions as columns, for the page, marked by bars that reach so far from 0."""
    pairs, shortcut = results.comparisons_of(panel, metric), results.is_shortcut(panel)

    def shown(pair: Comparison | None) -> Entry:
        return replace(difference_cell(results, pair, shortcut), mark=_mark(results, pair, reach, shortcut))

    note = ""
    if len({(p.num_patients, p.num_seeds) for p in pairs}) == 1:
        patients, seeds = pairs[0].num_patients, pairs[0].num_seeds
        note = f"Every difference: {count(patients)} test patients · {count(seeds)} seed{'s' * (seeds != 1)}."
    table = _grid(results, f"Differences in {metric_name(metric)} of {panel.title}", pairs, shown, note)
    return said_in_title(said_once(table, 3, kind=wording.NOT_ESTIMABLE[1]), 2)


def multiplier_grid(results: Results, panel: Panel) -> Table:
    """Label multipliers with fractions as columns, for the page."""
    found = panel.of(results.comparisons.label_multipliers)
    by = f" by {metric_name(found[0].metric)}" if len({m.metric for m in found}) == 1 else ""
    note = "How many times as many labels the baseline needs for the arm's value"
    note += '; "more than" and "less than": beyond the ends of its learning curve.'
    title = f"Label multipliers{by}, {panel.title}"
    table = _grid(results, title, found, lambda row: _multiplier_cell(results, row), note)
    return said_in_title(said_once(table, table.heads), 2)


def _grid(
    results: Results, title: str, found: Sequence[Any], shown: Callable[[Any], Entry], note: str
) -> Table:
    """A row for each arm, baseline and metric, in the order of the arms; fractions as columns."""
    fractions, order = sorted({row.fraction for row in found}, key=fewest_first), list(results.by_name)
    several = len({row.metric for row in found}) > 1
    kinds = sorted(
        {(row.arm, row.baseline, row.metric) for row in found},
        key=lambda kind: (order.index(kind[0]), order.index(kind[1]), kind[2]),
    )
    of = {(row.arm, row.baseline, row.metric, row.fraction): row for row in found}
    rows = []
    for name, baseline, metric in kinds:
        arm = results.by_name[name]
        values = (shown(of.get((name, baseline, metric, fraction))) for fraction in fractions)
        which = (metric_name(metric),) if several else ()
        rows.append(cells(*arm_cells(arm), _against(results, arm, baseline), *which, *values))
    columns = (*_ARM, "Against", *["Metric"] * several, *map(labels_used, fractions))
    return Table(title, columns, rows, note, heads=3 + several)


def _mark(results: Results, pair: Comparison | None, reach: float, shortcut: bool) -> Mark | None:
    if pair is None:
        return None
    claim = wording.claim_of(pair)
    symbol, words = wording.claim_words(claim, shortcut)
    bar = interval_bar((pair.difference, pair.low, pair.high), reach, results.by_name[pair.arm].style)
    shown = "none" if shortcut and claim else claim  # a higher score is no merit here
    return Mark(shown or "unknown", symbol, words, bar, wording.any_stuck(results.flow.plateaus, pair))


def _against(results: Results, arm: Arm, baseline: str) -> str:
    other = results.by_name[baseline]
    return other.title + ("" if other.architecture == arm.architecture else f" of {other.network}")


def difference_cell(results: Results, pair: Comparison | None, shortcut: bool) -> Entry:
    if pair is None:
        return Entry("–")
    stuck = wording.stayed_at_chance(results.flow.plateaus, pair)
    if not wording.claim_of(pair):
        return Entry("not estimable", small="; ".join(filter(None, (wording.because(pair.note), stuck))))
    small = "; ".join(filter(None, (_p_values(pair), pair.note, stuck)))
    better = pair.claim == "better" and not shortcut
    return Entry(signed(pair.difference), interval(pair.low, pair.high), small, better)


def _p_values(pair: Comparison) -> str:
    """ "p 0.0087", and "Holm 0.017" where adjusting it changed it."""
    p, holm = probability(pair.p), probability(pair.p_holm)
    return f"p\N{NO-BREAK SPACE}{p}" + (f", Holm\N{NO-BREAK SPACE}{holm}" if holm != p else "")


def _stuck(results: Results, row: LabelMultiplier) -> str:
    return "runs that stayed at chance" if wording.any_stuck(results.flow.plateaus, row) else ""


def _multiplier_cell(results: Results, row: LabelMultiplier | None) -> Entry:
    if row is None:
        return Entry("–")
    unbounded = row.low is None and row.high is None
    note = wording.because(row.note) if unbounded and not (row.value is None and row.censored) else ""
    bounds = wording.multiplier_interval(row)
    small = "; ".join(filter(None, (note, _stuck(results, row))))
    return Entry(wording.multiplier_value(row), "" if bounds == "–" else bounds, small)


def subset_notes(results: Results, task: str) -> list[str]:
    """ "With 1 % of labels: few validation patients ...", what `evaluate` notes about the draws of labels."""
    subsets = sorted(results.flow.subsets, key=lambda s: fewest_first(s.fraction))
    notes = dict.fromkeys((s.fraction, s.note) for s in subsets if s.task == task and s.note)
    return [f"With {labels_used(fraction)}: {note}" for fraction, note in notes]


def fraction_table(results: Results, task: str) -> Table:
    """What was asked of the training pool, and what each seed drew."""
    train = results.flow.tasks[task].parts.get("train") if task in results.flow.tasks else None
    pool = f"{count(train['patients'])} training patients" if train else "training patients"
    own = [s for s in results.flow.subsets if s.task == task]
    drawn = sorted(own, key=lambda s: (fewest_first(s.fraction), s.seed))
    rows = [
        cells(
            f"{share(s.fraction)}{', from' if is_shots(s.fraction) else ' of'} {pool}", str(s.seed),
            count(s.num_train_patients), count(s.num_train_images), count(s.num_val_patients),
            count(s.num_val_images),
        )
        for s in drawn
    ]  # fmt: skip
    columns = ("Requested", "Seed", "Train patients", "Train images", "Val patients", "Val images")
    note = " ".join(f"{text}." for text in subset_notes(results, task))
    return Table(f"Few-label subsets of {task}", columns, rows, note)
