"""Feature extractors: the networks in whose features generated and real images are compared.

    random-conv          wavelets and seeded random convolutions: offline, for any channels and size
    inception-v3         torch-fidelity's Inception v3, from a local weights file
    timm:NAME,
    torchvision:NAME     a network of these libraries, from a local weights file; without one,
                         timm:tf_efficientnet_lite0 has the ImageNet weights of the extra `imagenet`
    encoder              a folder written by `pretrain`

A distance is called FID (or KID) only in the features of Inception v3 with the weights of 2015-12-05, known
by their sha256. In any other features it is FD[name] (KD[name]): such numbers compare with each other,
never with a published FID. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from trabecula.artifacts.encoder import weights_file
from trabecula.artifacts.store import to_float
from trabecula.artifacts.weights import read_weights
from trabecula.errors import InputError
from trabecula.files import sha256_of
from trabecula.nets import packaged
from trabecula.nets.devices import exact
from trabecula.nets.encoder import load_encoder, make_encoder
from trabecula.packages import has_extra

FID_WEIGHTS = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""sha256 of torch-fidelity's and pytorch-fid's file of the 2015-12-05 Inception graph."""
_CPU = torch.device("cpu")
RANDOM_CONV = "random-conv 2"
"""Design of `random-conv`: its features compare with no other version's. Change it with any feature."""


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
        values = asdict(self)
        return {"extractor": values.pop("name"), **values}


_Made = tuple[Protocol, nn.Module, Callable[[Tensor], Tensor]]
"""The network of an extractor, and what takes images through it."""


@dataclass(frozen=True)
class Extractor:
    """Images as a store or a generator gives them -> features."""

    protocol: Protocol
    apply: Callable[[Tensor], Tensor]
    device: torch.device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8, uint16 or float images (B, C, H, W), float ones in [0, 1] -> (B, D) float32 on the CPU."""
        with exact():
            return self.apply(images.to(self.device)).float().cpu()


def load_extractor(
    name: str,
    channels: int,
    size: int,
    weights: Path | None = None,
    resize: int = 0,
    device: torch.device = _CPU,
) -> Extractor:
    """Make an extractor.

    Args:
        name: see the head of this file.
        channels, size: of the images, px.
        weights: a weights file (inception-v3, timm:, torchvision:) or a folder (encoder).
        resize: side to which images are brought first, px (bilinear, antialiased); 0 leaves them.
            inception-v3 brings them to 299 px itself, random-conv enlarges smaller ones to 32 px, and an
            encoder takes them as they are.

    Raises:
        InputError: an unknown extractor, weights missing, not needed or of another network, torch-fidelity
            not installed, or images that the extractor does not take.
    """
    if name == "random-conv":
        if weights is not None:
            raise InputError("extractor 'random-conv' has weights of its own: leave 'weights' out")
        protocol, net, apply = _random_conv(channels, size, resize)
    elif name not in ("inception-v3", "encoder") and not name.startswith(("timm:", "torchvision:")):
        known = "random-conv, inception-v3, encoder, timm:NAME or torchvision:NAME"
        raise InputError(f"extractor '{name}' is not known; use {known}")
    elif weights is None and name == packaged.ARCHITECTURE:
        protocol, net, apply = _pretrained(name, None, channels, size, resize)
    elif weights is None:
        needed = "a folder written by `trabecula pretrain`" if name == "encoder" else "a local weights file"
        raise InputError(f"extractor '{name}' needs {needed}: set 'weights'; nothing is downloaded")
    elif name == "inception-v3":
        protocol, net, apply = _inception(weights, channels, resize)
    elif name == "encoder":
        protocol, net, apply = _encoder(weights, channels, size, resize)
    else:
        protocol, net, apply = _pretrained(name, weights, channels, size, resize)
    net.to(device).eval().requires_grad_(False)
    return Extractor(protocol, apply, device)


def _resized(images: Tensor, side: int) -> Tensor:
    pixels = to_float(images)
    if not side or side == pixels.shape[-1]:
        return pixels
    return F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)


def _rule(resize: int, size: int) -> str:
    return f"bilinear, antialiased, to {resize} px" if resize and resize != size else "none"


class RandomConv(nn.Module):
    """Contrast and sparsity of wavelet maps, random convolutions of these, and the layout, as 177 numbers.

    At the image's size and three halvings of it, Gabor wavelets of eight directions give the modulus of
    their complex response. Of each modulus: the logarithm of its root mean square (`contrast`) and how far
    that of its mean is from it (`sparsity`: edges are rare and strong, noise is everywhere). A second layer
    of 16 random filters takes the moduli, each over their local root mean square (`junctions`: what stands
    beside what, whatever the contrast). All these are means over the image, so they do not say where; 48
    random filters as large as the image brought to 16 px do (`layout`), and a mean grey value a channel
    (`brightness`). More channels: wavelets and brightness for each.

    After scattering (Bruna & Mallat 2013, arXiv 1203.1513) and the statistics of wavelet moduli of Portilla
    & Simoncelli 2000. All filters but the last have no mean, so brightness does not drown the rest, and the
    logarithm makes a fine scale count as much as a coarse one.
    """

    _LEVELS, _DIRECTIONS, _JUNCTIONS, _LAYOUT, _SIDE = 4, 8, 16, 48, 16
    _SPARSITY, _JUNCTION, _BRIGHTNESS = 6.0, 1.5, 12.0  # weights, so that no part drowns another
    _DARK = 2 / 255  # contrast below which everything counts as flat
    smallest = 32
    """Side of the smallest image, px."""

    def __init__(self, channels: int, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        moduli = channels * self._DIRECTIONS
        junctions = [_filters(rng, self._JUNCTIONS, 9 * moduli) for _ in range(self._LEVELS)]
        layout = _filters(rng, self._LAYOUT, channels * self._SIDE**2)
        self.wavelets: Tensor
        self.junctions: Tensor
        self.layout: Tensor
        self.register_buffer("wavelets", _wavelets(self._DIRECTIONS).repeat(channels, 1, 1, 1))
        self.register_buffer("junctions", torch.stack(junctions).unflatten(2, (moduli, 3, 3)))
        self.register_buffer("layout", layout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1], H and W at least `smallest` -> (B, D)."""
        parts = []
        level = x
        for index, filters in enumerate(self.junctions):
            padded = F.pad(level, (3, 3, 3, 3), mode="reflect")
            waves = F.conv2d(padded, self.wavelets, groups=x.shape[1])
            power = waves.square().unflatten(1, (-1, 2)).sum(2)
            modulus = (power + 1e-12).sqrt()
            contrast = (power.mean((2, 3)) + self._DARK**2).log() / 2
            sparsity = (modulus.mean((2, 3)) + self._DARK).log() - contrast
            around = F.avg_pool2d(power.mean(1, keepdim=True), 5, 1, 2, count_include_pad=False)
            relative = modulus / (around + self._DARK**2).sqrt()
            found = F.leaky_relu(F.conv2d(relative, filters, stride=2 if index < 2 else 1), 0.2)
            parts += [contrast, self._SPARSITY * sparsity, self._JUNCTION * found.mean((2, 3))]
            level = F.avg_pool2d(level, 2)
        parts.append(F.adaptive_avg_pool2d(x, self._SIDE).flatten(1) @ self.layout.T)
        parts.append(self._BRIGHTNESS * x.mean((2, 3)))
        return torch.cat(parts, dim=1)


def _wavelets(directions: int) -> Tensor:
    """(2 x directions, 1, 7, 7) Gabor filters, even and odd in turn; no mean, norm 1; wavelength 4.4 px."""
    axis = np.arange(-3.0, 4.0)
    filters = []
    for index in range(directions):
        angle = math.pi * index / directions
        along = axis[None, :] * math.cos(angle) + axis[:, None] * math.sin(angle)
        window = np.exp(-(axis[None, :] ** 2 + axis[:, None] ** 2) / (2 * 1.6**2))
        for phase in (0, math.pi / 2):
            wave = window * np.cos(along * math.pi / 2.2 + phase)
            wave -= wave.mean()
            filters.append(wave / np.linalg.norm(wave))
    return _exact(np.stack(filters))[:, None]


def _filters(rng: np.random.Generator, num: int, length: int) -> Tensor:
    """(num, length) random orthonormal filters without a mean."""
    columns = rng.standard_normal((length, num))
    orthonormal, triangle = np.linalg.qr(columns - columns.mean(axis=0))
    return _exact((orthonormal * np.sign(np.diag(triangle))).T)


def _exact(values: NDArray[np.float64]) -> Tensor:
    """Multiples of 2^-16, so that processors which round otherwise have the same weights, to the bit."""
    return torch.from_numpy((np.round(values * 65536) / 65536).astype(np.float32))


def _random_conv(channels: int, size: int, resize: int) -> _Made:
    net = RandomConv(channels)
    if 0 < resize < net.smallest:
        raise InputError(f"resize {resize}: random-conv needs {net.smallest} px at least")
    side = max(resize or size, net.smallest)
    digest = hashlib.sha256(RANDOM_CONV.encode())
    for value in net.state_dict().values():
        digest.update(value.numpy().tobytes())
    num_features = net(torch.zeros(1, channels, net.smallest, net.smallest)).shape[1]
    protocol = Protocol(RANDOM_CONV, digest.hexdigest(), _rule(side, size), "float32", num_features)
    return protocol, net, lambda images: net(_resized(images, side))


def _inception(weights: Path, channels: int, resize: int) -> _Made:
    if resize:
        raise InputError(f"resize {resize}: inception-v3 resizes to 299 px by its own rule; leave it out")
    if channels not in (1, 3):
        raise InputError(f"inception-v3 takes grey or RGB images, not {channels} channels")
    try:
        library = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ModuleNotFoundError:
        raise InputError("inception-v3 needs torch-fidelity: pip install 'trabecula[fid]'") from None
    state = read_weights(weights)  # its own reader would run what is in the file: only tensors pass here
    try:
        net = library.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
        )
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = f"{len(state)} tensors that do not fit torch-fidelity's Inception v3"
        raise InputError(f"{weights}: {reason} ({str(error).splitlines()[0]})") from None
    sha256 = sha256_of(weights)
    name = "inception-v3" if sha256 == FID_WEIGHTS else f"inception-v3 {sha256[:8]}"

    def apply(images: Tensor) -> Tensor:
        levels = (to_float(images) * 255).round().to(torch.uint8)
        features: Tensor = net(levels.expand(-1, 3, -1, -1))[0]
        return features

    protocol = Protocol(name, sha256, "bilinear as TensorFlow 1, to 299 px", "float32", 2048)
    return protocol, net, apply


def _pretrained(name: str, weights: Path | None, channels: int, size: int, resize: int) -> _Made:
    stem: Any = "repeat" if channels == 1 else "native"
    init: Any = "package" if weights is None else "weights"
    if weights is None and not has_extra(packaged.EXTRA):
        raise InputError(
            f"extractor '{name}' needs ImageNet weights: set 'weights' to a local file, or python -m pip "
            f"install 'trabecula[{packaged.EXTRA}]'"
        )
    encoder = make_encoder(name, channels, resize or size, stem=stem, init=init, weights=weights)
    sha256 = packaged.SHA256 if weights is None else sha256_of(weights)
    protocol = Protocol(name, sha256, _rule(resize, size), "float32", encoder.card.num_features)
    return protocol, encoder, lambda images: encoder(_resized(images, resize))


def _encoder(folder: Path, channels: int, size: int, resize: int) -> _Made:
    encoder = load_encoder(folder)
    card = encoder.card
    if (card.channels, card.size) != (channels, size) or resize not in (0, size):
        raise InputError(
            f"{folder}: encoder '{card.name}' takes images of {card.channels} channels and {card.size} px, "
            f"these have {channels} and {resize or size}; use another extractor"
        )
    protocol = Protocol(card.name, sha256_of(weights_file(folder)), "none", "float32", card.num_features)
    return protocol, encoder, lambda images: encoder(to_float(images))
