"""How long a study still takes, from what its own cells took and what those at work say of themselves."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from trabecula.grid.cells import Cell
from trabecula.grid.cost import is_untrained
from trabecula.grid.local import AtWork
from trabecula.progress import duration

DURATIONS = "durations.jsonl"  # in the study's logs/: no artifact, so that no result holds a time
_ENOUGH = 2  # cells of a kind by which the others are judged
_TRUSTED_S = 10.0  # before, a cell's own guess is of its slow first steps
_TELLING_S = 60.0  # from then on, what a cell at work says of itself speaks for others of its kind
_LEAST_S = 60.0  # "at least" less than this says nothing


def kind(cell: Cell) -> str:
    """Cells that take about as long: those of one stage, encoders without pretraining apart."""
    return f"{cell.stage} without training" if is_untrained(cell) else cell.stage


class Forecast:
    """The time left of a study, told as its cells end.

    A kind of cell (`kind`) is known as soon as two of its cells are done, all of them if it has fewer, or are
    well under way and say how long they take. What is shown falls with the clock, and goes over to what newer
    durations say bit by bit, so that it does not jump.
    """

    def __init__(
        self,
        missing: Sequence[Cell],
        workers: int,
        known: Mapping[str, Sequence[float]] | None = None,
        resumed: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            missing: the cells that are to run.
            known: kind of cell -> seconds that such cells of this study took before.
            resumed: ids of cells that an earlier run began: what they take now tells nothing of others.
            clock: seconds.
        """
        self.left = Counter(kind(cell) for cell in missing)
        self.enough = {name: min(_ENOUGH, count) for name, count in self.left.items()}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        for name, took in (known or {}).items():
            self.seconds[name] += took
        self.workers, self.resumed, self.clock = workers, resumed, clock
        self._shown: tuple[float, float, frozenset[str]] | None = None  # seconds, when, unknown kinds

    def finish(self, cell: Cell, took: float) -> None:
        self.left[kind(cell)] -= 1
        if cell.id not in self.resumed:
            self.seconds[kind(cell)].append(took)

    def note(self, at_work: Sequence[AtWork]) -> str:
        """Such as "about 12 min left".

        "at least ..." while nothing is known of some cells to come; empty while that is less than a minute.
        """
        left_s, unknown = self._estimate(at_work)
        if not left_s:  # nothing is known, or the last cell takes longer than was to be thought
            self._shown = None
            return ""
        now = self.clock()
        if self._shown is not None and self._shown[2] == unknown:
            before, when, _ = self._shown
            passed = now - when
            fallen = max(before - passed, 0.0)
            pace = min(max(left_s / 10, 5.0), 300.0)
            left_s = fallen + (left_s - fallen) * (1 - math.exp(-passed / pace))
        self._shown = (left_s, now, unknown)
        if unknown and left_s < _LEAST_S:
            return ""
        return f"{'at least' if unknown else 'about'} {rounded(left_s)} left"

    def _estimate(self, at_work: Sequence[AtWork]) -> tuple[float, frozenset[str]]:
        """Seconds to go of what is known, and the kinds of which nothing is."""
        means = self._means(at_work)
        waiting = self.left - Counter(kind(one.cell) for one in at_work)
        costs: list[float] = []
        unknown = {name for name, count in waiting.items() if count and name not in means}
        for one in at_work:
            if one.left_s is not None and one.spent_s >= _TRUSTED_S:
                costs.append(one.left_s)
            elif kind(one.cell) in means:
                costs.append(max(means[kind(one.cell)] - one.spent_s, 0.0))
            else:
                unknown.add(kind(one.cell))
        costs += [means[name] for name, count in waiting.items() if name in means for _ in range(count)]
        if not costs:
            return 0.0, frozenset(unknown)
        shared = sum(costs) / max(1, min(self.workers, len(costs)))
        return max(shared, max(costs)), frozenset(unknown)

    def _means(self, at_work: Sequence[AtWork]) -> dict[str, float]:
        """Kind of cell -> seconds, of the kinds that are known."""
        found = {name: list(took) for name, took in self.seconds.items()}
        for one in at_work:
            told = one.left_s is not None and one.spent_s >= _TELLING_S
            if told and one.cell.id not in self.resumed:
                found.setdefault(kind(one.cell), []).append(one.spent_s + (one.left_s or 0.0))
        return {
            name: sum(took) / len(took)
            for name, took in found.items()
            if took and len(took) >= self.enough.get(name, _ENOUGH)
        }


def rounded(seconds: float) -> str:
    """A duration in steps that the eye can rest on: tens of seconds, then minutes, then fives of minutes."""
    step = 10 if seconds < 90 else 60 if seconds < 3600 else 300
    return duration(max(math.ceil(seconds / step) * step, 10))


def write_duration(logs: Path, cell: Cell, took: float) -> None:
    """Note what a cell took that ran from its beginning to its end, for a later run or dry run."""
    line = json.dumps({"id": cell.id, "cell": cell.name, "seconds": round(took, 1)})
    file = logs / DURATIONS
    torn = file.exists() and not file.read_bytes().endswith(b"\n")  # by a killed study
    with file.open("a", encoding="utf-8") as lines:
        lines.write("\n" * torn + line + "\n")


def read_durations(logs: Path, cells: Sequence[Cell]) -> dict[str, list[float]]:
    """Kind of cell -> seconds of these cells, as this folder's earlier runs noted them."""
    found: dict[str, float] = {}
    if (logs / DURATIONS).exists():
        for line in (logs / DURATIONS).read_text(encoding="utf-8").splitlines():
            try:
                told = json.loads(line)
                found[str(told["id"])] = float(told["seconds"])
            except (ValueError, KeyError, TypeError):  # the last line of a killed study
                continue
    seconds: dict[str, list[float]] = defaultdict(list)
    for cell in cells:
        if cell.id in found:
            seconds[kind(cell)].append(found[cell.id])
    return dict(seconds)
