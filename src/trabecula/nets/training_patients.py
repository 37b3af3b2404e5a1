"""Whom an encoder will have seen: the patients of its pool, of its start, and behind generated images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trabecula.artifacts.generated import is_generated
from trabecula.artifacts.patient_hashes import key_name, mark, site_key
from trabecula.artifacts.splits import Splits
from trabecula.artifacts.store import Store
from trabecula.errors import InputError
from trabecula.nets.encoder import Card


def check_key(card: Card, start: Path | None, store: Store) -> None:
    """Before the work: the site's key can be read, and what the start and a generator saw is under it.

    Args:
        card: of the encoder as it starts. start: where that one lies, for the message.

    Raises:
        InputError: no key, or patients that were marked with another one.
    """
    key = key_name(site_key())
    made = [(part.path, part.record.generated) for part in store.parts]
    for where, patients, theirs in (
        (start, card.patients, card.patients_key),
        *((path, its.patients, its.patients_key) for path, its in made if its),
    ):
        if patients and theirs != key:
            raise InputError(
                f"{where}: its patients were marked with another site key ({theirs}), so "
                "what this encoder has seen could not be checked; set TRABECULA_SITE_KEY to that site's key"
            )


def seen_after(card: Card, store: Store, patients: Sequence[str]) -> set[str]:
    """Marks of all whom the encoder of this card will have seen once it learned from these of the store.

    Where the patients behind a part of it are not known there is none: a list that looks whole and is not
    would let test patients pass.
    """
    seen = set(mark(patients, site_key())) | set(card.patients)
    for part in store.parts if patients else ():  # generated images tell of those they came from
        seen |= set(part.record.generated.patients if part.record.generated else ())
    unknown = any(_of_unknown(part, patients) for part in store.parts)
    return set() if unknown or (card.images_seen and not card.patients) else seen


def _of_unknown(store: Store, patients: Sequence[str]) -> bool:
    """Whether generated images stand in the pool and nobody knows from whom their generator learned."""
    made = store.record.generated
    known = made is not None and (bool(made.patients) or made.images_seen == 0)
    own = set(store.index["patient_id"])
    return not known and any(is_generated(patient) and patient in own for patient in patients)


def strangers(store: Store, splits: Splits) -> str:
    """What to say of stores of real images whose patients are all unknown to the splits; "" of others."""
    unknown = [
        str(number)
        for number, part in enumerate(store.parts, 1)
        if part.record.generated is None and set(part.index["patient_id"]).isdisjoint(splits.of)
    ]
    which = "them" if len(store.parts) == 1 else f"store {' and '.join(unknown)}"
    return f"; none of {which} is in the splits, are they of this store?" if unknown else ""
