"""Numbers as a reader sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_DOWN, Decimal

from trabecula.artifacts.label_budget import shots_of


def present(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 3) -> str:
    """A value with a true minus sign; "–" if there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.0f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    text = number(value, digits)
    return text if text[0] in "−–" else f"+{text}"


def count(value: int | float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def share(fraction: float) -> str:
    """0.1 -> "10 %"; of k patients per class (`label_budget`) "5 per class"."""
    if (shots := shots_of(fraction)) is not None:
        return f"{shots:,}\N{NO-BREAK SPACE}per class"
    return f"{fraction * 100:.4g}\N{NO-BREAK SPACE}%"


def probability(p: float | None) -> str:
    if p is None or math.isnan(p):
        return "–"
    if p >= 0.1:
        return f"{p:.2f}"
    if p < 0.001:
        return "<\N{NO-BREAK SPACE}0.001"
    # Cut off, not rounded: 0.00996 is below 0.01 and has to look so.
    return str(Decimal(repr(p)).quantize(Decimal("0.0001"), ROUND_DOWN))


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    if low is None or high is None:
        return "no interval"
    return f"{number(low, digits)} to {number(high, digits)}"


def span(values: Sequence[int | None]) -> str:
    """The range of a count over seeds: "231", or "229 to 231"."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    low, high = min(known), max(known)
    return count(low) if low == high else f"{count(low)} to {count(high)}"


def times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}×" if value < 10 else f"{value:.3g}×"
