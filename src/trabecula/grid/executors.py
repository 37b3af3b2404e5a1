"""Where cells run: the protocol, the table, and the loop that follows the cells of one study.

A new executor costs one file and one line in `EXECUTORS`. It takes all cells at once, with what each needs,
because an engine may order them itself. What one computes is `worker.run_job(job(cell, threads))`, anywhere.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from trabecula.config import dump, suggest
from trabecula.errors import InputError
from trabecula.grid.cells import Cell

EXECUTORS = {"local": "trabecula.grid.local:LocalExecutor"}
"""Name -> module and class, made with (workers, threads, logs)."""
_TICK_S = 1.0


@dataclass(frozen=True)
class Event:
    """What an executor reports of one cell."""

    cell: str  # its id
    kind: Literal["started", "time left", "finished", "failed"]
    text: str = ""  # the cell's summary, or its error
    bad_input: bool = False  # failed because of its input, not of a defect or the machine
    seconds: float | None = None  # to go, as the cell itself says; None: it does not know


class Executor(Protocol):
    """Runs cells somewhere; no result depends on which executor, or on how many workers it has."""

    def start(self, cells: Sequence[Cell]) -> None:
        """Take these cells over and return at once; what they need that is not among them is done.

        A cell starts after those of them that it needs have finished, and never if one of these fails."""

    def events(self, timeout_s: float) -> list[Event]:
        """What happened since the last call; waits up to `timeout_s` if that is nothing."""

    def stop(self) -> None:
        """End whatever still runs. A stopped cell resumes when it is started again."""


def make_executor(name: str, workers: int, threads: int, logs: Path) -> Executor:
    """An executor of the table: `workers` cells at a time of `threads` each, which print into `logs`."""
    if name not in EXECUTORS:
        raise InputError(f"unknown executor '{name}'{suggest(name, list(EXECUTORS))}")
    module, cls = EXECUTORS[name].split(":")
    made: Executor = getattr(importlib.import_module(module), cls)(workers, threads, logs)
    return made


def job(cell: Cell, threads: int) -> dict[str, Any]:
    """A cell as plain values: all that `worker.run_job` needs, on any machine with the study's folder."""
    out = str(cell.folder)
    return {"id": cell.id, "verb": cell.verb, "config": dump(cell.config), "out": out, "threads": threads}


@dataclass(frozen=True)
class RunningCell:
    """A cell that runs, and its own estimate of the seconds to go (None: it has none)."""

    cell: Cell
    spent_s: float
    left_s: float | None


@dataclass
class Outcome:
    """What became of the cells that were to run."""

    finished: list[Cell] = field(default_factory=list)
    failed: dict[str, Event] = field(default_factory=dict)  # cell id -> its failure
    unreached: list[Cell] = field(default_factory=list)  # a cell they need failed


def run_cells(
    cells: Sequence[Cell],
    executor: Executor,
    notify: Callable[[Cell | None, float, list[RunningCell]], None] = lambda *_: None,
) -> Outcome:
    """Run cells that stand after those they need; a failure stops only the cells that need the failed one.

    `notify` is called about once a second with (cell that just finished or None, its seconds, running cells).
    """
    outcome, by_id = Outcome(), {cell.id: cell for cell in cells}
    running: dict[str, tuple[float, float | None]] = {}  # id -> when it began and will end

    def running_cells() -> list[RunningCell]:
        now = time.monotonic()
        return [
            RunningCell(by_id[i], now - began, None if end is None else max(end - now, 0.0))
            for i, (began, end) in running.items()
        ]

    try:
        executor.start(cells)
        while len(outcome.finished) + len(outcome.failed) + len(outcome.unreached) < len(cells):
            events = executor.events(_TICK_S)
            now = time.monotonic()
            for event in events:
                if event.kind == "started":
                    running[event.cell] = now, None
                elif event.kind == "time left":
                    end = None if event.seconds is None else now + event.seconds
                    running[event.cell] = running[event.cell][0], end
                else:
                    took = now - running.pop(event.cell, (now,))[0]
                    if event.kind == "finished":
                        outcome.finished.append(by_id[event.cell])
                        notify(by_id[event.cell], took, running_cells())
                    else:
                        outcome.failed[event.cell] = event
                        outcome.unreached = _unreached(cells, outcome.failed)
            if not events:
                notify(None, 0.0, running_cells())
    finally:
        executor.stop()
    return outcome


def _unreached(cells: Sequence[Cell], failed: dict[str, Event]) -> list[Cell]:
    lost = set(failed)
    for cell in cells:  # each comes after those it needs
        if lost.intersection(cell.needs):
            lost.add(cell.id)
    return [cell for cell in cells if cell.id in lost and cell.id not in failed]
