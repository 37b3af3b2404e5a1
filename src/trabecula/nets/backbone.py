"""Backbones: the critic, and any image network of timm or torchvision, without its classifier.

An architecture is named "critic", "timm:NAME" or "torchvision:NAME". A network keeps the layout of
its library's state dict, so that a plain local weights file fits it (`nets/weights.py`). Nothing is
downloaded here. What networks give differs: maps (convolutional), tokens (most transformers) or one
vector. A `Backbone` gives them one shape, `Output(maps, token)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from trabecula.artifacts.encoder import Stem
from trabecula.config import suggest
from trabecula.errors import InputError
from trabecula.nets.critic import NORMS, WIDTHS, critic_blocks, grid_side, is_critic

Layout = Literal["maps", "tokens", "vector"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_RGB = 3
_SOURCES = ("hf", "hf-hub", "hf_hub", "local-dir")


class Output(NamedTuple):
    """What a network gives for a batch."""

    maps: Tensor | None  # (B, K, h, w); None where there is no grid
    token: Tensor | None  # (B, K) class token or pooled vector; None for plain convolutional networks


class BuiltNetwork(NamedTuple):
    """A network as its library builds it."""

    net: nn.Module
    call: Callable[[nn.Module, Tensor], Tensor]  # -> (B, K, h, w), (B, tokens, K) or (B, K)
    classifier: tuple[str, ...]  # prefixes of the classifier's keys in the library's weights files
    first_conv: str  # name of the layer that sees the image
    num_prefix_tokens: int = 0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


class Backbone(nn.Module):
    """A network that takes normalised images (B, C, H, W) and gives maps or a token; no classifier.

    `mean` and `std` are what its images should be normalised with, one value per image channel
    that enters the network: three for the stem "repeat", else one per channel.
    """

    def __init__(self, architecture: str, channels: int, size: int, stem: Stem, source: BuiltNetwork) -> None:
        super().__init__()
        self.architecture, self.channels, self.size = architecture, channels, size
        self.stem: Stem = stem
        self.net, self._call, self.num_prefix_tokens = source.net, source.call, source.num_prefix_tokens
        self.classifier, self.first_conv = source.classifier, source.first_conv
        self.in_channels = _RGB if stem == "repeat" else channels
        self.mean = per_channel(source.mean, self.in_channels)
        self.std = per_channel(source.std, self.in_channels)
        self.layout, self.num_features, self.grid = self._probe()

    def forward(self, x: Tensor) -> Output:
        """(B, C, H, W) normalised -> maps and token, in one pass."""
        return self._shaped(self._call(self.net, x))

    def _shaped(self, raw: Tensor) -> Output:
        if raw.ndim == 4:
            return Output(raw, None)
        if raw.ndim == 2:
            return Output(None, raw)
        prefix = self.num_prefix_tokens
        patches = raw[:, prefix:]  # (B, h * w, K)
        token = raw[:, 0] if prefix else patches.mean(1)
        side = math.isqrt(patches.shape[1])
        if side * side != patches.shape[1]:
            return Output(None, token)
        return Output(patches.transpose(1, 2).unflatten(2, (side, side)), token)

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, H, W) normalised -> (B, num_features, h, w); refused if the architecture has no maps."""
        maps: Tensor | None = self(x).maps
        if maps is None:
            raise InputError(f"{self.architecture} gives one vector an image and no maps; use pool = 'token'")
        return maps

    def pooled(self, x: Tensor) -> Tensor:
        """(B, C, H, W) normalised -> (B, num_features): the token, or the mean of the maps."""
        maps, token = self(x)
        return cast("Tensor", maps.mean((2, 3)) if token is None else token)

    @torch.no_grad()
    def _probe(self) -> tuple[Layout, int, tuple[int, int] | None]:
        """Layout, width and grid, measured with one blank image."""
        training = self.net.training
        self.net.eval()
        raw = self._call(self.net, torch.zeros(1, self.in_channels, self.size, self.size))
        self.net.train(training)
        layouts: dict[int, Layout] = {4: "maps", 3: "tokens", 2: "vector"}
        maps = self._shaped(raw).maps
        grid = None if maps is None else (maps.shape[2], maps.shape[3])
        return layouts[raw.ndim], raw.shape[1 if raw.ndim == 4 else -1], grid


def per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Values for RGB as values for `channels`: unchanged for as many, else their mean for each."""
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def build_backbone(
    architecture: str, channels: int, size: int, stem: Stem = "native", seed: int = 0
) -> Backbone:
    """A backbone with random weights, a function of its arguments; torch's global generator is untouched.

    Args:
        architecture: "critic" ("critic:16-32-64" sets widths, "critic_bn" has batch norm), "timm:NAME",
            "torchvision:NAME", or a bare name, looked up in that order.
        channels, size: of the images, px.
        stem: "native": the first layer takes `channels`. "sum": as native, and the first layer of a
            weights file for RGB is summed over its input channels. "repeat": the network stays as it
            is and a grey image is given to it three times.

    Raises:
        InputError: an unknown or unsupported architecture, or a size or stem it cannot take.
    """
    name = resolve(architecture)
    if stem != "native" and (channels != 1 or is_critic(name)):
        why = "the critic has no RGB stem" if is_critic(name) else f"images have {channels} channels"
        raise InputError(f"stem '{stem}' is for grey images in a network made for RGB ({why}); use 'native'")
    library, _, model = name.partition(":")
    in_channels = _RGB if stem == "repeat" else channels
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            if library in NORMS:
                source = _critic(name, in_channels, size)
            else:
                from trabecula.nets import libraries

                build = libraries.timm_source if library == "timm" else libraries.torchvision_source
                source = build(model, in_channels, size)
            return Backbone(name, channels, size, stem, source)
        except InputError:
            raise
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:  # of the library
            reason = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"{name} cannot be built for {in_channels} x {size} x {size} px images ({reason}); "
                "choose another size or architecture"
            ) from None


def resolve(architecture: str) -> str:
    """The full name of an architecture: "resnet18" -> "timm:resnet18".

    Raises:
        InputError: no such architecture, with the likely one; or a name that stands for a download.
    """
    library, sign, model = architecture.partition(":")
    if library in NORMS:
        return architecture
    if architecture == "auto" or "/" in architecture or "." in model + library or library in _SOURCES:
        raise InputError(
            f"architecture '{architecture}' stands for weights, not for a network alone: it goes with init = "
            "weights of `pretrain`; name a network such as 'timm:resnet18', and a local weights file with it"
        )
    if sign and library not in ("timm", "torchvision"):
        hint = suggest(library, ["critic", "timm", "torchvision"])
        raise InputError(f"architecture '{architecture}': unknown library '{library}'{hint}")
    from trabecula.nets import libraries

    known = {"timm": libraries.timm_names(), "torchvision": libraries.torchvision_names()}
    wanted, searched = (model, [library]) if sign else (library, list(known))
    for place in searched:
        if wanted in known[place]:
            return f"{place}:{wanted}"
    if "timm" in searched and libraries.timm_model(wanted):
        return f"timm:{wanted}"
    candidates = ["critic"] + [name for place in searched for name in known[place]]
    hint = suggest(wanted, candidates)
    hint = hint if "did you mean" in hint else "; use 'critic', or a model's name in timm or torchvision"
    raise InputError(f"architecture '{architecture}' is not known{hint}")


def _critic(name: str, channels: int, size: int) -> BuiltNetwork:
    """The critic's blocks; "critic:16-32-64-128-256" sets other widths, "critic_bn" has batch norm."""
    library, _, widths = name.partition(":")
    parts = widths.split("-") if widths else []
    chosen = tuple(int(part) if part.isdecimal() else 0 for part in parts) or WIDTHS
    if min(chosen) < 1:
        raise InputError(f"architecture '{name}': widths are whole numbers such as 16-32-64-128-256")
    grid_side(size, len(chosen))
    blocks = critic_blocks(channels, chosen, NORMS[library])
    return BuiltNetwork(blocks, nn.Module.__call__, ("output.",), "conv0", mean=(0.5,), std=(0.5,))
