"""Splits and label fractions: by patient, stratified, nested, independent of row order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trabecula.artifacts.manifest import Manifest
from trabecula.artifacts.splits import Splits, assign, draw_subset, read_splits, worst_class
from trabecula.artifacts.tasks import Truth, find_task, truth
from trabecula.cohorts.folder import Folder
from trabecula.errors import InputError

KNEES = Path(__file__).parents[3] / "shared" / "data" / "knee-kl"


def make_truth(patients, y, num_classes=None):
    y = np.array(y, dtype=np.int64)
    width = num_classes or (y.shape[1] if y.ndim == 2 else int(y.max()) + 1)
    ids = np.array([f"i{k}" for k in range(len(y))])
    return Truth(ids, np.array(patients, dtype=str), y, tuple(map(str, range(width))), {}, np.arange(len(y)))


@st.composite
def cohorts(draw):
    """Patients with one or two images, classes 0..3 of uneven size, in train or val."""
    n = draw(st.integers(8, 60))
    patients, y, of = [], [], {}
    for k in range(n):
        name = f"p{k}"
        of[name] = "val" if k % 4 == 0 else "train"
        for _ in range(draw(st.integers(1, 2))):
            patients.append(name)
            y.append(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3])))
    return Splits(of), make_truth(patients, y, 4)


fractions = st.floats(0.01, 1.0)


@settings(max_examples=60, deadline=None)
@given(cohorts(), fractions, fractions, st.integers(0, 5))
def test_fractions_nest(cohort, a, b, seed):
    splits, t = cohort
    small, large = (draw_subset(splits, t, f, seed) for f in sorted((a, b)))
    for part in ("train", "val"):
        assert set(getattr(small, part)) <= set(getattr(large, part))


@settings(max_examples=60, deadline=None)
@given(cohorts(), fractions, st.integers(0, 5))
def test_fractions_hold_whole_patients_of_their_part_and_every_class(cohort, fraction, seed):
    splits, t = cohort
    subset = draw_subset(splits, t, fraction, seed)
    for part in ("train", "val"):
        rows = getattr(subset, part)
        patients = set(t.patient_ids[rows])
        assert {splits.of[p] for p in patients} == {part}
        assert sorted(rows) == np.flatnonzero(np.isin(t.patient_ids, list(patients))).tolist()
        pool = t.y[splits.rows(part, t.patient_ids)]
        assert set(t.y[rows]) == set(pool)
        record = subset.record[part]
        assert record["patients"] == len(patients)
        assert record["images"] == len(rows)
        assert record["requested_patients"] <= len(patients)
        assert record["per_class"] == {str(c): int((t.y[rows] == c).sum()) for c in range(4)}


@settings(max_examples=40, deadline=None)
@given(cohorts(), fractions, st.integers(0, 5), st.randoms())
def test_row_order_does_not_matter(cohort, fraction, seed, random):
    splits, t = cohort
    order = list(range(len(t)))
    random.shuffle(order)
    moved = Truth(t.image_ids[order], t.patient_ids[order], t.y[order], t.class_names, {}, t.rows[order])
    a, b = draw_subset(splits, t, fraction, seed), draw_subset(splits, moved, fraction, seed)
    assert a.record == b.record
    assert set(t.image_ids[a.train]) == set(moved.image_ids[b.train])
    assert set(t.image_ids[a.val]) == set(moved.image_ids[b.val])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(6, 80), min_size=1, max_size=4), st.floats(0.05, 1.0), st.integers(0, 9))
def test_fractions_are_stratified(sizes, fraction, seed):
    """Each stratum gives its share to within one patient (and one more kept for its class)."""
    y = np.repeat(np.arange(len(sizes)), sizes)
    t = make_truth([f"p{k}" for k in range(len(y))], y, len(sizes))
    splits = Splits({**dict.fromkeys(t.patient_ids.tolist(), "train"), "v": "val"})
    with_val = make_truth([*t.patient_ids, "v"], [*y, 0], len(sizes))
    record = draw_subset(splits, with_val, fraction, seed).record["train"]["per_class"]
    for name, size in enumerate(sizes):
        assert abs(record[str(name)] - fraction * size) <= 1.5


def test_everything_at_fraction_one():
    t = make_truth(["a", "a", "b", "c", "d"], [0, 1, 0, 1, 0])
    subset = draw_subset(Splits({"a": "train", "b": "train", "c": "val", "d": "test"}), t, 1.0, 0)
    assert subset.train.tolist() == [0, 1, 2]
    assert subset.val.tolist() == [3]
    assert subset.record["note"] == (
        "val has no image of class 0; few patients in val (1): what is chosen on them is partly chance"
    )


def test_a_class_that_a_fraction_would_lose_is_kept_and_noted():
    patients = [f"p{k}" for k in range(101)]
    t = make_truth([*patients, "v0", "v1"], [0] * 100 + [1] + [0, 1])
    splits = Splits({**dict.fromkeys(patients, "train"), "v0": "val", "v1": "val"})
    record = draw_subset(splits, t, 0.05, 3).record
    assert record["train"]["per_class"] == {"0": 5, "1": 1}
    assert record["train"]["requested_patients"] == 5
    assert "train has 1 more patients, to keep every class" in record["note"]


def test_seeds_differ():
    t = make_truth([f"p{k}" for k in range(100)], [k % 2 for k in range(100)])
    splits = Splits({p: "val" if k < 20 else "train" for k, p in enumerate(t.patient_ids.tolist())})
    draws = {tuple(draw_subset(splits, t, 0.1, seed).train) for seed in range(5)}
    assert len(draws) == 5


def test_multilabel_keeps_each_finding():
    y = np.zeros((40, 3), dtype=int)
    y[::2, 0] = 1
    y[5, 1] = 1
    y[7, 2], y[9, 2] = -1, 1
    t = make_truth([f"p{k}" for k in range(40)] + [f"v{k}" for k in range(40)], np.concatenate([y, y]))
    splits = Splits({p: "train" if p[0] == "p" else "val" for p in t.patient_ids.tolist()})
    subset = draw_subset(splits, t, 0.05, 0)
    for rows in (subset.train, subset.val):
        assert (t.y[rows] == 1).any(axis=0).all()
        assert (t.y[rows] == 0).any(axis=0).all()
    assert worst_class(t)["p5"] != worst_class(t)["p0"] != worst_class(t)["p1"]


def test_bad_fractions():
    t = make_truth(["a", "b"], [0, 1])
    for fraction in (0.0, -0.5, 1.5):
        with pytest.raises(InputError, match="must be above 0 and at most 1"):
            draw_subset(Splits({"a": "train", "b": "val"}), t, fraction, 0)
    with pytest.raises(InputError, match="the val part has no labelled patient"):
        draw_subset(Splits({"a": "train", "b": "test"}), t, 0.5, 0)


# ---- assigning parts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.integers(0, 9))
def test_parts_keep_their_fractions_overall_and_in_each_stratum(sizes, seed):
    strata = {f"{s}-{k}": str(s) for s, size in enumerate(sizes) for k in range(size)}
    wanted = dict(zip(("train", "val", "test"), (0.8, 0.1, 0.1), strict=True))
    of = assign(strata, tuple(wanted.values()), seed)
    assert of.keys() == strata.keys()
    for s, size in enumerate(sizes):
        count = Counter(part for patient, part in of.items() if strata[patient] == str(s))
        assert all(abs(count[part] - share * size) < 2 for part, share in wanted.items())
    total = Counter(of.values())
    assert all(abs(total[part] - share * sum(sizes)) < 2 for part, share in wanted.items())


def test_parts_do_not_depend_on_order_and_do_on_the_seed():
    strata = {f"p{k}": str(k % 3) for k in range(90)}
    of = assign(strata, (0.8, 0.1, 0.1), 0)
    assert assign(dict(reversed(strata.items())), (0.8, 0.1, 0.1), 0) == of
    assert assign(strata, (0.8, 0.1, 0.1), 1) != of


@settings(max_examples=40, deadline=None)
@given(st.integers(10, 60), st.integers(1, 60), st.integers(0, 5))
def test_existing_patients_never_move(old, new, seed):
    fractions_ = (0.8, 0.1, 0.1)
    before = assign({f"p{k}": str(k % 2) for k in range(old)}, fractions_, seed)
    after = assign({f"p{k}": str(k % 2) for k in range(old + new)}, fractions_, seed, before)
    assert {patient: after[patient] for patient in before} == before
    total = Counter(after.values())
    assert abs(total["train"] - 0.8 * (old + new)) <= 4


def test_empty_parts_stay_empty():
    of = assign({f"p{k}": "0" for k in range(50)}, (0.8, 0.2, 0.0), 0)
    assert Counter(of.values()) == {"train": 40, "val": 10}
    grown = assign({f"p{k}": "0" for k in range(60)}, (0.8, 0.2, 0.0), 0, of)
    assert Counter(grown.values()) == {"train": 48, "val": 12}


# ---- reading


def test_reading(tmp_path):
    (tmp_path / "splits.csv").write_text("patient_id,split\n007,train\n8,test\n8,test\n")
    splits = read_splits(tmp_path)
    assert splits.of == {"007": "train", "8": "test"}
    assert splits.patients("test") == ["8"]
    assert splits.rows("train", ["8", "007", "9"]).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("patient_id,split\n1,train\n2,val\n1,test\n", "row 4: patient '1' is in train and in test"),
        (
            "patient_id,split\n1,training\n",
            "row 2: patient '1' has split 'training'; a split is train, val or",
        ),
        ("patient,split\n1,train\n", "no column 'patient_id'"),
        ("patient_id,split\n", "holds no patient"),
    ],
)
def test_bad_splits(tmp_path, content, message):
    (tmp_path / "splits.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_splits(tmp_path / "splits.csv")


def test_no_splits(tmp_path):
    with pytest.raises(InputError, match="no such splits; write them with `trabecula split`"):
        read_splits(tmp_path)


@pytest.mark.skipif(not KNEES.is_dir(), reason="the real knees are not here")
def test_one_percent_of_the_real_knees():
    found = Folder(root=KNEES, pattern="{part}/{kl}/{patient_id:7}{side:1}.png").find_images()
    m = Manifest(found.table, Path("manifest.csv"))
    t = truth(find_task("kl >= 2", m), m)
    pool = dict.fromkeys(m.table["patient_id"][m.table["part"] == "train"])
    worst = worst_class(t)
    splits = Splits(assign({p: str(worst[p]) for p in pool}, (0.8, 0.2, 0.0), 0))
    shares = []
    for seed in range(5):
        record = draw_subset(splits, t, 0.01, seed).record
        assert (record["train"]["patients"], record["val"]["patients"]) == (23, 6)
        assert record["note"] == "few patients in val (6): what is chosen on them is partly chance"
        shares.append(record["train"]["per_class"]["1"] / record["train"]["images"])
    assert 0.35 < np.mean(shares) < 0.5  # 42 % of the knees are positive


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.integers(1, 4), st.integers(0, 5))
def test_shots_are_as_many_patients_of_each_class_and_nest(cohort, shots, seed):
    splits, t = cohort
    worst = worst_class(t)
    have = {
        part: Counter(worst[p] for p in set(t.patient_ids[splits.rows(part, t.patient_ids)]))
        for part in ("train", "val")
    }
    most = min(have[part][k] for part in have for k in range(4))
    if most < shots:
        with pytest.raises(InputError, match=rf"^{shots} labelled patients per class: .* has \d of '"):
            draw_subset(splits, t, -shots, seed)
        return
    subset, fewer = draw_subset(splits, t, -shots, seed), draw_subset(splits, t, -1, seed)
    for part in ("train", "val"):
        rows = getattr(subset, part)
        drawn = set(t.patient_ids[rows])
        assert {splits.of[patient] for patient in drawn} == {part}
        assert Counter(worst[patient] for patient in drawn) == dict.fromkeys(range(4), shots)
        assert set(rows) == {i for i, patient in enumerate(t.patient_ids) if patient in drawn}
        assert set(getattr(fewer, part)) <= set(rows)
        assert subset.record[part]["requested_patients"] == subset.record[part]["patients"] == 4 * shots


def test_seeds_draw_other_shots():
    patients = [f"p{k}" for k in range(80)]
    of = {patient: "val" if k % 4 == 0 else "train" for k, patient in enumerate(patients)}
    t = make_truth(patients, [k // 4 % 2 for k in range(80)])
    drawn = {tuple(draw_subset(Splits(of), t, -3, seed).train) for seed in range(5)}
    assert len(drawn) == 5
    assert np.array_equal(draw_subset(Splits(of), t, -3, 0).train, draw_subset(Splits(of), t, -3, 0).train)


def test_classes_too_small_for_the_shots_are_named_with_their_counts():
    patients = [f"p{k}" for k in range(12)]
    of = {patient: "val" if k < 4 else "train" for k, patient in enumerate(patients)}
    t = make_truth(patients, [0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 2, 1])
    with pytest.raises(InputError) as error:
        draw_subset(Splits(of), t, -3, 0)
    assert str(error.value) == (
        "3 labelled patients per class: train has 1 of '2', val has 1 of '1', val has 0 of '2' (a patient "
        "counts for its worst class); use another task, or give `fraction`"
    )
    binary = make_truth(patients, [0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1])
    with pytest.raises(InputError, match=r"val has 1 of '1' .*; ask for 1 or fewer, or give"):
        draw_subset(Splits(of), binary, -3, 0)
    for wrong in (-1.5, 0, 1.01):
        with pytest.raises(InputError, match="must be above 0 and at most 1"):
            draw_subset(Splits(of), binary, wrong, 0)


def test_shots_of_several_labels_are_of_the_rarest_finding():
    patients = [f"p{k}" for k in range(24)]
    of = {patient: "val" if k % 2 else "train" for k, patient in enumerate(patients)}
    y = [[[0, 0], [1, 0], [1, 1]][k // 2 % 3] for k in range(24)]
    subset = draw_subset(Splits(of), make_truth(patients, y), -2, 0)
    for rows in (subset.train, subset.val):
        assert Counter(tuple(y[row]) for row in rows) == {(0, 0): 2, (1, 0): 2, (1, 1): 2}
    y = [[[0, 0], [1, 1], [1, 1]][k // 2 % 3] for k in range(24)]  # the first finding is never alone
    subset = draw_subset(Splits(of), make_truth(patients, y), -2, 0)
    assert Counter(tuple(y[row]) for row in subset.train) == {(0, 0): 2, (1, 1): 2}
    y = [[[1, 0], [1, 1]][k // 2 % 2] for k in range(24)]  # nobody is without a finding
    subset = draw_subset(Splits(of), make_truth(patients, y), -2, 0)
    assert Counter(tuple(y[row]) for row in subset.val) == {(1, 0): 2, (1, 1): 2}
    with pytest.raises(InputError, match="counts for its rarest finding"):
        draw_subset(Splits(of), make_truth(patients, y), -9, 0)
