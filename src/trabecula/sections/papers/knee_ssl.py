"""Self-supervision for knees with few labels: the paper's tables and figures, and this study's, side by side.

Which of them a study has follows from its arms and tasks: grades of knees (Table 3), findings of chests
(Table 4), encoders that learned from other or mixed images (A.1, A.2), masked autoencoders (B.1), pools of
several sizes (Figures 2 to 4), grades predicted for a pool (Figure 5). Reads what `evaluate` wrote and
computes no statistic; the paper's numbers are compared with nothing by a test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from trabecula.figures.charts import Chart
from trabecula.sections.formats import Table
from trabecula.sections.learned import Learned, read_learned
from trabecula.sections.papers import knee_ssl_numbers as numbers
from trabecula.sections.papers.knee_ssl_figures import PaperFigure, drawn
from trabecula.sections.papers.knee_ssl_seeds import (
    read_choices,
    searches_table,
    seeds_name,
    spread_table,
)
from trabecula.sections.papers.knee_ssl_tables import (
    GRADED,
    MODES,
    Place,
    difference_table,
    pairs_of,
    places,
    raw_rows,
    value_table,
)
from trabecula.sections.results import Panel, Results, Row
from trabecula.sections.wording import (
    architecture_name,
    interval,
    metric_name,
    mode_name,
    number,
    present,
    share,
)


@dataclass(frozen=True)
class Section:
    """The paper's part of the report."""

    parts: Sequence[Part]
    figures: Sequence[PaperFigure]
    searches: Table  # settings that were chosen
    random: Sequence[str]  # on probes of random networks
    missing: Sequence[str]  # what this study's files lack, a line each
    rows: Sequence[Row]  # of the tables, for CSV
    facts: ModuleType = numbers

    @property
    def tables(self) -> list[Table]:
        """In the page's order."""
        found = [table for part in self.parts for table in part.tables]
        return [*found, *([self.searches] if self.searches.rows else [])]

    @property
    def charts(self) -> list[Chart]:
        return [chart for figure in self.figures for chart in figure.charts]


@dataclass(frozen=True)
class Part:
    """One of the paper's tables: ours and its values, our differences, our spread over label seeds."""

    name: str
    values: Table
    differences: Table
    spread: Table

    @property
    def tables(self) -> list[Table]:
        return [table for table in (self.values, self.differences, self.spread) if table.rows]


def knee_ssl_section(
    results: Results,
    runs: Sequence[Path],
    store: Path | None,
    spectra: Sequence[Path] = (),
    searches: Sequence[Path] = (),
) -> Section:
    """Everything of the paper that this study has something beside.

    Args:
        runs: the study's run folders: cards and logs of pretraining, choices of probes and fine-tuning.
        store: of the study's images, by which pools of other images are told.
        spectra: folders with spectrum.json. searches: folders that `search` wrote.

    Raises:
        InputError: one of these files cannot be read.
    """
    learned, choices = read_learned(runs, store), read_choices(runs)
    found, figures = places(results, learned), drawn(results, learned, spectra)
    parts = [
        Part(
            f"{place.printed.name}, {place.task}",
            value_table(results, place, learned),
            difference_table(results, place, learned),
            spread_table(results, place, learned, choices),
        )
        for place in found
    ]
    return Section(
        parts,
        figures,
        searches_table(results, searches),
        random_probes(results, found),
        _missing(results, found, figures, learned),
        [row for place in found for row in raw_rows(results, place, learned)],
    )


def random_probes(results: Results, found: Sequence[Place]) -> list[str]:
    """How this study's probes of random networks stand to the paper's, which tell no grades apart."""
    told = [text for place in found if (text := _random_probes(results, place))]
    if not told:
        return []
    paper = (
        f"{numbers.PAPER}: probes of random networks score exactly {numbers.RANDOM_PROBE:.3f} with every "
        "share of labels (Table 3). That is what one predicted grade of five gives: these probes tell no "
        "grades apart. Where a probe of random features does better, part of what the paper sees pretraining "
        "gain in probing is that baseline."
    )
    return [paper, *told]


def _random_probes(results: Results, place: Place) -> str:
    classes = len(results.flow["tasks"][place.task].get("classes") or ())
    if place.metric != "balanced_accuracy" or not classes:
        return ""
    chance, told, above = 1 / classes, [], []
    for architecture in dict.fromkeys(arm.architecture for arm in place.arms):
        control = results.control(architecture)
        rows = [
            row
            for mode, fraction in place.columns
            if mode == "probe" and control is not None
            if (row := results.summary(Panel(place.task, mode), place.metric, control.name, fraction))
            and present(row["value"])
        ]
        if rows:
            values = ", ".join(_random_probe(results, row, chance) for row in rows)
            told.append(f"{architecture_name(architecture)} {values}")
            above += [row["low"] > chance for row in rows if present(row["low"])]
    if not told:
        return ""
    lie = (
        f" Of these {len(above)} intervals {sum(above)} lie{'s' * (sum(above) == 1)} above {number(chance)}."
    )
    return (
        f"This study's probes of random networks, {place.task}, where one predicted class gives "
        f"{number(chance)}: {'; '.join(told)}.{lie if above else ''}"
    )


def _random_probe(results: Results, row: Row, chance: float) -> str:
    """ "0.204 (0.196 to 0.212) with 1 % of labels, 4 of 10 label seeds at exactly 0.200"."""
    same = ("task", "arm", "mode", "fraction", "metric", "cohort", "stratum")
    seeds = [
        other
        for other in results.rows
        if other["seed"] != "all" and present(other["value"]) and all(other[k] == row[k] for k in same)
    ]
    stuck = sum(abs(other["value"] - chance) < _SAME for other in seeds)
    bounds = interval(row["low"], row["high"])
    told = f"{number(row['value'])} ({bounds}) with {share(row['fraction'])} of labels"
    return told + (
        f", {stuck} of {len(seeds)} {seeds_name(seeds)} at exactly {number(chance)}" if stuck else ""
    )


_SAME = 1e-5  # evaluate writes six digits


def _missing(
    results: Results, found: Sequence[Place], figures: Sequence[PaperFigure], learned: Mapping[str, Learned]
) -> list[str]:
    """What the paper's part would need and this study's files lack, a line each."""
    said = []
    for task, record in results.flow["tasks"].items():
        kind = record.get("kind", "")
        metric = "auroc_macro" if kind == "multilabel" else "balanced_accuracy"
        there = any((row["task"], row["metric"]) == (task, metric) for row in results.summaries)
        if (kind == "multilabel" or kind in GRADED) and not there:
            said.append(f"metrics.json has no {metric_name(metric)} of {task}, by which the paper scores.")
    for place in found:
        name = f"{place.printed.name}, {place.task}"
        if not any(pairs_of(results, place, arm) for arm in place.arms):
            said.append(
                f"{name}: comparisons.json has no difference in {metric_name(place.metric)} to random or "
                "ImageNet weights of the same network."
            )
        lacking = [mode_name(kind) for kind in MODES if not any(m.startswith(kind) for m, _ in place.columns)]
        said += [f"{name}: this study has no {mode}." for mode in lacking]
    if not found and not figures and not said:
        said.append(
            "This study has no arm but random ones on grades or several findings, neither pools of several "
            "sizes nor a spectrum: there is nothing to stand beside the paper's tables and figures."
        )
    pretrained = [arm.name for arm in results.arms if arm.family == "pretrained"]
    if pretrained and not any(name in learned and learned[name].num_images for name in pretrained):
        said.append(
            "No run folder of a pretraining with its log was given (--runs), so whose images, and how many, "
            "each encoder learned from is not known."
        )
    return said
