from dataclasses import replace

import numpy as np
import pytest

from compared_arms import ARMS, with_controls
from trabecula.comparison.arms import (
    ArmScores,
    ComparedArm,
    baselines_of,
    compare,
    multipliers,
    pair,
    pair_seeds,
)
from trabecula.metrics.bootstrap import difference


def _result(
    arm,
    value,
    seeds=(0, 1, 2, 3, 4),
    pretrain=(0,),
    fraction=0.1,
    patients=20.0,
    seed=0,
    spread=0.01,
    df=30.0,
):
    units = tuple((p, s) for p in pretrain for s in seeds)
    rng = np.random.default_rng(seed)
    common = 0.03 * rng.normal(size=(400, 1))
    own = np.random.default_rng([seed, len(arm), 1])
    values = value + spread * np.random.default_rng([seed, len(arm)]).normal(size=len(units))
    return ArmScores(
        "oa", arm, "probe", fraction, "auroc", units, values,
        values + common + 1e-3 * own.normal(size=(400, len(units))), df, 60, patients,
    )  # fmt: skip


def test_what_arms_share_cancels():
    """Patients move both arms by 0.03 together; the difference of 0.02 is sure all the same."""
    pairs = compare(
        [_result("res-moco", 0.72, spread=0), _result("res-random", 0.70, spread=0)], ARMS, 0.95, 0.01
    )
    assert [(p["arm"], p["baseline"], p["claim"]) for p in pairs] == [("res-moco", "res-random", "better")]
    assert pairs[0]["high"] - pairs[0]["low"] < 0.01


def test_a_difference_has_the_degrees_of_freedom_of_the_arm_that_has_fewer():
    """Whichever stands first: its spread may be the baseline's."""
    many, few = _result("res-moco", 0.72, df=131), _result("res-random", 0.70, df=12)
    baseline, arm = ARMS[4], ARMS[3]
    found = pair(many, few, baseline, True, 0.95)
    back = pair(few, many, arm, True, 0.95)
    assert (found["p"], found["low"]) == (pytest.approx(back["p"]), pytest.approx(-back["high"]))
    assert found["p"] == pair(replace(many, df_patients=12.0), few, baseline, True, 0.95)["p"]


def test_a_claim_is_stricter_than_the_interval():
    """A difference whose 95 % interval leaves out 0 is claimed at 5 % and not at 1 %; the interval stays."""
    results = [_result("res-moco", 0.7, seed=1), _result("res-random", 0.7, seed=2)]
    (row,) = compare(results, ARMS, 0.95, 0.01)
    shift = (row["high"] - row["low"]) / 2 * 1.1  # 1.1 half widths: p of about 0.03
    moved = replace(results[0], values=results[0].values - row["difference"] + shift)
    (strict,), (loose,) = (compare([moved, results[1]], ARMS, 0.95, alpha) for alpha in (0.01, 0.05))
    assert 0.01 < strict["p_holm"] < 0.05
    assert strict["low"] > 0
    assert (strict["claim"], loose["claim"]) == ("none", "better")
    assert dict(strict) | {"claim": ""} == dict(loose) | {"claim": ""}


def test_holm_counts_the_arms_of_one_kind_of_baseline():
    results = [_result(arm.name, 0.7, seed=1) for arm in ARMS]
    pairs = compare(results, ARMS, 0.95, 0.01)
    for row in pairs:
        family = [p for p in pairs if (p["baseline_family"], p["same_architecture"])
                  == (row["baseline_family"], row["same_architecture"])]  # fmt: skip
        smallest = min(p["p"] for p in family)
        if row["p"] == smallest:
            assert row["p_holm"] == pytest.approx(min(1, smallest * len(family)))
    assert len(pairs) == 5


def test_seeds_are_paired_and_the_rest_is_left_out():
    a, b = _result("res-moco", 0.72, seeds=(0, 1, 2)), _result("res-random", 0.70, seeds=(1, 2, 3))
    (values, draws, base, _), _, note = pair_seeds(a, b)
    np.testing.assert_array_equal(values, a.values[1:])
    np.testing.assert_array_equal(draws, a.draws[:, 1:])
    np.testing.assert_array_equal(base, b.values[:2])
    assert note == "2 seeds that one arm lacks are left out"


def test_a_baseline_without_pretraining_stands_beside_each_pretraining():
    a, b = _result("res-moco", 0.72, pretrain=(5, 6)), _result("res-imagenet", 0.70)
    (values, _, base, base_draws), units, note = pair_seeds(a, b)
    np.testing.assert_array_equal(values, a.values)
    np.testing.assert_array_equal(base, np.tile(b.values, 2))
    np.testing.assert_array_equal(base_draws[:, 5:], b.draws)
    assert (units, note) == (a.units, "")
    (_, _, own, _), units, _ = pair_seeds(b, a)
    np.testing.assert_array_equal(own, a.values)
    assert units == a.units


def test_arms_of_unlike_pretraining_seeds_are_averaged_over_them():
    a, b = _result("res-moco", 0.72, pretrain=(5, 6)), _result("res-random", 0.70, pretrain=(0, 1, 2))
    (values, _, base, _), units, note = pair_seeds(a, b)
    np.testing.assert_allclose(values, (a.values[:5] + a.values[5:]) / 2)
    np.testing.assert_allclose(base, b.values.reshape(3, 5).mean(axis=0))
    assert units == tuple((0, seed) for seed in range(5))
    assert note == "speaks of these encoders, 2 against 3"


def test_few_pretrainings_are_compared_as_these_encoders():
    """Two pretrainings far apart: the interval is that of their mean, and the note says whom it speaks of."""
    a, b = _result("res-moco", 0.72, pretrain=(0, 1)), _result("res-random", 0.70, pretrain=(0, 1))
    apart = np.repeat([0.2, -0.2], 5)
    a = replace(a, values=a.values + apart, draws=a.draws + apart)
    (row,) = compare([a, b], ARMS, 0.95, 0.01)
    expected = difference(
        *(x.reshape(*x.shape[:-1], 2, 5).mean(axis=-2) for x in (a.values, a.draws, b.values, b.draws)), 30.0
    )
    assert (row["low"], row["p"]) == (pytest.approx(expected.low), pytest.approx(expected.p))
    assert row["num_seeds"] == 10
    assert row.note == "speaks of these 2 encoders: over new label seeds and patients"


def test_label_multipliers_know_how_seeds_are_laid_out():
    """Resampled as ten independent seeds, the two pretrainings' distance would pass for chance of seeds."""
    curve = [_result("res-random", v, fraction=f, patients=n, spread=0)
             for f, n, v in ((0.01, 10, 0.6), (0.1, 100, 0.7), (1.0, 1000, 0.8))]  # fmt: skip
    arm = _result("res-moco", 0.7, fraction=0.01, patients=10.0, spread=0, pretrain=(0, 1))
    apart = np.repeat([0.05, -0.05], 5)
    far = replace(arm, values=arm.values + apart, draws=arm.draws + apart)
    (near,), (same,) = (
        [r for r in multipliers([*curve, one], ARMS, 0.95, 0) if r["arm"] == "res-moco"] for one in (arm, far)
    )
    assert (near["low"], near["high"]) == pytest.approx((same["low"], same["high"]))


@pytest.mark.parametrize("units", ["one pretraining", "a pretraining each"])
def test_seeds_that_are_not_crossed_are_compared_as_ever(units):
    """To the last bit what the paired difference of the seeds alone gives."""
    how = {"pretrain": (3,)} if units == "one pretraining" else {"pretrain": range(5), "seeds": (0,)}
    a, b = _result("res-moco", 0.72, **how), _result("res-random", 0.70, **how)
    (row,) = compare([a, b], ARMS, 0.95, 0.01)
    alone = difference(a.values, a.draws, b.values, b.draws, 30.0, 0.95)
    assert (row["difference"], row["low"], row["high"], row["p"], row.note) == (
        alone.value, alone.low, alone.high, alone.p, "",
    )  # fmt: skip


def test_arms_without_a_common_seed_are_not_compared():
    a, b = _result("res-moco", 0.72, seeds=(0, 1)), _result("res-random", 0.70, seeds=(2, 3))
    (row,) = compare([a, b], ARMS, 0.95, 0.01)
    assert np.isnan(row["difference"])
    assert np.isnan(row["p_holm"])
    assert (row["claim"], row["num_seeds"], row.note) == ("none", 0, "the arms share no seed")


def test_multipliers_read_the_baselines_curve():
    curve = [_result("res-random", v, fraction=f, patients=n, spread=0)
             for f, n, v in ((0.01, 10, 0.6), (0.1, 100, 0.7), (1.0, 1000, 0.8))]  # fmt: skip
    arm = _result("res-moco", 0.7, fraction=0.01, patients=10.0, spread=0, seed=3)
    (row,) = [r for r in multipliers([*curve, arm], ARMS, 0.95, 0) if r["arm"] == "res-moco"]
    assert row["value"] == pytest.approx(10, rel=1e-6)
    assert row["low"] < 10 < row["high"]
    assert row["censored"] == ""
    unknown = _result("res-moco", 0.7, patients=float("nan"))
    (row,) = [r for r in multipliers([*curve, unknown], ARMS, 0.95, 0) if r["arm"] == "res-moco"]
    assert np.isnan(row["value"])
    assert "not recorded" in row.note


def test_too_few_patients_of_a_class_make_no_claim_and_no_bounds():
    """Differences and label multipliers alike: four patients in the smaller class."""
    results = [_result("res-moco", 0.9, df=3.0), _result("res-random", 0.5, df=3.0)]
    (row,) = compare(results, ARMS, 0.95, 0.01)
    assert row["difference"] == pytest.approx(0.4, abs=0.05)
    assert np.isnan([row["low"], row["high"], row["p"], row["p_holm"]]).all()
    (worth,) = multipliers(results, ARMS, 0.95, 0)
    assert np.isnan([worth["low"], worth["high"]]).all()
    assert (row["claim"], row.note) == ("none", "fewer than 5 patients in a class: no interval")
    assert worth["note"] == row.note


def test_snapshots_are_in_no_comparison_and_change_none():
    results = [_result("critic-random", 0.70), _result("critic-gan", 0.704)]
    swept = [_result(f"critic-gan@{n}", 0.75, seed=n) for n in range(1, 6)]
    arms = [*ARMS, *(ComparedArm(result.arm, "critic", "pretrained", "critic-random") for result in swept)]
    for snapshot in arms[len(ARMS) :]:
        assert baselines_of(snapshot, arms) == []
    alone, among = compare(results, ARMS, 0.95, 0.01), compare([*results, *swept], arms, 0.95, 0.01)
    assert among == alone
    assert alone[0]["p"] == alone[0]["p_holm"]
    worth = multipliers([*results, *swept], arms, 0.95, 0)
    assert [row["arm"] for row in worth] == ["critic-gan"]


def test_another_random_arm_makes_families_of_its_own():
    """Holm over pretrained arms against their control is the same with and without it."""
    more = ("critic-random-augmented", "critic", "random")
    arms = with_controls(*((arm.name, arm.architecture, arm.family) for arm in ARMS), more)
    names = ("critic-random", "critic-gan", "res-random", "res-moco")
    results = [
        _result(name, value, seed=1) for name, value in zip(names, (0.7, 0.701, 0.7, 0.701), strict=True)
    ]
    other = _result("critic-random-augmented", 0.702, seed=1)

    def adjusted(rows):
        kept = [r for r in rows if "augmented" not in r["arm"] + r["baseline"]]
        return {(r["arm"], r["baseline"]): r["p_holm"] for r in kept}

    without, found = compare(results, ARMS, 0.95, 0.01), compare([*results, other], arms, 0.95, 0.01)
    assert len(without) == 2
    assert len(found) == 4
    assert adjusted(found) == adjusted(without)
    own = [r for r in found if "augmented" in r["arm"] + r["baseline"]]
    assert {(r["arm"], r["baseline"]) for r in own} == {
        ("critic-random-augmented", "critic-random"), ("critic-gan", "critic-random-augmented"),
    }  # fmt: skip
    assert [r["p_holm"] for r in own] == [r["p"] for r in own]
