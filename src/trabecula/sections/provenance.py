"""Where the numbers come from: patients, runs, versions and machines, without local paths or patient ids."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trabecula.artifacts.encoder import has_encoder, read_encoder_card
from trabecula.artifacts.label_budget import fewest_first, is_shots, labels_used, of_shots
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.predictions import choice_rows
from trabecula.artifacts.results import LabelSubset, TaskFlow
from trabecula.artifacts.run_record import RunRecord, read_provenance, read_run, run_id
from trabecula.artifacts.store import read_rejected, read_store_record
from trabecula.config import dump
from trabecula.sections.numbers import count, share, span
from trabecula.sections.results import Results
from trabecula.sections.section import Block, Section
from trabecula.sections.tables import fraction_table, subset_notes

_CHOSEN = ("device", "kernels", "threads")
"""What a run's own provenance.json records: TRABECULA_KERNELS is shown where it is not "on", threads where
they changed."""
_ABSOLUTE = re.compile(r"(?<![\w.:~])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\",:;=]+)+[/\\]?")


class RunEntry(NamedTuple):
    """One run: its verb, its id, what it did, and its whole config.json as text."""

    verb: str
    id: str
    what: str
    config: str


def provenance_section(
    results: Results, runs: Sequence[Path], inputs: dict[str, str], command: str
) -> Section:
    """`inputs`: identities of the report's inputs, by name; `command`: that made the study."""
    seeds = {}
    for name, key in (("Label seeds", "seed"), ("Pretraining seeds", "pretrain_seed")):
        known = sorted({row[key] for row in results.metrics.rows if isinstance(row[key], int)})
        seeds[name] = ", ".join(map(str, known)) or "–"
    content = {
        "command": without_paths(command), "seeds": seeds, "inputs": inputs, "arms": results.arms,
        "level": results.level, "resamples": count(results.metrics.num_resamples), **read_runs(runs),
    }  # fmt: skip
    return Section("provenance", "Provenance", "Provenance", [Block("provenance", content)])


def read_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """`runs`, ordered by verb and what they did; `environments`: software and machine, number of runs."""
    records = [read_run(folder) for folder in folders]
    ids = [run_id(folder) or "" for folder in folders]
    pairs = zip(folders, records, strict=True)
    arms = dict(zip(ids, (_own_arm(*pair) for pair in pairs), strict=True))  # inputs name runs by their ids
    runs = []
    for id_, record in zip(ids, records, strict=True):
        config = _without_paths({**dump(record), "id": id_ or None})
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
        runs.append(RunEntry(record.verb, id_[:12], without_paths(_what(record, arms[id_], arms)), text))
    runs.sort(key=lambda run: (run.verb, run.what, run.id, run.config))
    return {"runs": runs, "environments": _environments([read_provenance(folder) for folder in folders])}


def _environments(machines: Sequence[dict[str, Any]]) -> list[tuple[dict[str, str], int]]:
    """Software and machine, and the number of its runs; what single runs chose is counted within it."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for machine in machines:
        groups.setdefault(json.dumps(_environment(machine), sort_keys=True), []).append(machine)
    found = []
    for text, own in sorted(groups.items()):
        chosen = {}
        for key in _CHOSEN:
            counts = Counter(str(machine[key]) for machine in own if machine.get(key) is not None)
            shown = [f"{value} ({num} of {len(own)} runs)" for value, num in sorted(counts.items())]
            unchanged = {one for one in counts if "then" not in one}
            usual = {"kernels": {"on"}, "threads": unchanged}.get(key, set())
            if set(counts) - usual:
                chosen[key] = ", ".join(shown if len(counts) > 1 else counts)
        found.append(({**json.loads(text), **chosen}, len(own)))
    return found


def _own_arm(folder: Path, record: RunRecord) -> str:
    """The arm a run names itself: its encoder's, its choices', or what its settings say."""
    if has_encoder(folder):
        return read_encoder_card(folder).name
    for row in choice_rows(folder):
        return row.get("arm") or ""
    settings = record.settings
    if settings.get("arm"):
        return str(settings["arm"])
    parts = [settings.get("architecture"), settings.get("objective")]
    return " ".join(str(part) for part in parts if part not in (None, "", "none"))


def _what(record: RunRecord, own: str, arms: Mapping[str, str]) -> str:
    """ "arm critic-random, task kl2, 10 % of labels, seed 0"; an embed run has its encoder's arm."""
    settings, arm = record.settings, own
    if record.verb == "embed":
        arm = next((arms[i] for i in record.inputs.get("encoder") or () if i in arms), own)
    words = [f"arm {arm}"] if arm else []
    if settings.get("task"):
        words.append(f"task {settings['task']}")
    shots = settings.get("shots") or ()
    budgets = [of_shots(k) for k in (shots if isinstance(shots, list | tuple) else [shots])]
    words += [" and ".join(map(labels_used, budgets))] if budgets else []
    fractions = settings.get("fractions", [None if shots else settings.get("fraction")])
    shares = " and ".join(share(f) for f in fractions if isinstance(f, int | float))
    words += [f"{shares} of labels"] if shares else []
    if isinstance(settings.get("seed"), int):
        words.append(f"seed {settings['seed']}")
    return ", ".join(words)


def _environment(machine: dict[str, Any]) -> dict[str, str]:
    packages = machine.get("packages") or {}
    shown = {k: machine.get(k) for k in ("trabecula", "python", "platform", "cpus")}
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
    """How many files `prepare` rejected for which reason; names of files and their numbers left out."""
    reasons = Counter(_impersonal(text, path) for path, text in read_rejected(store))
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _impersonal(reason: str, path: str) -> str:
    for name in sorted({path, Path(path).name, Path(path).stem} - {""}, key=len, reverse=True):
        reason = reason.replace(name, "the file")
    return re.sub(r"\d+(?:\.\d+)?", "…", without_paths(reason)).strip() or "no reason given"


def flow_section(results: Results, manifest: Path, store: Path | None) -> Section:
    """From the manifest to the few-label subsets."""
    flows = [_task_flow(results, name, record) for name, record in results.flow.tasks.items()]
    content = {"cohort": _cohort(manifest, store), "flows": flows}
    tables = [flow["table"] for flow in flows if flow["table"].rows]
    files = {"fractions": (tables, results.flow.subsets)}
    return Section("flow", "Cohort", "Cohort flow", [Block("flow", content)], files)


def _cohort(manifest: Path, store: Path | None) -> dict[str, Any]:
    """Images and patients of the manifest, and what `prepare` stored and rejected, by reason."""
    table = read_manifest(manifest).table
    stored = read_store_record(store) if store else None
    return {
        "num_images": len(table), "num_patients": int(table["patient_id"].nunique()),
        "num_stored": stored.num_images if stored else None,
        "num_rejected": stored.num_rejected if stored else None,
        "rejected": rejected_reasons(store) if store else {},
    }  # fmt: skip


def _task_flow(results: Results, name: str, task: TaskFlow) -> dict[str, Any]:
    """One task: who was excluded, where the others went, and the few-label subsets."""
    known = {part: values for part, values in task.parts.items() if values}
    parts = {part: known[part] for part in dict.fromkeys(("train", "val", "test", *known)) if part in known}
    drawn = [s for s in results.flow.subsets if s.task == name]
    subsets = []
    for fraction in sorted({s.fraction for s in drawn}, key=fewest_first):
        rows = [s for s in drawn if s.fraction == fraction]
        seeds = len({s.seed for s in rows})
        train, val = _drawn(rows, "train"), _drawn(rows, "val")
        joined = ", from" if is_shots(fraction) else " of"
        subsets.append(
            {"requested": share(fraction), "joined": joined, "train": train, "val": val, "num_seeds": seeds}
        )
    classes = list(dict.fromkeys(c for part in parts.values() for c in part.get("per_class") or {}))
    return {
        "name": name, "kind": task.kind, "exclusions": task.exclusions, "parts": parts, "classes": classes,
        "subsets": subsets, "notes": subset_notes(results, name), "table": fraction_table(results, name),
    }  # fmt: skip


def _drawn(rows: Sequence[LabelSubset], part: str) -> str:
    patients, images = (span([row[f"num_{part}_{unit}"] for row in rows]) for unit in ("patients", "images"))
    return f"{patients} patients, {images} images"
