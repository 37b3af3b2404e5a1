"""Reading a store: any rows, any order, across files; copies, never views of the file."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trabecula.artifacts.store import Store, rows_of, to_float
from trabecula.errors import InputError

COUNTS = (4, 0, 3, 5)


def make(folder, bits=8):
    rng = np.random.default_rng(0)
    full = 255 if bits == 8 else 65535
    images = rng.integers(0, full, (sum(COUNTS), 2, 3, 3), endpoint=True)
    images = images.astype(np.uint8 if bits == 8 else np.uint16)
    images[0, 0, 0, :2] = (0, full)
    start, shards = 0, []
    for k, count in enumerate(COUNTS):
        np.save(folder / f"images-{k:05d}.npy", images[start : start + count])
        shards.append({"file": f"images-{k:05d}.npy", "num_images": count, "sha256": str(k)})
        start += count
    index = pd.DataFrame({"image_id": [f"i{k}" for k in range(start)], "patient_id": ["007"] * start})
    index.to_csv(folder / "index.csv", index=False)
    record = {"format": 1, "size": 3, "channels": 2, "bits": bits, "preprocessing": "abc", "shards": shards}
    (folder / "store.json").write_text(json.dumps(record))
    return images


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, sum(COUNTS) - 1), max_size=20), bits=st.sampled_from([8, 16]))
def test_any_rows_in_any_order(tmp_path, rows, bits):
    images = make(tmp_path, bits)
    got = Store.open(tmp_path).read(np.array(rows, dtype=np.int64))
    assert got.dtype == (torch.uint8 if bits == 8 else torch.uint16)
    assert got.shape == (len(rows), 2, 3, 3)
    assert np.array_equal(got.numpy(), images[rows])


def test_slices_lists_and_facts(tmp_path):
    images = make(tmp_path)
    store = Store.open(tmp_path / "store.json")
    assert len(store) == 12
    assert (store.size, store.channels, store.bits, store.preprocessing) == (3, 2, 8, "abc")
    assert np.array_equal(store.read(slice(2, None, 3)).numpy(), images[2::3])
    assert np.array_equal(store.read([5]).numpy(), images[5:6])
    assert store.index["patient_id"].tolist() == ["007"] * 12


def test_reading_copies(tmp_path):
    images = make(tmp_path)
    store = Store.open(tmp_path)
    store.read(slice(None)).zero_()
    assert np.array_equal(store.read(slice(None)).numpy(), images)


def test_pickled_stores_open_their_own_maps(tmp_path):
    images = make(tmp_path)
    store = Store.open(tmp_path)
    store.read([0])
    data = pickle.dumps(store)
    assert b"images-00000" in data
    assert images[0].tobytes() not in data
    assert np.array_equal(pickle.loads(data).read([11, 0]).numpy(), images[[11, 0]])


def test_rows_outside(tmp_path):
    make(tmp_path)
    for row in (-1, 12):
        with pytest.raises(IndexError, match="of a store of 12 images"):
            Store.open(tmp_path).read([0, row])


def test_rows_of(tmp_path):
    make(tmp_path)
    store = Store.open(tmp_path)
    assert rows_of(store, ["i7", "i0", "i7"]).tolist() == [7, 0, 7]
    with pytest.raises(
        InputError, match=r"2 of 3 images are not in the store \(x, y\); see its rejected.csv"
    ):
        rows_of(store, ["x", "i1", "y"])


def test_identity_is_the_record(tmp_path):
    make(tmp_path)
    first = Store.open(tmp_path).id
    assert Store.open(tmp_path).id == first
    record = json.loads((tmp_path / "store.json").read_text())
    record["shards"][0]["sha256"] = "other"
    (tmp_path / "store.json").write_text(json.dumps(record))
    assert Store.open(tmp_path).id != first


def test_to_float():
    eight = to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    sixteen = to_float(torch.tensor([0, 13107, 65535], dtype=torch.int32).to(torch.uint16))
    for images in (eight, sixteen):
        assert images.dtype == torch.float32
        assert torch.allclose(images, torch.tensor([0.0, 0.2, 1.0]))
    assert to_float(eight) is eight


def test_no_store(tmp_path):
    with pytest.raises(InputError, match=r"no store .*write one with `trabecula prepare`"):
        Store.open(tmp_path)
    make(tmp_path)
    (tmp_path / "images-00002.npy").unlink()
    with pytest.raises(InputError, match=r"images-00002\.npy: is missing; prepare the store again"):
        Store.open(tmp_path)
    record = json.loads((tmp_path / "store.json").read_text())
    (tmp_path / "store.json").write_text(json.dumps({**record, "format": 9}))
    with pytest.raises(InputError, match="store format 9, this version reads 1"):
        Store.open(tmp_path)


def test_the_data_verbs_load_no_torch():
    code = "import sys, trabecula.cohort, trabecula.split, trabecula.prepare, trabecula.artifacts.store;"
    subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], check=True)
