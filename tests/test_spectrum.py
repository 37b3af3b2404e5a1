"""spectrum: a pool's grades by a proxy's predictions: what is counted, what corrects, what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trabecula import spectrum
from trabecula.errors import InputError
from trabecula.run import execute

GRADES = ["0", "1", "2"]
TASK = {"kl": {"name": "kl", "kind": "ordinal", "labels": ["kl"], "classes": GRADES}}


def predictions(folder: Path, images: list[str], calls: list[int], split: str, **key: object) -> Path:
    """A proxy's predictions: 0.8 for the grade it calls."""
    folder.mkdir(parents=True, exist_ok=True)
    origin = {"task": "kl", "arm": "net", "mode": "finetune", "fraction": 1.0, "seed": 0, "pretrain_seed": 0}
    origin |= key
    p = 0.7 * np.eye(3)[calls] + 0.1
    table = pd.DataFrame({"image_id": images, "cohort": "", **origin, "split": split})
    for place, name in enumerate(GRADES):
        table[f"p_{name}"] = p[:, place]
    table.to_csv(folder / "predictions.csv", index=False)
    counts = dict.fromkeys(
        ("num_train_images", "num_train_patients", "num_val_images", "num_val_patients"), 9
    )
    pd.DataFrame([{**origin, "threshold": "", **counts}]).to_csv(folder / "choices.csv", index=False)
    return folder


def cohort(folder: Path, images: list[str], labels: list[str], cohorts: list[str]) -> Path:
    """A manifest of two images a patient."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({
        "image_id": images, "patient_id": [image[:-1] for image in images],
        "path": [f"{image}.png" for image in images], "kl": labels, "cohort": cohorts,
    })  # fmt: skip
    table.to_csv(folder / "manifest.csv", index=False)
    (folder / "tasks.json").write_text(json.dumps(TASK))
    return folder


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """60 labelled images, 20 of each grade, a tenth called one too high; 80 unlabelled ones, 72 called 2."""
    known = [f"a{k:02d}{side}" for k in range(30) for side in "LR"]
    pool = [f"b{k:02d}{side}" for k in range(40) for side in "LR"]
    grades = [k // 20 for k in range(60)]
    called = [min(2, g + (k % 10 == 0)) for k, g in enumerate(grades)]
    labels = [str(g) for g in grades] + [""] * 80
    cohort(tmp_path / "cohort", known + pool, labels, ["old"] * 60 + ["new"] * 76 + ["newer"] * 4)
    predictions(tmp_path / "proxy", known, called, "val")
    predictions(tmp_path / "called", known + pool, called + [0] * 4 + [1] * 4 + [2] * 72, "test")
    return tmp_path


def config(hospital: Path, **settings: object) -> spectrum.Config:
    values = {"predictions": (hospital / "called",), "manifest": hospital / "cohort", "num_resamples": 200}
    return spectrum.Config(**{**values, **settings})


def read(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "spectrum.json").read_text())["audits"][0]
    return found


def test_images_with_a_label_are_not_of_the_pool(hospital: Path, tmp_path: Path) -> None:
    told = execute("spectrum", config(hospital), tmp_path / "out")
    row = read(tmp_path / "out")
    assert (row["num_images"], row["num_patients"]) == (80, 40)
    assert [cell["count"] for cell in row["called"]] == [4, 4, 72]
    assert row["dominant"] == {"class": "2", "called": 0.9, "corrected": None}
    assert told.startswith(
        "net, kl: 80 images of 40 patients called 0: 5.0 %, 1: 5.0 %, 2: 90.0 %; warning: 90 %"
    )


def test_validation_predictions_correct_the_shares(hospital: Path, tmp_path: Path) -> None:
    told = execute("spectrum", config(hospital, validation=(hospital / "proxy",)), tmp_path / "out")
    row = read(tmp_path / "out")
    assert row["known"] == {
        "part": "val", "num_images": 60, "num_patients": 30, "shares": pytest.approx([1 / 3] * 3),
        "called": pytest.approx([0.3, 1 / 3, 11 / 30]), "confusion": [[18, 2, 0], [0, 18, 2], [0, 0, 20]],
    }  # fmt: skip
    zero, one = 0.05 / 0.9, (0.05 - 0.1 * 0.05 / 0.9) / 0.9  # the triangle is solved by hand
    shares = [cell["share"] for cell in row["corrected"]]
    assert shares == pytest.approx([zero, one, 1 - zero - one], abs=1e-6)
    assert all(0 <= cell["low"] <= cell["share"] <= cell["high"] <= 1 for cell in row["corrected"])
    said = re.search(r"corrected 0: 5.6 % \((\d+) to (\d+)\), 1: 4.9 % .*, 2: 89.5 % ", told)
    assert said
    assert int(said[1]) == round(100 * row["corrected"][0]["low"])
    assert execute("spectrum", config(hospital, validation=(hospital / "proxy",)), tmp_path / "two") == told
    once, again = ((tmp_path / name / "spectrum.json").read_bytes() for name in ("out", "two"))
    assert once == again


def test_what_the_calls_cannot_tell_is_not_told(hospital: Path, tmp_path: Path) -> None:
    """A proxy that takes 0 for 1 and 1 for 0 as often as not."""
    known = [f"a{k:02d}{side}" for k in range(30) for side in "LR"]
    mixed = [k % 2 if k < 40 else 2 for k in range(60)]
    proxy = predictions(tmp_path / "mixed", known, mixed, "val")
    told = execute("spectrum", config(hospital, validation=(proxy,)), tmp_path / "out")
    assert "corrected 0: not known, 1: not known, 2: 90.0 % (" in told
    assert "do not determine the share of 0, 1" in read(tmp_path / "out")["correction"]


def test_only_the_part_that_is_asked_for_corrects(hospital: Path, tmp_path: Path) -> None:
    given = config(hospital, validation=(hospital / "proxy",), part="test")
    execute("spectrum", given, tmp_path / "out")
    assert read(tmp_path / "out")["known"] is None


def test_labels_may_lie_in_another_manifest(hospital: Path, tmp_path: Path) -> None:
    """The pool's own manifest is then taken whole: equal image ids are another hospital's."""
    images = [f"a{k:02d}{side}" for k in range(4) for side in "LR"]
    other = cohort(tmp_path / "other", images, [""] * 8, ["x"] * 8)
    called = predictions(tmp_path / "others", images, [2] * 8, "test")
    given = config(
        hospital, predictions=(called,), manifest=other, validation=(hospital / "proxy",),
        labels=hospital / "cohort",
    )  # fmt: skip
    execute("spectrum", given, tmp_path / "out")
    row = read(tmp_path / "out")
    assert row["num_images"] == 8
    assert row["corrected"][2]["share"] == pytest.approx(1, abs=1e-3)


def test_the_pools_own_manifest_named_as_labels_is_no_other_one(hospital: Path, tmp_path: Path) -> None:
    """Images with a label are left out all the same: the proxy learned from them."""
    given = config(hospital, validation=(hospital / "proxy",), labels=hospital / "cohort" / "manifest.csv")
    execute("spectrum", given, tmp_path / "out")
    assert read(tmp_path / "out")["num_images"] == 80


def test_a_pool_may_have_an_empty_column_of_labels(hospital: Path, tmp_path: Path) -> None:
    images = [f"b{k:02d}{side}" for k in range(40) for side in "LR"]
    pool = cohort(tmp_path / "pool", images, [""] * 80, ["new"] * 80)
    grades = predictions(tmp_path / "grades", images, [2] * 80, "test")
    rule = predictions(tmp_path / "rule", images, [1] * 80, "test", task="kl >= 1")
    table = pd.read_csv(rule / "predictions.csv").drop(columns="p_2").assign(p_0=0.2)
    table.to_csv(rule / "predictions.csv", index=False)
    for folder in (grades, rule):
        given = config(hospital, predictions=(folder,), manifest=pool)
        assert "80 images of 40 patients" in execute("spectrum", given, tmp_path / f"out-{folder.stem}")


def test_where_a_correction_was_asked_for_its_lack_is_told(hospital: Path, tmp_path: Path) -> None:
    other = predictions(tmp_path / "other", ["a00L", "a20L"], [0, 2], "val", seed=7)
    few = predictions(tmp_path / "few", ["a00L", "a20L"], [0, 2], "val")
    for folder, why in ((other, "no labelled images of this proxy"), (few, "fewer than 5 labelled patients")):
        told = execute("spectrum", config(hospital, validation=(folder,)), tmp_path / f"out-{folder.stem}")
        assert why in told
    assert "corrected" not in execute("spectrum", config(hospital), tmp_path / "plain")


def test_cohorts_are_told_by_the_manifest(hospital: Path, tmp_path: Path) -> None:
    execute("spectrum", config(hospital, cohorts=("newer",)), tmp_path / "out")
    assert read(tmp_path / "out")["num_images"] == 4


def test_a_level_above_the_largest_share_warns_of_nothing(hospital: Path, tmp_path: Path) -> None:
    told = execute("spectrum", config(hospital, dominance=0.91), tmp_path / "out")
    assert (read(tmp_path / "out")["dominant"], read(tmp_path / "out")["warning"]) == (None, "")
    assert "warning" not in told


def test_what_cannot_be_counted_is_refused_in_one_line(hospital: Path, tmp_path: Path) -> None:
    several = hospital / "several"
    predictions(several, ["b00L"], [2], "test")
    table = pd.read_csv(several / "predictions.csv")
    table["p_0"] = 0.9
    table.to_csv(several / "predictions.csv", index=False)
    labelled = predictions(tmp_path / "labelled", ["a00L"], [1], "test")
    stranger = predictions(tmp_path / "stranger", ["z1"], [1], "test")
    validation = predictions(tmp_path / "validation", ["b00L"], [1], "val")
    for settings, said in (
        ({"predictions": (several,)}, "task 'kl' does not give one class an image"),
        ({"predictions": (labelled,)}, "no predicted image is left"),
        ({"predictions": (stranger,)}, "1 of 1 predicted images are not in it, the first is 'z1'"),
        ({"predictions": (hospital / "proxy",)}, "no predictions of a test part"),
        ({"cohorts": ("nowhere",)}, "no predicted image is left"),
        ({"validation": (validation,)}, "image 'b00L' of the validation predictions has no label"),
    ):
        with pytest.raises(InputError, match=said) as told:
            execute("spectrum", config(hospital, **settings), tmp_path / f"out-{said[:9]}")
        assert "\n" not in str(told.value)
