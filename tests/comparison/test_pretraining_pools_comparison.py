"""Arms that differ in their pretraining pool alone, held against the largest pool."""

import numpy as np
import pytest

from trabecula.comparison.arms import ArmScores, compare_pools
from trabecula.metrics.bootstrap import difference


def _card(arm, patients, fraction=1.0, cohorts=(), **other):
    card = {
        "arm": arm, "architecture": "critic", "family": "pretrained", "init": "random", "weights": "",
        "objective": "wgan_gp", "settings": {"penalty": 10}, "images_seen": 6400, "seed": 0,
        "patients": [str(i) for i in range(patients)], "pool_fraction": fraction,
        "pool_cohorts": list(cohorts),
    }  # fmt: skip
    return card | other


CARDS = [
    _card("gan-pool10", 60, 0.1),
    _card("gan", 600),
    _card("gan-labelled", 240, cohorts=["check-like"]),
    _card("random", 0, family="random", objective="none", images_seen=0),
]


def _result(arm, value, fraction=0.1, metric="auroc"):
    units = ((0, 0), (1, 1), (2, 2))
    rng = np.random.default_rng(len(arm))
    values = value + 0.004 * rng.normal(size=3)
    draws = values + 0.01 * rng.normal(size=(400, 1)) + 0.002 * rng.normal(size=(400, 3))
    return ArmScores("oa", arm, "finetune", fraction, metric, units, values, draws, 30.0, 60, 20.0)


RESULTS = [
    _result(arm, value, fraction)
    for fraction in (0.1, 1.0)
    for arm, value in (("gan", 0.80), ("gan-labelled", 0.798), ("gan-pool10", 0.70), ("random", 0.6))
]


def test_smaller_pools_are_held_against_the_largest():
    rows = compare_pools(RESULTS, CARDS, 0.95, 0.01)
    assert [(r["arm"], r["baseline"], r["fraction"]) for r in rows] == [
        ("gan-labelled", "gan", 0.1), ("gan-pool10", "gan", 0.1),
        ("gan-labelled", "gan", 1.0), ("gan-pool10", "gan", 1.0),
    ]  # fmt: skip
    ten, whole = (next(r for r in RESULTS if r.arm == arm) for arm in ("gan-pool10", "gan"))
    expected = difference(ten.values, ten.draws, whole.values, whole.draws, 30.0, 0.95)
    assert (rows[1]["difference"], rows[1]["low"], rows[1]["high"]) == (
        expected.value, expected.low, expected.high,
    )  # fmt: skip
    assert [row["claim"] for row in rows[:2]] == ["none", "worse"]
    assert rows[1]["p_holm"] == pytest.approx(2 * rows[1]["p"])  # two pools in a family, not four


@pytest.mark.parametrize(
    "other",
    [
        _card("gan", 600, images_seen=12800),
        _card("gan", 600, settings={"penalty": 1}),
        _card("gan", 600, objective="r3gan"),
        _card("gan", 600, architecture="timm:resnet18"),
        _card("gan", 60, 0.1),
        _card("gan", 600, batch_size=32),
        _card("gan", 600, stem="sum"),
        _card("gan", 600, pool="mean"),
        _card("gan", 600, store="another"),
        _card("gan", 600, labels="kl >= 2"),
        _card("gan", 600, init="encoder", parent="abc"),
    ],
    ids=[
        "updates",
        "settings",
        "method",
        "network",
        "same pool",
        "batch",
        "stem",
        "pooling",
        "store",
        "labels",
        "parent",
    ],
)
def test_arms_that_differ_in_more_than_their_pool_are_not_compared(other):
    results = [r for r in RESULTS if r.arm in ("gan", "gan-pool10")]
    assert len(compare_pools(results, [CARDS[0], CARDS[1]], 0.95, 0.01)) == 2
    assert compare_pools(results, [CARDS[0], other], 0.95, 0.01) == []


@pytest.mark.parametrize("twin", [_card("gan-tuned", 600), _card("gan-pool10-tuned", 60, 0.1)])
def test_two_arms_of_one_pool_leave_nothing_to_compare(twin):
    """Fine-tuned in another way, say: the alphabet would choose what the others are held against."""
    rows = compare_pools([*RESULTS, _result(twin["arm"], 0.9)], [*CARDS, twin], 0.95, 0.01)
    assert rows
    assert np.isnan(
        [[row[key] for key in ("difference", "low", "high", "p", "p_holm")] for row in rows]
    ).all()
    one = "gan" if twin["arm"] == "gan-tuned" else "gan-pool10"
    told = f"not compared: {one} and {twin['arm']} have the same pool and differ in something else"
    assert {(row["claim"], row["note"]) for row in rows} == {("none", told)}


def test_parents_of_each_pretraining_seed_are_held_together_once():
    """Every seed has a parent of its own: one comparison an arm, if the arms share the parents."""

    def started(arm, patients, fraction, parents):
        return [
            _card(arm, patients, fraction, init="encoder", parent=p, seed=i) for i, p in enumerate(parents)
        ]

    results = [r for r in RESULTS if r.arm in ("gan", "gan-pool10")]
    whole, ten = started("gan", 600, 1.0, "ab"), started("gan-pool10", 60, 0.1, "ab")
    assert len(compare_pools(results, [*whole, *ten], 0.95, 0.01)) == 2
    assert compare_pools(results, [*whole, *started("gan-pool10", 60, 0.1, "ba")], 0.95, 0.01) == []
    unknown = [_card("gan", 600, init="encoder"), _card("gan-pool10", 60, 0.1, init="encoder")]
    assert compare_pools(results, unknown, 0.95, 0.01) == []  # older cards do not tell the parent


def test_without_the_largest_pools_score_nothing_is_compared():
    results = [r for r in RESULTS if r.arm != "gan"]
    assert compare_pools(results, CARDS, 0.95, 0.01) == []


def test_a_snapshot_is_no_pool():
    cards = [_card("gan@3200", 600), _card("gan-pool10", 60, 0.1)]
    assert compare_pools([*RESULTS, _result("gan@3200", 0.5)], cards, 0.95, 0.01) == []
