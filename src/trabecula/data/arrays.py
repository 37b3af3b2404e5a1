"""Arrays on disk, so that a full disk is an error with a reason.

NumPy's own writer reports a short write without the system's reason, and a memory map made in a
file with holes ends the process with a bus error when the disk cannot fill them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt


def save_array(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    """Write an .npy file, byte for byte as `numpy.save` does.

    Raises:
        OSError: with the system's reason, such as a full disk.
    """
    whole = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(whole))
    file.write(whole.reshape(-1).view(np.uint8).data)


def open_new_array(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.memmap[Any, Any]:
    """A writable memory map in a new .npy file whose place on the disk is taken at once.

    Raises:
        OSError: the disk is full.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS, whose file systems keep no holes here
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, path.stat().st_size))
    return array
