"""Where a run computes."""

import torch

from trabecula.errors import InputError


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
