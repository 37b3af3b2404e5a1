"""Units of a network against its label: NumPy's numbers, every cell in its place, whatever the memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trabecula.artifacts.store import Store, to_float
from trabecula.errors import InputError
from trabecula.interpretability import units
from trabecula.metrics.correlation import permuted_labels
from trabecula.nets.critic import Critic
from trabecula.nets.encoder import make_encoder

SHAPES = {"wide": (4, 3, 2), "flat": (6, 1, 1)}


def planted(seed: int = 0) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    """Noise of 40 images; the label shows in "wide" 2, row 1, column 0, and turned round in "flat" 3."""
    random = np.random.default_rng(seed)
    y = np.arange(40) % 2
    maps = {name: random.normal(size=(40, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    maps["wide"][:, 2, 1, 0] += 5 * y
    maps["flat"][:, 3, 0, 0] -= 9 * y
    maps["wide"][:, 0] = 1.0
    return maps, y


def reader(maps: dict[str, NDArray[np.float32]]) -> units.Activations:
    def read() -> Iterator[dict[str, NDArray[np.float32]]]:
        for start in range(0, 40, 16):
            yield {name: values[start : start + 16] for name, values in maps.items()}

    return read


def test_every_unit_has_numpys_correlation() -> None:
    maps, y = planted()
    permuted = permuted_labels(y, [str(i) for i in range(40)], 49, 0)
    found = units.correlate(reader(maps), SHAPES, y, permuted)
    assert set(found) == {("wide", "channel"), ("wide", "cell"), ("flat", "channel")}
    for (layer, kind), correlations in found.items():
        values = maps[layer].mean((2, 3)) if kind == "channel" else maps[layer].reshape(40, -1)
        for unit, r in enumerate(correlations.r):
            if np.ptp(values[:, unit]) == 0:
                assert np.isnan(r)
            else:
                assert r == pytest.approx(np.corrcoef(values[:, unit], y)[0, 1], abs=1e-5)


def test_the_planted_units_are_found_in_their_place() -> None:
    maps, y = planted()
    permuted = permuted_labels(y, [str(i) for i in range(40)], 99, 0)
    rows = {(r.layer, r.unit): r for r in units.summarise(
        units.correlate(reader(maps), SHAPES, y, permuted), SHAPES
    )}  # fmt: skip
    cell = rows["wide", "cell"]
    assert cell.at == {"channel": 2, "row": 1, "column": 0}
    assert (cell.num_units, cell.num_constant) == (24, 6)
    assert (cell.p, cell.num_significant) == (0.01, 1)
    flat = rows["flat", "channel"]
    assert flat.at == {"channel": 3}
    assert flat.largest is not None
    assert flat.largest < -0.9
    assert flat.num_above_paper == np.count_nonzero(
        np.abs([np.corrcoef(maps["flat"][:, k, 0, 0], y)[0, 1] for k in range(6)]) > 0.2
    )
    assert rows["wide", "channel"].null_95 == flat.null_95  # one family of maps' means


def test_little_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, y = planted()
    permuted = permuted_labels(y, [str(i) for i in range(40)], 9, 0)
    whole = units.correlate(reader(maps), SHAPES, y, permuted)
    monkeypatch.setattr(units, "_MOST_SUMS", 60)  # six units at a time
    assert len(units._passes(SHAPES, 10)) > 3
    parts = units.correlate(reader(maps), SHAPES, y, permuted)
    for key, correlations in whole.items():
        np.testing.assert_allclose(parts[key].r, correlations.r, rtol=1e-6)
        np.testing.assert_allclose(parts[key].null_max, correlations.null_max, rtol=1e-6)


def test_activations_are_the_networks_own(store: Store) -> None:
    encoder = make_encoder("critic", 1, 32).eval()
    critic = Critic(1, 32, blocks=encoder.backbone.net).eval()  # type: ignore[arg-type]
    shapes = units.choose_shapes(encoder, (), critic)
    assert shapes == {"act2": (128, 4, 4), "act3": (256, 2, 2), "act4": (512, 1, 1), "score": (1, 1, 1)}
    rows = np.array([5, 3, 11])
    (batch,) = units.activations_of(encoder, critic, store, rows, list(shapes))
    with torch.no_grad():
        images = to_float(store.read(rows))
        maps = encoder.maps(images)
        assert np.allclose(batch["act4"], maps.numpy(), atol=1e-6)
        assert np.allclose(batch["score"][:, 0, 0, 0], critic(encoder.normalise(images)), atol=1e-6)
    assert units.choose_shapes(encoder, ("act1",), critic) == {"act1": (64, 8, 8)}
    with pytest.raises(InputError, match="layer 'act11'"):
        units.choose_shapes(encoder, ("act11",), critic)
