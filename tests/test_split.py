"""The split verb: parts by patient, a given column honoured, old patients kept, leaks refused."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict

import pytest

from trabecula import split
from trabecula.artifacts.splits import read_splits
from trabecula.config import build
from trabecula.errors import InputError
from trabecula.run import execute

GRADES = (0, 0, 0, 0, 1, 1, 2, 2, 3, 4)


def cohort(folder, n=200, extra=()):
    """n patients with two knees; the part column puts every fifth patient in "val"."""
    folder.mkdir()
    rows = ["image_id,patient_id,path,side,kl,part,cohort"]
    for k in range(n):
        for side in "LR":
            kl = GRADES[k % 10] if side == "L" else 0
            part = "val" if k % 5 == 4 else "train"
            rows.append(f"{k:03d}{side},{k:03d},{k}{side}.png,{side},{kl},{part},{'ab'[k % 2]}")
    (folder / "manifest.csv").write_text("\n".join([*rows, *extra]) + "\n")
    return folder


def go(manifest, out, **values):
    return execute("split", build(split.Config, {"manifest": manifest, **values}, "split"), out)


def test_fractions_within_strata(tmp_path):
    source = cohort(tmp_path / "c")
    assert go(source, tmp_path / "s", task="kl") == (
        "train 160 patients (224 / 32 / 32 / 16 / 16 images of 0 / 1 / 2 / 3 / 4), "
        "val 20 patients (28 / 4 / 4 / 2 / 2 images of 0 / 1 / 2 / 3 / 4), "
        "test 20 patients (28 / 4 / 4 / 2 / 2 images of 0 / 1 / 2 / 3 / 4)"
    )
    of = read_splits(tmp_path / "s").of
    strata = defaultdict(Counter)
    for k in range(200):
        strata[GRADES[k % 10], k % 2][of[f"{k:03d}"]] += 1
    for count in strata.values():
        n = sum(count.values())
        assert abs(count["train"] - 0.8 * n) <= 1
        assert abs(count["test"] - 0.1 * n) <= 1
    record = json.loads((tmp_path / "s" / "splits.json").read_text())
    assert record["parts"]["test"]["patients"] == 20
    assert record["parts"]["test"]["images"] == 40
    assert sum(record["parts"]["test"]["labelled"]["per_class"].values()) == 40
    assert record["parts"]["val"]["per_cohort"].keys() == {"a", "b"}


def test_strata_columns_need_no_task(tmp_path):
    source = cohort(tmp_path / "c")
    go(source, tmp_path / "a", task="kl")
    go(source, tmp_path / "b", strata=["kl"])
    assert read_splits(tmp_path / "a").of == read_splits(tmp_path / "b").of
    go(source, tmp_path / "d", strata=["kl"], seed=1)
    assert read_splits(tmp_path / "d").of != read_splits(tmp_path / "a").of


def test_spellings_of_a_stratum_or_cohort_are_one(tmp_path):
    source = cohort(tmp_path / "c")
    go(source, tmp_path / "s", strata=["part"])
    rows = (source / "manifest.csv").read_text().splitlines()
    for i in range(21, len(rows)):  # of both images of every third patient
        start, part, hospital = rows[i].rsplit(",", 2)
        rows[i] = f"{start},{part.upper()},{hospital.upper()}" if i % 6 in (1, 2) else rows[i]
    (source / "manifest.csv").write_text("\n".join(rows) + "\n")
    go(source, tmp_path / "u", strata=["part"])
    for name in ("splits.csv", "splits.json"):
        assert (tmp_path / "u" / name).read_text() == (tmp_path / "s" / name).read_text()


def test_a_part_without_a_class_is_said(tmp_path):
    source = cohort(tmp_path / "c", 10)  # one patient has grade 4
    said = go(source, tmp_path / "s", task="kl == 4")
    where = [part for part in ("train", "val", "test") if f"{part} has no image of class 1" in said]
    assert len(where) == 2
    assert " has no " not in go(source, tmp_path / "t", strata=["kl"])
    assert "val has" not in go(source, tmp_path / "u", task="kl == 4", train=0.9, val=0.0)  # it is empty


def test_many_classes_are_not_listed(tmp_path):
    source = cohort(tmp_path / "c", 200)
    text = (source / "manifest.csv").read_text().splitlines()
    grown = [f"{line},{k % 8}" for k, line in enumerate(text[1:])]
    (source / "manifest.csv").write_text("\n".join([f"{text[0]},zone", *grown]))
    assert "patients (320 labelled images), val" in go(source, tmp_path / "s", task="zone")


def test_images_that_count_as_patients_are_said(tmp_path):
    for name, patient in (("own", "i{}"), ("shared", "p{}")):
        (tmp_path / name).mkdir()
        rows = [f"i{k},{patient.format(k)},{k}.png" for k in range(10)]
        (tmp_path / name / "manifest.csv").write_text("\n".join(["image_id,patient_id,path", *rows]))
    said = go(tmp_path / "own", tmp_path / "s")
    assert said.endswith("; each image counts as its own patient; if that is wrong, give `cohort` a pattern")
    assert "own patient" not in go(tmp_path / "shared", tmp_path / "t")


def test_an_external_cohort_is_all_test(tmp_path):
    source = cohort(tmp_path / "c", 20)
    assert go(source, tmp_path / "s", task="kl >= 2", train=0, val=0, test=1) == (
        "train 0 patients, val 0 patients, test 20 patients (32 / 8 images of 0 / 1); train and val are empty"
    )


def test_unlabelled_patients_go_to_train_where_they_serve_pretraining(tmp_path):
    extra = [f"x{k}L,x{k},x{k}.png,L,,train,a" for k in range(40)]
    source = cohort(tmp_path / "c", extra=extra)
    go(source, tmp_path / "s", task="kl")
    of = read_splits(tmp_path / "s").of
    assert {of[f"x{k}"] for k in range(40)} == {"train"}
    assert Counter(of[f"{k:03d}"] for k in range(200)) == {"train": 160, "val": 20, "test": 20}
    go(source, tmp_path / "d", task="kl", unlabelled="divide")
    assert len({read_splits(tmp_path / "d").of[f"x{k}"] for k in range(40)}) == 3


def test_a_patient_whom_another_task_labels_is_divided(tmp_path):
    extra = [f"x{k}L,x{k},x{k}.png,L,,train,{'ab'[k % 2]}" for k in range(40)]
    source = cohort(tmp_path / "c", extra=extra)
    tasks = {"where": {"kind": "multiclass", "labels": ["cohort"], "classes": ["a", "b"]}}
    (source / "tasks.json").write_text(json.dumps(tasks))
    go(source, tmp_path / "s", task="kl")
    assert len({read_splits(tmp_path / "s").of[f"x{k}"] for k in range(40)}) == 3


def test_a_given_column_is_honoured(tmp_path):
    source = cohort(tmp_path / "c")
    said = go(source, tmp_path / "s", task="kl", column="part", parts={"train": "train", "val": "test"})
    assert re.sub(r" \([^()]*\)", "", said).startswith(
        "train 128 patients, val 32 patients, test 40 patients"
    )
    of = read_splits(tmp_path / "s").of
    assert {k for k in range(200) if of[f"{k:03d}"] == "test"} == set(range(4, 200, 5))
    said = go(source, tmp_path / "t", column="part")
    assert "test 0 patients; test is empty" in said


def test_existing_splits_are_kept(tmp_path):
    go(cohort(tmp_path / "c", 100), tmp_path / "s", task="kl")
    go(cohort(tmp_path / "d", 200), tmp_path / "t", task="kl", existing=tmp_path / "s")
    old, new = read_splits(tmp_path / "s").of, read_splits(tmp_path / "t").of
    assert {patient: new[patient] for patient in old} == old
    assert abs(Counter(new.values())["train"] - 160) <= 4
    go(cohort(tmp_path / "e", 60), tmp_path / "u", task="kl", existing=tmp_path / "s")
    assert read_splits(tmp_path / "u").of == old  # those whom the new manifest lacks stay held out too


@pytest.mark.parametrize(
    ("extra", "values", "message"),
    [
        (["000X,000,x.png,L,1,val,a"], {"column": "part"},
         r"patient '000' is in train \(row 2\) and in val \(row 402\)"),
        (["900L,900,x.png,L,1,hold,a", "901L,901,y.png,L,1,,a"], {"column": "part"},
         r"rows 402, 403 have a 'part' of no known part \('', 'hold'\); say what it means"),
        ([], {"column": "fold"}, "no column 'fold' that says the part"),
        ([], {"column": "part", "parts": {"train": "training"}}, "'parts.train': Input should be 'train'"),
        ([], {"train": 0.9}, "must sum to 1"),
        ([], {"val_fraction": 1.0}, "'val_fraction': Input should be less than 1"),
        ([], {"task": "kl", "strata": ["kl"]}, "give a task or strata, not both"),
        ([], {"strata": ["age"]}, "no column 'age' to stratify by"),
        ([], {"task": "age"}, "no task or column 'age'"),
        ([], {"check": True}, "give the splits to look at"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, extra, values, message):
    source = cohort(tmp_path / "c", extra=extra)
    with pytest.raises(InputError, match=message) as error:
        go(source, tmp_path / "s", **values)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "s" / "splits.csv").exists()


def films(folder):
    """The cohort with a file for every image, no two alike."""
    for k, row in enumerate((folder / "manifest.csv").read_text().splitlines()[1:]):
        (folder / row.split(",")[2]).write_bytes(bytes([k]) * 9)
    return folder


def test_check_says_what_it_could_not_look_at(tmp_path):
    source = films(cohort(tmp_path / "c", 20))
    go(source, tmp_path / "s", task="kl")
    (source / "3R.png").unlink()
    with pytest.raises(
        InputError, match=r"^no leak found, but .*: 1 of 40 image files cannot be read .*3R\.png"
    ):
        go(source, tmp_path / "x", check=True, splits=tmp_path / "s")
    assert len(json.loads((tmp_path / "x" / "check.json").read_text())["unchecked"]) == 1
    assert not (tmp_path / "x" / "DONE").exists()


def test_check(tmp_path):
    source = films(cohort(tmp_path / "c", 20))
    go(source, tmp_path / "s", task="kl")
    (tmp_path / "pool.csv").write_text("patient_id\n" + "".join(f"{k:03d}\n" for k in range(20)))
    said = go(source, tmp_path / "ok", check=True, splits=tmp_path / "s")
    assert said.startswith("no leak in 40 images, 0 encoders, 0 pools; ")
    assert said.endswith(
        "copies that were resized, cropped, mirrored or compressed with loss (JPEG) are not found"
    )
    assert sorted(path.name for path in (tmp_path / "ok").iterdir() if path.suffix in (".csv", ".json")) == [
        "check.json", "config.json", "provenance.json",
    ]  # fmt: skip
    held = [patient for patient, part in read_splits(tmp_path / "s").of.items() if part != "train"]
    with pytest.raises(InputError, match=f"^{len(held)} leaks: manifest row .* is in the pool") as error:
        go(source, tmp_path / "bad", check=True, splits=tmp_path / "s", pools=[tmp_path / "pool.csv"])
    assert "\n" not in str(error.value)
    recorded = json.loads((tmp_path / "bad" / "check.json").read_text())["leaks"]
    assert len(recorded) == len(held)
    assert not (tmp_path / "bad" / "DONE").exists()


def test_many_leaks_are_cut(tmp_path):
    source = films(cohort(tmp_path / "c", 20))
    (tmp_path / "splits.csv").write_text("patient_id,split\n000,train\n")
    with pytest.raises(InputError, match=r"^19 leaks: .*; and 14 more in check\.json$"):
        go(source, tmp_path / "s", check=True, splits=tmp_path / "splits.csv")
