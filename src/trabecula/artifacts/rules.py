"""Rules on a table's cells: one comparison or several joined by "and".

`kl >= 2`, `kl in 0,1,2 and side == L`, `age != ''`. Comparison is numeric where the rule gives a
number, else by text; nothing is evaluated as code.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from trabecula.config import suggest
from trabecula.errors import InputError
from trabecula.spreadsheet import row_numbers

_COMPARE: Mapping[str, Any] = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_CLAUSE = re.compile(r"\s*(`[^`]+`|[^<>=!`]+?)\s*(>=|<=|==|!=|>|<|=|\bnot in\b|\bin\b)\s*(.*?)\s*", re.S)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
FIRST_ROW = 2  # a table's first row of values, counted as a spreadsheet does


def number(text: str) -> float | None:
    """A cell as a number, None where it is none ("", "nan", "A")."""
    return float(text) if _NUMBER.fullmatch(text) else None


def same(cell: str, value: str) -> bool:
    """Equal as numbers where both are numbers ("2.0" and "2"), else equal as text."""
    a, b = number(cell), number(value)
    return a == b if a is not None and b is not None else cell == value


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
        self, table: pd.DataFrame, among: npt.ArrayLike = True, where: str = ""
    ) -> npt.NDArray[np.bool_]:
        """Where the rule holds, (n,), `among` these rows; an empty cell satisfies only `== ''`, `!= value`.

        A cell of these rows that is no number and is compared as one is refused, beginning with `where`.
        """
        result = np.array(np.broadcast_to(among, len(table)), dtype=bool)
        asked = np.flatnonzero(result)
        for clause in self.clauses:
            cells = cells_of(table, clause.column, f"rule '{self.text}'")
            bad = [int(i) for i in asked if not clause.fits(cells[i])]
            if bad:
                values = sorted({cells[i] for i in bad})[:5]
                raise InputError(
                    f"{where + ': ' if where else ''}rule '{self.text}': "
                    f"{row_numbers([i + FIRST_ROW for i in bad])} no number in '{clause.column}' "
                    f"({', '.join(map(repr, values))}); correct these cells, or empty them to leave them out"
                )
            known = {cell: clause.holds(cell) for cell in set(cells)}
            result &= np.array([known[cell] for cell in cells], dtype=bool)
        return result


def parse_rule(text: str) -> Rule:
    """Read a rule, refusing one of which a part is no comparison."""
    quoted = _QUOTED.findall(text)  # set aside: it may hold " and "
    bare = _QUOTED.sub("\0", text)
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
            "kl in 0,1,2 or kl != ''"
        )
    sign = {"=": "=="}.get(found[2], found[2])
    raw = found[3].split(",") if sign in ("in", "not in") else [found[3]]
    values = tuple(value.strip().strip("'\"") for value in raw)
    return Clause(found[1].strip("`").strip(), sign, values)


def cells_of(table: pd.DataFrame, column: str, where: str) -> list[str]:
    """A column's cells; `where`: what lacks it if there is none."""
    if column not in table.columns:
        known = [str(name) for name in table.columns]
        raise InputError(f"{where}: no column '{column}' in the manifest{suggest(column, known)}")
    return [str(cell) for cell in table[column]]
