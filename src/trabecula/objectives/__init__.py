"""The methods. Adding one costs a file and a line in `TABLE`; its contract tests come free."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from trabecula.config import suggest
from trabecula.errors import InputError

if TYPE_CHECKING:
    from trabecula.objectives.objective import Objective

TABLE = {
    "moco": "moco:Moco",
    "barlow": "barlow:Barlow",
    "vicreg": "vicreg:Vicreg",
    "cnn_jepa": "cnn_jepa:CnnJepa",
    "wgan_gp": "wgan_gp:WganGp",
    "wgan": "wgan:Wgan",
    "gan_r1": "gan_r1:GanR1",
    "sn_gan": "sn_gan:SnGan",
    "r3gan": "r3gan:R3Gan",
    "mae": "mae:Mae",
    "classify": "classify:Classify",
}


def find(name: str) -> type[Objective]:
    """The class of a method.

    Raises:
        InputError: no method of that name.
    """
    if name not in TABLE:
        raise InputError(f"unknown objective '{name}'{suggest(name, sorted(TABLE))}")
    module, kind = TABLE[name].split(":")
    return getattr(importlib.import_module(f"trabecula.objectives.{module}"), kind)  # type: ignore[no-any-return]
