"""The methods. Adding one costs a file and a line in `TABLE`; its contract tests come free."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from trabecula.config import suggest
from trabecula.errors import InputError

if TYPE_CHECKING:
    from trabecula.objectives.objective import Objective

TABLE = {
    "moco": ("moco:Moco", "MoCo"),
    "barlow": ("barlow:Barlow", "Barlow Twins"),
    "vicreg": ("vicreg:Vicreg", "VICReg"),
    "cnn_jepa": ("cnn_jepa:CnnJepa", "CNN-JEPA"),
    "wgan_gp": ("wgan_gp:WganGp", "WGAN-GP"),
    "wgan": ("wgan:Wgan", "WGAN"),
    "gan_r1": ("gan_r1:GanR1", "R1 GAN"),
    "sn_gan": ("sn_gan:SnGan", "SN-GAN"),
    "r3gan": ("r3gan:R3Gan", "R3GAN"),
    "byol": ("byol:Byol", "BYOL"),
    "mae": ("mae:Mae", "MAE"),
    "classify": ("classify:Classify", "Supervised"),
}
"""What a method is called in settings: its file and class, and its name in a report."""


def find(name: str) -> type[Objective]:
    """The class of a method.

    Raises:
        InputError: no method of that name.
    """
    if name not in TABLE:
        raise InputError(f"unknown objective '{name}'{suggest(name, sorted(TABLE))}")
    module, kind = TABLE[name][0].split(":")
    return getattr(importlib.import_module(f"trabecula.objectives.{module}"), kind)  # type: ignore[no-any-return]


def title(name: str) -> str:
    """The name of a method as a reader sees it; of one that is not here as it stands."""
    return TABLE[name][1] if name in TABLE else name
