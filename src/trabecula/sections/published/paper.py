"""What a paper prints, read from its data file, and the files of a study that stand beside it.

A data file (hip_gan.toml, knee_ssl.toml) holds the paper's tables as printed and the section's blocks in
order. Each table and block names a function of this folder that finds this study's values.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from trabecula.artifacts.predictions import choice_rows
from trabecula.config import Record, build
from trabecula.sections.formats import Cells, Entry
from trabecula.sections.generators import ExplainedNetwork, GeneratorQuality
from trabecula.sections.pretraining import PretrainedOn, Pretrainings, read_learned
from trabecula.sections.results import Results

OURS = "this study"


class PublishedRow(Record):
    label: str  # what names the row
    values: tuple[str, ...] = ()  # as printed; small words below a value follow a line break
    group: str = ""  # whose images an encoder learned from, for the CSV


class PublishedTable(Record):
    """One of the paper's tables, and where this study's values for it are."""

    name: str  # "Table 3"; unique in the file.
    title: str
    ours: str  # the function that makes the table with our values: a name in `TABLES` of this package
    columns: tuple[str, ...]  # headings; of a table of arms "finetune 0.01": mode and share of labels
    rows: tuple[PublishedRow, ...] = ()
    heads: int = 1  # leading columns that name the row
    note: str = ""
    missing: str = ""  # said where this study has nothing
    metric: str = ""  # by which this study's arms are shown
    tasks: Literal["", "grades", "findings"] = ""  # which of ours: classes are numbers, or several labels
    networks: str = ""  # which of this study's networks
    network: str = ""  # the paper's own network
    places: tuple[str, ...] = ()
    """Of each value column, its place in fidelity.json: "critic.train", or "points.fd.test" (metric, set)."""

    @property
    def modes(self) -> list[tuple[str, float]]:
        """Mode and share of labels of each value, of a table of arms."""
        return [(mode, float(fraction)) for mode, _, fraction in (c.partition(" ") for c in self.columns)]

    def value(self, row: PublishedRow, mode: str, fraction: float) -> tuple[float, float | None] | None:
        """Mean and SD over seeds, None where the paper prints none; None for a dash, of a table of arms."""
        printed = dict(zip(self.modes, row.values, strict=True)).get((mode, fraction), "")
        mean, _, sd = printed.partition(" (")
        return (float(mean), float(sd.removesuffix(")")) if sd else None) if printed else None


class PublishedFigure(Record):
    """One of the paper's figures: what its text says, and what of this study is drawn beside it."""

    name: str
    what: str
    text: str
    ours: Literal["pool_sizes", "spectrum"]
    tasks: Literal["", "grades", "objects"] = ""
    images: Literal["", "own", "other"] = ""  # whose the encoders learned from; other: others too; "": any
    shares: dict[str, float] = {}  # shares of grades that the paper gives


class PublishedBlock(Record):
    """A heading, words of ours on the paper, and what `show` or `table` finds in this study."""

    heading: str = ""
    text: str = ""
    note: str = ""
    show: str = ""  # a name in `BLOCKS` of this package; finds it nothing, the block is left out
    table: str = ""  # the name of a table of this file
    missing: str = ""  # said where `show` finds nothing, below heading, text and note


class Paper(Record):
    """A paper whose tables and figures stand beside a study's, clearly marked."""

    name: str
    title: str
    mark: str  # marks every number of the paper
    intro: str
    blocks: tuple[PublishedBlock, ...]
    tables: tuple[PublishedTable, ...] = ()
    figures: tuple[PublishedFigure, ...] = ()

    def table(self, name: str) -> PublishedTable:
        return next(table for table in self.tables if table.name == name)

    def figure(self, ours: str) -> PublishedFigure:
        """The first of its kind."""
        return next(figure for figure in self.figures if figure.ours == ours)


def read_paper(name: str, folder: Path = Path(__file__).parent) -> Paper:
    """ "hip-gan" -> hip_gan.toml, as a record."""
    path = folder / f"{name.replace('-', '_')}.toml"
    return build(Paper, tomllib.loads(path.read_text(encoding="utf-8")), str(path))


@dataclass(frozen=True)
class StudyFiles:
    """What stands beside a paper: this study's results, and its folders as `report` is given them."""

    results: Results
    generators: Sequence[GeneratorQuality] = ()
    explained: Sequence[ExplainedNetwork] = ()
    pretrainings: Pretrainings | None = None
    runs: Sequence[Path] = ()
    store: Path | None = None
    samples: Sequence[Path] = ()
    spectra: Sequence[Path] = ()
    searches: Sequence[Path] = ()

    @cached_property
    def learned(self) -> Mapping[str, PretrainedOn]:
        """By arm, what it learned from."""
        return read_learned(self.runs, self.store)

    @cached_property
    def choices(self) -> Mapping[tuple[str, str, str, float], Sequence[Mapping[str, str]]]:
        """By task, arm, mode and share of labels, what each seed chose on validation."""
        found: dict[tuple[str, str, str, float], list[Mapping[str, str]]] = {}
        for row in (row for folder in self.runs for row in choice_rows(folder)):
            key = (row["task"], row["arm"], row["mode"], float(row["fraction"]))
            found.setdefault(key, []).append(row)
        return found


def printed_cells(*parts: str) -> Cells:
    """A row; a value's words after a line break are small."""
    values = (part.partition("\n") for part in parts)
    return tuple(Entry(value, small=small) for value, _, small in values)
