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

import importlib
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import trabecula
from trabecula.config import Record, digest, dump, inputs, suggest, without_effect
from trabecula.errors import InputError, disk_full, is_disk_full
from trabecula.files import locked, make_folder, sha256_of, sweep, write_atomically
from trabecula.verbs import VERBS

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

    def used(self, **values: str) -> None:
        """Add to provenance.json what "auto" came to: the device, the precision."""
        file = self.path / "provenance.json"
        self.write_json("provenance.json", {**json.loads(file.read_text()), **values})

    def scratch(self, name: str) -> Path:
        """Where to write a large artifact before `Run.publish` puts it in place."""
        path = self.path / f".{name}.partial"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, name: str) -> Path:
        """Move what was written at `scratch(name)` to its own name."""
        os.replace(self.scratch(name), self.path / name)
        return self.path / name


def verb_module(verb: str) -> Any:
    """The module of a verb: a plain name is one of Trabecula's, a dotted one any importable module.

    A verb's module has a `Config` (a Record) and `run(config, out) -> summary`. For studies it may have:
    `workload(config)`, quantity -> count, such as {"pretrainings": 1, "images seen": 200_000};
    `check(config, made)`, which raises InputError if the config does not suit the configs of the cells that
    are to make its inputs (input's name -> config);
    `arm(config)`, the arm that it makes, as {"name": ..., "architecture": ..., "family": ...}.

    Raises:
        InputError: there is no such verb.
    """
    name = verb if "." in verb else f"trabecula.{verb}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise InputError(f"unknown verb '{verb}'{suggest(verb, tuple(VERBS))}") from None
    if not (hasattr(module, "Config") and hasattr(module, "run")):
        raise InputError(f"'{verb}' is not a verb: its module needs a Config and a run(config, out)")
    return module


def recorded(
    verb: str, config: Record, threads: int, identify: Callable[[Path], str] | None = None
) -> dict[str, Any]:
    """What decides a run's result; its digest is the run's id.

    Args:
        identify: gives the identity of an input; a plan knows those of inputs yet to be made.
    """
    known = identify or identity
    return {
        "verb": verb,
        "settings": settings(config),
        "inputs": {key: [known(path) for path in paths] for key, paths in inputs(config).items()},
        "threads": threads,
    }


def execute(verb: str, config: Record, out: Path, threads: int = 1, wait: float = 0.0) -> str:
    """Do one verb into one folder, or resume it, or find it done; returns its one-line summary.

    Args:
        wait: seconds to wait for another process that works in this folder.

    Raises:
        InputError: the folder holds something else, another config, or another process's work.
        RunError: the disk is full, or training diverged.
    """
    module = verb_module(verb)
    try:
        record = recorded(verb, config, threads)
        with _opened(out, record, wait) as done:
            if done is not None:
                return done
            run = Run(out, threads)
            run.write_json("config.json", {**record, "id": digest(record)})
            run.write_json("provenance.json", provenance(config))
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(threads)
            try:
                summary: str = module.run(config, run)
            except Exception as error:
                with suppress(OSError):
                    run.log("failed", error=str(error), traceback=traceback.format_exc())
                raise
            run.write("DONE", summary + "\n")
            return summary
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(out) from None
        raise


@contextmanager
def _opened(out: Path, record: Mapping[str, Any], wait: float) -> Iterator[str | None]:
    """Hold the folder's lock; gives the summary if the run is done already."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out needs a folder")
    existing = out / "config.json"
    if _run_id(out) is None:
        foreign = _artifacts(out) + (["config.json"] if existing.exists() else []) if out.is_dir() else []
        if foreign:
            raise InputError(f"{out}: holds something else ({foreign[0]}); choose another --out")
    make_folder(out)
    with locked(out, wait):
        if existing.exists():
            differing = differences(json.loads(existing.read_text()), record)
            if differing and not _barren(out):
                raise InputError(
                    f"{out}: holds a run of another config ({'; '.join(differing)}); "
                    "choose another --out, or remove the folder"
                )
        done = out / "DONE"
        if not done.exists():
            sweep(out.rglob(".*.partial"))
        yield done.read_text().strip() if done.exists() else None


def _artifacts(folder: Path) -> list[str]:
    """Names in a folder that are not a run's own records."""
    names = {path.name for path in folder.iterdir()} - _OWN_FILES
    return sorted(name for name in names if not name.endswith(".partial"))


def _barren(folder: Path) -> bool:
    """Whether a run failed before it wrote anything: a corrected command may use its folder."""
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return all(str(path.relative_to(folder)) in _OWN_FILES - {"DONE"} for path in files)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What sets two config.json apart, one phrase a key, at most five; of two verbs only that."""
    phrases = [
        f"{key} was {json.dumps(_of(old, key))}, now {json.dumps(_of(new, key))}"
        for key in ("verb", "threads")
        if _of(old, key) != _of(new, key)
    ]
    if _of(old, "verb") != _of(new, "verb"):
        return phrases[:1]
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
    """A verb's settings that decide its result: inputs are named by identity, not by path."""
    left_out = {*inputs(config), *without_effect(config)}
    return {key: value for key, value in dump(config).items() if key not in left_out}


def identity(path: Path) -> str:
    """What an input is, whatever its path.

    A finished run folder: the run's id; what lies in one: the id and the path within. Any other
    file: the sha256 of its bytes. A model's folder: the digest of its files' names and contents. Any
    other folder: that of their names and sizes.

    Raises:
        InputError: nothing is there, or the run in that folder is not finished.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    place = path.resolve()
    for folder in (place, *place.parents):
        run_id = _run_id(folder)
        if run_id is None:
            continue
        if (folder / "DONE").exists():
            return "/".join((run_id, *place.relative_to(folder).parts))
        if place.is_dir():
            raise InputError(f"{folder}: this run is not finished; run its command again to go on")
        break
    if place.is_file():
        return sha256_of(place)
    model = (place / "config.json").is_file()  # weights of one network have one size, whatever they hold
    listing = sorted(
        [str(p.relative_to(place)), sha256_of(p) if model else p.stat().st_size]
        for p in place.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    )
    return digest(listing)


def _run_id(folder: Path) -> str | None:
    """The id in a run folder's config.json; other software's config.json files have no verb."""
    try:
        values = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(values, dict) or "verb" not in values:
        return None
    return values.get("id")


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
