"""Run folders: every verb reads artifacts and writes one folder that can be redone or resumed.

What a folder holds beside its artifacts is in `artifacts/run_record.py`. The identity of a run is the digest
of its record; the identity of an input is that of the run folder it came from, or the sha256 of the file. A
run folder can move: paths are not part of its identity.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trabecula
from trabecula import kernels
from trabecula.artifacts import run_record
from trabecula.artifacts.run_record import RunRecord, read_run, run_id
from trabecula.config import Record, digest, dump, inputs, suggest, without_effect
from trabecula.errors import InputError, disk_full
from trabecula.files import locked, make_folder, sha256_of, sweep, write_atomically, write_json
from trabecula.packages import installed
from trabecula.verbs import VERBS

_RECORDS = {run_record.CONFIG_FILE, run_record.PROVENANCE_FILE, run_record.LOG_FILE, ".lock"}
_OF_NO_RUN = _RECORDS - {run_record.CONFIG_FILE} | {run_record.DONE_FILE}  # may lie where no run began


class Run:
    """One open run folder; made by `execute`, handed to a verb's `run(config, out)`."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def log(self, event: str, **values: Any) -> None:
        """Append one line to the run's log."""
        run_record.log(self.path, event, **values)

    def write(self, name: str, content: str | bytes) -> Path:
        """Write an artifact so that it is there whole or not at all."""
        return write_atomically(self.path / name, content)

    def write_json(self, name: str, value: Any) -> Path:
        return write_json(self.path / name, value)

    def used(self, **values: str) -> None:
        """Add to the provenance what "auto" came to: the device, the precision."""
        run_record.add_provenance(self.path, **values)


def verb_module(verb: str) -> Any:
    """The module of a verb: a plain name is one of Trabecula's, a dotted one any importable module.

    A verb's module has a `Config` (a Record) and `run(config, out) -> summary`. For studies it may have:
    `label_seeds(config)`, (task, mode, fraction) -> how many label seeds its predictions have;
    `workload(config)`, quantity -> count, such as {"pretrainings": 1, "images seen": 200_000};
    `check(config, made)`, which raises InputError if the config does not suit the configs of the cells that
    are to make its inputs (input's name -> config);
    `arm(config)`, the arm that it makes, as {"name": ..., "architecture": ..., "family": ...}.
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


def execute(
    verb: str,
    config: Record,
    out: str | Path,
    threads: int = 1,
    wait: float = 0.0,
    other_threads: bool = False,
) -> str:
    """Do one verb into one folder, or resume it, or find it done; returns its one-line summary.

    other_threads: a run that was begun with another number of threads goes on with this one. It stays the run
    that it is, and provenance.json records both numbers.
    Another process that works in this folder is waited for, `wait` seconds. An InputError if the folder holds
    something else, another config or another's work; a RunError for a full disk or a diverged training.
    """
    module, out = verb_module(verb), Path(out)
    try:
        record = recorded(verb, config, threads)
        if other_threads:
            record = _as_begun(out, record)
        with _opened(out, record, wait) as done:
            if done is not None:
                return done
            run = Run(out, threads)
            if record.threads != threads:
                begun = f"this run was begun with {record.threads} threads and goes on with {threads}"
                print(f"note: {begun}: its last digits may differ", file=sys.stderr, flush=True)
            run_record.write_run(out, record, provenance(config) | {"threads": threads})
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(threads)
            try:
                summary: str = module.run(config, run)
            except Exception as error:
                with suppress(OSError):
                    run.log("failed", error=str(error), traceback=traceback.format_exc())
                raise
            run_record.finish(out, summary)
            return summary
    except OSError as error:
        if full := disk_full(error, out):
            raise full from None
        raise


def _as_begun(out: Path, record: RunRecord) -> RunRecord:
    """The record of the run in the folder if only its threads are other ones; else the one given."""
    begun = read_run(out) if run_record.is_started(out) else record
    same = record.model_copy(update={"threads": begun.threads})
    return record if begun.differences(same) else same


@contextmanager
def _opened(out: Path, record: RunRecord, wait: float) -> Iterator[str | None]:
    """Hold the folder's lock; gives the summary if the run is done already."""
    make_folder(out, _OF_NO_RUN if run_id(out) is None else None)
    with locked(out, wait):
        if run_record.is_started(out):
            differing = "; ".join(read_run(out).differences(record))
            files = (str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir())
            # A run that failed before it wrote anything leaves its folder to a corrected command.
            if differing and not _RECORDS.issuperset(files):
                tail = "choose another --out, or remove the folder"
                if _as_begun(out, record) != record:  # only the threads differ
                    tail += f", or go on with {record.threads} all the same by --other-threads"
                raise InputError(f"{out}: holds a run of another config ({differing}); {tail}")
        summary = run_record.summary_of(out)
        if summary is None:
            sweep(out.rglob(".*.partial"))
        yield summary


def identity(path: Path) -> str:
    """What an input is, whatever its path.

    A finished run folder: the run's id; what lies in one: the id and the path within. Any other
    file: the sha256 of its bytes. A model's folder: the digest of its files' names and contents. Any
    other folder: that of their names and sizes. An InputError if nothing is there or its run is not finished.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    place = path.resolve()
    for folder in (place, *place.parents):
        its = run_id(folder)
        if its is None:
            continue
        if run_record.is_done(folder):
            return "/".join((its, *place.relative_to(folder).parts))
        if place.is_dir():
            raise InputError(f"{folder}: this run is not finished; run its command again to go on")
        break
    if place.is_file():
        return sha256_of(place)
    model = run_record.is_started(place)  # weights of one network have one size, whatever they hold
    files = [p for p in place.rglob("*") if p.is_file() and not p.name.startswith(".")]
    listing = [[str(p.relative_to(place)), sha256_of(p) if model else p.stat().st_size] for p in files]
    return digest(sorted(listing))


def recorded(
    verb: str, config: Record, threads: int, identify: Callable[[Path], str] = identity
) -> RunRecord:
    """What decides a run's result: inputs by identity, not by path, and the settings that results depend on.

    `identify` gives an input's identity; a plan knows those of inputs yet to be made.
    """
    given = {key: [identify(path) for path in paths] for key, paths in inputs(config).items()}
    left_out = {*given, *without_effect(config)}
    settings = {key: value for key, value in dump(config).items() if key not in left_out}
    return RunRecord(verb=verb, settings=settings, inputs=given, threads=threads)


def provenance(config: Record) -> dict[str, Any]:
    """Code, versions and machine: recorded beside a run, no part of its identity."""
    readers = ("pillow", "tifffile", "imagecodecs")
    packages = ("torch", "torchvision", "timm", "numpy", "scipy", "pandas", "scikit-learn", *readers)
    return {
        "trabecula": trabecula.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "kernels": kernels.choice(),
        "packages": {name: installed(name) for name in packages},
        "inputs": {key: [str(path) for path in paths] for key, paths in inputs(config).items()},
    }
