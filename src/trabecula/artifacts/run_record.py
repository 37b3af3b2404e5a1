"""What every run folder holds beside its artifacts; written by `run.execute`, read by everything else.

config.json       verb, settings, identities of the inputs, threads: what decides the result
provenance.json   code, versions, machine, paths of the inputs: what a stranger needs to know
log.jsonl         one JSON object a line, as the work goes on
DONE              the verb's one-line summary, written last
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trabecula.config import Record, build, digest, dump
from trabecula.errors import InputError
from trabecula.files import read_json, write_atomically, write_json

CONFIG_FILE, PROVENANCE_FILE, LOG_FILE, DONE_FILE = "config.json", "provenance.json", "log.jsonl", "DONE"
_MAY_CHANGE = ("device", "kernels", "threads")  # while a run is stopped
_WRITER = "the run's own command"


class RunRecord(Record):
    """config.json: what decides the result of a run; its digest is the run's id."""

    verb: str  # the verb that ran
    settings: dict[str, Any] = {}  # the verb's, without its inputs and those on which no result depends
    inputs: dict[str, list[str]] = {}  # identities of the inputs, by setting
    threads: int = 1  # threads that computed it

    @property
    def id(self) -> str:
        """sha256 of the record."""
        return digest(dump(self))

    def differences(self, new: RunRecord) -> list[str]:
        """What distinguishes a newer record, one phrase a key, at most five; of two verbs only that."""
        if self.verb != new.verb:
            return [_changed("verb", self.verb, new.verb)]
        phrases = [_changed("threads", self.threads, new.threads)] if self.threads != new.threads else []
        old_values, new_values = _leaves(self.settings), _leaves(new.settings)
        phrases += [
            _changed(key, old_values.get(key), new_values.get(key))
            for key in _differing(old_values, new_values)
        ]
        phrases += [f"input '{key}' has changed" for key in _differing(self.inputs, new.inputs)]
        return phrases[:5]


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]


def _changed(key: str, old: Any, new: Any) -> str:
    return f"{key} was {json.dumps(old)}, now {json.dumps(new)}"


def _leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        key: leaf
        for name, value in values.items()
        for key, leaf in _leaves(value, f"{prefix}.{name}" if prefix else name).items()
    }


def write_run(folder: Path, record: RunRecord, provenance: dict[str, Any]) -> None:
    """Write config.json, with the id, and provenance.json; of a run that goes on, what it used before too."""
    before = read_provenance(folder) if run_id(folder) == record.id else {}
    used = {key: _then(before.get(key), provenance.get(key)) for key in _MAY_CHANGE}
    write_json(folder / CONFIG_FILE, {**dump(record), "id": record.id})
    write_json(folder / PROVENANCE_FILE, provenance | {key: value for key, value in used.items() if value})


def _then(before: Any, now: Any) -> Any:
    """ "2, then 1": what a run used in turn, of which its last bits may tell."""
    if before is None or now is None:
        return now if before is None else before
    return before if str(before).split(", then ")[-1] == str(now) else f"{before}, then {now}"


def read_run(folder: Path) -> RunRecord:
    """The record of a run folder; no run folder, or a config.json of other software, is refused."""
    if not (folder / CONFIG_FILE).exists():
        raise InputError(f"{folder}: is not a run folder; it has no {CONFIG_FILE}")
    values = read_json(folder / CONFIG_FILE, _WRITER)
    if "verb" not in values:
        raise InputError(f"{folder / CONFIG_FILE}: has no 'verb'; give a run folder")
    values.pop("id", None)
    return build(RunRecord, values, str(folder / CONFIG_FILE))


def run_id(folder: Path) -> str | None:
    """The id that a run folder records, also one of an older version; None for any other folder."""
    try:
        values = read_json(folder / CONFIG_FILE, _WRITER)
    except (InputError, OSError):
        return None
    return values.get("id") if "verb" in values else None


def is_started(folder: Path) -> bool:
    """Whether a run has begun in the folder, finished or not."""
    return (folder / CONFIG_FILE).exists()


def is_done(folder: Path) -> bool:
    """Whether the run in the folder is finished."""
    return (folder / DONE_FILE).exists()


def summary_of(folder: Path) -> str | None:
    """The one-line summary of a finished run; None of any other."""
    return (folder / DONE_FILE).read_text(encoding="utf-8").strip() if is_done(folder) else None


def finish(folder: Path, summary: str) -> None:
    """Write the summary, by which the run is finished."""
    write_atomically(folder / DONE_FILE, summary + "\n")


def read_provenance(folder: Path) -> dict[str, Any]:
    """Code, versions, machine and paths of the inputs; {} where nothing is recorded."""
    file = folder / PROVENANCE_FILE
    return read_json(file, _WRITER) if file.exists() else {}


def add_provenance(folder: Path, **values: str) -> None:
    """Add what was found out while the run went on."""
    before = read_provenance(folder)
    used = {key: _then(before.get(key), value) for key, value in values.items() if key in _MAY_CHANGE}
    write_json(folder / PROVENANCE_FILE, before | values | used)


def log(folder: Path, event: str, **values: Any) -> None:
    """Append one line to the log."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **values}, default=float)
    with (folder / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The complete lines of the log; a killed run may leave half a line, which is skipped."""
    file = folder / LOG_FILE
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        lines += [line] if isinstance(line, dict) else []
    return lines
