"""How a failure is told on the command line: one line and an exit code, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trabecula.errors import TrabeculaError, disk_full, is_disk_full
from trabecula.verbs import VERBS

_NAMES = (errno.ENOTDIR, errno.ENAMETOOLONG)
_DRIVES = (errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.ENXIO)


@contextmanager
def answered() -> Iterator[None]:
    """Errors that a person can mend become one line and an exit code, never a traceback."""
    try:
        yield
    except TrabeculaError as error:
        _stop(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        _stop("stopped; run the same command again to go on", 130)
    except PermissionError as error:
        _stop(f"error: {error.filename}: not allowed; choose another folder or mend its rights", 2)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _os(error)
    except MemoryError as error:
        _stop(f"error: out of memory ({error or 'no detail'}); lower size, batch_size or --workers", 1)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of typer's, whose classes are private
            _usage(error)
        if type(error).__name__ != "OutOfMemoryError":  # torch's own, which is not imported here
            raise
        _stop("error: the device is out of memory; lower batch_size, or raise accumulate", 1)


def _os(error: OSError) -> None:
    """A machine's own troubles; any other operating-system error is a defect."""
    place = error.filename or "the output"
    if is_disk_full(error):
        _stop(f"error: {disk_full(place)}", 1)
    if error.errno in _NAMES:
        _stop(f"error: {place}: {error.strerror}; choose another name", 2)
    if error.errno in _DRIVES:
        _stop(f"error: {place}: {error.strerror}; see to the drive and run the same command again", 1)
    raise error


def _usage(error: Any) -> None:
    """A mistyped verb or option in one line; bare `trabecula` shows the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(error.exit_code)
    context = getattr(error, "ctx", None)
    path = f"trabecula {context.info_name}" if context and context.parent else "trabecula"
    told = error.format_message().rstrip(".")
    if told.startswith("Got unexpected extra argument") and context and context.info_name in VERBS:
        told += "; inputs are given by name, each with its own flag, such as --store PATH"
    _stop(f"error: {told}; see `{path} --help`", error.exit_code)


def _stop(line: str, code: int) -> None:
    sys.stdout.flush()
    print(" ".join(line.splitlines()), file=sys.stderr, flush=True)
    sys.exit(code)
