"""A section of the report: a heading and blocks in reading order, and the page that renders them all.

A section knows its tables and figures, so what `report` writes into tables/ and figures/ follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trabecula.figures.charts import Chart, chart_files, style_sheet
from trabecula.sections.formats import Table, table_files
from trabecula.sections.numbers import count
from trabecula.sections.results import Row

_LINK = re.compile(r"\[([^\]]+)\]\(#(\w+)\)")


class Block(NamedTuple):
    """`content` as the macro of this name in page.html.j2 takes it: note, table, charts, pictures ..."""

    kind: str
    content: Any


class PagePicture(NamedTuple):
    """A picture in the page: `data` is a data URI, `alt` says what is to be seen."""

    caption: str
    alt: str
    data: str


class FoldedTable(NamedTuple):
    """A table behind a line that opens it."""

    summary: str
    table: Table
    opened: bool = False


@dataclass(frozen=True)
class Section:
    """`files`: tables to write, by the files' name: as people read them, and raw rows for CSV or None."""

    anchor: str  # its id in the page, unique
    link: str  # its name in the navigation, unique
    title: str
    blocks: Sequence[Block]
    files: Mapping[str, tuple[Sequence[Table], Sequence[Row] | None]] = field(default_factory=dict)
    pictures: Sequence[str] = ()  # file names of pictures of `explain` that no other section shows

    @property
    def charts(self) -> list[Chart]:
        """In the page's order."""
        found = [chart for block in self.blocks if block.kind == "charts" for chart in block.content]
        groups = [group for block in self.blocks if block.kind == "figures" for group in block.content]
        return found + [chart for group in groups for chart in group.charts]


def section_files(sections: Sequence[Section]) -> dict[str, str]:
    """Path -> content of every table and figure of these sections."""
    files = dict[str, str]()
    for section in sections:
        for name, (tables, rows) in section.files.items():
            files |= {f"tables/{file}": text for file, text in table_files(name, tables, rows).items()}
    charts = chart_files([chart for section in sections for chart in section.charts])
    return files | {f"figures/{file}": text for file, text in charts.items()}


def render(title: str, sections: Sequence[Section]) -> str:
    """The page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trabecula", "sections"),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["linked"] = linked
    template = environment.get_template("page.html.j2")
    return template.render(title=title, figure_css=style_sheet(), sections=sections, count=count)


def linked(text: str) -> Any:
    """`[words](#section)` as a link within the page; everything else is escaped."""
    from markupsafe import Markup, escape

    return Markup(_LINK.sub(r'<a href="#\2">\1</a>', str(escape(text))))
