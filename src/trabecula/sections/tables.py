"""Tables of a report, as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from trabecula.artifacts.results import Comparison, LabelMultiplier, MetricRow
from trabecula.sections.formats import Entry, Table, said_in_title, said_once
from trabecula.sections.results import Panel, Results
from trabecula.sections.wording import (
    NOT_ESTIMABLE,
    any_stuck,
    architecture_name,
    arm_names,
    because,
    claim_of,
    claim_words,
    count,
    interval,
    metric_name,
    mode_name,
    multiplier_interval,
    multiplier_value,
    number,
    probability,
    share,
    signed,
    stayed_at_chance,
)


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
    names = arm_names(results)
    arms = [
        arm for arm in results.arms if any(results.summary(panel, m, arm.name, fraction) for m in metrics)
    ]
    rows = []
    for metric in metrics:
        found = [results.summary(panel, metric, arm.name, fraction) for arm in arms]
        events = next((row.num_events for row in found if row), None)
        cells = [result_cell(row, True, False) for row in found]
        rows.append((Entry(label_of(metric)), Entry(count(events)), *cells))
    of = [f"{architecture_name(arm.architecture)}, {names[arm.name]}" for arm in arms]
    kind = metric_name(metrics[0].partition("[")[0])
    title = f"{kind} of each label of {panel.task}, {mode_name(panel.mode)}, {share(fraction)} of labels"
    return Table(title, ("Label", "Test images with it", *of), rows)


def _results_table(results: Results, panel: Panel, metric: str) -> Table:
    fractions, names = results.fractions(panel), arm_names(results)
    better = {
        (p.arm, p.fraction)
        for p in results.comparisons_of(panel, metric)
        if claim_of(p) == "better" and results.with_control(p) and not results.is_shortcut(panel)
    }
    found = [results.summary(panel, metric, a.name, f) for a in results.arms for f in fractions]
    alike, shared = shared_counts([row for row in found if row])
    rows: list[tuple[Entry, ...]] = []
    styles: list[str] = []
    absent = results.missing_imagenet()
    for architecture in results.architectures:
        shown = Entry(architecture_name(architecture))
        start = len(rows)
        for arm in results.arms_of(architecture):
            cells = [
                result_cell(results.summary(panel, metric, arm.name, f), alike, (arm.name, f) in better)
                for f in fractions
            ]
            rows.append((shown, Entry(names[arm.name]), *cells))
            styles.append(arm.style)
        if architecture in absent:  # where its numbers would stand: after the random arms
            place = start + sum(arm.family == "random" for arm in results.arms_of(architecture))
            rows.insert(place, (shown, Entry("ImageNet weights"), *(Entry("not run") for _ in fractions)))
            styles.insert(place, "arm-imagenet")
    title = f"{metric_name(metric)} of {panel.task}, {mode_name(panel.mode)}"
    columns = ("Network", "Initialisation", *(f"{share(f)} of labels" for f in fractions))
    return said_once(Table(title, columns, rows, shared, heads=2, styles=styles), 2)


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


def result_cell(row: MetricRow | None, alike: bool, strong: bool) -> Entry:
    if row is None:
        return Entry("not run")
    if row.value is None:
        return Entry("not estimable", small=because(row.note))
    spread = f" ({number(row.sd_seeds)})" if row.sd_seeds is not None else ""
    counts = "" if alike else _counts(row)
    small = " · ".join(part for part in (counts, row.note) if part)
    return Entry(number(row.value) + spread, interval(row.low, row.high), small, strong)


def other_groups(results: Results, panel: Panel) -> Table | None:
    """The headline metric by cohort and stratum, where there are any."""
    metric, names = results.headline(panel), arm_names(results)
    rows, styles = [], []
    for r in results.summaries:
        group = [r[k] for k in ("cohort", "stratum") if r[k] != "all"]
        if not group or (r.task, r.mode, r.metric) != (panel.task, panel.mode, metric):
            continue
        arm = results.by_name[r.arm]
        head = (
            Entry(", ".join(group)),
            Entry(architecture_name(arm.architecture)),
            Entry(names[arm.name]),
        )
        rows.append((*head, Entry(share(r.fraction)), result_cell(r, False, False)))
        styles.append(arm.style)
    columns = ("Group", "Network", "Initialisation", "Labels", metric_name(metric))
    title = f"{metric_name(metric)} of {panel.task} by group, {mode_name(panel.mode)}"
    return Table(title, columns, rows, heads=3, styles=styles) if rows else None


def comparison_table(results: Results, panel: Panel, metric: str) -> Table:
    names, rows, styles = arm_names(results), [], []
    shortcut = results.is_shortcut(panel)
    for pair in results.comparisons_of(panel, metric):
        arm = results.by_name[pair.arm]
        claim = claim_of(pair)
        bounds = interval(pair.low, pair.high) if claim else "–"
        stuck = stayed_at_chance(results.plateaus, pair)
        reading = claim_words(claim, shortcut)[1] + (f" ({stuck})" if stuck else "")
        rows.append(
            (
                Entry(architecture_name(arm.architecture)),
                Entry(names[arm.name]),
                Entry(_against(results, pair.arm, pair.baseline)),
                Entry(share(pair.fraction)),
                Entry(signed(pair.difference), strong=claim == "better" and not shortcut),
                Entry(bounds),
                Entry(probability(pair.p)),
                Entry(probability(pair.p_holm)),
                Entry(count(pair.num_patients)),
                Entry(count(pair.num_seeds)),
                Entry(reading, small=because(pair.note)),
            )
        )
        styles.append(arm.style)
    columns = (
        "Network", "Initialisation", "Against", "Labels", "Difference", "Interval", "p", "Holm p",
        "Patients", "Seeds", "Reading",
    )  # fmt: skip
    title = f"Differences in {metric_name(metric)} of {panel.task}, {mode_name(panel.mode)}"
    return said_once(Table(title, columns, rows, heads=3, styles=styles), len(columns) - 1)


def multiplier_table(results: Results, panel: Panel) -> Table:
    names, rows, styles = arm_names(results), [], []
    for m in results.comparisons.label_multipliers:
        if (m.task, m.mode) != (panel.task, panel.mode):
            continue
        arm = results.by_name[m.arm]
        rows.append(
            (
                Entry(architecture_name(arm.architecture)),
                Entry(names[m.arm]),
                Entry(names[m.baseline]),
                Entry(metric_name(m.metric)),
                Entry(share(m.fraction)),
                Entry(multiplier_value(m)),
                Entry(multiplier_interval(m)),
                Entry("; ".join(filter(None, (m.note, _stuck(results, m))))),
            )
        )
        styles.append(arm.style)
    columns = ("Network", "Initialisation", "Against", "Metric", "Labels", "Worth", "Interval", "Note")
    title = f"Label multipliers, {panel.task}, {mode_name(panel.mode)}"
    return Table(title, columns, rows, heads=3, styles=styles)


def comparison_grid(
    results: Results, panel: Panel, metric: str
) -> tuple[Table, list[list[Comparison | None]]]:
    """Differences with fractions as columns, for the page; beside it the pair behind each cell."""
    pairs = results.comparisons_of(panel, metric)
    fractions = sorted({p.fraction for p in pairs})
    names, order = arm_names(results), [arm.name for arm in results.arms]
    kinds = sorted({(p.arm, p.baseline) for p in pairs}, key=lambda k: (order.index(k[0]), order.index(k[1])))
    of = {(p.arm, p.baseline, p.fraction): p for p in pairs}
    grid = [[of.get((*kind, fraction)) for fraction in fractions] for kind in kinds]
    rows = [
        (
            Entry(architecture_name(results.by_name[arm].architecture)),
            Entry(names[arm]),
            Entry(_against(results, arm, baseline)),
            *(difference_cell(results, pair, results.is_shortcut(panel)) for pair in line),
        )
        for (arm, baseline), line in zip(kinds, grid, strict=True)
    ]
    sizes = {(p.num_patients, p.num_seeds) for p in pairs}
    note = f"Every difference: {' · '.join(_pair_counts(pairs[0]))}." if len(sizes) == 1 else ""
    columns = ("Network", "Initialisation", "Against", *(f"{share(f)} of labels" for f in fractions))
    title = f"Differences in {metric_name(metric)} of {panel.task}, {mode_name(panel.mode)}"
    styles = [results.by_name[arm].style for arm, _ in kinds]
    table = Table(title, columns, rows, note, heads=3, styles=styles)
    return said_in_title(said_once(table, 3, kinds=(NOT_ESTIMABLE[1],)), 2), grid


def _against(results: Results, arm: str, baseline: str) -> str:
    other = results.by_name[baseline]
    same = other.architecture == results.by_name[arm].architecture
    return arm_names(results)[baseline] + ("" if same else f" of {architecture_name(other.architecture)}")


def _pair_counts(pair: Comparison) -> tuple[str, str]:
    seeds = pair.num_seeds
    return f"{count(pair.num_patients)} test patients", f"{count(seeds)} seed{'' if seeds == 1 else 's'}"


def difference_cell(results: Results, pair: Comparison | None, shortcut: bool) -> Entry:
    if pair is None:
        return Entry("–")
    stuck = stayed_at_chance(results.plateaus, pair)
    if not claim_of(pair):
        return Entry("not estimable", small="; ".join(filter(None, (because(pair.note), stuck))))
    small = "; ".join(filter(None, (_p_values(pair), pair.note, stuck)))
    better = pair.claim == "better" and not shortcut
    return Entry(signed(pair.difference), interval(pair.low, pair.high), small, better)


def _p_values(pair: Comparison) -> str:
    """ "p 0.0087", and "Holm 0.017" where adjusting it changed it."""
    p, holm = probability(pair.p), probability(pair.p_holm)
    space = "\N{NO-BREAK SPACE}"
    return f"p{space}{p}" + (f", Holm{space}{holm}" if holm != p else "")


def multiplier_grid(results: Results, panel: Panel) -> Table:
    """Label multipliers with fractions as columns, for the page."""
    found = [
        m for m in results.comparisons.label_multipliers
        if (m.task, m.mode) == (panel.task, panel.mode)
    ]  # fmt: skip
    fractions = sorted({m.fraction for m in found})
    names, order = arm_names(results), [arm.name for arm in results.arms]
    kinds = sorted(
        {(m.arm, m.baseline, m.metric) for m in found},
        key=lambda k: (order.index(k[0]), order.index(k[1]), k[2]),
    )
    several = len({kind[2] for kind in kinds}) > 1
    of = {(m.arm, m.baseline, m.metric, m.fraction): m for m in found}
    rows = [
        (
            Entry(architecture_name(results.by_name[kind[0]].architecture)),
            Entry(names[kind[0]]),
            Entry(_against(results, kind[0], kind[1])),
            *([Entry(metric_name(kind[2]))] if several else []),
            *(_multiplier_cell(results, of.get((*kind, fraction))) for fraction in fractions),
        )
        for kind in kinds
    ]
    metric = ("Metric",) if several else ()
    columns = ("Network", "Initialisation", "Against", *metric, *(f"{share(f)} of labels" for f in fractions))
    by = f" by {metric_name(kinds[0][2])}" if kinds and not several else ""
    title = f"Label multipliers{by}, {panel.task}, {mode_name(panel.mode)}"
    note = "How many times as many labels the baseline needs for the arm's value"
    note += '; "more than" and "less than": beyond the ends of its learning curve.'
    styles = [results.by_name[kind[0]].style for kind in kinds]
    table = Table(title, columns, rows, note, heads=3 + several, styles=styles)
    return said_in_title(said_once(table, 3 + several), 2)


def _stuck(results: Results, row: LabelMultiplier) -> str:
    return "runs that stayed at chance" if any_stuck(results.plateaus, row) else ""


def _multiplier_cell(results: Results, row: LabelMultiplier | None) -> Entry:
    if row is None:
        return Entry("–")
    unbounded = row.low is None and row.high is None
    note = because(row.note) if unbounded and not (row.value is None and row.censored) else ""
    bounds = multiplier_interval(row)
    small = "; ".join(filter(None, (note, _stuck(results, row))))
    return Entry(multiplier_value(row), "" if bounds == "–" else bounds, small)


def subset_notes(results: Results, task: str) -> list[str]:
    """ "With 1 % of labels: few validation patients ...", what `evaluate` notes about the draws of labels."""
    notes = {
        (s.fraction, s.note): None
        for s in sorted(results.flow.subsets, key=lambda s: s.fraction)
        if s.task == task and s.note
    }
    return [f"With {share(fraction)} of labels: {note}" for fraction, note in notes]


def fraction_table(results: Results, task: str) -> Table:
    """What was asked of the training pool, and what each seed drew."""
    train = results.flow.tasks[task].parts.get("train") if task in results.flow.tasks else None
    pool = f"{count(train['patients'])} training patients" if train else "training patients"
    rows = [
        (
            Entry(f"{share(s.fraction)} of {pool}"),
            Entry(str(s.seed)),
            *(Entry(count(s[k])) for k in _SUBSET),
        )
        for s in sorted(
            (s for s in results.flow.subsets if s.task == task),
            key=lambda s: (s.fraction, s.seed),
        )
    ]
    columns = ("Requested", "Seed", "Train patients", "Train images", "Val patients", "Val images")
    note = " ".join(f"{text}." for text in subset_notes(results, task))
    return Table(f"Few-label subsets of {task}", columns, rows, note)


_SUBSET = ("num_train_patients", "num_train_images", "num_val_patients", "num_val_images")
