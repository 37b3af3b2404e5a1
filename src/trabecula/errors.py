"""Errors meant for a person: each is one line that says what, where and what to do.

    TrabeculaError          printed as one line by the command line, never as a traceback
    |-- InputError          the user's input is at fault; exit code 2
    `-- RunError            the input was fine but the work could not go on; exit code 1

A programmer's mistake stays an ordinary exception with its traceback.
"""

import errno


class TrabeculaError(Exception):
    """Anything the command line answers with one line."""

    exit_code = 1


class InputError(TrabeculaError, ValueError):
    """Bad input: a missing file, an unknown key, a leak between splits."""

    exit_code = 2


class RunError(TrabeculaError, RuntimeError):
    """Good input, failed work: a diverged loss, a full disk."""


def disk_full(error: OSError, place: object) -> RunError | None:
    """The error for a person where the disk or the user's quota is used up; None of any other failure."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    remedy = "free some space and run the same command again, what is done is kept"
    return RunError(f"{place}: the disk is full; {remedy}")
