"""`trabecula doctor`: what this machine has and lacks, in one table."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import trabecula
from trabecula.artifacts.patient_hashes import SITE_KEY, key_file
from trabecula.nets.devices import choose_device, precision_on
from trabecula.packages import extras, has_extra, installed, required

_GIB = 2**30


def examine(out: Path) -> None:
    """Print the table; `out` is the folder of the runs."""
    table = Table("what", "found")
    for what, found in findings(out):
        table.add_row(what, found.replace("[", "\\["))
    Console().print(table)


def findings(out: Path) -> Iterator[tuple[str, str]]:
    """(what was examined, what was found)."""
    yield "trabecula", trabecula.__version__
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for name, wanted in required().items():
        yield name, installed(name) or f"missing: python -m pip install '{name}{wanted}'"
    yield "extras", _extras()
    yield "torch threads", f"{torch.get_num_threads()} of {os.cpu_count()} logical cores"
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    shown = [f"cuda:{i} {gpu.name}, {gpu.total_memory / _GIB:.0f} GiB" for i, gpu in enumerate(gpus)]
    yield "GPUs", "; ".join(shown) or "none visible; --device cpu"
    device = choose_device("auto")
    place = "the GPU" if device.type == "cuda" else "this CPU"
    fast = precision_on(device) == "bf16"
    yield "bf16", f"fast on {place}" if fast else f"slow on {place}; float32 is used"
    key = str(key_file()) if key_file().exists() else f"none yet; made at first need in {key_file()}"
    yield "site key", f"from ${SITE_KEY}" if os.environ.get(SITE_KEY) else key
    for what, folder in (("runs", out), ("temporary files", Path(tempfile.gettempdir()))):
        yield what, _folder(folder)


def _extras() -> str:
    """Each extra as installed, or the command that installs it."""
    found = [
        f"{name}: " + ("installed" if has_extra(name) else f"python -m pip install 'trabecula[{name}]'")
        for name in extras()
    ]
    return "\n".join(found) or "none are offered"


def _folder(folder: Path) -> str:
    """Whether files can be written there, and the space left; asks the nearest folder that exists."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = f"{shutil.disk_usage(place).free / _GIB:.0f} GiB free"
    try:
        with tempfile.TemporaryFile(dir=place):
            return f"{folder}: can be written, {free}"
    except OSError as error:
        return f"{folder}: CAN'T be written ({error.strerror}), {free}"
