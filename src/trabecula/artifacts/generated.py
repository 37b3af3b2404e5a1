"""Generated images: their patient id, their origin, and why they never leave the training part.

All images of one generator share one patient id, `generator-` and the first twelve hex digits of the
sha256 of its weights. A generator has learned from the patients of its pool, so its images say
nothing about new patients: in a validation or test part they would be a leak.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from trabecula.config import Record
from trabecula.errors import InputError

_ID = re.compile(r"generator-[0-9a-f]{12}")


class GeneratedBy(Record):
    """What a store of samples records of the generator that made them."""

    generator: str = ""  # the patient id of the images
    weights: str = ""  # sha256 of the generator's weights
    objective: str = ""  # the method that trained the generator
    images_seen: int | None = None  # images that the generator saw in training; not set: not known
    pretrain_seed: int = 0
    store: str = ""  # id of the store that it learned from
    kind: str = ""  # independent samples or interpolations
    seed: int = 0  # of the noise
    patients: tuple[str, ...] = ()  # hashes of those the generator learned from, as in an encoder's card
    patients_key: str = ""


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
    """Refuse splits that hold out a generator's images."""
    out = sorted(patient for patient in generated(of) if of[patient] != "train")
    if out:
        raise InputError(
            f"{where}: '{out[0]}' is a generator, not a patient, and is in {of[out[0]]}; generated images "
            "belong in train"
        )
