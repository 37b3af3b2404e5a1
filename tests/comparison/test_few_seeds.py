"""Claims from fewer than five seeds say so in the record and in every last line."""

import json
from pathlib import Path

import numpy as np
import pytest

from compared_arms import ARMS
from predicted_study import ARMS as PREDICTED
from predicted_study import config_of, make_study, spoil
from trabecula.artifacts.results import Comparison
from trabecula.comparison.arms import ArmScores, compare, multipliers
from trabecula.comparison.reach import reach_of, reach_of_claims
from trabecula.run import execute
from trabecula.sections import verdict
from trabecula.sections.results import read_results
from trabecula.study import few_seeds, make_plan

ROOT = Path(__file__).parents[2]


def _scores(arm, value, units, fraction=0.1, patients=20.0):
    rng = np.random.default_rng([len(arm), round(100 * fraction)])
    values = value + 0.01 * rng.normal(size=len(units))
    draws = values + 0.02 * rng.normal(size=(300, 1)) + 0.005 * rng.normal(size=(300, len(units)))
    return ArmScores("oa", arm, "probe", fraction, "auroc", units, values, draws, 30.0, 60, patients)


def _study(units, units_of_all=None):
    curve = [(0.01, 10.0, 0.6), (0.1, 100.0, 0.7), (1.0, 1000.0, 0.8)]
    rows = [
        _scores("res-random", v, units_of_all if units_of_all and f == 1 else units, f, n)
        for f, n, v in curve
    ]
    return [*rows, _scores("res-moco", 0.7, units, 0.01, 10.0)]


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 6])
def test_comparisons_of_few_seeds_name_the_networks_they_are_for(num):
    (row,) = compare(_study(tuple((0, s) for s in range(num))), ARMS, 0.95, 0.01)
    assert (row.claim, row.num_seeds) == ("better", num)
    if num >= 5:
        assert (row.note, reach_of_claims([row])) == ("", [])
        return
    whom = "this 1 trained network" if num == 1 else f"these {num} trained networks"
    assert row.note == f"speaks of {whom} of each arm: over new patients, not new seeds"
    assert reach_of_claims([row, row]) == [f"2 claims are for {whom} of each arm only, not for new ones"]


@pytest.mark.parametrize(
    ("units", "withheld"),
    [
        ([(0, s) for s in range(4)], True),
        ([(0, s) for s in range(5)], False),
        ([(p, s) for p in range(2) for s in range(3)], True),  # six models, and too few of either seed
        ([(p, s) for p in range(2) for s in range(5)], False),
        ([(s, s) for s in range(4)], True),
    ],
)
def test_label_multipliers_of_few_seeds_have_no_interval(units, withheld):
    (row,) = [r for r in multipliers(_study(tuple(units)), ARMS, 0.95, 0) if r.arm == "res-moco"]
    assert row.value == pytest.approx(10, rel=0.5)
    assert np.isnan([row.low, row.high]).all() == withheld
    assert row.note == ("fewer than 5 seeds: no interval" if withheld else "")


def test_one_point_of_few_seeds_leaves_the_whole_curve_without_an_interval():
    units = tuple((0, s) for s in range(5))
    rows = multipliers(_study(units, units_of_all=((0, 0),)), ARMS, 0.95, 0)
    assert [r.note for r in rows if r.arm == "res-moco"] == ["fewer than 5 seeds: no interval"]


def _row(num_seeds, claim, note=""):
    place = ("oa", "probe", 1.0, "auroc", "moco", "random", "random", True, 60, 0.1, 0.0, 0.2, 0.01)
    return Comparison(*place, num_seeds, 0.01, claim, note)


def test_the_reach_of_claims_is_counted_by_whom_they_are_for():
    """Also of files of earlier versions, whose rows have no note."""
    two = "3 seeds that one arm lacks are left out; speaks of these 2 encoders: over new label seeds"
    rows = [_row(3, "better"), _row(3, "worse"), _row(3, "none"), _row(10, "better", two), _row(5, "better")]
    assert reach_of(rows[3]) == "these 2 encoders"
    assert reach_of_claims(rows) == [
        "2 claims are for these 3 trained networks of each arm only, not for new ones",
        "1 claim is for these 2 encoders only, not for new ones",
    ]


def test_evaluate_and_report_say_whom_claims_are_for(tmp_path):
    make_study(tmp_path)
    for arm in PREDICTED:
        for name in ("predictions.csv", "choices.csv"):
            spoil(tmp_path / f"predictions-{arm}" / name, lambda t: t[t["seed"] < 3])
    said = execute("evaluate", config_of(tmp_path), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "comparisons.json").read_text())
    claims = [pair for pair in found["pairs"] if pair["claim"] != "none"]
    assert claims
    whom = "these 3 trained networks of each arm"
    assert all(pair["note"].startswith(f"speaks of {whom}") for pair in found["pairs"])
    assert f"; {len(claims)} claims are for {whom} only, not for new ones" in said
    assert {row["note"] for row in found["label_multipliers"]} == {"fewer than 5 seeds: no interval"}
    assert {(row["low"], row["high"]) for row in found["label_multipliers"]} == {(None, None)}
    results = read_results(tmp_path / "out")
    assert f"are for {whom} only, not for new ones" in verdict.in_a_line(results)
    endings = [
        line["ending"] for v in verdict.verdicts(results) for n in v["networks"] for line in n["lines"]
    ]
    assert any(ending.startswith(f"it paid (speaks of {whom}") for ending in endings)


def test_a_study_says_before_it_runs_how_few_seeds_it_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = ROOT / "recipes" / "folder.toml"
    given = [f"cohort.root={tmp_path}"]
    few = few_seeds(make_plan(recipe, tmp_path / "study", [*given, "finetune.axes.seed=[0,1,2]"]))
    assert len(few) == 1
    assert few[0].startswith("finetune: 3 seeds with ")
    assert few[0].endswith("for new seeds it needs 5")
    assert few_seeds(make_plan(recipe, tmp_path / "study", given)) == []
    one = few_seeds(make_plan(recipe, tmp_path / "study", [*given, "finetune.axes.seed=[4]"]))
    assert one[0].startswith("finetune: 1 seed with ")
