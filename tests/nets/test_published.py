"""Published networks: folders of transformers, timm and our own, against those libraries; names offline."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from trabecula.artifacts.patient_hashes import key_name, site_key
from trabecula.errors import InputError
from trabecula.nets import from_transformers, published
from trabecula.nets.encoder import Encoder, load_encoder, make_encoder, starting_point
from trabecula.nets.published import is_hub_name, open_folder

TINY = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 192,
        "image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-6}  # fmt: skip
SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
V2 = {**SMALL, "image_size": 56, "patch_size": 14}
V3 = {**SMALL, "intermediate_size": 1536, "image_size": 64, "patch_size": 16, "num_register_tokens": 4}
MAE = {**TINY, "mask_ratio": 0.0, "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1,
       "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "vit": ("ViTModel", TINY, 32, "timm:test_vit_patch8"),
    "classifier": ("ViTForImageClassification", TINY, 32, "timm:test_vit_patch8"),
    "mae": ("ViTMAEForPreTraining", MAE, 32, "timm:test_vit_patch8"),
    "dinov2": ("Dinov2Model", V2, 56, "timm:vit_small_patch14_dinov2"),
    "registers": ("Dinov2WithRegistersModel", V2, 56, "timm:vit_small_patch14_reg4_dinov2"),
    "dinov3": ("DINOv3ViTModel", V3, 64, "timm:vit_small_patch16_dinov3_qkvb"),
    "unbiased": ("DINOv3ViTModel", {**V3, "query_bias": False, "value_bias": False}, 64,
                 "timm:vit_small_patch16_dinov3"),
    "gated": ("DINOv3ViTModel", {**V3, "use_gated_mlp": True, "hidden_act": "silu"}, 64,
              "timm:vit_small_plus_patch16_dinov3_qkvb"),
}  # fmt: skip


def write(folder: Path, kind: str) -> torch.nn.Module:
    """A network of transformers with random weights, none at its initial zero, as that library saves it."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    name, settings, _, _ = KINDS[kind]
    cls = getattr(transformers, name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: torch.nn.Module = cls(cls.config_class(**settings)).eval()
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(torch.randn_like(weight) * 0.05)
    net.save_pretrained(folder)  # type: ignore[operator]
    return net


def hidden(net: Any, x: torch.Tensor) -> torch.Tensor:
    """The last hidden state, of all tokens in their order."""
    inner = getattr(net, "vit", net)
    if type(net).__name__ == "ViTMAEForPreTraining":
        side = x.shape[-1] // 8
        return inner(x, noise=torch.arange(side**2).float().expand(len(x), -1)).last_hidden_state  # type: ignore[no-any-return]
    return inner(x).last_hidden_state  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_transformers_gives_that_librarys_tokens(kind: str, tmp_path: Path) -> None:
    net = write(tmp_path / kind, kind)
    _, _, size, architecture = KINDS[kind]
    encoder = make_encoder("auto", 3, size, init="weights", weights=tmp_path / kind).eval()
    assert (encoder.card.architecture, encoder.card.family) == (architecture, "weights")
    x = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        wanted, got = hidden(net, x), encoder.backbone.net(x)
        assert wanted.std() > 0.1
        torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))
        prefix = encoder.backbone.num_prefix_tokens
        mean = encoder(
            (x * torch.tensor(encoder.card.std).view(3, 1, 1)) + torch.tensor(encoder.card.mean).view(3, 1, 1)
        )
        torch.testing.assert_close(mean, wanted[:, prefix:].mean(1), rtol=0, atol=1e-3)


def test_positions_of_another_size_and_grey_images(tmp_path: Path) -> None:
    """RAD-DINO's layout, with one mean and deviation for all channels; positions for 56 px, a store of 28."""
    write(tmp_path / "rad", "dinov2")
    told = {"image_mean": [0.5307] * 3, "image_std": [0.2583] * 3, "size": {"shortest_edge": 56}}
    (tmp_path / "rad" / "preprocessor_config.json").write_text(json.dumps(told))
    arms = {
        stem: make_encoder("auto", 1, 28, stem=stem, init="weights", weights=tmp_path / "rad").double().eval()  # type: ignore[arg-type]
        for stem in ("sum", "repeat")
    }
    assert arms["sum"].card.mean == pytest.approx((0.5307,))
    assert arms["repeat"].card.std == (0.2583,) * 3
    images = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    with torch.inference_mode():  # equal mean and std over the channels: the same function
        torch.testing.assert_close(arms["sum"](images), arms["repeat"](images), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="for RGB images: set stem = 'sum' or 'repeat'"):
        make_encoder("auto", 1, 28, init="weights", weights=tmp_path / "rad")


def test_a_random_arm_of_the_same_network_takes_no_weight(tmp_path: Path) -> None:
    write(tmp_path / "v", "vit")
    (tmp_path / "v" / "preprocessor_config.json").write_text('{"do_normalize": false}')
    random = make_encoder("auto", 3, 32, init="random", weights=tmp_path / "v", seed=3)
    plain = make_encoder("timm:test_vit_patch8", 3, 32, seed=3)
    assert (random.card.family, random.card.architecture) == ("random", "timm:test_vit_patch8")
    assert (random.card.mean, random.card.std) == ((0.0,) * 3, (1.0,) * 3)
    for own, same in zip(random.backbone.parameters(), plain.backbone.parameters(), strict=True):
        assert torch.equal(own, same)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"rescale_factor": 1 / 255}, lambda pixel: (pixel / 255 - 0.4) / 0.2),
        ({"rescale_factor": 1 / 127.5}, lambda pixel: (pixel / 127.5 - 0.4) / 0.2),
        ({"do_rescale": False}, lambda pixel: (pixel - 0.4) / 0.2),
        ({"do_normalize": False, "rescale_factor": 1 / 127.5}, lambda pixel: pixel / 127.5),
    ],
)
def test_bytes_reach_the_network_as_the_folder_says(
    told: dict[str, Any], expected: Any, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", **TINY}))
    values = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, **told}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    encoder = make_encoder("auto", 3, 32, weights=tmp_path)
    for pixel in (0, 100, 255):
        x = encoder.normalise(torch.full((1, 3, 32, 32), pixel / 255))
        assert x[0, 0, 0, 0].item() == pytest.approx(expected(pixel), rel=1e-5)


def test_shards_are_read_together(tmp_path: Path) -> None:
    write(tmp_path / "v", "vit")
    whole = load_file(tmp_path / "v" / "model.safetensors")
    names = sorted(whole)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: whole[key] for key in keys}, tmp_path / "v" / file)
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    one = make_encoder("auto", 3, 32, init="weights", weights=tmp_path / "v")
    (tmp_path / "v" / "model.safetensors").unlink()
    (tmp_path / "v" / "model.safetensors.index.json").write_text(json.dumps(index))
    two = make_encoder("auto", 3, 32, init="weights", weights=tmp_path / "v")
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(one.eval()(images), two.eval()(images))
    (tmp_path / "v" / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"b\.safetensors: no such weights file"):
        make_encoder("auto", 3, 32, init="weights", weights=tmp_path / "v")


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "relu"}, {"hidden_size": 65}, {"model_type": "swin"},
        {"model_type": "dinov3_vit", "rope_theta": 5.0, **SMALL},
        {"model_type": "dinov3_vit", "hidden_act": "silu", **SMALL},
    ],
)  # fmt: skip
def test_what_would_compute_something_else_is_not_taken(changes: dict[str, Any]) -> None:
    config = {"model_type": "vit", **TINY, **changes}
    assert from_transformers.network(config) is None
    assert from_transformers.network({"model_type": "vit", **TINY}) == "timm:test_vit_patch8"


# --- timm's folders


def write_timm(folder: Path, name: str = "test_resnet", **options: Any) -> torch.nn.Module:
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = timm.create_model(name, pretrained=False, num_classes=5, **options).eval()
    timm.models.save_for_hf(net, folder, safe_serialization=True)
    return net


def test_a_folder_of_timm_gives_timms_features(tmp_path: Path) -> None:
    net: Any = write_timm(tmp_path / "resnet.in1k")
    encoder = make_encoder("auto", 3, 64, init="weights", weights=tmp_path / "resnet.in1k").eval()
    assert encoder.card.family == "imagenet"  # by its name
    assert encoder.card.weights.startswith("resnet.in1k sha256:")
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = net.forward_head(net.forward_features(encoder.normalise(images)), pre_logits=True)
        torch.testing.assert_close(encoder(images), wanted)
    start = starting_point("auto", "weights", tmp_path / "resnet.in1k", "radiographs")
    assert (start.family, start.label) == ("weights", "radiographs")


def test_a_patch_size_and_a_normalisation_of_timms_folder_are_kept(tmp_path: Path) -> None:
    net = write_timm(tmp_path / "vit", "test_vit", patch_size=8, img_size=32)
    values = json.loads((tmp_path / "vit" / "config.json").read_text())
    values["pretrained_cfg"] |= {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    values["model_args"] = {"patch_size": 8, "img_size": 32}
    (tmp_path / "vit" / "config.json").write_text(json.dumps(values))
    encoder = make_encoder("auto", 3, 32, init="weights", weights=tmp_path / "vit", pool="token").eval()
    assert encoder.card.architecture == "timm:test_vit_patch8"
    assert (encoder.card.mean, encoder.card.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        tokens = net.forward_features(encoder.normalise(images))  # type: ignore[operator]
        torch.testing.assert_close(encoder(images), tokens[:, 0])
    values["model_args"]["qk_norm"] = True
    (tmp_path / "vit" / "config.json").write_text(json.dumps(values))
    with pytest.raises(
        InputError, match=r"with options that are not taken here \(qk_norm\); choose another"
    ) as no:
        open_folder(tmp_path / "vit")
    assert "of another kind" not in str(no.value)


@pytest.mark.parametrize(
    ("config", "prepared"),
    [
        ({"model_type": "dinov2", "hidden_size": [384]}, {}),
        ({"architecture": "resnet18", "model_args": ["x"]}, {}),
        ({"architecture": "resnet18", "std": [0.5, 0, 0.5]}, {}),
        ("vit", {"image_mean": ["a"]}),
        ("vit", {"image_std": [0]}),
        ("vit", {"image_std": [0.5], "rescale_factor": 0}),
    ],
)
def test_values_of_another_kind_are_one_clear_line(
    config: dict[str, object] | str, prepared: dict[str, object], tmp_path: Path
) -> None:
    vit = {"model_type": "vit", "hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3}
    (tmp_path / "config.json").write_text(json.dumps(vit if config == "vit" else config))
    if prepared:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(prepared))
    with pytest.raises(InputError, match=r"config.json has a value of another kind .*; fetch the folder"):
        open_folder(tmp_path)


# --- our own exports


def test_an_own_export_is_weights_elsewhere_and_refused_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = make_encoder("critic:4-8", 1, 16, seed=2)
    key = key_name(site_key())
    own.card = own.card.model_copy(update={"objective": "wgan_gp", "images_seen": 9, "patients_key": key})
    own.save(tmp_path / "hub")
    (tmp_path / "hub" / "encoder.safetensors").rename(tmp_path / "hub" / "model.safetensors")
    assert load_encoder(tmp_path / "hub").card == own.card
    for named in (tmp_path / "hub", tmp_path / "hub" / "model.safetensors"):
        with pytest.raises(InputError, match=r"an encoder of this site: .* init = encoder"):
            make_encoder("critic:4-8", 1, 16, init="weights", weights=named)
    random = make_encoder("auto", 1, 16, init="random", weights=tmp_path / "hub", seed=3)
    assert (random.card.family, random.card.architecture) == ("random", own.card.architecture)
    monkeypatch.setenv("TRABECULA_SITE_KEY", "another hospital's")
    there = make_encoder("auto", 1, 16, init="weights", weights=tmp_path / "hub")
    assert (there.card.family, there.card.images_seen, there.card.objective) == ("weights", 0, "none")
    assert torch.equal(there(torch.ones(1, 1, 16, 16)), own(torch.ones(1, 1, 16, 16)))


# --- what is refused


def broken(tmp_path: Path, what: str) -> Path:
    folder = tmp_path / "m"
    folder.mkdir()
    config: Any = {"model_type": "vit", **TINY}
    if what == "other":
        config = {"model_type": "clip", "hidden_size": 512}
    if what == "unknown":
        config = {"weights": 1}
    if what != "empty":
        (folder / "config.json").write_text("[" if what == "torn" else json.dumps(config))
    if what == "pickle":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Path("x"), protocol=2))
    if what == "keys":
        save_file(
            {"embeddings.cls_token": torch.ones(1), "odd.weight": torch.ones(1)}, folder / "model.safetensors"
        )
    if what == "short":
        save_file({"embeddings.cls_token": torch.ones(1, 1, 64)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("empty", r"no model's folder: it needs encoder\.json"),
        ("torn", "config.json: not valid JSON"),
        ("unknown", r"it needs encoder\.json \(an export\), or config\.json with 'architecture'"),
        ("other", "a 'clip' of transformers .*is not known here; known are"),
        ("bare", "no weights there: model.safetensors is needed"),
        ("pickle", "holds code or objects, not only tensors, and is not loaded"),
        ("keys", r"1 keys are none of a vit of transformers \(odd\.weight\)"),
        ("short", "does not fit timm:test_vit_patch8: 77 missing"),
    ],
)
def test_broken_folders_get_one_line(what: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_encoder("auto", 3, 32, init="weights", weights=broken(tmp_path, what))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "hf:a/b"}, "names weights on the hub: set init = weights"),
        ({"architecture": "auto"}, "is that of a model's folder: set weights to the folder"),
        ({"architecture": "timm:resnet18", "init": "weights", "weights": "v"},
         "holds timm:test_vit_patch8, not timm:resnet18: set architecture = auto"),
    ],
)  # fmt: skip
def test_starts_that_do_not_agree_are_refused(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "config.json").write_text(json.dumps({"model_type": "vit", **TINY}))
    if "weights" in values:
        values = {**values, "weights": tmp_path / values["weights"]}
    with pytest.raises(InputError, match=message):
        make_encoder(channels=3, size=32, **values)


# --- names on the hub; nothing here may reach for a network


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("hf:facebook/dinov2-small", True), ("hf:microsoft/rad-dino@main", True), ("timm:hf-hub:a/b", True),
        ("timm:resnet50.a1_in1k", True), ("resnet50.a1_in1k", True), ("timm:resnet50", False),
        ("torchvision:vit_b_16", False), ("critic:4-8", False), ("auto", False),
    ],
)  # fmt: skip
def test_names_on_the_hub_are_told_from_networks(name: str, is_one: bool) -> None:
    assert is_hub_name(name) == is_one


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("hf:facebook/dinov2-small", "facebook/dinov2-small"),
        ("timm:resnet50.a1_in1k", "timm/resnet50.a1_in1k"),
    ],
)
def test_without_a_network_one_line_says_how_to_bring_the_folder(
    name: str, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError) as caught:
        make_encoder(name, 3, 32, init="weights")
    message = str(caught.value)
    assert f"`hf download {repo} --local-dir {repo.split('/')[1]}`" in message
    assert message.endswith("give --weights FOLDER -s architecture=auto -s init=weights")
    assert "\n" not in message


def test_a_name_on_the_hub_is_its_snapshots_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "0123456789abcdef"
    write(snapshot, "vit")
    asked: list[Any] = []

    def download(repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo, revision, "pytorch_model.bin" in allow_patterns))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    encoder = make_encoder("hf:some/vit@v2", 3, 32, init="weights")
    assert asked == [("some/vit", "v2", False)]  # no pickle is fetched where there is a safetensors file
    assert encoder.card.weights.startswith("some/vit@0123456789ab sha256:")
    assert starting_point("hf:some/vit@v2", "weights", snapshot, "").label == "vit"
    local: Encoder = make_encoder("hf:some/vit@v2", 3, 32, init="weights", weights=snapshot)
    assert len(asked) == 1
    assert local.card.weights.startswith("some/vit@v2 sha256:")


def test_a_plain_setting_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was reached for")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(published, "fetch", refuse)
    make_encoder("timm:test_vit", 1, 32)
