"""Monitors: what is measured while a network trains, and what is wrong with it. An objective names its own.

Adding one costs a file and a line in `TABLE`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trabecula.monitors.monitor import Monitor

TABLE = {"encoder": "encoder:EncoderMonitor", "gan": "gan:GanMonitor"}
"""What objectives call a monitor: its file and class."""


def find(name: str) -> type[Monitor]:
    """The class of a monitor.

    Raises:
        KeyError: no monitor of that name.
    """
    module, kind = TABLE[name].split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), kind)  # type: ignore[no-any-return]
