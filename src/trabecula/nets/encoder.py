"""Encoders: a backbone, its normalisation and its pooling, with a card that says where it comes from.

An encoder takes images in [0, 1] and owns everything that turns them into features.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from trabecula.artifacts.encoder import (
    CRITIC_FILE,
    EncoderCard,
    Family,
    Init,
    Pool,
    PoolChoice,
    Stem,
    card_file,
    read_encoder_card,
    weights_file,
    write_encoder,
)  # fmt: skip
from trabecula.artifacts.weights import read_weights
from trabecula.errors import InputError
from trabecula.nets.backbone import Backbone, build_backbone, per_channel, resolve
from trabecula.nets.critic import Critic, is_critic
from trabecula.nets.published import AUTO, Published, find_published, weights_label
from trabecula.nets.weights import fit, load_weights, mismatch


class Encoder(nn.Module):
    """Images in [0, 1] to feature vectors."""

    mean: Tensor
    std: Tensor

    def __init__(self, card: EncoderCard, backbone: Backbone) -> None:
        super().__init__()
        self.card = card
        self.backbone = backbone
        for name, values in (("mean", card.mean), ("std", card.std)):
            if len(values) != backbone.in_channels:
                raise InputError(
                    f"encoder '{card.name}': {name} needs {backbone.in_channels} values, has {values}"
                )
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> what the network takes; for the stem "repeat" three equal channels.

        Raises:
            InputError: another number of channels than the card's.
        """
        if images.ndim != 4 or images.shape[1] != self.card.channels:
            raise InputError(
                f"encoder '{self.card.name}' takes images of {self.card.channels} channels as (B, C, H, W), "
                f"got {tuple(images.shape)}"
            )
        return (images - self.mean) / self.std

    def maps(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, K, h, w)."""
        return self.backbone.maps(self.normalise(images))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, num_features)."""
        x = self.normalise(images)
        if self.card.pool == "token":
            return self.backbone.pooled(x)
        maps = self.backbone.maps(x)
        if self.card.pool == "flatten":
            return maps.flatten(1)
        mean = maps.mean((2, 3))
        return mean if self.card.pool == "mean" else torch.cat([mean, maps.amax((2, 3))], dim=1)

    def with_pool(self, pool: PoolChoice) -> Encoder:
        """The same layers under another pooling; "auto" keeps this one."""
        if pool == "auto" or pool == self.card.pool:
            return self
        chosen, width = pooling(self.backbone, pool)
        return Encoder(self.card.model_copy(update={"pool": chosen, "num_features": width}), self.backbone)

    def save(self, folder: Path, card: EncoderCard | None = None, images: int = 0) -> None:  # noqa: ARG002
        """Write weights and card.

        Args:
            card: what is to be written of it; its own card by default.
            images: of this training so far; the card counts them.
        """
        write_encoder(folder, card or self.card, self.backbone.net.state_dict())


def pooling(backbone: Backbone, pool: PoolChoice) -> tuple[Pool, int]:
    """The pooling and the length of its features.

    "auto" is "flatten" for the critic, whose output layer reads every position, "mean" for other
    networks with maps, "token" where there are none.

    Raises:
        InputError: a pooling the network cannot give.
    """
    chosen: Pool
    if pool != "auto":
        chosen = pool
    elif backbone.grid is None:
        chosen = "token"
    else:
        chosen = "flatten" if is_critic(backbone.architecture) else "mean"
    if chosen == "token":
        if backbone.layout == "maps":
            raise InputError(f"pool 'token': {backbone.architecture} has no token; use 'mean' or 'mean+max'")
        return chosen, backbone.num_features
    if backbone.grid is None:
        raise InputError(f"pool '{chosen}': {backbone.architecture} has no maps; use 'token'")
    height, width = backbone.grid
    factor = {"mean": 1, "mean+max": 2, "flatten": height * width}[chosen]
    return chosen, backbone.num_features * factor


class StartingPoint(NamedTuple):
    """Where an encoder's weights start, as its card will say it; no weights are read.

    label: of the weights, for the name of an arm: "random", "encoder", or what the file is called.
    """

    architecture: str
    family: Family
    label: str


def starting_point(architecture: str, init: Init, weights: Path | None, weights_name: str) -> StartingPoint:
    """Of an encoder that `make_encoder` makes of the same arguments.

    Raises:
        InputError: an unknown architecture, or a folder whose card or settings cannot be read.
    """
    published = find_published(architecture, init, weights)
    if published is not None:
        architecture = published.architecture
    elif architecture == AUTO and weights is not None:
        architecture = read_encoder_card(weights).architecture
    family: Family = "random"
    if init == "weights":
        name = published.called(weights_name) if published is not None else weights_name
        family = published.family(name) if published is not None else _family(weights_name)
        return StartingPoint(resolve(architecture), family, weights_label(f"{name} sha256:"))
    if init == "encoder" and weights is not None:
        family = _family_after(read_encoder_card(weights))
    return StartingPoint(resolve(architecture), family, init)


def _family(weights_name: str) -> Family:
    return "imagenet" if weights_name == "imagenet" else "weights"


def _family_after(parent: EncoderCard) -> Family:
    """Of an encoder that starts from the weights of this one."""
    return parent.family if parent.objective == "none" else "pretrained"


def make_encoder(
    architecture: str,
    channels: int,
    size: int,
    stem: Stem = "native",
    pool: PoolChoice = "auto",
    init: Init = "random",
    weights: Path | None = None,
    seed: int = 0,
    name: str = "",
    weights_name: str = "imagenet",
) -> Encoder:
    """An encoder from random weights, a local weights file, or another encoder's folder.

    Args:
        architecture: "critic", "timm:NAME", "torchvision:NAME", a bare name, a name on the hub, or "auto" for
            what a folder holds (see `nets/published.py`).
        channels: of the images.
        size: of the images, px.
        stem: see `build_backbone`.
        pool: see `pooling`.
        init: "random", "weights" (a file in the library's own layout, a model's folder, or what a name on the
            hub stands for) or "encoder" (a folder).
        weights: the file or folder; needed unless `init` is "random" or the weights lie on the hub.
        seed: of the random weights.
        name: of the arm; made of architecture and initialisation where "".
        weights_name: what the file is: "imagenet", or any other name.

    Raises:
        InputError: an unknown architecture, weights missing or of another network, a bad pooling.
    """
    published = find_published(architecture, init, weights)
    if published is None and (weights is None) != (init == "random"):
        needed = {"weights": "needs a weights file", "encoder": "needs an encoder's folder"}
        raise InputError(
            f"init '{init}' {needed.get(init, 'takes no weights')}: "
            + ("set 'weights'" if weights is None else "leave 'weights' out, or set another init")
        )
    if published is not None:
        architecture = published.architecture
    elif architecture == AUTO and weights is not None:
        architecture = read_encoder_card(weights).architecture
    backbone = build_backbone(architecture, channels, size, stem, seed)
    mean, std, history = _begin(backbone, published, init, weights, weights_name)
    chosen, width = pooling(backbone, pool)
    card = EncoderCard(
        name=name or f"{backbone.architecture.replace(':', '-')}-{history['family']}",
        architecture=backbone.architecture, channels=channels, size=size, stem=stem, mean=mean, std=std,
        pool=chosen, num_features=width, init=init, seed=seed, **history,
    )  # fmt: skip
    return Encoder(card, backbone)


def _begin(
    backbone: Backbone, published: Published | None, init: Init, weights: Path | None, weights_name: str
) -> tuple[tuple[float, ...], tuple[float, ...], dict[str, Any]]:
    """Put the starting weights into a backbone; gives mean, std, and what a card says of the start."""
    mean, std = backbone.mean, backbone.std
    history: dict[str, Any] = {"family": "random"}
    if published is not None:
        mean = per_channel(published.mean or mean, backbone.in_channels)
        std = per_channel(published.std or std, backbone.in_channels)
        if init == "weights":
            history = published.load(backbone, weights_name)
    elif init == "weights" and weights is not None:
        load_weights(backbone, weights)
        history = {
            "family": _family(weights_name),
            "weights": f"{weights_name} sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}",
        }
    elif weights is not None:
        parent = _parent(weights, backbone)
        mean, std = parent.mean, parent.std
        history = {key: getattr(parent, key) for key in _INHERITED}
        history["parent"] = hashlib.sha256(weights_file(weights).read_bytes()).hexdigest()
        history["family"] = _family_after(parent)
    return mean, std, history


# An encoder that starts from another has seen what that one saw: its patients above all.
_INHERITED = (
    "objective", "weights", "settings", "store", "preprocessing", "prepared", "images_seen", "patients",
    "patients_key", "labels", "num_labelled_patients", "batch_size",
)  # fmt: skip


def _parent(path: Path, backbone: Backbone) -> EncoderCard:
    """Load another encoder's weights into a backbone; gives its card."""
    card = read_encoder_card(path)
    differing = [
        f"{key} is {theirs}, wanted {own}"
        for key, theirs, own in (
            ("architecture", card.architecture, backbone.architecture),
            ("channels", card.channels, backbone.channels),
            ("stem", card.stem, backbone.stem),
        )
        if theirs != own
    ]
    if differing:
        raise InputError(f"{path}: another network than the one to start: {'; '.join(differing)}")
    weights = weights_file(path)
    fit(backbone, read_weights(weights), str(weights))
    return card


def load_encoder(path: Path) -> Encoder:
    """Read an encoder: its folder, or either file in it.

    Raises:
        InputError: no encoder there, a card of a newer format, or weights that do not fit the card.
    """
    card = read_encoder_card(path)
    backbone = build_backbone(card.architecture, card.channels, card.size, card.stem)
    weights = weights_file(path)
    fit(backbone, read_weights(weights), str(weights))
    _, width = pooling(backbone, card.pool)
    if width != card.num_features:
        raise InputError(
            f"{card_file(path)}: says {card.num_features} features, the network gives {width}; "
            "the card was changed, or belongs to other weights"
        )
    return Encoder(card, backbone)


def load_critic(folder: Path) -> Critic:
    """Read a critic, ready to score images in [-1, 1] as its encoder's `normalise` gives them.

    Its `blocks` are the network of the encoder in the same folder.

    Raises:
        InputError: no critic there, or an output layer that does not fit the encoder.
    """
    file = folder / CRITIC_FILE
    if not file.exists():
        raise InputError(
            f"{folder}: no critic there ({file.name} is missing); an adversarial `pretrain` writes one"
        )
    encoder = load_encoder(folder)
    card = encoder.card
    if not is_critic(card.architecture):
        raise InputError(f"{folder}: a critic's layers are needed, the encoder is {card.architecture}")
    critic = Critic(card.channels, card.size, blocks=cast("nn.Sequential", encoder.backbone.net))
    state = {key.removeprefix("output."): value for key, value in read_weights(file).items()}
    problem = mismatch(critic.output.state_dict(), state)
    if problem:
        raise InputError(f"{file}: does not fit the encoder beside it: {problem}")
    critic.output.load_state_dict(state)
    return critic.eval()
