"""Pictures of every layout become one grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trabecula.errors import InputError
from trabecula.sections.pictures import sample_images


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.zeros((3, 5, 5), np.uint8), (1, 5, 5)),
        (np.zeros((3, 5, 5, 3), np.float32), (3, 5, 5)),
        (np.full((3, 1, 5, 5), 65535, np.uint16), (1, 5, 5)),
    ],
)
def test_samples_of_any_layout(tmp_path: Path, array: np.ndarray, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "samples.npy", array)
    for path in (tmp_path, tmp_path / "samples.npy"):
        images = sample_images(path, 2)
        assert [image.shape for image in images] == [shape] * 2
        assert {image.dtype for image in images} == {np.dtype(np.uint8)}
        assert images[0].max() == (255 if array.dtype == np.uint16 else 0)


@pytest.mark.parametrize("array", [np.zeros((3, 2, 5, 5)), np.zeros(4)])
def test_samples_of_another_shape_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "samples.npy", array)
    with pytest.raises(InputError, match="shape"):
        sample_images(tmp_path, 2)
    with pytest.raises(InputError, match="no samples there"):
        sample_images(tmp_path / "nothing", 2)
