"""A run's folder as its card is read from it: its JSON files, its log, where its inputs lay."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from trabecula.run import log_lines
from trabecula.sections.results import read_json


@dataclass
class RunCard:
    """Lines of (what, text), and commands to go on with."""

    title: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def add(self, what: str, text: str) -> None:
        """A line, unless there is nothing to say."""
        if text:
            self.lines.append((what, text))


def record(file: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file."""
    return read_json(file, "trabecula") if file.exists() else {}


def input_path(folder: Path, key: str, otherwise: str) -> str:
    """Where an input of this run lay, or of the store or the features that it was made from."""
    given = record(folder / "provenance.json").get("inputs") or {}
    if given.get(key):
        return str(given[key][0])
    for parent in ("features", "store"):
        for path in given.get(parent) or ():
            found = input_path(Path(path), key, "")
            if found:
                return found
    return otherwise


def duration(folder: Path) -> str:
    """From the first line of the log to the last; a run that was stopped in between took less."""
    times = [line["time"] for line in log_lines(folder) if isinstance(line.get("time"), int | float)]
    if len(times) < 2:
        return ""
    minutes, seconds = divmod(round(max(times) - min(times)), 60)
    hours, minutes = divmod(minutes, 60)
    took = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
    on = record(folder / "provenance.json").get("device")
    ended = datetime.fromtimestamp(max(times)).strftime("%Y-%m-%d %H:%M")
    return f"{took}{f' on {on}' if on else ''}, ended {ended}"
