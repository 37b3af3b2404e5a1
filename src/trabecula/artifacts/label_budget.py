"""How many labels a model may use, as the one number that every table calls `fraction`.

    0 < fraction <= 1    that part of the labelled patients, in the proportions of their classes
    fraction = -k        k labelled patients of each class ("k shots"), for a whole number k

One number, so that files, comparisons and curves have one key for both; no two budgets are equal.
"""

from __future__ import annotations

_MOST = 10**9  # patients per class: any more is a mistake


def of_shots(shots: int) -> float:
    """The budget of so many labelled patients per class."""
    return -float(shots)


def shots_of(fraction: float) -> int | None:
    """Labelled patients per class; None of a part of the labels."""
    return round(-fraction) if is_shots(fraction) else None


def is_shots(fraction: float) -> bool:
    """Whether the budget is so many patients per class."""
    return fraction < 0


def is_budget(fraction: float) -> bool:
    """Whether it is one at all."""
    return 0 < fraction <= 1 or (-_MOST <= fraction < 0 and float(fraction).is_integer())


def fewest_first(fraction: float) -> tuple[bool, float]:
    """A key to sort budgets by: shots, then parts of the labels, each from few to many."""
    return fraction > 0, abs(fraction)


def labels_used(fraction: float) -> str:
    """ "10 % of labels", "5 patients per class"."""
    shots = shots_of(fraction)
    if shots is None:
        return f"{fraction * 100:.4g}\N{NO-BREAK SPACE}% of labels"
    return f"{shots:,} patient{'s' * (shots != 1)} per class"
