"""The verb that writes make-believe patients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from trabecula import phantom
from trabecula.phantoms.knees import MOST_PATIENTS, draw_knee
from trabecula.run import execute

CONFIG = phantom.Config(num_patients=3, num_unlabelled_patients=2, size=40, seed=9)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in [*(folder / "images").iterdir(), folder / "table.csv"]}


def test_writes_images_and_a_table_that_agree(tmp_path: Path) -> None:
    summary = execute("phantom", CONFIG, tmp_path / "p")
    assert summary == "10 knees of 5 patients at 40 px, 4 of them unlabelled"
    table = pd.read_csv(tmp_path / "p/table.csv", dtype=str, keep_default_na=False)
    assert list(table.columns) == ["file", "patient_id", "side", "kl", "sex", "age", "site"]
    assert sorted(table["file"]) == sorted(f"images/{p.name}" for p in (tmp_path / "p/images").iterdir())
    assert table["patient_id"].str.fullmatch(r"1\d{6}").all()
    assert (table["file"] == "images/" + table["patient_id"] + table["side"] + ".png").all()
    assert list(table["kl"] == "") == [False] * 6 + [True] * 4
    for row, (file, side, kl) in enumerate(zip(table["file"], table["side"], table["kl"], strict=True)):
        knee = draw_knee(CONFIG, row // 2, side)
        with Image.open(tmp_path / "p" / file) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), knee.image)
        assert kl in (str(knee.grade), "")


def test_resuming_draws_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute("phantom", CONFIG, tmp_path / "whole")
    folder = tmp_path / "cut"
    calls: list[tuple[int, str]] = []

    def draw_some(config: phantom.Config, patient: int, side: str) -> object:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append((patient, side))
        return draw_knee(config, patient, side)  # type: ignore[arg-type]

    monkeypatch.setattr(phantom, "draw_knee", draw_some)
    with pytest.raises(KeyboardInterrupt):
        execute("phantom", CONFIG, folder)
    assert not (folder / "DONE").exists()
    assert len(list((folder / "images").iterdir())) == 4
    calls[:] = calls[:0]
    monkeypatch.setattr(phantom, "draw_knee", lambda *a: calls.append(a[1:]) or draw_knee(*a))
    execute("phantom", CONFIG, folder)
    assert len(calls) == 6
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_half_written_image_never_has_its_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", lambda fd: full() if os.fstat(fd).st_size > 600 else None)
    with pytest.raises(KeyboardInterrupt):
        execute("phantom", CONFIG, tmp_path / "p")
    assert not list((tmp_path / "p/images").glob("[!.]*.png"))
    monkeypatch.undo()
    execute("phantom", CONFIG, tmp_path / "p")
    execute("phantom", CONFIG, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert {name: contents(tmp_path / "p")[name] for name in whole} == whole


def test_more_patients_than_ids_are_refused() -> None:
    with pytest.raises(ValidationError, match="seven-digit ids allow"):
        phantom.Config(num_patients=MOST_PATIENTS, num_unlabelled_patients=1)


def test_drawing_needs_no_torch() -> None:
    code = "import sys, trabecula.phantom; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
