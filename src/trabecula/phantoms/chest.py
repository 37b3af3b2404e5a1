"""Phantom frontal chest radiographs with the 14 findings of NIH ChestX-ray14, each drawn as a sign.

A patient has one or more radiographs; shape, and what lasts of disease, are the patient's. Nothing but the
signs knows the findings: not pose, exposure, view, sex, age or the number of radiographs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from trabecula.phantoms.chest_anatomy import RIGHT, SIDES, ChestAnatomy, build
from trabecula.phantoms.chest_findings import FINDINGS, ChestSettings, Sign, draw_findings
from trabecula.phantoms.curves import Floats
from trabecula.phantoms.patients import Patient, draw_row, patient_id, stream
from trabecula.phantoms.radiograph import Exposure, Pictures, develop, expose, halved, stamp
from trabecula.phantoms.shapes import frame

View = Literal["PA", "AP"]
_PERSON, _HIDDEN, _ANATOMY, _SIGNS, _EXPOSURE, _NUMBER, _VIEW = range(10, 17)  # random streams, no joint's
_SHARE_AP = 0.4  # of radiographs taken from the front, about that of NIH ChestX-ray14
_MOST_IMAGES = 30


@dataclass(frozen=True)
class ChestRadiograph:
    """One radiograph (S, S), its findings, and from where it was taken."""

    image: npt.NDArray[np.uint8]
    findings: tuple[str, ...]
    view: View


def draw_person(settings: Pictures, own: ChestSettings, patient: int) -> Patient:
    """Patient 0, 1, ...; a function of the seed, the number of radiographs wanted and the patient's number.

    Raises:
        InputError: the number has no seven-digit id.
    """
    name = patient_id(patient)
    row = draw_row(0.44, (47, 17), (2, 95), stream(settings.seed, patient, _PERSON))
    number = int(stream(settings.seed, patient, _NUMBER).geometric(1 / own.images))
    return Patient(name, *row, grades={}, num_images=min(number, _MOST_IMAGES))


def findings_of(settings: Pictures, own: ChestSettings, patient: int, number: int) -> tuple[str, ...]:
    """The findings of a patient's radiograph 0, 1, ..., in the order of `FINDINGS`."""
    lasting = stream(settings.seed, patient, _HIDDEN)
    return draw_findings(own.odds, lasting, stream(settings.seed, patient, _HIDDEN, 1 + number))


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
    exposure = Exposure(settings, person.site, rng)
    exposure.reach = max(exposure.reach, 0.5)
    exposure.equalisation *= 0.65
    attenuation = shadow(settings, patient, number, findings, person.sex == "M", view)
    picture = expose(attenuation, exposure, rng)
    picture[halved(attenuation) < 0.03] -= 2  # nothing but air in the way: black, however equalised
    if rng.random() < settings.marker:
        stamp(picture, "L" if rng.random() < 0.5 else "R", rng, mirrored=True)
    return ChestRadiograph(develop(picture, exposure), findings, view)


def shadow(
    settings: Pictures, patient: int, number: int, findings: tuple[str, ...], male: bool, view: View
) -> Floats:
    """Attenuation (2S, 2S) of a chest with these findings, before blur, noise and exposure."""
    key = (settings.seed, patient, _ANATOMY)
    anatomy = ChestAnatomy(stream(*key), stream(*key, 1 + number), male)
    if view == "AP":
        anatomy.turn_to_front()
    signs = _signs(settings, patient, number, findings)
    collapsed = signs["Atelectasis"].sides[0] if "Atelectasis" in signs else RIGHT
    anatomy.change({name: sign.strength for name, sign in signs.items()}, collapsed)
    u, v = frame(2 * settings.size, anatomy.shift, anatomy.scale, anatomy.rotation)
    scene = build(anatomy, u, v, stream(*key, 1 + number, 1))
    for name, sign in signs.items():
        FINDINGS[name].paint(scene, sign)
    return scene.picture + scene.vessels


def _signs(settings: Pictures, patient: int, number: int, findings: tuple[str, ...]) -> dict[str, Sign]:
    """What is drawn of each finding; another finding, or its lack, changes none of its numbers."""
    signs = {}
    for place, (name, kind) in enumerate(FINDINGS.items()):
        if name not in findings or settings.effect == 0:
            continue
        lasting = stream(settings.seed, patient, _SIGNS, place)
        own = stream(settings.seed, patient, _SIGNS, place, 1 + number)
        strength = settings.effect * float(np.clip(1 + 0.22 * own.standard_normal(), 0.55, 1.6))
        where = lasting.random() * 6 / 5  # one side, or both in one of six
        sides = SIDES if kind.both or where >= 1 else (SIDES[int(where * 2)],)
        signs[name] = Sign(strength, sides, lasting, own)
    return signs
