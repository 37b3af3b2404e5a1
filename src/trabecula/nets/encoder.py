"""Encoders: a backbone, its normalisation and its pooling, with a card that says where it comes from.

    encoder.safetensors     the backbone's weights, in its library's own key layout
    encoder.json            the card

An encoder takes images in [0, 1] and owns everything that turns them into features.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

import trabecula
from trabecula.artifacts.store import Store, alike, check_prepared
from trabecula.artifacts.weights import read_weights
from trabecula.config import Record, build
from trabecula.errors import InputError
from trabecula.files import write_atomically
from trabecula.nets.backbone import Backbone, Stem, build_backbone, per_channel
from trabecula.nets.critic import is_critic
from trabecula.nets.published import AUTO, Published, find_published
from trabecula.nets.weights import fit, load_weights
from trabecula.run import Run

Pool = Literal["mean", "mean+max", "flatten", "token"]
PoolChoice = Literal["auto", "mean", "mean+max", "flatten", "token"]
Init = Literal["random", "weights", "encoder"]
Family = Literal["random", "imagenet", "weights", "pretrained"]

FORMAT = 1
WEIGHTS_FILE = "encoder.safetensors"
CARD_FILE = "encoder.json"
EXPORTED_FILE = "model.safetensors"


class Card(Record):
    """What an encoder is and what it has seen."""

    format: int = FORMAT
    """Format of the card; a program refuses cards of a newer one."""
    name: str
    """The arm's name in tables."""
    architecture: str
    """"critic", "timm:NAME" or "torchvision:NAME"."""
    channels: int = Field(ge=1)
    """Channels of the images."""
    size: int = Field(ge=1)
    """Side of the images, px."""
    stem: Stem = "native"
    """How a grey image enters a network made for RGB."""
    mean: tuple[float, ...]
    """Subtracted from images in [0, 1], per channel that enters the network."""
    std: tuple[float, ...]
    """Divided by, per channel that enters the network."""
    pool: Pool
    """From maps to features: "mean" or "mean+max" over positions, "flatten", or the "token"."""
    num_features: int = Field(ge=1)
    """Length of the feature vector after pooling."""
    objective: str = "none"
    """What it was pretrained with; "none" where it saw no pretraining."""
    init: Init = "random"
    """Where its weights started."""
    family: Family = "random"
    """The initialisation by which arms are compared: random, imagenet, other weights, or pretrained."""
    weights: str = ""
    """Name and sha256 of the weights file it started from."""
    parent: str = ""
    """sha256 of the weights of the encoder it started from; "" where it started from none."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Resolved config of its pretraining."""
    store: str = ""
    """Id of the store it was pretrained on."""
    preprocessing: str = ""
    """Hash of the preprocessing of its store: images prepared otherwise are refused; "" takes any."""
    prepared: dict[str, Any] = Field(default_factory=dict)
    """The settings of that preprocessing, so that a refusal can name what differs."""
    images_seen: int = Field(default=0, ge=0)
    """Images drawn in pretraining, each once for every time it was drawn."""
    batch_size: int = Field(default=0, ge=0)
    """Images a batch of its pretraining; 0 where it saw none, or on a card of an earlier version."""
    seed: int = 0
    """Seed of its pretraining, and of its random weights."""
    version: str = trabecula.__version__
    """Version of the program that made it."""
    patients: tuple[str, ...] = ()
    """Patients seen in pretraining, as HMACs under the site's key."""
    patients_key: str = ""
    """Name of the key of these HMACs; that of the site too where its patients are not known."""
    labels: str = ""
    """Tasks whose labels of these patients it learned from, "; " between them; "" where it saw none."""
    num_labelled_patients: int = Field(default=0, ge=0)
    """Patients whose labels these were, of two such trainings the larger number; 0 where it is not known."""
    pool_fraction: float = 1.0
    """Part of the pool's patients that its pretraining took; 1 where it saw none."""
    pool_cohorts: tuple[str, ...] = ()
    """Cohorts that its pretraining was kept to; none: all that there were."""
    stores: tuple[str, ...] = ()
    """Ids of the stores that made up its pool, where these were several."""


class Encoder(nn.Module):
    """Images in [0, 1] to feature vectors."""

    mean: Tensor
    std: Tensor

    def __init__(self, card: Card, backbone: Backbone) -> None:
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


def check_fit(card: Card, store: Store, path: Path) -> None:
    """Refuse a store that the encoder was not made for.

    A store of another domain is taken where its pixels were made alike: an encoder of chests, which have no
    side, takes knees that are all mirrored to one (`data.store.alike`).

    Raises:
        InputError: other channels, another size, or pixels prepared in another way.
    """
    known = card.prepared or {"size": card.size, "channels": card.channels}
    if not alike(store.prepared, card.prepared):
        check_prepared(store, path, f"encoder '{card.name}'", card.preprocessing, known)
    for what, theirs, ours in (("channels", card.channels, store.channels), ("size", card.size, store.size)):
        if theirs != ours:
            raise InputError(
                f"{path}: images have {what} {ours}, encoder '{card.name}' takes {theirs}; "
                f"prepare the store again with {what} {theirs}, or use an encoder of {what} {ours}"
            )


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
        architecture = read_card(weights).architecture
    backbone = build_backbone(architecture, channels, size, stem, seed)
    mean, std, history = _begin(backbone, published, init, weights, weights_name)
    chosen, width = pooling(backbone, pool)
    card = Card(
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
            "family": "imagenet" if weights_name == "imagenet" else "weights",
            "weights": f"{weights_name} sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}",
        }
    elif weights is not None:
        parent = _parent(weights, backbone)
        mean, std = parent.mean, parent.std
        history = {key: getattr(parent, key) for key in _INHERITED}
        history["parent"] = hashlib.sha256(weights_file(weights).read_bytes()).hexdigest()
        history["family"] = parent.family if parent.objective == "none" else "pretrained"
    return mean, std, history


# An encoder that starts from another has seen what that one saw: its patients above all.
_INHERITED = (
    "objective", "weights", "settings", "store", "preprocessing", "prepared", "images_seen", "patients",
    "patients_key", "labels", "num_labelled_patients", "batch_size",
)  # fmt: skip


def _parent(path: Path, backbone: Backbone) -> Card:
    """Load another encoder's weights into a backbone; gives its card."""
    card = read_card(path)
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


def save_encoder(encoder: Encoder, out: Run | Path) -> None:
    """Write the weights, then the card, each whole or not at all; the same encoder gives the same bytes."""
    folder = out.path if isinstance(out, Run) else out
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        key: value.detach().cpu().contiguous().clone()
        for key, value in encoder.backbone.net.state_dict().items()
    }
    write_atomically(folder / WEIGHTS_FILE, safetensors_bytes(state))
    card = json.dumps(encoder.card.model_dump(mode="json"), indent=1, sort_keys=True)
    write_atomically(folder / CARD_FILE, card + "\n")


def load_encoder(path: Path) -> Encoder:
    """Read an encoder: its folder, or either file in it.

    Raises:
        InputError: no encoder there, a card of a newer format, or weights that do not fit the card.
    """
    card = read_card(path)
    backbone = build_backbone(card.architecture, card.channels, card.size, card.stem)
    weights = weights_file(path)
    fit(backbone, read_weights(weights), str(weights))
    _, width = pooling(backbone, card.pool)
    if width != card.num_features:
        raise InputError(
            f"{_folder(path) / CARD_FILE}: says {card.num_features} features, the network gives {width}; "
            "the card was changed, or belongs to other weights"
        )
    return Encoder(card, backbone)


def read_card(path: Path) -> Card:
    """Read an encoder's card alone.

    Raises:
        InputError: no card there, or one that this version cannot read.
    """
    file = _folder(path) / CARD_FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path}: no encoder there ({CARD_FILE} is missing); `trabecula pretrain` writes one"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: not a card: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{file}: not a card: a JSON object is needed")
    told = values.get("format")
    if not isinstance(told, int) or told > FORMAT:
        raise InputError(
            f"{file}: card of format {told}, this version ({trabecula.__version__}) reads up to {FORMAT}; "
            "use the newer trabecula that wrote it"
        )
    return build(Card, values, str(file))


def weights_file(path: Path) -> Path:
    """The weights of an encoder's folder, or of an export's, where they have the name of the hub."""
    own, exported = (_folder(path) / name for name in (WEIGHTS_FILE, EXPORTED_FILE))
    return exported if exported.exists() and not own.exists() else own


def _folder(path: Path) -> Path:
    return path.parent if path.name in (WEIGHTS_FILE, EXPORTED_FILE, CARD_FILE) else path
