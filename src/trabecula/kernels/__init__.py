"""Computations rewritten for processors, each with its measured gain: docs/concepts/kernels.md.

The environment variable TRABECULA_KERNELS chooses: `on` (the default), `off`, where torch's own operators
compute everything, or the names of those to use, with commas between them.
"""

from __future__ import annotations

import os

from trabecula.errors import InputError

VARIABLE = "TRABECULA_KERNELS"
NAMES = ("input_gradient", "convolution", "depthwise", "matmul", "linear")


def enabled(name: str) -> bool:
    """Whether a kernel is to be used where it applies.

    Raises:
        InputError: the variable has another value.
    """
    chosen = choice()
    return chosen == "on" or name in chosen.split(",")


def choice() -> str:
    """What the variable says: on, off or names, as provenance.json records it.

    Raises:
        InputError: the variable has another value.
    """
    chosen = os.environ.get(VARIABLE) or "on"
    if chosen in ("on", "off"):
        return chosen
    names = chosen.split(",")
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise InputError(
            f"{VARIABLE}: {', '.join(unknown)} is not a kernel; set on, off or names of {', '.join(NAMES)}"
        )
    return chosen
