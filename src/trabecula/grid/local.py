"""Cells on this machine, in worker processes that outlive their cells; for one worker it is the same."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen
from typing import IO

from trabecula.grid.cells import Cell
from trabecula.grid.executors import Event, job

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_GRACE_S, _TELL_S, _POLL_S = 60.0, 3.0, 0.05
_STOPPING = f"stopping: cells keep how far they are, {_GRACE_S:.0f} s at most; Ctrl-C again stops at once"


class LocalExecutor:
    """Up to `workers` processes at a time; see `executors.Executor`."""

    def __init__(self, workers: int, threads: int, logs: Path) -> None:
        self.workers, self.threads, self.logs = workers, threads, logs
        self._cells: dict[str, Cell] = {}
        self._missing: dict[str, set[str]] = {}  # cells not yet started -> those they still wait for
        self._processes: list[_Worker] = []
        self._started = 0

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
        found = []
        for ready in [cell for cell, missing in self._missing.items() if not missing]:
            worker = next((one for one in self._processes if one.cell is None), None)
            if worker is None:
                if len(self._processes) == self.workers:
                    break
                self._started += 1
                worker = _Worker(self.threads, self.logs / f"worker-{self._started}.log")
                self._processes.append(worker)
            del self._missing[ready]
            worker.give(self._cells[ready])
            found.append(Event(ready, "started"))
        readable, _, _ = select.select(self._processes, [], [], 0.0 if found else timeout_s)
        for worker in readable:
            found += worker.read()
            if worker.cell is None and worker.process.poll() is not None:  # else its end is still to be read
                self._processes.remove(worker)
                worker.end()
        finished = {event.cell for event in found if event.kind == "finished"}
        for missing in self._missing.values():
            missing.difference_update(finished)
        return found

    def stop(self) -> None:
        """Cells that run may first keep how far they are, such as a training its checkpoint."""
        busy = [worker for worker in self._processes if worker.cell is not None]
        try:
            for worker in busy:
                worker.ask_to_end()
            began, told = time.monotonic(), False
            while any(worker.process.poll() is None for worker in busy):
                waited_s = time.monotonic() - began
                if waited_s > _GRACE_S:
                    break
                if waited_s > _TELL_S and not told:
                    told = True
                    print(_STOPPING, file=sys.stderr, flush=True)
                time.sleep(_POLL_S)
        finally:
            for worker in self._processes:
                worker.end()
            self._processes.clear()


class _Worker:
    """One process and the cell it runs."""

    def __init__(self, threads: int, log: Path) -> None:
        env = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
        env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-P", "-m", "trabecula.grid.worker", str(os.getpid())]
        self.threads = threads
        with log.open("ab") as errors:
            self.process = Popen(
                command, stdin=PIPE, stdout=PIPE, stderr=errors, env=env,
                start_new_session=True,  # Ctrl-C reaches the study alone, which then ends its workers
            )  # fmt: skip
        self.jobs: IO[bytes] = self.process.stdin  # type: ignore[assignment]  # opened as a pipe
        self.replies: IO[bytes] = self.process.stdout  # type: ignore[assignment]  # opened as a pipe
        self.cell: Cell | None = None
        self._text = b""

    def give(self, cell: Cell) -> None:
        self.cell = cell
        with suppress(BrokenPipeError):  # it died idle; the closed pipe of its replies says how
            self.jobs.write(json.dumps(job(cell, self.threads)).encode() + b"\n")
            self.jobs.flush()

    def fileno(self) -> int:
        return self.replies.fileno()

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

    def ask_to_end(self) -> None:
        """Its cell ends as by Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Kill the process and whatever it started; its cell resumes in the next run."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.jobs, self.replies):
            with suppress(BrokenPipeError):
                pipe.close()


def _death(code: int) -> str:
    if code >= 0:
        return f"its process ended by itself (exit code {code})"
    tail = ", out of memory? fewer --workers need less" if -code == signal.SIGKILL else ""
    return f"killed by signal {-code} ({signal.Signals(-code).name}{tail})"
