"""Trabecula: image encoders from many medical images and few labels, and whether it paid."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from trabecula.artifacts.manifest import Manifest, read_manifest
    from trabecula.artifacts.store import Store
    from trabecula.artifacts.tasks import Task
    from trabecula.data.batches import Batch, Stream
    from trabecula.data.views import Views, view
    from trabecula.errors import InputError, RunError
    from trabecula.nets.encoder import Encoder, load_encoder
    from trabecula.run import execute
    from trabecula.train.loop import train

# Loaded when first asked for, so that `import trabecula` and `--help` need no torch.
_HOMES = {
    "artifacts.manifest": ("Manifest", "read_manifest"), "artifacts.store": ("Store",),
    "artifacts.tasks": ("Task",), "data.batches": ("Batch", "Stream"), "data.views": ("Views", "view"),
    "errors": ("InputError", "RunError"), "nets.encoder": ("Encoder", "load_encoder"), "run": ("execute",),
    "train.loop": ("train",),
}  # fmt: skip

__all__ = [
    "Batch", "Encoder", "InputError", "Manifest", "RunError", "Store", "Stream", "Task", "Views", "execute",
    "load_encoder", "read_manifest", "train", "view",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"trabecula.{home}"), name)
    raise AttributeError(f"module 'trabecula' has no attribute '{name}'")
