"""One patient under two spellings of the id is one patient, from the table to the check for leaks."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata

import pytest

import encoder_cards
from trabecula import cohort, split
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.patient_hashes import key_name, mark, seen_among, site_key
from trabecula.artifacts.splits import Splits, read_splits, together
from trabecula.comparison.leakage import check_cards
from trabecula.config import build
from trabecula.data.leaks import check
from trabecula.errors import InputError
from trabecula.patient_ids import canonical
from trabecula.run import execute

JÖRG = "Jörg"
SPELLINGS = [
    ("9000000", "9000000.0"), ("007", "7"), ("P1", "p1"), ("a b", "a  b"), ("a b", "a\u00a0b"),
    ("100000", "1E5"), (unicodedata.normalize("NFC", JÖRG), unicodedata.normalize("NFD", JÖRG)),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TRABECULA_SITE_KEY", "a key of the test")
    (tmp_path / "films").mkdir()
    for number in range(8):
        (tmp_path / "films" / f"{number}.png").write_bytes(bytes([number]))
    return tmp_path


def write_manifest(folder, *patients):
    rows = [f"i{k},{patient},films/{k}.png,{k % 2}" for k, patient in enumerate(patients)]
    (folder / "manifest.csv").write_text("\n".join(["image_id,patient_id,path,kl", *rows]) + "\n")


def write_splits(folder, **of):
    (folder / "splits.csv").write_text("patient_id,split\n" + "".join(f"{p},{s}\n" for p, s in of.items()))


def do(verb, module, folder, out, **values):
    return execute(verb, build(module.Config, values, verb), folder / out)


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_cohort_stops_with_the_rows_of_the_table(folder, one, other):
    rows = [f"0.png,{one},0", "", f"1.png,{other},1", "2.png,x,1"]  # a blank row counts
    (folder / "t.csv").write_text("\n".join(["file,patient_id,kl", *rows]))
    values = {"root": folder / "films", "table": folder / "t.csv"}
    with pytest.raises(InputError, match=r"t\.csv: one patient may stand under several") as error:
        do("cohort", cohort, folder, "c", **values)
    for spelling, row in ((one, 2), (other, 4)):
        assert f"'{spelling}' (row {row})" in str(error.value)
    said = do("cohort", cohort, folder, "c", **values, spellings_differ=True)
    assert said.startswith("3 images of 3 patients")
    ids = read_manifest(folder / "c").table["patient_id"].tolist()
    assert len({*map(canonical, ids)}) == 3  # told apart ever after
    assert do("split", split, folder, "s", manifest=folder / "c").startswith("train")


def test_cohort_names_the_files_where_paths_give_the_patients(folder):
    for name in ("P1_0.png", "p1_1.png"):
        (folder / "films" / name).touch()
    with pytest.raises(
        InputError, match=r"films: .* 'P1' \(P1_0\.png\) and 'p1' \(p1_1\.png\); write the id"
    ):
        do("cohort", cohort, folder, "c", root=folder / "films", pattern="{patient_id}_{visit_month}.png")


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_split_and_its_check(folder, one, other):
    write_manifest(folder, one, other, "x", "y")
    with pytest.raises(InputError, match=r"manifest\.csv: one patient may stand") as error:
        do("split", split, folder, "s", manifest=folder)
    assert f"'{one}' (row 2)" in str(error.value)
    assert f"'{other}' (row 3)" in str(error.value)
    write_splits(folder, **{one: "train", other: "test", "x": "train", "y": "val"})
    asked = {"manifest": folder, "splits": folder / "splits.csv", "check": True}
    with pytest.raises(InputError, match="leak"):
        do("split", split, folder, "k", **asked)
    with pytest.raises(InputError, match="is in train and in test"):
        read_splits(folder / "splits.csv")
    assert "no leak" in do("split", split, folder, "k2", **asked, spellings_differ=True)
    do("split", split, folder, "s", manifest=folder, spellings_differ=True)
    asked["splits"] = folder / "s"
    assert "no leak" in do("split", split, folder, "k3", **asked)  # the splits remember it
    assert len(read_splits(folder / "s").of) == 4


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_a_patient_of_the_manifest_under_another_spelling_elsewhere(folder, one, other):
    write_manifest(folder, one, "x", "y")
    write_splits(folder, **{one: "test", "x": "train", "y": "val"})
    (folder / "pool.csv").write_text(f"patient_id\nx\n{other}\n")
    (leak,) = check(read_manifest(folder), folder / "splits.csv", pools=[folder / "pool.csv"]).leaks
    assert leak.startswith(f"manifest row 2: test patient {one} is in the pool")
    encoder_cards.write_card(folder, patients=mark([other], site_key()), patients_key=key_name(site_key()))
    (leak,) = check(read_manifest(folder), folder / "splits.csv", encoders=[folder]).leaks
    assert leak.startswith(f"manifest row 2: test patient {one} was seen by the encoder")
    write_splits(folder, **{other: "test", "x": "train", "y": "val"})  # between the manifest and the splits
    (leak,) = check(read_manifest(folder), folder / "splits.csv").leaks
    assert "several spellings" in leak
    splits = read_splits(folder / "splits.csv")
    assert splits.rows("test", [one, "x"]).tolist() == [True, False]  # never train, whatever the spelling
    card = {"arm": "moco", "patients": mark([one], site_key()), "patients_key": key_name(site_key())}
    with pytest.raises(InputError, match=r"'moco' was pretrained on patient .* \(manifest row 2\)"):
        check_cards([card], splits.patients("test"), read_manifest(folder))


def test_whoever_is_held_out_anywhere_is_held_out():
    splits = together([Splits({"P1": "train", "007": "val"}), Splits({"p1": "test", "7": "train"})])
    assert [splits.part(patient) for patient in ("P1", "p1", "P 1", "7", "07", "8")] == [
        "test", "test", None, "val", "val", None,
    ]  # fmt: skip


def test_marks_are_of_the_canonical_form_and_old_cards_are_still_known():
    expected = hmac.new(b"k", b"p1", hashlib.sha256).hexdigest()[:32]
    assert mark(["P1", "p1", " P1"], b"k") == [expected] * 3


def test_cards_of_earlier_versions_are_recognised(folder):
    key = site_key()
    old = [hmac.new(key, patient, hashlib.sha256).hexdigest()[:32] for patient in (b"P1", b"007")]
    card = {"patients": old, "patients_key": key_name(key)}
    assert seen_among(["P1", "007", "8"], card) == ["007", "P1"]
    assert folder.exists()


def test_existing_splits_keep_a_patient_who_is_spelled_anew(folder):
    write_manifest(folder, *(f"{k}" for k in range(8)))
    write_splits(folder, **{f"00{k}": "test" if k < 4 else "train" for k in range(8)})
    do("split", split, folder, "s", manifest=folder, existing=folder / "splits.csv", task="kl")
    splits = read_splits(folder / "s")
    assert [splits.part(f"{k}") for k in range(8)] == ["test"] * 4 + ["train"] * 4


def test_tables_are_joined_by_any_spelling_of_the_patient(folder):
    (folder / "t.csv").write_text("patient_id,kl\n0,0\n1.0,1\n002,2\n")
    for number in range(3):
        (folder / "films" / f"{number}.png").rename(folder / "films" / f"00{number}.png")
    values = {"root": folder / "films", "table": folder / "t.csv", "pattern": "{patient_id:3}.png"}
    said = do("cohort", cohort, folder, "c", **values)
    assert "2 images are joined by another spelling of patient_id ('0' in the table is '000')" in said
    table = read_manifest(folder / "c").table
    assert list(zip(table["patient_id"], table["kl"], strict=True)) == [
        ("000", "0"),
        ("001", "1"),
        ("002", "2"),
    ]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (("9.00E+06", "x", "x"), r"patient id '9\.00E\+06' \(row 2\) is in scientific notation"),
        (("1E5", "x", "1E5"), r"patient id '1E5' \(row 2\) is in scientific notation"),
    ],
)
def test_scientific_notation_is_named(folder, ids, message):
    rows = [f"{k}.png,{patient},0" for k, patient in enumerate(ids)]
    (folder / "t.csv").write_text("\n".join(["file,patient_id,kl", *rows]))
    said = do("cohort", cohort, folder, "c", root=folder / "films", table=folder / "t.csv")
    assert re.search(message, said)


@pytest.mark.parametrize("ids", [("9.00E+06", "9.00E+06"), ("9.00E+06", "9000000")])
def test_scientific_notation_under_which_patients_collapse_is_refused(folder, ids):
    rows = [f"{k}.png,{patient},0" for k, patient in enumerate(ids)]
    (folder / "t.csv").write_text("\n".join(["file,patient_id,kl", *rows]))
    with pytest.raises(InputError, match=r"9\.00E\+06") as error:
        do("cohort", cohort, folder, "c", root=folder / "films", table=folder / "t.csv")
    assert "row" in str(error.value)
