"""Faults put into the code on purpose: which of them does a test see?

    python bench/mutants.py [--sample 20 --seed 0] [--only objectives] [--workers 2]

`mutants.toml` lists them: a file, a text in it, what takes its place, and the tests that should fail. Each is
made in a copy of the source tree, never in the tree itself. A fault that all its tests pass survives: the
tests lack a case. One JSON line a mutant, then one with the counts; exit status 1 if one survived.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("mutants.toml")
SECONDS = 900  # a mutant that runs longer hangs, which a test's time limit would show


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file` of src/trabecula, `old`, which is in it once, becomes `new`."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The file's text with the fault.

        Raises:
            ValueError: the text to replace is not in the file exactly once.
        """
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file}: {self.old!r} is in it {text.count(self.old)} times, not once")
        return text.replace(self.old, self.new)


def read_mutants() -> list[Mutant]:
    """Those of the list."""
    values = tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]
    return [Mutant(v["file"], v["old"], v["new"], tuple(v["tests"])) for v in values]


def survives(mutant: Mutant) -> bool:
    """Whether every test passes although the fault is there."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        file = source / "trabecula" / mutant.file
        file.write_text(mutant.applied(file.read_text(encoding="utf-8")), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["--basetemp", str(Path(folder) / "tmp"), *mutant.tests]
        try:
            done = subprocess.run(
                command, cwd=ROOT, timeout=SECONDS, capture_output=True, text=True, check=False,
                env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
    if done.returncode not in (0, 1, 2):  # 1: a test failed; 2: not even imported
        raise RuntimeError(f"{mutant.file}: pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sample", type=int, default=0, help="so many of the list by chance; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of that choice")
    parser.add_argument("--only", default="", help="mutants whose file begins with this")
    parser.add_argument("--workers", type=int, default=1, help="mutants at a time")
    given = parser.parse_args(arguments)
    chosen = [mutant for mutant in read_mutants() if mutant.file.startswith(given.only)]
    if given.sample:
        chosen = random.Random(given.seed).sample(chosen, min(given.sample, len(chosen)))
    alive = 0
    with ThreadPoolExecutor(given.workers) as pool:
        for mutant, lives in zip(chosen, pool.map(survives, chosen), strict=True):
            alive += lives
            line = {"file": mutant.file, "old": mutant.old, "new": mutant.new, "survives": lives}
            print(json.dumps(line), flush=True)
    print(json.dumps({"mutants": len(chosen), "survived": alive}))
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main())
