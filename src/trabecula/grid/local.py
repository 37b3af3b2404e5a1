"""Cells on this machine, in worker processes that outlive their cells.

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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from trabecula.grid.cells import Cell
from trabecula.grid.executors import Event, job

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


class LocalExecutor:
    """Up to `workers` processes at a time; see `executors.Executor`."""

    def __init__(self, workers: int, threads: int, logs: Path) -> None:
        self.workers, self.threads, self.logs = workers, threads, logs
        self._cells: dict[str, Cell] = {}
        self._missing: dict[str, set[str]] = {}  # cells not yet started -> those they still wait for
        self._processes: list[_Worker] = []
        self._started = 0
        self._selector = selectors.DefaultSelector()

    def start(self, cells: Sequence[Cell]) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        self._cells = {cell.id: cell for cell in cells}
        waiting: dict[str, set[str]] = {cell.id: set() for cell in cells}  # cell -> all that need it
        for cell in reversed(cells):
            for need in waiting.keys() & {*cell.needs}:
                waiting[need] |= {cell.id} | waiting[cell.id]
        first = sorted(cells, key=lambda cell: -len(waiting[cell.id]))  # a long chain must not start last
        self._missing = {cell.id: {*cell.needs} & waiting.keys() for cell in first}

    def events(self, timeout_s: float) -> list[Event]:
        found = self._give_out()
        for key, _ in self._selector.select(0.0 if found else timeout_s):
            worker: _Worker = key.fileobj  # type: ignore[assignment]
            for event in worker.read():
                found.append(event)
                for missing in self._missing.values() if event.kind == "finished" else ():
                    missing.discard(event.cell)
            if worker.cell is None and worker.process.poll() is not None:  # else its end is still to be read
                self._selector.unregister(worker)
                self._processes.remove(worker)
                worker.end()
        return found

    def _give_out(self) -> list[Event]:
        started = []
        while (ready := next((i for i, missing in self._missing.items() if not missing), None)) is not None:
            worker = next((one for one in self._processes if one.cell is None), None)
            if worker is None:
                if len(self._processes) == self.workers:
                    break
                self._started += 1
                worker = _Worker(self.threads, self.logs / f"worker-{self._started}.log")
                self._processes.append(worker)
                self._selector.register(worker, selectors.EVENT_READ)
            del self._missing[ready]
            worker.give(self._cells[ready])
            started.append(Event(ready, "started"))
        return started

    def stop(self) -> None:
        for worker in self._processes:
            worker.end()
        self._processes.clear()
        self._selector.close()


class _Worker:
    """One process and the cell it runs."""

    def __init__(self, threads: int, log: Path) -> None:
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self.threads = threads
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
        self._text = b""

    def give(self, cell: Cell) -> None:
        self.cell = cell
        assert self.process.stdin is not None  # for the type checker: opened as a pipe
        with suppress(BrokenPipeError):  # it died idle; the closed pipe of its replies says how
            self.process.stdin.write(json.dumps(job(cell, self.threads)).encode() + b"\n")
            self.process.stdin.flush()

    def fileno(self) -> int:
        assert self.process.stdout is not None  # for the type checker: opened as a pipe
        return self.process.stdout.fileno()

    def read(self) -> list[Event]:
        """What the process says of its cell, or that it died."""
        part = os.read(self.fileno(), 65536)
        *lines, self._text = (self._text + part).split(b"\n")
        replies = [json.loads(line) for line in lines]
        if not part:
            replies = [{"kind": "failed", "text": _death(self.process.wait())}]
        cell = self.cell
        if cell is None:  # it died idle
            return []
        if replies and replies[-1]["kind"] != "time left":
            self.cell = None
        return [Event(cell.id, **reply) for reply in replies]

    def end(self) -> None:
        """Kill the process and whatever it started; its cell resumes in the next run."""
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
