"""Frechet and kernel distances between sets of features, their oracles, and where other libraries differ."""

from __future__ import annotations

import itertools
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from feature_sets import Floats, features
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from trabecula.errors import InputError
from trabecula.metrics import frechet
from trabecula.metrics.fidelity import fidelity, frechet_distance, kernel_distance, manifold_scores


def of_moments(mean: Floats, covariance: Floats, n: int) -> Floats:
    """n rows with exactly this mean and covariance (N - 1)."""
    d = len(mean)
    raw = np.random.default_rng(0).normal(size=(n, d))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / (n - 1))).T
    rows: Floats = white @ np.linalg.cholesky(covariance).T + mean
    return rows


def peer_frechet(x: Floats, y: Floats) -> float:
    stats = [fid_features_to_statistics(torch.from_numpy(z)) for z in (x, y)]
    return float(fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"])


def peer_kernel(x: Floats, y: Floats, num: int, size: int) -> tuple[float, float]:
    result = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=num, kid_subset_size=size, verbose=False
    )
    return result["kernel_inception_distance_mean"], result["kernel_inception_distance_std"]


# --- Frechet distance


@pytest.mark.parametrize("n", [20, 200])  # fewer rows than features, and more
def test_shift_and_scale_have_closed_forms(n: int) -> None:
    x = features(1, n, 50)
    v = np.random.default_rng(3).normal(size=50)
    assert frechet_distance(x, x + v) == pytest.approx(v @ v, rel=1e-12)
    mean, trace = x.mean(axis=0), np.square(x - x.mean(axis=0)).sum() / (n - 1)
    for s in (0.4, 2.0):
        assert frechet_distance(x, s * x) == pytest.approx((1 - s) ** 2 * (mean @ mean + trace), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(30, 100), (101, 100), (102, 100), (500, 100)])
def test_a_set_is_at_distance_nought_from_itself(n: int, d: int) -> None:
    x = features(2, n, d)
    assert abs(frechet_distance(x, x)) < 1e-10
    assert abs(frechet_distance(x, x[::-1])) < 1e-10


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 90), (200, 90)])
def test_a_shared_rotation_changes_nothing(n: int, m: int) -> None:
    x, y = features(4, n, 40), 1.3 * features(5, m, 40)
    rotation = np.linalg.qr(np.random.default_rng(6).normal(size=(40, 40)))[0]
    assert frechet_distance(x @ rotation, y @ rotation) == pytest.approx(frechet_distance(x, y), rel=1e-10)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-10)


def test_diagonal_covariances() -> None:
    a, b = np.array([1.0, 4.0, 9.0]), np.array([16.0, 1.0, 0.25])
    mean = np.array([1.0, -2.0, 0.5])
    x, y = of_moments(np.zeros(3), np.diag(a), 40), of_moments(mean, np.diag(b), 50)
    expected = mean @ mean + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_two_covariances_that_do_not_commute() -> None:
    x = of_moments(np.zeros(2), np.diag([4.0, 1.0]), 30)
    y = of_moments(np.zeros(2), np.array([[2.0, 1.0], [1.0, 2.0]]), 30)
    assert frechet_distance(x, y) == pytest.approx(9 - 2 * np.sqrt(10 + 2 * np.sqrt(12)), rel=1e-12)
    assert frechet_distance(x, y) == pytest.approx(0.7712204, abs=1e-7)


def careful_frechet(x: Floats, y: Floats) -> float:
    """60 digits throughout: the eigenvalues of S1^(1/2) S2 S1^(1/2)."""
    with mpmath.workdps(60):
        stats = []
        for z in (x, y):
            rows = mpmath.matrix(z.tolist())
            n, d = rows.rows, rows.cols
            mean = [mpmath.fsum(rows[i, j] for i in range(n)) / n for j in range(d)]
            centred = mpmath.matrix(n, d)
            for i, j in itertools.product(range(n), range(d)):
                centred[i, j] = rows[i, j] - mean[j]
            stats.append((mean, centred.T * centred / (n - 1)))
        (m1, s1), (m2, s2) = stats
        values, vectors = mpmath.eigsy(s1)
        roots = mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values])
        root = vectors * roots * vectors.T
        inner = mpmath.eigsy(root * s2 * root, eigvals_only=True)
        gap = mpmath.fsum((p - q) ** 2 for p, q in zip(m1, m2, strict=True))
        trace = mpmath.fsum(s1[i, i] + s2[i, i] for i in range(len(m1)))
        return float(gap + trace - 2 * mpmath.fsum(mpmath.sqrt(max(v, 0)) for v in inner))


@pytest.mark.parametrize(("n", "m"), [(5, 5), (5, 30), (30, 5), (30, 30), (13, 13)])
@pytest.mark.parametrize("power", [0.0, 1.0, 4.0])
def test_equals_sixty_digits(n: int, m: int, power: float) -> None:
    x, y = features(7, n, 12, power), 1.2 * features(8, m, 12, power) + 0.05
    assert frechet_distance(x, y) == pytest.approx(careful_frechet(x, y), rel=1e-10)


@pytest.mark.parametrize(("n", "d"), [(230, 240), (300, 240)])
@pytest.mark.parametrize("power", [0.5, 1.5, 3.0])
def test_the_quick_routes_equal_singular_values(
    n: int, d: int, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large products squares are tried; where they would lose digits they are not used."""
    monkeypatch.setattr(frechet, "ALWAYS_SVD", 100)
    x, y = features(9, n, d, power), 1.1 * features(10, n, d, power)
    a, b = (frechet._scaled(z, z.mean(axis=0)) for z in (x, y))
    factors = [np.linalg.qr(z, mode="r") if n > d else frechet.spread(z) for z in (a, b)]
    gap = x.mean(axis=0) - y.mean(axis=0)
    careful = (
        gap @ gap + np.square(a).sum() + np.square(b).sum()
        - 2 * np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    )  # fmt: skip
    assert frechet_distance(x, y) == pytest.approx(careful, rel=1e-10)
    assert abs(frechet_distance(x, x)) < 1e-10


def test_squares_are_refused_where_they_lose_digits() -> None:
    values = np.logspace(0, -3, 50)
    assert frechet._exact_enough(values, 2.5 * values.sum())
    assert not frechet._exact_enough(np.logspace(0, -9, 50), 2.5 * np.logspace(0, -9, 50).sum())
    assert not frechet._exact_enough(np.append(values, 0.0), 2.5 * values.sum())


@pytest.mark.parametrize(("n", "d"), [(200, 40), (41, 40), (60, 90)])
def test_features_that_never_change_add_nothing(n: int, d: int) -> None:
    """Dead units make the covariance singular; a copied feature does too."""
    x, y = features(11, n, d), 1.1 * features(12, n, d)
    dead = [np.concatenate([z, np.full((n, 7), 0.25)], axis=1) for z in (x, y)]
    assert frechet_distance(*dead) == pytest.approx(frechet_distance(x, y), rel=1e-10)
    copied = [np.concatenate([z, z], axis=1) for z in (x, y)]
    assert frechet_distance(*copied) == pytest.approx(2 * frechet_distance(x, y), rel=1e-10)


@pytest.mark.parametrize(("n", "d"), [(300, 40), (500, 128)])
def test_equals_torch_fidelity_with_more_images_than_features(n: int, d: int) -> None:
    x, y = features(13, n, d), 1.2 * features(14, n, d)
    assert frechet_distance(x, y) == pytest.approx(peer_frechet(x, y), rel=1e-9)


def test_torch_fidelity_is_off_where_images_are_few() -> None:
    """It takes roots of the rounding noise on directions without images: off by 1e-7 to 1e-4, always low."""
    x, y = features(15, 60, 256), 1.2 * features(16, 60, 256)
    careful = frechet_distance(x, y)
    error = peer_frechet(x, y) - careful
    assert -1e-4 < error / careful < -1e-9
    itself = peer_frechet(x, x)
    assert itself < -1e-8  # a squared distance below nought
    assert abs(frechet_distance(x, x)) < 1e-12


# --- kernel distance


def test_kernel_distance_of_four_numbers() -> None:
    value = kernel_distance(np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])).value
    assert value == pytest.approx(-13, abs=1e-12)


def test_kernel_distance_of_shifted_normals() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 1)) + 1
    found = kernel_distance(x, y)
    assert found.low < 22 < found.high  # 3 a^2 + 3 a^4 + (a^3 + 3 a)^2 at a = 1
    moments = [np.array([np.mean(z**p) for p in (1, 2, 3)]) for z in (x, y)]
    biased = float((np.array([3, 3, 1]) * np.square(moments[0] - moments[1])).sum())
    assert found.value == pytest.approx(biased, rel=0.01)


def test_kernel_distance_is_a_difference_of_moments() -> None:
    """With the diagonals put back it is 3/d |dM1|^2 + 3/d^2 |dM2|^2 + 1/d^3 |dM3|^2 of the moments."""
    x, y = features(20, 30, 4), features(21, 40, 4) + 0.5
    k = lambda a, b: (a @ b.T / 4 + 1) ** 3  # noqa: E731
    biased = k(x, x).mean() + k(y, y).mean() - 2 * k(x, y).mean()
    m1 = x.mean(axis=0) - y.mean(axis=0)
    m2 = x.T @ x / 30 - y.T @ y / 40
    m3 = np.einsum("na,nb,nc->abc", x, x, x) / 30 - np.einsum("na,nb,nc->abc", y, y, y) / 40
    closed = 3 / 4 * (m1**2).sum() + 3 / 16 * (m2**2).sum() + 1 / 64 * (m3**2).sum()
    assert biased == pytest.approx(closed, rel=1e-10)
    n, m, trace = 30, 40, [np.trace(k(z, z)) for z in (x, y)]
    sums = [k(x, x).sum(), k(y, y).sum()]
    expected = (
        (sums[0] - trace[0]) / (n * (n - 1)) + (sums[1] - trace[1]) / (m * (m - 1)) - 2 * k(x, y).mean()
    )
    assert kernel_distance(x, y).value == pytest.approx(expected, rel=1e-11)


def test_same_distribution_gives_nought_on_average_and_is_negative_at_times() -> None:
    values = [kernel_distance(features(2 * s, 60, 16), features(2 * s + 1, 60, 16)).value for s in range(60)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    assert min(values) < 0 < max(values)


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_full_kernel_distance_equals_torch_fidelity_with_one_subset_of_all(offset: float) -> None:
    x, y = features(22, 150, 64) + offset, 1.1 * features(23, 150, 64) + offset
    assert kernel_distance(x, y).value == pytest.approx(peer_kernel(x, y, 1, 150)[0], rel=1e-8)


def test_subsets_equal_those_of_torch_fidelity() -> None:
    x, y = features(24, 1100, 32), 1.1 * features(25, 1050, 32)
    found = kernel_distance(x, y, subsets=True)
    mean, sd = peer_kernel(x, y, 100, 1000)
    assert found.subsets_mean == pytest.approx(mean, rel=1e-9)
    assert found.subsets_sd == pytest.approx(sd, rel=1e-9)
    assert found.value == pytest.approx(mean, abs=3 * sd)


def test_torch_fidelity_refuses_small_sets_where_ours_takes_what_there_is() -> None:
    x, y = features(26, 80, 16), features(27, 90, 16)
    with pytest.raises(ValueError, match="subset size"):
        peer_kernel(x, y, 100, 1000)
    assert np.isfinite(kernel_distance(x, y, subsets=True).subsets_mean)


def test_jackknife_equals_leaving_patients_out_one_by_one() -> None:
    x, y = features(28, 40, 8), features(29, 30, 8) + 0.2
    patients = np.arange(40) // 3
    found = kernel_distance(x, y, patients)
    without_patient = np.array([kernel_distance(x[patients != p], y).value for p in np.unique(patients)])
    without_fake = np.array([kernel_distance(x, np.delete(y, j, axis=0)).value for j in range(30)])
    variance = sum(
        (len(v) - 1) / len(v) * np.square(v - v.mean()).sum() for v in (without_patient, without_fake)
    )
    assert found.error == pytest.approx(np.sqrt(variance), rel=1e-8)
    assert found.error > kernel_distance(x, y).error * 0.5


def test_the_interval_covers_what_it_should_with_several_images_a_patient() -> None:
    """Cluster effects as large as image effects: treating images as patients would cover far too seldom."""
    truth = kernel_distance(*_clustered(999, 3000)).value
    covered = {"patients": 0, "images": 0}
    for seed in range(60):
        x, y = _clustered(seed, 40)
        for name, given_patients in (("patients", np.repeat(np.arange(40), 6)), ("images", None)):
            found = kernel_distance(x, y, given_patients)
            covered[name] += found.low <= truth <= found.high
    assert covered["patients"] >= 52
    assert covered["images"] < covered["patients"] - 5


def _clustered(seed: int, num: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    each = 6 if num < 1000 else 1
    x = np.repeat(rng.normal(size=(num, 3)), each, axis=0) + 0.3 * rng.normal(size=(num * each, 3))
    return x, 0.6 * rng.normal(size=(300 if num < 1000 else num, 3)) + 1


def test_too_few_patients_give_no_interval_and_say_so() -> None:
    found = kernel_distance(features(30, 12, 4), features(31, 12, 4), np.arange(12) // 4)
    assert np.isnan(found.low)
    assert "fewer than 5" in found.note
    assert np.isfinite(found.value)


# --- together


@pytest.mark.parametrize("dtype", [None, np.float32])
@pytest.mark.parametrize(("n", "d"), [(150, 200), (300, 40)])
def test_all_at_once_equals_one_by_one(n: int, d: int, dtype: Any) -> None:
    x, y = features(42, n, d), 1.1 * features(43, n, d)
    patients = np.arange(n) // 2
    found = fidelity(x, y, patients, subsets=True, dtype=dtype)
    assert found.frechet == pytest.approx(frechet_distance(x, y), rel=1e-10)
    alone = kernel_distance(x, y, patients, subsets=True)
    rel = 1e-10 if dtype is None else 1e-4
    for name in ("value", "low", "high", "error", "subsets_mean", "subsets_sd"):
        assert getattr(found.kernel, name) == pytest.approx(getattr(alone, name), rel=rel)
    assert found.manifold == manifold_scores(x, y)
    assert (found.num_reals, found.num_fakes, found.num_patients) == (n, n, n // 2)


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_single_precision_products_hardly_move_the_kernel_distance(offset: float) -> None:
    x, y = features(44, 1000, 256) + offset, features(45, 1000, 256) + offset
    single, double = (kernel_distance(x, y, dtype=dtype).value for dtype in (np.float32, np.float64))
    assert single == pytest.approx(double, abs=1e-9 * (offset**2 + 1) ** 2)


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from trabecula.metrics import gram

    x, y = features(46, 100, 20), features(47, 90, 20)
    whole = fidelity(x, y)
    monkeypatch.setattr(gram, "MEMORY", 0)
    monkeypatch.setattr(gram, "BLOCK_ROWS", 7)
    parts = fidelity(x, y)
    assert parts.manifold == whole.manifold
    assert parts.kernel.value == pytest.approx(whole.kernel.value, rel=1e-10)
    assert parts.kernel.error == pytest.approx(whole.kernel.error, rel=1e-10)
    assert parts.frechet == pytest.approx(whole.frechet, rel=1e-11)


# --- what cannot be measured


@pytest.mark.parametrize(
    ("reals", "fakes", "says"),
    [
        (np.eye(5), np.ones((9, 5)), "5 real images: k = 5 neighbours needs at least 6"),
        (np.random.default_rng(0).normal(size=(9, 3)), np.ones((2, 3)), "2 fake images"),
        (np.ones((9, 3)), np.ones((9, 3)), "the same features"),
        (np.random.default_rng(0).normal(size=(9, 3)), np.ones((9, 4)), "two extractors"),
        (np.random.default_rng(0).normal(size=(9,)), np.ones((9, 4)), "shape"),
        (np.random.default_rng(0).normal(size=(9, 3)), np.full((9, 3), np.nan), "no numbers, first in row 0"),
        (np.array([[1.0, np.inf]] * 9), np.ones((9, 2)), "9 of 9 real images are no numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_in_one_line(reals: Floats, fakes: Floats, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        fidelity(reals, fakes)
    assert "\n" not in str(caught.value)


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(InputError, match="1 real images: a covariance needs at least 2"):
        frechet_distance(np.ones((1, 3)), np.ones((4, 3)))


def test_patients_of_another_number_of_images_are_refused() -> None:
    with pytest.raises(InputError, match="patients have shape"):
        fidelity(features(48, 20, 3), features(49, 20, 3), np.arange(19))
