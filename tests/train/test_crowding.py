"""Crowded machines are told of, once, with what to set; others are not."""

from __future__ import annotations

import pytest
import torch

from trabecula.train import crowding
from trabecula.train.crowding import Crowding, note


@pytest.mark.parametrize(
    ("threads", "used", "load", "told"),
    [
        (2, 0.5, 8.3, True), (2, 1.9, 8.3, False),  # other work of lower priority
        (2, 0.5, 1.5, False),  # waits for its images, not for processors
        (1, 0.2, 8.3, False), (2, 0.5, 0.0, False),  # no load known
    ],
)  # fmt: skip
def test_what_is_measured_decides(
    threads: int, used: float, load: float, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowding, "_usable_cpus", lambda: 2)
    monkeypatch.setattr(crowding, "_load", lambda: load)
    text = note(threads, used)
    assert bool(text) is told
    if told:
        assert "2 threads get the time of 0.5 here: the load is 8.3 on 2 processors" in text
        assert "--workers 1 --other-threads" in text


def test_it_is_said_once_and_of_a_cpu_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crowding, "note", lambda *_: "crowded")
    for device, wanted in (("cpu", "note: crowded\n"), ("meta", "")):
        watched = Crowding(torch.device(device))
        watched.look()
        assert capsys.readouterr().err == ""  # too early
        watched.began -= 31
        for _ in range(3):
            watched.look()
        assert capsys.readouterr().err == wanted
