"""Rows of a table find their images however their paths are written, and never another image."""

from __future__ import annotations

import json
import os
import unicodedata

import openpyxl
import pytest

from trabecula import cohort
from trabecula.artifacts.manifest import read_manifest
from trabecula.cohorts.folder import list_files
from trabecula.cohorts.joining import by_path, without_suffix
from trabecula.config import build
from trabecula.errors import InputError
from trabecula.run import execute

FILES = ["a/1.png", "a/2.png", "b/3.png"]


@pytest.fixture
def films(tmp_path):
    return touched(tmp_path / "films", *FILES)


def touched(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def go(root, content=None, **values):
    if content is not None:
        values["table"] = root.parent / "t.csv"
        values["table"].write_text(content)
    return execute("cohort", build(cohort.Config, {"root": root, **values}, "cohort"), root.parent / "out")


def got(root, *columns):
    table = read_manifest(root.parent / "out").table
    return list(zip(*(table[name] for name in columns), strict=True))


# ---- paths of a table


@pytest.mark.parametrize(
    "cell",
    [
        "{}.png", "./{}.png", "{}", "{}.PNG", "{}.dcm", "{}.dcm.png", "/data/ward/{}.png",
        "study/films/{}.png",
        "D:\\study\\{}.png", "D:\\study\\{}.dcm", "\\\\server\\share\\{}.tiff", "../../x/{}.jpeg",
    ],
)  # fmt: skip
def test_the_longest_common_end_of_a_path_joins(films, cell):
    cells = [cell.format(name.removesuffix(".png")) for name in FILES]
    if "\\" in cell:
        cells = [text.replace("/", "\\") for text in cells]
    rows = [f"{text},p{k},{k}" for k, text in enumerate(cells)]
    go(films, "\n".join(["file,patient_id,kl", *rows]))
    assert got(films, "patient_id", "kl") == [("p0", "0"), ("p1", "1"), ("p2", "2")]


def test_paths_that_are_written_otherwise_are_said(films):
    said = go(films, "file,patient_id\n/x/a/1.png,p0\n/x/a/2.png,p1\n/x/b/3.png,p2\n")
    assert "3 rows are joined to images by the ends of their paths ('/x/a/1.png' is 'a/1.png')" in said


@pytest.mark.parametrize(
    ("files", "cells", "expected"),
    [
        (["x/1.png", "y/1.png"], ["old/x/1.png", "old/y/1.png"], [0, 1]),
        (["x/1.png", "y/1.png"], ["q/x/1.dcm", "q/y/1.dcm"], [0, 1]),
        (["p1/s1/i.png", "p2/s1/i.png"], ["p1/s1/i.png", "p3/s1/i.png"], [0, -1]),  # never the image of p2
        (["p7/s3/i.png", "p2/s1/i.png"], ["p9/s3/i.png", "p2/s1/i.png"], [-1, 1]),
        (["1.png", "z/1.png"], ["1.png", "z/1.png"], [0, 1]),
        (["1.png"], ["1.png", "z/1.png"], [0]),  # the row that says it exactly
        (["new/1.png", "new/2.png"], ["old/1.png", "old/2.png"], [0, 1]),  # a folder of another name
        (["1.png", "1.jpg"], ["1.png", "1.jpg"], [0, 1]),
        (["A1.PNG", "a2.png"], ["a1.png", "A2.png"], [0, 1]),
        ([unicodedata.normalize("NFD", "Jörg.png")], [unicodedata.normalize("NFC", "Jörg.png")], [0]),
        ([unicodedata.normalize("NFC", "Jörg.png")], [unicodedata.normalize("NFD", "jörg")], [0]),
    ],
)  # fmt: skip
def test_which_row_an_image_gets(files, cells, expected):
    assert by_path("path", files, cells, "t").rows == expected


@pytest.mark.parametrize(
    ("files", "cells"),
    [(["x/1.png", "y/1.png"], ["1.png", "2.png"]), (["x/1.png", "y/1.png"], ["1", "1"]),
     (["1.png", "1.jpg"], ["1", "2"]),
     (["x/1.png", "y/1.png", "z/2.png"], ["x/1.png", "q/w/2.png", "1.png"])],
)  # fmt: skip
def test_a_name_that_two_images_have_is_refused(files, cells):
    with pytest.raises(InputError, match="share a name; write the path below the root in the table"):
        by_path("path", files, cells, "t")


@pytest.mark.parametrize(
    ("name", "bare"),
    [("1.2.840.113", "1.2.840.113"), ("1.2.840.113.png", "1.2.840.113"), ("a_v1.5.PNG", "a_v1.5"),
     ("a.dcm.png", "a"), ("a.nii.gz", "a"), ("x.y/a", "x.y/a"), (".png", ".png"), ("a.report", "a.report")],
)  # fmt: skip
def test_only_an_ending_of_images_is_an_ending(name, bare):
    assert without_suffix(name) == bare


def test_a_column_that_names_the_files_is_suggested(films):
    with pytest.raises(
        InputError, match=r"name the column of file names with -s columns\.path=SOPInstanceUID"
    ):
        go(films, "SOPInstanceUID,patient_id\n1,p\n2,p\n3,q\n")


def test_uids_in_a_column_of_image_ids(tmp_path):
    names = [f"1.2.276.0.{k}" for k in range(3)]
    root = touched(tmp_path / "films", *(f"{name}.png" for name in names))
    go(root, "\n".join(["image_id,patient_id", *(f"{name},p{k}" for k, name in enumerate(names))]))
    assert got(root, "image_id", "patient_id") == [(name, f"p{k}") for k, name in enumerate(names)]


# ---- folders


def test_linked_folders_are_followed_and_loops_are_not(tmp_path):
    touched(tmp_path / "real", "0/a.png", "0/b.png", "1/c.png")
    root = touched(tmp_path / "films", "2/d.png")
    (root / "0").symlink_to("../real/0")
    (root / "1").symlink_to(tmp_path / "real" / "1")
    (root / "2" / "up").symlink_to("..")
    (tmp_path / "real" / "1" / "back").symlink_to(root)
    (root / "2" / "ring").symlink_to("../2")
    assert list_files(root) == ["0/a.png", "0/b.png", "1/c.png", "2/d.png"]
    assert go(root).startswith("4 images of 4 patients")
    assert got(root, "label") == [("0",), ("0",), ("1",), ("2",)]


def test_a_file_under_two_paths_is_counted_once_and_said(tmp_path):
    root = touched(tmp_path / "films", "x/p1.png", "x/p2.png")
    (root / "y").symlink_to("x")
    said = go(root, pattern="*/{patient_id}.png")
    assert said == (
        "2 images of 2 patients; 2 paths are links to files that are there already, and are not counted "
        "('y/p1.png' is 'x/p1.png')"
    )


def test_a_file_whose_paths_contradict_each_other_is_refused(tmp_path):
    root = touched(tmp_path / "films", "0/p1.png", "0/p2.png")
    (root / "1").mkdir()
    (root / "1" / "p2.png").symlink_to("../0/p2.png")
    with pytest.raises(InputError, match=r"'0/p2.png' and '1/p2.png' are one file .* say label '0' and '1'"):
        go(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_said(films):
    (films / "a").chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        go(films)


def test_decomposed_names_match_a_typed_pattern(tmp_path):
    root = touched(
        tmp_path / "films", *(unicodedata.normalize("NFD", f"Röntgen_{p}.png") for p in ("ä1", "b2"))
    )
    go(root, pattern=unicodedata.normalize("NFC", "Röntgen_{patient_id:2}.png"))
    assert got(root, "patient_id") == [("b2",), (unicodedata.normalize("NFC", "ä1"),)]
    manifest = read_manifest(tmp_path / "out")
    assert all(manifest.resolve(row).is_file() for row in range(2))


# ---- several rows an image


def test_rows_that_agree_are_one_and_boxes_are_left_out(films):
    content = "file,patient_id,x,y,width,height,Target\n1.png,p,1,2,3,4,1\n1.png,p,5,2,3,4,1\n2.png,q,,,,,0\n"
    said = go(films, content)
    assert "1 images have several rows that agree but for their boxes (x, y, width, height)" in said
    assert not {"x", "y", "width", "height"} & set(read_manifest(films.parent / "out").table.columns)
    assert got(films, "Target") == [("1",), ("0",)]


def test_rows_of_one_image_that_differ_are_refused_with_the_column(films):
    with pytest.raises(InputError, match=(
        r"t\.csv: path '1\.png' is in rows 2, 4; they differ in 'finding' \('Mass', 'Nodule'\); the table "
        r"needs one row an image"
    )):  # fmt: skip
        go(films, "file,patient_id,finding\n1.png,p,Mass\n\n1.png,p,Nodule\n2.png,q,Mass\n")


# ---- tables without a header, rows of the user's file, and values


@pytest.mark.parametrize(
    "content",
    ["TRAIN,1.png,0\nTRAIN,2.png,1\nTEST,3.png,1\n", "1.png,Normal\n2.png,Normal\n3.png,Benign\n",
     "1.png,0,0\n2.png,1,0\n3.png,1,1\n"],
)  # fmt: skip
def test_a_table_without_a_header_is_refused_as_such_and_read_by_number(films, content):
    with pytest.raises(
        InputError, match=r"t\.csv: has no header: its first row is data \(.*'1\.png'\); write"
    ):
        go(films, content, pattern="*/{patient_id}.png")
    path, label = ("2", "3") if content.startswith("TRAIN") else ("1", "2")
    go(films, content, pattern="*/{patient_id}.png", columns={"path": path, "label": label})
    cells = [line.split(",")[int(label) - 1] for line in content.split()]
    assert got(films, "patient_id", "label") == [(str(k + 1), cell) for k, cell in enumerate(cells)]


def test_rows_are_those_of_the_users_sheet(films):
    book = openpyxl.Workbook()
    book.active.title = "Grades"
    rows = [
        ["file", "patient_id", "kl", "note"],
        ["1.png", "p", 0, "two\nlines"],
        [None],
        ["2.png", "q", 1, ""],
    ]
    for row in [*rows, ["3.png", "r", "x", ""]]:
        book.active.append(row)
    book.save(films.parent / "t.xlsx")
    values = {"table": films.parent / "t.xlsx", "tasks": {"oa": {"positive": "kl >= 1"}}}
    with pytest.raises(InputError, match=(
        r"t\.xlsx, sheet 'Grades': task 'oa': rule 'kl >= 1': row 5 has no number in 'kl' \('x'\)"
        r".*\(image 'r'\)"
    )):  # fmt: skip
        go(films, **values)


def test_rows_of_a_csv_count_as_in_a_spreadsheet_program(films):
    content = 'file,patient_id,kl,note\n\n1.png,p,0,"two\nlines"\n2.png,q,1,\n3.png,a,5,\n'
    grade = {"kind": "ordinal", "labels": ["kl"], "classes": ["0", "1"]}
    with pytest.raises(InputError, match=(
        r"t\.csv: task 'g': column 'kl': row 5 has a label outside the task \('5'\); allowed: 0, 1 "
        r"\(image 'a'\)"
    )):  # fmt: skip
        go(films, content, tasks={"g": grade})


def test_values_are_counted_and_a_far_one_is_named(films, capsys):
    said = go(films, "file,patient_id,kl,done\n1.png,p,0,Yes\n2.png,q,1,yes\n3.png,r,22,\n")
    printed = capsys.readouterr().err
    assert "images by kl: 0: 1, 1: 1, 22: 1\n" in printed
    assert "images by done: Yes: 2, empty: 1\n" in printed
    assert "column 'kl': 22 is far from the other values (image 'r')" in said
    assert "'Yes' and 'yes' of column 'done' are read as one value" in said


def of_cells(root, *cells):
    """A table of images with these cells, and the images."""
    rows = [f"{i}.png,p{i},{cell}" for i, cell in enumerate(cells)]
    touched(root, *(row.split(",")[0] for row in rows))
    return "\n".join(["file,patient_id,x", *rows])


def test_a_tasks_own_column_is_counted_however_many_values_it_has(tmp_path, capsys):
    ages = [age for age in range(40, 80) for _ in range(2)]
    content = of_cells(tmp_path / "films", *ages, 20, 22, "")
    go(tmp_path / "films", content, tasks={"old": {"positive": "x >= 60"}})
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("images by x: "))
    assert line.startswith("images by x: 20: 1, 22: 1, 40: 2, ")
    assert line.endswith("79: 2, and 18 more values, empty: 1")
    assert line.count(": ") == 1 + 24 + 1
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    values = next(record for record in log if record.get("column") == "x")
    assert (len(values["images"]), values["more"], values["images"]["22"]) == (24, 18, 1)


def test_columns_of_many_tasks_are_all_counted(films, capsys):
    names = [f"f{k}" for k in range(25)]
    rows = ["file,patient_id," + ",".join([*names, "note"])]
    rows += [f"{name},p{i}," + ",".join(str((i + k) % 2) for k in range(25)) + ",a"
             for i, name in enumerate(FILES)]  # fmt: skip
    go(films, "\n".join(rows), tasks={"f": {"kind": "multilabel", "labels": names}})
    printed = capsys.readouterr().err
    assert all(f"images by {name}: 0: " in printed for name in names)
    assert "images by note" not in printed
    assert "and 2 more columns of few values" in printed  # the file is one


def test_findings_of_one_column_are_counted_one_by_one(tmp_path, capsys):
    cells = ["Mass|Effusion", "mass", "No Finding", "Effusion | Hernia", "Mass|Hernia", ""]
    content = of_cells(tmp_path / "films", *cells)
    task = {"kind": "multilabel", "labels": ["x"], "separator": "|", "classes": ["Mass", "Effusion"]}
    said = go(tmp_path / "films", content, tasks={"t": {**task, "ignored": ["Hernia"]}})
    line = "images by x: Effusion: 2, Hernia: 2, Mass: 3, No Finding: 1, empty: 1\n"
    assert line in capsys.readouterr().err
    assert "'Mass' and 'mass' of column 'x' are read as one value" in said
