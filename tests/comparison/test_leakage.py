import pandas as pd
import pytest

from trabecula.artifacts.manifest import Manifest
from trabecula.artifacts.patient_hashes import key_name, mark
from trabecula.artifacts.splits import Splits
from trabecula.comparison.leakage import check_cards, check_parts
from trabecula.errors import InputError

KEY = b"a key of this site"
SPLITS = Splits({"ann": "train", "bea": "val", "cat": "test", "dan": "test"})


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.setenv("TRABECULA_SITE_KEY", KEY.decode())
    rows = {"image_id": ["1", "2", "3", "4", "5"], "patient_id": ["ann", "bea", "cat", "cat", "dan"]}
    return Manifest(pd.DataFrame(rows).assign(path="x.png"), tmp_path / "manifest.csv")


def _card(patients, key=KEY):
    return {"arm": "moco", "patients": mark(patients, key), "patients_key": key_name(key)}


def test_a_card_with_test_patients_is_refused_with_row_and_patient(manifest):
    check_cards([_card(["ann", "eve"]), {"arm": "random", "patients": ()}], ["cat", "dan"], manifest)
    with pytest.raises(
        InputError, match=r"'moco' .* 'cat' \(manifest row 4\) and 1 more patients of the test"
    ):
        check_cards([_card(["ann", "cat", "dan"])], ["cat", "dan"], manifest)


def test_a_card_under_another_key_cannot_be_checked_and_is_refused(manifest):
    with pytest.raises(InputError, match="TRABECULA_SITE_KEY"):
        check_cards([_card(["ann"], b"another")], ["cat"], manifest)


@pytest.mark.parametrize(
    ("image", "split", "message"),
    [
        ("1", "test", r"'ann' \(manifest row 2\) test, the splits say train"),
        ("2", "test", r"'bea' \(manifest row 3\) test, the splits say val"),
        ("5", "val", r"'dan' \(manifest row 6\) val, the splits say test"),
        ("9", "test", "no image '9'"),
    ],
)
def test_predictions_in_another_part_are_refused(manifest, image, split, message):
    fine = pd.DataFrame({"image_id": ["3", "4", "2"], "split": ["test", "test", "val"]})
    check_parts(fine, manifest, SPLITS)
    with pytest.raises(InputError, match=message):
        check_parts(
            pd.concat([fine, pd.DataFrame({"image_id": [image], "split": [split]})]), manifest, SPLITS
        )
