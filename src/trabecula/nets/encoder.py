"""Encoders: a backbone, its normalisation and its pooling, with a card that says where it comes from.

An encoder takes images in [0, 1] and owns everything that turns them into features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from trabecula.artifacts import encoder as on_disk
from trabecula.artifacts.encoder import EncoderCard, Family, Init, Pool, PoolChoice, Stem, read_encoder_card
from trabecula.artifacts.store import to_float
from trabecula.artifacts.weights import plain_name, read_weights
from trabecula.errors import InputError
from trabecula.files import sha256_of
from trabecula.nets.backbone import Backbone, build_backbone, per_channel, resolve
from trabecula.nets.critic import Critic, is_critic
from trabecula.nets.published import AUTO, Published, find_published, names_imagenet
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
                raise InputError(f"'{card.name}': {name} needs {backbone.in_channels} values, has {values}")
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> what the network takes; for the stem "repeat" three equal channels.

        Raises:
            InputError: another number of channels than the card's.
        """
        if not isinstance(images, Tensor) or not images.is_floating_point():
            kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise InputError(
                f"encoder '{self.card.name}' takes a float tensor in [0, 1], got {kind}; its `embed(images)` "
                "takes arrays and uint8 too"
            )
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
        """(B, C, H, W) in [0, 1] -> (B, num_features).

        Raises:
            InputError: no float tensor, or one of another size or other channels; `embed` checks values too.
        """
        x = self.normalise(images)
        if images.shape[2:] != (self.card.size, self.card.size):
            size, side = " x ".join(map(str, images.shape[2:])), self.card.size
            raise InputError(
                f"images are {size} px, encoder '{self.card.name}' takes {side} x {side}; resize them"
            )
        if self.card.pool == "token":
            return self.backbone.pooled(x)
        maps = self.backbone.maps(x)
        if self.card.pool == "flatten":
            return maps.flatten(1)
        mean = maps.mean((2, 3))
        return mean if self.card.pool == "mean" else torch.cat([mean, maps.amax((2, 3))], dim=1)

    @torch.no_grad()  # not inference mode: a user's own head may be trained on the features
    def embed(self, images: ArrayLike | Tensor, batch_size: int = 256) -> Tensor:
        """Features of your own images, as `trabecula embed` makes them: (N, num_features) float32 on the CPU.

        images: an array or tensor (N, C, H, W), or (N, H, W) and (H, W) of grey images, or a list of images.
            uint8 and uint16 are scaled to [0, 1], float values are in [0, 1] already. `normalise` follows.
        batch_size: images at a time.

        Raises:
            InputError: another size, other channels, values out of range, or none at all.
        """
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size}: must be 1 or more")
        x, device = _checked(images, self.card), self.mean.device
        in_training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            parts = [self(to_float(part).to(device, self.mean.dtype)) for part in x.split(batch_size)]
        finally:
            for module in in_training:
                module.training = True
        return torch.cat(parts).float().cpu()

    def with_pool(self, pool: PoolChoice) -> Encoder:
        """The same layers under another pooling; "auto" keeps this one."""
        if pool == "auto" or pool == self.card.pool:
            return self
        chosen, width = pooling(self.backbone, pool)
        return Encoder(self.card.model_copy(update={"pool": chosen, "num_features": width}), self.backbone)

    def save(self, folder: Path, card: EncoderCard | None = None, images: int = 0) -> None:  # noqa: ARG002
        """Write weights and card, its own by default; `images` of this training, which the card counts."""
        on_disk.write_encoder(folder, card or self.card, self.backbone.net.state_dict())


def _checked(images: ArrayLike | Tensor, card: EncoderCard) -> Tensor:
    """Images of a user as (N, C, S, S), of uint8, uint16 or float: those of the card, or an InputError."""
    whose, side = f"encoder '{card.name}'", card.size
    x = _as_tensor(images, whose)
    if x.ndim == 2:
        x = x[None]
    if x.ndim == 3:
        x = x[:, None]
    wanted = f"(N, {card.channels}, {side}, {side})"
    if x.ndim != 4 or not len(x):
        raise InputError(f"{whose} takes images as {wanted}, these are {tuple(x.shape)}")
    if x.shape[1] != card.channels:
        last = "; their channels are last: move them with images.transpose(0, 3, 1, 2)"
        hint = last if x.shape[3] == card.channels != side else ""
        raise InputError(f"{whose} takes images as {wanted}, these have {x.shape[1]} channels{hint}")
    if x.shape[2:] != (side, side):
        size = f"{x.shape[2]} x {x.shape[3]} px, {whose} takes {side} x {side}"
        raise InputError(f"images are {size}; resize them, as `trabecula prepare -s size={side}` does")
    if x.dtype not in (torch.uint8, torch.uint16):
        if not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.")
            raise InputError(f"images of {kind} have no known range: give uint8, uint16, or float in [0, 1]")
        low, high = float(x.min()), float(x.max())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # not a number is out of range too
            raise InputError(
                f"images have values from {low:g} to {high:g}, {whose} takes float values in [0, 1]; scale "
                "them, or give uint8, which is scaled here"
            )
    return x


_ROUNDING = 1e-4
"""By which float images may leave [0, 1]."""


def _as_tensor(images: ArrayLike | Tensor, whose: str) -> Tensor:
    """An array, a tensor, or a list of either, as a tensor that shares memory where it can."""
    if isinstance(images, Tensor):
        return images.detach()
    try:
        if isinstance(images, list | tuple) and images and all(isinstance(one, Tensor) for one in images):
            return torch.stack([cast("Tensor", one).detach() for one in images])
        array = np.asarray(images)
        if array.dtype.byteorder != "=":
            array = array.astype(array.dtype.newbyteorder("="))
        return torch.from_numpy(np.ascontiguousarray(array))
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{whose} takes an array or a tensor of images of one size ({reason})") from None


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


_GIVEN = ("weights", "package")  # inits with weights of somebody else


class StartingPoint(NamedTuple):
    """Where an encoder's weights start, as its card will say it; no weights are read.

    label: of the weights, for the name of an arm: "random", "encoder", or what the file is called, such as
        "dinov2-small" of "facebook/dinov2-small@1a2b3c".
    """

    architecture: str
    family: Family
    label: str
    published: Published | None = None


def starting_point(architecture: str, init: Init, weights: Path | None, weights_name: str) -> StartingPoint:
    """Of an encoder that `make_encoder` makes of the same arguments.

    Raises:
        InputError: an unknown architecture, weights missing or not needed, or a folder that cannot be read.
    """
    published = find_published(architecture, init, weights, weights_name)
    if published is None and (weights is None) != (init == "random"):
        needed = {"weights": "needs a weights file", "encoder": "needs an encoder's folder"}
        advice = "set 'weights'" if weights is None else "leave 'weights' out, or set another init"
        raise InputError(f"init '{init}' {needed.get(init, 'takes no weights')}: {advice}")
    if published is not None:
        architecture = published.architecture
    elif architecture == AUTO and weights is not None:
        architecture = read_encoder_card(weights).architecture
    family: Family = "random"
    if init in _GIVEN:
        is_imagenet = published.is_imagenet if published is not None else names_imagenet(weights_name)
        if published is not None:  # "facebook/dinov2-small@1a2b3c"
            label = published.name.partition("@")[0].rpartition("/")[2]
        else:
            label = (weights_name or _file_name(weights)).replace("@", "_")  # an "@" marks snapshots
        family = "imagenet" if is_imagenet else "weights"
        return StartingPoint(resolve(architecture), family, label, published)
    if init == "encoder" and weights is not None:
        parent = read_encoder_card(weights)
        family = parent.family if parent.objective == "none" else "pretrained"
    return StartingPoint(resolve(architecture), family, init, published)


def _file_name(weights: Path | None) -> str:
    """What weights are called whose file is all that is known of them."""
    return plain_name(weights) if weights is not None else ""


def make_encoder(
    architecture: str, channels: int, size: int, stem: Stem = "native", pool: PoolChoice = "auto",
    init: Init = "random", weights: Path | None = None, seed: int = 0, name: str = "",
    weights_name: str = "", weights_prefix: str = "",
) -> Encoder:  # fmt: skip
    """An encoder from random weights, a local weights file, or another encoder's folder.

    Args:
        architecture: "critic", "timm:NAME", "torchvision:NAME", a bare name, a name on the hub, or "auto" for
            what a folder holds (see `nets/published.py`).
        channels, size: of the images, px.
        stem, pool: see `build_backbone` and `pooling`.
        init: "random", "weights" (a file in the library's own layout, a model's folder, or what a name on the
            hub stands for), "package" (the ImageNet weights of the extra `imagenet`) or "encoder" (a folder).
        weights: the file or folder; for "weights", unless they lie on the hub, and for "encoder".
        name: of the arm; made of architecture and initialisation where "".
        weights_name: what the weights are called; "" for their file's or folder's name. A file is taken for
            ImageNet's only where this name says so ("imagenet").
        weights_prefix: of the network's keys in the file; "" for the only one that fits.

    Raises:
        InputError: an unknown architecture, weights missing or of another network, a bad pooling.
    """
    start = starting_point(architecture, init, weights, weights_name)
    backbone = build_backbone(start.architecture, channels, size, stem, seed)
    begun = _begin(backbone, start.published, init, weights, weights_name, weights_prefix)
    chosen, width = pooling(backbone, pool)
    arm = start.label if start.family == "weights" else start.family
    card = EncoderCard(
        name=name or "-".join((backbone.architecture.replace(":", "-"), arm)), family=start.family,
        architecture=backbone.architecture, channels=channels, size=size, stem=stem,
        pool=chosen, num_features=width, init=init, seed=seed, **begun,
    )  # fmt: skip
    return Encoder(card, backbone)


def _begin(
    backbone: Backbone, published: Published | None, init: Init, weights: Path | None, weights_name: str,
    weights_prefix: str,
) -> dict[str, Any]:  # fmt: skip
    """Put the starting weights into a backbone; gives what a card says of them, and its mean and std."""
    if published is not None:
        mean = per_channel(published.mean or backbone.mean, backbone.in_channels)
        std = per_channel(published.std or backbone.std, backbone.in_channels)
        called, prefix = published.load(backbone, weights_prefix) if init in _GIVEN else ("", "")
        return {"mean": mean, "std": std, "weights": called, "weights_prefix": prefix}
    if weights is None:
        return {"mean": backbone.mean, "std": backbone.std}
    if init == "weights":
        prefix = load_weights(backbone, weights, weights_prefix)
        called = f"{weights_name or _file_name(weights)} sha256:{sha256_of(weights)}"
        return {"mean": backbone.mean, "std": backbone.std, "weights": called, "weights_prefix": prefix}
    parent, file = read_encoder_card(weights), on_disk.weights_file(weights)
    differing = [
        f"{key} is {getattr(parent, key)}, wanted {getattr(backbone, key)}"
        for key in ("architecture", "channels", "stem")
        if getattr(parent, key) != getattr(backbone, key)
    ]
    if differing:
        raise InputError(f"{weights}: another network than the one to start: {'; '.join(differing)}")
    fit(backbone, read_weights(file), str(file))
    return {**{key: getattr(parent, key) for key in _INHERITED}, "parent": sha256_of(file)}


# An encoder that starts from another has seen what that one saw: its patients above all.
_INHERITED = (
    "mean", "std", "objective", "weights", "weights_prefix", "settings", "store", "preprocessing", "prepared",
    "images_seen", "patients", "patients_key", "labels", "num_labelled_patients", "batch_size",
)  # fmt: skip


def load_encoder(path: str | Path) -> Encoder:
    """Read an encoder: its folder, or either file in it.

    Raises:
        InputError: no encoder there, a card of a newer format, or weights that do not fit the card.
    """
    path = Path(path)
    card = read_encoder_card(path)
    backbone = build_backbone(card.architecture, card.channels, card.size, card.stem)
    file = on_disk.weights_file(path)
    fit(backbone, read_weights(file), str(file))
    _, width = pooling(backbone, card.pool)
    if width != card.num_features:
        raise InputError(
            f"{on_disk.card_file(path)}: says {card.num_features} features, the network gives {width}; "
            "the card was changed, or belongs to other weights"
        )
    return Encoder(card, backbone)


def load_critic(folder: str | Path) -> Critic:
    """Read a critic, ready to score images in [-1, 1] as its encoder's `normalise` gives them.

    Its `blocks` are the network of the encoder in the same folder.

    Raises:
        InputError: no critic there, or an output layer that does not fit the encoder.
    """
    folder = Path(folder)
    file = folder / on_disk.CRITIC_FILE
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
