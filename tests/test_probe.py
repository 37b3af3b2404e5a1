"""The probe verb on made-up features: few-label draws, choices, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from trabecula import probe
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.predictions import arm_predictions, read_choices, read_predictions
from trabecula.artifacts.splits import draw_subset, read_splits
from trabecula.artifacts.tasks import find_task, truth
from trabecula.config import build
from trabecula.errors import InputError
from trabecula.run import execute

FILES = ("predictions.csv", "choices.csv", "probe.safetensors", "probe.json")
NUM_PATIENTS, DIM = 120, 24


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 patients, two images each, 24 features of which some tell the grade; three images rejected."""
    root = tmp_path_factory.mktemp("probe")
    rng = np.random.default_rng(3)
    patients = np.repeat([f"p{i:03d}" for i in range(NUM_PATIENTS)], 2)
    grade = rng.integers(0, 4, patients.size)
    finding = (rng.random((patients.size, 3)) < (0.4, 0.2, 0.1)).astype(int).astype(str)
    table = pd.DataFrame({"image_id": [f"i{i:03d}" for i in range(patients.size)], "patient_id": patients,
                          "path": "x.png", "cohort": "east", "kl": grade.astype(str)})  # fmt: skip
    for k in range(3):
        table[f"f{k}"] = finding[:, k]
    table.loc[::7, "f0"] = ""
    (root / "cohort").mkdir()
    table.to_csv(root / "cohort" / "manifest.csv", index=False)
    tasks: dict[str, Any] = {
        "oa": {"kind": "binary", "labels": ["kl"], "positive": "kl >= 2"},
        "grade": {"kind": "ordinal", "labels": ["kl"], "classes": ["0", "1", "2", "3"]},
        "five": {"kind": "ordinal", "labels": ["kl"], "classes": ["0", "1", "2", "3", "4"]},
        "findings": {"kind": "multilabel", "labels": ["f0", "f1", "f2"]},
    }
    (root / "cohort" / "tasks.json").write_text(json.dumps(tasks))
    ids = table["patient_id"].unique()
    part = np.array(["train", "train", "val", "test"])[np.arange(ids.size) % 4]
    pd.DataFrame({"patient_id": ids, "split": part}).to_csv(root / "splits.csv", index=False)
    X = rng.normal(size=(patients.size, DIM)) + 5
    X[:, :4] += 1.2 * np.eye(4)[grade]
    X[:, 4:7] += 1.5 * finding.astype(float)
    X[:, -1] = 0.1
    kept = np.delete(rng.permutation(patients.size), [1, 2, 3])  # the store's order is its own
    write_features(root / "features", X[kept], table.iloc[kept])
    return root


def write_features(folder: Path, values: np.ndarray, table: pd.DataFrame) -> None:
    folder.mkdir()
    np.save(folder / "features.npy", values.astype(np.float32))
    table[["image_id", "patient_id"]].to_csv(folder / "index.csv", index=False)
    record = {
        "arm": "resnet-moco", "architecture": "timm:resnet18", "pretrain_seed": 3, "weights": "a" * 64,
        "resize": "none", "dtype": "float32", "num": len(values), "num_features": values.shape[1],
    }  # fmt: skip
    (folder / "features.json").write_text(json.dumps(record))


def config(root: Path, **settings: Any) -> probe.Config:
    values = {"features": root / "features", "manifest": root / "cohort", "splits": root / "splits.csv",
              "task": ["oa", "grade", "findings"], "fractions": [0.1, 1.0], "seeds": [0, 1]}  # fmt: skip
    return build(probe.Config, values | settings, "test")


@pytest.fixture(scope="module")
def done(hospital: Path) -> Path:
    execute("probe", config(hospital), hospital / "done")
    return hospital / "done"


def test_evaluate_can_read_every_probe(hospital: Path, done: Path) -> None:
    manifest, splits = read_manifest(hospital / "cohort"), read_splits(hospital / "splits.csv")
    predictions, choices = read_predictions([done]), read_choices([done])
    assert len(choices) == 3 * 2 * 2
    assert set(choices["pretrain_seed"]) == {3}
    for name in ("oa", "grade", "findings"):
        labelled = truth(manifest.tasks[name], manifest)
        known = np.isin(labelled.image_ids, pd.read_csv(hospital / "features" / "index.csv")["image_id"])
        test = known & splits.rows("test", labelled.patient_ids)
        found = list(
            arm_predictions(predictions, choices, name, labelled.image_ids[test], labelled.class_names)
        )
        assert [g.fraction for g in found] == [0.1, 1.0]
        assert found[0].p.shape == (2, test.sum(), len(labelled.class_names))
        if name != "findings":
            np.testing.assert_allclose(found[0].p.sum(-1), 1, atol=1e-6)


def test_rows_are_the_few_label_validation_part_and_all_of_test(hospital: Path, done: Path) -> None:
    manifest, splits = read_manifest(hospital / "cohort"), read_splits(hospital / "splits.csv")
    index = set(pd.read_csv(hospital / "features" / "index.csv")["image_id"])
    labelled = truth(manifest.tasks["grade"], manifest)
    table = read_predictions([done])
    rows = table[(table["task"] == "grade") & (table["fraction"] == 0.1) & (table["seed"] == 1)]
    on_val = rows.loc[rows["split"] == "val", "image_id"]
    drawn = set(labelled.image_ids[draw_subset(splits, labelled, 0.1, 1).val])
    assert 0 < len(on_val) < 20
    assert set(on_val) <= index
    assert len(set(on_val) - drawn) <= 4  # drawn among images with features only
    on_test = labelled.image_ids[splits.rows("test", labelled.patient_ids)]
    assert set(rows.loc[rows["split"] == "test", "image_id"]) == set(on_test) & index


def test_classifier_is_that_of_sklearn_at_the_chosen_strength(hospital: Path, done: Path) -> None:
    manifest, splits = read_manifest(hospital / "cohort"), read_splits(hospital / "splits.csv")
    index = pd.read_csv(hospital / "features" / "index.csv")["image_id"]
    values = pd.DataFrame(np.load(hospital / "features" / "features.npy").astype(float), index=index)
    labelled = truth(find_task("grade", manifest), manifest)
    keep = np.isin(labelled.image_ids, index)
    choices, predictions = read_choices([done]), read_predictions([done])
    at = {"task": "grade", "fraction": 1.0, "seed": 0}
    choice = choices[(choices[list(at)] == pd.Series(at)).all(axis=1)].iloc[0]
    train = keep & splits.rows("train", labelled.patient_ids)
    X = values.loc[labelled.image_ids[train]].to_numpy()
    mean, std = X.mean(0), X.std(0)
    std[-1] = 1
    strength = float(choice["strength"])
    model = LogisticRegression(C=strength, class_weight="balanced", tol=1e-10, max_iter=10_000)
    model.fit((X - mean) / std, labelled.y[train])
    rows = predictions[(predictions[list(at)] == pd.Series(at)).all(axis=1)]
    new = (values.loc[rows["image_id"]].to_numpy() - mean) / std
    ours = rows[[f"p_{k}" for k in range(4)]].to_numpy()
    np.testing.assert_allclose(ours, model.predict_proba(new), atol=1e-4)


@pytest.mark.parametrize("task", ["oa", "grade", "findings"])
def test_saved_weights_give_the_predictions(hospital: Path, done: Path, task: str) -> None:
    tensors, record = load_file(done / "probe.safetensors"), json.loads((done / "probe.json").read_text())
    values, index = np.load(hospital / "features" / "features.npy"), pd.read_csv(
        hospital / "features" / "index.csv")["image_id"].tolist()  # fmt: skip
    predictions = read_predictions([done])
    cards = [card for card in record["classifiers"] if card["task"]["name"] == task]
    assert len(cards) == 4
    for card in cards:
        part = {k: tensors[f"{card['key']}.{k}"] for k in ("weight", "bias", "mean", "std")}
        origin = {k: v for k, v in card["origin"].items() if k in ("task", "fraction", "seed")}
        rows = predictions[(predictions[list(origin)] == pd.Series(origin)).all(axis=1)]
        x = torch.from_numpy(values[[index.index(i) for i in rows["image_id"]]])
        logits = (x - part["mean"]) / part["std"] @ part["weight"].T + part["bias"]
        p = logits.sigmoid() if task == "findings" else logits.softmax(1)
        columns = [f"p_{name}" for name in card["class_names"]]
        np.testing.assert_allclose(rows[columns].to_numpy(), p.numpy(), atol=2e-4)


def test_repeats_to_the_byte(hospital: Path, done: Path, tmp_path: Path) -> None:
    execute("probe", config(hospital), tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (done / name).read_bytes()


def test_test_images_teach_nothing(hospital: Path, done: Path, tmp_path: Path) -> None:
    """Other test features change no choice and no weight: neither scale, nor strength, nor threshold."""
    index = pd.read_csv(hospital / "features" / "index.csv", dtype=str)
    values = np.load(hospital / "features" / "features.npy")
    splits = read_splits(hospital / "splits.csv")
    values[splits.rows("test", index["patient_id"])] *= -100
    write_features(tmp_path / "features", values, index)
    execute("probe", config(hospital, features=tmp_path / "features"), tmp_path / "out")
    for name in ("choices.csv", "probe.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (done / name).read_bytes()


def test_images_without_features_are_counted(done: Path) -> None:
    log = [json.loads(line) for line in (done / "log.jsonl").read_text().splitlines()]
    told = {line["task"]: line for line in log if line["event"] == "task"}
    assert told["grade"]["exclusions"]["without features"] == 3
    assert told["grade"]["images"] == 2 * NUM_PATIENTS - 3


def test_informative_features_beat_chance(hospital: Path, done: Path) -> None:
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    manifest = read_manifest(hospital / "cohort")
    table = read_predictions([done])
    rows = table[(table["split"] == "test") & (table["fraction"] == 1.0) & (table["seed"] == 0)]
    grade = manifest.table.set_index("image_id")["kl"].astype(int)
    for task in ("oa", "grade"):
        some = rows[rows["task"] == task]
        y = grade.loc[some["image_id"]].to_numpy()
        if task == "oa":
            assert roc_auc_score(y >= 2, some["p_1"]) > 0.7
        else:
            p = some[[f"p_{k}" for k in range(4)]].to_numpy()
            assert balanced_accuracy_score(y, p.argmax(1)) > 0.4


def test_class_that_training_lacks(hospital: Path, tmp_path: Path) -> None:
    execute("probe", config(hospital, task="five", fractions=[0.1], seeds=[0]), tmp_path / "out")
    choice = pd.read_csv(tmp_path / "out" / "choices.csv").iloc[0]
    assert "train has no image of class 4" in choice["note"]
    assert read_predictions([tmp_path / "out"])["p_4"].max() == 0


def test_training_of_one_class_goes_on(hospital: Path, tmp_path: Path) -> None:
    manifest = pd.read_csv(hospital / "cohort" / "manifest.csv", dtype=str)
    splits = read_splits(hospital / "splits.csv")
    manifest.loc[splits.rows("train", manifest["patient_id"]), "kl"] = "1"
    (tmp_path / "cohort").mkdir()
    manifest.to_csv(tmp_path / "cohort" / "manifest.csv", index=False)
    settings = {"manifest": tmp_path / "cohort", "task": "kl >= 2", "fractions": [0.1], "seeds": [0]}
    execute("probe", config(hospital, **settings), tmp_path / "out")
    assert "train has class 0 only" in pd.read_csv(tmp_path / "out" / "choices.csv")["note"].iloc[0]
    assert read_predictions([tmp_path / "out"])["p_0"].min() == 1


def test_bad_features_are_named(hospital: Path, tmp_path: Path) -> None:
    index = pd.read_csv(hospital / "features" / "index.csv", dtype=str)
    values = np.load(hospital / "features" / "features.npy")
    values[5, 2] = np.nan
    write_features(tmp_path / "nan", values, index)
    with pytest.raises(InputError, match=f"image '{index['image_id'][5]}' are not finite"):
        execute("probe", config(hospital, features=tmp_path / "nan"), tmp_path / "out")
    write_features(tmp_path / "short", values[:9], index)
    with pytest.raises(InputError, match=r"shape \(9, 24\), index\.csv names 237 images"):
        execute("probe", config(hospital, features=tmp_path / "short"), tmp_path / "out2")
    with pytest.raises(InputError, match=r"no features\.npy"):
        execute("probe", config(hospital, features=hospital / "cohort"), tmp_path / "out3")
    with pytest.raises(InputError, match="strength_range 0, 1"):
        execute("probe", config(hospital, strength_range=(0, 1)), tmp_path / "out4")
