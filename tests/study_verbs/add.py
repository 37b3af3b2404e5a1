"""Adds numbers slowly, one file a step, each file written whole."""

import os
import time
from pathlib import Path

from trabecula.config import Record
from trabecula.progress import Meter
from trabecula.run import Run


class Config(Record):
    start: Path | None = None
    """A number to start from."""
    numbers: tuple[Path, ...] = ()
    """Runs with a number.txt or sum.txt."""
    chosen: Path | None = None
    """A folder that it needs and does not read."""
    plus: int = 0
    """Added to the sum."""
    steps: int = 1
    """Files written on the way."""
    pause: float = 0.0
    """Seconds a step takes."""


def read(path: Path) -> int:
    found = [path / name for name in ("number.txt", "sum.txt") if (path / name).exists()]
    return int((found[0] if path.is_dir() else path).read_text())


def run(config: Config, out: Run) -> str:
    total = config.plus + sum(read(path) for path in config.numbers)
    total += read(config.start) if config.start else 0
    with Meter("adding", config.steps, "steps") as meter:
        for step in range(config.steps):
            name = f"step-{step}.bin"
            if not (out / name).exists():
                out.log("step", step=step)
                with (out / f".{name}.partial").open("wb") as file:
                    for byte in range(64):
                        file.write(bytes([(total * step + byte) % 256]))
                        time.sleep(config.pause / 64)
                os.replace(out / f".{name}.partial", out / name)
            meter.add(1)
    out.write("sum.txt", f"{total}\n")
    out.write("threads.txt", os.environ.get("OMP_NUM_THREADS", "") + "\n")
    return f"sum {total}"
