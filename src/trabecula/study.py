"""A recipe's whole grid of verb calls: planned, run, resumed, and its report put on top.

DIR/recipe.toml     the recipe with its overrides: DIR documents itself
DIR/cells.json      every cell: stage, coordinates, folder, id, the cells it needs; what was not run
DIR/cells/          one run folder a cell; a cell that is DONE is never run again
DIR/logs/           what the worker processes printed, what each cell took
DIR/report.html, DIR/tables/ ...   copied from the report stage
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from trabecula.artifacts.run_record import is_started, summary_of
from trabecula.config import to_toml
from trabecula.errors import InputError, RunError, TrabeculaError
from trabecula.files import locked, make_folder, sweep, write_atomically
from trabecula.grid.cells import Cell, Plan, plan
from trabecula.grid.executors import Outcome, RunningCell, make_executor, run_cells
from trabecula.grid.incomplete import without_failed
from trabecula.grid.time_left import TimeLeft, kind_of, read_durations, workload, write_duration
from trabecula.metrics.bootstrap import MIN_SEEDS
from trabecula.progress import Meter, rounded, shortened, steps
from trabecula.recipe import not_run_lines, read_recipe
from trabecula.run import verb_module

_OWN_FILES = {"recipe.toml", "cells.json", "cells", "logs", ".lock", "report.html", "tables", "figures"}
_SHOWN_FAILURES = 5
_SETTLED_S = 10.0  # before, a cell estimates its time left from slow first steps


def make_plan(recipe: Path, out: Path, assignments: Sequence[str] = ()) -> Plan:
    """Every cell of a recipe as it would be in the study folder `out`; an InputError says what is wrong."""
    with steps(f"checking {recipe}") as begin:
        return plan(read_recipe(recipe, assignments), out, begin)


def summarise(study: Plan) -> list[tuple[str, str, str, int, int]]:
    """(stage, verb, axes, cells, cells done) of each stage, in running order."""
    rows = []
    for name, cells in study.stages.items():
        labels: dict[str, dict[str, None]] = defaultdict(dict)
        for cell in cells:
            for axis, label in cell.coordinates.items():
                labels[axis.removeprefix(f"{name}.")][label] = None
        axes = ", ".join(f"{axis} x{len(found)}" for axis, found in labels.items() if len(found) > 1)
        done = sum(cell.done for cell in cells)
        rows.append((name, study.recipe.stages[name].verb, axes, len(cells), done))
    return rows


def remaining_work(study: Plan, out: Path) -> list[str]:
    """What the cells that are not done will cost: what their verbs count, and the time that others took."""
    known = {kind: fmean(took) for kind, took in read_durations(out / "logs", study.cells).items()}
    work: dict[str, Counter[str]] = defaultdict(Counter)  # stage -> quantity -> count
    took: dict[str, list[float]] = defaultdict(list)  # stage -> seconds of its cells, where they are known
    unknown = dict[str, None]()
    for cell in (cell for cell in study.cells if not cell.done):
        work[cell.stage].update(workload(cell))
        if kind_of(cell) in known:
            took[cell.stage].append(known[kind_of(cell)])
        else:
            unknown[cell.stage] = None
    lines = []
    for stage, counts in work.items():
        parts = [", ".join(_counted(count, what) for what, count in counts.items())] if counts else []
        if seconds := took[stage]:
            cells = _counted(len(seconds), "cells")
            parts.append(f"about {rounded(sum(seconds))} for {cells}, as finished ones took")
        lines += [f"{stage}: {'; '.join(parts)}"] if parts else []
    if total := sum(map(sum, took.values())):
        without = f", without {', '.join(unknown)}" if unknown else ""
        lines.append(f"time of what is known: about {rounded(total)} on one worker{without}")
    return lines


def few_seeds(study: Plan) -> list[str]:
    """Of each stage that predicts: how few seeds it has, where claims cannot be for new ones."""
    lines = []
    for stage, cells in study.stages.items():
        seeds = Counter[tuple[Any, ...]]()
        for cell in cells:
            verb = verb_module(cell.verb)
            for place, num in (verb.label_seeds(cell.config) if hasattr(verb, "label_seeds") else {}).items():
                seeds[(cell.arms, *place)] += num
        few: dict[int, set[float]] = defaultdict(set)
        for (*_, fraction), num in seeds.items():
            if num < MIN_SEEDS:
                few[num].add(fraction)
        for num, fractions in sorted(few.items()):
            shares = ", ".join(f"{100 * fraction:g} %" for fraction in sorted(fractions))
            lines.append(
                f"{stage}: {_counted(num, 'seeds')} with {shares} of labels; claims will be for the networks "
                f"trained here only, label multipliers without intervals; for new seeds it needs {MIN_SEEDS}"
            )
    return lines


def _counted(count: int, what: str) -> str:
    """ "3 pretrainings", "1 pretraining": the first word that ends in s is the plural."""
    one = re.sub(r"(?<=ch)es\b|(?<!s)s\b", "", what, count=1)
    return f"{count:,} {one if count == 1 else what}"


def run_study(study: Plan, out: Path, workers: int) -> str:
    """Run what is missing of a study in its folder; returns the report's verdict and where the report is.

    An error where a cell failed: an InputError if its input was bad, else a RunError. The cells that do not
    need it are done all the same, and the arms that are whole are reported.
    """
    make_folder(out, None if (out / "recipe.toml").exists() else _OWN_FILES)
    with locked(out, wait=2.0):
        sweep(out.glob(".*.partial"))
        _record(study, out)
        missing = [cell for cell in study.cells if not cell.done]
        outcome = _run_missing(study, missing, workers, out)
        if outcome.failed:
            raise _failure(study, outcome, out, _report_rest(study, outcome, workers, out))
        return _conclude(study, out, len(missing))


def _record(study: Plan, out: Path) -> None:
    head = (
        "# Written by `trabecula study`, overrides applied. Paths are relative to the folder it ran in.\n"
        "# To run what is missing: trabecula study <this file> --out <its folder>\n\n"
    )
    write_atomically(out / "recipe.toml", head + to_toml(study.recipe.values))
    folders = {cell.id: f"cells/{cell.name}" for cell in study.cells}
    cells = [
        {"id": cell.id, "stage": cell.stage, "verb": cell.verb, "folder": folders[cell.id],
         "coordinates": dict(cell.coordinates), "needs": [folders[need] for need in cell.needs]}
        for cell in study.cells
    ]  # fmt: skip
    record = {"title": study.recipe.title, "not_run": dict(study.recipe.not_run), "cells": cells}
    write_atomically(out / "cells.json", json.dumps(record, indent=1) + "\n")


def _run_missing(study: Plan, missing: Sequence[Cell], workers: int, out: Path) -> Outcome:
    if not missing:
        return Outcome()
    logs = out / "logs"
    resumed = {cell.id for cell in missing if is_started(cell.folder)}
    time_left = TimeLeft(missing, workers, read_durations(logs, study.cells), resumed)
    executor = make_executor("local", workers, study.recipe.threads, logs)
    with Meter("study", len(study.cells), "cells", even=False) as meter:
        meter.skip(len(study.cells) - len(missing))

        def notify(finished: Cell | None, took: float, running: list[RunningCell]) -> None:
            if finished is not None:
                time_left.finish(finished, took)
                if finished.id not in resumed:
                    write_duration(logs, finished, took)
            parts = [time_left.note(running), _running_note(running)]
            meter.add(int(finished is not None), ", ".join(part for part in parts if part))

        return run_cells(missing, executor, notify)


def _running_note(running: Sequence[RunningCell]) -> str:
    """Such as "running: pretrain-moco-4e0c2a91 (12 min left) and 1 more"."""
    if not running:
        return ""
    first = running[0]
    left = "" if first.left_s is None or first.spent_s < _SETTLED_S else f" ({rounded(first.left_s)} left)"
    return f"running: {shortened(first.cell.name, 24)}{left}" + (
        f" and {len(running) - 1} more" if len(running) > 1 else ""
    )


def _report_rest(study: Plan, outcome: Outcome, workers: int, out: Path) -> str:
    """Evaluate and report what is whole after failures; one phrase about it, "" if there is no report."""
    rest, left_out = without_failed(study, outcome.failed.keys())
    if not _reports(rest):
        return ""
    missing = [cell for cell in rest.cells if not cell.done]
    again = _run_missing(rest, missing, workers, out)
    if again.failed:
        return "; what is whole could not be reported: " + next(iter(again.failed.values())).text
    _conclude(rest, out, len(missing))
    return f"; {out / 'report.html'} leaves out {', '.join(left_out)}"


def _failure(study: Plan, outcome: Outcome, out: Path, reported: str) -> TrabeculaError:
    """One error for all failed cells: bad input only if nothing else went wrong."""
    names = {cell.id: cell.name for cell in study.cells}
    events = list(outcome.failed.values())
    parts = [f"{names[event.cell]}: {event.text}" for event in events[:_SHOWN_FAILURES]]
    parts += [f"and {more} more"] if (more := len(events) - _SHOWN_FAILURES) > 0 else []
    lost = len(outcome.unreached)
    not_run = f" ({lost} cell(s) that need them were not run)" if lost else ""
    again = "what is done is kept, run the same command again after the cause is gone"
    message = f"{out}: {len(events)} cell(s) failed: {' | '.join(parts)}{not_run}{reported}; {again}"
    return InputError(message) if all(event.bad_input for event in events) else RunError(message)


def _conclude(study: Plan, out: Path, ran: int) -> str:
    """Put the report on top of the study folder; the last lines of the study."""
    lines = [f"not run: {text}" for text in not_run_lines(study.recipe.values, study.recipe.not_run)]
    reports = _reports(study)
    lines += [summary_of(cell.folder) or "" for cell in reports]
    if len(reports) == 1:
        for name in ("tables", "figures"):
            _replace_folder(reports[0].folder / name, out / name)
        page = reports[0].folder / "report.html"
        if page.exists():
            write_atomically(out / "report.html", page.read_bytes())
            lines.append(f"report: {out / 'report.html'}")
    elif reports:
        lines += [f"report: {cell.folder / 'report.html'}" for cell in reports]
    return "\n".join([*lines, f"{len(study.cells)} cells done, {ran} of them now: {out}"])


def _reports(study: Plan) -> list[Cell]:
    return [cell for cell in study.cells if cell.verb.rpartition(".")[2] == "report"]


def _replace_folder(source: Path, target: Path) -> None:
    if source.is_dir():
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
