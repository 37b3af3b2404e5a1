"""Arrays on disk: the bytes of numpy's own writer, and a disk's end told as such."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trabecula.files import open_new_array, save_array

KINDS = st.sampled_from([np.uint8, np.uint16, np.float32])


@given(hnp.arrays(KINDS, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)), st.booleans())
def test_the_bytes_are_those_of_numpy(array: np.ndarray, turned: bool) -> None:
    array = array.T.copy(order="C") if turned else array
    ours, numpys = io.BytesIO(), io.BytesIO()
    save_array(ours, array)
    np.save(numpys, array)
    assert ours.getvalue() == numpys.getvalue()


def test_a_part_of_an_array_is_written_whole() -> None:
    file = io.BytesIO()
    save_array(file, np.arange(12).reshape(3, 4)[:, ::2])
    file.seek(0)
    np.testing.assert_array_equal(np.load(file), [[0, 2], [4, 6], [8, 10]])


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="this system has no /dev/full")
def test_a_full_disk_keeps_its_reason() -> None:
    with Path("/dev/full").open("r+b", buffering=0) as file, pytest.raises(OSError, match="space") as error:
        save_array(file, np.zeros(100_000))  # type: ignore[arg-type]
    assert error.value.errno == errno.ENOSPC


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no space")
def test_a_memory_map_has_its_place_before_it_is_written(tmp_path: Path) -> None:
    array = open_new_array(tmp_path / "x.npy", (1000, 10), np.float32)
    assert (tmp_path / "x.npy").stat().st_blocks * 512 >= array.nbytes
    array[:] = 3
    array.flush()
    assert float(np.load(tmp_path / "x.npy").sum()) == 30_000
