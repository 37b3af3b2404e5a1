"""The package as a notebook uses it: strings and paths, arrays and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trabecula
from trabecula import InputError, Store, Views, execute, load_encoder, pretrain, read_manifest, view
from trabecula.artifacts.store import open_stores
from trabecula.nets.encoder import Encoder, make_encoder
from trabecula.random_numbers import RowRandom

SIDE = 16


@pytest.fixture(scope="module")
def grey() -> Encoder:
    return make_encoder("critic:4-8", 1, SIDE, seed=1)


@pytest.fixture(scope="module")
def rgb() -> Encoder:
    return make_encoder("critic:4-8", 3, SIDE, seed=1)


def pixels(*shape: int, kind: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)


def features(encoder: Encoder, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.eval()(x)


def test_every_public_name_is_there() -> None:
    assert all(getattr(trabecula, name) is not None for name in trabecula.__all__)


def test_paths_are_strings_or_paths(hospital: Path, tmp_path: Path) -> None:
    config = pretrain.Config(store=str(hospital / "store"), architecture="critic")  # type: ignore[arg-type]
    execute("pretrain", config, str(tmp_path / "run"))
    for path in (str(tmp_path / "run"), tmp_path / "run", str(tmp_path / "run" / "encoder.safetensors")):
        assert load_encoder(path).card.architecture == "critic"
    manifest = hospital / "cohort"
    if manifest.is_dir():
        assert len(read_manifest(str(manifest))) == len(read_manifest(manifest))
    folder = hospital / "store"
    stores = [Store(str(folder)), Store(folder), Store.open(str(folder)), open_stores(str(folder))]
    stores.append(Store(str(folder / "store.json")))
    assert len({store.id for store in stores}) == 1
    store, mask = stores[0], np.zeros(len(stores[0]), dtype=bool)
    mask[[1, 3]] = True
    for rows in (
        [1, 3],
        np.array([1, 3]),
        torch.tensor([1, 3]),
        slice(1, 4, 2),
        mask,
        torch.from_numpy(mask),
    ):
        assert torch.equal(store.read(rows), store.read([1, 3]))
    with pytest.raises(IndexError, match="a mask of shape"):
        store.read(mask[:-1])
    encoder = load_encoder(str(tmp_path / "run"))
    images = store.read([1, 3])
    torch.testing.assert_close(encoder.embed(images), features(encoder, images.float() / 255))
    with pytest.raises(InputError, match="no store"):
        Store(str(tmp_path))


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (5, SIDE, SIDE), (5, 1, SIDE, SIDE)])
def test_embed_takes_arrays_and_tensors_of_each_kind(grey: Encoder, shape: tuple[int, ...]) -> None:
    levels = pixels(*shape)
    x = torch.from_numpy(levels.reshape(-1, 1, SIDE, SIDE)).float() / 255
    wanted = features(grey, x)
    assert wanted.std() > 0
    unit = levels.astype(np.float32) / 255
    given: list[Any] = [
        levels, torch.from_numpy(levels), unit, torch.from_numpy(unit), unit.astype(np.float64),
        levels.astype(np.uint16) * 257, unit.astype(">f4"), np.asfortranarray(levels), unit.tolist(),
        torch.from_numpy(unit).requires_grad_(),
    ]  # fmt: skip
    if len(shape) > 2:
        given += [list(levels), [torch.from_numpy(one) for one in levels]]
    for images in given:
        found = grey.embed(images)
        assert (found.shape, found.dtype, found.requires_grad) == (wanted.shape, torch.float32, False)
        torch.testing.assert_close(found, wanted)


def test_embed_cuts_into_batches_and_leaves_the_mode(rgb: Encoder) -> None:
    images = pixels(7, 3, SIDE, SIDE)
    rgb.train()
    found = rgb.embed(images, batch_size=3)
    assert rgb.training
    torch.testing.assert_close(found, features(rgb, torch.from_numpy(images).float() / 255))
    assert np.asarray(found).shape == (7, 128)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (pixels(2, 128, 128).astype(np.float32), "images are 128 x 128 px, .* takes 16 x 16; resize them"),
        (pixels(2, 1, 16, 8), "images are 16 x 8 px"),
        (pixels(2, 16, 16).astype(np.float32), r"values from 0 to 255, .* float values in \[0, 1\]"),
        (np.full((16, 16), -1.0), r"values from -1 to -1"),
        (np.full((16, 16), np.nan), "values from nan to nan"),
        (np.full((16, 16), 1.01), r"values from 1.01 to 1.01"),
        (pixels(2, 16, 16).astype(np.int64), "images of int64 have no known range: give uint8"),
        (np.ones((16, 16), dtype=bool), "images of bool have no known range"),
        (pixels(2, 3, 16, 16), r"takes images as \(N, 1, 16, 16\), these have 3 channels"),
        (pixels(2, 16, 16, 1), "channels are last: move them with images.transpose"),
        (pixels(0, 16, 16), r"these are \(0, 1, 16, 16\)"),
        (pixels(16), r"these are \(16,\)"),
        ("knee.png", "takes an array or a tensor of images"),
        ([pixels(16, 16), pixels(8, 8)], "of images of one size"),
        (None, "takes an array or a tensor"),
    ],
)
def test_embed_refuses_with_one_line(grey: Encoder, images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        grey.embed(images)
    assert "\n" not in str(caught.value)


def test_colours_are_not_taken_for_images(rgb: Encoder) -> None:
    with pytest.raises(InputError, match="these have 1 channels"):
        rgb.embed(pixels(3, SIDE, SIDE))
    with pytest.raises(InputError, match="channels are last"):
        rgb.embed(pixels(2, SIDE, SIDE, 3))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (pixels(2, 1, 16, 16), r"takes a float tensor in \[0, 1\], got ndarray; its `embed\(images\)`"),
        (torch.zeros(2, 1, 16, 16, dtype=torch.uint8), "got torch.uint8"),
        (torch.zeros(2, 1, 32, 32), "images are 32 x 32 px"),
    ],
)
def test_the_network_itself_refuses_what_it_would_misread(grey: Encoder, images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        grey(images)


def test_a_view_of_an_array_is_that_of_its_tensor() -> None:
    images, random = pixels(3, 1, 16, 16), RowRandom(0, 3, slice(0, 3), torch.device("cpu"))
    again = RowRandom(0, 3, slice(0, 3), torch.device("cpu"))
    one, other = view(images, random, Views(size=16)), view(torch.from_numpy(images), again, Views(size=16))
    assert torch.equal(one.images, other.images)


def test_a_head_can_be_trained_on_features_and_modes_stay_as_they_were(grey: Encoder) -> None:
    head = torch.nn.Linear(grey.card.num_features, 2)
    head(grey.embed(pixels(3, SIDE, SIDE))).sum().backward()
    assert head.weight.grad is not None
    encoder = make_encoder("torchvision:squeezenet1_0", 1, 32, stem="repeat").train()
    encoder.backbone.eval()
    encoder.embed(np.zeros((1, 32, 32), dtype=np.uint8))
    assert encoder.training
    assert not encoder.backbone.training
    with pytest.raises(InputError, match="batch_size 0: must be 1 or more"):
        grey.embed(pixels(3, SIDE, SIDE), batch_size=0)
