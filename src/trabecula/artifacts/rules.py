"""Rules on a table's cells: one comparison or several joined by "and".

`kl >= 2`, `kl in 0,1,2 and side == L`, `age != ''`. Comparison is numeric where the rule gives a
number, else by text, in which case and blanks do not count; nothing is evaluated as code. A column whose name
holds signs or " and " stands in backticks.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trabecula.artifacts.label_values import counted, missing_codes, number, same
from trabecula.config import suggest
from trabecula.errors import InputError
from trabecula.spreadsheet import images_named, row_numbers

_COMPARE: Mapping[str, Any] = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_CLAUSE = re.compile(r"\s*(`[^`]+`|[^<>=!`]+?)\s*(>=|<=|==|!=|>|<|=|\bnot in\b|\bin\b)\s*(.*?)\s*", re.S)
_QUOTED = re.compile(r"(?<!\w)'[^']*'|(?<!\w)\"[^\"]*\"")  # not the apostrophe of "patient's age"
_SET_ASIDE = re.compile(rf"`[^`]*`|{_QUOTED.pattern}")  # may hold " and "
FIRST_ROW = 2  # a table's first row of values, counted as a spreadsheet does


@dataclass(frozen=True)
class Clause:
    """One comparison of a column with values."""

    column: str
    sign: str
    values: tuple[str, ...]

    def fits(self, cell: str) -> bool:
        """Whether the cell can be compared: an order needs numbers on both sides, or on neither."""
        ordered = self.sign in _COMPARE
        return not (ordered and cell and number(self.values[0]) is not None and number(cell) is None)

    def holds(self, cell: str) -> bool:
        if compare := _COMPARE.get(self.sign):
            bound = number(self.values[0])
            if bound is None:
                return bool(cell and compare(cell, self.values[0]))
            value = number(cell)
            return value is not None and bool(compare(value, bound))
        among = any(same(cell, value) for value in self.values)
        return among if self.sign in ("==", "in") else not among


@dataclass(frozen=True)
class Rule:
    """Clauses that must all hold."""

    text: str
    clauses: tuple[Clause, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(clause.column for clause in self.clauses))

    def holds(
        self,
        table: pd.DataFrame,
        among: npt.ArrayLike = True,
        where: str = "",
        rows: Sequence[int] = (),
    ) -> npt.NDArray[np.bool_]:
        """Where the rule holds, (n,), `among` these rows; an empty cell satisfies only `== ''`, `!= value`.

        A cell of these rows that is compared as a number and is none is refused; the message begins with
        `where` and gives the images and `rows`, the numbers of the table's rows in their file.
        """
        result = np.array(np.broadcast_to(among, len(table)), dtype=bool)
        asked = np.flatnonzero(result)
        for clause in self.clauses:
            cells = cells_of(table, clause.column, f"rule '{self.text}'")
            bad = [int(i) for i in asked if not clause.fits(cells[i])]
            if bad:
                values = sorted({cells[i] for i in bad})[:5]
                start = f"{where}: " if where else ""
                raise InputError(
                    f"{start}rule '{self.text}': {rows_have(bad, rows)} no number in '{clause.column}' "
                    f"({', '.join(map(repr, values))}); correct these cells, or empty them to leave them out"
                    f"{of_images(table, bad)}"
                )
            known = {cell: clause.holds(cell) for cell in set(cells)}
            result &= np.array([known[cell] for cell in cells], dtype=bool)
        return result

    def check_codes(
        self, table: pd.DataFrame, among: npt.ArrayLike, where: str, kept: npt.ArrayLike = True
    ) -> None:
        """Refuse to compare numbers where one that is far from the others, such as 9, may mean "not known".

        A value that the rule names itself is taken for a number. `kept`: where the rule only chooses rows,
        those that it keeps; a code in none of them is left out, as it should be.
        """
        rows = np.flatnonzero(np.broadcast_to(among, len(table)))
        stays = np.broadcast_to(kept, len(table))
        for clause in self.clauses:
            if all(number(value) is None for value in clause.values):
                continue
            column = clause.column
            name = column if column.isidentifier() else f"`{column}`"
            cells = cells_of(table, column, f"rule '{self.text}'")
            named = [value for one in self.clauses if one.column == column for value in one.values]
            far = missing_codes(counted(cells[i] for i in rows))
            for code in [code for code in far if not any(same(code, value) for value in named)]:
                bad = [int(i) for i in rows if stays[i] and same(cells[i], code)]
                if not bad:
                    continue
                others = [size for i in rows if (size := number(cells[i])) is not None]
                sign = "<=" if float(code) >= max(others) else ">="
                raise InputError(
                    f"{where}: rule '{self.text}': '{column}' is {code} in {len(bad)} rows, far from its "
                    "other values, and the rule would take it for a number; if it means that the value is "
                    "not known, empty these cells, or leave them out with the task's "
                    f'eligible = "{name} != {code}"; if it is a '
                    f"value, say so in the rule: {name} {sign} {code}{of_images(table, bad)}"
                )


def rows_have(positions: Sequence[int], rows: Sequence[int] = ()) -> str:
    """Rows of a table for a person, "row 7 has"; `rows`: numbers in the file, 0 where there is none."""
    known = [rows[i] if rows else i + FIRST_ROW for i in positions]
    numbers = sorted(set(known) - {0})
    if not numbers:
        return f"{len(known)} image{'s have' if len(known) > 1 else ' has'}"
    return row_numbers(numbers)


def of_images(table: pd.DataFrame, positions: Sequence[int]) -> str:
    """The tail of a message that names the images of these rows."""
    if "image_id" not in table.columns:
        return ""
    return f" ({images_named([str(table['image_id'].iloc[i]) for i in positions])})"


def parse_rule(text: str) -> Rule:
    """Read a rule, refusing one of which a part is no comparison."""
    quoted = _SET_ASIDE.findall(text)
    bare = _SET_ASIDE.sub("\0", text)
    left = iter(quoted)
    parts = [re.sub("\0", lambda _: next(left), part) for part in re.split(r"\s+and(?:\s+|$)", bare)]
    return Rule(text.strip(), tuple(_clause(part, text) for part in parts))


def _clause(part: str, rule: str) -> Clause:
    found = _CLAUSE.fullmatch(part)
    ordered = found is not None and found[2] in _COMPARE
    if (
        not found
        or not found[3]
        or found[3][0] in "<>=!"  # a sign people mistype, such as kl => 2
        or (ordered and not _QUOTED.fullmatch(found[3]) and number(found[3]) is None)
    ):
        raise InputError(
            f"rule '{rule}': '{part.strip()}' is no comparison; write for example kl >= 2, "
            "kl in 0,1,2 or kl != ''; a column whose name holds signs or 'and' stands in backticks"
        )
    sign = {"=": "=="}.get(found[2], found[2])
    raw = found[3].split(",") if sign in ("in", "not in") else [found[3]]
    values = tuple(value.strip().strip("'\"") for value in raw)
    return Clause(found[1].strip("`").strip(), sign, values)


def cells_of(table: pd.DataFrame, column: str, where: str) -> list[str]:
    """A column's cells; `where`: what lacks it if there is none."""
    if column not in table.columns and f"`{column}`" in table.columns:  # backticks that are of the name
        column = f"`{column}`"
    if column not in table.columns:
        known = [str(name) for name in table.columns]
        raise InputError(f"{where}: no column '{column}' in the manifest{suggest(column, known)}")
    return [str(cell) for cell in table[column]]
