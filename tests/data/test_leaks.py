"""Planted leaks are found and named; a clean set is called clean."""

from __future__ import annotations

import hashlib
import json

import pytest

import encoder_cards
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.patient_hashes import key_name, mark, site_key
from trabecula.data.leaks import check
from trabecula.errors import InputError

OF = {"p0": "train", "p1": "train", "p2": "val", "p3": "test"}
RECORD = {"format": 1, "size": 8, "channels": 1, "bits": 8, "preprocessing": "abc", "shards": []}


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """Four patients with two images each, split without a leak."""
    monkeypatch.setenv("TRABECULA_SITE_KEY", "a key of the test")
    rows = ["image_id,patient_id,path"]
    for k in range(8):
        (tmp_path / f"{k}.png").write_bytes(bytes([k]) * 10)
        rows.append(f"i{k},p{k // 2},{k}.png")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    write_splits(tmp_path, OF.items())
    return tmp_path


def write_splits(folder, pairs):
    (folder / "splits.csv").write_text("patient_id,split\n" + "".join(f"{p},{s}\n" for p, s in pairs))


def write_card(folder, patients, name="encoder.json", **values):
    card = {"patients": mark(patients, site_key()), "patients_key": key_name(site_key()), **values}
    encoder_cards.write_card(folder, **card)
    (folder / "encoder.json").rename(folder / name)
    return folder


def leaks(folder, **values):
    found = check(read_manifest(folder), folder / "splits.csv", **values)
    assert found.unchecked == []
    return found.leaks


def test_no_leak(clean):
    (clean / "pool.csv").write_text("patient_id\np0\np9\n")
    assert leaks(clean, encoders=[write_card(clean, ["p0", "p1", "p9"])], pools=[clean / "pool.csv"]) == []


def test_a_patient_in_two_parts(clean):
    write_splits(clean, [*OF.items(), ("p1", "test")])
    assert leaks(clean) == ["manifest row 4: patient p1 is in test and in train"]


def test_a_patient_in_no_part(clean):
    write_splits(clean, [pair for pair in OF.items() if pair[0] != "p3"])
    assert leaks(clean) == ["manifest row 8: patient p3 has no split"]


def test_an_unknown_part(clean):
    write_splits(clean, {**OF, "p0": "training"}.items())
    assert leaks(clean) == ["splits.csv row 2: patient p0 has the unknown split 'training'"]


@pytest.mark.parametrize("name", ["encoder.json", "card.json"])
def test_an_encoder_that_saw_held_out_patients(clean, name):
    folder = write_card(clean, ["p0", "p2", "p3"], name)
    path = folder if name == "encoder.json" else folder / name
    found = leaks(clean, encoders=[path])
    assert found == [
        f"manifest row 6: val patient p2 was seen by the encoder {path}",
        f"manifest row 8: test patient p3 was seen by the encoder {path}",
    ]
    assert leaks(clean, encoders=[folder / name])[0].startswith("manifest row 6: val patient p2")


def test_a_card_of_another_key_cannot_be_checked(clean, monkeypatch):
    write_card(clean, ["p0"])
    monkeypatch.setenv("TRABECULA_SITE_KEY", "another key")
    (found,) = leaks(clean, encoders=[clean])
    assert "hashed under key" in found
    assert "it cannot be checked here" in found


def test_a_card_that_lists_nobody(clean):
    write_card(clean, [], images_seen=1000)
    assert "it cannot be checked" in leaks(clean, encoders=[clean])[0]
    write_card(clean, [], images_seen=0)
    assert leaks(clean, encoders=[clean]) == []


@pytest.mark.parametrize("name", ["manifest.csv", "index.csv"])
def test_a_pool_that_holds_held_out_patients(clean, name):
    pool = clean / "pool"
    pool.mkdir()
    (pool / name).write_text("image_id,patient_id\nx,p3\ny,p0\nz,p3\n")
    assert leaks(clean, pools=[pool]) == [f"manifest row 8: test patient p3 is in the pool {pool}"]


def test_the_own_store_is_no_leak_another_is(clean):
    store = clean / "store"
    store.mkdir()
    (store / "index.csv").write_text("image_id,patient_id\ni6,p3\ni0,p0\n")
    of = hashlib.sha256((clean / "manifest.csv").read_bytes()).hexdigest()
    (store / "store.json").write_text(json.dumps(RECORD | {"manifest": of}))
    for pool in (store, store / "store.json", store / "index.csv"):
        found = check(read_manifest(clean), clean / "splits.csv", pools=[pool])
        assert found.leaks == []
        assert found.notes == [
            f"{pool} is the store of this manifest, of which pretrain leaves val and test out"
        ]
    (clean / "manifest.csv").write_text((clean / "manifest.csv").read_text() + "\n")  # another one now
    assert leaks(clean, pools=[store]) == [f"manifest row 8: test patient p3 is in the pool {store}"]


def test_a_table_beside_the_own_store_is_still_looked_at(clean):
    of = hashlib.sha256((clean / "manifest.csv").read_bytes()).hexdigest()
    (clean / "store.json").write_text(json.dumps(RECORD | {"manifest": of}))
    (clean / "pool.csv").write_text("patient_id\np3\n")
    assert len(leaks(clean, pools=[clean / "pool.csv"])) == 1


def test_files_that_cannot_be_read_are_said(clean):
    for name in ("3.png", "6.png"):
        (clean / name).unlink()
    found = check(read_manifest(clean), clean / "splits.csv")
    assert found.leaks == []
    assert found.unchecked == [
        "2 of 8 image files cannot be read (the first is that of manifest row 5, 3.png), so they could not "
        "be compared for duplicates"
    ]


def test_one_image_under_two_patients(clean):
    (clean / "7.png").write_bytes((clean / "0.png").read_bytes())
    (clean / "2.png").write_bytes((clean / "3.png").read_bytes())  # one patient's own copy is none
    assert leaks(clean) == ["manifest rows 2 and 9: one image under patients p0 (train) and p3 (test)"]


def test_copies_inside_a_part_are_no_leak(clean):
    (clean / "3.png").write_bytes((clean / "0.png").read_bytes())
    assert leaks(clean) == []


def test_pages_and_boxes_of_one_file_are_no_copies_of_each_other(clean):
    (clean / "5.png").write_bytes((clean / "0.png").read_bytes())
    (clean / "manifest.csv").write_text(
        "image_id,patient_id,path,page,box\n"
        "a,p0,0.png,1,\nb,p2,0.png,2,\nc,p3,0.png,3,\n"  # pages
        "d,p0,1.png,,0 0 4 8\ne,p2,1.png,,4 0 8 8\nf,p1,1.png,,\n"  # boxes, and the whole image
    )
    assert leaks(clean) == []
    with (clean / "manifest.csv").open("a") as manifest:
        manifest.write("g,p3,5.png,2,\nh,p3,1.png,,0 0 4 8\n")  # a copy of b, and the box of d
    assert leaks(clean) == [
        "manifest rows 3 and 8: one image under patients p2 (val) and p3 (test)",
        "manifest rows 5 and 9: one image under patients p0 (train) and p3 (test)",
    ]


def test_what_cannot_be_read(clean):
    (clean / "pool.csv").write_text("patient,kl\np0,1\n")
    with pytest.raises(InputError, match="no column 'patient_id'"):
        leaks(clean, pools=[clean / "pool.csv"])
    with pytest.raises(InputError, match=r"no encoder there \(encoder\.json is missing\)"):
        leaks(clean, encoders=[clean])
    (clean / "encoder.json").write_text("{")
    with pytest.raises(InputError, match="not a card"):
        leaks(clean, encoders=[clean])
