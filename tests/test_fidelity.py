"""The verb fidelity: equal sets, curves, resume, the audit; and export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trabecula import export, fidelity, pretrain, split
from trabecula.artifacts.features import read_features
from trabecula.artifacts.generator import read_generator_card, write_generator
from trabecula.artifacts.patient_hashes import mark, site_key
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store, to_float
from trabecula.errors import InputError, RunError
from trabecula.metrics import fidelity as measures
from trabecula.nets.encoder import load_critic, load_encoder
from trabecula.nets.extractors import load_extractor
from trabecula.nets.generators.generator import load_generator
from trabecula.nets.generators.upsampling import UpsamplingGenerator
from trabecula.run import execute
from trabecula.sections.generators import read_generators


@pytest.fixture(scope="module")
def study(make_store: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders store, split, gan (three snapshots) of 40 patients with two images each."""
    root = make_store(num_patients=40, name="fidelity")
    out = tmp_path_factory.mktemp("study")
    shutil.copytree(root / "store", out / "store")
    settings = split.Config(manifest=root / "cohort", task="kl", train=0.5, val=0.25, test=0.25)
    execute("split", settings, out / "split")
    gan = pretrain.Config(
        store=out / "store", splits=out / "split", architecture="critic", objective="wgan_gp",
        settings={"critic_steps": 1, "latent": 8}, images=48, every=16, snapshots=16, batch_size=8,
        precision="float32",
    )  # fmt: skip
    execute("pretrain", gan, out / "gan")
    return out


def config(study: Path, **settings: Any) -> fidelity.Config:
    values = {"generator": study / "gan", "store": study / "store", "splits": study / "split", "num": 16}
    return fidelity.Config(**{**values, **settings})


@pytest.fixture(scope="module")
def done(study: Path) -> Path:
    execute("fidelity", config(study), study / "fidelity")
    return study / "fidelity"


def read(folder: Path, name: str = "fidelity.json") -> Any:
    return json.loads((folder / name).read_text())


def test_curves_have_every_snapshot_against_both_parts_at_equal_numbers(done: Path) -> None:
    found = read(done)
    rows = found["points"]
    metrics = {"fd", "kid", "precision", "recall", "density", "coverage"}
    for images in (16, 32, 48):
        for part in ("train", "val"):
            here = {r["metric"] for r in rows if (r["images"], r["set"]) == (images, part)}
            assert here == metrics
    assert {(r["images"], r["set"]) for r in rows if r["set"].startswith(("floor", "test"))} == {
        (None, "floor"), (48, "test"), (None, "floor_test"),
    }  # fmt: skip
    assert {(r["num_fakes"], r["num_reals"]) for r in rows} == {(16, 16)}
    assert all((r["low"] is None) == (r["metric"] != "kid") for r in rows)
    assert found["protocol"]["frechet"] == "FD[random-conv 2]"
    assert found["protocol"]["num"] == 16
    for name in ("fd.svg", "kid.svg", "gap.svg"):
        assert (done / name).read_text().startswith("<svg")


def test_the_report_reads_it(done: Path) -> None:
    (generator,) = read_generators([done])
    assert generator.name == "critic-wgan_gp"
    assert len(generator.charts) == 6 + 3
    assert "between two sets of real images" in dict(generator.charts[0].legend)
    assert ("finding", read(done)["memorisation"]["finding"]) in generator.facts


def test_a_point_is_what_the_metrics_say_of_the_same_images(study: Path, done: Path) -> None:
    store = Store.open(study / "store")
    folder = study / "gan" / "snapshots" / "000000032"
    extractor = load_extractor("random-conv", 1, 32)
    fakes = extractor(load_generator(folder)[0].sample(16, 0)).numpy()
    part = read_features(done / "features" / "val")
    chosen = [store.index["image_id"].tolist().index(image) for image in part.image_ids[:16]]
    reals = extractor(store.read(chosen)).numpy()
    assert reals == pytest.approx(part.values[:16], rel=1e-4, abs=1e-5)
    expected = measures.fidelity(reals, fakes, part.patient_ids[:16])
    rows = {
        r["metric"]: r for r in read(done)["points"] if (r["images"], r["set"]) == (32, "val")
    }  # fmt: skip
    assert rows["fd"]["value"] == pytest.approx(expected.frechet, rel=1e-4)
    assert rows["kid"]["value"] == pytest.approx(expected.kernel.value, rel=1e-3)
    assert rows["kid"]["low"] == pytest.approx(expected.kernel.low, rel=1e-2)
    assert rows["coverage"]["value"] == expected.manifold.coverage
    assert rows["fd"]["num_patients"] == len(set(part.patient_ids[:16]))


def test_parts_hold_the_right_patients(study: Path, done: Path) -> None:
    splits = read_splits(study / "split")
    for part in ("train", "val", "test"):
        assert {splits.of[p] for p in read_features(done / "features" / part).patient_ids} == {part}
    assert len(read_features(done / "features" / "train").image_ids) == 40  # all, for the nearest ones
    assert len(read_features(done / "features" / "test").image_ids) == 16


def test_the_critic_is_read_on_the_same_images(study: Path, done: Path) -> None:
    store = Store.open(study / "store")
    folder = study / "gan" / "snapshots" / "000000016"
    critic, encoder = load_critic(folder), load_encoder(folder)
    ids = store.index["image_id"].tolist()

    @torch.no_grad()
    def mean(images: torch.Tensor) -> float:
        return float(critic(encoder.normalise(to_float(images))).mean())

    def real(part: str) -> float:
        taken = read_features(done / "features" / part).image_ids[:16]
        return mean(store.read([ids.index(image) for image in taken]))

    row = read(done)["critic"][0]
    fake = mean(load_generator(folder)[0].sample(16, 0))
    assert (row["images"], len(read(done)["critic"])) == (16, 3)
    assert [row["train"], row["val"], row["fake"]] == pytest.approx(
        [real("train"), real("val"), fake], rel=1e-4
    )
    assert row["gap"] == pytest.approx(row["train"] - row["val"])
    assert row["relative_gap"] == pytest.approx(row["gap"] / (row["train"] - row["fake"]))
    assert row["low"] < row["gap"] < row["high"]


def test_test_images_are_first_touched_after_the_last_point(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_reals, real_point = fidelity._Measuring.reals, fidelity._Measuring.point

    def reals(self: Any, name: str) -> Any:
        order.append(name)
        return real_reals(self, name)

    def point(self: Any, images: int, place: Path) -> Any:
        order.append(f"point {images}")
        return real_point(self, images, place)

    monkeypatch.setattr(fidelity._Measuring, "reals", reals)
    monkeypatch.setattr(fidelity._Measuring, "point", point)
    execute("fidelity", config(study), tmp_path / "run")
    assert "test" not in order[: order.index("point 48")]
    assert "test" in order


def test_a_killed_run_goes_on_after_its_last_point(
    study: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = fidelity._Measuring.fakes, []

    def killed(self: Any, place: Path) -> Any:
        made.append(place.name)
        if len(made) == 2:
            raise KeyboardInterrupt
        return real(self, place)

    monkeypatch.setattr(fidelity._Measuring, "fakes", killed)
    with pytest.raises(KeyboardInterrupt):
        execute("fidelity", config(study), tmp_path / "run")
    assert [p.name for p in (tmp_path / "run" / "points").iterdir()] == ["000000016.json"]
    execute("fidelity", config(study), tmp_path / "run")
    assert made[2:] == ["000000032", "gan", "gan"]  # the first is read, the last also audited
    names = [p.relative_to(done) for p in done.rglob("*") if p.is_file() and p.name not in (
        "log.jsonl", "provenance.json", ".lock"
    )]  # fmt: skip
    assert len(names) > 15
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (done / name).read_bytes(), name


def test_a_snapshot_alone_is_one_point(study: Path, tmp_path: Path) -> None:
    early = study / "gan" / "snapshots" / "000000016"
    summary = execute("fidelity", config(study, generator=early), tmp_path / "run")
    assert {r["images"] for r in read(tmp_path / "run")["points"]} == {16, None}
    assert "FD[random-conv 2] of 16 images" in summary


def test_an_encoder_as_extractor_names_its_distance(study: Path, tmp_path: Path) -> None:
    settings = {"extractor": "encoder", "weights": study / "gan"}
    execute("fidelity", config(study, **settings), tmp_path / "run")
    assert read(tmp_path / "run")["protocol"]["frechet"] == "FD[critic-wgan_gp]"


# --- the audit


def test_the_audit_names_no_image_and_no_patient(study: Path, done: Path) -> None:
    text = (done / "audit.json").read_text()
    index = Store.open(study / "store").index
    assert not any(f'"{name}"' in text for column in ("image_id", "patient_id") for name in index[column])
    assert not any(m in text for m in mark(index["patient_id"].tolist(), site_key()))
    pairs = read(done)["memorisation"]["nearest_pairs"]  # these stay inside
    assert {p["image_id"] for p in pairs} <= set(read_features(done / "features" / "train").image_ids)
    assert [p["distance"] for p in pairs] == sorted(p["distance"] for p in pairs)


def copier(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of `fidelity` whose generator gives training images, a grey level off."""
    rows = np.flatnonzero(
        read_splits(study / "split").rows("train", Store.open(study / "store").index["patient_id"])
    )
    images = Store.open(study / "store").read(rows[:16])
    monkeypatch.setattr(
        UpsamplingGenerator, "sample", lambda *_: (images.int() + 1).clamp(max=255).to(torch.uint8)
    )
    execute("fidelity", config(study), tmp_path / "copies")
    return tmp_path / "copies"


def test_a_copier_is_found(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(copier(study, tmp_path, monkeypatch), "audit.json")
    assert found["finding"] == "copying"
    assert found["measures"]["share_near"]["value"] == 1
    assert found["measures"]["authenticity"]["value"] == 0


def test_an_audit_of_a_part_of_the_training_images_says_so(study: Path, done: Path, tmp_path: Path) -> None:
    """Copies of those that were not looked at would not be seen."""
    assert "among" not in read(done, "audit.json")["finding"]
    num = len(read_features(done / "features" / "train").image_ids)
    said = execute("fidelity", config(study, pool=16), tmp_path / "few")
    found = read(tmp_path / "few", "audit.json")
    assert (found["num_train"], found["num_train_in_all"]) == (16, num)
    assert found["finding"].endswith(f" among 16 of {num} training images")
    assert found["finding"] in said
    values = {**found, "finding": f"no sign of copying among 16 of {num} training images"}
    (tmp_path / "audit.json").write_text(json.dumps(values))
    wanted = export.Config(generator=study / "gan", audit=tmp_path / "audit.json")
    assert execute("export", wanted, tmp_path / "out").endswith(values["finding"])


def test_export_carries_the_audit_and_no_patient(study: Path, done: Path, tmp_path: Path) -> None:
    summary = execute(
        "export", export.Config(generator=study / "gan", audit=done, accept=True), tmp_path / "out"
    )
    generator, card = load_generator(tmp_path / "out")
    assert card.audit == read(done, "audit.json")
    assert card.audit["finding"] in summary
    assert (tmp_path / "out" / "generator.safetensors").read_bytes() == (
        study / "gan" / "generator.safetensors"
    ).read_bytes()
    assert torch.equal(generator.sample(2, 5), load_generator(study / "gan")[0].sample(2, 5))
    made = {"generator.safetensors", "generator.json"}
    own = {"config.json", "provenance.json", "log.jsonl", "DONE", ".lock"}
    assert {p.name for p in (tmp_path / "out").iterdir()} - own == made
    text = (tmp_path / "out" / "generator.json").read_text()
    assert not any(m in text for m in load_encoder(study / "gan").card.patients)


def test_export_without_an_audit_of_these_weights_is_refused(
    study: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no audit\.json"):
        execute("export", export.Config(generator=study / "gan", audit=tmp_path / "empty"), tmp_path / "a")
    early = study / "gan" / "snapshots" / "000000016"
    with pytest.raises(InputError, match="is of another generator"):
        execute("export", export.Config(generator=early, audit=done), tmp_path / "b")
    copies = copier(study, tmp_path, monkeypatch)
    with pytest.raises(InputError, match="the audit says 'copying'"):
        execute("export", export.Config(generator=study / "gan", audit=copies), tmp_path / "c")
    assert not (tmp_path / "c" / "generator.safetensors").exists()
    execute("export", export.Config(generator=study / "gan", audit=copies, accept=True), tmp_path / "d")
    assert load_generator(tmp_path / "d")[1].audit["finding"] == "copying"


# --- what is refused


def test_a_store_of_another_size_is_refused(
    study: Path, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_store(num_patients=6, size=64, name="large") / "store"
    with pytest.raises(InputError, match=r"1 channels and 64 px, the generator in .* makes 1 and 32 px"):
        execute("fidelity", config(study, store=other), tmp_path / "run")


def test_splits_that_hold_out_what_the_generator_saw_are_refused(study: Path, tmp_path: Path) -> None:
    swap = {"train": "val", "val": "train", "test": "test"}
    rows = "".join(f"{p},{swap[part]}\n" for p, part in read_splits(study / "split").of.items())
    (tmp_path / "splits.csv").write_text("patient_id,split\n" + rows)
    with pytest.raises(InputError, match="is in val, and the generator has seen 20 of the held-out patients"):
        execute("fidelity", config(study, splits=tmp_path / "splits.csv"), tmp_path / "run")


def test_too_few_images_are_refused(study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"val has 20 images.*needs at least 31"):
        execute("fidelity", config(study, num=100, nearest=30), tmp_path / "run")
    of = read_splits(study / "split").of
    rows = "".join(f"{p},{part}\n" for p, part in of.items() if part != "val")
    (tmp_path / "splits.csv").write_text("patient_id,split\n" + rows)
    with pytest.raises(InputError, match="no image of the validation part"):
        execute("fidelity", config(study, splits=tmp_path / "splits.csv"), tmp_path / "run2")


def test_a_generator_gone_to_nan_is_told(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "gan", tmp_path / "gan")
    generator, card = load_generator(tmp_path / "gan")
    with torch.no_grad():
        generator.output.weight.fill_(float("nan"))
    write_generator(tmp_path / "gan", card, generator.state_dict())
    with pytest.raises(RunError, match="weights are not finite"):
        execute("fidelity", config(study, generator=tmp_path / "gan"), tmp_path / "run")


def test_a_folder_without_a_generator_is_refused(study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no generator there"):
        execute("fidelity", config(study, generator=study / "store"), tmp_path / "run")


def test_another_site_key_is_told(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRABECULA_SITE_KEY", "another key")
    with pytest.raises(InputError, match="hashed with another site key"):
        execute("fidelity", config(study), tmp_path / "run")


def test_a_generator_of_unknown_patients_is_told(study: Path, tmp_path: Path) -> None:
    """Else every patient would pass for held out, and copies of training images for none."""
    shutil.copytree(study / "gan", tmp_path / "gan")
    for file in (*(tmp_path / "gan").rglob("encoder.json"), *(tmp_path / "gan").rglob("generator.json")):
        file.write_text(json.dumps({**json.loads(file.read_text()), "patients": []}))
    with pytest.raises(InputError, match="its card lists no patients; measure a generator"):
        execute("fidelity", config(study, generator=tmp_path / "gan"), tmp_path / "run")


def test_training_images_of_the_held_out_cohorts_are_compared(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(study / "store")
    rows = np.flatnonzero(store.index["patient_id"].isin(read_splits(study / "split").patients("train")))
    held_out = np.flatnonzero(~np.isin(np.arange(len(store)), rows))
    others = rows[:20]  # of 40: made a second hospital's
    table = store.index.assign(cohort=["b" if row in others else "a" for row in range(len(store))])
    monkeypatch.setattr(Store, "index", property(lambda _: table))
    assert fidelity._of_cohorts(store, rows, held_out).tolist() == [row not in others for row in rows]
    parts, num, in_all = fidelity._parts(
        config(study, num=2024), read_generator_card(study / "gan"), study / "gan", store
    )
    assert (num, len(parts["train"]), in_all) == (20, 40, 40)  # the others are still looked at for copies
    assert not set(parts["train"][:num]) & set(others)
    assert fidelity._of_cohorts(store, others, held_out).all()  # none is of those cohorts: all are taken
