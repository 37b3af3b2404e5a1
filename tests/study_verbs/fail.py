"""Fails in one of the ways in which a verb can fail."""

import os
import signal
import time
from pathlib import Path

from trabecula.config import Record
from trabecula.errors import InputError, RunError
from trabecula.progress import Meter
from trabecula.run import Run


class Config(Record):
    start: Path | None = None
    """Something to wait for."""
    how: str = "not"
    """not, input, run, name, defect, kill, kill late, exit or hang; "run at 1" for seed 1 alone."""
    seed: int = 0
    """Nothing hangs on it otherwise."""


def run(config: Config, out: Run) -> str:
    how, _, seed = config.how.partition(" at ")
    if seed and int(seed) != config.seed:
        how = "not"
    if how == "input":
        raise InputError("the manifest has no rows; check its path")
    if how == "run":
        raise RunError("the loss is not finite at step 3; lower the rate")
    if how == "name":
        raise RunError("no number comes out, first for image '9000099L'; use an earlier one")
    if how == "defect":
        raise ZeroDivisionError("a defect")
    if how == "kill late":
        with Meter("failing", 1, "steps") as meter:
            meter.add(1)
    if how.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(5)
    if how == "hang":
        time.sleep(600)
    out.write("fine.txt", "fine\n")
    return "fine"
