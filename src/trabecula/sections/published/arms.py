"""Tables of a paper's approaches and this study's arms: values, paired differences, spread over label seeds.

Which of the paper's tables are shown follows from the study's arms and tasks. Nothing is computed here but
which value is lowest and highest over seeds, and no test compares the paper's numbers with ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from trabecula.artifacts.label_budget import fewest_first, labels_used
from trabecula.artifacts.predictions import corner_of
from trabecula.artifacts.results import Comparison, MetricRow, TaskFlow
from trabecula.sections import tables, wording
from trabecula.sections.formats import Cells, Entry, Table, cells, said_once
from trabecula.sections.names import FAMILY_NAMES, metric_name, mode_name
from trabecula.sections.numbers import count, interval, number, present, share, span
from trabecula.sections.pretraining import MIXED, OTHER, OWN, PretrainedOn
from trabecula.sections.published.paper import OURS, Paper, PublishedTable, StudyFiles
from trabecula.sections.results import Arm, Panel, Results

CLASSES = ("ordinal", "multiclass")  # kinds of tasks with one class an image
MODES = {"finetune": "FT", "probe": "LP"}
NO_SD = "†"
_SHORT = {FAMILY_NAMES["random"]: "Random", FAMILY_NAMES["imagenet"]: "ImageNet"}
_SAME = 1e-5  # evaluate writes six digits
_HEADS = ("Network", "Approach")

ModeShare = tuple[str, float]
"""A column: mode and share of labels."""


def is_graded(task: TaskFlow) -> bool:
    """Whether a task asks for grades: its classes are numbers, not names of objects or findings."""
    return task.kind != "multilabel" and all(str(name).isdecimal() for name in task.classes)


def task_group(task: TaskFlow) -> str:
    """ "findings", "grades", or "" for a task that the paper has no table of."""
    if task.kind == "multilabel":
        return "findings"
    return "grades" if task.kind in CLASSES and is_graded(task) else ""


def arm_tables(paper: Paper, study: StudyFiles) -> list[ArmTable]:
    """Each of the paper's tables of which this study has something, by task.

    Arms of one network are in one table. Parts of a pool are in the figures of pool sizes instead, and random
    arms alone make no table.
    """
    results, found = study.results, []
    for task, record in results.flow.tasks.items():
        printed = [t for t in paper.tables if t.ours == "arms" and t.tasks == task_group(record)]
        arms_of: dict[str, list[Arm]] = {}
        for architecture in results.architectures if printed else ():
            arms = [arm for arm in results.arms_of(architecture) if arm.pool_fraction == 1]
            kinds = _networks(arms, study.learned)
            table = next(t for kind in kinds for t in printed if t.networks == kind)
            arms_of.setdefault(table.name, []).extend(arms)
        for table in printed:
            arms = arms_of.get(table.name, [])
            columns = _columns(results, task, table.metric, arms)
            if columns and any(arm.family != "random" for arm in arms):
                found.append(ArmTable(paper, table, study, task, arms, columns))
    return found


def _networks(arms: Sequence[Arm], learned: Mapping[str, PretrainedOn]) -> Iterator[str]:
    """What a network is called in the data files, the most particular first."""
    if any(arm.objective == "mae" for arm in arms):
        yield "masked autoencoder"
    if any(learned[arm.name].source != OWN for arm in arms if arm.name in learned):
        yield "other images"
    yield ""


def _columns(results: Results, task: str, metric: str, arms: Sequence[Arm]) -> list[ModeShare]:
    """Those of whole images that any of the arms has, fine-tuning before probes."""
    names = {arm.name for arm in arms}
    found = {
        (row.mode, row.fraction)
        for row in results.summaries
        if row.task == task and row.metric == metric and row.arm in names
        if row.mode.partition(":")[0] in MODES and corner_of(row.mode) is None
    }
    return sorted(found, key=_order)


def _order(column: ModeShare) -> tuple[tuple[bool, float], int, str]:
    mode, fraction = column
    return fewest_first(fraction), list(MODES).index(mode.partition(":")[0]), mode


def column_name(column: ModeShare) -> str:
    """ "FT, 1 %"; "FT best head, 1 %"."""
    kind, _, variant = column[0].partition(":")
    return f"{MODES[kind]}{' ' * bool(variant)}{variant}, {share(column[1])}"


@dataclass(frozen=True)
class ArmTable:
    """One of the paper's tables, and the task, arms and columns of this study that stand beside it."""

    paper: Paper
    published: PublishedTable
    study: StudyFiles
    task: str
    arms: Sequence[Arm]
    columns: Sequence[ModeShare]

    @property
    def name(self) -> str:
        return f"{self.published.name}, {self.task}"

    @property
    def metric(self) -> str:
        return self.published.metric

    @property
    def results(self) -> Results:
        return self.study.results

    @cached_property
    def approaches(self) -> dict[str, str]:
        """What each arm is called in the paper's tables: "MoCo", "MAE 0.25", "MoCo, cross-domain"."""
        drafts = [(arm.architecture, self._approach(arm)) for arm in self.arms]
        found = {}
        for arm, draft in zip(self.arms, drafts, strict=True):
            alone = drafts.count(draft) == 1 or arm.name in draft[1]
            found[arm.name] = draft[1] if alone else f"{draft[1]} ({arm.name})"
        return found

    def _approach(self, arm: Arm) -> str:
        known = self.study.learned.get(arm.name)
        name = _SHORT.get(arm.title, arm.title.replace(" pretraining", "", 1))
        if arm.family == "pretrained":
            name = name.removesuffix(f" ({arm.name})")
        if known is None:
            return name
        name = name if known.mask_ratio is None else f"MAE {known.mask_ratio:g}"
        return name if known.source == OWN else f"{name}, {known.source}"

    @cached_property
    def by_domain(self) -> list[Arm]:
        """Networks in their order; within one, arms of the study's own images first, and masks by size."""
        networks = list(dict.fromkeys(arm.architecture for arm in self.arms))

        def key(arm: Arm) -> tuple[int, bool, bool, float]:
            known = self.study.learned.get(arm.name)
            source = known.source if known else OWN
            mask = known.mask_ratio if known else None
            return networks.index(arm.architecture), source != OWN, source != OTHER, mask or 0.0

        return sorted(self.arms, key=key)

    def head(self, arm: Arm) -> tuple[Entry, Entry]:
        return Entry(arm.network), Entry(self.approaches[arm.name], style=arm.style)

    def summary(self, arm: Arm, column: ModeShare) -> MetricRow | None:
        return self.results.summary(Panel(self.task, column[0]), self.metric, arm.name, column[1])

    def pairs(self, arm: Arm) -> list[Comparison]:
        """Its comparisons with the control and with ImageNet weights of its own network."""
        return [
            pair
            for mode in dict.fromkeys(mode for mode, _ in self.columns)
            for pair in self.results.comparisons_of(Panel(self.task, mode), self.metric)
            if pair.arm == arm.name and pair.same_architecture
            if self.results.with_control(pair) or pair.baseline_family == "imagenet"
        ]

    @cached_property
    def values(self) -> Table:
        """This study's arms by network, then the paper's: mean (SD over seeds), and below it our interval."""
        published = self.published
        columns = sorted({*self.columns, *published.modes}, key=_order)
        if not set(self.columns) & set(published.modes):
            columns = [*self.columns, *published.modes]
        ours, mark = self._our_rows(columns), f"{published.network} (paper)"
        theirs = [
            cells(mark, line.label, *(_printed(published.value(line, *column)) for column in columns))
            for line in published.rows
        ]
        no_sd = any(NO_SD in cell.text for row in theirs for cell in row)
        note = "FT: fine-tuning; LP: linear probing, here an exact solve over a path of strengths. "
        note += "In brackets the SD over seeds" + (f"; {NO_SD} the paper prints none." if no_sd else ".")
        if published.networks == "other images":
            note += f" {OTHER.capitalize()}: learned from images of another kind; {MIXED}: from both."
        note = " ".join(part for part in (note, ours.note, published.note) if part)
        title = f"{published.name}: {published.title}; {self.task}"
        names = (*_HEADS, *map(column_name, columns))
        return Table(title, names, [*ours.rows, *theirs], note, heads=2, num_published=len(theirs))

    def _our_rows(self, columns: Sequence[ModeShare]) -> Table:
        """This study's rows; an ImageNet arm that a network could have is "not run" where it has none."""
        absent, (alike, shared) = self.results.missing_imagenet(), self._counts()
        rows = list[Cells]()
        last_random = {arm.architecture: arm for arm in self.by_domain if arm.family == "random"}
        for arm in self.by_domain:
            better = {
                (pair.mode, pair.fraction)
                for pair in self.pairs(arm)
                if wording.claim_of(pair) == "better" and self.results.with_control(pair)
            }
            found = [(column, self.summary(arm, column)) for column in columns]
            values = [
                tables.result_cell(row, alike, column in better) if row else Entry("–")
                for column, row in found
            ]
            rows.append((*self.head(arm), *values))
            if arm is last_random.get(arm.architecture) and arm.architecture in absent:
                none = ["not run" if column in self.columns else "–" for column in columns]
                rows.append(tables.absent_imagenet(arm.architecture, _SHORT[FAMILY_NAMES["imagenet"]], none))
        table = said_once(Table("", (), rows, shared), 2)
        return replace(table, note=table.note.replace("All cells:", "All of this study's:"))

    def _counts(self) -> tuple[bool, str]:
        """Whether all values of a mode speak of the same images and as many seeds, and the words for it."""
        words = {}
        for mode in dict.fromkeys(mode for mode, _ in self.columns):
            columns = [column for column in self.columns if column[0] == mode]
            rows = [self.summary(arm, column) for arm in self.arms for column in columns]
            alike, shared = tables.shared_counts([row for row in rows if row])
            if not alike:
                return False, ""
            words[mode_name(mode)] = shared.removeprefix("Every value: ")
        if len(set(words.values())) == 1:
            return True, f"This study: {next(iter(words.values()))}"
        return True, " ".join(f"This study, {mode}: {text}" for mode, text in words.items())

    @cached_property
    def differences(self) -> Table:
        """Paired differences to the network's random arm and to ImageNet, and their worth in labels."""
        rows = []
        for arm in self.by_domain:
            pairs = self.pairs(arm)
            for baseline in dict.fromkeys(pair.baseline for pair in pairs):
                own = {(p.mode, p.fraction): p for p in pairs if p.baseline == baseline}
                found = [self._difference(own.get(column)) for column in self.columns]
                rows.append(cells(*self.head(arm), self.approaches.get(baseline, baseline), *found))
        note = (
            "This study alone, on the same test patients and label seeds; p adjusted over arms by Holm's "
            "method; bold: better. Worth: how many times as many labels the baseline needs for the arm's "
            "value."
        )
        title = f"{self.published.name}: differences in {metric_name(self.metric)} of {self.task}"
        names = (*_HEADS, "Against", *map(column_name, self.columns))
        return said_once(Table(title, names, rows, note, heads=3), 3)

    def _difference(self, pair: Comparison | None) -> Entry:
        cell = tables.difference_cell(self.results, pair, shortcut=False)
        worth = wording.worth(self.results.multiplier(pair)) if pair and wording.claim_of(pair) else ""
        return replace(cell, small=f"{cell.small}; worth {worth}") if worth else cell

    @cached_property
    def spread(self) -> Table:
        """Lowest and highest value over seeds, and what was chosen; no rows where no arm has two seeds.

        Rajamohan et al. 2026 draw the validation part as small as the training part (section 2.5.1), so with
        1 % of the labels settings and checkpoints are chosen on a handful of patients.
        """
        found = {arm.name: [self._spread(arm, column) for column in self.columns] for arm in self.arms}
        shown = [arm for arm in self.by_domain if any(cell.text != "–" for cell in found[arm.name])]
        rows = [(*self.head(arm), *found[arm.name]) for arm in shown]
        subsets = [s for s in self.results.flow.subsets if s.task == self.task]
        drawn = "; ".join(
            f"{share(fraction)}: {span([s.num_val_patients for s in some])} validation and "
            f"{span([s.num_train_patients for s in some])} training patients"
            for fraction in dict.fromkeys(fraction for _, fraction in self.columns)
            if (some := [s for s in subsets if s.fraction == fraction])
        )
        seeds = _seeds_name([row for arm in self.arms for row in self._seed_rows(arm)])
        note = f"Lowest to highest value over {seeds}, and below it what was chosen on validation. {drawn}."
        note += "".join(f" {text}." for text in tables.subset_notes(self.results, self.task))
        title = f"{self.published.name}: spread of {metric_name(self.metric)} of {self.task} over {seeds}"
        return Table(title, (*_HEADS, *map(column_name, self.columns)), rows, note, heads=2)

    def _spread(self, arm: Arm, column: ModeShare) -> Entry:
        rows = self._seed_rows(arm)
        values = [row.value for row in rows if (row.mode, row.fraction) == column and row.value is not None]
        if len(values) < 2:
            return Entry("–")
        chosen = self.study.choices.get((self.task, arm.name, *column), ())
        words = _range("strength", chosen, lambda value: f"{value:.1g}"), _range("images_seen", chosen, count)
        small = "; ".join(text for text in words if text)
        return Entry(f"{number(min(values))} to {number(max(values))}", small=small)

    def _seed_rows(self, arm: Arm) -> list[MetricRow]:
        """The values of an arm, seed by seed."""
        return [
            row
            for row in self.results.metrics.rows
            if row.seed != "all" and row.cohort == row.stratum == "all" and present(row.value)
            if (row.task, row.metric, row.arm) == (self.task, self.metric, arm.name)
        ]

    @cached_property
    def random_probes(self) -> str:
        """How this study's probes of random networks stand to one predicted class; "" where it has none."""
        classes = len(self.results.flow.tasks[self.task].classes)
        if self.metric != "balanced_accuracy" or not classes:
            return ""
        chance, words, above = 1 / classes, [], []
        columns = [column for column in self.columns if column[0] == "probe"]
        for architecture in dict.fromkeys(arm.architecture for arm in self.arms):
            control = self.results.control(architecture)
            found = [self.summary(control, column) for column in columns] if control else []
            rows = [row for row in found if row and present(row.value)]
            if control and rows:
                values = ", ".join(self._random_probe(control, row, chance) for row in rows)
                words.append(f"{control.network} {values}")
                above += [row.low > chance for row in rows if row.low is not None]
        if not words:
            return ""
        given = f"where one predicted class gives {number(chance)}: {'; '.join(words)}."
        lie = f" Of these {len(above)} intervals {sum(above)} lie{'s' * (sum(above) == 1)} above "
        text = f"This study's probes of random networks, {self.task}, {given}"
        return text + (f"{lie}{number(chance)}." if above else "")

    def _random_probe(self, control: Arm, row: MetricRow, chance: float) -> str:
        """ "0.204 (0.196 to 0.212) with 1 % of labels, 4 of 10 label seeds at exactly 0.200"."""
        rows = self._seed_rows(control)
        seeds = [other for other in rows if (other.mode, other.fraction) == ("probe", row.fraction)]
        stuck = sum(abs((other.value or 0.0) - chance) < _SAME for other in seeds)
        words = f"{number(row.value)} ({interval(row.low, row.high)}) with {labels_used(row.fraction)}"
        exactly = f", {stuck} of {len(seeds)} {_seeds_name(seeds)} at exactly {number(chance)}"
        return words + (exactly if stuck else "")

    @property
    def lacking(self) -> list[str]:
        """What the table would need and this study's files lack, a line each."""
        there, metric = {mode.partition(":")[0] for mode, _ in self.columns}, metric_name(self.metric)
        none = f"the results have no difference in {metric} to random or ImageNet weights of the same network"
        lines = [] if any(self.pairs(arm) for arm in self.arms) else [none]
        lines += [f"this study has no {mode_name(kind)}" for kind in MODES if kind not in there]
        return [f"{self.name}: {line}." for line in lines]

    @property
    def raw_rows(self) -> list[dict[str, Any]]:
        """The values of the table for CSV, the paper's among them."""
        rows, published = [], self.published
        shared = {"table": published.name, "task": self.task, "metric": self.metric}
        kept = ("value", "sd_seeds", "low", "high", "num_seeds", "num_patients", "num_images", "note")
        for arm in self.by_domain:
            pairs, known = self.pairs(arm), self.study.learned.get(arm.name)
            for column in self.columns:
                if row := self.summary(arm, column):
                    rows.append({
                        **shared, "whose": OURS, "network": arm.architecture,
                        "approach": self.approaches[arm.name], "domain": known.source if known else "",
                        "arm": arm.name, "mode": column[0], "fraction": column[1],
                        **{key: row[key] for key in kept},
                        **self._against([p for p in pairs if (p.mode, p.fraction) == column]),
                    })  # fmt: skip
        for line in published.rows:
            for mode, fraction in published.modes:
                value = published.value(line, mode, fraction)
                if value is not None:
                    rows.append({
                        **shared, "whose": self.paper.mark, "network": published.network,
                        "approach": line.label, "domain": line.group, "mode": mode, "fraction": fraction,
                        "value": value[0], "sd_seeds": value[1],
                    })  # fmt: skip
        return rows

    def _against(self, pairs: Sequence[Comparison]) -> dict[str, Any]:
        """Of each baseline: difference, bounds, p and label multiplier."""
        found: dict[str, Any] = {}
        for family in ("random", "imagenet"):
            pair = next((p for p in pairs if p.baseline_family == family), None)
            worth = self.results.multiplier(pair) if pair else None
            for key in ("difference", "low", "high", "p", "p_holm", "claim"):
                found[f"{key}_to_{family}"] = pair[key] if pair else None
            for key in ("value", "low", "high", "censored"):
                found[f"label_multiplier_{key}_{family}"] = worth[key] if worth else None
        return found


def _printed(value: tuple[float, float | None] | None) -> Entry:
    if value is None:
        return Entry("–")
    mean, sd = value
    return Entry(f"{mean:.3f} {NO_SD}" if sd is None else f"{mean:.3f} ({sd:.3f})")


def _seeds_name(rows: Sequence[MetricRow]) -> str:
    """In what values that stand apart by seed differ: "label seeds", or pretrainings too."""
    several = len({row.pretrain_seed for row in rows}) > 1
    return "seeds of pretraining and labels" if several else "label seeds"


def _range(name: str, chosen: Sequence[Mapping[str, str]], shown: Callable[[float], str]) -> str:
    """ "images seen 100 to 190"; "" where none is known."""
    values = [float(row[name]) for row in chosen if row.get(name)]
    if not values:
        return ""
    low, high = shown(min(values)), shown(max(values))
    return f"{name.replace('_', ' ')} {low}" + ("" if low == high else f" to {high}")
