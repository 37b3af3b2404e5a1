"""How long a study still takes: what finished cells of a kind took, for those of the kind to come."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean

from trabecula.grid.cells import Cell
from trabecula.grid.executors import RunningCell
from trabecula.progress import rounded
from trabecula.run import verb_module

_DURATIONS = "durations.jsonl"  # in the study's logs/: not an artifact, so that no result holds a time
_LEAST_S = 60.0  # "at least" less than this says nothing

# A stage, then the quantities that a cell of it works through, such as "pretrainings", "images seen".
Kind = tuple[str, ...]
Durations = Mapping[Kind, Sequence[float]]  # seconds that cells took


def workload(cell: Cell) -> Mapping[str, int]:
    """Quantity -> count of what a cell is to do, as its verb says it; empty if that says nothing."""
    verb = verb_module(cell.verb)
    return verb.workload(cell.config) if hasattr(verb, "workload") else {}


def kind_of(cell: Cell) -> Kind:
    """Cells of one kind take about as long: those of one stage with the same quantities."""
    return (cell.stage, *workload(cell))


class TimeLeft:
    """The time left of a study, by kinds of cells; one of which no cell has finished counts for nothing.

    resumed: ids of cells that an earlier run began: what they take now is not what others take.
    """

    def __init__(
        self, missing: Sequence[Cell], workers: int, known: Durations, resumed: Collection[str] = ()
    ) -> None:
        self.workers, self.resumed = workers, resumed
        self.kinds = {cell.id: kind_of(cell) for cell in missing}
        self.left = Counter(self.kinds.values())
        self.seconds = defaultdict(list, {kind: list(took) for kind, took in known.items()})

    def finish(self, cell: Cell, took: float) -> None:
        self.left[self.kinds[cell.id]] -= 1
        if cell.id not in self.resumed:
            self.seconds[self.kinds[cell.id]].append(took)

    def note(self, running: Sequence[RunningCell]) -> str:
        """Such as "about 12 min left"; "at least" while a kind to come is not known, empty while none is."""
        means = {kind: fmean(took) for kind, took in self.seconds.items() if took}
        left_s = sum(means.get(kind, 0.0) * count for kind, count in self.left.items())
        left_s -= sum(min(one.spent_s, means.get(self.kinds[one.cell.id], 0.0)) for one in running)
        left_s /= max(1, min(self.workers, self.left.total()))
        whole = all(kind in means for kind, count in self.left.items() if count)
        if left_s <= (0 if whole else _LEAST_S):
            return ""
        return f"{'about' if whole else 'at least'} {rounded(left_s)} left"


def write_duration(logs: Path, cell: Cell, took: float) -> None:
    """Record what a cell took that ran from its beginning to its end, for a later run or dry run."""
    line = json.dumps({"id": cell.id, "cell": cell.name, "seconds": round(took, 1)})
    file = logs / _DURATIONS
    torn = file.exists() and not file.read_bytes().endswith(b"\n")  # by a killed study
    with file.open("a", encoding="utf-8") as lines:
        lines.write("\n" * torn + line + "\n")


def read_durations(logs: Path, cells: Sequence[Cell]) -> Durations:
    """Seconds that these cells took, as earlier runs in this folder recorded them."""
    took: dict[str, float] = {}
    file = logs / _DURATIONS
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        with suppress(ValueError, KeyError, TypeError):  # of the last line of a killed study
            row = json.loads(line)
            took[str(row["id"])] = float(row["seconds"])
    seconds: dict[Kind, list[float]] = defaultdict(list)
    for cell in cells:
        if cell.id in took:
            seconds[kind_of(cell)].append(took[cell.id])
    return seconds
