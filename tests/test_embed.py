"""embed: features in the order of the store, from the right images, the same each time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from trabecula import embed
from trabecula.artifacts.store import Store, to_float
from trabecula.errors import InputError, RunError
from trabecula.nets.encoder import Encoder, load_encoder, make_encoder
from trabecula.run import execute

SIZE, NUM = 32, 11


def write_store(folder: Path, bits: int = 8, **changes: Any) -> Path:
    """A store of noise in two shards, 7 images and 4."""
    folder.mkdir()
    kind = np.uint8 if bits == 8 else np.uint16
    images = np.random.default_rng(0).integers(0, 2**bits, (NUM, 1, SIZE, SIZE)).astype(kind)
    np.save(folder / "images-00000.npy", images[:7])
    np.save(folder / "images-00001.npy", images[7:])
    ids = [f"i{k:02d}" for k in range(NUM)]
    table = pd.DataFrame({"image_id": ids, "patient_id": [f"0{k // 2}" for k in range(NUM)], "side": "L"})
    table.to_csv(folder / "index.csv", index=False)
    shards = [{"file": f"images-0000{k}.npy", "num_images": n} for k, n in enumerate((7, 4))]
    record = {
        "format": 1, "size": SIZE, "channels": 1, "bits": bits, "preprocessing": "p" * 64,
        "manifest": "m" * 64, "shards": shards, **changes,
    }  # fmt: skip
    (folder / "store.json").write_text(json.dumps(record))
    return folder


def write_encoder(folder: Path, **changes: Any) -> Encoder:
    encoder = make_encoder("torchvision:resnet18", 1, SIZE, pool="mean+max", seed=2, name="res")
    encoder.card = encoder.card.model_copy(update={"preprocessing": "p" * 64, **changes})
    encoder.save(folder)
    return encoder.eval()


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    write_encoder(tmp_path / "encoder")
    return {"encoder": tmp_path / "encoder", "store": write_store(tmp_path / "store")}


@pytest.mark.parametrize("bits", [8, 16])
def test_features_are_the_encoders_image_by_image(bits: int, tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    store = write_store(tmp_path / "store", bits)
    config = embed.Config(encoder=tmp_path / "encoder", store=store, batch_size=4, device="cpu")
    assert execute("embed", config, tmp_path / "out") == "res: 1024 features of each of 11 images"
    features = np.load(tmp_path / "out" / "features.npy")
    assert (features.shape, features.dtype) == ((NUM, 1024), np.float32)
    opened = Store.open(store)
    for row in range(NUM):
        with torch.no_grad():
            alone = encoder(to_float(opened.read([row])))[0].numpy()
        np.testing.assert_allclose(features[row], alone, rtol=1e-4, atol=1e-5)
    index = pd.read_csv(tmp_path / "out" / "index.csv", dtype=str)
    assert list(index.columns) == ["image_id", "patient_id"]
    assert index["image_id"].tolist() == opened.index["image_id"].tolist()
    assert index["patient_id"].tolist()[:2] == ["00", "00"]


def test_features_json_says_what_they_are(inputs: dict[str, Path], tmp_path: Path) -> None:
    execute("embed", embed.Config(**inputs, device="cpu"), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "features.json").read_text())
    weights = (inputs["encoder"] / "encoder.safetensors").read_bytes()
    assert told["weights"] == hashlib.sha256(weights).hexdigest()
    assert told["store"] == Store.open(inputs["store"]).id
    expected = {
        "arm": "res", "architecture": "torchvision:resnet18", "family": "random", "objective": "none",
        "pretrain_seed": 2, "pool": "mean+max", "num": NUM, "num_features": 1024, "dtype": "float32",
        "preprocessing": "p" * 64, "manifest": "m" * 64,
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected


def test_pool_can_be_chosen_anew(inputs: dict[str, Path], tmp_path: Path) -> None:
    execute("embed", embed.Config(**inputs, device="cpu"), tmp_path / "both")
    execute("embed", embed.Config(**inputs, device="cpu", pool="mean"), tmp_path / "mean")
    both, mean = (np.load(tmp_path / name / "features.npy") for name in ("both", "mean"))
    assert np.array_equal(both[:, :512], mean)
    assert json.loads((tmp_path / "mean" / "features.json").read_text())["pool"] == "mean"
    assert load_encoder(inputs["encoder"]).card.pool == "mean+max"


@pytest.mark.parametrize("bits", [8, 16])
def test_corners_alone_reach_the_encoder(bits: int, tmp_path: Path) -> None:
    """What lies outside the corners makes no difference; a pixel inside one does."""
    write_encoder(tmp_path / "encoder")
    store = write_store(tmp_path / "store", bits)
    settings = {"encoder": tmp_path / "encoder", "store": store, "device": "cpu"}
    config = embed.Config(**settings, region="corners", corner=0.2)
    said = execute("embed", config, tmp_path / "corners")
    assert said == "res: 1024 features of each of 11 images, their corners alone"
    corners, whole = np.load(tmp_path / "corners" / "features.npy"), tmp_path / "whole"
    execute("embed", embed.Config(**settings), whole)
    assert not np.allclose(corners, np.load(whole / "features.npy"), atol=1e-3)
    told = [
        json.loads((tmp_path / name / "features.json").read_text())["region"] for name in ("corners", "whole")
    ]
    assert told == ["corners 0.2", "all"]
    shard = np.load(store / "images-00000.npy")
    side = round(0.2 * SIZE)
    shard[:, :, side:-side] = 0
    shard[:, :, :, side:-side] = 0
    np.save(store / "images-00000.npy", shard)
    execute("embed", config, tmp_path / "emptied")
    assert np.array_equal(corners, np.load(tmp_path / "emptied" / "features.npy"))
    shard[3, 0, -side:, :side] = 0
    np.save(store / "images-00000.npy", shard)
    execute("embed", config, tmp_path / "touched")
    differs = np.any(corners != np.load(tmp_path / "touched" / "features.npy"), axis=1)
    assert np.flatnonzero(differs).tolist() == [3]


def test_a_killed_run_ends_with_the_same_bytes(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = embed.Config(**inputs, batch_size=4, device="cpu")
    execute("embed", config, tmp_path / "whole")
    calls = []

    def killed(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return once(*arguments)

    once = embed.embed
    with monkeypatch.context() as patch:
        patch.setattr(embed, "embed", killed)
        with pytest.raises(KeyboardInterrupt):
            execute("embed", config, tmp_path / "out")
    assert not (tmp_path / "out" / "features.npy").exists()
    execute("embed", config, tmp_path / "out")
    for name in ("features.npy", "features.json", "index.csv", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "out").glob("*.partial"))
    assert not list((tmp_path / "out").glob(".*.partial"))


def test_encoder_runs_in_evaluation_mode(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Batch norm would otherwise let the batch size into the features."""
    for size in (2, 11):
        execute("embed", embed.Config(**inputs, batch_size=size, device="cpu"), tmp_path / f"by-{size}")
    few, all_ = (np.load(tmp_path / name / "features.npy") for name in ("by-2", "by-11"))
    np.testing.assert_allclose(few, all_, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (
            {"preprocessing": "q" * 64},
            "than the images of encoder 'res': preprocessing is qqqqqqqqqqqq, wanted pppppppppppp; prepare",
        ),
        ({"size": 64}, "images have size 64, encoder 'res' takes 32; prepare the store again with size 32"),
        ({"channels": 3}, "images have channels 3, encoder 'res' takes 1"),
    ],
)
def test_a_store_the_encoder_was_not_made_for_is_refused(
    store: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_encoder(tmp_path / "encoder")
    config = embed.Config(encoder=tmp_path / "encoder", store=write_store(tmp_path / "store", **store))
    with pytest.raises(InputError, match=message) as caught:
        execute("embed", config, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_refusal_names_each_setting_in_which_a_store_differs(tmp_path: Path) -> None:
    rule = {"rule": "percentile", "percentiles": [0.5, 99.5]}
    prepared = {"size": SIZE, "channels": 1, "fit": "crop", "intensity": rule, "flip_side": "R"}
    write_encoder(tmp_path / "encoder", prepared=prepared)
    other = {**prepared, "size": 64, "flip_side": "", "intensity": {**rule, "rule": "as-is"}, "fit": "pad"}
    store = write_store(tmp_path / "store", preprocessing="q" * 64, **other)
    with pytest.raises(InputError) as caught:
        execute("embed", embed.Config(encoder=tmp_path / "encoder", store=store), tmp_path / "out")
    assert str(caught.value) == (
        f"{store}: prepared in another way than the images of encoder 'res': fit is "
        '"pad", wanted "crop"; flip_side is "", wanted "R"; intensity.rule is "as-is", wanted "percentile"; '
        "size is 64, wanted 32; prepare these images with the settings of that store"
    )
    store = write_store(tmp_path / "older", preprocessing="q" * 64, size=64)
    write_encoder(tmp_path / "old")
    with pytest.raises(InputError, match=r"encoder 'res': size is 64, wanted 32; prepare"):
        execute("embed", embed.Config(encoder=tmp_path / "old", store=store), tmp_path / "out")


def test_an_encoder_without_history_takes_any_preprocessing(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder", preprocessing="")
    store = write_store(tmp_path / "store", preprocessing="q" * 64)
    config = embed.Config(encoder=tmp_path / "encoder", store=store, device="cpu")
    execute("embed", config, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "features.json").read_text())["preprocessing"] == "q" * 64


def test_features_that_are_no_numbers_stop_the_run(inputs: dict[str, Path], tmp_path: Path) -> None:
    encoder = load_encoder(inputs["encoder"])
    encoder.backbone.net.get_parameter("conv1.weight").data.mul_(1e38)  # finite weights, infinite maps
    encoder.backbone.net.get_parameter("bn1.weight").data.mul_(1e38)
    encoder.save(inputs["encoder"])
    with pytest.raises(RunError, match="'res' gives features that are not finite, first for image 'i00'"):
        execute("embed", embed.Config(**inputs, device="cpu"), tmp_path / "out")


@pytest.mark.parametrize("device", ["gpu", "cuda:97"])
def test_devices_that_are_not_there_are_named(device: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"device '{device}'"):
        execute("embed", embed.Config(**inputs, device=device), tmp_path / "out")
