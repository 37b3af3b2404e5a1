"""What `evaluate` wrote, as sections of the page: verdict, results, comparisons, curves, how to read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trabecula.figures.charts import ChartGroup
from trabecula.sections import curves, tables, verdict, wording
from trabecula.sections.formats import Table
from trabecula.sections.numbers import count, number, present
from trabecula.sections.provenance import without_paths
from trabecula.sections.results import Panel, Results
from trabecula.sections.section import Block, FoldedTable, Section
from trabecula.sections.snapshots import snapshot_curves, snapshot_table

_KINDS = {  # of figures, with their headings
    "learning": "Learning curves", "snapshots": "Over the course of pretraining", "roc": "ROC",
    "reliability": "Reliability",
}  # fmt: skip
_SHORTCUT = "A [shortcut probe](#shortcuts): a higher score is no merit."


def verdict_section(results: Results, not_run: Mapping[str, str], at_the_end: Mapping[str, str]) -> Section:
    """How often pretraining paid, and a sentence for each arm.

    `not_run`: what the study left out, and why; `at_the_end`: by arm, what was wrong as pretraining ended.
    """
    incomplete = {arm.name: arm.reason for arm in results.flow.incomplete}
    more = {name: reason for name, reason in incomplete.items() if reason not in not_run.values()}
    left_out: dict[str, list[str]] = {}  # why -> who, each reason once
    for name, reason in {**not_run, **more}.items():
        left_out.setdefault(without_paths(reason), []).append(name)
    content = {
        "tally": verdict.tally(results), "num_compared": len(verdict.against_random(results)),
        "why_none": verdict.why_none(results), "verdicts": verdict.verdicts(results),
        "left_out": {reason: " and ".join(names) for reason, names in left_out.items()},
        "upper_bounds": verdict.upper_bounds(results), "few_seeds": verdict.few_seeds(results),
        "at_the_end": at_the_end,
    }  # fmt: skip
    return Section("verdict", "Verdict", "Verdict", [Block("verdict", content)])


def results_section(results: Results) -> Section:
    """Every value with its interval: the headline metric, then the others and groups behind a line."""
    note = (
        f"Mean over seeds (SD over seeds), and below it the {results.level} % interval. Bold only where the "
        "comparison with random initialisation of the same network says better after Holm's adjustment."
    )
    blocks, written = [Block("note", note)], []
    for panel in results.panels:
        headline, *others = tables.results_tables(results, panel)
        written += [headline, *others]
        groups = tables.other_groups(results, panel)
        folded = [*others, *([groups] if groups else [])]
        blocks += [*_panel_heading(results, panel), Block("table", headline)]
        blocks += [Block("folded_table", FoldedTable(table.title, table)) for table in folded]
    files = {"results": (written, results.metrics.rows)}
    return Section("results", "Results", "Results with intervals", blocks, files)


def _panel_heading(results: Results, panel: Panel) -> list[Block]:
    heading = Block("heading", panel.title)
    return [heading, Block("note", _SHORTCUT)] if results.is_shortcut(panel) else [heading]


def comparisons_section(results: Results) -> Section:
    """Differences of arms of one network on the same patients, and what they are worth in labels."""
    note = (
        "Paired on the same patients and seeds. Readings go by p adjusted over arms by Holm's method, shown "
        "where it reads other than p. The label multiplier says how many times as many labels the baseline "
        "would need for the same value."
    )
    blocks = [Block("note", note)]
    pairs, multipliers = list[Table](), list[Table]()
    for panel in results.panels:
        blocks += _panel_heading(results, panel)
        metrics = [m for m in results.metric_names(panel) if results.comparisons_of(panel, m)]
        for metric in metrics:
            blocks += _compared(results, panel, metric)
            pairs.append(tables.comparison_table(results, panel, metric))
        if not metrics:
            blocks.append(Block("note", "Nothing could be compared."))
        grid, multiplied = tables.multiplier_grid(results, panel), tables.multiplier_table(results, panel)
        blocks += [Block("table", grid)] if grid.rows else []
        multipliers += [multiplied] if multiplied.rows else []
    files = {
        "comparisons": (pairs, results.comparisons.pairs),
        "label_multipliers": (multipliers, results.comparisons.label_multipliers),
    }
    return Section("comparisons", "Comparisons", "Comparisons", blocks, files)


def _compared(results: Results, panel: Panel, metric: str) -> list[Block]:
    """The table of one metric with a mark beside each difference, and what the marks mean."""
    tested = [pair for pair in results.comparisons_of(panel, metric) if wording.claim_of(pair)]
    ends = [abs(p[k]) for p in tested for k in ("difference", "low", "high") if present(p[k])]
    reach = max(ends, default=0.0) or 1.0
    table = tables.comparison_grid(results, panel, metric, reach)
    if not tested:
        return [Block("table", table)]
    readings = "▲ tells more, ▼ tells less" if results.is_shortcut(panel) else "▲ better, ▼ worse"
    note = (
        f"{readings}: Holm-adjusted p below "
        f"{results.metrics.alpha:g}; = no difference shown: p is larger, even where the {results.level} % "
        "interval just leaves out 0."
    )
    width = number(reach)
    if any(cell.mark and cell.mark.bar for row in table.rows for cell in row):
        note += f" The bars reach from −{width} to {width}; the upright line is no difference."
    return [Block("table", table), Block("note", note)]


def curves_section(results: Results) -> Section:
    """Learning curves, scores over pretraining, ROC, reliability."""
    drawn = [_figures(results, panel) for panel in results.panels]
    swept = [_swept(results, panel) for panel in results.panels]
    blocks = []
    for kind, heading in _KINDS.items():
        if any(figures[kind] for figures in drawn):
            blocks.append(Block("heading", heading))
        for figures, scores in zip(drawn, swept, strict=True):
            blocks.append(Block("figures", figures[kind]))
            for table in scores if kind == "snapshots" else ():
                blocks.append(Block("folded_table", FoldedTable(f"{table.title}: values", table)))
    if not any(any(figures.values()) for figures in drawn):
        blocks.append(Block("note", "No curves in these results."))
    tables = [table for scores in swept for table in scores]
    files = {"snapshots": (tables, None)} if tables else {}
    return Section("curves", "Curves", "Curves", blocks, files)


def _figures(results: Results, panel: Panel) -> dict[str, list[ChartGroup]]:
    """Groups of figures by their kind; of each kind the first is open."""
    metrics = results.metric_names(panel)
    kinds = [(metric, per_class) for metric in metrics for per_class in (False, True)]
    learning = filter(None, (curves.learning_curves(results, panel, *kind) for kind in kinds))
    return {
        "learning": [replace(group, opened=not i) for i, group in enumerate(learning)],
        "snapshots": [group for metric in metrics if (group := snapshot_curves(results, panel, metric))],
        "roc": curves.roc_curves(results, panel),
        "reliability": curves.reliability_plots(results, panel),
    }


def _swept(results: Results, panel: Panel) -> list[Table]:
    found = (snapshot_table(results, panel, metric) for metric in results.metric_names(panel))
    return [table for table in found if table.rows]


def reading_section(results: Results) -> Section:
    """The definitions."""
    alpha, resamples = f"{results.metrics.alpha:g}", count(results.metrics.num_resamples)
    content = {"level": results.level, "alpha": alpha, "resamples": resamples}
    return Section("reading", "How to read this", "How to read this", [Block("reading", content)])
