"""Images that a generator made: whose they are, and why they never leave the training part.

All images of one generator share one patient id, `generator-` and the first twelve hex digits of the
sha256 of its weights. A generator has learned from the patients of its pool, so its images say
nothing about new patients: in a validation or test part they would be a leak.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from trabecula.errors import InputError

_ID = re.compile(r"generator-[0-9a-f]{12}")


def generator_id(weights: str) -> str:
    """The patient id of a generator's images, from the sha256 of its weights in hex."""
    return f"generator-{weights[:12]}"


def is_generated(patient: str) -> bool:
    """Whether a patient id is a generator's."""
    return _ID.fullmatch(patient) is not None


def generated(patients: Iterable[str]) -> set[str]:
    """Those of the patients that are generators."""
    return {patient for patient in patients if is_generated(patient)}


def keep_in_train(of: Mapping[str, str], where: object) -> None:
    """Refuse splits that hold out a generator's images.

    Raises:
        InputError: a generator outside the training part, by name.
    """
    out = sorted(patient for patient in generated(of) if of[patient] != "train")
    if out:
        raise InputError(
            f"{where}: '{out[0]}' is a generator, no patient, and stands in {of[out[0]]}; generated images "
            "belong in train"
        )


def origin(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a store's record says of the generator that made it; {} for a store of real images.

    `patients` and `patients_key` are those of the generator's own pool, as in an encoder's card.
    """
    value = record.get("generated")
    return dict(value) if isinstance(value, dict) else {}
