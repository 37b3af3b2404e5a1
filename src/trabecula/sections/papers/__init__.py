"""Papers whose tables and figures stand beside a study's, clearly marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trabecula.figures.charts import Chart
from trabecula.sections.formats import Table, to_csv, to_latex, to_markdown
from trabecula.sections.results import Row


@dataclass(frozen=True)
class Beside:
    """A paper's section of the page: its name there, its file name, and what it shows.

    content: what its template (`papers/FILE.html.j2`) reads. rows: raw values of its tables, for CSV.
    """

    name: str
    file: str
    tables: Sequence[Table]
    content: Any
    charts: Sequence[Chart] = ()
    rows: Sequence[Row] = ()

    @property
    def template(self) -> str:
        return f"papers/{self.file}.html.j2"

    @property
    def files(self) -> dict[str, str]:
        """Its tables by file name."""
        found = {f"{self.file}.csv": to_csv(self.rows)} if self.rows else {}
        return found | {
            f"{self.file}.md": to_markdown(self.tables),
            f"{self.file}.tex": to_latex(self.tables),
        }
