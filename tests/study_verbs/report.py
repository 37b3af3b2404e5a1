"""A report over runs."""

from pathlib import Path
from typing import Annotated

from trabecula.config import NoEffectOnResult, Record
from trabecula.run import Run


class Config(Record):
    command: Annotated[str, NoEffectOnResult()] = ""
    """What made the study: not part of a run's identity."""
    runs: tuple[Path, ...] = ()
    """Runs to list."""
    title: str = ""
    """The page's heading."""
    not_run: dict[str, str] = {}
    """What could not be run, and why."""
    incomplete: tuple[dict[str, str], ...] = ()
    """Arms of which a run failed."""


def run(config: Config, out: Run) -> str:
    names = "\n".join(path.name.rpartition("-")[0] for path in config.runs)
    out.write("report.html", f"<h1>{config.title}</h1>\n{names}\n{config.not_run}\n")
    (out / "tables").mkdir(exist_ok=True)
    out.write("tables/main.csv", f"runs\n{len(config.runs)}\n")
    return f"pretraining paid in {len(config.runs)} of {len(config.runs)} runs"
