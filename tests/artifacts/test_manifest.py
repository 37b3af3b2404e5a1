"""The manifest: every problem in one message, with row numbers."""

from __future__ import annotations

import pandas as pd
import pytest

from trabecula.artifacts.manifest import read_manifest, write_manifest
from trabecula.artifacts.tasks import Task
from trabecula.errors import InputError


def test_round_trip(tmp_path):
    table = pd.DataFrame(
        {
            "kl": ["2", ""],
            "path": ["a/1.png", "2.png"],
            "patient_id": ["007", "8"],
            "image_id": ["007L", "8R"],
        },
        dtype="str",
    )
    tasks = {
        "oa": Task(positive="kl >= 2"),
        "grade": Task(kind="ordinal", labels=("kl",), classes=("1", "2")),
    }
    write_manifest(tmp_path, table, tasks)
    for path in (tmp_path, tmp_path / "manifest.csv"):
        m = read_manifest(path)
        assert list(m.table.columns) == ["image_id", "patient_id", "path", "kl"]
        assert m.table["patient_id"].tolist() == ["007", "8"]
        assert m.table["kl"].tolist() == ["2", ""]
        assert m.resolve(0) == tmp_path / "a" / "1.png"
        assert m.tasks == {name: task.model_copy(update={"name": name}) for name, task in tasks.items()}
        assert len(m) == 2


def test_without_tasks(tmp_path):
    (tmp_path / "manifest.csv").write_text("image_id,patient_id,path\na,p,x.png\n")
    assert read_manifest(tmp_path).tasks == {}


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ("image_id,patientid,path\na,p,x\n", ["no column 'patient_id', did you mean 'patientid'"]),
        ("image_id,patient_id,path\n", ["holds no image, only a header"]),
        (
            "image_id,patient_id,path,side\na,p,x,L\nb,,y,R\na,q,,left\nc,r,z,\n",
            ["row 3 has no patient_id", "row 4 has no path", "image_id 'a' is in rows 2, 4",
             "row 4 has a side that is not L or R"],
        ),
    ],
)  # fmt: skip
def test_every_problem_in_one_message(tmp_path, content, messages):
    path = tmp_path / "manifest.csv"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_manifest(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    for message in messages:
        assert message in str(error.value)


def test_many_problems_are_cut(tmp_path):
    rows = [f"i{k},p,x\ni{k},p,x\n" for k in range(15)]
    (tmp_path / "manifest.csv").write_text("image_id,patient_id,path\n" + "".join(rows))
    with pytest.raises(InputError, match="and 5 more problems"):
        read_manifest(tmp_path)


def test_missing_manifest(tmp_path):
    with pytest.raises(InputError, match="no such manifest; write one with `trabecula cohort`"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"oa": {"positive": "kl"}}', "task 'oa': .*is no comparison"),
    ],
)
def test_bad_tasks(tmp_path, content, message):
    (tmp_path / "manifest.csv").write_text("image_id,patient_id,path\na,p,x.png\n")
    (tmp_path / "tasks.json").write_text(content)
    with pytest.raises(InputError, match=message):
        _ = read_manifest(tmp_path).tasks


def test_what_cannot_be_read_is_not_written(tmp_path):
    table = pd.DataFrame({"image_id": ["a", "a"], "patient_id": ["p", "p"], "path": ["x", "y"]}, dtype="str")
    with pytest.raises(InputError, match="image_id 'a' is in rows 2, 3"):
        write_manifest(tmp_path, table, {})
    assert list(tmp_path.iterdir()) == []
