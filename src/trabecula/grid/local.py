"""Run the cells of a study on this machine, in worker processes that outlive their cells.

The path is the same for one worker and for many, so that the number of workers can't change a bit
of any result.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from trabecula.config import dump
from trabecula.grid.cells import Cell

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
_TICK_S = 1.0


@dataclass
class Outcome:
    """What became of the cells that were to run."""

    finished: list[Cell] = field(default_factory=list)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)  # cell id -> ("input"|"run", error)
    unreached: list[Cell] = field(default_factory=list)  # a cell they need failed


@dataclass(frozen=True)
class AtWork:
    """A cell that a worker is at, and the worker's own guess of the seconds to go (None: it has none)."""

    cell: Cell
    spent_s: float
    left_s: float | None


class _Worker:
    """One process and the cell it is at."""

    def __init__(self, threads: int, log: Path) -> None:
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trabecula.grid.worker", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the study alone, which then ends its workers
            )
        self.cell: Cell | None = None
        self.since = self._guessed = 0.0
        self._left_s: float | None = None
        self._text = b""

    def give(self, cell: Cell, threads: int) -> None:
        job = {
            "verb": cell.verb,
            "config": dump(cell.config),
            "out": str(cell.folder),
            "threads": threads,
            "id": cell.id,
        }
        self.cell, self.since, self._left_s = cell, time.monotonic(), None
        assert self.process.stdin is not None  # for the type checker: opened as a pipe
        with suppress(BrokenPipeError):  # it died idle; the closed answer pipe tells how
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()

    def fileno(self) -> int:
        assert self.process.stdout is not None  # for the type checker: opened as a pipe
        return self.process.stdout.fileno()

    def read(self) -> tuple[str, str] | None:
        """(kind, text) of a finished cell; None while the answer is not whole."""
        part = os.read(self.fileno(), 65536)
        if not part:
            return "run", _death(self.process.wait())
        *lines, self._text = (self._text + part).split(b"\n")
        for line in lines:
            reply = json.loads(line)
            if reply["kind"] != "left":
                return reply["kind"], reply["text"]  # the last line of a cell
            self._left_s, self._guessed = reply["seconds"], time.monotonic()
        return None

    def at_work(self) -> AtWork | None:
        if self.cell is None:
            return None
        now = time.monotonic()
        left = None if self._left_s is None else max(self._left_s - (now - self._guessed), 0.0)
        return AtWork(self.cell, now - self.since, left)

    def end(self) -> None:
        """Kill the process and whatever it started; a cell at work resumes in the next run."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def _death(code: int) -> str:
    if code >= 0:
        return f"its process ended by itself (exit code {code})"
    name = signal.Signals(-code).name
    tail = ", out of memory? fewer --workers need less" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code} ({name}{tail})"


def run_cells(
    cells: Sequence[Cell],
    workers: int,
    threads: int,
    logs: Path,
    told: Callable[[Cell | None, float, list[AtWork]], None],
) -> Outcome:
    """Run cells so that each starts after those it needs; a failure stops only what waits for it.

    Args:
        cells: in an order in which they can run; needed cells that are not listed are done.
        threads: computing threads of each worker; results may depend on it, never on `workers`.
        logs: a folder for what the workers print.
        told: called about once a second with (cell that just finished or None, its seconds, cells
            at work).
    """
    queue = _Queue(cells)
    outcome = Outcome()
    active: list[_Worker] = []
    idle: list[_Worker] = []
    started = 0
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with selectors.DefaultSelector() as selector:
            while queue.ready or active:
                while queue.ready and len(active) < workers:
                    if not idle:
                        started += 1
                        idle.append(_Worker(threads, logs / f"worker-{started}.log"))
                        selector.register(idle[-1], selectors.EVENT_READ)
                    worker = idle.pop()
                    worker.give(queue.take(), threads)
                    active.append(worker)
                events = selector.select(_TICK_S)
                for key, _ in events:
                    worker = key.fileobj  # type: ignore[assignment]
                    reply = worker.read()
                    if reply is None:
                        continue
                    alive = worker.process.poll() is None
                    if worker in active:
                        active.remove(worker)
                        _settle(worker, reply, queue, outcome, _at_work(active), told)
                    else:
                        idle.remove(worker)
                    if alive:
                        idle.append(worker)
                    else:
                        selector.unregister(worker)
                        worker.end()
                if not events:
                    told(None, 0.0, _at_work(active))
    finally:
        for worker in (*active, *idle):
            worker.end()
    outcome.unreached = [cell for cell in queue.left if cell.id not in outcome.failed]
    return outcome


def _at_work(workers: Sequence[_Worker]) -> list[AtWork]:
    return [found for worker in workers if (found := worker.at_work())]


def _settle(
    worker: _Worker,
    reply: tuple[str, str],
    queue: _Queue,
    outcome: Outcome,
    at_work: list[AtWork],
    told: Callable[[Cell | None, float, list[AtWork]], None],
) -> None:
    cell, worker.cell = worker.cell, None
    if cell is None:
        return
    kind, text = reply
    if kind == "done":
        queue.finish(cell)
        outcome.finished.append(cell)
        told(cell, time.monotonic() - worker.since, at_work)
    else:
        outcome.failed[cell.id] = (kind, text)


class _Queue:
    """Cells not yet given out; those with most others waiting for them go first."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.left = list(cells)
        to_run = {cell.id for cell in cells}
        self._missing = {cell.id: {need for need in cell.needs if need in to_run} for cell in cells}
        waiting: dict[str, set[str]] = defaultdict(set)
        for cell in reversed(cells):
            for need in cell.needs:
                waiting[need] |= {cell.id} | waiting[cell.id]
        place = {cell.id: i for i, cell in enumerate(cells)}
        self._rank = {cell.id: (-len(waiting[cell.id]), place[cell.id]) for cell in cells}
        self.ready = sorted((c for c in cells if not self._missing[c.id]), key=self._by_rank)

    def _by_rank(self, cell: Cell) -> tuple[int, int]:
        return self._rank[cell.id]

    def take(self) -> Cell:
        cell = self.ready.pop(0)
        self.left.remove(cell)
        return cell

    def finish(self, cell: Cell) -> None:
        for other in self.left:
            missing = self._missing[other.id]
            if cell.id in missing:
                missing.discard(cell.id)
                if not missing:
                    self.ready.append(other)
        self.ready.sort(key=self._by_rank)
