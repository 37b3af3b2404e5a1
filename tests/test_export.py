"""export: encoders and classifiers that leave, held against timm, torchvision and ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file

from trabecula import embed, export, finetune, pretrain, split
from trabecula.artifacts.encoder import read_encoder_card
from trabecula.artifacts.store import Store, to_float
from trabecula.errors import InputError
from trabecula.nets import exported
from trabecula.nets.classifier import load_classifier
from trabecula.nets.encoder import load_encoder
from trabecula.nets.exported import formats_of, widened
from trabecula.run import execute, identity
from trabecula.summaries.model_card import metric_rows

CLOSE = 1e-5
"""Largest difference in float32: of features of order 1, and of the largest feature."""
ARMS: dict[str, dict[str, Any]] = {
    "resnet": {"architecture": "timm:resnet18", "objective": "vicreg"},
    "vit": {"architecture": "timm:test_vit_patch8"},
    "token": {"architecture": "timm:test_vit_patch8", "pool": "token"},
    "widest": {"architecture": "timm:test_resnet", "pool": "mean+max"},
    "squeezenet": {"architecture": "torchvision:squeezenet1_1", "pool": "mean+max"},
    "torchvision": {"architecture": "torchvision:resnet18"},
    "critic": {"architecture": "critic:4-8"},
}
ONNX = ("resnet", "vit", "squeezenet", "critic")
"""Of these the ONNX file is made too, which takes longest."""


@pytest.fixture(scope="module")
def arms(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of encoders by name, and the split that they were trained with."""
    root = tmp_path_factory.mktemp("arms")
    parts = split.Config(manifest=hospital / "cohort", task="kl", train=0.5, val=0.25, test=0.25)
    execute("split", parts, root / "split")
    for name, values in ARMS.items():
        few = {"images": 16, "every": 8, "batch_size": 8, "precision": "float32", "splits": root / "split",
               "settings": {"width": 16}} if "objective" in values else {}  # fmt: skip
        execute("pretrain", pretrain.Config(store=hospital / "store", **values, **few), root / name)
    return root


@pytest.fixture(scope="module")
def left(arms: Path) -> Path:
    """A folder of the exports of all of them."""
    for name in ARMS:
        config = export.Config(encoder=arms / name, license="CC-BY-4.0", onnx=name in ONNX)
        execute("export", config, arms / "left" / name)
    return arms / "left"


def images_of(hospital: Path, num: int = 5) -> torch.Tensor:
    return to_float(Store.open(hospital / "store").read(np.arange(num)))


def features(encoder: Path, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return load_encoder(encoder).eval()(images)  # type: ignore[no-any-return]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "export.json").read_text())  # type: ignore[no-any-return]


# --- the same features elsewhere


@pytest.mark.parametrize("name", ONNX)
def test_onnx_runtime_gives_the_same_features_for_any_number_of_images(
    name: str, left: Path, arms: Path, hospital: Path
) -> None:
    file = left / name / "hub" / "model.onnx"
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for num in (1, 5):
        images = images_of(hospital, num)
        got = session.run(["features"], {"images": images.numpy()})[0]
        torch.testing.assert_close(
            torch.from_numpy(got), features(arms / name, images), rtol=CLOSE, atol=CLOSE
        )
    assert record(left / name)["differences"]["onnxruntime"] < CLOSE


@pytest.mark.parametrize("name", ["resnet", "vit", "token", "torchvision"])
def test_timm_makes_the_network_from_the_folder_alone(
    name: str, left: Path, arms: Path, hospital: Path
) -> None:
    net = timm.create_model(f"local-dir:{left / name / 'hub'}", pretrained=True).eval()
    images, told = images_of(hospital), timm.data.resolve_model_data_config(net)
    assert told["input_size"] == (1, 32, 32)
    x = (images - torch.tensor(told["mean"]).view(-1, 1, 1)) / torch.tensor(told["std"]).view(-1, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), features(arms / name, images), rtol=CLOSE, atol=CLOSE)


def test_timm_puts_a_classifier_of_its_own_on_the_folder(left: Path) -> None:
    for name in ("resnet", "vit"):
        folder = f"local-dir:{left / name / 'hub'}"
        net, bare = (timm.create_model(folder, pretrained=True, num_classes=n).eval() for n in (3, 0))
        x = torch.randn(2, 1, 32, 32)
        with torch.inference_mode():
            torch.testing.assert_close(net.get_classifier()(bare(x)), net(x))


def test_timm_loads_the_weights_with_strict(left: Path, arms: Path, hospital: Path) -> None:
    net = timm.create_model("resnet18", num_classes=0, in_chans=1).eval()
    net.load_state_dict(load_file(left / "resnet" / "hub" / "model.safetensors"), strict=True)
    card = read_encoder_card(arms / "resnet")
    images = images_of(hospital)
    with torch.inference_mode():
        got = net((images - card.mean[0]) / card.std[0])
    torch.testing.assert_close(got, features(arms / "resnet", images), rtol=CLOSE, atol=CLOSE)


def test_torchvision_loads_the_weights_with_strict(arms: Path, hospital: Path, tmp_path: Path) -> None:
    """With three channels: the plain network of torchvision but for its classifier."""
    execute("export", export.Config(encoder=arms / "torchvision", rgb=True, onnx=False), tmp_path / "out")
    net = torchvision.models.resnet18()
    net.fc = torch.nn.Identity()
    net.load_state_dict(load_file(tmp_path / "out" / "hub" / "model.safetensors"), strict=True)
    card = read_encoder_card(tmp_path / "out" / "hub")
    assert (card.stem, len(card.mean)) == ("repeat", 3)
    images = images_of(hospital)
    x = torchvision.transforms.functional.normalize(images.expand(-1, 3, -1, -1), card.mean, card.std)
    with torch.inference_mode():
        wanted = features(arms / "torchvision", images)
        torch.testing.assert_close(net.eval()(x), wanted, rtol=CLOSE, atol=CLOSE)
    torch.testing.assert_close(features(tmp_path / "out" / "hub", images), wanted, rtol=CLOSE, atol=CLOSE)


# With timm: from the folder, and its lines; of other libraries one program each; ONNX Runtime; Trabecula.
PROGRAMS = {"resnet": 4, "vit": 4, "token": 3, "widest": 3, "squeezenet": 3, "torchvision": 4, "critic": 2}


def programs(readme: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", readme, re.S)


@pytest.mark.parametrize("name", ARMS)
def test_the_programs_of_the_readme_give_the_encoders_features(
    name: str, left: Path, arms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(left / name / "hub")
    found = programs((left / name / "hub" / "README.md").read_text())
    assert len(found) == PROGRAMS[name]
    compared = 0
    for program in found:
        places: dict[str, Any] = {}
        exec(program, places)
        if "features" in places:
            images, got = torch.as_tensor(places["images"]), torch.as_tensor(places["features"])
            torch.testing.assert_close(got, features(arms / name, images), rtol=CLOSE, atol=CLOSE)
            compared += 1
    assert compared == PROGRAMS[name] - (1 if name in ("squeezenet", "critic") else 2)


def test_what_cannot_be_is_said_in_one_line(left: Path) -> None:
    told = {name: record(left / name)["impossible"] for name in ARMS}
    assert told["resnet"] == told["vit"] == told["torchvision"] == []
    assert told["critic"] == [
        "critic:4-8 is a network of neither timm nor torchvision: use ONNX or Trabecula"
    ]
    assert told["squeezenet"] == ["torchvision:squeezenet1_1 does not load in timm: use torchvision or ONNX"]
    done = (left / "critic" / "DONE").read_text()
    assert told["critic"][0] in done
    assert "ONNX Runtime" in done


@pytest.mark.parametrize(
    "architecture",
    ["timm:convnext_atto", "timm:test_byobnet", "torchvision:shufflenet_v2_x0_5", "torchvision:densenet121",
     "torchvision:regnet_y_400mf", "torchvision:mnasnet0_5", "torchvision:swin_t", "torchvision:vit_b_32",
     "torchvision:mobilenet_v3_small"],
)  # fmt: skip
def test_every_family_loads_in_its_library(architecture: str) -> None:
    from trabecula.nets.encoder import make_encoder

    encoder = make_encoder(architecture, 1, 64).eval()
    layouts = formats_of(encoder)
    assert architecture.partition(":")[0] in {layout.library for layout in layouts}
    assert all(layout.difference < CLOSE for layout in layouts)


# --- what leaves, and what does not


def test_no_patient_path_or_store_leaves(left: Path, arms: Path) -> None:
    card = read_encoder_card(arms / "resnet")
    assert card.patients
    hub = left / "resnet" / "hub"
    made = {"README.md", "config.json", "encoder.json", "model.onnx", "model.safetensors"}
    assert {path.name for path in hub.iterdir()} == made
    for file in hub.iterdir():
        content = file.read_bytes()
        for secret in (*card.patients, card.store, str(Path(export.__file__).parent), str(arms)):
            assert secret.encode() not in content, (file.name, secret)
    leaving = read_encoder_card(hub)
    assert (leaving.patients, leaving.store, leaving.name) == ((), "", card.name)
    told = onnx.load(hub / "model.onnx")
    assert [entry.key for entry in told.metadata_props] == ["trabecula"]
    assert not any(node.metadata_props or node.doc_string for node in told.graph.node)


def test_an_export_again_gives_the_same_bytes(left: Path, arms: Path) -> None:
    execute("export", export.Config(encoder=arms / "critic", license="CC-BY-4.0"), left / "again")
    for file in (left / "critic" / "hub").iterdir():
        assert (left / "again" / "hub" / file.name).read_bytes() == file.read_bytes(), file.name


def test_an_exported_folder_is_an_arm_at_another_site(
    left: Path, arms: Path, hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"store": hospital / "store", "architecture": "auto", "init": "weights",
              "weights": left / "resnet" / "hub"}  # fmt: skip
    with pytest.raises(InputError, match="an encoder of this site"):
        execute("pretrain", pretrain.Config(**values), tmp_path / "home")
    monkeypatch.setenv("TRABECULA_SITE_KEY", "another hospital's")
    execute("pretrain", pretrain.Config(**values, weights_name="their vicreg"), tmp_path / "there")
    card = read_encoder_card(tmp_path / "there")
    assert (card.name, card.family, card.images_seen) == ("resnet18-their vicreg", "weights", 0)
    images = images_of(hospital)
    assert torch.equal(features(tmp_path / "there", images), features(arms / "resnet", images))
    assert identity(left / "resnet" / "hub").endswith("/hub")


def test_an_encoder_of_unknown_patients_is_no_weights_at_home(
    arms: Path, hospital: Path, tmp_path: Path
) -> None:
    """Exported, it would pass for an arm that has seen nobody."""
    encoder = load_encoder(arms / "resnet")
    encoder.card = encoder.card.model_copy(update={"patients": (), "patients_key": ""})
    encoder.save(tmp_path / "unknown")
    child = {"store": hospital / "store", "architecture": "auto"}
    start = pretrain.Config(**child, init="encoder", weights=tmp_path / "unknown")
    execute("pretrain", start, tmp_path / "child")
    execute("export", export.Config(encoder=tmp_path / "child", onnx=False), tmp_path / "out")
    again = pretrain.Config(**child, init="weights", weights=tmp_path / "out" / "hub")
    with pytest.raises(InputError, match="an encoder of this site"):
        execute("pretrain", again, tmp_path / "again")


# --- the model card


def results(folder: Path, arm: str) -> Path:
    row = {
        "task": "kl2", "arm": arm, "architecture": "timm:resnet18", "family": "pretrained", "mode": "probe",
        "fraction": 0.1, "seed": "all", "pretrain_seed": 0, "cohort": "all", "stratum": "all",
        "metric": "auroc", "value": 0.8125, "low": 0.75, "high": 0.8675, "sd_seeds": 0.01, "num_seeds": 5,
        "num_images": 40, "num_patients": 20, "num_events": 11, "note": "",
    }  # fmt: skip
    others = [{**row, "cohort": "north", "value": 0.1}, {**row, "seed": 3, "value": 0.2}, {**row, "arm": "x"}]
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"level": 0.95, "alpha": 0.01, "rows": [row, *others]}))
    return folder


def test_the_model_card_tells_use_data_limits_and_licence(left: Path, arms: Path, tmp_path: Path) -> None:
    text = (left / "resnet" / "hub" / "README.md").read_text()
    head, _, body = text.removeprefix("---\n").partition("---\n")
    assert "license: cc-by-4.0\n" in head
    assert "library_name: timm\n" in head
    headings = re.findall(r"^## (.+)$", body, re.M)
    assert headings == ["Use", "Training data", "Training", "Intended use", "Limits", "Metrics", "Licence"]
    num = len(read_encoder_card(arms / "resnet").patients)
    assert f"16 images seen of {num} patients" in body
    assert "ResNet-18, pretrained with VICReg" in body
    assert "None were given at export: (fill in)." in body
    assert "Not a medical device" in body
    assert "(0.449)" in body
    metrics = results(tmp_path / "r", "test_vit_patch8-random")
    plain = export.Config(encoder=arms / "vit", onnx=False, metrics=metrics)
    execute("export", plain, tmp_path / "out")
    text = (tmp_path / "out" / "hub" / "README.md").read_text()
    assert "license: unknown\n" in text
    assert text.rstrip().endswith("## Licence\n\n(fill in)")
    assert (
        "| kl2 | linear probe | 10\N{NO-BREAK SPACE}% | AUROC | 0.812 [0.750 to 0.868] | 40 | 20 | 5 |"
        in text
    )
    assert "0.100" not in text
    assert not (tmp_path / "out" / "hub" / "model.onnx").exists()


def test_metrics_are_of_the_very_encoder_or_say_that_they_are_of_several(tmp_path: Path) -> None:
    folder = results(tmp_path / "r", "moco")
    told = json.loads((folder / "metrics.json").read_text())
    summary, seeds = told["rows"][0], [{**told["rows"][0], "seed": 3, "pretrain_seed": n} for n in (0, 1)]
    (row,), level = metric_rows(folder, "moco", 0)
    assert (row["note"], level) == ("", 0.95)
    with pytest.raises(
        InputError, match=r"'moco' are of pretraining seed 0, this encoder is of seed 1; leave"
    ):
        metric_rows(folder, "moco", 1)
    told["rows"] = [{**summary, "pretrain_seed": "all", "note": "few events"}, *seeds]
    (folder / "metrics.json").write_text(json.dumps(told))
    (row,), _ = metric_rows(folder, "moco", 1)
    assert row["note"] == "mean over encoders of 2 pretraining seeds, this one among them; few events"
    with pytest.raises(InputError, match="are of pretraining seed 0 and 1, this encoder is of seed 2"):
        metric_rows(folder, "moco", 2)


def test_what_went_wrong_in_training_stands_in_the_card(arms: Path, tmp_path: Path) -> None:
    for name in ("encoder.json", "encoder.safetensors"):
        (tmp_path / name).write_bytes((arms / "vit" / name).read_bytes())
    ended, mended = ({"name": text, "text": text, "first": 8, "last": last}
                     for text, last in (("the encoder has collapsed", 16), ("it was narrow", 8)))  # fmt: skip
    told = {"points": [{"images": 8}, {"images": 16}], "findings": [ended, mended]}
    (tmp_path / "training.json").write_text(json.dumps(told))
    execute("export", export.Config(encoder=tmp_path, onnx=False), tmp_path / "out")
    text = (tmp_path / "out" / "hub" / "README.md").read_text()
    assert "Warning from its training: the encoder has collapsed." in text
    assert "narrow" not in text


# --- classifiers


@pytest.mark.parametrize("task", ["kl >= 1", "kl"])
def test_a_classifier_leaves_as_onnx_with_its_probabilities(
    task: str, arms: Path, hospital: Path, tmp_path: Path
) -> None:
    values = {"store": hospital / "store", "manifest": hospital / "cohort", "splits": arms / "split"}
    few = {"images": 16, "batch_size": 8, "every": 8, "precision": "float32", "task": task}
    execute("finetune", finetune.Config(encoder=arms / "vit", **values, **few), tmp_path / "fine")
    said = execute("export", export.Config(classifier=tmp_path / "fine"), tmp_path / "out")
    hub = tmp_path / "out" / "hub"
    session = onnxruntime.InferenceSession(hub / "model.onnx", providers=["CPUExecutionProvider"])
    got = session.run(["probabilities"], {"images": images_of(hospital).numpy()})[0]
    store = Store.open(hospital / "store")
    for folder in (tmp_path / "fine", hub):
        wanted = load_classifier(folder).probabilities(store, np.arange(5), torch.device("cpu"))
        np.testing.assert_allclose(got, wanted, atol=CLOSE)
    np.testing.assert_allclose(got.sum(1), 1, atol=CLOSE)
    told = json.loads(session.get_modelmeta().custom_metadata_map["trabecula"])
    card = load_classifier(tmp_path / "fine").card
    assert (tuple(told["class_names"]), tuple(told["threshold"])) == (card.class_names, card.choice.threshold)
    assert load_classifier(hub).card.encoder.patients == ()
    assert "largest difference of probabilities, of the largest: ONNX Runtime" in said


# --- what is refused


def test_refusals_say_what_to_do(arms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="give encoder, classifier or generator, not none"):
        export.Config()
    with pytest.raises(ValueError, match="not encoder and generator"):
        export.Config(encoder=arms, generator=arms, audit=arms)
    with pytest.raises(ValueError, match="generator and audit go together"):
        export.Config(generator=arms)
    wanted = export.Config(encoder=arms / "vit", metrics=results(tmp_path / "r", "another"))
    with pytest.raises(InputError, match=r"no metrics of arm 'test_vit_patch8-random' \(it has another, x\)"):
        execute("export", wanted, tmp_path / "a")
    with pytest.raises(InputError, match=r"rgb is for grey images .* this is a critic; leave rgb out"):
        execute("export", export.Config(encoder=arms / "critic", rgb=True), tmp_path / "b")
    monkeypatch.setattr(exported, "_ONNX_PACKAGES", ("onnx", "a_package_that_nobody_has"))
    with pytest.raises(InputError, match=r"need a_package_that_nobody_has: .*'trabecula\[export\]'"):
        execute("export", export.Config(encoder=arms / "vit"), tmp_path / "c")


def test_widening_leaves_networks_for_rgb_as_they_are(arms: Path) -> None:
    encoder = load_encoder(arms / "torchvision")
    wide = widened(encoder)
    assert widened(wide) is wide
    kernel = wide.backbone.net.get_parameter("conv1.weight")
    torch.testing.assert_close(
        kernel.sum(1, keepdim=True), encoder.backbone.net.get_parameter("conv1.weight")
    )


def test_an_exported_folder_embeds_and_starts_as_the_encoder_does(
    arms: Path, left: Path, hospital: Path, tmp_path: Path
) -> None:
    """Its card lists no patients, so that `evaluate` refuses what is made of it at its own site."""
    hub, store = left / "resnet" / "hub", hospital / "store"
    for name, encoder in (("own", arms / "resnet"), ("left", hub), ("file", hub / "model.safetensors")):
        execute("embed", embed.Config(encoder=encoder, store=store), tmp_path / name)
        got, own = (np.load(tmp_path / folder / "features.npy") for folder in (name, "own"))
        np.testing.assert_array_equal(got, own)
    told = json.loads((tmp_path / "left" / "features.json").read_text())
    assert told["weights"] == hashlib.sha256((hub / "model.safetensors").read_bytes()).hexdigest()
    child = pretrain.Config(store=store, architecture="auto", init="encoder", weights=hub)
    execute("pretrain", child, tmp_path / "child")
    assert read_encoder_card(tmp_path / "child").parent == told["weights"]
    assert read_encoder_card(tmp_path / "child").images_seen == 16
