"""Networks in the forms in which they leave: weights as their own library has them, and ONNX files.

A network here keeps the keys of timm or torchvision, so its weights load there with strict=True. What differs
is said in lines of Python: how many channels the first layer takes, and how maps or tokens become the
features. An ONNX file takes images in [0, 1] and gives features or probabilities, the normalisation inside.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trabecula.errors import InputError
from trabecula.nets.backbone import build_backbone
from trabecula.nets.classifier import Classifier
from trabecula.nets.critic import is_critic
from trabecula.nets.devices import exact
from trabecula.nets.encoder import Encoder

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
_INPUT = "images"  # of an ONNX file
_ONNX_PACKAGES = ("onnx", "onnxscript")
_CHECKED = 2  # images by which a network in its library is compared with the encoder
_CHECKED_ONNX = 3  # and a file: another number than it was traced with
_MOST = 1e-4  # of the largest feature: more is another function, not another order of sums


@dataclass(frozen=True)
class LibraryFormat:
    """How to load an encoder's weights in a library, and what comes out."""

    library: str  # "timm" or "torchvision"
    build: str  # lines of Python that make `net`
    features: str  # lines of Python from normalised images `x` to `features`
    config: dict[str, Any] | None  # config.json for timm.create_model("local-dir:FOLDER", pretrained=True)
    difference: float  # largest between its features and the encoder's, of the largest feature

    def code(self, encoder: Encoder) -> str:
        """A whole program from a weights file to features."""
        card = encoder.card
        inside = len(card.mean)
        repeated = f".expand(-1, {inside}, -1, -1)" if inside != card.channels else ""
        lines = [
            f"import {self.library}\nimport torch\nfrom safetensors.torch import load_file\n",
            self.build,
            f'net.load_state_dict(load_file("{WEIGHTS_FILE}"), strict=True)',
            "net.eval()\n",
            f"images = torch.rand(2, {card.channels}, {card.size}, {card.size})  # in [0, 1]",
            f"mean = torch.tensor({list(card.mean)}).view(1, -1, 1, 1)",
            f"std = torch.tensor({list(card.std)}).view(1, -1, 1, 1)",
            f"x = (images{repeated} - mean) / std",
            "with torch.inference_mode():",
            textwrap.indent(self.features, "    "),
        ]
        return "\n".join(lines)


def widened(encoder: Encoder) -> Encoder:
    """The same function of grey images with a first layer for RGB, which is shown them three times.

    Each kernel stands three times, by a third: so it is also defined for colour images.

    Raises:
        InputError: a critic, or images that are not grey.
    """
    card, backbone = encoder.card, encoder.backbone
    if card.stem == "repeat" or card.channels == 3:
        return encoder
    if is_critic(card.architecture) or card.channels != 1:
        what = "a critic" if is_critic(card.architecture) else f"of {card.channels} channels"
        raise InputError(
            f"encoder '{card.name}': rgb is for grey images in a network of timm or torchvision, this is "
            f"{what}; leave rgb out"
        )
    wide = build_backbone(card.architecture, 1, card.size, "repeat")
    state, first = dict(backbone.net.state_dict()), f"{backbone.first_conv}.weight"
    state[first] = state[first].repeat(1, 3, 1, 1) / 3
    wide.net.load_state_dict(state, strict=True)
    changed = {"stem": "repeat", "mean": card.mean * 3, "std": card.std * 3}
    return Encoder(card.model_copy(update=changed), wide).train(encoder.training)


def formats_of(encoder: Encoder) -> list[LibraryFormat]:
    """Each library that takes the weights and gives the encoder's features, tried out; none for a critic.

    A network of torchvision that timm has too, under the same keys, is given for both.
    """
    encoder = encoder.eval()
    library, _, name = encoder.card.architecture.partition(":")
    if library not in ("timm", "torchvision"):
        return []
    if library == "timm":
        found = [_of_timm(encoder, name, pooled=True) or _of_timm(encoder, name, pooled=False)]
    else:
        found = [_of_torchvision(encoder, name), _of_timm(encoder, name, pooled=True)]
    return [form for form in found if form]


def _of_timm(encoder: Encoder, name: str, pooled: bool) -> LibraryFormat | None:
    """timm's network, with timm's own pooling or with lines that pool what it gives."""
    from trabecula.nets.libraries import channels_last, timm_model

    known = timm_model(name)
    if known is None:
        return None
    import timm

    model, extra = known
    card, backbone = encoder.card, encoder.backbone
    options: dict[str, Any] = {"num_classes": 0, "in_chans": backbone.in_channels, **extra}
    if timm.models.get_pretrained_cfg_value(model, "fixed_input_size"):
        options["img_size"] = card.size
    if pooled:
        if card.pool not in ("mean", "token"):
            return None
        options["global_pool"] = "avg" if card.pool == "mean" else "token"
        if backbone.layout == "tokens" and card.pool == "mean":
            # timm's default norms after this pooling, the encoder before
            options["use_fc_norm" if type(backbone.net).__name__ == "Eva" else "fc_norm"] = False
        features = "features = net(x)"
    else:
        options["global_pool"] = ""
        maps = "net(x)" + (".permute(0, 3, 1, 2)" if channels_last(backbone.net) else "")
        features = f"m = {maps}\nfeatures = {_pooled(encoder)}"
    shown = ", ".join(f"{key}={json.dumps(value) if isinstance(value, str) else value}"
                      for key, value in options.items())  # fmt: skip
    build = f'net = timm.create_model("{model}", {shown})'
    pretrained = {
        "input_size": [backbone.in_channels, card.size, card.size], "fixed_input_size": "img_size" in options,
        "interpolation": "bilinear", "crop_pct": 1.0, "mean": list(card.mean), "std": list(card.std),
        "num_classes": 0, "pool_size": None, "first_conv": backbone.first_conv, "custom_load": False,
        "classifier": timm.models.get_pretrained_cfg_value(model, "classifier"),
    }  # fmt: skip
    config = {
        "architecture": model, "num_classes": 0, "num_features": backbone.num_features,
        "global_pool": options["global_pool"], "pretrained_cfg": pretrained,
        "model_args": {key: value for key, value in options.items() if key != "num_classes"},
    }  # fmt: skip
    return _tried(encoder, "timm", build, features, config)


def _of_torchvision(encoder: Encoder, name: str) -> LibraryFormat | None:
    from trabecula.nets.libraries import CLASSIFIERS, torchvision_features, torchvision_options

    backbone, options = encoder.backbone, torchvision_options(name, encoder.card.size)
    shown = "".join(f", {key}={value}" for key, value in options.items())
    lines = [f'net = torchvision.models.get_model("{name}", weights=None{shown})']
    lines += [f"net.{child} = torch.nn.Identity()" for child in CLASSIFIERS if hasattr(backbone.net, child)]
    if backbone.in_channels != 3:
        first: Any = backbone.net.get_submodule(backbone.first_conv)
        layer = (
            f"torch.nn.Conv2d({first.in_channels}, {first.out_channels}, kernel_size={first.kernel_size}, "
            f"stride={first.stride}, padding={first.padding}, bias={first.bias is not None})"
        )
        lines.append(f'net.set_submodule("{backbone.first_conv}", {layer})')
    features = f"m = {torchvision_features(name)}\nfeatures = {_pooled(encoder)}"
    return _tried(encoder, "torchvision", "\n".join(lines), features, None)


def _pooled(encoder: Encoder) -> str:
    """The features of maps, tokens or vectors `m`, as Python."""
    pool, layout, prefix = encoder.card.pool, encoder.backbone.layout, encoder.backbone.num_prefix_tokens
    if layout == "vector":
        return "m"
    if pool == "token" and prefix:
        return "m[:, 0]"
    cells = f"m[:, {prefix}:]" if prefix else "m"
    places = "(2, 3)" if layout == "maps" else "1"
    if pool == "flatten":
        return f"{cells}.flatten(1)" if layout == "maps" else f"{cells}.transpose(1, 2).flatten(1)"
    if pool == "mean+max":
        return f"torch.cat([{cells}.mean({places}), {cells}.amax({places})], 1)"
    return f"{cells}.mean({places})"


def _tried(
    encoder: Encoder, library: str, build: str, features: str, config: dict[str, Any] | None
) -> LibraryFormat | None:
    """The format with the difference it makes, by running its own lines; None where they do not fit."""
    card = encoder.card
    random = torch.Generator().manual_seed(0)
    images = torch.rand(_CHECKED, card.channels, card.size, card.size, generator=random)
    places: dict[str, Any] = {"torch": torch}
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), exact():
        try:  # the very lines that a person is given, made of names that both libraries list
            exec(f"import {library}\n{build}", places)
            net: nn.Module = places["net"]
            net.load_state_dict(encoder.backbone.net.state_dict(), strict=True)
            net.eval()
            places["x"] = encoder.normalise(images)
            exec(features, places)
            wanted, got = encoder(images), places["features"]
        except (TypeError, RuntimeError, AssertionError, AttributeError, ValueError):
            return None
    if got.shape != wanted.shape:
        return None
    difference = _difference(got, wanted)
    return LibraryFormat(library, build, features, config, difference) if difference <= _MOST else None


def _difference(got: Tensor, wanted: Tensor) -> float:
    """The largest, of the largest value."""
    return float((got - wanted).abs().max() / max(float(wanted.abs().max()), 1e-12))


def check_onnx_installed() -> None:
    """Before any work: where a package is missing, an InputError has the command that installs it."""
    missing = " and ".join(name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None)
    if missing:
        raise InputError(f"ONNX files need {missing}: pip install 'trabecula[export]', or set onnx = false")


def onnx_bytes(net: Encoder | Classifier, channels: int, size: int, output: str, notes: Any) -> bytes:
    """The network in evaluation mode as an ONNX file for any number of images.

    Nothing of this machine is in it: the exporter's notes on source files are taken out.

    output: its name; the input is called "images".
    notes: plain values for the file's metadata, under "trabecula".
    """
    import onnx

    net = net.cpu().eval()
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            net, (images,), dynamo=True, input_names=[_INPUT], output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False, verbose=False,
        )  # fmt: skip
    model: Any = program.model_proto  # type: ignore[union-attr]
    graph = model.graph
    values = (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output)
    for part in (model, graph, *model.functions, *values):
        part.doc_string = ""
        del part.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = "trabecula", json.dumps(notes, sort_keys=True)
    model.producer_name = "trabecula"
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's messages on its inner parts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def onnx_difference(net: Encoder | Classifier, file: bytes, channels: int, size: int) -> float | None:
    """Largest difference between ONNX Runtime's output and the network's, of the largest output.

    On random images on the CPU; None where ONNX Runtime is not installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    net = net.cpu().eval()
    images = torch.rand(_CHECKED_ONNX, channels, size, size, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    got: Any = session.run(None, {_INPUT: images.numpy()})[0]
    with torch.inference_mode():
        return _difference(torch.from_numpy(got), net(images))
