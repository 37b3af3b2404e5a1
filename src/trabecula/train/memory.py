"""What the C library does with freed memory while a network trains on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
_NEVER = -1
_LARGEST_KEPT = 1 << 30
_GLIBC_LARGEST = 1 << 25  # where glibc's own adaptation of both thresholds ends (mallopt(3))

_users = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within it, blocks up to 1 GiB go back to the program's heap when freed, not to the system.

    A step frees and takes the same large maps again; by default glibc returns those above 32 MiB each
    time, and the system then zeroes every page of them anew, which costs more than the arithmetic of a
    norm or a ReLU. The peak of memory is the same; at the end the free part goes back.
    A user's own MALLOC_* variables and other C libraries are left alone.
    """
    global _users
    allocator = _glibc()
    if allocator is None:
        yield
        return
    if _users == 0:
        allocator.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        allocator.mallopt(_TRIM_THRESHOLD, _NEVER)
    _users += 1
    try:
        yield
    finally:
        _users -= 1
        if _users == 0:
            allocator.mallopt(_MMAP_THRESHOLD, _GLIBC_LARGEST)
            allocator.mallopt(_TRIM_THRESHOLD, 2 * _GLIBC_LARGEST)
            allocator.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if not sys.platform.startswith("linux") or chosen:
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
