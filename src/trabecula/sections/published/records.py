"""Tables of what `fidelity` and `explain` measured, and of arms beside their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trabecula.artifacts.results import MetricRow
from trabecula.sections.formats import Cells, Entry, Table, cells
from trabecula.sections.numbers import count, interval, number, probability, share, signed
from trabecula.sections.published.paper import OURS, Paper, PublishedTable, StudyFiles, printed_cells
from trabecula.sections.results import Arm, Panel, Results

_UNITS = {"channel": "mean of a map", "cell": "each cell"}


def _beside(paper: Paper, table: PublishedTable, ours: Sequence[Cells]) -> Table:
    """The paper's rows, marked, then this study's; "not run" where it has none."""
    rows = [printed_cells(paper.mark, row.label, *row.values) for row in table.rows]
    missing = cells(OURS, Entry("not run", small=table.missing), *["–"] * (len(table.columns) - 2))
    return Table(table.title, table.columns, [*rows, *(ours or [missing])], table.note, table.heads)


def fine_tuned(paper: Paper, table: PublishedTable, study: StudyFiles) -> Table:
    """Pretrained networks of `networks`, fine-tuned, each beside its control."""
    results = study.results
    ours = [
        row
        for panel in fine_tuned_panels(results)
        if table.metric in results.metric_names(panel)
        for arm in results.arms
        if arm.architecture.startswith(table.networks) and arm.family == "pretrained" and "@" not in arm.name
        for fraction in results.fractions(panel)
        if (row := _fine_tuned(results, panel, table.metric, arm, fraction))
    ]
    return _beside(paper, table, ours)


def fine_tuned_panels(results: Results) -> list[Panel]:
    return [panel for panel in results.panels if panel.mode.partition(":")[0] == "finetune"]


def _fine_tuned(results: Results, panel: Panel, metric: str, arm: Arm, fraction: float) -> Cells | None:
    ours = results.summary(panel, metric, arm.name, fraction)
    if ours is None:
        return None
    pairs = [p for p in results.comparisons_of(panel, metric) if results.with_control(p)]
    pair = next((p for p in pairs if (p.arm, p.fraction) == (arm.name, fraction)), None)
    control = results.summary(panel, metric, pair.baseline, fraction) if pair else None
    difference = Entry(signed(pair.difference), interval(pair.low, pair.high)) if pair else "–"
    what = f"{panel.title}: {arm.title}"
    return cells(
        OURS, what, share(fraction), _value(ours), _value(control), difference, count(ours.num_seeds)
    )


def _value(row: MetricRow | None) -> Entry:
    if row is None or row.value is None:
        return Entry("–")
    return Entry(number(row.value), interval(row.low, row.high))


def generators(paper: Paper, table: PublishedTable, study: StudyFiles) -> Table:
    """What `fidelity` measured of each generator last: the values at `places` of fidelity.json."""
    ours = []
    for generator in study.generators:
        found = [_last(generator.record, *place.partition(" ")[::2]) for place in table.places]
        images = next((images for images, _ in found if images is not None), None)
        if images is not None:
            what = f"{generator.name}, {count(images)} images"
            ours.append(cells(OURS, what, *(cell for _, cell in found)))
    return _beside(paper, table, ours)


def _last(record: Mapping[str, Any], place: str, small: str) -> tuple[int | None, Entry]:
    """Images seen when the value at "critic.train" or "points.fd.test" was measured last, and the value."""
    part, key, *of = place.split(".")
    rows = [row for row in record.get(part) or [] if row["images"] is not None]
    if part != "critic":
        rows = [row for row in rows if (row["metric"], row["set"]) == (key, *of)]
    if not rows:
        return None, Entry("–")
    row = max(rows, key=lambda row: row["images"])
    value = row[key] if part == "critic" else row["value"]
    bounds = "" if part == "critic" or row.get("low") is None else interval(row["low"], row["high"])
    return row["images"], Entry(number(value), bounds, small)


def units(paper: Paper, table: PublishedTable, study: StudyFiles) -> Table:
    """Correlations of a network's units with the label, as `explain` found them."""
    ours = []
    for one in study.explained:
        asked = one.record.get("units") or {"rows": []}
        for kind, words in _UNITS.items():
            mine = [r for r in asked["rows"] if r["unit"] == kind and r["largest"] is not None]
            if mine:
                best = max(mine, key=lambda r: abs(r["largest"]))
                above, total = (sum(r[key] for r in mine) for key in ("num_above_paper", "num_units"))
                largest = Entry(signed(best["largest"]), small=best["layer"])
                chance, p = number(best["null_95"]), probability(best["p"])
                what, part = f"{one.name}, {asked['task']}", f"{count(above)} of {count(total)}"
                ours.append(cells(OURS, what, words, largest, part, chance, p))
    return _beside(paper, table, ours)
