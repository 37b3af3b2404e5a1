"""Weights files: tensors under names, read without running anything that is in the file."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from trabecula.errors import InputError
from trabecula.files import write_atomically

if TYPE_CHECKING:  # torch is loaded by the functions, so that a card can be read without it
    from torch import Tensor

_WRAPPERS = ("state_dict", "model", "model_state_dict")


def write_weights(path: Path, state: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """Write tensors as a .safetensors file, whole or not at all; equal tensors give equal bytes."""
    from safetensors.torch import save

    plain = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    return write_atomically(path, save(plain, metadata=metadata))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pt, .pth or .bin file; nothing in the file is ever run.

    Raises:
        InputError: no such file, not a weights file, or a pickle that holds more than tensors.
    """
    import torch
    from safetensors.torch import load

    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    if path.suffix == ".safetensors":
        try:
            return load(path.read_bytes())
        except SafetensorError as error:
            raise InputError(f"{path}: not a safetensors file, or cut short ({error})") from None
    if path.suffix not in (".pt", ".pth", ".bin"):
        raise InputError(f"{path}: weights are read from .safetensors, .pt, .pth or .bin files")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the archive's kind, which the errors below name
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds code or objects, not only tensors, and is not loaded, as that could run anything;"
            " where you trust it, convert it with "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).splitlines() or ["no content"])[0]
        raise InputError(f"{path}: not a weights file, or cut short ({reason})") from None
    if isinstance(loaded, Mapping):  # training checkpoints often wrap the state dict
        wrapped = (loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping))
        loaded = next(wrapped, loaded)
    if not isinstance(loaded, Mapping) or not loaded:
        raise InputError(f"{path}: holds no state dict (names and tensors)")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise InputError(f"{path}: is not a state dict: '{key}' is {type(value).__name__}, not a tensor")
    return dict(loaded)
