"""Weights files: tensors under names, read without running anything that is in the file.

A file written here has a mark in its header, "trabecula": KIND. A copy of it without its card, which lists
the patients that it has seen, is known by that and is not taken for somebody else's weights.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import SafetensorError, safe_open

from trabecula.errors import InputError
from trabecula.files import write_atomically

if TYPE_CHECKING:  # torch is loaded by the functions, so that a card can be read without it
    from torch import Tensor

Kind = Literal["encoder", "critic", "generator", "classifier", "probe"]

_MARK = "trabecula"
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar")
_CHECKPOINT = {"step", "precision", "memory", "objective", "optimizers"}  # what `train.checkpoint` writes


def write_weights(path: Path, state: Mapping[str, Tensor], kind: Kind) -> Path:
    """Write tensors as a marked .safetensors file, whole or not at all; equal tensors give equal bytes."""
    from safetensors.torch import save

    plain = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    return write_atomically(path, _in_order(save(plain, metadata={"format": "pt", _MARK: kind})))


def _in_order(data: bytes) -> bytes:
    """A safetensors file with the keys of its header's metadata in order: the library writes them in any.

    The file begins with the header's length (8 bytes, little-endian) and the header, JSON padded with spaces.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(end - 8)
    return data[:8] + text + data[end:]


def refuse_own(path: Path) -> None:
    """Refuse a file that was written here and lies without its card: whom it has seen would be unknown.

    Raises:
        InputError: a marked file, or one that is not a safetensors file though its name says so.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return
    try:
        with safe_open(path, framework="np") as file:
            kind = (file.metadata() or {}).get(_MARK)
    except SafetensorError as error:
        raise _damaged(path, error) from None
    if kind == "encoder":
        raise InputError(
            f"{path}: an encoder that Trabecula wrote, without its card, which lists the "
            "patients that it has seen; give the folder that it comes from: with init = encoder where "
            "`pretrain` wrote it, with init = weights where another site's `export` did"
        )
    if kind is not None:
        raise InputError(
            f"{path}: Trabecula wrote this file for a {kind}: it is no encoder, and it does not say which "
            "patients it has seen; give the folder of the encoder that it was made with, with init = encoder"
        )


def plain_name(path: Path) -> str:
    """What a weights file is called, without the suffix: "resnet" of "resnet.pth.tar"."""
    suffix = max((end for end in _SUFFIXES if path.name.endswith(end)), key=len, default="")
    return path.name.removesuffix(suffix)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file with one of the names in `_SUFFIXES`; nothing in the file is ever run.

    A training checkpoint holds them deeper: where one part of it has tensors, these are given under their own
    names, where several have, all are, under dotted names such as "teacher.backbone.conv1.weight". What is no
    tensor, such as the number of the epoch, is left out.

    Raises:
        InputError: no such file, not a weights file, a pickle that holds objects besides tensors, or the
            checkpoint of an unfinished run.
    """
    import torch
    from safetensors.torch import load

    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    if not path.name.endswith(_SUFFIXES):
        raise InputError(
            f"{path}: the name of a weights file ends with {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"
        )
    if path.suffix == ".safetensors":
        try:
            return load(path.read_bytes())
        except SafetensorError as error:
            raise _damaged(path, error) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the archive's kind, which the errors below name
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _holds_objects(path, error) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).splitlines() or ["no content"])[0]
        raise InputError(f"{path}: not a weights file, or cut short ({reason})") from None
    return _tensors(path, loaded)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not a safetensors file, or cut short ({error})")


def _holds_objects(path: Path, error: Exception) -> InputError:
    """Of a pickle with more than tensors in it; torch's message names the first kind of object at its end."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    what = f" ({found[1]} is in it)" if found else ""
    return InputError(
        f"{path}: holds code or objects, not only tensors, and is not loaded, as that could run "
        f"anything{what}; where you trust it, load it with x = torch.load(FILE, weights_only=False) and "
        "convert it with safetensors.torch.save_file(part, 'weights.safetensors'), where part is "
        "x.state_dict() of a whole model, and of a checkpoint the entry with the tensors, such as "
        "x['state_dict'] or x['model']"
    )


def _tensors(path: Path, loaded: object) -> dict[str, Tensor]:
    """The tensors of a loaded pickle."""
    import torch

    if not isinstance(loaded, Mapping) or not loaded:
        raise InputError(f"{path}: holds no state dict (names and tensors)")
    if loaded.keys() >= _CHECKPOINT:
        raise InputError(
            f"{path}: the checkpoint of a run of Trabecula that is not finished; run its command again to "
            "finish it, and give its folder with init = encoder"
        )
    parts = dict(_state_dicts(loaded, ""))
    if not parts:
        key, value = next(iter(loaded.items()))
        kind = "a tensor without a name" if isinstance(value, torch.Tensor) else f"{type(value).__name__}"
        raise InputError(f"{path}: is not a state dict (names and tensors): '{key}' is {kind}")
    if len(parts) == 1:
        return next(iter(parts.values()))
    return {where + key: value for where, part in parts.items() for key, value in part.items()}


def _state_dicts(values: Mapping[Any, Any], where: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each place in nested dicts that has tensors of its own, with these: ("teacher.backbone.", {...}).

    What an optimizer keeps is left out: it numbers its tensors, or has them under the weights' own names.
    """
    import torch

    named = {key: value for key, value in values.items() if isinstance(key, str) and "optim" not in key}
    own = {key: value for key, value in named.items() if isinstance(value, torch.Tensor)}
    if own:
        yield where, own
    for key, value in named.items():
        if isinstance(value, Mapping):
            yield from _state_dicts(value, f"{where}{key}.")
