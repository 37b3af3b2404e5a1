"""sample: a store of one generator's images, the same for a seed however many are drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from trabecula import pretrain, sample, split
from trabecula.artifacts.encoder import read_encoder_card
from trabecula.artifacts.generated import is_generated
from trabecula.artifacts.generator import read_generator_card
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.patient_hashes import mark, site_key
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store
from trabecula.comparison.leakage import check_cards
from trabecula.config import Record
from trabecula.errors import InputError, RunError
from trabecula.nets.generators.generator import Generator, load_generator
from trabecula.nets.generators.upsampling import UpsamplingConfig, UpsamplingGenerator
from trabecula.nets.latent import latents, slerp
from trabecula.run import execute

ADVERSARIAL = {
    "architecture": "critic", "objective": "wgan_gp", "settings": {"critic_steps": 1, "latent": 12},
    "images": 16, "batch_size": 4, "every": 16, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def gan(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator trained on the training patients: folders split, gan."""
    root = tmp_path_factory.mktemp("gan")
    execute("split", split.Config(manifest=hospital / "cohort", task="kl >= 1"), root / "split")
    config = pretrain.Config(store=hospital / "store", splits=root / "split", **ADVERSARIAL)
    execute("pretrain", config, root / "gan")
    return root


def drawn(gan: Path, out: Path, **settings: Any) -> Store:
    execute("sample", sample.Config(**{"generator": gan / "gan", "device": "cpu", **settings}), out)
    return Store.open(out)


def test_an_image_is_the_same_however_many_are_drawn(gan: Path, tmp_path: Path) -> None:
    many = drawn(gan, tmp_path / "many", num=70, seed=5)
    few = drawn(gan, tmp_path / "few", num=33, seed=5, shard_images=7)
    assert (len(many), len(few), few.bits, len(few.record.shards)) == (70, 33, 8, 5)
    assert torch.equal(many.read(slice(0, 33)), few.read(slice(0, 33)))
    assert many.index["image_id"].tolist()[:33] == few.index["image_id"].tolist()
    other = drawn(gan, tmp_path / "other", num=4, seed=6)
    assert not torch.equal(other.read([0]), many.read([0]))


def test_images_are_the_generators_own(gan: Path, tmp_path: Path) -> None:
    store = drawn(gan, tmp_path / "s", num=5, seed=1)
    generator, _ = load_generator(gan / "gan")
    with torch.no_grad():
        expected = generator(latents(range(5), 12, 1))
    assert torch.allclose(store.read(slice(0, 5)) / 127.5 - 1, expected, atol=0.5 / 127.5 + 1e-4)
    assert torch.equal(store.read(slice(0, 5)), generator.sample(5, 1))  # as pretrain and fidelity draw them
    assert store.preprocessing == read_encoder_card(gan / "gan").preprocessing


def test_colours_are_written_as_they_are_drawn(gan: Path) -> None:
    generator = (
        UpsamplingGenerator(UpsamplingConfig(latent=12), 3, 32).to(memory_format=torch.channels_last).eval()
    )
    images = sample.images_of(sample.Config(generator=gan, num=5, seed=1), generator, range(5))
    assert images.flags.c_contiguous
    assert images.shape == (5, 3, 32, 32)
    assert np.array_equal(images, generator.sample(5, 1).numpy())
    assert generator.sample(5, 1).is_contiguous()


def test_walks_go_from_one_sample_to_the_next_on_the_sphere(gan: Path, tmp_path: Path) -> None:
    ends = drawn(gan, tmp_path / "ends", num=6, seed=2)
    walks = drawn(gan, tmp_path / "walks", num=3, seed=2, kind="interpolate", steps=5, grid=2)
    images = walks.read(slice(0, 15)).reshape(3, 5, 1, 32, 32).int()
    real = ends.read(slice(0, 6)).reshape(3, 2, 1, 32, 32).int()
    assert (images[:, 0] - real[:, 0]).abs().max() <= 1  # slerp's ends are exact to a rounding
    assert (images[:, -1] - real[:, 1]).abs().max() <= 1
    generator, _ = load_generator(gan / "gan")
    noise = latents(range(6), 12, 2)
    with torch.no_grad():
        half = generator(slerp(noise[2:4:2], noise[3:4], 0.5))
    assert torch.allclose(images[1, 2] / 127.5 - 1, half[0], atol=0.5 / 127.5 + 1e-4)
    assert walks.index["image_id"].iloc[7].endswith("s2-walk00001-002")
    with Image.open(tmp_path / "walks" / "strips.png") as strips, Image.open(tmp_path / "ends/grid.png") as g:
        assert strips.width > 2 * strips.height  # two walks of five
        assert g.width == pytest.approx(6 * strips.width / 5, rel=0.01)


def test_the_store_says_whose_it_is_and_from_whom_it_learned(gan: Path, tmp_path: Path) -> None:
    store = drawn(gan, tmp_path / "s", num=3)
    (patient,) = set(store.index["patient_id"])
    assert is_generated(patient)
    made = store.record.plain["generated"]
    assert made["generator"] == patient
    assert set(made["patients"]) == set(read_encoder_card(gan / "gan").patients) != set()
    assert store.index["image_id"].is_unique


def test_generated_images_belong_in_train(gan: Path, hospital: Path, tmp_path: Path) -> None:
    store = drawn(gan, tmp_path / "s", num=3)
    patient = store.index["patient_id"].iloc[0]
    rows = [f"{image},{patient},../{image}.png,{k % 2}" for k, image in enumerate(store.index["image_id"])]
    lines = (hospital / "cohort/manifest.csv").read_text().splitlines()
    kept = [",".join(line.split(",")[:3] + line.split(",")[-1:]) for line in lines]
    header = lines[0].split(",")
    assert [*header[:3], header[-1]] == ["image_id", "patient_id", "path", "kl"]
    (tmp_path / "manifest.csv").write_text("\n".join([*kept, *rows]) + "\n")
    for settings in ({}, {"task": "kl >= 1"}, {"task": "kl >= 1", "unlabelled": "divide"}):
        for seed in range(4):
            out = tmp_path / f"split-{len(list(tmp_path.iterdir()))}"
            config = split.Config(manifest=tmp_path, seed=seed, train=0.4, val=0.3, test=0.3, **settings)
            execute("split", config, out)
            assert f"{patient},train" in (out / "splits.csv").read_text()
    held = tmp_path / "held.csv"
    held.write_text((gan / "split/splits.csv").read_text() + f"{patient},val\n")
    with pytest.raises(InputError, match=f"'{patient}' is a generator, not a patient, and is in val"):
        pretrain.read_splits(held)
    with pytest.raises(InputError, match=f"{patient} is a generator and is in val"):
        execute("split", split.Config(manifest=hospital / "cohort", splits=held, check=True), tmp_path / "c")


def test_a_generator_that_saw_a_held_out_patient_is_a_leak(gan: Path, hospital: Path, tmp_path: Path) -> None:
    drawn(gan, tmp_path / "s", num=3)
    fine = split.Config(
        manifest=hospital / "cohort", splits=gan / "split", pools=(tmp_path / "s",), check=True
    )
    assert "no leak" in execute("split", fine, tmp_path / "fine")
    moved = (gan / "split/splits.csv").read_text().replace(",train", ",test", 1)
    (tmp_path / "moved.csv").write_text(moved)
    leaky = fine.model_copy(update={"splits": tmp_path / "moved.csv"})
    with pytest.raises(InputError, match=r"1 leak: .* was seen by the generator of "):
        execute("split", leaky, tmp_path / "leak")


def test_an_encoder_pretrained_on_samples_names_the_generators_patients(gan: Path, tmp_path: Path) -> None:
    drawn(gan, tmp_path / "s", num=8)
    config = pretrain.Config(store=tmp_path / "s", splits=gan / "split", **ADVERSARIAL)
    told = execute("pretrain", config, tmp_path / "second")
    assert "are they of this store" not in told
    before, after = read_encoder_card(gan / "gan"), read_encoder_card(tmp_path / "second")
    assert set(after.patients) > set(before.patients)
    made = mark(Store.open(tmp_path / "s").index["patient_id"].tolist()[:1], site_key())
    assert set(after.patients) - set(before.patients) == set(made)
    random = pretrain.Config(store=tmp_path / "s", architecture="critic", device="cpu")
    execute("pretrain", random, tmp_path / "random")
    assert read_encoder_card(tmp_path / "random").patients == ()


def export(folder: Path) -> None:
    """Make a generator's card as `export` writes it."""
    card = read_generator_card(folder).exported({"finding": "no sign of copying"})
    (folder / "generator.json").write_text(card.model_dump_json())


def test_an_encoder_pretrained_on_samples_of_an_exported_generator_is_refused(
    gan: Path, hospital: Path, tmp_path: Path
) -> None:
    """Nobody knows whom that generator saw: neither the card, nor a second pretraining, may hide it."""
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("generator.json", "generator.safetensors"):
        shutil.copy(gan / "gan" / name, alone)
    export(alone)
    drawn(alone.parent, tmp_path / "s", num=8, generator=alone)
    config = pretrain.Config(store=tmp_path / "s", splits=gan / "split", **ADVERSARIAL)
    assert "its patients are not known" in execute("pretrain", config, tmp_path / "second")
    further = {"store": hospital / "store", "init": "encoder", "weights": tmp_path / "second"}
    execute("pretrain", config.model_copy(update=further), tmp_path / "third")
    manifest = read_manifest(hospital / "cohort")
    held_out = read_splits(gan / "split").patients("test")
    for name in ("second", "third"):
        values = json.loads((tmp_path / name / "encoder.json").read_text())
        assert (values["images_seen"] > 0, values["patients"]) == (True, [])
        with pytest.raises(InputError, match=r"lists no patients, .* an exported one does not tell"):
            check_cards([{**values, "arm": name}], held_out, manifest)
        looked = split.Config(
            manifest=hospital / "cohort", splits=gan / "split", encoders=(tmp_path / name,), check=True
        )
        with pytest.raises(InputError, match="lists no patients: it cannot be checked"):
            execute("split", looked, tmp_path / f"check-{name}")
    real = pretrain.Config(store=hospital / "store", splits=gan / "split", **ADVERSARIAL)
    assert "not known" not in execute("pretrain", real, tmp_path / "real")


def test_a_killed_run_ends_with_the_same_bytes(
    gan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sample.Config(generator=gan / "gan", num=20, shard_images=6, device="cpu")
    execute("sample", config, tmp_path / "whole")
    calls = []
    once = sample.images_of

    def killed(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return once(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(sample, "images_of", killed)
        with pytest.raises(KeyboardInterrupt):
            execute("sample", config, tmp_path / "out")
        assert not (tmp_path / "out/store.json").exists()
        execute("sample", config, tmp_path / "out")
    assert len(calls) == 5  # four files, of which two were there
    own = {"provenance.json", "log.jsonl", ".lock"}
    names = {p.name for p in (tmp_path / "whole").iterdir()} - own
    assert {p.name for p in (tmp_path / "out").iterdir()} - own == names
    assert {"index.csv", "store.json", "grid.png", "images-00003.npy"} < names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_is_no_generator_is_refused(gan: Path, tmp_path: Path) -> None:
    (tmp_path / "arm" / "gan").mkdir(parents=True)
    with pytest.raises(InputError, match="no generator there"):
        drawn(tmp_path / "arm", tmp_path / "a")
    alone = tmp_path / "alone" / "gan"
    alone.mkdir(parents=True)
    for name in ("generator.json", "generator.safetensors"):
        shutil.copy(gan / "gan" / name, alone)
    made = drawn(alone.parent, tmp_path / "b", num=2).record.generated  # its own card lists its patients
    assert made is not None
    assert set(made.patients) == set(read_encoder_card(gan / "gan").patients)
    export(alone)
    exported = drawn(alone.parent, tmp_path / "e", num=2)  # leaves without the encoder, and may be drawn from
    assert (exported.preprocessing, exported.record.generated.patients) == ("", ())
    shutil.copy(gan / "gan/encoder.json", alone)
    state = load_file(alone / "generator.safetensors")
    state["output.bias"].fill_(float("nan"))
    save_file(state, alone / "generator.safetensors")
    with pytest.raises(RunError, match="images are not finite"):
        drawn(alone.parent, tmp_path / "c")


def test_grid_shows_the_first_samples(gan: Path, tmp_path: Path) -> None:
    store = drawn(gan, tmp_path / "s", num=30, grid=3)
    with Image.open(tmp_path / "s/grid.png") as sheet:
        assert sheet.width == sheet.height
        shade = np.asarray(sheet.convert("L"), dtype=float)
    step = (shade.shape[0] + 4) // 3
    means = [
        shade[i * step : i * step + 100, j * step : j * step + 100].mean() for i in range(3) for j in range(3)
    ]
    real = store.read(slice(0, 9)).float().mean((1, 2, 3)).numpy()
    assert np.abs(np.array(means) - real).max() < 12
    assert json.loads((tmp_path / "s/store.json").read_text())["num_images"] == 30


class BlankConfig(Record):
    """Settings of `Blank`."""


class Blank(Generator):
    """A generator without a random input."""

    Config = BlankConfig

    def sample(self, num: int, seed: int, first: int = 0) -> torch.Tensor:  # noqa: ARG002
        return torch.full((num, self.channels, self.size, self.size), 7, dtype=torch.uint8)


def test_a_generator_of_another_kind_draws_single_images_and_has_no_walks(
    gan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blank, "kind", staticmethod(lambda: "blank"))
    monkeypatch.setattr("trabecula.nets.generators.generator.find", lambda kind: {"blank": Blank}[kind])
    Blank(BlankConfig(), 1, 32).save(tmp_path, read_encoder_card(gan / "gan"), 8)
    assert (drawn(tmp_path, tmp_path / "s", num=3, generator=tmp_path).read(slice(0, 3)) == 7).all()
    with pytest.raises(InputError, match="kind 'blank' has no random input to walk in; use kind = independ"):
        drawn(tmp_path, tmp_path / "w", generator=tmp_path, kind="interpolate")
