"""Freed memory is kept while a loop trains, and given back after it."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator

import pytest
import torch

from trabecula.train import memory
from trabecula.train.memory import kept_memory

BYTES = 96 << 20  # above 32 MiB, which glibc gives back to the system by default

pytestmark = pytest.mark.skipif(memory._glibc() is None, reason="no glibc, or its MALLOC_ settings are taken")


def faults() -> int:
    """Pages that the system had to provide for one large tensor."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(BYTES, dtype=torch.uint8).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def held() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_a_block_is_taken_from_the_system_a_few_times_at_most_and_goes_back_at_the_end() -> None:
    usual = faults()
    assert usual > 1000
    with kept_memory():
        # Small objects may come to lie in the freed block; a few times the next then needs a new one.
        assert sum(faults() > usual / 10 for _ in range(40)) < 20
        with kept_memory():
            pass  # the end of an inner loop takes nothing from the outer one
        assert min(faults() for _ in range(5)) < usual / 10
        inside = held()
    assert held() < inside - BYTES / 2
    assert faults() > usual / 2


def test_a_loop_keeps_memory_until_it_is_closed() -> None:
    def loop(count: int) -> Iterator[int]:
        with kept_memory():
            yield from range(count)

    assert list(loop(3)) == [0, 1, 2]
    items = loop(3)
    assert (next(items), memory._users) == (0, 1)
    items.close()  # type: ignore[attr-defined]
    assert memory._users == 0


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_settings_of_the_user_s_own_are_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    with kept_memory():
        assert memory._users == 0


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with kept_memory():
        assert memory._users == 0
