"""Weights fitted to a backbone, with no key missing or left over."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trabecula.artifacts.weights import read_weights, refuse_own
from trabecula.errors import InputError
from trabecula.nets.backbone import Backbone

_SHOWN = 3
_COUNTER = ".num_batches_tracked"  # of a batch norm: read only where its momentum is None, in no network here
_POSITIONS = {"pos_embed", "encoder.pos_embedding"}  # of timm's and torchvision's vision transformers
# Networks whose weights files are common: offered when a file fits another network than the one asked for.
_COMMON = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "densenet121",
    "densenet169", "squeezenet1_0", "squeezenet1_1", "vgg11", "vgg16", "vgg16_bn", "vgg19", "alexnet",
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny",
    "vit_b_16", "swin_t",
)  # fmt: skip


def load_weights(backbone: Backbone, path: Path, prefix: str = "") -> str:
    """Put somebody's weights file into a backbone: every key of both is used, or nothing is loaded.

    The keys may have one prefix more than the network's, such as "module." or "teacher.backbone."; it is left
    off, with all keys of the file that do not have it, and returned. The file's own classifier is left out: a
    backbone has none. For the stem "sum" the kernels that see an RGB image are summed over its three
    channels: the same result as showing a grey image three times, where mean and std are equal over the
    channels. Position embeddings of a vision transformer are resampled where its images have another size.

    prefix: the one to take where several fit; "" for the only one.

    Raises:
        InputError: keys or shapes that differ, named, with the common network that the file does fit; several
            prefixes that fit; values that are not finite; a file that was written here.
    """
    refuse_own(path)
    return fit(backbone, read_weights(path), str(path), prefix)


def fit(backbone: Backbone, state: Mapping[str, Tensor], where: str, prefix: str = "") -> str:
    """`load_weights` for tensors already read, of this program too; `where` starts the error's line."""
    own = backbone.net.state_dict()
    prefix = _find_prefix(backbone, state, where, prefix)
    state = _under(prefix, state)
    given = _body(backbone, state)
    first = f"{backbone.first_conv}.weight"
    # files older than torch 0.4.1, torchvision's own ResNets among them, do not count batches
    given |= {key: own[key] for key in own if key.endswith(_COUNTER) and key not in given}
    if backbone.stem == "sum" and first in given and given[first].ndim == 4 and given[first].shape[1] == 3:
        given[first] = given[first].sum(1, keepdim=True)
    given |= _positions(backbone, given)
    problem = mismatch(own, given)
    if problem:
        only_stem = first in own and not mismatch(own, {**given, first: own[first]})
        advice = _advice(backbone, state, only_stem)
        raise InputError(f"{where}: does not fit {backbone.architecture}: {problem}; {advice}")
    wrong = [key for key, value in given.items() if not value.isfinite().all()]
    if wrong:
        raise InputError(
            f"{where}: {len(wrong)} of {len(given)} tensors have values that are not finite ({few(wrong)}): "
            "the training that wrote them has diverged, or the file is damaged; use an earlier checkpoint"
        )
    backbone.net.load_state_dict(given, strict=True)
    return prefix


# What a method evaluates, by its authors' code, where it also keeps a moving average under another name: MoCo
# (main_lincls.py of versions 1 and 2), MoCo v3.
_EVALUATED = {"encoder_k.": "encoder_q.", "momentum_encoder.": "base_encoder."}


def _find_prefix(backbone: Backbone, state: Mapping[str, Tensor], where: str, asked: str) -> str:
    """The prefix under which the file has all keys of the network; "" where it has them as they are."""
    own = _names(backbone.net.state_dict())
    if asked:
        asked = asked.removesuffix(".") + "."
        if not _under(asked, state):
            raise InputError(
                f"{where}: no key begins with weights_prefix '{asked}'; they begin {few(list(state))}"
            )
        return asked
    found = prefixes(own, state)
    whole = [prefix for prefix in found if own <= _under(prefix, state).keys()]
    if "" in whole:
        return ""
    exact = [prefix for prefix in whole if not other_keys(backbone, _under(prefix, state))] or whole
    averages = {prefix.replace(q, k) for prefix in exact for k, q in _EVALUATED.items() if q in prefix}
    left = [prefix for prefix in exact if prefix not in averages]
    if len(left) > 1:
        names = ", ".join(f"'{prefix}'" for prefix in left)
        raise InputError(
            f"{where}: holds {len(left)} networks that fit {backbone.architecture}, with the prefixes "
            f"{names}; choose one, such as weights_prefix = '{left[-1]}'"
        )
    return (left or (found if len(found) == 1 else [""]))[0]


def prefixes(names: Collection[str], keys: Iterable[str]) -> list[str]:
    """What stands before the longest of the names in the keys that end with it, in their order."""
    longest = max(names, key=lambda name: (len(name), name))
    return [
        key.removesuffix(longest)
        for key in keys
        if key.endswith(longest) and (key == longest or key.endswith(f".{longest}"))
    ]


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose keys have this prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _names(keys: Iterable[str]) -> set[str]:
    return {key for key in keys if not key.endswith(_COUNTER)}


def _body(backbone: Backbone, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the file's own classifier, which a backbone has none of."""
    own, head = backbone.net.state_dict(), backbone.classifier
    return {key: value for key, value in state.items() if key in own or not key.startswith(head)}


def other_keys(backbone: Backbone, state: Mapping[str, Tensor]) -> bool:
    """Whether a file's keys are not the network's, whatever their shapes."""
    return _names(backbone.net.state_dict()) != _names(_body(backbone, state))


def _positions(backbone: Backbone, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Learned positions for another number of patches, resampled bicubically; the class token's stay."""
    own = backbone.net.state_dict()
    for key in own.keys() & given.keys() & _POSITIONS:
        if backbone.grid is None:
            continue
        here, there = own[key], given[key]
        prefix = here.shape[1] - math.prod(backbone.grid)
        side = math.isqrt(max(there.shape[1] - prefix, 0)) if there.ndim == 3 else 0
        if here.shape == there.shape or side == 0 or side**2 + prefix != there.shape[1]:
            continue
        grid = there[:, prefix:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, backbone.grid, mode="bicubic", antialias=True)
        patches = grid.flatten(2).transpose(1, 2).to(there.dtype)
        return {key: torch.cat([there[:, :prefix], patches], dim=1)}
    return {}


def mismatch(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What keeps `given` from being loaded as `own`, "" for nothing."""
    missing = [key for key in own if key not in given]
    unexpected = sorted(key for key in given if key not in own)
    misshapen = [
        f"{key} is {tuple(given[key].shape)}, needed {tuple(own[key].shape)}"
        for key in own
        if key in given and own[key].shape != given[key].shape
    ]
    groups = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    return "; ".join(f"{len(keys)} {what} ({few(keys)})" for what, keys in groups if keys)


def few(keys: Sequence[str]) -> str:
    """The first of many names, for a message."""
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


def _advice(backbone: Backbone, state: Mapping[str, Tensor], only_stem: bool) -> str:
    """What to do about a file that does not fit."""
    if only_stem and backbone.in_channels == 1 and backbone.stem == "native":
        return "the file is for RGB images: set stem = 'sum' or 'repeat'"
    right = guess(state)
    if right and right.partition(":")[2] != backbone.architecture.partition(":")[2]:
        return f"its keys are those of {right}: set architecture = '{right}'"
    return "name the architecture that the file was made for"


def guess(state: Mapping[str, Tensor]) -> str | None:
    """The common torchvision network that a state dict fits, under any prefix and with any classifier."""
    from torchvision import models

    from trabecula.nets.libraries import CLASSIFIERS

    def body(tensors: Mapping[str, Tensor]) -> set[tuple[str, tuple[int, ...]]]:
        kept = (item for item in tensors.items() if item[0].partition(".")[0] not in CLASSIFIERS)
        return {(key, tuple(value.shape)) for key, value in kept if value.ndim}

    for name in _COMMON:
        with torch.device("meta"):
            net: nn.Module = models.get_model(name, weights=None)
        own = body(net.state_dict())
        if any(body(_under(prefix, state)) == own for prefix in prefixes([key for key, _ in own], state)):
            return f"torchvision:{name}"
    return None
