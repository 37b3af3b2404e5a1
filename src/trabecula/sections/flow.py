"""The way from the manifest to the patients behind each number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trabecula.artifacts.manifest import read_manifest
from trabecula.files import read_json
from trabecula.sections.formats import Table
from trabecula.sections.provenance import rejected_reasons
from trabecula.sections.results import Results
from trabecula.sections.tables import fraction_table, subset_notes
from trabecula.sections.wording import share, span


@dataclass(frozen=True)
class Cohort:
    """What went in: the manifest, and what `prepare` made of it."""

    num_images: int
    num_patients: int
    num_stored: int | None
    num_rejected: int | None
    rejected: dict[str, int]  # reason -> files


@dataclass(frozen=True)
class Subset:
    """One label fraction: what was asked for, and the range really drawn over seeds."""

    requested: str
    train: str
    val: str
    num_seeds: int


@dataclass(frozen=True)
class TaskFlow:
    """One task: who was excluded, where the others went, and the few-label subsets."""

    name: str
    kind: str
    exclusions: dict[str, int]
    parts: dict[str, Mapping[str, Any]]
    classes: list[str]
    subsets: list[Subset]
    notes: list[str]  # on the subsets
    table: Table


def read_cohort(manifest: Path, store: Path | None) -> Cohort:
    """Count images and patients.

    Raises:
        InputError: the manifest or the store cannot be read.
    """
    table = read_manifest(manifest).table
    stored = read_json(store / "store.json", "`trabecula prepare`") if store else {}
    return Cohort(
        len(table),
        int(table["patient_id"].nunique()),
        stored.get("num_images"),
        stored.get("num_rejected"),
        rejected_reasons(store) if store else {},
    )


def task_flows(results: Results) -> list[TaskFlow]:
    return [_task_flow(results, name, record) for name, record in results.flow["tasks"].items()]


def _task_flow(results: Results, name: str, record: Mapping[str, Any]) -> TaskFlow:
    parts = {k: v for k in ("train", "val", "test") if (v := (record.get("parts") or {}).get(k))}
    parts |= {k: v for k, v in (record.get("parts") or {}).items() if k not in parts and v}
    drawn = [s for s in results.flow["subsets"] if s["task"] == name]
    subsets = [
        _subset(fraction, [s for s in drawn if s["fraction"] == fraction])
        for fraction in sorted({s["fraction"] for s in drawn})
    ]
    classes = list(dict.fromkeys(c for part in parts.values() for c in part.get("per_class") or {}))
    exclusions = record.get("exclusions") or {}
    return TaskFlow(
        name, record.get("kind", ""), exclusions, parts, classes, subsets, subset_notes(results, name),
        fraction_table(results, name),
    )  # fmt: skip


def _subset(fraction: float, rows: Sequence[Mapping[str, Any]]) -> Subset:
    def drawn(part: str) -> str:
        patients, images = (span([r[f"num_{part}_{unit}"] for r in rows]) for unit in ("patients", "images"))
        return f"{patients} patients, {images} images"

    return Subset(share(fraction), drawn("train"), drawn("val"), len({r["seed"] for r in rows}))
