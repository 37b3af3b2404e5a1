"""Feature extractors: in whose eyes generated and real images are compared.

    random-conv          a convolution net with seeded random weights: offline, for any channels and size
    inception-v3         torch-fidelity's Inception v3, from a local weights file
    timm:NAME,
    torchvision:NAME     a network of these libraries, from a local weights file
    encoder              a folder written by `pretrain`

A distance is called FID (or KID) only in the features of Inception v3 with the weights of 2015-12-05, known
by their sha256. In any other features it is FD[name] (KD[name]): such numbers compare with each other,
never with a published FID. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trabecula.data.store import to_float
from trabecula.errors import InputError
from trabecula.nets.devices import exact
from trabecula.nets.encoder import WEIGHTS_FILE, load_encoder, make_encoder
from trabecula.nets.weights import read_weights

FID_WEIGHTS = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""sha256 of torch-fidelity's and pytorch-fid's file of the 2015-12-05 Inception graph."""
_WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True)
class Protocol:
    """What makes two sets of features comparable: all of it must be equal."""

    name: str
    weights: str  # sha256
    resize: str
    dtype: str
    num_features: int

    @property
    def frechet_name(self) -> str:
        """What a Frechet distance in these features is called."""
        return "FID" if self.weights == FID_WEIGHTS else f"FD[{self.name}]"

    @property
    def kernel_name(self) -> str:
        """What a kernel distance in these features is called."""
        return "KID" if self.weights == FID_WEIGHTS else f"KD[{self.name}]"

    def record(self) -> dict[str, Any]:
        """For features.json and for results."""
        return {
            "extractor": self.name, "weights": self.weights, "resize": self.resize, "dtype": self.dtype,
            "num_features": self.num_features,
        }  # fmt: skip


class Extractor:
    """Images as a store or a generator gives them -> features."""

    def __init__(
        self, protocol: Protocol, net: nn.Module, apply: Callable[[Tensor], Tensor], device: torch.device
    ) -> None:
        self.protocol = protocol
        self._net = net.to(device).eval().requires_grad_(False)
        self._apply = apply
        self._device = device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8, uint16 or float images (B, C, H, W), float ones in [0, 1] -> (B, D) float32 on the CPU."""
        with exact():
            return self._apply(images.to(self._device)).float().cpu()


def load_extractor(
    name: str,
    channels: int,
    size: int,
    weights: Path | None = None,
    resize: int = 0,
    device: torch.device | None = None,
) -> Extractor:
    """Make an extractor.

    Args:
        name: see the head of this file.
        channels, size: of the images, px.
        weights: a weights file (inception-v3, timm:, torchvision:) or a folder (encoder).
        resize: side to which images are brought first, px (bilinear, antialiased); 0 leaves them.
            inception-v3 brings them to 299 px itself, and an encoder takes them as they are.
    Raises:
        InputError: an unknown extractor, weights missing, not needed or of another network, torch-fidelity
            not installed, or images that the extractor does not take.
    """
    device = device or torch.device("cpu")
    if name == "random-conv":
        if weights is not None:
            raise InputError("extractor 'random-conv' has weights of its own: leave 'weights' out")
        return _random_conv(channels, size, resize, device)
    needed = "a folder written by `trabecula pretrain`" if name == "encoder" else "a local weights file"
    if name not in ("inception-v3", "encoder") and not name.startswith(("timm:", "torchvision:")):
        raise InputError(
            f"extractor '{name}' is not known; use random-conv, inception-v3, encoder, timm:NAME or "
            "torchvision:NAME"
        )
    if weights is None:
        raise InputError(f"extractor '{name}' needs {needed}: set 'weights'; nothing is downloaded")
    if name == "inception-v3":
        return _inception(weights, channels, resize, device)
    if name == "encoder":
        return _encoder(weights, channels, size, resize, device)
    return _pretrained(name, weights, channels, size, resize, device)


def _resized(images: Tensor, side: int) -> Tensor:
    pixels = to_float(images)
    if not side or side == pixels.shape[-1]:
        return pixels
    return F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)


def _rule(resize: int, size: int) -> str:
    return f"bilinear, antialiased, to {resize} px" if resize and resize != size else "none"


class RandomConv(nn.Module):
    """Eight 3 x 3 convolutions with ReLU, every second of stride 2, and the mean of each second one's maps.

    Weights are normal with variance 2 / fan-in (He 2015, arXiv 1502.01852), from a seed. Random nets are
    usable yardsticks of image statistics, from fine (the first means) to coarse (the last).
    """

    def __init__(self, channels: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList()
        before = channels
        for width in _WIDTHS:
            for stride in (1, 2):
                layer = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
                with torch.no_grad():
                    layer.weight.normal_(std=(2 / (9 * before)) ** 0.5, generator=generator)
                self.layers.append(layer)
                before = width

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, 960)."""
        means = []
        for index, layer in enumerate(self.layers):
            x = F.relu(layer(x))
            if index % 2:
                means.append(x.mean((2, 3)))
        return torch.cat(means, dim=1)


def _random_conv(channels: int, size: int, resize: int, device: torch.device) -> Extractor:
    net = RandomConv(channels)
    digest = hashlib.sha256()
    for value in net.state_dict().values():
        digest.update(value.numpy().tobytes())
    protocol = Protocol("random-conv", digest.hexdigest(), _rule(resize, size), "float32", sum(_WIDTHS))
    return Extractor(protocol, net, lambda images: net(2 * _resized(images, resize) - 1), device)


def _inception(weights: Path, channels: int, resize: int, device: torch.device) -> Extractor:
    if resize:
        raise InputError(
            f"resize {resize}: inception-v3 brings images to 299 px by its own rule; leave it out"
        )
    if channels not in (1, 3):
        raise InputError(f"inception-v3 takes grey or RGB images, not {channels} channels")
    try:
        library = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ModuleNotFoundError:
        raise InputError(
            "extractor 'inception-v3' needs torch-fidelity: pip install 'trabecula[fid]'"
        ) from None
    state = read_weights(weights)  # its own reader would run what is in the file: only tensors pass here
    try:
        net = library.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
        )
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(
            f"{weights}: {len(state)} tensors that do not fit torch-fidelity's Inception v3 "
            f"({str(error).splitlines()[0]})"
        ) from None
    sha256 = _sha256(weights)
    name = "inception-v3" if sha256 == FID_WEIGHTS else f"inception-v3 {sha256[:8]}"

    def apply(images: Tensor) -> Tensor:
        levels = (to_float(images) * 255).round().to(torch.uint8)
        features: Tensor = net(levels.expand(-1, 3, -1, -1))[0]
        return features

    protocol = Protocol(name, sha256, "bilinear as TensorFlow 1, to 299 px", "float32", 2048)
    return Extractor(protocol, net, apply, device)


def _pretrained(
    name: str, weights: Path, channels: int, size: int, resize: int, device: torch.device
) -> Extractor:
    stem: Any = "repeat" if channels == 1 else "native"
    encoder = make_encoder(name, channels, resize or size, stem=stem, init="weights", weights=weights)
    protocol = Protocol(name, _sha256(weights), _rule(resize, size), "float32", encoder.card.num_features)
    return Extractor(protocol, encoder, lambda images: encoder(_resized(images, resize)), device)


def _encoder(folder: Path, channels: int, size: int, resize: int, device: torch.device) -> Extractor:
    encoder = load_encoder(folder)
    card = encoder.card
    if (card.channels, card.size) != (channels, size) or resize not in (0, size):
        raise InputError(
            f"{folder}: encoder '{card.name}' takes images of {card.channels} channels and {card.size} px, "
            f"these have {channels} and {resize or size}; use another extractor"
        )
    file = folder / WEIGHTS_FILE if folder.is_dir() else folder.parent / WEIGHTS_FILE
    protocol = Protocol(card.name, _sha256(file), "none", "float32", card.num_features)
    return Extractor(protocol, encoder, lambda images: encoder(to_float(images)), device)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
