"""Encoders on disk: encoder.safetensors (weights), encoder.json (the card), critic.safetensors.

    encoder.safetensors     the backbone's weights, in its library's own key layout
    encoder.json            the card: what the encoder is and what it has seen
    critic.safetensors      of a critic: its output layer, "output.weight" (1, D), "output.bias" (1,)

No network is built here: `nets/encoder.py` does so from a card and weights. Reading a card needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

import trabecula
from trabecula.artifacts.store import Store, alike, check_prepared
from trabecula.artifacts.weights import write_weights
from trabecula.config import Record, build, dump
from trabecula.errors import InputError
from trabecula.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

Stem = Literal["native", "sum", "repeat"]
Pool = Literal["mean", "mean+max", "flatten", "token"]
PoolChoice = Literal["auto", "mean", "mean+max", "flatten", "token"]
Init = Literal["random", "weights", "package", "encoder"]
Family = Literal["random", "imagenet", "weights", "pretrained"]

FORMAT = 1
CARD_FILE, WEIGHTS_FILE, CRITIC_FILE = "encoder.json", "encoder.safetensors", "critic.safetensors"
EXPORTED_FILE = "model.safetensors"  # the weights of an export: the name that the hub expects


class NetworkCard(Record):
    """The images of a network, and the patients whom it has seen: of encoders and generators."""

    channels: int = Field(ge=1)
    size: int = Field(ge=1)  # side of the images, px
    preprocessing: str = ""  # hash of its store's preprocessing; "" if not known: an encoder takes any then
    prepared: dict[str, Any] = Field(default_factory=dict)  # its settings, which a refusal names
    patients: tuple[str, ...] = ()  # patients seen in training, as HMACs under the site's key
    patients_key: str = ""  # name of the key of these; the site's too where its patients are not known


class EncoderCard(NetworkCard):
    """What an encoder is and what it has seen. A program refuses cards of a newer format."""

    format: int = FORMAT
    name: str  # the arm's name in tables
    architecture: str  # "critic", "timm:NAME" or "torchvision:NAME"
    stem: Stem = "native"  # how a grey image enters a network made for RGB
    mean: tuple[float, ...]  # subtracted from images in [0, 1], per channel that enters the network
    std: tuple[float, ...]  # divided by, per channel that enters the network
    pool: Pool  # from maps to features: "mean" or "mean+max" over positions, "flatten", or the "token"
    num_features: int = Field(ge=1)  # length of the feature vector after pooling
    objective: str = "none"  # what it was pretrained with; "none" where it saw no pretraining
    init: Init = "random"
    family: Family = "random"  # the initialisation by which arms are compared; weights: not ImageNet's
    weights: str = ""  # name and sha256 of the weights file it started from
    weights_prefix: str = ""  # with which its weights are called in that file, such as "teacher.backbone."
    parent: str = ""  # sha256 of the weights of the encoder it started from; "" where it started from none
    settings: dict[str, Any] = Field(default_factory=dict)  # resolved config of its pretraining
    store: str = ""  # id of the store it was pretrained on
    images_seen: int = Field(default=0, ge=0)  # in pretraining, each as often as it was drawn
    batch_size: int = Field(default=0, ge=0)  # of its pretraining; 0: none, or a card of an earlier version
    seed: int = 0  # seed of its pretraining, and of its random weights
    version: str = trabecula.__version__
    labels: str = ""  # tasks whose labels it learned from, "; " between them; "" where it saw none
    num_labelled_patients: int = Field(default=0, ge=0)
    """Patients whose labels these were, of two such trainings the larger number; 0 where it is not known."""
    pool_fraction: float = 1.0  # part of the pool's patients that its pretraining took; 1 where it saw none
    pool_cohorts: tuple[str, ...] = ()  # cohorts that its pretraining was kept to; none: all that there were
    stores: tuple[str, ...] = ()  # ids of the stores that made up its pool, where these were several


def check_fit(card: EncoderCard, store: Store, path: Path) -> None:
    """Refuse a store of other channels, another size, or pixels prepared in another way than the encoder's.

    A store of another domain is taken where its pixels were made alike: an encoder of chests, which have no
    side, takes knees that are all mirrored to one (`artifacts.store.alike`).
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


def has_encoder(folder: Path) -> bool:
    """Whether the folder holds an encoder's card."""
    return card_file(folder).is_file()


def has_critic(folder: Path) -> bool:
    """Whether the folder holds a critic's output layer."""
    return (folder / CRITIC_FILE).is_file()


def write_encoder_card(folder: Path, card: EncoderCard) -> None:
    """Write the card alone."""
    write_json(folder / CARD_FILE, dump(card))


def write_encoder(folder: Path, card: EncoderCard, state: Mapping[str, Tensor]) -> None:
    """Write the weights, then the card, each whole or not at all; the same encoder gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / WEIGHTS_FILE, state, "encoder")
    write_encoder_card(folder, card)


def write_critic(folder: Path, output: Mapping[str, Tensor]) -> None:
    """Write a critic's output layer (its "weight" and "bias") beside the encoder whose maps it reads."""
    write_weights(folder / CRITIC_FILE, {f"output.{key}": value for key, value in output.items()}, "critic")


def read_encoder_card(path: Path) -> EncoderCard:
    """Read the card of an encoder: its folder, its weights, or the card's own file."""
    file = card_file(path)
    absent = f"{path}: no encoder there ({file.name} is missing); `trabecula pretrain` writes one"
    return build(EncoderCard, read_card(file, FORMAT, absent), str(file))


def read_card(file: Path, newest: int, absent: str) -> dict[str, Any]:
    """The values of a card, of format `newest` at most; `absent` is the message where there is no file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(absent) from None
    except ValueError as error:
        raise InputError(f"{file}: not a card: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{file}: not a card: a JSON object is needed")
    found = values.get("format")
    if not isinstance(found, int) or found > newest:
        raise InputError(
            f"{file}: card of format {found}, this version ({trabecula.__version__}) reads up to {newest}; "
            "use the newer trabecula that wrote it"
        )
    return values


def folder_of(path: Path) -> Path:
    """The folder of an encoder that is named by its folder or by a file in it."""
    inside = path.name in (WEIGHTS_FILE, EXPORTED_FILE, CRITIC_FILE) or path.suffix == ".json"
    return path.parent if inside else path


def card_file(path: Path) -> Path:
    """encoder.json of an encoder's folder, or beside its weights; another .json file as it stands."""
    return path if path.suffix == ".json" else folder_of(path) / CARD_FILE


def weights_file(path: Path) -> Path:
    """The weights of an encoder's folder, or of an export's, where they have the name of the hub."""
    own, exported = (folder_of(path) / name for name in (WEIGHTS_FILE, EXPORTED_FILE))
    return exported if exported.exists() and not own.exists() else own
