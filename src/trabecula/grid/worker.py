"""A worker process of a study: reads a cell a line from stdin, writes the time left, then what became of it.

Started anew by `python -m`, so that the thread counts in its environment are in force before any numeric
library is loaded, whatever the number of workers.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from trabecula.artifacts.run_record import LOG_FILE, run_id
from trabecula.config import build
from trabecula.errors import InputError, TrabeculaError
from trabecula.progress import Meter
from trabecula.run import execute, verb_module

_LOCK_WAIT_S = 20.0  # a killed study's worker may live a moment longer than the study
_POLL_S = 0.2
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def follow(parent: int) -> None:
    """End this process, and the processes it started, as soon as its parent has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Run one cell, given as `executors.job` writes it; what became of it, as the values of an `Event`."""
    where = job["out"]
    try:
        config = build(verb_module(job["verb"]).Config, job["config"], where)
        summary = execute(job["verb"], config, Path(where), job["threads"], wait=_LOCK_WAIT_S)
        if run_id(Path(where)) != job["id"]:
            raise InputError(f"{where}: an input changed while the study ran; run the study again")
        return {"kind": "finished", "text": summary}
    except InputError as error:
        return {"kind": "failed", "text": str(error), "bad_input": True}
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split()) + f" (more in {where}/{LOG_FILE})"
        return {"kind": "failed", "text": str(error) if isinstance(error, TrabeculaError) else text}


def main() -> None:
    # The study asks by SIGINT; a SIGTERM to all processes of a job reaches it too, and once is enough.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    follow(int(sys.argv[1]))
    jobs = os.fdopen(os.dup(0), "r", encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a verb prints goes to the worker's log

    def reply(what: dict[str, Any]) -> None:
        replies.write(json.dumps(what) + "\n")
        replies.flush()

    Meter.listener = lambda left_s: reply({"kind": "time left", "seconds": left_s})
    try:
        for line in jobs:
            reply(run_job(json.loads(line)))
    except KeyboardInterrupt:  # the study was stopped; the cell has kept what it could
        sys.exit(130)


if __name__ == "__main__":
    main()
