"""What a plan can tell before anything runs: settings of one verb that do not suit those of another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from trabecula.config import Record
from trabecula.errors import InputError


def foresee(verb: str, config: Record, made: Mapping[str, Record]) -> None:
    """Refuse a cell that would fail for what another cell is to make.

    Args:
        made: an input's name -> the settings of the cell that is to make it.

    Raises:
        InputError: the images will have a size or channels that the network cannot take, or two stores that
            are to be one pool are prepared otherwise.
    """
    store: Any = made.get("store")
    wanted: Any = config
    if verb == "pretrain":
        _check_alike(store, made.get("also"))
    if verb != "pretrain" or not (hasattr(store, "size") and hasattr(store, "channels")):
        return
    from trabecula.nets.published import stands_for_weights

    if not stands_for_weights(wanted.architecture):  # what they hold is known when they are read
        _build(wanted.architecture, store.channels, store.size, wanted.stem, wanted.pool)


def check_places(verb: str, values: Mapping[str, Any], where: str) -> None:
    """Refuse a method's setting that stands among those of `pretrain`, with where it belongs.

    Raises:
        InputError: as said.
    """
    if verb != "pretrain":
        return
    from trabecula.objectives import TABLE, find
    from trabecula.run import verb_module

    name = values.get("objective")
    if not isinstance(name, str) or name not in TABLE:
        return
    for key in (
        values.keys() & find(name).Config.model_fields.keys() - verb_module(verb).Config.model_fields.keys()
    ):
        raise InputError(f"{where}: '{key}' is a setting of {name}; write settings.{key} in its place")


def _check_alike(store: Any, also: Any) -> None:
    """Two stores that are to be one pool are prepared alike; sides only the images can tell."""
    for key in ("size", "channels", "bits", "fit", "intensity"):
        given, needed = getattr(also, key, None), getattr(store, key, None)
        if None not in (given, needed) and given != needed:
            raise InputError(
                f"'also': {key} is {json.dumps(given)}, wanted {json.dumps(needed)}; prepare both "
                "stores with the same settings"
            )


@cache
def _build(architecture: str, channels: int, size: int, stem: Any, pool: Any) -> None:
    """Nothing but the network itself knows what it takes: build it, once for all cells that share it."""
    from trabecula.nets.backbone import build_backbone
    from trabecula.nets.encoder import pooling

    pooling(build_backbone(architecture, channels, size, stem), pool)
