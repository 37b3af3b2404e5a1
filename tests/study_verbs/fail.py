"""Fails in one of the ways in which a verb can fail."""

import os
import signal
import time
from pathlib import Path

from trabecula.config import Record
from trabecula.errors import InputError, RunError
from trabecula.run import Run


class Config(Record):
    start: Path | None = None
    """Something to wait for."""
    how: str = "not"
    """not, input, run, defect, kill, exit or hang."""


def run(config: Config, out: Run) -> str:
    if config.how == "input":
        raise InputError("the manifest has no rows; check its path")
    if config.how == "run":
        raise RunError("the loss is not finite at step 3; lower the rate")
    if config.how == "defect":
        raise ZeroDivisionError("a defect")
    if config.how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.how == "exit":
        os._exit(5)
    if config.how == "hang":
        time.sleep(600)
    out.write("fine.txt", "fine\n")
    return "fine"
