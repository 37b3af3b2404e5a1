"""The generators. Adding one costs a file and a line in `TABLE`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from trabecula.config import suggest
from trabecula.errors import InputError

if TYPE_CHECKING:
    from trabecula.nets.generators.generator import Generator

TABLE = {
    "upsampling": "upsampling:UpsamplingGenerator",
}
"""What a generator is called in its card: its file and class."""


def find(kind: str) -> type[Generator]:
    """The class of a generator; an unknown name is refused."""
    if kind not in TABLE:
        raise InputError(f"unknown generator '{kind}'{suggest(kind, sorted(TABLE))}")
    module, name = TABLE[kind].split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)  # type: ignore[no-any-return]
