"""Tables: read as people keep them (CSV of any dialect, or .xlsx), every cell as text; written as CSV.

Nothing is guessed about values: ids keep their leading zeros, and what a program wrote for "no
value" (empty, NA, NaN, NULL, SAS's "." and ".A: text" ...) becomes the empty text.
"""

from __future__ import annotations

import csv
import datetime
import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from trabecula.errors import InputError

_NO_VALUE = {"", "na", "n/a", "#n/a", "nan", "null", "<na>"}
_SAS_MISSING = re.compile(r"\.[A-Z_]?(: .*)?", re.S)  # ".", and OAI's ".: Missing Form/Incomplete Workbook"


IMAGE_SUFFIX = re.compile(
    r"(?<=.)(\.(png|jpe?g|tiff?|bmp|gif|webp|jp2|pgm|ppm|dcm|dicom|nii|nii\.gz|mha|mhd|nrrd|npy))+$", re.I
)
"""The ending of an image's name, doubled ones such as `.dcm.png` too; no other text behind a dot is one."""


@dataclass(frozen=True)
class Sheet:
    """A table as it was read, and where it stands in its file.

    `rows`: of each row of the table, its number as a spreadsheet program counts (blank rows count, and a
    cell of several lines is in one row). `name`: the file, and a workbook's sheet. `notes`: on what was left.
    """

    table: pd.DataFrame
    rows: tuple[int, ...]
    name: str
    notes: tuple[str, ...] = ()


def read_table(path: Path) -> pd.DataFrame:
    """The table of `read_sheet` alone."""
    return read_sheet(path).table


def read_sheet(path: Path, header: bool = True) -> Sheet:
    """Read a table: columns and cells are stripped text, "" where there is no value, index 0..n-1.

    Comma, semicolon or tab (seen in the header); UTF-8 with or without a byte-order mark, else
    Windows-1252; or the first sheet of an .xlsx file. A first column without a name that counts the rows, as
    pandas and R write it, is dropped, and so are empty columns without a name. Without `header` the first row
    is data, and the columns are called "1", "2" and so on.

    Raises:
        InputError: no such file, no header, a column named twice or not at all, rows longer than the header.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such table")
    workbook = path.suffix.lower() in (".xlsx", ".xlsm")
    sheet, cells = _read_xlsx(path) if workbook else ("", _read_csv(path))
    place = f"{path}, sheet '{sheet}'" if sheet else str(path)
    found = [(number, [_value(cell) for cell in row]) for number, row in enumerate(cells, 1)]
    found = [(number, row) for number, row in found if any(row)]
    if not found:
        raise InputError(f"{place}: is empty; its first row must name the columns")
    width = max(len(row) for _, row in found)
    if header:
        names = [cell.strip() for cell in cells[found[0][0] - 1]]
        found = found[1:]
        while names and not names[-1]:
            names.pop()
    else:
        names = [str(column + 1) for column in range(width)]
    if bad := [number for number, row in found if any(row[len(names) :])]:
        raise InputError(f"{place}: {row_numbers(bad)} more cells than the header's {len(names)} columns")
    body = [(row + [""] * len(names))[: len(names)] for _, row in found]
    dropped, notes = _nameless(names, body)
    kept = [column for column in range(len(names)) if column not in dropped]
    names = [names[column] for column in kept]
    _check_header(place, names, [column + 1 for column in kept])
    table = pd.DataFrame([[row[column] for column in kept] for row in body], columns=names, dtype="str")
    return Sheet(table, tuple(number for number, _ in found), place, notes)


def _value(cell: str) -> str:
    text = cell.strip()
    return "" if text.lower() in _NO_VALUE or _SAS_MISSING.fullmatch(text) else text


def _nameless(names: Sequence[str], body: Sequence[Sequence[str]]) -> tuple[set[int], tuple[str, ...]]:
    """Columns without a name that can be left out, and what to say of it."""
    dropped = {
        column for column, name in enumerate(names) if not name and not any(row[column] for row in body)
    }
    if names and not names[0] and 0 not in dropped:
        first = sorted(int(row[0]) if row[0].isdecimal() else -1 for row in body)
        if first in (list(range(len(body))), list(range(1, len(body) + 1))):
            said = f"the first column has no name and counts the rows from {first[0]} to {first[-1]}"
            return dropped | {0}, (f"{said}; it is left out",)
    return dropped, ()


def _check_header(place: str, names: Sequence[str], numbers: Sequence[int]) -> None:
    """Refuse a header that cannot name the columns; `numbers`: their places in the file, from 1."""
    way = (
        "write a row with the columns' names above it, or give their numbers: "
        "-s columns.path=1 -s columns.label=2"
    )
    if data := [name for name in names if IMAGE_SUFFIX.search(name)]:
        raise InputError(
            f"{place}: has no header: its first row is data (it names the file '{data[0]}'); {way}"
        )
    if unnamed := [str(number) for name, number in zip(names, numbers, strict=True) if not name]:
        raise InputError(
            f"{place}: column {', '.join(unnamed)} has no name in the header; write a name into its first "
            f"cell, or remove the column; if the first row is data, {way}"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        names_twice = ", ".join(f"'{name}'" for name in twice)
        raise InputError(
            f"{place}: the header names {names_twice} more than once; rename one of them; if the first row "
            f"is data, {way}"
        )


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """The text of a CSV file: commas, "\\n" at line ends, quotes only where they are needed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def table_text(table: pd.DataFrame) -> str:
    """A table of text as the text of a CSV file, without its index."""
    return csv_text(table.columns, table.itertuples(index=False, name=None))


def row_numbers(rows: Sequence[int]) -> str:
    """Row numbers for a person: "row 7 has", "rows 3, 4, 9 and 12 more have"."""
    shown = ", ".join(str(row) for row in rows[:5])
    if len(rows) == 1:
        return f"row {shown} has"
    return f"rows {shown}{f' and {len(rows) - 5} more' if len(rows) > 5 else ''} have"


def images_named(image_ids: Sequence[str]) -> str:
    """Images for a person: "image 'a'", "images 'a', 'b', 'c' and 12 more"."""
    shown = ", ".join(f"'{image}'" for image in image_ids[:3])
    more = f" and {len(image_ids) - 3} more" if len(image_ids) > 3 else ""
    return f"image{'s' * (len(image_ids) > 1)} {shown}{more}"


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


def _read_xlsx(path: Path) -> tuple[str, list[list[str]]]:
    """The name of the first sheet, and its cells."""
    import openpyxl  # slow to import, and few tables need it

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable .xlsx file ({error}); save it again, or as CSV") from None
    try:
        sheet = book.worksheets[0]
        rows = sheet.iter_rows()
        return sheet.title, [[_cell_text(cell.value, cell.number_format) for cell in row] for row in rows]
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
