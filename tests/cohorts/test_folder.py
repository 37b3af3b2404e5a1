"""Patterns and sides: what paths and words mean."""

from __future__ import annotations

import pandas as pd
import pytest

from trabecula import cohort, cohorts
from trabecula.cohorts import CohortSettings, FoundImages
from trabecula.cohorts.folder import Folder, compile_pattern, list_files, sides
from trabecula.config import build
from trabecula.errors import InputError
from trabecula.run import execute


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("{part}/{kl}/{patient_id:7}{side:1}.png", "train/3/9000099L.png",
         {"part": "train", "kl": "3", "patient_id": "9000099", "side": "L"}),
        ("{part}/{kl}/{patient_id:7}{side:1}.png", "train/3/900009L.png", None),
        ("{part}/{kl}/{patient_id:7}{side:1}.png", "a/train/3/9000099L.png", None),
        ("{patient_id}_{visit_month}.png", "A_B_12.png", {"patient_id": "A", "visit_month": "B_12"}),
        ("*/{patient_id}.*", "x/1.jpg", {"patient_id": "1"}),
        ("*/{patient_id}.*", "x/y/1.jpg", None),
        ("**/{patient_id}.jpg", "x/y/1.jpg", {"patient_id": "1"}),
        ("**/{patient_id}.jpg", "1.jpg", {"patient_id": "1"}),
        ("{patient_id}(1).png", "7(1).png", {"patient_id": "7"}),
        ("{patient_id}.png", "7xpng", None),
    ],
)  # fmt: skip
def test_patterns(pattern, path, expected):
    match = compile_pattern(pattern).fullmatch(path)
    assert (match.groupdict() if match else None) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{patient id}.png", r"'\{patient id\}' is not a \{name\} or \{name:length\}"),
        ("{patient_id:x}.png", r"is not a \{name\}"),
        ("{patient_id.png", "is not a"),
        ("{a}/{a}.png", r"\{a\} is in it twice"),
    ],
)
def test_patterns_that_cannot_be(pattern, message):
    with pytest.raises(InputError, match=message):
        compile_pattern(pattern)


def test_sides():
    words = ["Right", "R", "1: Right", "left", "L", "2: Left", "LEFT knee", "rt", "", " r "]
    assert sides(pd.Series(words), "t") == ["R", "R", "R", "L", "L", "L", "L", "R", "", "R"]


def test_sides_in_other_languages():
    left = ["links", "Li", "gauche", "Izquierda", "2: links", "li."]
    right = ["Rechts", "re", "DROITE", "derecha", "1: rechts", "rechts (operiert)"]
    assert sides(pd.Series(left + right), "t") == ["L"] * len(left) + ["R"] * len(right)


def test_sides_that_mean_nothing_sure():
    with pytest.raises(InputError, match=r"rows 3, 4 have a side .* \('1', 'both'\)"):
        sides(pd.Series(["L", "1", "both"]), "t")


def test_hidden_files_are_no_images(tmp_path):
    for name in ("b/2.png", "a/1.png", ".git/x.png", "a/.DS_Store", "3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_files(tmp_path) == ["3.png", "a/1.png", "b/2.png"]


def test_an_unknown_kind_suggests_the_nearest(tmp_path):
    with pytest.raises(InputError, match="cohort: unknown kind of data set 'foldr', did you mean 'folder'"):
        build(cohort.Config, {"kind": "foldr", "root": tmp_path}, "cohort")


def test_a_kind_has_settings_of_its_own(tmp_path, monkeypatch):
    """A kind is a class and a line of the table; its keys are its own, and `cohort` writes what it finds."""

    class Names(CohortSettings):
        """A data set that is a list of names."""

        names: tuple[str, ...]
        """Of its patients."""

        def find_images(self):
            rows = [{"image_id": n, "patient_id": n, "path": str(self.root / n)} for n in self.names]
            return FoundImages(pd.DataFrame(rows, dtype="str"))

    monkeypatch.setattr(cohorts, "find", lambda kind: {"names": Names, "folder": Folder}[kind])
    values = {"kind": "names", "root": tmp_path, "names": ["a", "b"]}
    assert (
        execute("cohort", build(cohort.Config, values, "cohort"), tmp_path / "c") == "2 images of 2 patients"
    )
    with pytest.raises(InputError, match="unknown key 'pattern'"):
        build(cohort.Config, {**values, "pattern": "*"}, "cohort")
