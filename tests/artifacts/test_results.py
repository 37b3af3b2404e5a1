"""Records of results: as mappings, as JSON, and read back; file names in one module each."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest

import trabecula
from trabecula.artifacts import predictions, results
from trabecula.artifacts.results import Curves, LearningPoint, RocCurve, SnapshotCurve, SnapshotPoint
from trabecula.errors import InputError

SOURCE = Path(trabecula.__file__).parent
NAMES = (
    results.METRICS, results.COMPARISONS, results.CURVES, results.FLOW, predictions.PREDICTIONS,
    predictions.CHOICES,
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_file_is_in_one_module(name: str) -> None:
    using = [
        path.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == name
    ]
    assert len(using) == 1


def test_a_record_is_a_mapping_from_its_json_keys() -> None:
    curve = RocCurve("oa", "moco", "probe", 1.0, "severe", [0.0, 1.0], [0.5, 1.0], [0.4, 1.0], [0.6, 1.0])
    assert list(curve) == ["task", "arm", "mode", "fraction", "class", "fpr", "tpr", "low", "high"]
    assert (curve["class"], curve.class_name, len(curve)) == ("severe", "severe", 9)
    assert curve == dict(curve)
    for absent in ("class_name", "keys"):
        with pytest.raises(KeyError):
            curve[absent]


def test_numbers_have_six_digits_and_null_where_they_are_not_finite() -> None:
    point = LearningPoint(0.1, np.int64(3), 0.123456789, float("nan"), np.float64("inf"), np.array([1 / 3]))
    assert json.loads(json.dumps(results._plain(point))) == {
        "fraction": 0.1, "num_patients": 3, "value": 0.123457, "low": None, "high": None, "seeds": [0.333333],
    }  # fmt: skip


def test_nested_records_come_back_and_keys_of_later_versions_are_ignored(tmp_path: Path) -> None:
    point = SnapshotPoint(0.7, 0.6, 0.8, [0.7], 40, "", images=100)
    curve = SnapshotCurve("oa", "moco", "probe", "auroc", 1.0, [point], "val", point)
    plain = {**results._plain(Curves([], [], [], [curve])), "later": 1}
    plain["snapshots"][0]["later"] = 2
    (tmp_path / results.CURVES).write_text(json.dumps(plain))
    (again,) = results._read(tmp_path / results.CURVES, Curves).snapshots
    assert again == curve
    assert again.control is not None
    assert again.control.images == 100


def test_results_that_do_not_name_controls_are_of_an_earlier_version(tmp_path: Path) -> None:
    arm = {"arm": "moco", "architecture": "critic", "family": "pretrained", "objective": "moco",
           "images_seen": 1, "num_patients_seen": 1}  # fmt: skip
    (tmp_path / results.FLOW).write_text(json.dumps({"tasks": {}, "subsets": [], "arms": [arm]}))
    (tmp_path / results.COMPARISONS).write_text('{"pairs": [], "label_multipliers": [], "not_run": []}')
    assert results.read_counts(tmp_path)[1].arms[0].control is None  # enough for a summary
    with pytest.raises(InputError, match=r"arms\[0\] has no 'control'; write it again with `trabecula eval"):
        results._read(tmp_path / results.FLOW, results.Flow)
