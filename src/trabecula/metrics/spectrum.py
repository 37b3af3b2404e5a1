"""The spectrum of a pool without labels: which grades it holds, by the calls of a proxy classifier.

A proxy's shares are no prevalences: it takes grades for one another, and most often for those of which it
learned most. Where the pool's images of each grade look to it as the labelled ones of that grade do, the
calls are a mixture of the labelled images' calls, and the shares of this mixture are the pool's: the
maximum-likelihood form of the corrected counts of Buck and Gart, Am J Epidemiol 1966; 83: 586-592, for more
than two grades, found by expectation maximisation, which keeps them between 0 and 1 and 1 in all.

Intervals of corrected shares are those of the unconstrained solution, confusion^-1 calls, which is the same
inside these bounds and spreads evenly where the truth lies at one of them; then they are cut to 0 and 1. On
simulated proxies intervals of the constrained one held the truth in 74 % where they should in 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from trabecula.metrics.bootstrap import MIN_PATIENTS, Array, Floats, Ints, interval, resample

Row = dict[str, Any]

NUM_STEPS, TOLERANCE = 5_000, 1e-9
WIDE = 0.5  # of an interval: a wider one says nothing of its grade
MISFIT = 0.05  # of the calls; beyond, the pool's images look different to the proxy from the labelled ones


@dataclass(frozen=True)
class Calls:
    """What a proxy says of some images. patients: (n,). p: (n, K). called: (n,) classes."""

    patients: Array
    p: Floats
    called: Ints

    @property
    def num_patients(self) -> int:
        return len(np.unique(self.patients))

    def by_patient(self, table: Floats) -> Floats:
        """(P, C) sums of the rows (n, C) of each patient: what a resample of patients needs of its images."""
        ids, place = np.unique(self.patients, return_inverse=True)
        sums = np.zeros((len(ids), table.shape[1]))
        np.add.at(sums, place, table)
        return sums


@dataclass(frozen=True)
class Known:
    """Calls on labelled images that the proxy did not learn from, and their grades y (n,)."""

    calls: Calls
    y: Ints

    def confusion(self) -> Floats:
        """(P, K * K) each patient's counts: of true grade i called j, at i * K + j."""
        num = self.calls.p.shape[1]
        return self.calls.by_patient(np.eye(num * num)[self.y * num + self.calls.called])


def _draws(table: Floats, num_resamples: int, seed: int) -> Floats:
    """(R, C) sums of a table (P, C) under resamples of its patients."""
    return np.asarray(resample(np.arange(len(table)), num_resamples, seed).astype(np.float64) @ table)


def unmix(confusion: Floats, called: Floats) -> Floats:
    """(R, K) shares of true grades whose mixture best explains shares of calls, (R, K).

    Non-negative, summing to 1: the maximum of sum_j called_j log(sum_i share_i confusion_ij). Rows of true
    grades of the confusion (R, K, K) sum to 1, as the calls do.
    """
    shares = np.full_like(called, 1 / called.shape[1])
    for _ in range(NUM_STEPS):
        mixed = np.einsum("rk,rkj->rj", shares, confusion)
        ratio = np.divide(called, mixed, out=np.zeros_like(called), where=mixed > 0)
        stepped = _normalised(shares * np.einsum("rkj,rj->rk", confusion, ratio))
        moved = float(np.abs(stepped - shares).max(initial=0))
        shares = stepped
        if moved < TOLERANCE:
            break
    return shares


def audit(
    pool: Calls, known: Known | None, classes: Sequence[str], num_resamples: int, seed: int, level: float
) -> Row:
    """Shares of the classes in a pool: hard calls, mean probabilities, and corrected where they can be.

    Intervals resample the pool's patients and, for what is corrected, those of the known images too.
    """
    hard, df = pool.by_patient(np.eye(pool.p.shape[1])[pool.called]), pool.num_patients - 1.0
    counts, draws = hard.sum(axis=0), _normalised(_draws(hard, num_resamples, seed))
    soft_draws = _normalised(_draws(pool.by_patient(pool.p), num_resamples, seed))
    called, mean = counts / counts.sum(), pool.p.mean(axis=0)
    row: Row = {
        "classes": list(classes), "num_images": len(pool.called), "num_patients": pool.num_patients,
        "called": [
            {"class": name, "count": int(count), **_share(share, drawn, df, level)}
            for name, count, share, drawn in zip(classes, counts, called, draws.T, strict=True)
        ],
        "mean": [
            {"class": name, **_share(share, drawn, df, level)}
            for name, share, drawn in zip(classes, mean, soft_draws.T, strict=True)
        ],
        "corrected": [], "misfit": None, "known": None,
        "correction": "no labelled images of this proxy are given, so nothing is corrected",
    }  # fmt: skip
    if known is not None:
        row["known"] = _summary(known, len(classes))
        row |= _corrected(called, draws, known, classes, seed, level)
    return row


def _share(value: float, draws: Floats, df: float, level: float) -> Row:
    found = interval(value, draws, df, level)
    bounds = {"low": found.low, "high": found.high}
    return {"share": found.value, **{key: v if np.isfinite(v) else None for key, v in bounds.items()}}


def _summary(known: Known, num_classes: int) -> Row:
    counts = known.confusion().sum(axis=0).reshape(num_classes, num_classes)
    return {
        "num_images": len(known.y), "num_patients": known.calls.num_patients,
        "shares": (np.bincount(known.y, minlength=num_classes) / len(known.y)).tolist(),
        "called": (counts.sum(axis=0) / counts.sum()).tolist(),
        "confusion": counts.astype(int).tolist(),
    }  # fmt: skip


def _corrected(
    called: Floats, called_draws: Floats, known: Known, classes: Sequence[str], seed: int, level: float
) -> Row:
    """Shares of calls (K,) and their draws (R, K), corrected by the known images."""
    num = len(classes)
    patients = [len(np.unique(known.calls.patients[known.y == k])) for k in range(num)]
    few = [f"{name} ({n})" for name, n in zip(classes, patients, strict=True) if n < MIN_PATIENTS]
    if few:
        text = f"nothing is corrected: fewer than {MIN_PATIENTS} labelled patients of {', '.join(few)}"
        return {"correction": text}
    cells = known.confusion()
    confusion = _normalised(cells.sum(axis=0).reshape(1, num, num))
    shares = unmix(confusion, called[None])
    misfit = float(np.abs(np.einsum("rk,rkj->rj", shares, confusion)[0] - called).sum() / 2)
    low, high = _bounds(called, confusion, called_draws, cells, min(patients), seed, level)
    text = (
        f"by the calls on {len(known.y):,} labelled images of {known.calls.num_patients:,} patients; it "
        "holds where the pool's images of each grade look to the proxy as these do"
    )
    if misfit > MISFIT:
        text += f"; they do not: no mixture of the grades explains {_percent(misfit)} of the calls"
    columns = shares[0], np.minimum(low, shares[0]), np.maximum(high, shares[0])
    rows: list[Row] = [
        {"class": name, "share": share, "low": lower, "high": upper}
        for name, share, lower, upper in zip(classes, *(column.tolist() for column in columns), strict=True)
    ]
    unsure = [row["class"] for row in rows if row["high"] - row["low"] > WIDE]
    if unsure:
        text += f"; the calls do not determine the share of {', '.join(unsure)}"
    return {"corrected": rows, "correction": text, "misfit": misfit}


def _bounds(
    called: Floats, confusion: Floats, called_draws: Floats, cells: Floats, patients: int, seed: int,
    level: float,
) -> tuple[Floats, Floats]:  # fmt: skip
    """(K,) both ends: Student's t about the unconstrained shares, with the spread of resamples of the pool's
    patients and of the labelled ones.

    The spread is half the central 68 % of the resamples: some have a nearly singular confusion matrix. Each
    has one more image a true grade, called at random: a matrix that is singular, as where a grade is never
    called, would else be so in each and pass for certain. cells (P, K * K) of `Known.confusion`; patients:
    labelled ones of the rarest grade.
    """
    num = len(called)
    drawn = _draws(cells, len(called_draws), seed + 1).reshape(-1, num, num)
    noise = np.random.default_rng([seed, 1]).gamma(1 / num, size=drawn.shape)
    whole = (drawn.sum(axis=2) > 0).all(axis=1)  # a draw without a grade says nothing of it
    draws = _solve(_normalised((drawn + noise)[whole]), called_draws[whole])
    below, above = np.quantile(draws, stats.norm.cdf([-1, 1]), axis=0)
    step = stats.t.ppf((1 + level) / 2, patients - 1) * (above - below) / 2
    middle = _solve(confusion, called[None])[0]
    return np.clip(middle - step, 0, 1), np.clip(middle + step, 0, 1)


def _solve(confusion: Floats, called: Floats) -> Floats:
    """(R, K) shares whose mixture is the calls, unconstrained."""
    return np.asarray(np.einsum("rij,ri->rj", np.linalg.pinv(confusion), called))


def _normalised(table: Floats) -> Floats:
    """Rows along the last axis made to sum to 1; rows of zeros stay."""
    total = table.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(table, total, out=np.zeros_like(table), where=total > 0))


def dominant(row: Row, dominance: float) -> tuple[Row | None, str]:
    """The class of which the pool nearly all consists, by calls or corrected, and a sentence that warns.

    row: of `audit`. dominance: the share from which on a class dominates.
    """
    sure = {one["class"]: one for one in row["corrected"] if one["high"] - one["low"] <= WIDE}
    corrected = {name: one["share"] for name, one in sure.items()}
    first = max(row["called"], key=lambda one: max(one["share"], corrected.get(one["class"], 0)))
    name, share = first["class"], first["share"]
    if max(share, corrected.get(name, 0)) < dominance:
        return None, ""
    text = f"{_percent(share)} of the images are called {name}"
    if name in sure:
        low, high = _percent(sure[name]["low"]), _percent(sure[name]["high"])
        text += f", corrected {_percent(corrected[name])} ({low} to {high})"
    text += ": of the other grades there is little to learn in this pool"
    if known := row["known"]:
        of_known, share_known = (known[key][row["classes"].index(name)] for key in ("called", "shares"))
        if of_known >= dominance > share_known:
            text += (
                f"; but the proxy calls {_percent(of_known)} of the labelled images so too, of which "
                f"{_percent(share_known)} are: it may say more of the proxy than of the pool"
            )
    return {"class": name, "called": share, "corrected": corrected.get(name)}, text


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
