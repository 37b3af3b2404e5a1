"""Copies are found, honest fakes are not; oracles of C_T, authenticity and the birthday estimate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from trabecula.errors import InputError
from trabecula.metrics import memorisation as m
from trabecula.metrics.memorisation import critic_gap

Floats = NDArray[Any]


def draw(seed: int, n: int, d: int = 6) -> Floats:
    rows: Floats = np.random.default_rng(seed).normal(size=(n, d))
    return rows


def copies(train: Floats, num: int, noise: float, seed: int = 9) -> Floats:
    rng = np.random.default_rng(seed)
    rows: Floats = train[rng.integers(len(train), size=num)] + noise * rng.normal(size=(num, train.shape[1]))
    return rows


def test_fakes_of_the_same_distribution_look_like_held_out_images() -> None:
    found = m.memorisation(draw(0, 400), draw(1, 300), draw(2, 300))
    assert found.nearer.low < 0.5 < found.nearer.high
    assert found.copying.low < 0 < found.copying.high
    assert 0 <= found.share_near.low < 0.05 < found.share_near.high
    assert found.authenticity.value == pytest.approx(found.held_out_authenticity, abs=0.12)


def test_copies_are_found_by_every_measure() -> None:
    train = draw(0, 400)
    found = m.memorisation(train, draw(1, 300), copies(train, 300, 0.05))
    assert found.share_near.low > 0.9
    assert found.nearer.low > 0.9
    assert found.copying.high < -5
    assert found.authenticity.high < 0.05 < found.held_out_authenticity


def test_one_copy_in_ten_shows_in_the_share_of_near_ones() -> None:
    train = draw(0, 400)
    fakes = np.concatenate([1.3 * draw(2, 270), copies(train, 30, 0.01)])
    found = m.memorisation(train, draw(1, 300), fakes)
    assert found.share_near.low > 0.05
    assert found.copying.value > 0  # most fakes stay away: the mean rank alone would miss it


def test_fakes_that_stay_away_are_no_copies() -> None:
    found = m.memorisation(draw(0, 400), draw(1, 300), 2 * draw(2, 300))
    assert found.copying.low > 3
    assert found.share_near.high < 0.05


def test_exact_copies_are_at_distance_nought_and_named() -> None:
    train = draw(0, 50) + 1000
    found = m.memorisation(train, draw(1, 40) + 1000, train[[3, 17, 3, 20, 9, 9]])
    assert found.fake_distances.tolist() == [0] * 6
    assert found.fake_nearest.tolist() == [3, 17, 3, 20, 9, 9]


def test_nearest_equals_the_definition() -> None:
    x, y = draw(3, 300), draw(4, 70)
    every = np.linalg.norm(y[:, None] - x[None], axis=2)
    distances, which = m.nearest(y, x)
    assert distances == pytest.approx(every.min(axis=1), rel=1e-12)
    assert (which == every.argmin(axis=1)).all()
    own = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(own, np.inf)
    assert m.nearest(x, x, other=True)[0] == pytest.approx(own.min(axis=1), rel=1e-12)


def test_c_t_of_one_cell_is_the_z_score_of_the_rank_test() -> None:
    train, held_out, fakes = draw(0, 200), draw(1, 80), 1.1 * draw(2, 90)
    found = m.memorisation(train, held_out, fakes)
    assert found.num_cells == 1
    test = stats.mannwhitneyu(found.fake_distances, found.held_out_distances)
    z = (test.statistic - 80 * 90 / 2) / np.sqrt(80 * 90 * (80 + 90 + 1) / 12)
    assert found.copying.value == pytest.approx(z, rel=1e-10)
    assert found.nearer.value == pytest.approx(1 - test.statistic / (80 * 90), rel=1e-10)


def test_cells_find_copying_that_distances_alone_hide() -> None:
    """Half of the fakes copy a sparse cluster, where neighbours are far; the rest avoid a dense one."""
    rng = np.random.default_rng(5)

    def two(seed: int, n: int) -> Floats:
        r = np.random.default_rng(seed)
        dense = 0.1 * r.normal(size=(n // 2, 4))
        sparse = 5 * r.normal(size=(n // 2, 4)) + 100
        return np.concatenate([dense, sparse])

    train, held_out = two(0, 600), two(1, 400)
    away = 0.3 * rng.normal(size=(200, 4))
    fakes = np.concatenate([away, copies(train[300:], 200, 0.2)])
    found = m.memorisation(train, held_out, fakes)
    assert found.num_cells > 1
    dense, sparse = found.fake_distances[:200], found.fake_distances[200:]
    assert np.median(dense) > np.median(found.held_out_distances[:200])
    assert np.median(sparse) < np.median(found.held_out_distances[200:])
    ranks = m._RankTest(
        found.held_out_distances, found.fake_distances, np.arange(400) // 200, np.arange(400) // 200
    )
    _, in_cells = ranks.under(np.ones((1, 400)), np.ones((1, 400)))
    expected = [
        stats.mannwhitneyu(found.fake_distances[c], found.held_out_distances[c]).statistic - 200 * 200 / 2
        for c in (slice(200), slice(200, 400))
    ]
    assert in_cells[0] == pytest.approx(np.mean(expected) / np.sqrt(200 * 200 * 401 / 12), rel=1e-10)


def test_authenticity_equals_its_definition() -> None:
    train, fakes = draw(0, 60, 2), draw(2, 40, 2)
    found = m.memorisation(train, draw(1, 30, 2), fakes)
    authentic = 0
    for fake in fakes:
        i = int(np.linalg.norm(train - fake, axis=1).argmin())
        others = np.delete(train, i, axis=0)
        nearest_other = np.linalg.norm(others - train[i], axis=1).min()
        authentic += bool(np.linalg.norm(fake - train[i]) > nearest_other)
    assert found.authenticity.value == pytest.approx(authentic / 40)


def test_the_interval_counts_patients_not_images() -> None:
    """Six images a patient, nearly alike: an interval over images would be far too narrow."""
    rng = np.random.default_rng(7)
    held_out = np.repeat(rng.normal(size=(30, 6)), 6, axis=0) + 0.01 * rng.normal(size=(180, 6))
    by_patient = m.memorisation(draw(0, 300), held_out, draw(2, 300), np.repeat(np.arange(30), 6))
    by_image = m.memorisation(draw(0, 300), held_out, draw(2, 300))
    width = [e.nearer.high - e.nearer.low for e in (by_patient, by_image)]
    assert width[0] > 1.4 * width[1]
    assert by_patient.nearer.value == by_image.nearer.value


def test_few_patients_give_no_interval() -> None:
    found = m.memorisation(draw(0, 50), draw(1, 20), draw(2, 20), np.arange(20) // 6)
    assert np.isnan(found.nearer.low)
    assert np.isfinite(found.nearer.value)


@pytest.mark.parametrize(
    ("held_out", "fakes", "says"),
    [
        (draw(1, 20, 5), draw(2, 20), "two extractors"),
        (draw(1, 1), draw(2, 20), "needs at least 2"),
        (draw(1, 20), np.full((20, 6), np.nan), "no numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused(held_out: Floats, fakes: Floats, says: str) -> None:
    with pytest.raises(InputError, match=says):
        m.memorisation(draw(0, 50), held_out, fakes)


# --- the critic's gap


def test_the_gap_is_a_difference_of_means_over_the_range() -> None:
    gap = critic_gap([3.0, 5.0] * 5, [1.0, 3.0] * 5, [-6.0], np.arange(10), np.arange(10))
    assert (gap.train, gap.held_out, gap.fake, gap.gap) == (4, 2, -6, 2)
    assert gap.relative == pytest.approx(0.2)
    assert gap.low < 2 < gap.high
    same = critic_gap([1.0, 1.0], [1.0, 1.0], [1.0], [0, 1], [0, 1])
    assert np.isnan(same.relative)
    assert np.isnan(same.low)


def test_the_gaps_interval_covers_with_several_images_a_patient() -> None:
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(30), 4)
    covered = {"patients": 0, "images": 0}
    for _ in range(400):
        a, b = (rng.normal(size=30)[patients] + 0.5 * rng.normal(size=120) for _ in range(2))
        for name, of in (("patients", patients), ("images", np.arange(120))):
            gap = critic_gap(a, b, [0.0], of, of)
            covered[name] += gap.low <= 0 <= gap.high
    assert 370 <= covered["patients"] <= 393
    assert covered["images"] < 330
