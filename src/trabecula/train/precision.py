"""In what precision a run computes."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["auto", "float32", "bf16"]


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
