"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

_EVERY_S = 15.0  # plain lines: often enough to see life, rare enough for a log file
_LISTENER_EVERY_S = 1.0
_WIDE = 120  # columns of a terminal


class Meter:
    """`with Meter("decoding", total, "images") as meter: ... meter.add(1)`.

    `even`: items cost about the same; if not, the caller's notes say the time left.
    """

    listener: ClassVar[Callable[[float | None], None] | None] = None
    """In a study's workers: called with the seconds left (None if unknown); nothing is shown, since their
    parent shows one meter for all of them."""

    def __init__(self, label: str, total: int, unit: str, even: bool = True) -> None:
        self.label, self.total, self.unit, self.even = label, total, unit, even
        self.done = self._skipped = 0
        self._started = self._shown = time.monotonic()
        self._reached, self._note = False, ""
        self._bar: Progress | None = None

    def __enter__(self) -> Meter:
        if Meter.listener is None and sys.stderr.isatty():
            self._bar = _bar(self.label, self.total, self.unit, self.even, Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def skip(self, count: int) -> None:
        """Count work that an earlier run did: shown as done, left out of the rate."""
        self._skipped += count
        self._show(count)

    def add(self, count: int, note: str = "") -> None:
        self._show(count, note)

    def reach(self, done: int, note: str = "") -> None:
        """Say how much is done in all; what is done at the first call is an earlier run's. A note stays."""
        self._note = note or self._note
        if not self._reached:
            self._reached, self._skipped = True, self._skipped + done - self.done
        self._show(done - self.done, self._note)

    def _show(self, count: int, note: str = "") -> None:
        self.done += count
        now = time.monotonic()
        rate = (self.done - self._skipped) / max(now - self._started, 1e-9)
        left_s = max(self.total - self.done, 0) / rate if self.even and rate > 0 else None
        if self._bar:
            pace = f"{rate:.3g}/s {note}" if self.even else note
            self._bar.update(self._bar.task_ids[0], completed=self.done, rate=pace)
        elif Meter.listener is not None:
            if now - self._shown >= _LISTENER_EVERY_S or self.done >= self.total:
                self._shown = now
                Meter.listener(left_s)
        elif now - self._shown >= _EVERY_S:
            self._shown = now
            pace = f", {rate:.3g}/s" if self.even else ","
            pace += "" if left_s is None else f", {duration(left_s)} left"
            line = f"{self.label}: {self.done:,}/{self.total:,} {self.unit}{pace}"
            print(f"{line} {note}".rstrip(" ,"), file=sys.stderr, flush=True)


class _Note(ProgressColumn):
    """Rate and remarks, cut off where the line ends: all before them stays whole."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["rate"], no_wrap=True, overflow="ellipsis")


def _bar(label: str, total: int, unit: str, even: bool, console: Console) -> Progress:
    """A bar of one line: the counts first, what is least needed last."""
    width = 40 if console.width >= _WIDE else 12
    left = [TimeRemainingColumn()] if even else []
    counts = MofNCompleteColumn(table_column=Column(no_wrap=True))
    texts = TextColumn("{task.description}", markup=False), counts, TextColumn(unit)
    bar = Progress(*texts, BarColumn(width), *left, _Note(), console=console)
    bar.add_task(shortened(label, 28), total=total, rate="")
    return bar


def shortened(name: str, width: int) -> str:
    """A name of this many letters at most, left out in its middle: beginning and end tell names apart."""
    if len(name) <= width:
        return name
    end = (width - 1) // 2
    return f"{name[: width - 1 - end]}…{name[len(name) - end :]}"


@contextmanager
def steps(label: str, first_s: float = 4.0, every_s: float = _EVERY_S) -> Iterator[Callable[[str], None]]:
    """Show work of unknown length: `with steps("checking x") as begin: ...`.

    A line that moves on a terminal; elsewhere nothing of what is quick, the first plain line after `first_s`
    seconds, then one every `every_s`.
    """
    if sys.stderr.isatty():
        with Console(stderr=True).status(escape(label)) as status:
            yield lambda step: status.update(escape(f"{label}: {step}"))
        return
    lines, ended = [label], threading.Event()

    def repeat() -> None:
        """A thread's work, since a step that takes long says nothing itself."""
        wait_s = first_s
        while not ended.wait(wait_s):
            print(lines[-1], file=sys.stderr, flush=True)
            wait_s = every_s

    printer = threading.Thread(target=repeat, daemon=True)
    printer.start()
    try:
        yield lambda step: lines.append(f"{label}: {step}")
    finally:
        ended.set()
        printer.join()


def rounded(seconds: float) -> str:
    """A duration in steps that a reader can follow: tens of seconds, then minutes, then fives of minutes."""
    step = 10 if seconds < 90 else 60 if seconds < 3600 else 300
    return duration(max(math.ceil(seconds / step) * step, 10))


def duration(seconds: float) -> str:
    """A duration as a person says it: 42 s, 3 min, 1 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
