"""Run folders: every verb reads artifacts and writes one folder that can be redone or resumed.

    config.json       verb, settings, identities of the inputs, threads: what decides the result
    provenance.json   code, versions, machine, where the inputs lay: what a stranger needs to know
    log.jsonl         one JSON object a line, as the work goes on
    DONE              the verb's one-line summary, written last

The identity of a run is the digest of its config.json; the identity of an input is that of the
run folder it came from, or the sha256 of the file. A run folder can move: paths are not part of
its identity.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import trabecula
from trabecula.config import Record, digest, dump, inputs
from trabecula.errors import InputError, RunError

_OWN_FILES = {"config.json", "provenance.json", "log.jsonl", "DONE", ".lock"}


class Run:
    """One open run folder; made by `execute`, handed to a verb's `run(config, out)`."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path = path
        self.threads = threads

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def log(self, event: str, **values: Any) -> None:
        """Append one line to log.jsonl."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **values}, default=float)
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write(self, name: str, content: str | bytes) -> Path:
        """Write an artifact so that it is there whole or not at all."""
        return write_atomically(self.path / name, content)

    def write_json(self, name: str, value: Any) -> Path:
        return self.write(name, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")

    def scratch(self, name: str) -> Path:
        """Where to write a large artifact before `Run.publish` puts it in place."""
        path = self.path / f".{name}.partial"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, name: str) -> Path:
        """Move what was written at `scratch(name)` to its own name."""
        os.replace(self.scratch(name), self.path / name)
        return self.path / name


def write_atomically(path: Path, content: str | bytes) -> Path:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    data = content.encode() if isinstance(content, str) else content
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path


def execute(verb: str, config: Record, out: Path, threads: int = 1) -> str:
    """Do one verb into one folder, or resume it, or find it done; returns its one-line summary.

    Raises:
        InputError: the folder holds something else, another config, or another process's work.
        RunError: the disk is full, or training diverged.
    """
    module = importlib.import_module(f"trabecula.{verb}")
    try:
        recorded = {
            "verb": verb,
            "settings": settings(config),
            "inputs": {key: [identity(p) for p in paths] for key, paths in inputs(config).items()},
            "threads": threads,
        }
        with _opened(out, recorded) as done:
            if done is not None:
                return done
            run = Run(out, threads)
            run.write_json("config.json", {**recorded, "id": digest(recorded)})
            run.write_json("provenance.json", provenance(config))
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(threads)
            summary: str = module.run(config, run)
            run.write("DONE", summary + "\n")
            return summary
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise RunError(
                f"{out}: the disk is full; free some space and run the same command again, "
                "what is done is kept"
            ) from None
        raise


@contextmanager
def _opened(out: Path, recorded: Mapping[str, Any]) -> Iterator[str | None]:
    """Hold the folder's lock; gives the summary if the run is done already."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out needs a folder")
    existing = out / "config.json"
    if not existing.exists():
        foreign = sorted({p.name for p in out.iterdir()} - _OWN_FILES) if out.is_dir() else []
        foreign = [name for name in foreign if not name.endswith(".partial")]
        if foreign:
            raise InputError(f"{out}: holds something else ({foreign[0]}); choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out}: another trabecula process is working here; wait for it") from None
        if existing.exists():
            old = json.loads(existing.read_text())
            differing = differences(old, recorded)
            if differing:
                raise InputError(
                    f"{out}: holds a run of another config ({'; '.join(differing)}); "
                    "choose another --out, or remove the folder"
                )
        done = out / "DONE"
        yield done.read_text().strip() if done.exists() else None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What sets two config.json apart, one phrase a key, at most five."""
    phrases = [
        f"{key} was {json.dumps(_of(old, key))}, now {json.dumps(_of(new, key))}"
        for key in ("verb", "threads")
        if _of(old, key) != _of(new, key)
    ]
    was, now = _leaves(old.get("settings", {})), _leaves(new.get("settings", {}))
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            phrases.append(f"{key} was {json.dumps(was.get(key))}, now {json.dumps(now.get(key))}")
    phrases += [
        f"input '{key}' has changed"
        for key in sorted(old.get("inputs", {}).keys() | new.get("inputs", {}).keys())
        if _of(old.get("inputs", {}), key) != _of(new.get("inputs", {}), key)
    ]
    return phrases[:5]


def _of(values: Mapping[str, Any], key: str) -> Any:
    return values.get(key)


def _leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        key: leaf
        for name, value in values.items()
        for key, leaf in _leaves(value, f"{prefix}.{name}" if prefix else name).items()
    }


def settings(config: Record) -> dict[str, Any]:
    """A verb's settings without its inputs: these are named by identity, not by path."""
    return {key: value for key, value in dump(config).items() if key not in inputs(config)}


def identity(path: Path) -> str:
    """What an input is, whatever its path.

    A run folder or an artifact in one: the run's id. A file: the sha256 of its bytes. A plain
    folder: the digest of its files' names and sizes.

    Raises:
        InputError: nothing is there.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    recorded = folder / "config.json"
    if recorded.exists():
        run_id = json.loads(recorded.read_text()).get("id")
        if run_id:
            return run_id if path.is_dir() else f"{run_id}/{path.name}"
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    listing = sorted(
        [str(p.relative_to(path)), p.stat().st_size]
        for p in path.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    )
    return digest(listing)


def provenance(config: Record) -> dict[str, Any]:
    """Code, versions and machine: recorded beside a run, no part of its identity."""
    packages = ("torch", "torchvision", "timm", "numpy", "scipy", "pandas", "scikit-learn", "pillow")
    return {
        "trabecula": trabecula.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in packages},
        "inputs": {key: [str(path) for path in paths] for key, paths in inputs(config).items()},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
