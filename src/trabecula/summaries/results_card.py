"""What a person reads of an evaluation's folder, and of a study's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trabecula.sections.results import Row
from trabecula.sections.wording import (
    claim_of,
    claim_words,
    count,
    interval,
    metric_name,
    mode_name,
    never_left_chance,
    number,
    share,
    signed,
)
from trabecula.summaries.run_folder import RunCard, input_path, record

_LONG = 12  # lines of a part: more are counted


def read_evaluation(folder: Path) -> RunCard:
    """Its main metric by arm and share of labels, and the claims."""
    told, compared = record(folder / "metrics.json"), record(folder / "comparisons.json")
    rows = [
        row
        for row in told.get("rows", ())
        if (row["seed"], row["cohort"], row["stratum"]) == ("all", "all", "all")
    ]
    made = RunCard(f"an evaluation of {len({row['arm'] for row in rows})} arms")
    flow = record(folder / "flow.json")
    for task, parts in (flow.get("tasks") or {}).items():
        test = (parts.get("parts") or {}).get("test") or {}
        made.add(
            "test part",
            f"{task}: {count(test.get('images'))} images of {count(test.get('patients'))} patients",
        )
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in _headlines(rows):
        groups.setdefault(
            (metric_name(row["metric"]), f"{row['task']}, {mode_name(row['mode'])}"), []
        ).append(row)
    for (metric, where), own in groups.items():
        made.add(metric, f"of {where}:")
        for row in own[:_LONG]:
            value = f"{number(row['value'])} ({interval(row['low'], row['high'])})"
            seeds = f"{count(row['num_seeds'])} seed{'s' * (row['num_seeds'] != 1)}"
            made.add("", f"  {row['arm']}, {share(row['fraction'])}: {value}, {seeds}")
        made.add("", _more(own))
    pairs = compared.get("pairs", ())
    claims = [pair for pair in pairs if claim_of(pair) in ("better", "worse")]
    for pair in claims[:_LONG]:
        size = f"{signed(pair['difference'])} ({interval(pair['low'], pair['high'])})"
        where = f"{pair['task']}, {mode_name(pair['mode'])}, {share(pair['fraction'])}"
        stuck = never_left_chance(flow.get("plateaus", ()), pair)
        told_of = f"{pair['arm']} than {pair['baseline']} by {size}: {where}" + (
            f" ({stuck})" if stuck else ""
        )
        made.add(claim_words(pair["claim"])[1], told_of)
    made.add("claims", _more(claims) if claims else _no_claim(pairs))
    level = f"{told.get('level', 0.95) * 100:.4g} %"
    made.add("intervals", f"{level}, {count(told.get('num_resamples'))} resamples")
    manifest = input_path(folder, "manifest", "MANIFEST")
    made.commands = [f"trabecula report --results {folder} --manifest {manifest} --out REPORT"]
    return made


def _no_claim(pairs: Sequence[Row]) -> str:
    """ "none: no difference was shown in 10 comparisons, 2 more could not be tested"."""
    tested = sum(bool(claim_of(pair)) for pair in pairs)
    if not tested:
        return (
            f"none: of {len(pairs)} comparisons none could be tested" if pairs else "none: nothing to compare"
        )
    left = f", {len(pairs) - tested} more could not be tested" if tested < len(pairs) else ""
    return f"none: no difference was shown in {tested} comparison{'s' * (tested != 1)}{left}"


def _headlines(rows: list[Row]) -> list[Row]:
    """One metric a task: the first there of those that the report leads with."""
    order = ("auroc", "auroc_macro", "balanced_accuracy")
    best: dict[str, int] = {}
    for row in rows:
        if row["metric"] in order:
            rank = order.index(row["metric"])
            best[row["task"]] = min(best.get(row["task"], rank), rank)
    return [row for row in rows if row["metric"] == order[best.get(row["task"], 0)]]


def _more(rows: list[Row]) -> str:
    return f"  and {len(rows) - _LONG} more" if len(rows) > _LONG else ""


def read_study(folder: Path) -> RunCard:
    """A study's folder: its stages, what is done, what was not run, and where the report lies."""
    told = record(folder / "cells.json")
    made = RunCard(str(told.get("title") or "a study"))
    stages: dict[str, list[bool]] = {}
    for cell in told.get("cells", ()):
        done = (folder / cell["folder"] / "DONE").exists()
        stages.setdefault(cell["stage"], []).append(done)
    for stage, done in stages.items():
        made.add(stage, f"{sum(done)} of {len(done)} done" if not all(done) else f"{len(done)} done")
    for label, reason in (told.get("not_run") or {}).items():
        made.add("not run", f"{label}: {reason}")
    unfinished = any(not all(done) for done in stages.values())
    made.add("report", str(folder / "report.html") if (folder / "report.html").exists() else "none yet")
    if unfinished or not stages:
        made.commands = [f"trabecula study {folder / 'recipe.toml'} --out {folder}"]
    else:
        made.commands = [f"trabecula show {folder / cell['folder']}" for cell in told["cells"]
                         if cell["verb"] == "evaluate"][:1]  # fmt: skip
    return made
