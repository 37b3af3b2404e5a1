"""An encoder's weights as its own library holds them, and the lines of Python that load them there.

A network here keeps the keys of timm or torchvision, so its weights load there with strict=True. What differs
is said in the lines: how many channels the first layer takes, and how maps or tokens become the features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from trabecula.errors import InputError
from trabecula.nets.backbone import build_backbone
from trabecula.nets.critic import is_critic
from trabecula.nets.devices import exact
from trabecula.nets.encoder import Encoder

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
_CHECKED = 2  # images by which a network in its library is held against the encoder
_MOST = 1e-4  # of the largest feature: more is another function, not another order of sums
# How torchvision's networks give their maps or tokens `m`; `net.features` where none is named.
_MAPS = {
    ("resnet", "resnext", "wide_resnet"): "torch.nn.Sequential(*list(net.children())[:-2])(x)",
    ("shufflenet",): "torch.nn.Sequential(*list(net.children())[:-1])(x)",
    ("densenet",): "torch.relu(net.features(x))",
    ("regnet",): "net.trunk_output(net.stem(x))",
    ("mnasnet",): "net.layers(x)",
    ("swin",): "net.permute(net.norm(net.features(x)))",
    ("maxvit",): "torch.nn.Sequential(net.stem, *net.blocks)(x)",
    ("vit_",): "net.encoder(torch.cat([net.class_token.expand(len(x), -1, -1), net._process_input(x)], 1))",
}


@dataclass(frozen=True)
class Layout:
    """How to load an encoder's weights in a library, and what comes out."""

    library: str
    """ "timm" or "torchvision"."""
    build: str
    """Lines of Python that make `net`."""
    features: str
    """Lines of Python from normalised images `x` to `features`."""
    config: dict[str, Any] | None
    """config.json with which timm.create_model("local-dir:FOLDER", pretrained=True) makes the network."""
    difference: float
    """Largest difference between its features and the encoder's on random images, of the largest feature."""

    def code(self, encoder: Encoder) -> str:
        """A whole program from a weights file to features."""
        card = encoder.card
        inside = len(card.mean)
        repeated = f".expand(-1, {inside}, -1, -1)" if inside != card.channels else ""
        return "\n".join(
            [
                f"import {self.library}\nimport torch\nfrom safetensors.torch import load_file\n",
                self.build,
                f'net.load_state_dict(load_file("{WEIGHTS_FILE}"), strict=True)',
                "net.eval()\n",
                f"images = torch.rand(2, {card.channels}, {card.size}, {card.size})  # in [0, 1]",
                f"mean = torch.tensor({list(card.mean)}).view(1, -1, 1, 1)",
                f"std = torch.tensor({list(card.std)}).view(1, -1, 1, 1)",
                f"x = (images{repeated} - mean) / std",
                "with torch.inference_mode():",
                *(f"    {line}" for line in self.features.splitlines()),
            ]
        )


def weights_bytes(encoder: Encoder) -> bytes:
    """The network's state dict as a safetensors file; the same encoder gives the same bytes."""
    state = encoder.backbone.net.state_dict()
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    return safetensors_bytes(plain, metadata={"format": "pt"})


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
        what = "a critic" if is_critic(card.architecture) else f"images of {card.channels} channels"
        raise InputError(
            f"encoder '{card.name}': rgb is for grey images in a network of timm or torchvision, this is "
            f"{what}; leave rgb out"
        )
    wide = build_backbone(card.architecture, 1, card.size, "repeat")
    state, first = dict(backbone.net.state_dict()), f"{backbone.first_conv}.weight"
    state[first] = state[first].repeat(1, 3, 1, 1) / 3
    wide.net.load_state_dict(state, strict=True)
    told = {"stem": "repeat", "mean": card.mean * 3, "std": card.std * 3}
    made = Encoder(card.model_copy(update=told), wide)
    return made.train(encoder.training)


def layouts_of(encoder: Encoder) -> list[Layout]:
    """Each library that takes the weights and gives the encoder's features, tried out; none for a critic.

    A network of torchvision that timm has too, under the same keys, is given for both.
    """
    encoder = encoder.eval()
    library, _, name = encoder.card.architecture.partition(":")
    if is_critic(encoder.card.architecture):
        return []
    if library == "timm":
        found = [_of_timm(encoder, name, pooled) for pooled in (True, False)]
        return [layout for layout in found if layout][:1]
    twins = [_of_torchvision(encoder, name), _of_timm(encoder, name, True)]
    return [layout for layout in twins if layout]


def _of_timm(encoder: Encoder, name: str, pooled: bool) -> Layout | None:
    """timm's network, with timm's own pooling or with lines that pool what it gives."""
    from trabecula.nets import from_timm

    known = from_timm.known(name)
    if known is None:
        return None
    import timm

    model, extra = known
    card, backbone = encoder.card, encoder.backbone
    options: dict[str, Any] = {"num_classes": 0, "in_chans": backbone.in_channels, **extra}
    if timm.models.get_pretrained_cfg_value(model, "fixed_input_size"):
        options["img_size"] = card.size
    tokens = backbone.layout == "tokens"
    if pooled:
        if card.pool not in ("mean", "token"):
            return None
        options["global_pool"] = "avg" if card.pool == "mean" else "token"
        if tokens and card.pool == "mean":  # timm's default norms after this pooling, the encoder before
            options["use_fc_norm" if type(backbone.net).__name__ == "Eva" else "fc_norm"] = False
        features = "features = net(x)"
    else:
        options["global_pool"] = ""
        maps = "net(x)" + (".permute(0, 3, 1, 2)" if _channels_last(backbone.net) else "")
        features = f"m = {maps}\n{_pooling(encoder)}"
    shown = ", ".join(f"{key}={json.dumps(value) if isinstance(value, str) else value}"
                      for key, value in options.items())  # fmt: skip
    build = f'net = timm.create_model("{model}", {shown})'
    config = {
        "architecture": model,
        "num_classes": 0,
        "num_features": backbone.num_features,
        "global_pool": options["global_pool"],
        "model_args": {key: value for key, value in options.items() if key != "num_classes"},
        "pretrained_cfg": {
            "input_size": [backbone.in_channels, card.size, card.size],
            "fixed_input_size": "img_size" in options,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": list(card.mean),
            "std": list(card.std),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": backbone.first_conv,
            "classifier": timm.models.get_pretrained_cfg_value(model, "classifier"),
            "custom_load": False,
        },
    }
    return _tried(encoder, Layout("timm", build, features, config, 0.0))


def _of_torchvision(encoder: Encoder, name: str) -> Layout | None:
    from trabecula.nets.from_torchvision import CLASSIFIERS

    backbone, size = encoder.backbone, encoder.card.size
    sized = {"vit_": f", image_size={size}", "maxvit": f", input_size=({size}, {size})"}
    options = next((value for prefix, value in sized.items() if name.startswith(prefix)), "")
    lines = [f'net = torchvision.models.get_model("{name}", weights=None{options})']
    lines += [f"net.{child} = torch.nn.Identity()" for child in CLASSIFIERS if hasattr(backbone.net, child)]
    if backbone.in_channels != 3:
        first: Any = backbone.net.get_submodule(backbone.first_conv)
        layer = (
            f"torch.nn.Conv2d({first.in_channels}, {first.out_channels}, kernel_size={first.kernel_size}, "
            f"stride={first.stride}, padding={first.padding}, bias={first.bias is not None})"
        )
        lines.append(f'net.set_submodule("{backbone.first_conv}", {layer})')
    maps = next((code for names, code in _MAPS.items() if name.startswith(names)), "net.features(x)")
    features = f"m = {maps}\n{_pooling(encoder)}"
    return _tried(encoder, Layout("torchvision", "\n".join(lines), features, None, 0.0))


def _pooling(encoder: Encoder) -> str:
    """From maps or tokens `m` to `features`."""
    backbone, pool = encoder.backbone, encoder.card.pool
    if backbone.layout == "vector":
        return "features = m"
    if backbone.layout == "maps":
        cells, places = "m", "(2, 3)"
    else:
        prefix = backbone.num_prefix_tokens
        if pool == "token" and prefix:
            return "features = m[:, 0]"
        cells, places = (f"m[:, {prefix}:]" if prefix else "m"), "1"
    if pool == "flatten":
        return f"features = {cells}.flatten(1)" if places != "1" else (
            f"features = {cells}.transpose(1, 2).flatten(1)")  # fmt: skip
    if pool == "mean+max":
        return f"features = torch.cat([{cells}.mean({places}), {cells}.amax({places})], 1)"
    return f"features = {cells}.mean({places})"


def _channels_last(net: nn.Module) -> bool:
    return str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")


def _tried(encoder: Encoder, layout: Layout) -> Layout | None:
    """The layout with the difference it makes, by running its own lines; None where they do not fit."""
    card = encoder.card
    random = torch.Generator().manual_seed(0)
    images = torch.rand(_CHECKED, card.channels, card.size, card.size, generator=random)
    places: dict[str, Any] = {"torch": torch}
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), exact():
        try:  # the very lines that a person is given, made of names that both libraries list
            exec(f"import {layout.library}\n{layout.build}", places)
            net: nn.Module = places["net"]
            net.load_state_dict(encoder.backbone.net.state_dict(), strict=True)
            net.eval()
            places["x"] = encoder.normalise(images)
            exec(layout.features, places)
            wanted, got = encoder(images), places["features"]
        except (TypeError, RuntimeError, AssertionError, AttributeError, ValueError):
            return None
    if got.shape != wanted.shape:
        return None
    difference = _largest(got - wanted) / max(_largest(wanted), 1e-12)
    if difference > _MOST:
        return None
    return Layout(layout.library, layout.build, layout.features, layout.config, difference)


def _largest(values: Tensor) -> float:
    return float(values.abs().max())
