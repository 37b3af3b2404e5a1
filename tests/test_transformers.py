"""A vision transformer through the verbs: pretrained as a masked autoencoder, embedded, tuned, explained."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trabecula import embed, explain, finetune, pretrain, split
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store
from trabecula.figures.image_sheets import picture_file
from trabecula.nets.classifier import load_classifier
from trabecula.nets.encoder import load_encoder
from trabecula.objectives.mae import Mae
from trabecula.objectives.objective import Picture
from trabecula.random_numbers import RowRandom
from trabecula.run import execute


@pytest.fixture(scope="module")
def root(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders split and vit, the pretrained encoder."""
    root = tmp_path_factory.mktemp("transformers")
    divided = split.Config(manifest=hospital / "cohort", task="kl >= 1", train=0.5, val=0.3, test=0.2)
    execute("split", divided, root / "split")
    execute("pretrain", config(hospital, root), root / "vit")
    return root


def config(hospital: Path, root: Path) -> pretrain.Config:
    return pretrain.Config(
        store=hospital / "store", splits=root / "split", architecture="timm:test_vit_patch8", objective="mae",
        settings=dict(Mae.tiny), images=16, batch_size=8, every=8, precision="float32", device="cpu",
    )  # fmt: skip


def test_the_reconstructions_are_of_the_pool_and_the_same_each_time(
    root: Path, hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Tensor] = []
    draw = Mae.pictures

    def spy(self: Mae, images: Tensor, random: RowRandom) -> dict[str, Picture]:
        shown.append(images)
        return draw(self, images, random)

    monkeypatch.setattr(Mae, "pictures", spy)
    execute("pretrain", config(hospital, root), tmp_path / "again")
    picture = (tmp_path / "again" / "reconstructions.png").read_bytes()
    assert picture == (root / "vit" / "reconstructions.png").read_bytes()
    assert len(picture) < 400_000
    store, splits = Store.open(hospital / "store"), read_splits(root / "split")
    pool = np.flatnonzero(splits.rows("train", store.index["patient_id"]))
    mine = {image.numpy().tobytes() for image in store.read(pool)}
    assert len(shown[0]) == 6
    assert {image.numpy().tobytes() for image in shown[0]} <= mine


def test_a_transformer_is_embedded_tuned_and_explained(root: Path, hospital: Path) -> None:
    card = load_encoder(root / "vit").card
    assert (card.objective, card.pool, card.num_features, card.name) == (
        "mae", "mean", 64, "test_vit_patch8-mae",
    )  # fmt: skip
    told = embed.Config(encoder=root / "vit", store=hospital / "store", device="cpu")
    execute("embed", told, root / "features")
    features = np.load(root / "features" / "features.npy")
    store = Store.open(hospital / "store")
    with torch.no_grad():
        expected = load_encoder(root / "vit").eval()(store.read(slice(0, 3)) / 255)
    np.testing.assert_allclose(features[:3], expected.numpy(), rtol=1e-4, atol=1e-5)
    fine = finetune.Config(
        encoder=root / "vit", store=hospital / "store", manifest=hospital / "cohort", splits=root / "split",
        task="kl >= 1", images=16, batch_size=4, device="cpu", head_start="random",
    )  # fmt: skip
    execute("finetune", fine, root / "fine")
    before = load_encoder(root / "vit").backbone.net.get_parameter("pos_embed")
    after = load_classifier(root / "fine").encoder.backbone.net.get_parameter("pos_embed")
    assert not torch.equal(before, after)  # fixed in pretraining, tuned for a task
    asked = explain.Config(
        store=hospital / "store", splits=root / "split", classifier=root / "fine", encoder=root / "vit",
        manifest=hospital / "cohort", task="kl >= 1", permutations=39, num_extremes=2, device="cpu",
    )  # fmt: skip
    execute("explain", asked, root / "seen")
    record = json.loads((root / "seen" / "explain.json").read_text())
    assert (record["gradcam"]["layer"], record["gradcam"]["grid"]) == ("blocks.4", [4, 4])
    assert {row["layer"] for row in record["units"]["rows"]} == {"blocks.3", "blocks.4", "blocks.5"}
    assert {row["num_units"] for row in record["units"]["rows"] if row["unit"] == "channel"} == {64}


def test_a_picture_has_its_rows_one_below_the_other() -> None:
    greys = {"black": 0.0, "white": 1.0, "grey": 0.5}
    rows = {name: np.full((2, 1, 8, 8), value) for name, value in greys.items()}
    page = np.asarray(Image.open(io.BytesIO(picture_file("Title", "A note.", rows))))
    column = page[:, 100]
    places = [int(np.flatnonzero(column == value).mean()) for value in (0, 255, 128)]
    assert places == sorted(places)
    assert all((column == value).sum() >= 200 for value in (0, 255, 128))
