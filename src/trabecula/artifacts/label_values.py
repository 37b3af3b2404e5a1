"""The values of a label column: which are one value in two spellings, and which lie far from all others."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,(\d+)")
_TRUTH = {"true": 1.0, "false": 0.0}
_MISSING_CODE = re.compile(r"-?(7+|8+|9+)")
_LEAST_GAP, _MOST_GRADE = 4, 20


def number(text: str) -> float | None:
    """A cell as a number, None where it is none ("", "nan", "A").

    A comma is a decimal one where it cannot be that of thousands ("2,0", not "2,000"). True and false are 1
    and 0.
    """
    if _NUMBER.fullmatch(text):
        return float(text)
    comma = _DECIMAL_COMMA.fullmatch(text)
    if comma and len(comma[1]) != 3:
        return float(text.replace(",", "."))
    return _TRUTH.get(text.strip().casefold())


def folded(text: str) -> str:
    """The form by which two texts are compared: case, blanks and width do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold()


def same(cell: str, value: str) -> bool:
    """Equal as numbers where both are numbers ("2.0" and "2"), else as text but for case and blanks."""
    a, b = number(cell), number(value)
    return a == b if a is not None and b is not None else folded(cell) == folded(value)


def plain(cell: str) -> str:
    """A whole number as its digits ("2.0", "2,0": "2"; "TRUE": "1"), any other cell as it is."""
    value = number(cell)
    return str(int(value)) if value is not None and value.is_integer() else cell


def first_spellings(cells: Iterable[str]) -> dict[str, str]:
    """Each cell -> the first of the cells that spell the same value, such as "yes" -> "Yes"."""
    first: dict[str, str] = {}
    return {cell: first.setdefault(folded(plain(cell)), cell) for cell in dict.fromkeys(cells)}


def counted(cells: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, in order; one value in several spellings has the commonest of them."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for cell in cells:
        if cell:
            spellings[folded(plain(cell))][plain(cell)] += 1
    found = {max(sorted(some), key=lambda one: some[one]): some.total() for some in spellings.values()}
    return {value: found[value] for value in sorted(found, key=_in_order)}


def _in_order(text: str) -> tuple[bool, float, str, str]:
    value = number(text)
    return value is None, value or 0.0, text.casefold(), text


def spelled_differently(cells: Iterable[str]) -> list[tuple[str, ...]]:
    """Texts that are one value in several spellings, such as ("Yes", "yes"), sorted."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        if cell and (number(cell) is None or folded(cell) in _TRUTH):
            spellings[folded(cell)].add(cell)
    return sorted(tuple(sorted(some)) for some in spellings.values() if len(some) > 1)


def far_values(counts: Mapping[str, int]) -> list[str]:
    """Numbers far from all others: 22 among 0 to 4, or 9 and 99 for "not known".

    counts: how often each value occurs. Far is what stands beyond a gap that is wider than all others span,
    4 at least, and is rarer than these, which must be two (half) grades up to 20 at least.
    """
    pairs = [(number(value), value) for value in counts]
    values = sorted((size, value) for size, value in pairs if size is not None)
    far: list[str] = []
    while len(values) > 2:
        gaps = [after[0] - before[0] for before, after in pairwise(values)]
        place = max(range(len(gaps)), key=lambda at: gaps[at]) + 1
        groups = sorted((values[:place], values[place:]), key=lambda group: sum(counts[v] for _, v in group))
        rare, rest = groups
        graded = all((2 * size).is_integer() and abs(size) <= _MOST_GRADE for size, _ in rest)
        wide = gaps[place - 1] >= _LEAST_GAP and gaps[place - 1] > rest[-1][0] - rest[0][0]
        if not (graded and wide and len(rest) > 1):
            break
        far += [value for _, value in rare]
        values = rest
    return sorted(far, key=_in_order)


def missing_codes(counts: Mapping[str, int]) -> list[str]:
    """Numbers of the kind that stands for "not known" in many tables (9, 99, 88, -9) and far from the others.

    Unlike `far_values`, such a number may be the commonest.
    """
    codes = [value for value in counts if _MISSING_CODE.fullmatch(value)]
    sizes = [number(value) for value in counts if value not in codes]
    others = [size for size in sizes if size is not None]
    far = set(far_values(counts))
    if len(others) > 1 and all((2 * size).is_integer() and abs(size) <= _MOST_GRADE for size in others):
        low, high = min(others), max(others)
        gaps = {code: max(float(code) - high, low - float(code)) for code in codes}
        far |= {code for code, gap in gaps.items() if gap >= _LEAST_GAP and gap > high - low}
    return sorted(far & set(codes), key=_in_order)


def in_any_spelling(cells: Iterable[str], names: Iterable[str]) -> list[bool]:
    """Whether each cell is one of the names, but for case and blanks."""
    wanted = {folded(plain(name)) for name in names}
    return [folded(plain(cell)) in wanted for cell in cells]
