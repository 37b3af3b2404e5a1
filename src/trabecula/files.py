"""Files and folders: atomic writes, locks, arrays; a full disk is reported as such.

NumPy's own writer reports a short write without the system's reason, and a memory map made in a file with
holes ends the process with a bus error when the disk cannot fill them: arrays are written here instead.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from trabecula.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def write_atomically(path: Path, content: str | bytes | npt.NDArray[Any]) -> Path:
    """Write a file, of an array an .npy file, so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            if isinstance(content, str | bytes):
                file.write(content.encode() if isinstance(content, str) else content)
            else:
                save_array(file, content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write plain values as JSON, keys sorted, so that equal values give equal bytes."""
    return write_atomically(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Read one JSON object that the command `made_by` wrote; an InputError if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file; it is written by {made_by}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); write it again with {made_by}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: is not a JSON object; write it again with {made_by}")
    return value


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep(partials: Iterable[Path]) -> None:
    """Remove what a killed process left of atomic writes; a verb's own partial files are its to resume."""
    for path in partials:
        if path.name.split(".")[-2].isdigit():
            path.unlink(missing_ok=True)


def make_folder(out: Path, own: Container[str] | None) -> None:
    """Make the folder of a run or study, and those above it; an InputError if there can be none of that name.

    It is refused, too, if it holds something beside the names in `own`; None: it is known to be one's own.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out needs a folder")
    if own is not None and out.is_dir():
        names = (path.name for path in out.iterdir())
        foreign = sorted(name for name in names if name not in own and not name.endswith(".partial"))
        if foreign:
            raise InputError(f"{out}: holds something else ({foreign[0]}); choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except NotADirectoryError:
        raise InputError(f"{out}: lies in a file, not in a folder; choose another --out") from None
    except (FileNotFoundError, FileExistsError):  # in /proc, say, or a link to nothing
        raise InputError(f"{out}: no folder can be made there; choose another --out") from None


@contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder for this process alone; an InputError if another still holds it after `wait` seconds.

    The lock ends with the process, however it ends: the system's record locks pass to no forked child.
    """
    until = time.monotonic() + wait
    with (folder / ".lock").open("w") as lock:
        while True:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    busy = f"{folder}: another trabecula process is working here; wait for it"
                    raise InputError(busy) from None
                time.sleep(0.05)
        yield


def save_array(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    """Write an .npy file, byte for byte as `numpy.save` does; an OSError has the system's reason."""
    import numpy as np

    whole = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(whole))
    file.write(whole.reshape(-1).view(np.uint8).data)


def open_new_array(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.memmap[Any, Any]:
    """A writable memory map in a new .npy file whose place on the disk is taken at once, or an OSError."""
    import numpy as np

    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS, whose file systems keep no holes here
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, path.stat().st_size))
    return array
