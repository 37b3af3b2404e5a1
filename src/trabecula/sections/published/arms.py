"""Tables of a paper's approaches and this study's arms: values, paired differences, spread over label seeds.

Which of the paper's tables are shown follows from the study's arms and tasks. Nothing is computed here but
which value is lowest and highest over seeds, and no test compares the paper's numbers with ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from trabecula.artifacts.predictions import corner_of
from trabecula.sections.formats import Entry, Table, said_once
from trabecula.sections.pretraining import MIXED, OTHER, OWN, PretrainedOn
from trabecula.sections.published.paper import OURS, Paper, PublishedTable, StudyFiles
from trabecula.sections.results import Arm, Panel, Results, Row
from trabecula.sections.tables import difference_cell, result_cell, shared_counts, subset_notes
from trabecula.sections.wording import (
    FAMILY_NAMES,
    architecture_name,
    arm_names,
    claim_of,
    count,
    interval,
    metric_name,
    mode_name,
    multiplier_interval,
    multiplier_value,
    number,
    present,
    share,
    span,
)

CLASSES = ("ordinal", "multiclass")  # kinds of tasks with one class an image
MODES = {"finetune": "FT", "probe": "LP"}
NO_SD = "†"
_SHORT = {FAMILY_NAMES["random"]: "Random", FAMILY_NAMES["imagenet"]: "ImageNet"}
_SAME = 1e-5  # evaluate writes six digits

ModeShare = tuple[str, float]
"""A column: mode and share of labels."""


def is_graded(record: Mapping[str, Any]) -> bool:
    """Whether a task asks for grades: its classes are numbers, not names of objects or findings."""
    classes = record.get("classes") or ()
    return record.get("kind") != "multilabel" and all(str(name).isdecimal() for name in classes)


def task_group(record: Mapping[str, Any]) -> str:
    """ "findings", "grades", or "" for a task that the paper has no table of."""
    if record.get("kind") == "multilabel":
        return "findings"
    return "grades" if record.get("kind") in CLASSES and is_graded(record) else ""


def arm_tables(paper: Paper, study: StudyFiles) -> list[ArmTable]:
    """Each of the paper's tables of which this study has something, by task.

    Arms of one network are in one table. Parts of a pool are in the figures of pool sizes instead, and random
    arms alone make no table.
    """
    results, found = study.results, []
    for task, record in results.flow.tasks.items():
        tables = [t for t in paper.tables if t.ours == "arms" and t.tasks == task_group(record)]
        arms_of: dict[str, list[Arm]] = {}
        for architecture in results.architectures if tables else ():
            arms = [arm for arm in results.arms_of(architecture) if arm.pool_fraction == 1]
            kinds = _networks(arms, study.learned)
            table = next(t for kind in kinds for t in tables if t.networks == kind)
            arms_of.setdefault(table.name, []).extend(arms)
        for table in tables:
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
        (row["mode"], row["fraction"])
        for row in results.summaries
        if row["task"] == task and row["metric"] == metric and row["arm"] in names
        if row["mode"].partition(":")[0] in MODES and corner_of(row["mode"]) is None
    }
    return sorted(found, key=_order)


def _order(column: ModeShare) -> tuple[float, int, str]:
    mode, fraction = column
    return fraction, list(MODES).index(mode.partition(":")[0]), mode


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
        names, found = arm_names(self.results), {}
        for arm in self.arms:
            known = self.study.learned.get(arm.name)
            name = _SHORT.get(names[arm.name], names[arm.name].replace(" pretraining", "", 1))
            if arm.family == "pretrained":
                name = name.removesuffix(f" ({arm.name})")
            if known is not None and known.mask_ratio is not None:
                name = f"MAE {known.mask_ratio:g}"
            if known is not None and known.source != OWN:
                name += f", {known.source}"
            found[arm.name] = name
        kinds = [(arm.architecture, found[arm.name]) for arm in self.arms]
        return {
            arm.name: kind[1] if kinds.count(kind) == 1 or arm.name in kind[1] else f"{kind[1]} ({arm.name})"
            for arm, kind in zip(self.arms, kinds, strict=True)
        }

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
        return Entry(architecture_name(arm.architecture)), Entry(self.approaches[arm.name])

    def summary(self, arm: Arm, column: ModeShare) -> Row | None:
        return self.results.summary(Panel(self.task, column[0]), self.metric, arm.name, column[1])

    def pairs(self, arm: Arm) -> list[Row]:
        """Its comparisons with the control and with ImageNet weights of its own network."""
        return [
            pair
            for mode in dict.fromkeys(mode for mode, _ in self.columns)
            for pair in self.results.comparisons_of(Panel(self.task, mode), self.metric)
            if pair["arm"] == arm.name and pair["same_architecture"]
            if self.results.with_control(pair) or pair["baseline_family"] == "imagenet"
        ]

    def _table(
        self,
        title: str,
        heads: Sequence[str],
        columns: Sequence[ModeShare],
        rows: Any,
        note: str,
        styles: Any,
    ) -> Table:
        names = (*heads, *(column_name(column) for column in columns))
        return Table(title, names, rows, note, heads=len(heads), styles=styles)

    @cached_property
    def values(self) -> Table:
        """This study's arms by network, then the paper's: mean (SD over seeds), and below it our interval."""
        published = self.published
        columns = sorted({*self.columns, *published.modes}, key=_order)
        if not set(self.columns) & set(published.modes):
            columns = [*self.columns, *published.modes]
        ours = self._our_rows(columns)
        rows, styles = list(ours.rows), list(ours.styles)
        mark = f"{published.network} (paper)"
        for line in published.rows:
            cells = [_printed(published.value(line, *column)) for column in columns]
            rows.append((Entry(mark), Entry(line.label), *cells))
            styles.append("")
        no_sd = any(NO_SD in cell.text for row in rows for cell in row)
        note = "FT: fine-tuning; LP: linear probing, here an exact solve over a path of strengths. "
        note += "In brackets the SD over seeds" + (f"; {NO_SD} the paper prints none." if no_sd else ".")
        if published.networks == "other images":
            note += f" {OTHER.capitalize()}: learned from images of another kind; {MIXED}: from both."
        note = " ".join(part for part in (note, ours.note, published.note) if part)
        title = f"{published.name}: {published.title}; {self.task}"
        return self._table(title, ("Network", "Approach"), columns, rows, note, styles)

    def _our_rows(self, columns: Sequence[ModeShare]) -> Table:
        """This study's rows; an ImageNet arm that a network could have is "not run" where it has none."""
        absent, (alike, shared) = self.results.missing_imagenet(), self._counts()
        rows: list[tuple[Entry, ...]] = []
        styles: list[str] = []
        for i, arm in enumerate(self.by_domain):
            better = {
                (pair["mode"], pair["fraction"])
                for pair in self.pairs(arm)
                if claim_of(pair) == "better" and self.results.with_control(pair)
            }
            found = [(column, self.summary(arm, column)) for column in columns]
            cells = [
                result_cell(row, alike, column in better) if row else Entry("–") for column, row in found
            ]
            rows.append((*self.head(arm), *cells))
            styles.append(arm.style)
            after = self.by_domain[i + 1] if i + 1 < len(self.by_domain) else None
            last = after is None or (after.architecture, after.family) != (arm.architecture, "random")
            if arm.family == "random" and last and arm.architecture in absent:
                cells = [Entry("not run" if column in self.columns else "–") for column in columns]
                rows.append((self.head(arm)[0], Entry(_SHORT[FAMILY_NAMES["imagenet"]]), *cells))
                styles.append("arm-imagenet")
        table = said_once(Table("", (), rows, shared, heads=2, styles=styles), 2)
        return replace(table, note=table.note.replace("All cells:", "All of this study's:"))

    def _counts(self) -> tuple[bool, str]:
        """Whether all values of a mode speak of the same images and as many seeds, and the words for it."""
        words = {}
        for mode in dict.fromkeys(mode for mode, _ in self.columns):
            columns = [column for column in self.columns if column[0] == mode]
            rows = [self.summary(arm, column) for arm in self.arms for column in columns]
            alike, shared = shared_counts([row for row in rows if row])
            if not alike:
                return False, ""
            words[mode_name(mode)] = shared.removeprefix("Every value: ")
        if len(set(words.values())) == 1:
            return True, f"This study: {next(iter(words.values()))}"
        return True, " ".join(f"This study, {mode}: {text}" for mode, text in words.items())

    @cached_property
    def differences(self) -> Table:
        """Paired differences to the network's random arm and to ImageNet, and their worth in labels."""
        rows, styles = [], []
        for arm in self.by_domain:
            pairs = self.pairs(arm)
            for baseline in dict.fromkeys(pair["baseline"] for pair in pairs):
                own = {(p["mode"], p["fraction"]): p for p in pairs if p["baseline"] == baseline}
                cells = [self._difference(own.get(column)) for column in self.columns]
                rows.append((*self.head(arm), Entry(self.approaches.get(baseline, baseline)), *cells))
                styles.append(arm.style)
        note = (
            "This study alone, on the same test patients and label seeds; p adjusted over arms by Holm's "
            "method; bold: better. Worth: how many times as many labels the baseline needs for the arm's "
            "value."
        )
        title = f"{self.published.name}: differences in {metric_name(self.metric)} of {self.task}"
        heads = ("Network", "Approach", "Against")
        return said_once(self._table(title, heads, self.columns, rows, note, styles), 3)

    def _difference(self, pair: Row | None) -> Entry:
        cell = difference_cell(self.results, pair, shortcut=False)
        worth = self.results.multiplier(pair) if pair is not None and claim_of(pair) else None
        if worth is None or (worth["value"] is None and not worth["censored"]):
            return cell
        bounds = multiplier_interval(worth)
        words = multiplier_value(worth) + (f" ({bounds})" if bounds != "–" else "")
        return replace(cell, small=f"{cell.small}; worth {words}")

    @cached_property
    def spread(self) -> Table:
        """Lowest and highest value over seeds, and what was chosen; no rows where no arm has two seeds.

        Rajamohan et al. 2026 draw the validation part as small as the training part (section 2.5.1), so with
        1 % of the labels settings and checkpoints are chosen on a handful of patients.
        """
        rows, styles = [], []
        for arm in self.by_domain:
            cells = [self._spread(arm, column) for column in self.columns]
            if any(cell.text != "–" for cell in cells):
                rows.append((*self.head(arm), *cells))
                styles.append(arm.style)
        subsets = [s for s in self.results.flow.subsets if s["task"] == self.task]
        drawn = "; ".join(
            f"{share(fraction)}: {span([s['num_val_patients'] for s in some])} validation and "
            f"{span([s['num_train_patients'] for s in some])} training patients"
            for fraction in dict.fromkeys(fraction for _, fraction in self.columns)
            if (some := [s for s in subsets if s["fraction"] == fraction])
        )
        seeds = _seeds_name([row for arm in self.arms for row in self._seed_rows(arm)])
        note = f"Lowest to highest value over {seeds}, and below it what was chosen on validation. {drawn}."
        note += "".join(f" {text}." for text in subset_notes(self.results, self.task))
        title = f"{self.published.name}: spread of {metric_name(self.metric)} of {self.task} over {seeds}"
        return self._table(title, ("Network", "Approach"), self.columns, rows, note, styles)

    def _spread(self, arm: Arm, column: ModeShare) -> Entry:
        rows = self._seed_rows(arm)
        values = [row["value"] for row in rows if (row["mode"], row["fraction"]) == column]
        if len(values) < 2:
            return Entry("–")
        chosen = self.study.choices.get((self.task, arm.name, *column), ())
        words = _range("strength", chosen, lambda value: f"{value:.1g}"), _range("images_seen", chosen, count)
        small = "; ".join(text for text in words if text)
        return Entry(f"{number(min(values))} to {number(max(values))}", small=small)

    def _seed_rows(self, arm: Arm) -> list[Row]:
        """The values of an arm, seed by seed."""
        return [
            row
            for row in self.results.rows
            if row["seed"] != "all" and row["cohort"] == row["stratum"] == "all" and present(row["value"])
            if (row["task"], row["metric"], row["arm"]) == (self.task, self.metric, arm.name)
        ]

    @cached_property
    def random_probes(self) -> str:
        """How this study's probes of random networks stand to one predicted class; "" where it has none."""
        classes = len(self.results.flow.tasks[self.task].get("classes") or ())
        if self.metric != "balanced_accuracy" or not classes:
            return ""
        chance, words, above = 1 / classes, [], []
        for architecture in dict.fromkeys(arm.architecture for arm in self.arms):
            control = self.results.control(architecture)
            rows = [
                row
                for column in self.columns
                if column[0] == "probe" and control is not None
                if (row := self.summary(control, column)) and present(row["value"])
            ]
            if control is not None and rows:
                values = ", ".join(self._random_probe(control, row, chance) for row in rows)
                words.append(f"{architecture_name(architecture)} {values}")
                above += [row["low"] > chance for row in rows if present(row["low"])]
        if not words:
            return ""
        text = (
            f"This study's probes of random networks, {self.task}, where one predicted class gives "
            f"{number(chance)}: {'; '.join(words)}."
        )
        lie = f" Of these {len(above)} intervals {sum(above)} lie{'s' * (sum(above) == 1)} above "
        return text + (f"{lie}{number(chance)}." if above else "")

    def _random_probe(self, control: Arm, row: Row, chance: float) -> str:
        """ "0.204 (0.196 to 0.212) with 1 % of labels, 4 of 10 label seeds at exactly 0.200"."""
        seeds = [
            r for r in self._seed_rows(control) if (r["mode"], r["fraction"]) == ("probe", row["fraction"])
        ]
        stuck = sum(abs(other["value"] - chance) < _SAME for other in seeds)
        bounds = interval(row["low"], row["high"])
        words = f"{number(row['value'])} ({bounds}) with {share(row['fraction'])} of labels"
        exactly = f", {stuck} of {len(seeds)} {_seeds_name(seeds)} at exactly {number(chance)}"
        return words + (exactly if stuck else "")

    @property
    def lacking(self) -> list[str]:
        """What the table would need and this study's files lack, a line each."""
        lines = []
        if not any(self.pairs(arm) for arm in self.arms):
            lines.append(
                f"{self.name}: the results have no difference in {metric_name(self.metric)} to random or "
                "ImageNet weights of the same network."
            )
        there = {mode.partition(":")[0] for mode, _ in self.columns}
        return lines + [
            f"{self.name}: this study has no {mode_name(kind)}." for kind in MODES if kind not in there
        ]

    @property
    def raw_rows(self) -> list[dict[str, Any]]:
        """The values of the table for CSV, the paper's among them."""
        rows, published = [], self.published
        shared = {"table": published.name, "task": self.task, "metric": self.metric}
        kept = ("value", "sd_seeds", "low", "high", "num_seeds", "num_patients", "num_images", "note")
        for arm in self.by_domain:
            pairs, known = self.pairs(arm), self.study.learned.get(arm.name)
            for column in self.columns:
                row = self.summary(arm, column)
                if row is not None:
                    rows.append({
                        **shared, "whose": OURS, "network": arm.architecture,
                        "approach": self.approaches[arm.name], "domain": known.source if known else "",
                        "arm": arm.name, "mode": column[0], "fraction": column[1],
                        **{key: row[key] for key in kept},
                        **self._against([p for p in pairs if (p["mode"], p["fraction"]) == column]),
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

    def _against(self, pairs: Sequence[Row]) -> dict[str, Any]:
        """Of each baseline: difference, bounds, p and label multiplier."""
        found: dict[str, Any] = {}
        for family in ("random", "imagenet"):
            pair = next((p for p in pairs if p["baseline_family"] == family), None)
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


def _seeds_name(rows: Sequence[Row]) -> str:
    """In what values that stand apart by seed differ: "label seeds", or pretrainings too."""
    several = len({row["pretrain_seed"] for row in rows}) > 1
    return "seeds of pretraining and labels" if several else "label seeds"


def _range(name: str, chosen: Sequence[Mapping[str, str]], shown: Callable[[float], str]) -> str:
    """ "images seen 100 to 190"; "" where none is known."""
    values = [float(row[name]) for row in chosen if row.get(name)]
    if not values:
        return ""
    low, high = shown(min(values)), shown(max(values))
    return f"{name.replace('_', ' ')} {low}" + ("" if low == high else f" to {high}")
