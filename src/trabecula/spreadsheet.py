"""Tables: read as people keep them (CSV of any dialect, or .xlsx), every cell as text; written as CSV.

Nothing is guessed about values: ids keep their leading zeros, and what a program wrote for "no
value" (empty, NA, NaN, NULL ...) becomes the empty text.
"""

from __future__ import annotations

import csv
import datetime
import io
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from trabecula.errors import InputError

_NO_VALUE = {"", "na", "n/a", "#n/a", "nan", "null", "<na>"}


def read_table(path: Path) -> pd.DataFrame:
    """Read a table: columns and cells are stripped text, "" where there is no value, index 0..n-1.

    Comma, semicolon or tab (seen in the header); UTF-8 with or without a byte-order mark, else Windows-1252;
    or the first sheet of an .xlsx file. An InputError unless the header names each column, and each once.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such table")
    rows = _read_xlsx(path) if path.suffix.lower() in (".xlsx", ".xlsm") else _read_csv(path)
    if not rows or not any(cell.strip() for cell in rows[0]):
        raise InputError(f"{path}: is empty; its first row must name the columns")
    names = [name.strip() for name in rows[0]]
    while names and not names[-1]:
        names.pop()
    if unnamed := [str(i + 1) for i, name in enumerate(names) if not name]:
        raise InputError(f"{path}: column {', '.join(unnamed)} has no name in the header")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        names_twice = ", ".join(f"'{name}'" for name in twice)
        raise InputError(f"{path}: the header names {names_twice} more than once; rename one of them")
    cells, bad = [], []
    for number, row in enumerate(rows[1:], start=2):  # the header is row 1, as in a spreadsheet program
        values = ["" if cell.strip().lower() in _NO_VALUE else cell.strip() for cell in row]
        if not any(values):
            continue
        if any(values[len(names) :]):
            bad.append(number)
        cells.append((values + [""] * len(names))[: len(names)])
    if bad:
        raise InputError(f"{path}: {row_numbers(bad)} more cells than the header's {len(names)} columns")
    return pd.DataFrame(cells, columns=names, dtype="str")


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """The text of a CSV file: commas, "\\n" at line ends, quotes only where they are needed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def table_text(table: pd.DataFrame) -> str:
    """A table of text as the text of a CSV file, without its index."""
    return csv_text(table.columns, table.itertuples(index=False, name=None))


def row_numbers(rows: list[int]) -> str:
    """Row numbers for a person: "row 7 has", "rows 3, 4, 9 and 12 more have"."""
    shown = ", ".join(str(row) for row in rows[:5])
    if len(rows) == 1:
        return f"row {shown} has"
    return f"rows {shown}{f' and {len(rows) - 5} more' if len(rows) > 5 else ''} have"


def _read_csv(path: Path) -> list[list[str]]:
    data = path.read_bytes()
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in data[:4096] and not utf16:
        raise InputError(f"{path}: is not a text table; save it as CSV or .xlsx")
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        if utf16:
            raise InputError(f"{path}: not a readable text table; save it as CSV or .xlsx") from None
        text = data.decode("cp1252", errors="replace")
    if sep := re.match(r"sep=(.)\r?\n", text):  # a line that spreadsheet programs write for each other
        text, delimiter = text[sep.end() :], sep[1]
    else:  # the one that the header holds most often, outside quotes
        header = re.sub(r'"[^"]*"', "", text.lstrip("\r\n").split("\n", 1)[0])
        delimiter = max(",;\t", key=header.count)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"{path}: not a readable CSV table: {error}") from None


def _read_xlsx(path: Path) -> list[list[str]]:
    import openpyxl  # slow to import, and few tables need it

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable .xlsx file ({error}); save it again, or as CSV") from None
    try:
        rows = book.worksheets[0].iter_rows()
        return [[_cell_text(cell.value, cell.number_format) for cell in row] for row in rows]
    finally:
        book.close()


def _cell_text(value: Any, number_format: str | None) -> str:
    """A cell as its sheet shows it: 12 formatted "0000" is "0012", 3.0 is "3"."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and number_format and re.fullmatch(r"0{2,}", number_format):
        return str(value).zfill(len(number_format))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()
    return value.isoformat() if isinstance(value, datetime.date) else str(value)
