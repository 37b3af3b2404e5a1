"""A folder, a pattern, a table: the manifest they give, and the line they give when they are bad."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest
from PIL import Image

from trabecula import cohort
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.tasks import truth
from trabecula.config import build
from trabecula.errors import InputError
from trabecula.run import execute

KNEES = Path(__file__).parents[2] / "shared" / "data" / "knee-kl"
FILES = ["007L.png", "007R.png", "012L.png", "012R.png"]
SIDED = "{patient_id:3}{side:1}.png"


@pytest.fixture
def films(tmp_path):
    """Four films of two patients."""
    root = tmp_path / "films"
    root.mkdir()
    for name in FILES:
        Image.new("L", (4, 4)).save(root / name)
    return root


def go(root, out=None, **values):
    out = out or root.parent / "out"
    return execute("cohort", build(cohort.Config, {"root": root, **values}, "cohort"), out)


def got(root, *columns):
    table = read_manifest(root.parent / "out").table
    return list(zip(*(table[name] for name in columns), strict=True))


def table(root, content, name="t.csv", encoding="utf-8"):
    path = root.parent / name
    path.write_bytes(content.encode(encoding))
    return path


# ---- what is read


def test_a_pattern(films):
    assert go(films, pattern=SIDED, name="clinic") == "4 images of 2 patients"
    assert got(films, "image_id", "patient_id", "side", "cohort") == [
        ("007L", "007", "L", "clinic"), ("007R", "007", "R", "clinic"),
        ("012L", "012", "L", "clinic"), ("012R", "012", "R", "clinic"),
    ]  # fmt: skip
    manifest = read_manifest(films.parent / "out")
    assert manifest.table["path"].iloc[0] == "../films/007L.png"
    assert manifest.resolve(3).samefile(films / "012R.png")


def test_class_folders(tmp_path):
    root = tmp_path / "classes"
    for name in ("benign/a.png", "benign/b.png", "malignant/c.jpg", "readme.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    said = go(root, tasks={"cancer": {"positive": "label == malignant"}})
    assert said == (
        "3 images of 3 patients; cancer: 3 labelled; no patient ids: each image counts as its own patient; "
        "give a pattern if that is wrong"
    )
    assert got(root, "patient_id", "label") == [("a", "benign"), ("b", "benign"), ("c", "malignant")]


def test_equal_names_in_two_class_folders_are_two_patients(tmp_path):
    root = tmp_path / "classes"
    for name in ("benign/001.png", "malignant/001.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert "2 images of 2 patients" in go(root)
    assert got(root, "patient_id", "label") == [("benign/001", "benign"), ("malignant/001", "malignant")]


def test_image_ids_tell_images_apart(tmp_path):
    root = tmp_path / "visits"
    for name in ("00/7L.png", "12/7L.png", "12/8R.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    go(root, pattern="{visit_month}/{patient_id:1}{side:1}.png")
    assert [row[0] for row in got(root, "image_id")] == ["7L_00", "7L_12", "8R_12"]
    go(root, out=tmp_path / "other", pattern="{batch}/{patient_id:1}{side:1}.png")
    ids = read_manifest(tmp_path / "other").table["image_id"].tolist()
    assert ids == ["00/7L", "12/7L", "12/8R"]


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("file,patient_id,kl\n007L.png,007,0\n007R.png,007,1\n012L.png,012,2\n012R.png,012,3\n", {}),
        ("path,Patient,kl\n./007L.png,007,0\nx\\007R.png,007,1\nx/012L.png,012,2\n012R.png,012,3\n", {}),
        ("Image Index;PatNr;kl\n007L;007;0\n007R;007;1\n012L;012;2\n012R;012;3\n",
         {"path": "Image Index", "patient_id": "PatNr"}),
        ("image_id\tpatient_id\tkl\n007L\t007\t0\n007R\t007\t1\n012L\t012\t2\n012R\t012\t3\n", {}),
    ],
)  # fmt: skip
def test_tables_joined_by_file(films, content, columns):
    go(films, table=table(films, content), columns=columns)
    assert got(films, "patient_id", "kl") == [("007", "0"), ("007", "1"), ("012", "2"), ("012", "3")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_joined_by_patient_and_side(films, delimiter, encoding):
    rows = ["ID,SIDE,kl,name", "007,1: Right,1,Müller", "007,2: Left,0,Müller", "012,right,3,", "012,left,2,"]
    content = "\n".join(row.replace(",", delimiter) for row in rows)
    path = table(films, content, encoding=encoding)
    go(films, pattern=SIDED, table=path, columns={"patient_id": "ID"})
    assert got(films, "image_id", "kl", "name") == [
        ("007L", "0", "Müller"), ("007R", "1", "Müller"), ("012L", "2", ""), ("012R", "3", ""),
    ]  # fmt: skip


def test_spellings_of_one_cohort_are_written_alike(films):
    rows = "007L.png,007,NIH\n007R.png,007,nih \n012L.png,012,Nih\n012R.png,012,MIMIC\n"
    said = go(films, table=table(films, f"file,patient_id,cohort\n{rows}"))
    assert got(films, "cohort") == [("NIH",), ("NIH",), ("NIH",), ("MIMIC",)]
    assert "cohort 'nih' is written 'NIH'; cohort 'Nih' is written 'NIH'" in said


def test_a_table_in_another_language(films):
    path = table(films, "Fall;Seite;kl\n007;links;0\n007;rechts;1\n012;links;2\n012;rechts;3\n")
    go(films, pattern=SIDED, table=path, columns={"patient_id": "Fall", "side": "Seite"})
    assert got(films, "image_id", "kl") == [("007L", "0"), ("007R", "1"), ("012L", "2"), ("012R", "3")]


def test_letters_may_stand_in_a_pattern(tmp_path):
    root = tmp_path / "films"
    root.mkdir()
    for name in ("P0007_L.png", "P0007_R.png"):
        (root / name).touch()
    go(root, out=tmp_path / "out", pattern="P{patient_id:4}_{side}.png")
    assert got(root, "image_id", "patient_id") == [("0007L", "0007"), ("0007R", "0007")]


NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"  # the comma at its end is the file's
    "00000001_000.png,Cardiomegaly,0,1,58,M,PA,2682,2749,0.143,0.143,\n"
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA,2894,2729,0.143,0.143,\n"
    "00000002_000.png,No Finding,0,2,81,M,PA,2500,2048,0.171,0.171,\n"
    "00000003_000.png,Hernia,0,3,81,F,AP,2582,2991,0.143,0.143,\n"
)
FINDINGS = {"kind": "multilabel", "labels": ["Finding Labels"], "separator": "|"}


def test_the_table_of_nih(tmp_path):
    """Data_Entry_2017.csv as it is, beside folders as they were unpacked."""
    root = tmp_path / "nih"
    for name in ("images_001/images/00000001_000.png", "images_001/images/00000001_001.png",
                 "images_002/images/00000002_000.png"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    known = {**FINDINGS, "classes": ["Cardiomegaly", "Emphysema", "Mass"], "ignored": ["Hernia"]}
    said = go(root, table=table(root, NIH), tasks={"findings": known})
    assert said == (
        "3 images of 2 patients; findings: 3 labelled, none with Mass; 1 rows of the table have no file "
        "(missing.csv)"
    )
    assert got(root, "image_id", "patient_id", "View Position", "Finding Labels")[1] == (
        "images_001/images/00000001_001", "1", "PA", "Cardiomegaly|Emphysema",
    )  # fmt: skip
    manifest = read_manifest(root.parent / "out")
    assert truth(manifest.tasks["findings"], manifest).y.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_a_finding_that_the_task_does_not_know_names_the_rows(tmp_path):
    root = tmp_path / "nih"
    root.mkdir()
    for name in ("00000001_000.png", "00000001_001.png", "00000002_000.png"):
        (root / name).touch()
    with pytest.raises(
        InputError, match=r"row 3 has a finding outside the task \('Emphysema'\); known: Card"
    ):
        go(root, table=table(root, NIH), tasks={"f": {**FINDINGS, "classes": ["Cardiomegaly", "Hernia"]}})


def test_an_xlsx_table_keeps_leading_zeros(films):
    book = openpyxl.Workbook()
    for row in (["patient_id", "age"], [7, 61], ["012", 70.5]):
        book.active.append(row)
    book.active["A2"].number_format = "000"
    book.save(films.parent / "t.xlsx")
    go(films, pattern=SIDED, table=films.parent / "t.xlsx")
    assert got(films, "patient_id", "age") == [("007", "61"), ("007", "61"), ("012", "70.5"), ("012", "70.5")]


def test_images_without_a_row_and_rows_without_an_image(films):
    path = table(films, "patient_id,side,kl\n007,L,2\n007,R,0\n012,L,1\n099,L,4\n")
    said = go(films, pattern=SIDED, table=path, tasks={"oa": {"positive": "kl >= 2"}})
    assert said == (
        "4 images of 2 patients; oa: 3 labelled; 1 images have no row in the table and stay unlabelled; "
        "1 rows of the table have no file (missing.csv)"
    )
    assert (films.parent / "out" / "missing.csv").read_text() == "row,key\n5,099 L\n"
    assert got(films, "kl") == [("2",), ("0",), ("1",), ("",)]


def test_an_image_left_out_is_not_said_to_stay(films):
    path = table(films, "file,patient_id\n007L.png,007\n007R.png,007\n012L.png,012\n")
    said = go(films, table=path)
    assert said == "3 images of 2 patients; 1 images of no known patient are left out (skipped.csv)"


def test_files_the_pattern_does_not_match_are_said(films):
    (films / "notes.txt").touch()
    assert go(films, pattern=SIDED).endswith("1 files do not match the pattern (skipped.csv)")
    assert (films.parent / "out" / "skipped.csv").read_text() == "path\nnotes.txt\n"


# ---- what is refused, in one line

ROWS = "patient_id,side,kl\n007,L,0\n007,R,1\n012,L,2\n012,R,{last}\n"
GRADE = {"kind": "ordinal", "labels": ["kl"], "classes": ["0", "1", "2"]}


@pytest.mark.parametrize(
    ("content", "values", "message"),
    [
        ("patnr,side,kl\n007,L,0\n", {"pattern": ""},
         r"no column 'patient_id' \(columns: patnr, side, kl\), perhaps 'patnr'; name it with "
         r"-s columns\.patient_id=COLUMN"),
        (ROWS.format(last=3), {"columns": {"patient_id": "Patient"}},
         r"no column 'Patient' \(for patient_id\), did you mean 'patient_id'"),
        ("patient_id,side,kl\n007,L,0\n012,R,1\n7,R,1\n007,left,2\n", {},
         r"patient_id\+side '007 L' is in rows 2, 5"),
        ("patient_id,Seite,kl\n007,links,0\n007,rechts,2\n012,links,1\n", {},
         r"patient_id '007' is in rows 2, 3; if each row is of one side, name the column that says it "
         r"with -s columns\.side=COLUMN \(columns: patient_id, Seite, kl\)"),
        ("image_id,kl\n007L,0\n007R,1\n007L,2\n", {}, r"image_id '007L' is in rows 2, 4"),
        ("patient_id,side,kl\n7,L,0\n12,R,1\n", {"spellings_differ": True},
         "the images are called '007 L', the rows '7 L'; they agree but for leading zeros"),
        ("file,patient_id\na.png,1\n", {}, "no row belongs to an image; by file name"),
        ("patient_id,side,kl\n007,1,0\n", {}, r"row 2 has a side that is neither left nor right \('1'\)"),
        ("file,patient_id\n007L.png,008\n", {},
         "row 2 says patient_id '008', the path of '007L.png' says '007'"),
        ("patient_id,side,kl\n", {}, "holds no row, only a header"),
        ("patient_id,kl,kl\n007,1,2\n", {}, "names 'kl' more than once"),
        ("age,kl\n61,0\n", {}, "nothing says which row belongs to which image"),
        (ROWS.format(last=7), {"tasks": {"grade": GRADE}},
         r"task 'grade': column 'kl': row 5 has a label outside the task \('7'\); allowed: 0, 1, 2"),
        (ROWS.format(last=3), {"tasks": {"oa": {"positive": "kl >= 4"}}},
         "task 'oa': every labelled row is of class 0; a task needs two classes"),
        (ROWS.format(last=3), {"tasks": {"oa": {"positive": "grade >= 2"}}},
         "no column 'grade' in the manifest"),
        (ROWS.format(last=3).replace("kl", "KL"), {"tasks": {"oa": {"positive": "kl >= 2"}}},
         r"no column 'kl' in the manifest, did you mean 'KL'\?"),
    ],
)  # fmt: skip
def test_bad_tables(films, content, values, message):
    path = table(films, content)
    with pytest.raises(InputError, match=message) as error:
        go(films, **{"pattern": SIDED, "table": path, **values})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        (lambda root: root / 'nothing', {}, "no such file or folder"),
        (lambda root: root.mkdir(), {}, "holds no file"),
        (lambda root: root.touch(), {}, "is a file, not a folder"),
        (lambda root: (root.mkdir(), (root / "a.txt").touch()), {}, "holds no image file .*give a pattern"),
        (lambda root: (root.mkdir(), (root / "a.png").touch()), {"pattern": "{patient_id}.jpg"},
         r"no file matches the pattern '\{patient_id\}\.jpg'; the first image is 'a\.png'$"),
        (lambda root: ((root / "x").mkdir(parents=True), [(root / f).touch() for f in ("a.txt", "x/7.png")]),
         {"pattern": "{patient_id}.png"},
         r"the first image is 'x/7\.png'; the files are in folders: begin the pattern with \*\*/$"),
        (lambda root: (root.mkdir(), (root / "a.txt").touch()), {"pattern": "{patient_id}.png"},
         r"the first file is 'a\.txt'$"),
        (lambda root: (root.mkdir(), (root / "a.png").touch()), {"pattern": "{kl}.png"},
         r"the pattern gives no \{patient_id\}"),
        (lambda root: (root.mkdir(), (root / "7B.png").touch()), {"pattern": "{patient_id:1}{side:1}.png"},
         r"the path of '7B\.png' gives a side that is neither left nor right \('B'\)"),
        (lambda root: (root.mkdir(), (root / "7.png").touch()), {"table": "none.csv"}, "no such"),
        (lambda root: (root.mkdir(), (root / "7.png").touch()), {"tasks": {"oa": {"positiv": "kl"}}},
         r"unknown key 'tasks\.oa\.positiv'"),
    ],
)  # fmt: skip
def test_bad_folders(tmp_path, make, values, message):
    make(tmp_path / "films")
    with pytest.raises(InputError, match=message) as error:
        go(tmp_path / "films", **values)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not KNEES.is_dir(), reason="the real knees are not here")
def test_the_real_knees(tmp_path):
    said = go(
        KNEES,
        tmp_path / "knees",
        pattern="{part}/{kl}/{patient_id:7}{side:1}.png",
        tasks={"oa": {"positive": "kl >= 2"}},
    )
    assert said == "6,604 images of 3,302 patients; oa: 6604 labelled"
    manifest = read_manifest(tmp_path / "knees")
    labelled = truth(manifest.tasks["oa"], manifest)
    assert labelled.y.sum() == 1516 + 757 + 173 + 212 + 106 + 27
    assert manifest.table["side"].value_counts().to_dict() == {"L": 3302, "R": 3302}
    assert manifest.resolve(17).is_file()
