"""Where a run computes, and in what precision."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from trabecula.errors import InputError

Precision = Literal["auto", "float32", "bf16"]


def choose_device(name: str) -> str:
    """`auto` is the first GPU if there is one; another name must exist.

    Raises:
        InputError: a GPU is asked for that is not there, or no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name}: unknown; use cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name}: {torch.cuda.device_count()} GPUs are visible here; use --device cpu"
        )
    return name


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which a step runs."""
    if resolve(precision, device) == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def resolve(precision: Precision, device: torch.device) -> Literal["float32", "bf16"]:
    """What "auto" means here: bf16 where the hardware multiplies it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "float32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "float32"
