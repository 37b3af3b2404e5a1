"""Phantom frontal chest radiographs with the 14 findings of NIH ChestX-ray14, each drawn as a sign.

A patient has one or more radiographs; shape, and what lasts of disease, are the patient's. Nothing but the
signs knows the findings: not pose, exposure, view, sex, age or the number of radiographs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from trabecula.phantoms.chest_anatomy import RIGHT, SIDES, ChestAnatomy, build, changed, draw_anatomy, side_of
from trabecula.phantoms.chest_findings import (
    BOTH_SIDES,
    FINDINGS,
    PAINTERS,
    ChestSettings,
    Sign,
    draw_findings,
    draw_number,
)
from trabecula.phantoms.patients import SITES, Pictures, check_number, patient_id, stream
from trabecula.phantoms.radiograph import develop, draw_exposure, expose, stamp
from trabecula.phantoms.shapes import Floats, frame

View = Literal["PA", "AP"]
_PERSON, _HIDDEN, _ANATOMY, _SIGNS, _EXPOSURE, _NUMBER, _VIEW = range(10, 17)  # random streams, no joint's
_SHARE_AP = 0.4  # of radiographs taken from the front, about that of NIH ChestX-ray14


@dataclass(frozen=True)
class Person:
    """A patient's part of the rows; none of it depends on the findings."""

    patient_id: str
    sex: str
    age: int
    site: str
    num_images: int


@dataclass(frozen=True)
class ChestRadiograph:
    """One radiograph (S, S), its findings, and from where it was taken."""

    image: npt.NDArray[np.uint8]
    findings: tuple[str, ...]
    view: View


def draw_person(settings: Pictures, own: ChestSettings, patient: int) -> Person:
    """Patient 0, 1, ...; a function of the seed, the number of radiographs wanted and the patient's number.

    Raises:
        InputError: the number has no seven-digit id.
    """
    check_number(patient)
    rng = stream(settings.seed, patient, _PERSON)
    return Person(
        patient_id=patient_id(patient),
        sex="F" if rng.random() < 0.44 else "M",
        age=int(np.clip(np.rint(rng.normal(47, 17)), 2, 95)),
        site=SITES[int(rng.integers(len(SITES)))],
        num_images=draw_number(own, stream(settings.seed, patient, _NUMBER)),
    )


def findings_of(settings: Pictures, own: ChestSettings, patient: int, number: int) -> tuple[str, ...]:
    """The findings of a patient's radiograph 0, 1, ..., in the order of `FINDINGS`."""
    return draw_findings(
        own, stream(settings.seed, patient, _HIDDEN), stream(settings.seed, patient, _HIDDEN, 1 + number)
    )


def view_of(settings: Pictures, patient: int, number: int) -> View:
    """From where a patient's radiograph was taken."""
    return "AP" if stream(settings.seed, patient, _VIEW, number).random() < _SHARE_AP else "PA"


def draw_chest(settings: Pictures, own: ChestSettings, patient: int, number: int) -> ChestRadiograph:
    """Draw radiograph 0, 1, ... of a patient; a function of the settings and the two numbers only."""
    return radiograph_with(settings, own, patient, number, findings_of(settings, own, patient, number))


def radiograph_with(
    settings: Pictures, own: ChestSettings, patient: int, number: int, findings: tuple[str, ...]
) -> ChestRadiograph:
    """The same radiograph with these findings, whatever the patient has."""
    person = draw_person(settings, own, patient)
    rng, view = stream(settings.seed, patient, _EXPOSURE, number), view_of(settings, patient, number)
    exposure = draw_exposure(
        rng, SITES.index(person.site), settings.noise, settings.blur, settings.brightness
    )
    exposure = replace(exposure, reach=max(exposure.reach, 0.5), equalisation=0.65 * exposure.equalisation)
    attenuation = shadow(settings, patient, number, findings, person.sex == "M", view)
    picture = expose(attenuation, exposure, rng)
    picture -= np.float32(2.0) * _air(attenuation)
    if rng.random() < settings.marker:
        stamp(picture, "L" if rng.random() < 0.5 else "R", rng, mirrored=True)
    return ChestRadiograph(develop(picture, exposure), findings, view)


def shadow(
    settings: Pictures, patient: int, number: int, findings: tuple[str, ...], male: bool, view: View
) -> Floats:
    """Attenuation (2S, 2S) of a chest with these findings, before blur, noise and exposure."""
    anatomy = draw_anatomy(
        stream(settings.seed, patient, _ANATOMY), stream(settings.seed, patient, _ANATOMY, 1 + number), male
    )
    anatomy = _from_the_front(anatomy) if view == "AP" else anatomy
    signs = _signs(settings, patient, number, findings)
    collapsed = signs["Atelectasis"].sides[0] if "Atelectasis" in signs else RIGHT
    anatomy = changed(anatomy, {name: sign.strength for name, sign in signs.items()}, collapsed)
    u, v = frame(2 * settings.size, anatomy.shift, anatomy.scale, anatomy.rotation)
    scene = build(anatomy, u, v, stream(settings.seed, patient, _ANATOMY, 1 + number, 1))
    for name, sign in signs.items():
        PAINTERS[name](scene, sign)
    return scene.picture + scene.vessels


def _air(attenuation: Floats) -> Floats:
    """(S, S) 1 where nothing but air was in a ray's way: these pixels stay black, however equalised."""
    size = attenuation.shape[0] // 2
    air: Floats = (attenuation.reshape(size, 2, size, 2).mean(axis=(1, 3)) < 0.03).astype(np.float32)
    return air


def _from_the_front(anatomy: ChestAnatomy) -> ChestAnatomy:
    """Lying or sitting, the tube before the chest: heart and mediastinum larger, blades over the lungs."""
    at_u, at_v, wide, high = anatomy.heart
    right, left = anatomy.vessels
    return replace(
        anatomy, heart=(at_u, at_v, 1.10 * wide, 1.03 * high), vessels=(1.15 * right, 1.15 * left),
        shoulders=anatomy.shoulders + 0.09,
        domes=(anatomy.domes[0] - 0.04, anatomy.domes[1] - 0.04),
    )  # fmt: skip


def _signs(settings: Pictures, patient: int, number: int, findings: tuple[str, ...]) -> dict[str, Sign]:
    """What is drawn of each finding; another finding, or its lack, changes none of its numbers."""
    signs = {}
    for place, name in enumerate(FINDINGS):
        if name not in findings or settings.effect == 0:
            continue
        lasting = stream(settings.seed, patient, _SIGNS, place)
        own = stream(settings.seed, patient, _SIGNS, place, 1 + number)
        strength = settings.effect * float(np.clip(1 + 0.22 * own.standard_normal(), 0.55, 1.6))
        sides = side_of(SIDES, lasting.random())
        signs[name] = Sign(strength, SIDES if name in BOTH_SIDES else sides, lasting, own)
    return signs
