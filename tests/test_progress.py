"""Work of unknown length says where it is; quick work says nothing."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from trabecula.progress import _bar, shortened, steps


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


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("even", [True, False])
def test_counts_are_whole_on_a_narrow_terminal(width: int, even: bool) -> None:
    """A long note, such as a study's with the names of its cells, gives way; the line stays one line."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    bar = _bar("pretraining [cnn_jepa]", 2_000_000, "images", even, console)
    bar.update(bar.task_ids[0], completed=1_234_567, rate="about 3 h left, running: " + "pretrain-moco" * 9)
    console.print(bar.get_renderable())
    (line,) = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert line.startswith("pretraining [cnn_jepa] 1234567/2000000 images")
    assert len(line) <= width


def test_names_keep_their_beginning_and_their_end() -> None:
    assert shortened("pretrain-moco-4e0c2a91", 24) == "pretrain-moco-4e0c2a91"
    assert shortened("pretrain-moco-resnet50-imagenet-4e0c2a91", 24) == "pretrain-moc…et-4e0c2a91"
    assert len(shortened("x" * 99, 24)) == 24
