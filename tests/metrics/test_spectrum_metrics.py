"""The spectrum of a pool: shares of calls, corrected ones against a simulation, what is warned of."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from trabecula.metrics.spectrum import Calls, Floats, Known, audit, dominant, unmix

NAMES = ("0", "1", "2", "3", "4")
BALANCED = (0.30, 0.18, 0.26, 0.16, 0.10)
SKEWED = (0.02, 0.03, 0.05, 0.85, 0.05)


def errors(sharpness: float) -> Floats:
    """(5, 5) how a proxy calls each grade: the farther a grade, the rarer."""
    distance = np.abs(np.arange(5) - np.arange(5)[:, None])
    table = np.exp(-sharpness * distance)
    result: Floats = table / table.sum(axis=1, keepdims=True)
    return result


def draw(num: int, shares: tuple[float, ...], confusion: Floats, rng: np.random.Generator) -> Known:
    """Two images of each patient, whose grades are alike, called by a proxy with these errors."""
    hidden = 0.75 * rng.standard_normal((num, 1)) + (1 - 0.75**2) ** 0.5 * rng.standard_normal((num, 2))
    y = np.searchsorted(ndtri(np.cumsum(shares)[:-1]), hidden).ravel()
    called = (rng.random(len(y))[:, None] > np.cumsum(confusion[y], axis=1)[:, :-1]).sum(axis=1)
    p = 0.75 * np.eye(5)[called] + 0.05
    return Known(Calls(np.repeat(np.arange(num), 2).astype(str), p, called), y)


def test_unmix_undoes_a_known_mixture() -> None:
    shares, confusion = np.array([SKEWED, BALANCED]), np.stack([errors(1.5), errors(1.0)])
    called = np.einsum("rk,rkj->rj", shares, confusion)
    assert unmix(confusion, called) == pytest.approx(shares, abs=1e-4)


def test_unmix_stays_a_distribution_where_no_mixture_explains_the_calls() -> None:
    shares = unmix(errors(1.0)[None], np.array([[0, 0, 0, 1.0, 0]]))
    assert shares.sum() == pytest.approx(1)
    assert shares[0, 3] == pytest.approx(1, abs=1e-3)  # the inverse would say 1.6, and 0 - 0.5 beside it


def test_shares_are_counted_and_intervals_are_over_patients() -> None:
    one = draw(60, SKEWED, np.eye(5), np.random.default_rng(0))
    row = audit(one.calls, None, NAMES, 400, 0, 0.95)
    counts = np.bincount(one.y, minlength=5)
    assert [cell["count"] for cell in row["called"]] == counts.tolist()
    assert [cell["share"] for cell in row["called"]] == pytest.approx(counts / 120)
    assert [cell["share"] for cell in row["mean"]] == pytest.approx(0.75 * counts / 120 + 0.05)
    assert (row["num_images"], row["num_patients"], row["corrected"], row["known"]) == (120, 60, [], None)
    apart = Calls(np.arange(120).astype(str), one.calls.p, one.calls.called)
    width, narrower = (
        cell["high"] - cell["low"]
        for cell in (row["called"][3], audit(apart, None, NAMES, 400, 0, 0.95)["called"][3])
    )
    assert width > 1.1 * narrower  # two alike images are less than two


@pytest.mark.parametrize(("sharpness", "num_known"), [(1.5, 150), (1.0, 300)])
def test_correction_finds_planted_shares_that_the_calls_hide(sharpness: float, num_known: int) -> None:
    confusion, rng = errors(sharpness), np.random.default_rng(1)
    called, corrected, held = [], [], []
    for repeat in range(60):
        pool, known = draw(200, SKEWED, confusion, rng), draw(num_known, BALANCED, confusion, rng)
        row = audit(pool.calls, known, NAMES, 300, repeat, 0.95)
        called.append([cell["share"] for cell in row["called"]])
        corrected.append([cell["share"] for cell in row["corrected"]])
        held.append(
            [
                cell["low"] <= share <= cell["high"]
                for cell, share in zip(row["corrected"], SKEWED, strict=True)
            ]
        )
    assert np.mean(called, axis=0)[3] < 0.65  # of 0.85: a good proxy's shares are no prevalences
    assert np.mean(corrected, axis=0) == pytest.approx(SKEWED, abs=0.07)
    assert 0.90 <= np.mean(held) <= 1.0
    assert np.mean(held, axis=0).min() >= 0.85


def test_what_cannot_be_corrected_says_why() -> None:
    rng = np.random.default_rng(2)
    pool = draw(100, SKEWED, errors(1.5), rng).calls
    rare = draw(100, (0.3, 0.3, 0.3, 0.09, 0.01), errors(1.5), rng)
    row = audit(pool, rare, NAMES, 200, 0, 0.95)
    assert row["corrected"] == []
    assert "fewer than 5 labelled patients of 4" in row["correction"]
    assert np.array(row["known"]["confusion"]).sum(axis=1).tolist() == np.bincount(rare.y).tolist()


def test_what_the_calls_cannot_tell_has_a_wide_interval() -> None:
    """Of a grade that is never called, and of what it is called in its place; the others keep theirs."""
    confusion, rng = errors(1.5), np.random.default_rng(6)
    confusion[:, 0] += confusion[:, 1]
    confusion[:, 1] = 0
    pool, known = draw(300, BALANCED, confusion, rng), draw(300, BALANCED, confusion, rng)
    row = audit(pool.calls, known, NAMES, 300, 0, 0.95)
    widths = [cell["high"] - cell["low"] for cell in row["corrected"]]
    assert min(widths[:2]) > 0.9
    assert max(widths[3:]) < 0.5
    assert all(c["low"] <= share <= c["high"] for c, share in zip(row["corrected"], BALANCED, strict=True))
    assert "do not determine the share of 0, 1" in row["correction"]


def test_a_blind_proxy_tells_nothing() -> None:
    same, rng = np.tile([0.1, 0.1, 0.2, 0.5, 0.1], (5, 1)), np.random.default_rng(7)
    pool, known = draw(100, SKEWED, same, rng), draw(1000, BALANCED, same, rng)
    row = audit(pool.calls, known, NAMES, 200, 0, 0.95)
    assert "do not determine the share of 0, 1, 2, 3, 4" in row["correction"]
    assert dominant(row, 0.75) == (None, "")


def test_calls_that_no_mixture_explains_are_told() -> None:
    rng = np.random.default_rng(3)
    known = draw(400, BALANCED, errors(1.0), rng)
    sound = audit(draw(400, SKEWED, errors(1.0), rng).calls, known, NAMES, 200, 0, 0.95)
    assert sound["misfit"] < 0.05
    assert "they do not" not in sound["correction"]
    other = audit(draw(400, SKEWED, errors(3.0), rng).calls, known, NAMES, 200, 0, 0.95)
    assert other["misfit"] > 0.2
    assert "they do not: no mixture of the grades explains" in other["correction"]


def test_a_grade_that_dominates_is_warned_of() -> None:
    rng = np.random.default_rng(4)
    known, pool = draw(300, BALANCED, errors(1.5), rng), draw(300, SKEWED, errors(1.5), rng).calls
    row = audit(pool, known, NAMES, 200, 0, 0.95)
    found, told = dominant(row, 0.75)
    assert found is not None
    assert (found["class"], found["called"], found["corrected"]) == (
        "3", row["called"][3]["share"], row["corrected"][3]["share"],
    )  # fmt: skip
    assert found["called"] < 0.75 < found["corrected"]  # seen through the proxy's errors
    assert "of the images are called 3, corrected" in told
    assert "more of the proxy" not in told
    assert dominant(row, 0.99) == (None, "")
    even = audit(draw(300, BALANCED, errors(1.5), rng).calls, known, NAMES, 200, 0, 0.95)
    assert dominant(even, 0.75) == (None, "")


def test_a_proxy_that_calls_everything_one_grade_is_doubted() -> None:
    rng = np.random.default_rng(5)
    blind = np.tile([0.0, 0.0, 0.05, 0.9, 0.05], (5, 1))
    row = audit(draw(300, BALANCED, blind, rng).calls, draw(300, BALANCED, blind, rng), NAMES, 200, 0, 0.95)
    found, told = dominant(row, 0.75)
    assert found is not None
    assert "it may say more of the proxy than of the pool" in told
