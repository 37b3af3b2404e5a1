"""Tables of every dialect give the same text."""

from __future__ import annotations

import datetime

import openpyxl
import pytest

from trabecula.errors import InputError
from trabecula.spreadsheet import read_sheet, read_table, row_numbers

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


@pytest.mark.parametrize(
    ("content", "names", "said"),
    [
        (b",a,b\n0,x,1\n1,y,2\n", ["a", "b"], "counts the rows from 0 to 1"),  # pandas
        (b'"","a","b"\n"1","x",1\n"2","y",2\n', ["a", "b"], "counts the rows from 1 to 2"),  # R
        (b",a,b\n1,x,1\n0,y,2\n", ["a", "b"], "counts the rows"),  # after a shuffle
        (b"a,,b\nx,,1\ny,,2\n", ["a", "b"], ""),
    ],
)
def test_columns_without_a_name_that_say_nothing_are_left_out(tmp_path, content, names, said):
    (tmp_path / "t.csv").write_bytes(content)
    sheet = read_sheet(tmp_path / "t.csv")
    assert list(sheet.table.columns) == names
    assert sheet.table.to_numpy().tolist() == [["x", "1"], ["y", "2"]]
    assert said in "".join(sheet.notes)
    assert bool(said) == bool(sheet.notes)


@pytest.mark.parametrize("first", [b"7,8", b"0,5", b"0,0", b"p,q", b"2,3"])
def test_a_column_without_a_name_that_may_say_something_is_refused(tmp_path, first):
    one, other = first.split(b",")
    (tmp_path / "t.csv").write_bytes(b",a\n" + one + b",x\n" + other + b",y\n")
    with pytest.raises(
        InputError, match="column 1 has no name in the header; write a name into its first cell"
    ):
        read_table(tmp_path / "t.csv")


def test_rows_are_counted_as_in_a_spreadsheet_program(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'\n\na,b\n\n1,"x\ny"\n,\n2,z\n')
    sheet = read_sheet(tmp_path / "t.csv")
    assert sheet.rows == (5, 7)
    assert sheet.table["a"].tolist() == ["1", "2"]
    book = openpyxl.Workbook()
    book.active.title = "Grades"
    for row in ([], ["a"], [None], ["1"], [], ["2"]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    sheet = read_sheet(tmp_path / "t.xlsx")
    assert (sheet.rows, sheet.name) == ((4, 6), f"{tmp_path / 't.xlsx'}, sheet 'Grades'")


def test_missing_values_of_sas(tmp_path):
    (tmp_path / "t.csv").write_text(
        "a\n.: Missing Form/Incomplete Workbook\n0: Normal\n.A: Not Expected\n.5\n"
    )
    assert read_table(tmp_path / "t.csv")["a"].tolist() == ["0: Normal", ".5"]


def test_missing_and_false_xlsx(tmp_path):
    with pytest.raises(InputError, match="no such table"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.xlsx").write_bytes(b"a,b\n")
    with pytest.raises(InputError, match=r"not a readable \.xlsx"):
        read_table(tmp_path / "t.xlsx")


def test_row_numbers():
    assert row_numbers([7]) == "row 7 has"
    assert row_numbers([1, 2, 3, 4, 5, 6, 7]) == "rows 1, 2, 3, 4, 5 and 2 more have"
