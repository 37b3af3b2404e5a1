"""Tasks: rules are read, not run; labels outside a task are named; exclusions are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trabecula.artifacts.manifest import Manifest
from trabecula.artifacts.rules import parse_rule
from trabecula.artifacts.tasks import Task, find_task, truth
from trabecula.config import build
from trabecula.errors import InputError


def manifest(path="manifest.csv", **columns):
    n = len(next(iter(columns.values())))
    ids = {"image_id": [f"i{k}" for k in range(n)], "patient_id": [f"p{k // 2}" for k in range(n)]}
    return Manifest(pd.DataFrame({**ids, "path": ids["image_id"], **columns}, dtype="str"), Path(path))


def holds(rule, **columns):
    return parse_rule(rule).holds(pd.DataFrame(columns, dtype="str")).tolist()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("kl >= 2", [False, True, True, False]),
        ("kl>=2", [False, True, True, False]),
        ("kl > 2", [False, False, True, False]),
        ("kl < 2", [True, False, False, False]),
        ("kl <= 2", [True, True, False, False]),
        ("kl == 2", [False, True, False, False]),
        ("kl = 2.0", [False, True, False, False]),
        ("kl != 2", [True, False, True, True]),
        ("kl != ''", [True, True, True, False]),
        ("kl == ''", [False, False, False, True]),
        ("kl in 0,1,2", [True, True, False, False]),
        ("kl not in 0, 2", [False, False, True, True]),
        ("kl >= 1 and side == L", [False, True, False, False]),
        ("side == 'L' and kl < 3", [True, True, False, False]),
        ("`kl` >= 2", [False, True, True, False]),
    ],
)
def test_rules(rule, expected):
    assert holds(rule, kl=["0", "2.0", "10", ""], side=["L", "L", "R", "L"]) == expected


def test_rules_on_text_and_odd_columns():
    assert holds("scan date >= '2020-01-01'", **{"scan date": ["2019-12-31", "2020-01-01", ""]}) == [
        False, True, False,
    ]  # fmt: skip
    assert holds("note == 'left and right'", note=["left and right", "left"]) == [True, False]
    assert holds("`a >= b` == 1", **{"a >= b": ["1", "0"]}) == [True, False]


@given(
    st.integers(-50, 50),
    st.lists(st.integers(-50, 50), min_size=1),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
)
def test_rules_agree_with_python(bound, values, sign):
    expected = [eval(f"{value} {sign} {bound}") for value in values]
    assert holds(f"x {sign} {bound}", x=[str(value) for value in values]) == expected


@pytest.mark.parametrize(
    "rule", ["", "kl", "kl >=", ">= 2", "kl >= 2 and", "kl >= two", "__import__('os')", "kl ~ 2"]
)
def test_no_rule(rule):
    with pytest.raises(InputError, match="is no comparison; write for example kl >= 2"):
        parse_rule(rule)


def test_rule_problems_name_rows():
    with pytest.raises(InputError, match=r"^rule .*: rows 3, 4 have no number in 'kl' \('A', 'B'\); correct"):
        holds("kl >= 2", kl=["1", "A", "B"])
    with pytest.raises(InputError, match="no column 'kll' in the manifest, did you mean 'kl'"):
        holds("kll >= 2", kl=["1"])
    labelled = manifest("films/manifest.csv", kl=["0", "A", "3", "2"])
    for task in (
        Task(name="t", labels=("kl",), kind="binary", positive="kl >= 2"),
        Task(name="t", labels=("kl",), eligible="kl >= 2"),
    ):
        with pytest.raises(InputError, match=r"^films/manifest.csv: task 't': rule 'kl >= 2': row 3 has no"):
            truth(task, labelled)
    m = manifest(kl=["", "2", "-1", "A", "0"])  # rows without a label are counted too
    with pytest.raises(InputError, match=r"row 5 has no number in 'kl' \('A'\)"):
        truth(find_task("kl >= 2", m), m)


def test_binary_from_a_rule():
    m = manifest(kl=["0", "1", "2", "4", "", "-1"])
    t = truth(find_task("kl >= 2", m), m)
    assert t.y.tolist() == [0, 0, 1, 1]
    assert t.y.dtype == np.int64
    assert t.image_ids.tolist() == ["i0", "i1", "i2", "i3"]
    assert t.patient_ids.tolist() == ["p0", "p0", "p1", "p1"]
    assert t.class_names == ("0", "1")
    assert t.exclusions == {"label missing": 1, "label uncertain (-1)": 1}


def test_shorthand_of_a_column():
    m = manifest(kl=["10", "2", "0.0", "", "2.0"], flag=["0", "1", "1", "", "0"])
    task = find_task("kl", m)
    assert (task.kind, task.classes) == ("multiclass", ("0", "2", "10"))
    assert truth(task, m).y.tolist() == [2, 1, 0, 1]
    assert find_task("flag", m).kind == "binary"
    assert truth(find_task("flag", m), m).y.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("missing", "uncertain", "expected"),
    [
        ("exclude", "exclude", {"i0": 1, "i1": 0}),
        ("negative", "exclude", {"i0": 1, "i1": 0, "i2": 0}),
        ("exclude", "negative", {"i0": 1, "i1": 0, "i3": 0}),
        ("exclude", "positive", {"i0": 1, "i1": 0, "i3": 1}),
    ],
)
def test_policies(missing, uncertain, expected):
    m = manifest(edema=["1.0", "0.0", "", "-1.0"])
    t = truth(Task(labels=("edema",), missing=missing, uncertain=uncertain), m)
    assert dict(zip(t.image_ids.tolist(), t.y.tolist(), strict=True)) == expected


def test_multilabel():
    m = manifest(a=["1", "0", "", "-1", ""], b=["0", "1", "1", "", ""])
    task = Task(name="findings", kind="multilabel", labels=("a", "b"))
    t = truth(task, m)
    assert t.y.tolist() == [[1, 0], [0, 1], [-1, 1]]
    assert t.exclusions == {"no finding labelled": 2}
    assert (task.num_outputs, t.class_names) == (2, ("a", "b"))
    full = truth(task.model_copy(update={"missing": "negative", "uncertain": "positive"}), m)
    assert full.y.tolist() == [[1, 0], [0, 1], [0, 1], [1, 0], [0, 0]]


NAMED = {"name": "findings", "kind": "multilabel", "labels": ("Finding Labels",), "separator": "|"}


def test_a_column_that_names_findings():
    """As in Data_Entry_2017.csv of NIH ChestX-ray14; a finding that nobody has stays an output."""
    cells = ["Mass|Effusion", "No Finding", "", " Effusion | Hernia", "Effusion"]
    m = manifest(**{"Finding Labels": cells})
    task = Task(**NAMED, classes=("Effusion", "Mass", "Edema"), ignored=("Hernia",))
    t = truth(task, m)
    assert t.y.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert t.image_ids.tolist() == ["i0", "i1", "i3", "i4"]
    assert t.exclusions == {"no finding labelled": 1}
    assert (task.num_outputs, t.class_names) == (3, ("Effusion", "Mass", "Edema"))
    full = truth(task.model_copy(update={"missing": "negative"}), m)
    assert full.y.tolist()[2] == [0, 0, 0]
    assert truth(task.model_copy(update={"eligible": "image_id != i3"}), m).image_ids.tolist()[2:] == ["i4"]


def test_shorthand_of_a_column_that_names_findings():
    m = manifest(**{"Finding Labels": ["Mass|Effusion", "No Finding", "Hernia"]})
    task = find_task("Finding Labels", m)
    assert (task.kind, task.classes) == ("multilabel", ("Effusion", "Hernia", "Mass"))
    assert truth(task, m).y.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_spellings_of_a_finding_are_one_finding():
    """Case and blanks do not count, in the names and in what says that there is no finding."""
    cells = ["Mass|Effusion", "mass", "No finding", "NO  FINDING", "effusion | MASS", "Pleural  fluid", ""]
    m = manifest(**{"Finding Labels": [*cells, "pleural Fluid"]})
    task = find_task("Finding Labels", m)
    assert task.classes == ("Effusion", "Mass", "Pleural  fluid")  # as each is spelled first
    expected = [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert truth(task, m).y.tolist() == expected
    listed = Task(**NAMED, classes=("effusion", "MASS"), ignored=("pleural fluid",))
    assert truth(listed, m).y.tolist() == [row[:2] for row in expected]
    with pytest.raises(InputError, match="row 3 has 'No Finding' beside a finding"):
        truth(Task(**NAMED, classes=("Mass",)), manifest(**{"Finding Labels": ["Mass", "mass|no finding"]}))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["Mass", "Hernai|Mass", "masses"],
         r"rows 3, 4 have a finding outside the task \('Hernai', 'masses'\); known: Mass, Edema; name those"),
        (["Mass", "No Finding|Mass"], "row 3 has 'No Finding' beside a finding"),
        (["Mass|", "Edema"], r"row 2 has a finding outside the task \(''\)"),
        (["No Finding", "No Finding"], "finding Mass, Edema has one class only"),
        (["", ""], "no row has a label"),
    ],
)  # fmt: skip
def test_cells_that_name_no_known_finding(cells, message):
    with pytest.raises(InputError, match=message):
        truth(Task(**NAMED, classes=("Mass", "Edema")), manifest(**{"Finding Labels": cells}))


def test_eligible_rows_are_counted():
    m = manifest(kl=["0", "3", "2", "X"], side=["L", "L", "L", "R"])
    t = truth(Task(positive="kl >= 2", eligible="side == L"), m)
    assert t.image_ids.tolist() == ["i0", "i1", "i2"]
    assert t.rows.tolist() == [0, 1, 2]
    assert t.exclusions == {"not eligible (side == L)": 1}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task(name="t", kind="ordinal", labels=("kl",), classes=("0", "1", "2")),
         r"task 't': column 'kl': rows 5, 6 have a label outside the task \('3', 'x'\); allowed: 0, 1, 2"),
        (Task(name="t", labels=("kl",)), r"rows 4, 5, 6 have a label outside the task"),
        (Task(name="t", positive="kl >= 2"), r"row 6 has no number in 'kl' \('x'\)"),
        (Task(name="t", positive="kl == 9"), "every labelled row is of class 0; a task needs two classes"),
        (Task(name="t", positive="age > 3"), "no column 'age'"),
        (Task(name="t", positive="kl == 1", eligible="kl == 7"), "no row has a label; look at columns kl"),
    ],
)  # fmt: skip
def test_labels_outside_a_task(task, message):
    with pytest.raises(InputError, match=message):
        truth(task, manifest(kl=["0", "1", "2", "3", "x"]))


def test_a_finding_of_one_class():
    with pytest.raises(InputError, match="finding b has one class only"):
        truth(Task(kind="multilabel", labels=("a", "b")), manifest(a=["0", "1"], b=["0", "0"]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "'labels' must name at least one column"),
        ({"labels": ["a", "b"]}, "a binary task has one label column, not 2"),
        ({"kind": "ordinal", "labels": ["a"]}, "needs two classes or more"),
        ({"kind": "ordinal", "labels": ["a"], "classes": ["x", "y"], "missing": "negative"},
         "has no negative class"),
        ({"kind": "multilabel", "labels": ["a"], "positive": "a == 1"}, "is a rule of binary tasks"),
        ({**NAMED, "kind": "binary"}, "one label column names the findings"),
        ({**NAMED, "labels": ["a", "b"], "classes": ["x"]}, "one label column names the findings"),
        ({"kind": "multilabel", "labels": ["a"], "ignored": ["x"]}, "one label column names the findings"),
        (NAMED, "'classes' must list the findings"),
        ({**NAMED, "classes": ["x", "y", "x"]}, "'x' stands twice"),
        ({**NAMED, "classes": ["x"], "ignored": ["x"]}, "'x' stands twice"),
        ({**NAMED, "classes": ["Mass", "mass"]}, "'mass' is the same value as 'Mass'"),
        ({**NAMED, "classes": ["x"], "ignored": ["no finding"]}, "'no finding' is the same value as"),
        ({"kind": "ordinal", "labels": ["a"], "classes": ["no", "Yes", "yes "]}, "'yes ' is the same value"),
        ({**NAMED, "classes": ["x|y"]}, "one with the separator in it"),
        ({**NAMED, "classes": ["x"], "uncertain": "positive"}, "uncertain must be exclude"),
        ({"positive": "kl"}, "is no comparison"),
        ({"positiv": "kl >= 2"}, "unknown key 'positiv', did you mean 'positive'"),
    ],
)  # fmt: skip
def test_tasks_that_cannot_be(values, message):
    with pytest.raises(InputError, match=message):
        build(Task, values, "task")


def test_unknown_specs():
    m = manifest(kl=["0", "1"], one=["1", "1"])
    with pytest.raises(InputError, match="no task or column 'klx', did you mean 'kl'"):
        find_task("klx", m)
    with pytest.raises(InputError, match="no column 'age'"):
        find_task("age > 50", m)
    with pytest.raises(InputError, match="column 'one' holds 1 class"):
        find_task("one", m)


@pytest.mark.parametrize("code", ["9", "99", "-9", "8888"])
@pytest.mark.parametrize("rule", ["kl >= 2", "kl < 1"])
def test_a_code_for_not_known_is_no_grade(code, rule):
    cells = ["0", "1", "2", "3", "0", "1", "2", "3", code]
    m = manifest(kl=cells)
    with pytest.raises(
        InputError, match=rf"'kl' is {code} in 1 rows, far from .*eligible = \"kl != {code}\""
    ):
        truth(find_task(rule, m), m)
    with pytest.raises(InputError, match=f"column 'kl' is {code} in 1 rows, far from"):
        find_task("kl", m)
    known = Task(name="t", positive=rule, eligible=f"kl != {code}")
    assert len(truth(known, m)) == 8
    named = find_task(f"{rule} and kl <= {code}" if code != "-9" else f"{rule} and kl >= -9", m)
    assert len(truth(named, m)) == 9  # the user says that it is a value


def test_a_code_may_be_the_commonest_value_and_lie_on_either_side():
    m = manifest(kl=["0", "1", "2", "3", "4", *["99"] * 20])
    with pytest.raises(InputError, match="'kl' is 99 in 20 rows, far from its other values"):
        truth(find_task("kl >= 2", m), m)
    m = manifest(kl=["12", "13", "14", "13", "12", "7"], two_words=["-20", "-19", "-18", "-20", "-19", "-9"])
    with pytest.raises(InputError, match="say so in the rule: kl >= 7 "):
        truth(find_task("kl >= 13", m), m)
    with pytest.raises(InputError, match="say so in the rule: two_words <= -9 "):
        truth(find_task("two_words >= -19", m), m)
    m = manifest(score=[str(value) for value in range(11)])
    assert len(truth(find_task("score >= 5", m), m)) == 11  # 7, 8 and 9 of a scale from 0 to 10


@pytest.mark.parametrize("code", ["9", "99", "-9", "8888"])
@pytest.mark.parametrize("rule", ["kl != 0", "kl not in 0,1", "kl == 2", "kl in 1,2", "kl != 0 and kl != ''"])
def test_a_code_for_not_known_is_no_grade_that_equals_or_differs(code, rule):
    m = manifest(kl=["0", "1", "2", "3", "0", "1", "2", "3", code])
    sign = ">=" if code == "-9" else "<="
    with pytest.raises(
        InputError,
        match=rf"rule '{rule}': 'kl' is {code} in 1 rows, .*: kl {sign} {code} \(image 'i8'\)$",
    ):
        truth(find_task(rule, m), m)
    assert len(truth(Task(name="t", positive=rule, eligible=f"kl != {code}"), m)) == 8
    assert len(truth(find_task(f"{rule} and kl {sign} {code}", m), m)) == 9  # it is a value
    with pytest.raises(InputError, match=r"define the task with its classes \(image 'i8'\)$"):
        find_task("kl", m)


def test_a_rule_that_leaves_a_code_out_is_no_mistake():
    m = manifest(kl=["0", "1", "2", "3", "9", "99"], other=["0", "1", "9", "0", "1", "0"])
    for eligible in ("kl in 0,1,2,3", "kl <= 3", "kl != 9 and kl != 99"):
        assert len(truth(Task(positive="kl >= 2", eligible=eligible), m)) == 4
    for eligible, code in (("kl != 9", "'kl' is 99"), ("other != 1", "'other' is 9")):
        with pytest.raises(InputError, match=f"rule '{eligible}': {code} in 1 rows, far from"):
            truth(Task(positive="kl >= 2", eligible=eligible), m)
    m = manifest(site=["A", "B", "C"], kl=["0", "1", "10"])
    assert truth(find_task("site != A", m), m).y.tolist() == [0, 1, 1]  # text is no number
    assert truth(find_task("kl != 0", m), m).y.tolist() == [0, 1, 1]  # nor is 10 a code


def test_spellings_of_a_class_are_one_class():
    m = manifest(kl=["yes", "Yes", "no", "YES ", "yes"])
    assert find_task("kl", m).classes == ("no", "yes")
    assert truth(find_task("kl", m), m).y.tolist() == [1, 1, 0, 1, 1]
    assert truth(find_task("kl == YES", m), m).y.tolist() == [1, 1, 0, 1, 1]
    m = manifest(kl=["true", "FALSE", "True", "0", "1"])
    assert find_task("kl", m).kind == "binary"
    assert truth(find_task("kl", m), m).y.tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("column", "written"),
    [("nodule and mass", "`nodule and mass`"), ("patient's age", "patient's age"), ("a=b", "`a=b`"),
     ("patient's age", "`patient's age`"), ("x >= 2 and y", "`x >= 2 and y`"), ("is in", "`is in`"),
     ("`tick`", "`tick`")],
)  # fmt: skip
def test_names_of_columns_in_rules(column, written):
    m = manifest(**{column: ["0", "2", "3"], "kl": ["1", "1", "0"]})
    task = find_task(f"{written} >= 2 and kl == 1", m)
    assert truth(task, m).y.tolist() == [0, 1, 0]
    assert find_task(written, m).labels == (column,)
