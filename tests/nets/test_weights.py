"""Weights files: the layouts of training checkpoints, and files of this program without their cards."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trabecula import pretrain
from trabecula.artifacts.encoder import write_critic, write_encoder
from trabecula.artifacts.weights import plain_name, read_weights, write_weights
from trabecula.errors import InputError
from trabecula.nets.backbone import Backbone, build_backbone
from trabecula.nets.encoder import load_encoder, make_encoder
from trabecula.nets.weights import load_weights
from trabecula.run import execute

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return dict(torchvision.models.squeezenet1_1(weights=None).state_dict())


def other(state: State) -> State:
    return {key: value + 1 for key, value in state.items()}


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def backbone() -> Backbone:
    return build_backbone("torchvision:squeezenet1_1", 3, 64, seed=5)


def holds(net: Backbone, state: State) -> bool:
    return all(torch.equal(value, state[key]) for key, value in net.net.state_dict().items())


LAYOUTS: dict[str, Any] = {
    "": lambda s: s,
    "module.": lambda s: under("module.", s),
    "_orig_mod.": lambda s: under("_orig_mod.", s),
    "module._orig_mod.": lambda s: {"epoch": 3, "state_dict": under("module._orig_mod.", s)},
    "module.encoder_q.": lambda s: {
        "state_dict": under("module.encoder_q.", s) | under("module.encoder_k.", other(s))
        | {"module.queue": torch.ones(4)}
    },
    "module.base_encoder.": lambda s: {
        "state_dict": under("module.momentum_encoder.", other(s)) | under("module.base_encoder.", s)
    },
    "teacher.backbone.": lambda s: {
        "teacher": under("backbone.", s) | {"head.last.weight": torch.ones(4)},
        "student": {"else.weight": torch.ones(2)},
    },
    "state_dict.net.model.": lambda s: {
        "state_dict": under("net.model.", s),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
    },
    "encoder.": lambda s: {"params": under("encoder.", s) | under("decoder.", {"0.weight": torch.ones(2)})},
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pth.tar", ".pt", ".bin"])
@pytest.mark.parametrize("prefix", LAYOUTS)
def test_the_one_prefix_under_which_all_keys_fit_is_left_off(
    prefix: str, suffix: str, state: State, tmp_path: Path
) -> None:
    file, net = tmp_path / f"w{suffix}", backbone()
    torch.save(LAYOUTS[prefix](state), file)
    assert load_weights(net, file) == prefix
    assert holds(net, state)


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_run_tells_which_prefix_was_left_off(
    prefix: str, hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr and in its log; nothing where there was none."""
    weights = make_encoder("critic", 1, 32, seed=1).backbone.net.state_dict()
    torch.save(under(prefix, dict(weights)), tmp_path / "w.pt")
    config = pretrain.Config(
        store=hospital / "store", architecture="critic", init="weights", weights=tmp_path / "w.pt"
    )
    execute("pretrain", config, tmp_path / "run")
    note = f"note: the keys of {tmp_path / 'w.pt'} were read without their prefix '{prefix}'\n"
    assert capsys.readouterr().err == (note if prefix else "")
    log = tmp_path / "run" / "log.jsonl"
    lines = map(json.loads, log.read_text().splitlines() if log.exists() else [])
    told = [line["prefix"] for line in lines if line["event"] == "weights"]
    assert told == ([prefix] if prefix else [])
    assert holds(load_encoder(tmp_path / "run").backbone, dict(weights))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net", "params", "teacher", "student", "weights"])
def test_a_single_state_dict_is_found_where_it_lies(wrapper: str, state: State, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "config": {"lr": 0.1, "names": ["a"]}, wrapper: state}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").keys() == state.keys()
    torch.save({"outer": {wrapper: state}}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").keys() == state.keys()


def test_a_prefix_in_safetensors_and_in_a_card(state: State, tmp_path: Path) -> None:
    save_file(under("backbone.", state), tmp_path / "simclr.safetensors")
    encoder = make_encoder(
        "torchvision:squeezenet1_1", 3, 64, init="weights", weights=tmp_path / "simclr.safetensors"
    )
    assert holds(encoder.backbone, state)
    assert encoder.card.weights_prefix == "backbone."
    assert encoder.card.weights.startswith("simclr sha256:")
    assert (encoder.card.family, encoder.card.name) == ("weights", "torchvision-squeezenet1_1-simclr")


def test_what_an_optimizer_keeps_is_no_network(state: State, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save({"model": state, "optim": {"exp_avg": other(state)}, "optimizer_state": other(state)}, file)
    loaded = backbone()
    load_weights(loaded, file)
    assert all(torch.equal(value, state[key]) for key, value in loaded.net.state_dict().items())


def test_of_teacher_and_student_the_user_chooses(state: State, tmp_path: Path) -> None:
    file = tmp_path / "dino.pth"
    torch.save(
        {"student": under("module.backbone.", other(state)), "teacher": under("backbone.", state)}, file
    )
    with pytest.raises(InputError, match="holds 2 networks that fit") as caught:
        load_weights(backbone(), file)
    assert "'student.module.backbone.', 'teacher.backbone.'" in str(caught.value)
    advised = re.search(r"weights_prefix = '(.+)'", str(caught.value))
    assert advised is not None
    for prefix, kept in ((advised[1], state), ("student.module.backbone", other(state))):
        net = backbone()
        load_weights(net, file, prefix)
        assert holds(net, kept)
    with pytest.raises(InputError, match=r"no key begins with weights_prefix 'x\.'; they begin student"):
        load_weights(backbone(), file, "x")


def test_another_network_under_a_prefix_is_named_and_then_loads(state: State, tmp_path: Path) -> None:
    torch.save(under("module.", state), tmp_path / "w.pth")
    with pytest.raises(InputError) as caught:
        load_weights(build_backbone("torchvision:squeezenet1_0", 3, 64), tmp_path / "w.pth")
    advised = re.search(r"set architecture = '(.+)'", str(caught.value))
    assert advised is not None
    assert load_weights(build_backbone(advised[1], 3, 64), tmp_path / "w.pth") == "module."


def test_an_rgb_file_under_a_prefix_takes_the_stem_that_is_advised(state: State, tmp_path: Path) -> None:
    torch.save(under("module.", state), tmp_path / "w.pth")
    with pytest.raises(InputError, match="set stem = 'sum' or 'repeat'"):
        load_weights(build_backbone("torchvision:squeezenet1_1", 1, 64), tmp_path / "w.pth")
    for stem in ("sum", "repeat"):
        net = build_backbone("torchvision:squeezenet1_1", 1, 64, stem=stem)  # type: ignore[arg-type]
        assert load_weights(net, tmp_path / "w.pth") == "module."


def test_what_a_prefix_leaves_over_is_still_refused(state: State, tmp_path: Path) -> None:
    torch.save(under("module.", {**state, "extra.weight": torch.ones(1)}), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"1 unexpected \(extra.weight\)"):
        load_weights(backbone(), tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_as_such(value: float, state: State, tmp_path: Path) -> None:
    bad = state["features.3.squeeze.bias"].clone()
    bad[2] = value
    save_file({**state, "features.3.squeeze.bias": bad}, tmp_path / "w.safetensors")
    net = backbone()
    before = {key: tensor.clone() for key, tensor in net.net.state_dict().items()}
    with pytest.raises(InputError, match=r"1 of 50 tensors have values .* not finite \(features.3.squeeze"):
        load_weights(net, tmp_path / "w.safetensors")
    assert holds(net, before)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_advice_for_a_pickle_with_objects_gives_a_file_that_loads(
    legacy: bool, state: State, tmp_path: Path
) -> None:
    file = tmp_path / "w.pth"
    checkpoint = {"model": state, "args": argparse.Namespace(lr=1)}
    torch.save(checkpoint, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"not only tensors, .*\(argparse.Namespace is in it\)") as caught:
        load_weights(backbone(), file)
    assert "\n" not in str(caught.value)
    assert "x = torch.load(FILE, weights_only=False)" in str(caught.value)
    x = torch.load(file, weights_only=False)
    save_file(x["model"], tmp_path / "weights.safetensors")
    net = backbone()
    load_weights(net, tmp_path / "weights.safetensors")
    assert holds(net, state)


@pytest.mark.parametrize(
    ("file", "name"), [("a/net.pth.tar", "net"), ("net.v2.safetensors", "net.v2"), ("net", "net")]
)
def test_what_a_file_is_called(file: str, name: str) -> None:
    assert plain_name(Path(file)) == name


# --- files of this program


def small(**changes: Any) -> Any:
    return make_encoder(**{"architecture": "critic:4-8", "channels": 1, "size": 16, "seed": 1, **changes})


def test_a_copy_of_our_weights_without_its_card_is_refused(tmp_path: Path) -> None:
    """It would pass for weights that have seen no patient."""
    encoder = small()
    card = encoder.card.model_copy(update={"patients": ("ab",), "images_seen": 64})
    write_encoder(tmp_path / "run", card, encoder.backbone.net.state_dict())
    (tmp_path / "run" / "config.json").write_text('{"architecture": "resnet18"}')
    for name in ("mine.safetensors", "run/renamed.safetensors", "hub/model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "run" / "encoder.safetensors", tmp_path / name)
        with pytest.raises(InputError, match=r"without its card.* with init = encoder") as caught:
            small(init="weights", weights=tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "hub" / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(InputError, match="without its card"):  # dressed as a folder of timm
        make_encoder("auto", 3, 64, init="weights", weights=tmp_path / "hub")
    begun = small(init="encoder", weights=tmp_path / "run")  # the advice
    assert begun.card.patients == ("ab",)


@pytest.mark.parametrize("kind", ["critic", "generator", "classifier", "probe"])
def test_our_other_files_are_no_encoders(kind: Any, tmp_path: Path) -> None:
    state = under("encoder.", dict(small().backbone.net.state_dict()))
    write_weights(tmp_path / "x.safetensors", state, kind)
    with pytest.raises(InputError, match=f"wrote this file for a {kind}: it is no encoder"):
        small(init="weights", weights=tmp_path / "x.safetensors")


def test_the_mark_changes_no_tensor_and_gives_the_same_bytes(tmp_path: Path) -> None:
    state = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(1)}
    for name in ("a", "b"):
        write_critic(tmp_path, state)
        (tmp_path / "critic.safetensors").rename(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert torch.equal(load_file(tmp_path / "a")["output.weight"], state["weight"])


def test_an_encoder_of_an_earlier_version_still_loads(tmp_path: Path) -> None:
    encoder = small()
    encoder.save(tmp_path)
    save_file(load_file(tmp_path / "encoder.safetensors"), tmp_path / "encoder.safetensors")  # no mark
    assert holds(load_encoder(tmp_path).backbone, encoder.backbone.net.state_dict())


def test_a_checkpoint_of_our_own_run_is_named(tmp_path: Path) -> None:
    keys = ("step", "precision", "memory", "objective", "optimizers")
    torch.save({**dict.fromkeys(keys, 0), "objective": {"encoder.a": torch.ones(1)}}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="a run of Trabecula that is not finished; run its command again"):
        small(init="weights", weights=tmp_path / "c.pt")


def test_files_written_here_have_one_order_of_their_header_and_load_anywhere(tmp_path: Path) -> None:
    state = {"b": torch.arange(3.0), "a": torch.ones(2, 2, dtype=torch.bfloat16)}
    files = [write_weights(tmp_path / f"{i}.safetensors", state, "encoder").read_bytes() for i in range(8)]
    assert len(set(files)) == 1
    with safe_open(tmp_path / "0.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "trabecula": "encoder"}  # transformers asks for the format
        assert all(torch.equal(file.get_tensor(key), value) for key, value in state.items())
    longer = {f"layer.{i}": torch.full((i + 1,), float(i)) for i in range(40)}
    write_weights(tmp_path / "long.safetensors", longer, "probe")
    assert all(torch.equal(v, longer[k]) for k, v in read_weights(tmp_path / "long.safetensors").items())
