"""What `evaluate` wrote, and the few look-ups that a report needs.

Nothing here computes a statistic: values are found, ordered and handed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from trabecula.artifacts import results as files
from trabecula.artifacts.label_budget import fewest_first
from trabecula.artifacts.predictions import corner_of, snapshot_of
from trabecula.artifacts.results import Comparison, EvaluatedEncoder, LabelMultiplier, MetricRow
from trabecula.comparison.arms import PUBLISHED
from trabecula.figures.charts import NUM_STYLES
from trabecula.sections.names import architecture_name, arm_name, mode_name

Row = Any  # one of the records of artifacts/results.py
T = TypeVar("T")
R = TypeVar("R", files.Metrics, files.Comparisons, files.Curves)

FAMILIES = ("random", "imagenet", "weights", "pretrained")


@dataclass(frozen=True, eq=False, slots=True)
class Arm(EvaluatedEncoder):
    """One architecture with one initialisation, with the name and look it keeps through the whole report."""

    style: str = ""  # CSS class: "arm-random", "arm-imagenet", "arm-0" ...
    title: str = ""  # What it is called among the arms of its network.

    @property
    def name(self) -> str:
        return self.arm

    @property
    def network(self) -> str:
        return architecture_name(self.architecture)


@dataclass(frozen=True)
class Panel:
    """One task in one mode: what is read and compared together."""

    task: str
    mode: str

    @property
    def title(self) -> str:
        return f"{self.task}, {mode_name(self.mode)}"

    def of(self, rows: Iterable[Any]) -> list[Any]:
        """The rows of this task and mode."""
        return [row for row in rows if (row.task, row.mode) == (self.task, self.mode)]


@dataclass(frozen=True)
class Results:
    metrics: files.Metrics
    comparisons: files.Comparisons
    curves: files.Curves
    flow: files.Flow
    shortcuts: tuple[str, ...] = ()  # tasks that ask for no diagnosis

    @cached_property
    def summaries(self) -> list[MetricRow]:
        """Rows over all seeds; where a value is given per pretraining seed too, only the one over all."""
        chosen: dict[tuple[Any, ...], MetricRow] = {}
        for row in self.metrics.rows:
            key = (row.task, row.arm, row.mode, row.fraction, row.cohort, row.stratum, row.metric)
            if row.seed == "all" and (key not in chosen or row.pretrain_seed == "all"):
                chosen[key] = row
        return list(chosen.values())

    @cached_property
    def _index(self) -> dict[tuple[Any, ...], MetricRow]:
        return {
            (r.task, r.mode, r.metric, r.arm, r.fraction): r
            for r in self.summaries
            if r.cohort == "all" and r.stratum == "all"
        }

    def summary(self, panel: Panel, metric: str, arm: str, fraction: float) -> MetricRow | None:
        """The row over all seeds, cohorts and strata."""
        return self._index.get((panel.task, panel.mode, metric, arm, fraction))

    @cached_property
    def panels(self) -> list[Panel]:
        """What is asked for its own sake, in the order of the results, then the shortcut probes."""
        found = _unique(Panel(r.task, r.mode) for r in self.summaries)
        return sorted(found, key=self.is_shortcut)

    def is_shortcut(self, panel: Panel) -> bool:
        """Whether a high score is no merit: a task that is no diagnosis, or the corners of images alone."""
        return panel.task in self.shortcuts or corner_of(panel.mode) is not None

    @property
    def level(self) -> str:
        """Of the intervals, in per cent: "95"."""
        return f"{self.metrics.level * 100:.4g}"

    def control(self, architecture: str) -> Arm | None:
        """The random arm that the others of a network are compared with first, as `evaluate` decided."""
        own = self.arms_of(architecture)
        names = {arm.control for arm in own}
        alone = (a for a in own if a.family == "random" and a.control is None and not a.control_reason)
        return next((arm for arm in own if arm.name in names), next(alone, None))

    @cached_property
    def arms(self) -> list[Arm]:
        """Every arm, architectures in order of appearance, random first, then ImageNet, the others.

        A snapshot is not an arm here, but keeps the place of its arm. The arm's own name is in its title
        where two would read alike, and where a random arm's control is incomplete.
        """
        cards = sorted(self.flow.arms, key=lambda card: snapshot_of(card.arm) is not None)
        first: dict[str, EvaluatedEncoder] = {}
        for card in map(_finished, cards):
            first.setdefault(card.arm, card)
        cards = list(first.values())
        order = _unique(card.architecture for card in cards)
        cards.sort(key=lambda card: [*FAMILIES, card.family].index(card.family))
        cards.sort(key=lambda card: order.index(card.architecture))
        styles, kinds = _styles(cards), [(card.architecture, arm_name(card)) for card in cards]
        arms = []
        for card, kind in zip(cards, kinds, strict=True):
            alone = kinds.count(kind) == 1 and not (card.family == "random" and card.control_reason)
            title = kind[1] + ("" if alone else f" ({card.arm})")
            arms.append(Arm(**card, style=styles[card.arm], title=title))
        return arms

    @cached_property
    def by_name(self) -> dict[str, Arm]:
        return {arm.name: arm for arm in self.arms}

    @property
    def architectures(self) -> list[str]:
        return _unique(arm.architecture for arm in self.arms)

    def arms_of(self, architecture: str) -> list[Arm]:
        return [arm for arm in self.arms if arm.architecture == architecture]

    def fractions(self, panel: Panel) -> list[float]:
        return sorted({r.fraction for r in panel.of(self.summaries)}, key=fewest_first)

    def metric_names(self, panel: Panel) -> list[str]:
        """The panel's metrics, the headline first."""
        return _unique([self.headline(panel), *(r.metric for r in panel.of(self.summaries))])

    def headline(self, panel: Panel) -> str:
        """The metric that the verdict speaks of: the first one that `evaluate` compares arms by."""
        return str(panel.of([*self.comparisons.pairs, *self.summaries])[0].metric)

    def comparisons_of(self, panel: Panel, metric: str) -> list[Comparison]:
        return [pair for pair in panel.of(self.comparisons.pairs) if pair.metric == metric]

    def with_control(self, pair: Comparison) -> bool:
        """Whether a comparison is with the arm's control."""
        return self.by_name[pair.arm].control == pair.baseline

    def multiplier(self, pair: Comparison) -> LabelMultiplier | None:
        keys = ("task", "arm", "mode", "fraction", "metric", "baseline")
        wanted = [pair[k] for k in keys]
        found = (m for m in self.comparisons.label_multipliers if [m[k] for k in keys] == wanted)
        return next(found, None)

    def missing_imagenet(self) -> dict[str, str]:
        """The reason for every architecture without an ImageNet arm, of those that can have one."""
        rows = [row for row in self.comparisons.not_run if row.family == "imagenet"]
        reasons = {row.architecture: row.reason for row in rows}
        have = {arm.architecture for arm in self.arms if arm.family == "imagenet"}
        wanted = [a for a in self.architectures if a.startswith(PUBLISHED) and a not in have]
        return {a: reasons.get(a) or "no such arm in this study" for a in wanted}


def read_results(folder: Path, shortcuts: Sequence[str] = ()) -> Results:
    """Read evaluate's folder; `shortcuts` are tasks that ask for no diagnosis."""
    metrics, comparisons, curves, flow = files.read_results(folder)
    return Results(
        _of_arms(metrics, "rows"), _of_arms(comparisons, "pairs", "label_multipliers"),
        _of_arms(curves, "roc", "reliability", "learning"), flow, tuple(shortcuts),
    )  # fmt: skip


def _of_arms(record: R, *parts: str) -> R:
    """Without rows of snapshots, which `evaluate` compared with nothing."""
    kept: dict[str, Any] = {part: [row for row in record[part] if not snapshot_of(row.arm)] for part in parts}
    return replace(record, **kept)


def _finished(card: EvaluatedEncoder) -> EvaluatedEncoder:
    """Of a snapshot the arm that it is of, as far as that is known; any other as it is."""
    snapshot = snapshot_of(card.arm)
    return replace(card, arm=snapshot[0], images_seen=None) if snapshot else card


def _styles(cards: Sequence[EvaluatedEncoder]) -> dict[str, str]:
    """A look per kind of initialisation, the same in every architecture; a repeated kind gets its own."""
    styles, kinds, controlled = {}, list[tuple[str, str, int]](), set[str]()
    for card in cards:
        first = card.architecture not in controlled
        if card.family == "imagenet" or (card.family == "random" and first):
            styles[card.arm] = f"arm-{card.family}"
            controlled |= {card.architecture} if card.family == "random" else set()
            continue
        alike = (card.architecture, card.family, card.objective)
        same = [o for o in cards if (o.architecture, o.family, o.objective) == alike]
        kind = (card.family, card.objective, same.index(card))
        if kind not in kinds:
            kinds.append(kind)
        styles[card.arm] = f"arm-{kinds.index(kind) % NUM_STYLES}"
    return styles


def _unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
