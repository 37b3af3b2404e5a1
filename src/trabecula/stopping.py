"""How work ends early: the first Ctrl-C or SIGTERM waits for a moment at which nothing is lost.

    with stop_later() as asked:
        for step in work:
            ...
            if asked():
                ...  # keep what is done
                raise Stopped("6,272 images")

A second signal ends the work at once, by a KeyboardInterrupt wherever it is.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_NOTE = b"\nstopping as soon as what is done is kept; a second Ctrl-C stops at once\n"


class Stopped(KeyboardInterrupt):
    """Work ended early; its text says from where the same command goes on: "6,272 images"."""


def as_ctrl_c() -> None:
    """Signals that end a process raise KeyboardInterrupt as Ctrl-C does, unless they are ignored."""
    for number in SIGNALS:
        if number != signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Within it signals wait; processes started in it hear none unless they ask for them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stop_later() -> Iterator[Callable[[], bool]]:
    """Within it the first signal is only remembered; gives a function that says whether one came.

    Signals that the process ignores stay ignored, and outside the main thread, which alone hears them,
    nothing is changed. One that came too late to be asked for ends the work when the context is left.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}

    def remember(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if came:
            raise KeyboardInterrupt
        came.append(number)
        os.write(2, _NOTE)  # not print: the signal may have come while something is printed

    for number in heard:
        signal.signal(number, remember)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt
