import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from trabecula.artifacts.tasks import Task, Truth
from trabecula.comparison.arms import ComparedArm, decide_controls
from trabecula.comparison.snapshots import snapshot_curves

NUM, SEEDS = 60, (0, 1, 2)
TASK = Task(name="oa", kind="binary", positive="kl >= 2")
SEEN = {"gan@200": 200, "gan@1000": 1000, "gan": 1500, "random": 0, "moco": 900}
KINDS = [
    ComparedArm(
        name, "resnet" if name == "moco" else "critic", "random" if name == "random" else "pretrained"
    )
    for name in SEEN
]
ARMS = {arm.name: arm for arm in decide_controls(KINDS)}


def _truth():
    y = np.arange(NUM) % 2
    ids = np.array([f"i{i:02d}" for i in range(NUM)])
    patients = np.array([f"p{i // 2:02d}" for i in range(NUM)])
    return Truth(ids, patients, y, ("0", "1"), {}, np.arange(NUM))


def _table(arms=tuple(SEEN), modes=("finetune",), share=0.5):
    """Each seed has its own validation images; scores of test images are all wrong."""
    truth, rows = _truth(), []
    for arm in arms:
        for seed in SEEDS:
            rng = np.random.default_rng([seed, len(arm)])
            chosen = np.random.default_rng(seed).permutation(NUM)[: int(share * NUM)]
            for split, at in (("val", chosen), ("test", np.arange(NUM))):
                score = truth.y[at] + rng.normal(size=len(at)) if split == "val" else -1.0 * truth.y[at]
                p = 1 / (1 + np.exp(-score))
                frame = pd.DataFrame({"image_id": truth.image_ids[at], "p_0": 1 - p, "p_1": p})
                rows += [
                    frame.assign(
                        task="oa", arm=arm, mode=mode, fraction=0.1, seed=seed, pretrain_seed=0, split=split
                    )
                    for mode in modes
                ]
    return pd.concat(rows, ignore_index=True)


def _curves(table, arms=None):
    return snapshot_curves(TASK, _truth(), table, arms or ARMS, SEEN, (300, 0), 0.95)


def test_points_are_the_validation_scores_by_images_seen_and_test_rows_change_nothing():
    table, truth = _table(), _truth()
    (curve,) = _curves(table)
    assert (curve["arm"], curve["mode"], curve["fraction"], curve["split"]) == ("gan", "finetune", 0.1, "val")
    assert [p["images"] for p in curve["points"]] == [200, 1000, 1500]
    label = dict(zip(truth.image_ids, truth.y, strict=True))
    for name, point in zip(("gan@200", "gan@1000", "gan"), curve["points"], strict=True):
        mine = table[(table["arm"] == name) & (table["split"] == "val")]
        each = [roc_auc_score(one["image_id"].map(label), one["p_1"]) for _, one in mine.groupby("seed")]
        assert point["seeds"] == pytest.approx(each)
        assert point["value"] == pytest.approx(np.mean(each))
        assert point["low"] < point["value"] < point["high"]
    assert curve["control"]["arm"] == "random"
    assert _curves(table[table["split"] == "val"]) == [curve]
    assert _curves(table.sample(frac=1, random_state=0)) == [curve]


def test_arms_without_snapshots_have_no_curve_and_a_mode_without_them_neither():
    assert _curves(_table(("gan", "random", "moco"))) == []
    table = pd.concat([_table(), _table(("gan", "random"), ("probe",))], ignore_index=True)
    assert {c["mode"] for c in _curves(table)} == {"finetune"}


def test_without_a_random_arm_there_is_no_control_and_without_validation_no_point():
    (curve,) = _curves(
        _table(("gan@200", "gan@1000")),
        {a.name: a for a in decide_controls(a for a in KINDS if a.name != "random")},
    )
    assert curve["control"] is None
    assert [p["images"] for p in curve["points"]] == [200, 1000]
    table = _table()
    (curve,) = _curves(table[(table["arm"] != "gan@200") | (table["split"] == "test")])
    assert [p["images"] for p in curve["points"]] == [1000, 1500]


def test_a_handful_of_patients_has_values_and_no_interval():
    (curve,) = _curves(_table(share=0.1))
    for point in curve["points"]:
        assert np.isfinite(point["value"])
        assert np.isnan([point["low"], point["high"]]).all()
        assert "fewer than 5 patients" in point["note"]
