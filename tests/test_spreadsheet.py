"""Tables of every dialect give the same text."""

from __future__ import annotations

import datetime

import openpyxl
import pytest

from trabecula.errors import InputError
from trabecula.spreadsheet import read_table, row_numbers

HEADER, ROWS = ["patient_id", "name", "kl"], [["0012", "Müller; A", "2"], ["0013", "", "NA"]]


def written(delimiter, encoding, newline="\n", quote=True):
    lines = [HEADER, *ROWS]
    text = newline.join(
        delimiter.join(f'"{cell}"' if quote and delimiter in cell else cell for cell in line)
        for line in lines
    )
    return (text + newline).encode(encoding)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_dialects(tmp_path, delimiter, encoding, newline):
    path = tmp_path / "t.csv"
    path.write_bytes(written(delimiter, encoding, newline))
    table = read_table(path)
    assert list(table.columns) == HEADER
    assert table.to_numpy().tolist() == [["0012", "Müller; A", "2"], ["0013", "", ""]]


def test_separator_line_and_blank_lines(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"sep=;\r\na;b,c\r\n\r\n1;2\r\n;\r\n3\r\n")
    table = read_table(path)
    assert list(table.columns) == ["a", "b,c"]
    assert table.to_numpy().tolist() == [["1", "2"], ["3", ""]]
    assert list(table.index) == [0, 1]


def test_xlsx(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["patient_id", "code", "kl", "date", "yes", "empty"])
    sheet.append(["0012", 7, 2.0, datetime.datetime(2020, 3, 1), True, None])
    sheet["B2"].number_format = "0000"
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx")
    assert table.to_numpy().tolist() == [["0012", "0007", "2", "2020-03-01", "1", ""]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; its first row must name the columns"),
        (b"a,b,a\n1,2,3\n", "names 'a' more than once"),
        (b"a,,c\n1,2,3\n", "column 2 has no name"),
        (b"a,b\n1,2\n1,2,3\n4,5\n6,7,8\n", "rows 3, 5 have more cells than the header's 2 columns"),
        (b"PK\x03\x04\x00\x00", "is not a text table"),
    ],
)
def test_bad_tables(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(path)


def test_missing_and_false_xlsx(tmp_path):
    with pytest.raises(InputError, match="no such table"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.xlsx").write_bytes(b"a,b\n")
    with pytest.raises(InputError, match=r"not a readable \.xlsx"):
        read_table(tmp_path / "t.xlsx")


def test_row_numbers():
    assert row_numbers([7]) == "row 7 has"
    assert row_numbers([1, 2, 3, 4, 5, 6, 7]) == "rows 1, 2, 3, 4, 5 and 2 more have"
