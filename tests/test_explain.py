"""explain: what a network sees, on images it may see, in files that say so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from trabecula import explain, finetune, pretrain, split
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store, rows_of, to_float
from trabecula.errors import InputError
from trabecula.nets.classifier import load_classifier
from trabecula.nets.encoder import load_critic, load_encoder
from trabecula.run import execute

TINY = {"steps": 12, "starts": 2, "permutations": 39, "num_extremes": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def world(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders split, gan and fine; store and cohort are the hospital's."""
    root = tmp_path_factory.mktemp("explain")
    divided = split.Config(manifest=hospital / "cohort", task="kl >= 1", train=0.5, val=0.3, test=0.2)
    execute("split", divided, root / "split")
    gan = pretrain.Config(
        store=hospital / "store", splits=root / "split", architecture="critic", objective="wgan_gp",
        settings={"critic_steps": 1, "latent": 8}, images=8, batch_size=4, every=8, device="cpu",
    )  # fmt: skip
    execute("pretrain", gan, root / "gan")
    fine = finetune.Config(
        encoder=root / "gan", store=hospital / "store", manifest=hospital / "cohort", splits=root / "split",
        task="kl >= 1", images=8, batch_size=4, device="cpu",
    )  # fmt: skip
    execute("finetune", fine, root / "fine")
    return root


def seen(world: Path, hospital: Path, out: Path, **settings: Any) -> dict[str, Any]:
    given = {"store": hospital / "store", "splits": world / "split", **TINY, **settings}
    execute("explain", explain.Config(**given), out)
    record: dict[str, Any] = json.loads((out / "explain.json").read_text())
    return record


@pytest.fixture(scope="module")
def whole(world: Path, hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything at once: a classifier and an encoder with its critic."""
    out = tmp_path_factory.mktemp("whole") / "seen"
    seen(
        world, hospital, out, classifier=world / "fine", encoder=world / "gan",
        manifest=hospital / "cohort", task="kl >= 1",
    )  # fmt: skip
    return out


def record_of(whole: Path) -> dict[str, Any]:
    return dict(json.loads((whole / "explain.json").read_text()))


def test_all_parts_and_their_pictures(whole: Path) -> None:
    record = record_of(whole)
    assert {"gradcam", "maximise", "units"} < set(record)
    for name in ("gradcam.png", "maximise.png", *(i["file"] for i in record["gradcam"]["images"])):
        with Image.open(whole / name) as picture:
            assert min(picture.size) > 200
    for name in ("climb.svg", "units.svg"):
        assert (whole / name).read_text().startswith("<svg")


def test_gradcam_shows_the_extremes_of_the_validation_part(whole: Path, world: Path, hospital: Path) -> None:
    found = record_of(whole)["gradcam"]
    store, classifier = Store.open(hospital / "store"), load_classifier(world / "fine")
    val = np.flatnonzero(read_splits(world / "split").rows("val", store.index["patient_id"]))
    p = classifier.probabilities(store, val, torch.device("cpu"))[:, 1]
    assert [i["group"] for i in found["images"]] == ["highest"] * 2 + ["lowest"] * 2
    values = [i["value"] for i in found["images"]]
    assert values == pytest.approx([*sorted(p)[::-1][:2], *sorted(p)[:2]], abs=1e-6)
    rows = rows_of(store, [i["image_id"] for i in found["images"]])
    assert set(rows) <= set(val)
    table = pd.read_csv(hospital / "cohort/manifest.csv", dtype=str).set_index("image_id")
    labels = [str(int(int(table.loc[i["image_id"], "kl"]) >= 1)) for i in found["images"]]
    assert [i["label"] for i in found["images"]] == labels
    assert (found["layer"], found["grid"], found["target"]) == ("act2", [4, 4], "1")


def test_named_images_and_a_critics_score(world: Path, hospital: Path, tmp_path: Path) -> None:
    store = Store.open(hospital / "store")
    names = store.index["image_id"].tolist()[3:5]
    chosen = seen(
        world,
        hospital,
        tmp_path / "c",
        encoder=world / "gan",
        image_ids=names,
        parts=["gradcam"],
        layer="act1",
    )["gradcam"]
    assert [i["image_id"] for i in chosen["images"]] == names
    critic, encoder = load_critic(world / "gan"), load_encoder(world / "gan").eval()
    with torch.no_grad():
        scores = critic(encoder.normalise(to_float(store.read([3, 4]))))
    assert [i["value"] for i in chosen["images"]] == pytest.approx(scores.tolist(), abs=1e-5)
    assert (chosen["task"], chosen["grid"]) == ("", [8, 8])
    other = seen(
        world, hospital, tmp_path / "d", classifier=world / "fine", image_ids=names, target="0", splits=None
    )["gradcam"]
    p = load_classifier(world / "fine").probabilities(store, np.array([3, 4]), torch.device("cpu"))[:, 0]
    assert [i["value"] for i in other["images"]] == pytest.approx(p, abs=1e-6)


def test_maximising_climbs_and_is_held_against_real_images_that_are_no_test_images(
    whole: Path, world: Path, hospital: Path
) -> None:
    found = record_of(whole)["maximise"]
    parts = read_splits(world / "split")
    patients = Store.open(hospital / "store").index["patient_id"]
    assert {part: real["num"] for part, real in found["real"].items()} == {
        part: int(parts.rows(part, patients).sum()) for part in ("train", "val")
    }
    for start in found["starts"]:
        assert len(start["climb"]) == 13
        assert start["climb"][0] == start["first"] < start["score"] == max(start["climb"])
        assert start["climb"][start["step"]] == start["score"]
        assert 0 <= start["above_real"] <= 100


def test_units_are_asked_on_training_and_validation_images_only(
    whole: Path, world: Path, hospital: Path, tmp_path: Path
) -> None:
    found = record_of(whole)["units"]
    assert {(r["layer"], r["unit"]) for r in found["rows"]} == {
        ("act2", "channel"), ("act2", "cell"), ("act3", "channel"), ("act3", "cell"), ("act4", "channel"),
        ("score", "channel"),
    }  # fmt: skip
    parts = read_splits(world / "split")
    assert found["num_patients"] == len(parts.patients("train")) + len(parts.patients("val"))
    # Other labels for the test patients change nothing.
    tests = set(parts.patients("test"))
    table = pd.read_csv(hospital / "cohort/manifest.csv", dtype=str)
    held = table["patient_id"].isin(tests)
    table.loc[held, "kl"] = (2 - table.loc[held, "kl"].astype(int)).astype(str)
    assert held.any()
    table.to_csv(tmp_path / "manifest.csv", index=False)
    again = seen(
        world, hospital, tmp_path / "out", encoder=world / "gan", manifest=tmp_path, task="kl >= 1",
        parts=["units"],
    )["units"]  # fmt: skip
    assert again == found


def test_the_same_bytes_each_time_and_after_a_kill(
    whole: Path, world: Path, hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "classifier": world / "fine", "encoder": world / "gan", "manifest": hospital / "cohort",
        "task": "kl >= 1",
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(explain, "_units", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            seen(world, hospital, tmp_path / "out", **settings)
    assert not (tmp_path / "out/explain.json").exists()
    seen(world, hospital, tmp_path / "out", **settings)
    own = {"provenance.json", "log.jsonl", ".lock"}
    for file in whole.rglob("*"):
        if file.is_file() and file.name not in own:
            assert (tmp_path / "out" / file.relative_to(whole)).read_bytes() == file.read_bytes(), file


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "explain: nothing to do: give --classifier for Grad-CAM"),
        ({"encoder": "gan", "parts": ["units"]}, "units needs --encoder, --manifest, --splits and -s task"),
        ({"encoder": "bare", "parts": ["maximise"]}, "no critic there (critic.safetensors is missing)"),
        ({"encoder": "bare", "parts": ["gradcam"]}, "no critic there (critic.safetensors is missing)"),
        (
            {"encoder": "gan", "parts": ["maximise"], "splits": None},
            "maximise needs --encoder with a critic, and",
        ),
        ({"classifier": "gan"}, "no classifier there (classifier.json is missing)"),
        (
            {"classifier": "fine", "image_ids": ["100L", "nobody"]},
            "1 of 2 images are not in the store (nobody)",
        ),
        ({"classifier": "fine", "splits": None}, "Grad-CAM needs image_ids, or --splits"),
        ({"classifier": "fine", "target": "3"}, "target '3': no class of task 'kl >= 1'; known: 0, 1"),
        ({"encoder": "gan", "parts": ["gradcam"], "target": "1"}, "target '1': a critic has one score"),
        ({"classifier": "fine", "layer": "act33"}, "layer 'act33' of critic gives no maps or is not there"),
        (
            {"encoder": "gan", "task": "kl", "parts": ["units"]},
            "task 'kl' is multiclass: give one of classes in order",
        ),
        ({"encoder": "gan", "task": "kl >= 9", "parts": ["units"]}, "every labelled row is of class 0"),
        ({"encoder": "gan", "task": "kl >= 1", "layers": ["x"], "parts": ["units"]}, "layer 'x' of critic"),
    ],
)
def test_bad_input_is_one_line(
    settings: dict[str, Any], told: str, world: Path, hospital: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare" / "arm"
    bare.mkdir(parents=True)
    for name in ("encoder.json", "encoder.safetensors"):
        shutil.copy(world / "gan" / name, bare)
    folders = {"gan": world / "gan", "fine": world / "fine", "bare": bare}
    given = {k: folders.get(v, v) if isinstance(v, str) else v for k, v in settings.items()}
    if "task" in given:
        given["manifest"] = hospital / "cohort"
    with pytest.raises(InputError) as caught:
        seen(world, hospital, tmp_path / "out", **given)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
