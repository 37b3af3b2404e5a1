"""What several tests need: one torch thread, a site key of their own, and small stores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TRABECULA_SITE_KEY"] = "a key for tests only"

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trabecula.artifacts.store import Store
from trabecula.run import execute


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write random images as a hospital's folder, and prepare them; gives the hospital's root."""

    def make(num_patients: int = 12, size: int = 32, seed: int = 0, name: str = "hospital") -> Path:
        from trabecula import cohort, prepare

        root = tmp_path_factory.mktemp(name)
        generator = np.random.default_rng(seed)
        (root / "images").mkdir()
        for patient in range(num_patients):
            for side in "LR":
                # Blobs, as white noise would leave a convolution nothing to learn from; a little noise on
                # top, as ties between pixels leave max-pooling's gradient undefined.
                small = generator.integers(20, 236, (4, 4), dtype=np.uint8)
                blobs = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
                noisy = np.asarray(blobs, dtype=float) + generator.normal(0, 6, (size, size))
                picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
                picture.save(root / "images" / f"{100 + patient}{side}_{patient % 3}.png")
        config = cohort.Config(root=root / "images", pattern="{patient_id:3}{side:1}_{kl}.png")
        execute("cohort", config, root / "cohort")
        execute("prepare", prepare.Config(manifest=root / "cohort", size=size), root / "store")
        return root

    return make


@pytest.fixture(scope="session")
def hospital(make_store: Callable[..., Path]) -> Path:
    """12 patients, two knees each, 32 px: folders images, cohort, store."""
    return make_store()


@pytest.fixture
def store(hospital: Path) -> Store:
    return Store.open(hospital / "store")
