"""Which processor a network runs on, in what precision, and what keeps its results equal from run to run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch

from trabecula.errors import InputError

Precision = Literal["auto", "float32", "bf16"]


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU if there is one, else the CPU; another name must exist.

    Raises:
        InputError: an unknown name, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device '{name}': unknown; use auto, cpu, cuda or cuda:1") from None
    other, num_gpus = torch.accelerator.current_accelerator(check_available=True), torch.cuda.device_count()
    if device.type not in ("cpu", "cuda", other.type if other else ""):
        raise InputError(f"device '{name}': is not there; use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        raise InputError(f"device '{name}': {num_gpus} GPUs are visible here; use cpu or auto")
    return device


@contextmanager
def exact() -> Iterator[None]:
    """Full float32 and the same algorithms every time, for numbers that others will recompute."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def precision_on(device: torch.device, precision: Precision = "auto") -> Literal["float32", "bf16"]:
    """The precision of a run; "auto" is bf16 where the hardware multiplies it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "float32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "float32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which a training step runs."""
    if precision_on(device, precision) == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
