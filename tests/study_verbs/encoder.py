"""Adds as `add` does, and makes an arm; says what it costs, and refuses what it can't start from."""

from collections.abc import Mapping
from typing import Any

from study_verbs import add
from study_verbs.add import run
from trabecula.errors import InputError

__all__ = ["Config", "arm", "check", "run", "workload"]


class Config(add.Config):
    arm: str
    """The arm's name."""
    seed: int = 0
    """Two seeds of an arm are two runs of it."""
    images: int = 0
    """Images that it counts."""


def workload(config: Config) -> dict[str, int]:
    return {"pretrainings": 1, "images seen": config.images} if config.images else {"searches without end": 1}


def check(config: Config, made: Mapping[str, Any]) -> None:
    if config.start and getattr(made.get("start"), "value", 0) < 0:
        raise InputError("'start' will be below 0; use a value from 0 up")


def arm(config: Config) -> dict[str, str]:
    return {"name": config.arm, "architecture": "net", "family": "pretrained"}
