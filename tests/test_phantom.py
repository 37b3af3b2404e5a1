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
from trabecula.phantoms.chest import draw_chest, draw_person
from trabecula.phantoms.hips import draw_hip
from trabecula.phantoms.knees import draw_knee
from trabecula.phantoms.patients import draw_patient
from trabecula.phantoms.radiograph import MOST_PATIENTS
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


HIPS = phantom.Config(kind="hips", num_patients=2, num_unlabelled_patients=3, size=40, seed=9)


def test_hips_come_from_two_cohorts(tmp_path: Path) -> None:
    said = execute("phantom", HIPS, tmp_path / "p")
    assert said == "10 hips of 5 patients at 40 px, 6 of them unlabelled"
    table = pd.read_csv(tmp_path / "p/table.csv", dtype=str, keep_default_na=False)
    assert list(table.columns) == ["file", "patient_id", "side", "kl", "sex", "age", "site", "cohort"]
    assert list(table["cohort"]) == ["check-like"] * 4 + ["oai-like"] * 6
    assert list(table["kl"] == "") == [False] * 4 + [True] * 6
    for row, (file, side) in enumerate(zip(table["file"], table["side"], strict=True)):
        hip = draw_hip(HIPS.joints(row // 2), row // 2, side)
        with Image.open(tmp_path / "p" / file) as image:
            assert np.array_equal(np.asarray(image), hip.image)


def test_the_unlabelled_cohort_is_healthier_brighter_and_less_sharp() -> None:
    joints = [HIPS.joints(number) for number in (0, 2)]
    assert joints[0].prevalence == HIPS.prevalence
    grades = [[g for p in range(2000) for g in draw_patient(j, p).grades.values()] for j in joints]
    assert np.mean(np.array(grades[1]) >= 2) < np.mean(np.array(grades[0]) >= 2) - 0.15
    films = [np.stack([draw_hip(j, p, "L").image for p in range(40)]).astype(float) for j in joints]
    assert films[1].mean() > films[0].mean() + 15
    # the same hips without noise, in pixel ranks, so that only the blur makes a difference
    quiet = [j.model_copy(update={"noise": 0.0, "effect": 0.0, "size": 64, "marker": 0.0}) for j in joints]
    films = [np.stack([draw_hip(j, p, "L").image for p in range(20)]) for j in quiet]
    ranks = [np.argsort(np.argsort(f.reshape(20, -1))).reshape(f.shape) for f in films]
    steep = [np.abs(np.diff(r, axis=2)).mean() for r in ranks]
    assert steep[1] < 0.9 * steep[0]


CHESTS = phantom.Config(
    kind="chest",
    num_patients=4,
    num_unlabelled_patients=2,
    size=40,
    seed=9,
    chest={"images": 2.5, "odds": 5.0},
)


def test_chests_have_the_table_of_nih(tmp_path: Path) -> None:
    said = execute("phantom", CHESTS, tmp_path / "p")
    people = [draw_person(CHESTS, CHESTS.chest, p) for p in range(6)]
    labelled, films = sum(p.num_images for p in people[:4]), sum(p.num_images for p in people)
    assert said == f"{films} chest radiographs of 6 patients at 40 px, {films - labelled} of them unlabelled"
    header = (tmp_path / "p/table.csv").read_text().splitlines()[0]
    assert header == (  # as in Data_Entry_2017.csv, commas and all
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    table = pd.read_csv(tmp_path / "p/table.csv", dtype=str, keep_default_na=False)
    assert sorted(table["Image Index"]) == sorted(p.name for p in (tmp_path / "p/images").iterdir())
    assert list(table["Finding Labels"] == "") == [False] * labelled + [True] * (films - labelled)
    row = 0
    for number, person in enumerate(people):
        for follow_up in range(person.num_images):
            told, film = table.iloc[row], draw_chest(CHESTS, CHESTS.chest, number, follow_up)
            assert told["Image Index"] == f"{person.patient_id}_{follow_up:03d}.png"
            assert (told["Patient ID"], told["Follow-up #"]) == (person.patient_id, str(follow_up))
            assert told["Finding Labels"] in ("|".join(film.findings) or "No Finding", "")
            assert told["View Position"] == film.view
            with Image.open(tmp_path / "p/images" / told["Image Index"]) as image:
                assert np.array_equal(np.asarray(image), film.image)
            row += 1
    assert any("|" in cell for cell in table["Finding Labels"])


def test_settings_of_another_kind_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"for chests set chest.odds"):
        phantom.Config(kind="chest", prevalence=(0, 1, 0, 0, 0))
    with pytest.raises(ValidationError, match=r"for chests set chest.odds"):
        phantom.Config(kind="chest", unlabelled={})
    with pytest.raises(ValidationError, match="'chest' is for kind 'chest', not 'hips'"):
        phantom.Config(kind="hips", chest={"odds": 2.0})


def test_cohorts_can_be_made_alike_and_knees_be_given_two() -> None:
    alike = {"prevalence": HIPS.prevalence, "blur": HIPS.blur, "brightness": HIPS.brightness}
    hips = phantom.Config(kind="hips", num_patients=1, num_unlabelled_patients=1, size=40, unlabelled=alike)
    one, other = (draw_hip(hips.joints(number), 5, "R").image for number in (0, 1))
    assert np.array_equal(one, other)
    knees = CONFIG.model_copy(update={"unlabelled": phantom.Second(blur=4.0)})
    assert (knees.joints(2).blur, knees.joints(3).blur) == (1.0, 4.0)
    assert CONFIG.joints(3) is CONFIG
    with pytest.raises(ValidationError, match="five shares that sum to 1"):
        phantom.Second(prevalence=(1, 1, 0, 0, 0))


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
