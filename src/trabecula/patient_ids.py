"""One form for every spelling of a patient's id, so that nobody stands in two parts under two spellings.

`9000000` and `9000000.0`, `007` and `7`, `P1` and `p1`, ids with doubled or no-break blanks, and composed and
decomposed letters are each one patient: programs that write tables change them so.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal

from trabecula.errors import InputError

_WHOLE = re.compile(r"(\d+)(?:\.0*)?")
_SHOWN = re.compile(r"\d(?:[.,](\d+))?E\+(\d\d)")
_SCIENTIFIC = re.compile(r"\d+(?:\.\d+)?[eE]\+?(\d{1,2})")


SPELLINGS_REMEDY = (
    "write the id of one person in one way; if they are different people, set spellings_differ=true"
)


def canonical(patient_id: str) -> str:
    """The form by which ids are compared: one for all spellings of a patient.

    Compatibility characters as plain ones (NFKC), letters small, invisible characters gone, blanks single;
    a whole number without leading zeros, decimal point or exponent.
    """
    text = unicodedata.normalize("NFKC", patient_id)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = unicodedata.normalize("NFC", " ".join(text.split()).casefold())
    whole = _WHOLE.fullmatch(text)
    if whole:
        return whole[1].lstrip("0") or "0"
    if _SCIENTIFIC.fullmatch(text):
        value = Decimal(text)
        if value == value.to_integral_value():
            return str(int(value))
    return text


def rounded(patient_id: str) -> bool:
    """Whether the id looks as a spreadsheet program shows a number that it rounded, as `9.00E+06`."""
    shown = _SHOWN.fullmatch(patient_id.strip())
    return shown is not None and len(shown[1] or "") < int(shown[2])


def in_scientific_notation(patient_id: str) -> bool:
    """Whether a spreadsheet program may have rounded the id to a few digits, as `9.00E+06`."""
    return _SCIENTIFIC.fullmatch(patient_id.strip()) is not None


def spelled_alike(patient_ids: Iterable[str]) -> list[tuple[str, ...]]:
    """The spellings of each patient who has several, sorted."""
    spellings: dict[str, set[str]] = {}
    for patient in patient_ids:
        spellings.setdefault(canonical(patient), set()).add(patient)
    return sorted(tuple(sorted(some)) for some in spellings.values() if len(some) > 1)


def check_spellings(patient_ids: Sequence[str], places: Sequence[str], where: str) -> None:
    """Refuse ids that are one patient in several spellings.

    `places`: where in `where` each id stands, such as "row 7" or the name of a file.

    Raises:
        InputError: with the spellings of the first such patient and where they stand.
    """
    alike = spelled_alike(patient_ids)
    if not alike:
        return
    said = []
    for spelling in alike[0]:
        its = [place for place, one in zip(places, patient_ids, strict=True) if one == spelling]
        more = f" and {len(its) - 3} more" if len(its) > 3 else ""
        said.append(f"'{spelling}' ({', '.join(its[:3])}{more})")
    others = f"; so may {len(alike) - 1} more" if len(alike) > 1 else ""
    raise InputError(
        f"{where}: one patient may stand under several spellings of the id: {' and '.join(said)}{others}; "
        f"{SPELLINGS_REMEDY}"
    )


def distinguished(patient_ids: Sequence[str]) -> list[str]:
    """The ids, each that is like another but for its spelling with an ending of its own, such as "7~7902ba".

    So no later comparison takes these people for one.
    """
    several = {spelling for alike in spelled_alike(patient_ids) for spelling in alike}
    ends = {one: f"{one}~{hashlib.sha256(one.encode()).hexdigest()[:6]}" for one in several}
    return [ends.get(patient, patient) for patient in patient_ids]
