"""From a probe whose loss weighs classes alike to the rows of evaluate: which of them are corrected."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from encoder_cards import write_card
from predicted_study import FILES, config_of, hospital, row_of
from trabecula import probe
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.splits import draw_subset, read_splits
from trabecula.artifacts.tasks import truth
from trabecula.run import execute

SEEDS = (0, 1)


def write_features(folder: Path, table: pd.DataFrame) -> None:
    """Six features of each labelled image, of which the first tells a little of the grade."""
    values = np.random.default_rng(5).normal(size=(len(table), 6))
    values[:, 0] += 0.7 * table["kl"]
    folder.mkdir()
    np.save(folder / "features.npy", values.astype(np.float32))
    table[["image_id", "patient_id"]].to_csv(folder / "index.csv", index=False)
    card = {"arm": "resnet-moco", "pretrain_seed": 0, "weights": "a" * 64, "resize": "none",
            "dtype": "float32", "num": len(values), "num_features": 6}  # fmt: skip
    (folder / "features.json").write_text(json.dumps(card))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital whose grades are not equally frequent, a probe of half of its labels, its evaluation."""
    root = tmp_path_factory.mktemp("calibrated")
    table = hospital(root / "hospital", np.random.default_rng(7))
    write_features(root / "features", table)
    write_card(root / "encoder-resnet-moco", "resnet-moco", architecture="timm:resnet18")
    learned = probe.Config(
        features=root / "features", manifest=root / "hospital", splits=root / "hospital" / "splits.csv",
        task="grade", fractions=(0.5,), seeds=SEEDS, device="cpu",
    )  # fmt: skip
    execute("probe", learned, root / "predictions-resnet-moco")
    execute("evaluate", config_of(root, ("resnet-moco",), num_resamples=100), root / "out")
    return root


def class_shares(root: Path, seed: int) -> np.ndarray:
    """How often each of the four grades is among the images that the probe learned from."""
    manifest = read_manifest(root / "hospital")
    labelled = truth(manifest.tasks["grade"], manifest)
    drawn = draw_subset(read_splits(root / "hospital" / "splits.csv"), labelled, 0.5, seed).train
    return np.bincount(labelled.y[drawn], minlength=4) / len(drawn)


def predicted(root: Path, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the test images: grades, probabilities as predicted, and by hand those of images as they come."""
    table = pd.read_csv(root / "predictions-resnet-moco" / "predictions.csv")
    table = table[(table["split"] == "test") & (table["seed"] == seed)]
    p = table[[f"p_{k}" for k in range(4)]].to_numpy()
    corrected = p * class_shares(root, seed)
    grades = pd.read_csv(root / "hospital" / "manifest.csv").set_index("image_id")["kl"]
    return grades[table["image_id"]].to_numpy(int), p, corrected / corrected.sum(1, keepdims=True)


def in_bins(y: np.ndarray, p: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability of the called class, and how often it came true, in bins of equally many images."""
    order = np.argsort(p.max(1))
    called, right = p.max(1)[order], (p.argmax(1) == y)[order]
    return called.reshape(num, -1).mean(1), right.reshape(num, -1).mean(1)


def brier(y: np.ndarray, p: np.ndarray) -> float:
    return float(((p - np.eye(4)[y]) ** 2).sum(1).mean())


def ece(y: np.ndarray, p: np.ndarray) -> float:
    stated, came_true = in_bins(y, p, 15)
    return float(np.abs(came_true - stated).mean())


def auroc(y: np.ndarray, p: np.ndarray) -> float:
    return float(np.mean([roc_auc_score(y == k, p[:, k]) for k in range(4)]))


@pytest.mark.parametrize("seed", SEEDS)
def test_calibration_is_of_the_class_frequencies_and_the_rest_of_what_was_predicted(
    root: Path, seed: int
) -> None:
    y, p, corrected = predicted(root, seed)
    results = {name: json.loads((root / "out" / name).read_text()) for name in FILES}

    def row(metric: str) -> float:
        return float(row_of(results, task="grade", metric=metric, seed=seed)["value"])

    for name, measured in (("brier", brier), ("ece", ece)):
        assert row(name) == pytest.approx(measured(y, corrected), abs=1e-5)
        assert abs(row(name) - measured(y, p)) > 0.005  # the correction is no small one here
    assert row("balanced_accuracy") == pytest.approx(balanced_accuracy_score(y, p.argmax(1)), abs=1e-5)
    assert row("auroc_macro") == pytest.approx(auroc(y, p), abs=1e-5)
    assert abs(row("balanced_accuracy") - balanced_accuracy_score(y, corrected.argmax(1))) > 0.005
    assert abs(row("auroc_macro") - auroc(y, corrected)) > 1e-4


def test_the_reliability_curve_is_of_the_class_frequencies(root: Path) -> None:
    (curve,) = json.loads((root / "out" / "curves.json").read_text())["reliability"]
    each = [predicted(root, seed) for seed in SEEDS]
    y = np.concatenate([one[0] for one in each])
    as_predicted, corrected = (np.concatenate([one[i] for one in each]) for i in (1, 2))
    stated, came_true = in_bins(y, corrected, 10)
    found = [np.array([one[key] for one in curve["bins"]]) for key in ("predicted", "observed")]
    np.testing.assert_allclose(found[0], stated, atol=1e-5)
    np.testing.assert_allclose(found[1], came_true, atol=1e-5)
    assert np.abs(found[0] - in_bins(y, as_predicted, 10)[0]).max() > 0.02


def test_choices_name_the_frequencies_of_each_seeds_own_images(root: Path) -> None:
    choices = pd.read_csv(root / "predictions-resnet-moco" / "choices.csv").set_index("seed")
    for seed in SEEDS:
        told = [float(part) for part in choices.loc[seed, "class_frequencies"].split(";")]
        np.testing.assert_allclose(told, class_shares(root, seed), atol=1e-7)
    assert not np.allclose(class_shares(root, 0), class_shares(root, 1))
