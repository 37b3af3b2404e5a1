"""Where the numbers come from: runs, versions and machines, without local paths or patients."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trabecula.artifacts.encoder import has_encoder, read_encoder_card
from trabecula.errors import InputError
from trabecula.sections.results import read_json
from trabecula.sections.wording import share

_ABSOLUTE = re.compile(r"(?<![\w.:~])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\",:;=]+)+[/\\]?")


@dataclass(frozen=True)
class Cell:
    """One run: what it is called, and its whole config.json as text."""

    verb: str
    id: str
    what: str
    config: str


@dataclass(frozen=True)
class Provenance:
    cells: list[Cell]
    environments: list[tuple[dict[str, str], int]]  # (software and machine, number of runs)


def read_runs(folders: Sequence[Path]) -> Provenance:
    """Every cell's config and machine, ordered by verb and what it did.

    Raises:
        InputError: a folder is no run folder.
    """
    cells: list[Cell] = []
    environments: dict[str, int] = {}
    configs = [_read_config(folder) for folder in folders]
    arms: dict[str, str] = {}  # run id -> arm; inputs name runs by their ids
    for folder, config in zip(folders, configs, strict=True):
        arms[str(config.get("id"))] = _own_arm(folder, config)
    for folder, config in zip(folders, configs, strict=True):
        machine = read_json(folder / "provenance.json", "every trabecula run; give run folders")
        text = json.dumps(_without_paths(config), indent=2, sort_keys=True, ensure_ascii=False)
        what = without_paths(_what(config, arms))
        cells.append(Cell(config["verb"], str(config.get("id", ""))[:12], what, text))
        key = json.dumps(_environment(machine), sort_keys=True)
        environments[key] = environments.get(key, 0) + 1
    cells.sort(key=lambda c: (c.verb, c.what, c.id, c.config))
    return Provenance(cells, [(json.loads(key), n) for key, n in sorted(environments.items())])


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json", "every trabecula run; give run folders")
    if "verb" not in config:
        raise InputError(f"{folder / 'config.json'}: has no 'verb'; give run folders")
    return config


def _own_arm(folder: Path, config: dict[str, Any]) -> str:
    """The arm a run names itself: its encoder's, its choices', or what its settings say."""
    if has_encoder(folder):
        return read_encoder_card(folder).name
    if (folder / "choices.csv").exists():
        with (folder / "choices.csv").open(encoding="utf-8", newline="") as file:
            return next((row.get("arm") or "" for row in csv.DictReader(file)), "")
    settings = config.get("settings") or {}
    if settings.get("arm"):
        return str(settings["arm"])
    parts = [settings.get("architecture"), settings.get("objective")]
    return " ".join(str(part) for part in parts if part not in (None, "", "none"))


def _what(config: dict[str, Any], arms: dict[str, str]) -> str:
    """ "arm critic-random, task kl2, 10 % of labels, seed 0"; an embed run has its encoder's arm."""
    settings, inputs = config.get("settings") or {}, config.get("inputs") or {}
    arm = arms[str(config.get("id"))]
    if config["verb"] == "embed":
        arm = next((arms[i] for i in inputs.get("encoder") or () if i in arms), arm)
    words = [f"arm {arm}"] if arm else []
    if settings.get("task"):
        words.append(f"task {settings['task']}")
    fractions = settings.get("fractions") or [settings.get("fraction")]
    shares = " and ".join(share(f) for f in fractions if isinstance(f, int | float))
    words += [f"{shares} of labels"] if shares else []
    if isinstance(settings.get("seed"), int):
        words.append(f"seed {settings['seed']}")
    return ", ".join(words)


def _environment(machine: dict[str, Any]) -> dict[str, str]:
    packages = machine.get("packages") or {}
    shown = {k: machine.get(k) for k in ("trabecula", "python", "platform", "cpus", "device")}
    return {k: str(v) for k, v in {**shown, **packages}.items() if v is not None}


def without_paths(text: str) -> str:
    """An absolute path keeps its last part only: the rest names people and machines, not the work."""
    return _ABSOLUTE.sub(lambda m: "…/" + re.split(r"[/\\]", m[0].rstrip("/\\"))[-1], text)


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_without_paths(v) for v in value]
    return without_paths(value) if isinstance(value, str) else value


def rejected_reasons(store: Path) -> dict[str, int]:
    """How many files `prepare` rejected for which reason; names of files and their numbers left out.

    Raises:
        InputError: rejected.csv has no column 'reason'.
    """
    path = store / "rejected.csv"
    if not path.exists():
        return {}
    reasons: dict[str, int] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"path", "reason"} <= set(reader.fieldnames or ()):
            raise InputError(f"{path}: needs the columns path, reason; run `trabecula prepare` again")
        for row in reader:
            reason = _impersonal(row["reason"] or "", row["path"] or "")
            reasons[reason] = reasons.get(reason, 0) + 1
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _impersonal(reason: str, path: str) -> str:
    for name in sorted({path, Path(path).name, Path(path).stem} - {""}, key=len, reverse=True):
        reason = reason.replace(name, "the file")
    return re.sub(r"\d+(?:\.\d+)?", "…", without_paths(reason)).strip() or "no reason given"
