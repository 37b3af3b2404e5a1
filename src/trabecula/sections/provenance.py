"""Where the numbers come from: patients, runs, versions and machines, without local paths or patient ids."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trabecula.artifacts.encoder import has_encoder, read_encoder_card
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.predictions import choice_rows
from trabecula.artifacts.run_record import read_provenance, read_run, run_id
from trabecula.artifacts.store import read_rejected, read_store_record
from trabecula.config import dump
from trabecula.sections.formats import Table
from trabecula.sections.results import Results
from trabecula.sections.section import Block, Section
from trabecula.sections.tables import fraction_table, subset_notes
from trabecula.sections.wording import count, share, span

_ABSOLUTE = re.compile(r"(?<![\w.:~])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\",:;=]+)+[/\\]?")


@dataclass(frozen=True)
class RunEntry:
    """One run: what it is called, and its whole config.json as text."""

    verb: str
    id: str
    what: str
    config: str


@dataclass(frozen=True)
class Provenance:
    runs: list[RunEntry]
    environments: list[tuple[dict[str, str], int]]  # (software and machine, number of runs)


def provenance_section(
    results: Results, runs: Sequence[Path], inputs: Mapping[str, str], command: str
) -> Section:
    """
    Args:
        runs: run folders. inputs: identities of the report's inputs, by name.
        command: that made the study; absolute paths in it are shortened.
    """
    seeds = {
        name: ", ".join(str(s) for s in sorted({r[key] for r in results.rows if isinstance(r[key], int)}))
        or "–"
        for name, key in (("Label seeds", "seed"), ("Pretraining seeds", "pretrain_seed"))
    }
    content = {
        "command": without_paths(command), "seeds": seeds, "inputs": inputs, "arms": results.arms,
        "level": results.level, "resamples": count(results.metrics.num_resamples),
        "runs": read_runs(runs),
    }  # fmt: skip
    return Section("provenance", "Provenance", "Provenance", [Block("provenance", content)])


def read_runs(folders: Sequence[Path]) -> Provenance:
    """Every run's config and machine, ordered by verb and what it did.

    Raises:
        InputError: a folder is no run folder.
    """
    runs: list[RunEntry] = []
    environments: dict[str, int] = {}
    configs = [{**dump(read_run(folder)), "id": run_id(folder)} for folder in folders]
    arms: dict[str, str] = {}  # run id -> arm; inputs name runs by their ids
    for folder, config in zip(folders, configs, strict=True):
        arms[str(config.get("id"))] = _own_arm(folder, config)
    for folder, config in zip(folders, configs, strict=True):
        machine = read_provenance(folder)
        text = json.dumps(_without_paths(config), indent=2, sort_keys=True, ensure_ascii=False)
        what = without_paths(_what(config, arms))
        runs.append(RunEntry(config["verb"], str(config.get("id", ""))[:12], what, text))
        key = json.dumps(_environment(machine), sort_keys=True)
        environments[key] = environments.get(key, 0) + 1
    runs.sort(key=lambda c: (c.verb, c.what, c.id, c.config))
    return Provenance(runs, [(json.loads(key), n) for key, n in sorted(environments.items())])


def _own_arm(folder: Path, config: dict[str, Any]) -> str:
    """The arm a run names itself: its encoder's, its choices', or what its settings say."""
    if has_encoder(folder):
        return read_encoder_card(folder).name
    for row in choice_rows(folder):
        return row.get("arm") or ""
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
    reasons: dict[str, int] = {}
    for path, text in read_rejected(store):
        reason = _impersonal(text, path)
        reasons[reason] = reasons.get(reason, 0) + 1
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _impersonal(reason: str, path: str) -> str:
    for name in sorted({path, Path(path).name, Path(path).stem} - {""}, key=len, reverse=True):
        reason = reason.replace(name, "the file")
    return re.sub(r"\d+(?:\.\d+)?", "…", without_paths(reason)).strip() or "no reason given"


@dataclass(frozen=True)
class CohortCounts:
    """What went in: the manifest, and what `prepare` made of it."""

    num_images: int
    num_patients: int
    num_stored: int | None
    num_rejected: int | None
    rejected: dict[str, int]  # reason -> files


@dataclass(frozen=True)
class DrawnLabels:
    """One label fraction: what was asked for, and the range really drawn over seeds."""

    requested: str
    train: str
    val: str
    num_seeds: int


@dataclass(frozen=True)
class TaskCounts:
    """One task: who was excluded, where the others went, and the few-label subsets."""

    name: str
    kind: str
    exclusions: dict[str, int]
    parts: dict[str, Mapping[str, Any]]
    classes: list[str]
    subsets: list[DrawnLabels]
    notes: list[str]  # on the subsets
    table: Table


def flow_section(results: Results, manifest: Path, store: Path | None) -> Section:
    """From the manifest to the few-label subsets."""
    flows = task_flows(results)
    content = {"cohort": read_cohort(manifest, store), "flows": flows}
    tables = [flow.table for flow in flows if flow.table.rows]
    files = {"fractions": (tables, results.flow.subsets)}
    return Section("flow", "Cohort", "Cohort flow", [Block("flow", content)], files)


def read_cohort(manifest: Path, store: Path | None) -> CohortCounts:
    """Count images and patients.

    Raises:
        InputError: the manifest or the store cannot be read.
    """
    table = read_manifest(manifest).table
    stored = read_store_record(store) if store else None
    return CohortCounts(
        len(table),
        int(table["patient_id"].nunique()),
        stored.num_images if stored else None,
        stored.num_rejected if stored else None,
        rejected_reasons(store) if store else {},
    )


def task_flows(results: Results) -> list[TaskCounts]:
    return [_task_flow(results, name, record) for name, record in results.flow.tasks.items()]


def _task_flow(results: Results, name: str, record: Mapping[str, Any]) -> TaskCounts:
    parts = {k: v for k in ("train", "val", "test") if (v := (record.get("parts") or {}).get(k))}
    parts |= {k: v for k, v in (record.get("parts") or {}).items() if k not in parts and v}
    drawn = [s for s in results.flow.subsets if s["task"] == name]
    subsets = [
        _subset(fraction, [s for s in drawn if s["fraction"] == fraction])
        for fraction in sorted({s["fraction"] for s in drawn})
    ]
    classes = list(dict.fromkeys(c for part in parts.values() for c in part.get("per_class") or {}))
    exclusions = record.get("exclusions") or {}
    return TaskCounts(
        name, record.get("kind", ""), exclusions, parts, classes, subsets, subset_notes(results, name),
        fraction_table(results, name),
    )  # fmt: skip


def _subset(fraction: float, rows: Sequence[Mapping[str, Any]]) -> DrawnLabels:
    def drawn(part: str) -> str:
        patients, images = (span([r[f"num_{part}_{unit}"] for r in rows]) for unit in ("patients", "images"))
        return f"{patients} patients, {images} images"

    return DrawnLabels(share(fraction), drawn("train"), drawn("val"), len({r["seed"] for r in rows}))
