"""Threads that wait for each other because the machine has other work: measured, and said once."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field

import torch

_LOOK_S = 30.0  # of training, after which the load of the last minute and the first steps say enough
_FULL = 0.8  # of the processor time that the threads of a machine of one's own get


@dataclass
class Crowding:
    """Compares, once in a training on a CPU, the time that its threads got with the time that passed."""

    device: torch.device
    began: float = field(default_factory=time.monotonic)
    cpu_s: float = field(default_factory=time.process_time)
    looked: bool = False

    def look(self) -> None:
        """Print one line where several threads got too little of the processors."""
        passed_s = time.monotonic() - self.began
        if self.looked or passed_s < _LOOK_S:
            return
        self.looked = True
        used_s = time.process_time() - self.cpu_s
        if self.device.type == "cpu" and (text := note(torch.get_num_threads(), used_s / passed_s)):
            print(f"note: {text}", file=sys.stderr, flush=True)


def note(threads: int, used: float) -> str:
    """What to set where the machine is crowded, else ""; used: processors busy with this training.

    Threads of one step wait for the last of them. Where one must wait for a processor all do, and burn the
    time that they got: two threads on two cores with a load of 8 took 82 ms of processor time an image, one
    thread 12 ms.
    """
    cpus, load = _usable_cpus(), _load()
    if threads == 1 or load <= cpus or used >= _FULL * threads:
        return ""
    return (
        f"{threads} threads get the time of {used:.1f} here: the load is {load:.1f} on {cpus} processors. "
        "They wait for each other, and one may be several times faster: press Ctrl-C and give the same "
        "command with --workers 1 --other-threads"
    )


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load() -> float:
    """Processes that wanted to compute in the last minute, on average; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
