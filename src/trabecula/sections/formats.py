"""A table's cells, and its forms: raw rows as CSV; what people read as Markdown and LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from trabecula.sections.results import Arm, Row

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$",
    "−": r"$-$", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "–": "--", "·": r"$\cdot$",
    "∞": r"$\infty$", "†": r"\dag{}", "▲": "", "▼": "", "\N{NO-BREAK SPACE}": "~", "|": r"\textbar{}",
    '"': "''", "≠": r"$\neq$", "≈": r"$\approx$", "±": r"$\pm$", "→": r"$\to$", "²": "$^2$", "³": "$^3$",
    "°": r"$^\circ$", "µ": r"$\mu$", "μ": r"$\mu$", "κ": r"$\kappa$", "ρ": r"$\rho$", "τ": r"$\tau$",
    "½": r"$\frac{1}{2}$", "\N{NARROW NO-BREAK SPACE}": r"\,", "\N{THIN SPACE}": r"\,", "\n": " ",
}  # fmt: skip


class Mark(NamedTuple):
    """What a comparison says, beside its difference: a symbol, words, and its interval as a bar (SVG)."""

    claim: str
    symbol: str
    words: str
    bar: str
    stuck: bool  # whether fine-tunings of either side stayed at chance


@dataclass(frozen=True)
class Entry:
    """`text` on the first line, `second` below it, `small` for counts or a note; `strong` by a claim only."""

    text: str
    second: str = ""
    small: str = ""
    strong: bool = False
    mark: Mark | None = None  # in the page alone
    style: str = ""  # CSS class of an arm, whose colour stands beside it in the page

    @property
    def plain(self) -> str:
        bounds = f"[{self.second}]" if self.second else ""
        return " ".join(part for part in (self.text, bounds, self.small) if part)


Cells = tuple[Entry, ...]


@dataclass(frozen=True)
class Table:
    """Cells as a person reads them."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Cells]
    note: str = ""
    heads: int = 1  # leading columns that name the row
    num_published: int = 0  # rows at the end that are a paper's


def cells(*parts: str | Entry) -> Cells:
    """A row of a table."""
    return tuple(part if isinstance(part, Entry) else Entry(part) for part in parts)


def arm_cells(arm: Arm) -> tuple[Entry, Entry]:
    """An arm's network and, beside its colour, its name."""
    return Entry(arm.network), Entry(arm.title, style=arm.style)


def said_once(table: Table, first: int, kind: str = "") -> Table:
    """Move the note that all cells from column `first` on share above the table, with "no interval".

    Only where every cell reads `kind`, if given; cells without a number ("–", "not run") have no part in it.
    """
    filled = [c for row in table.rows for c in row[first:] if c.text not in ("–", "not run")]
    shared = filled[0].small if filled else ""
    alike = all(c.small == shared and kind in ("", c.text) for c in filled)
    if len(filled) < 2 or not shared or not alike:
        return table

    def short(cell: Entry) -> Entry:
        return replace(cell, small="", second=cell.second.removeprefix("no interval"))

    rows = [(*row[:first], *map(short, row[first:])) for row in table.rows]
    return replace(table, rows=rows, note=f"{table.note} All cells: {shared}.".strip())


def said_in_title(table: Table, column: int) -> Table:
    """Without a heading column that says the same in every row: "AUROC, against random initialisation"."""
    texts = {row[column].text for row in table.rows}
    if len(texts) != 1:
        return table
    title = f"{table.title}, {table.columns[column].lower()} {texts.pop()}"
    columns = (*table.columns[:column], *table.columns[column + 1 :])
    rows = [(*row[:column], *row[column + 1 :]) for row in table.rows]
    return replace(table, title=title, columns=columns, rows=rows, heads=table.heads - 1)


def table_files(name: str, tables: Sequence[Table], rows: Sequence[Row] | None) -> dict[str, str]:
    """File name -> content: the tables as Markdown and LaTeX, and raw rows as CSV where there are some."""
    raw = {} if rows is None else {f"{name}.csv": to_csv(rows)}
    return raw | {f"{name}.md": to_markdown(tables), f"{name}.tex": to_latex(tables)}


def to_csv(rows: Sequence[Row]) -> str:
    """Raw numbers, every key a column in order of first appearance; what is absent stays empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _raw(v) for k, v in row.items()} for row in rows)
    return text.getvalue()


def _raw(value: Any) -> Any:
    return "" if value is None else repr(value) if isinstance(value, float) else value


def to_markdown(tables: Sequence[Table]) -> str:
    parts = []
    for table in tables:
        lines = [f"### {_md(table.title)}", "", _md_row(table.columns)]
        lines.append("|" + "|".join([" --- "] * len(table.columns)) + "|")
        for row in table.rows:
            lines.append(_md_row([f"**{c.plain}**" if c.strong else c.plain for c in row]))
        parts.append("\n".join(lines + (["", _md(table.note)] if table.note else [])))
    return "\n\n".join(parts) + "\n"


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_md(cell) for cell in cells) + " |"


def _md(text: str) -> str:
    return re.sub(r"([|<>_])", r"\\\1", text).replace("\n", " ")


def to_latex(tables: Sequence[Table]) -> str:
    """One floating table each, shrunk if wider than the text; needs the packages booktabs and graphicx."""
    return "% needs \\usepackage{booktabs,graphicx}\n" + "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    caption = f"{table.title}. {table.note}".strip() if table.note else table.title
    align = "l" * table.heads + "r" * (len(table.columns) - table.heads)
    lines = [
        r"\begin{table}[htbp]", r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{tex(caption)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{" rf"\begin{{tabular}}{{{align}}}",
        r"\toprule", " & ".join(tex(name) for name in table.columns) + r" \\", r"\midrule",
    ]  # fmt: skip
    for i, row in enumerate(table.rows):
        if i and table.heads > 1 and row[0] != table.rows[i - 1][0]:
            lines.append(r"\addlinespace")
        cells = [rf"\textbf{{{tex(cell.plain)}}}" if cell.strong else tex(cell.plain) for cell in row]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def tex(text: str) -> str:
    """Escape for LaTeX; the signs of a rule, such as "kl >= 2", become those of print."""
    text = text.replace(">=", "≥").replace("<=", "≤").replace("!=", "≠")
    after_a_row = "{}" if text.startswith(("[", "*")) else ""  # which `\\` takes for its own argument
    return after_a_row + "".join(_TEX.get(letter, letter) for letter in text)
