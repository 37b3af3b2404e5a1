"""Evaluation by resize and centre crop: what lies outside is not seen, in validation, test and prediction."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from trabecula import finetune, pretrain, split
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store, rows_of
from trabecula.interpretability.scorers import of_classifier, recentred
from trabecula.nets.classifier import load_classifier
from trabecula.objectives.classify import Classify, ClassifyConfig
from trabecula.objectives.objective import Setting
from trabecula.run import execute
from trabecula.transfer.fine_tuning import Validation, check

CPU = torch.device("cpu")
CROP = 0.75  # of 32 px: 4 px are left out at each edge


@pytest.fixture(scope="module")
def root(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crop")
    parts = split.Config(manifest=hospital / "cohort", task="kl", train=0.5, val=0.25, test=0.25)
    execute("split", parts, root / "split")
    made = pretrain.Config(store=hospital / "store", architecture="critic:4-8")
    execute("pretrain", made, root / "encoder")
    tuned: dict[str, Any] = {
        "encoder": root / "encoder", "store": hospital / "store", "manifest": hospital / "cohort",
        "splits": root / "split", "task": "kl >= 1", "images": 48, "batch_size": 8, "precision": "float32",
    }  # fmt: skip
    execute("finetune", finetune.Config(**tuned, centre_crop=CROP), root / "cropped")
    execute("finetune", finetune.Config(**tuned), root / "whole")
    shutil.copytree(hospital / "store", root / "framed")  # the same images, white at the edges
    (array,) = (root / "framed").glob("images-*.npy")
    images = np.load(array)
    for edge in (np.s_[..., :4, :], np.s_[..., -4:, :], np.s_[..., :4], np.s_[..., -4:]):
        images[edge] = 255
    np.save(array, images)
    return root


def test_what_lies_outside_the_crop_is_not_seen(hospital: Path, root: Path) -> None:
    rows, differs = np.arange(24), {}
    for name in ("cropped", "whole"):
        classifier = load_classifier(root / name)
        a, b = (
            classifier.probabilities(Store.open(path), rows, CPU)
            for path in (hospital / "store", root / "framed")
        )
        differs[name] = float(np.abs(a - b).max())
    assert differs["cropped"] == 0 < 1e-3 < differs["whole"]


def test_predictions_are_of_the_centre_resized(hospital: Path, root: Path) -> None:
    """Against torch's own interpolation of a slice."""
    classifier, store = load_classifier(root / "cropped").eval(), Store.open(hospital / "store")
    table = pd.read_csv(root / "cropped" / "predictions.csv", dtype={"image_id": str})
    rows = rows_of(store, table["image_id"].to_numpy(str))
    pixels = store.read(rows).float()[..., 4:28, 4:28] / 255
    images = F.interpolate(pixels, size=(32, 32), mode="bilinear", antialias=True, align_corners=False)
    with torch.no_grad():
        p = classifier.head(classifier.encoder(images)).softmax(1)[:, 1]
    np.testing.assert_allclose(table["p_1"], p.numpy(), atol=1e-5)
    assert set(table["split"]) == {"val", "test"}
    assert classifier.card.centre_crop == CROP
    assert load_classifier(root / "whole").card.centre_crop == 1.0


def test_the_validation_part_is_cropped_too(hospital: Path, root: Path) -> None:
    store, framed = Store.open(hospital / "store"), Store.open(root / "framed")
    held = set(read_splits(root / "split").patients("val"))
    rows = np.flatnonzero([patient in held for patient in store.index["patient_id"]])
    y, patients = np.arange(len(rows)) % 2, store.index["patient_id"].to_numpy(str)[rows]
    encoder = load_classifier(root / "whole").encoder
    objective = Classify(ClassifyConfig(), encoder, Setting(12, 8, 0))
    cropped, again = (
        check(objective, Validation(images, rows, y, patients, CROP), CPU).loss for images in (store, framed)
    )
    whole, other = (
        check(objective, Validation(images, rows, y, patients), CPU).loss for images in (store, framed)
    )
    assert cropped == again
    assert whole != other
    assert cropped != whole


def test_what_is_explained_is_what_was_seen(hospital: Path, root: Path) -> None:
    """The score of the picture that Grad-CAM shows is the prediction, but for the rounding of its pixels."""
    store, rows = Store.open(hospital / "store"), np.arange(6)
    seen = of_classifier(root / "cropped", store, "1", CPU)
    picture = recentred(store.read(rows), seen.crop)
    assert picture.dtype == torch.uint8
    with torch.no_grad():
        logits = load_classifier(root / "cropped").eval()
        p = logits.head(logits.encoder(picture.float() / 255)).softmax(1)[:, 1]
    np.testing.assert_allclose(seen.read(rows), p.numpy(), atol=5e-3)
    assert torch.equal(recentred(store.read(rows), 1.0), store.read(rows))
