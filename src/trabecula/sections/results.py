"""What `evaluate` wrote, checked on reading, and the few look-ups that a report needs.

Nothing here computes a statistic: values are found, ordered and handed on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from trabecula.artifacts.predictions import corner_of, snapshot_of
from trabecula.errors import InputError

Row = Mapping[str, Any]
T = TypeVar("T")

FAMILIES = ("random", "imagenet", "weights", "pretrained")
PUBLISHED = ("timm:", "torchvision:")  # architectures for which ImageNet weights can exist
NUM_STYLES = 6  # colours for arms that are neither random nor ImageNet; page.css defines them

_AXES = ("task", "arm", "mode", "fraction")
_NEEDED: dict[str, dict[str, tuple[str, ...]]] = {
    "metrics.json": {
        "rows": (
            *_AXES, "architecture", "family", "seed", "pretrain_seed", "cohort", "stratum", "metric",
            "value", "low", "high", "sd_seeds", "num_seeds", "num_images", "num_patients", "num_events",
            "note",
        ),
    },
    "comparisons.json": {
        "pairs": (
            *_AXES, "metric", "baseline", "baseline_family", "same_architecture", "difference", "low",
            "high", "p", "p_holm", "num_patients", "num_seeds", "claim",
        ),
        "label_multipliers": (*_AXES, "metric", "baseline", "value", "low", "high", "censored", "note"),
        "not_run": ("family", "architecture", "reason"),
    },
    "curves.json": {
        "roc": (*_AXES, "class", "fpr", "tpr", "low", "high"),
        "reliability": (*_AXES, "bins"),
        "learning": ("task", "arm", "mode", "metric", "points"),
    },
    "flow.json": {
        "subsets": (
            "task", "fraction", "seed", "num_train_images", "num_train_patients", "num_val_images",
            "num_val_patients",
        ),
        "arms": ("arm", "architecture", "family", "objective", "images_seen", "num_patients_seen"),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One architecture with one initialisation, and the look it keeps through the whole report."""

    name: str
    architecture: str
    family: str
    objective: str
    images_seen: int | None
    num_patients_seen: int | None
    style: str  # CSS class: "arm-random", "arm-imagenet", "arm-0" ...
    pool_fraction: float = 1.0  # of the pool's patients that pretraining took
    pool_cohorts: tuple[str, ...] = ()  # that pretraining was kept to; none: all
    labels: str = ""  # that pretraining learned from; "": none


@dataclass(frozen=True)
class Panel:
    """One task in one mode: what is read and compared together."""

    task: str
    mode: str


@dataclass(frozen=True)
class Results:
    metrics: dict[str, Any]
    comparisons: dict[str, Any]
    curves: dict[str, Any]
    flow: dict[str, Any]
    shortcuts: tuple[str, ...] = ()  # tasks that ask for no diagnosis

    @property
    def rows(self) -> Sequence[Row]:
        rows: Sequence[Row] = self.metrics["rows"]
        return rows

    @property
    def pairs(self) -> Sequence[Row]:
        pairs: Sequence[Row] = self.comparisons["pairs"]
        return pairs

    @cached_property
    def summaries(self) -> list[Row]:
        """Rows over all seeds; where a value is given per pretraining seed too, only the one over all."""
        chosen: dict[tuple[Any, ...], Row] = {}
        for row in self.rows:
            if row["seed"] != "all":
                continue
            key = (*(row[k] for k in _AXES), row["cohort"], row["stratum"], row["metric"])
            if key not in chosen or row["pretrain_seed"] == "all":
                chosen[key] = row
        return list(chosen.values())

    @cached_property
    def _index(self) -> dict[tuple[Any, ...], Row]:
        return {
            (r["task"], r["mode"], r["metric"], r["arm"], r["fraction"]): r
            for r in self.summaries
            if r["cohort"] == "all" and r["stratum"] == "all"
        }

    def summary(self, panel: Panel, metric: str, arm: str, fraction: float) -> Row | None:
        """The row over all seeds, cohorts and strata."""
        return self._index.get((panel.task, panel.mode, metric, arm, fraction))

    @cached_property
    def panels(self) -> list[Panel]:
        """What is asked for its own sake, in the order of the results, then the shortcut probes."""
        found = _unique(Panel(r["task"], r["mode"]) for r in self.summaries)
        return sorted(found, key=self.is_shortcut)

    def is_shortcut(self, panel: Panel) -> bool:
        """Whether a high score is no merit: a task that is no diagnosis, or the corners of images alone."""
        return panel.task in self.shortcuts or corner_of(panel.mode) is not None

    @property
    def pools(self) -> Sequence[Row]:
        """Comparisons of smaller pretraining pools with the largest; an older `evaluate` made none."""
        pools: Sequence[Row] = self.comparisons.get("pools", [])
        return pools

    @property
    def level(self) -> str:
        """Of the intervals, in per cent: "95"."""
        return f"{self.metrics['level'] * 100:.4g}"

    @property
    def plateaus(self) -> Sequence[Row]:
        """How many fine-tunings never left chance, by task, arm, mode and fraction; older files lack it."""
        rows: Sequence[Row] = self.flow.get("plateaus", [])
        return rows

    def control(self, architecture: str) -> Arm | None:
        """The arm that the others of a network are held against: its first random one, if that was run."""
        random = [arm for arm in self.arms_of(architecture) if arm.family == "random"]
        return random[0] if random and not self.lost_control(architecture) else None

    def lost_control(self, architecture: str) -> str:
        """Why the control of a network was not run where other random arms of it were; else ""."""
        random = any((r["family"], r["architecture"]) == ("random", architecture) for r in self.rows)
        told = [row for row in self.comparisons["not_run"] if row["family"] == "random"]
        return next((r["reason"] for r in told if random and r["architecture"] == architecture), "")

    @cached_property
    def arms(self) -> list[Arm]:
        """Every arm, architectures in order of appearance, random first, then ImageNet, then the others.

        A snapshot is no arm here; of an arm that has snapshots and was not evaluated itself, the place is
        kept.
        """
        cards = sorted(self.flow["arms"], key=lambda r: snapshot_of(r["arm"]) is not None)
        told = {r["arm"]: r for r in map(_finished, reversed(cards))}
        seen = _unique([_finished(r)["arm"] for r in cards] + [r["arm"] for r in self.rows])
        rows = {r["arm"]: r for r in reversed(self.rows)}
        drafts = [{**rows.get(name, {}), **told.get(name, {})} for name in seen]
        order = _unique(d["architecture"] for d in drafts)
        drafts.sort(key=lambda d: (order.index(d["architecture"]), _rank(d["family"])))
        styles = _styles(drafts)
        return [
            Arm(
                d["arm"], d["architecture"], d["family"], d.get("objective") or "",
                d.get("images_seen"), d.get("num_patients_seen"), styles[d["arm"]],
                d.get("pool_fraction", 1.0), tuple(d.get("pool_cohorts") or ()),
                d.get("labels") or "",
            )
            for d in drafts
        ]  # fmt: skip

    @cached_property
    def by_name(self) -> dict[str, Arm]:
        return {arm.name: arm for arm in self.arms}

    @property
    def architectures(self) -> list[str]:
        return _unique(arm.architecture for arm in self.arms)

    def arms_of(self, architecture: str) -> list[Arm]:
        return [arm for arm in self.arms if arm.architecture == architecture]

    def fractions(self, panel: Panel) -> list[float]:
        return sorted({r["fraction"] for r in self.summaries if (r["task"], r["mode"]) == _key(panel)})

    def metric_names(self, panel: Panel) -> list[str]:
        """The panel's metrics, the headline first."""
        names = _unique(r["metric"] for r in self.summaries if (r["task"], r["mode"]) == _key(panel))
        first = self.headline(panel)
        return [first, *(n for n in names if n != first)]

    def headline(self, panel: Panel) -> str:
        """The metric that the verdict speaks of: the first one that `evaluate` compares arms by."""
        rows = [*self.pairs, *self.summaries]
        return str(next(row["metric"] for row in rows if (row["task"], row["mode"]) == _key(panel)))

    def comparisons_of(self, panel: Panel, metric: str) -> list[Row]:
        return [p for p in self.pairs if (p["task"], p["mode"], p["metric"]) == (*_key(panel), metric)]

    def with_control(self, pair: Row) -> bool:
        """Whether a comparison is with the control: the first random arm of the same network."""
        control = self.control(self.by_name[pair["arm"]].architecture)
        return control is not None and pair["baseline"] == control.name

    def multiplier(self, pair: Row) -> Row | None:
        keys = (*_AXES, "metric", "baseline")
        wanted = [pair[k] for k in keys]
        found = [m for m in self.comparisons["label_multipliers"] if [m[k] for k in keys] == wanted]
        return found[0] if found else None

    def missing_imagenet(self) -> dict[str, str]:
        """The reason for every architecture without an ImageNet arm, of those that can have one."""
        told = [r for r in self.comparisons["not_run"] if r["family"] == "imagenet"]
        reasons = {r["architecture"]: r["reason"] for r in told}
        have = {arm.architecture for arm in self.arms if arm.family == "imagenet"}
        wanted = [a for a in self.architectures if a.startswith(PUBLISHED) and a not in have]
        return {a: reasons.get(a) or "no such arm in this study" for a in wanted}


def read_results(folder: Path, shortcuts: Sequence[str] = ()) -> Results:
    """Read evaluate's folder.

    Args:
        shortcuts: tasks that ask for no diagnosis.
    Raises:
        InputError: a file is missing, is not JSON, or lacks a key.
    """
    found = {name: _read(folder / name, parts) for name, parts in _NEEDED.items()}
    for name in ("metrics.json", "comparisons.json", "curves.json"):
        for part in _NEEDED[name]:
            rows = found[name][part]
            found[name][part] = [row for row in rows if not snapshot_of(row.get("arm", ""))]
    metrics, comparisons, curves, flow = (found[name] for name in _NEEDED)
    return Results(metrics, comparisons, curves, flow, tuple(shortcuts))


def _finished(card: Row) -> Row:
    """Of a snapshot the arm it is of, as far as that is told; any other as it is."""
    snapshot = snapshot_of(card["arm"])
    return {**card, "arm": snapshot[0], "images_seen": None} if snapshot else card


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        InputError: no such file, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file; it is written by {made_by}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); write it again with {made_by}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no JSON object; write it again with {made_by}")
    return value


def _read(path: Path, parts: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    value = read_json(path, "`trabecula evaluate`")
    problem = ""
    for part, keys in parts.items():
        if not isinstance(value.get(part), list):
            problem = f"has no list '{part}'"
            break
        lacking = [(i, k) for i, row in enumerate(value[part]) for k in keys if k not in row]
        if lacking:
            problem = f"{part}[{lacking[0][0]}] has no '{lacking[0][1]}'"
            break
    if path.name == "flow.json" and not isinstance(value.get("tasks"), dict):
        problem = problem or "has no table 'tasks'"
    if path.name == "metrics.json" and not problem:
        problem = "" if value.get("rows") else "holds no row"
        lacks = [key for key in ("level", "alpha") if key not in value]
        problem = problem or (f"has no '{lacks[0]}'" if lacks else "")
    if problem:
        raise InputError(f"{path}: {problem}; write it again with `trabecula evaluate`")
    return value


def _rank(family: str) -> int:
    return FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)


def _styles(drafts: Sequence[Row]) -> dict[str, str]:
    """A look per kind of initialisation, the same in every architecture; a repeated kind gets its own."""
    styles, kinds, controlled = {}, list[tuple[str, str, int]](), set[str]()
    for d in drafts:
        first = d["architecture"] not in controlled
        if d["family"] == "imagenet" or (d["family"] == "random" and first):
            styles[d["arm"]] = f"arm-{d['family']}"
            controlled |= {d["architecture"]} if d["family"] == "random" else set()
            continue
        same = [
            o for o in drafts
            if (o["architecture"], o["family"], o.get("objective"))
            == (d["architecture"], d["family"], d.get("objective"))
        ]  # fmt: skip
        kind = (d["family"], d.get("objective") or "", same.index(d))
        if kind not in kinds:
            kinds.append(kind)
        styles[d["arm"]] = f"arm-{kinds.index(kind) % NUM_STYLES}"
    return styles


def _key(panel: Panel) -> tuple[str, str]:
    return panel.task, panel.mode


def _unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
