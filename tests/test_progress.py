"""Work of unknown length says where it is; quick work says nothing."""

from __future__ import annotations

import time

import pytest

from trabecula.progress import steps


def test_quick_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with steps("checking") as begin:
        begin("loading")
    assert capsys.readouterr().err == ""


def test_long_work_says_where_it_is_though_a_step_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    told = ""
    with steps("checking", first_s=0.01, every_s=0.01) as begin:
        for step in ("loading pretrain", "stage [finetune]"):
            begin(step)
            deadline = time.monotonic() + 30
            while f"checking: {step}\n" not in told and time.monotonic() < deadline:
                time.sleep(0.01)
                told += capsys.readouterr().err
    assert "checking: loading pretrain\n" in told
    assert "checking: stage [finetune]\n" in told
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""  # it ends with the work
