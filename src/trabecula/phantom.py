"""Write phantom patients to try, test and calibrate everything else on.

    images/1000001L.png ...     8-bit grey, <patient_id><side>.png; of chests <patient_id>_<number>.png
    table.csv                   file, patient_id, side, kl, sex, age, site[, cohort]; no kl: unlabelled

Objects are not patients but coloured photographs, images/train/star/1000019.png and so on, for pretraining
on images of another world.

Patient ids have seven digits and start with 1, so that none can be taken for an OAI id.

Hips come from two cohorts, as CHECK and the OAI differ: a labelled one, and an unlabelled one that is
healthier, less sharp and of other brightness. Knees are of one hospital unless `unlabelled` is given.

The table of chests has the columns of Data_Entry_2017.csv of NIH ChestX-ray14: `Image Index`, `Finding
Labels` ("Effusion|Mass", "No Finding"; empty: unlabelled), `Follow-up #`, `Patient ID` and so on.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

from PIL import Image
from pydantic import Field, model_validator

from trabecula.config import Record
from trabecula.phantoms import patients
from trabecula.phantoms.chest import draw_chest, draw_person, findings_of, view_of
from trabecula.phantoms.chest_findings import NO_FINDING, SEPARATOR, ChestSettings
from trabecula.phantoms.hips import draw_hip
from trabecula.phantoms.knees import draw_knee
from trabecula.phantoms.objects import draw_object, object_of
from trabecula.phantoms.radiograph import MOST_PATIENTS
from trabecula.progress import Meter
from trabecula.run import Run

_COLUMNS = ("file", "patient_id", "side", "kl", "sex", "age", "site")
_NIH_COLUMNS = (
    "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender",
    "View Position", "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]",
)  # fmt: skip
"""As in the file itself, where the last two names were cut in two at their commas."""
_CHEST_MM = 400  # what a radiograph shows, side to side
_OBJECT_COLUMNS = ("file", "patient_id", "object")
_SIDES: tuple[patients.Side, patients.Side] = ("L", "R")
LABELLED, UNLABELLED = "check-like", "oai-like"
"""Names of the two cohorts in the column `cohort`."""


class Second(Record):
    """How the cohort of the unlabelled patients differs from the labelled one."""

    prevalence: patients.Shares = (0.62, 0.22, 0.10, 0.05, 0.01)
    """Share of its joints with grade 0 to 4: the OAI's hips are healthier than CHECK's."""
    blur: float = Field(2.2, ge=0, le=5)
    """Its radiographs' blur, in the place of the labelled cohort's."""
    brightness: float = Field(0.7, ge=-3, le=3)
    """Its radiographs' brightness, in the place of the labelled cohort's."""


class Config(patients.Joints):
    """Settings of `trabecula phantom`."""

    kind: Literal["knees", "hips", "chest", "objects"] = "knees"
    """What is drawn."""
    num_unlabelled_patients: int = Field(0, ge=0)
    """Patients beyond `num_patients` whose grades or findings the table leaves empty."""
    unlabelled: Second | None = None
    """The unlabelled patients as a cohort of their own: hips are that by default, knees are not."""
    chest: ChestSettings = ChestSettings()
    """What chests alone have: radiographs a patient, and how common findings are."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        total = self.num_patients + self.num_unlabelled_patients
        if total > MOST_PATIENTS:
            raise ValueError(f"{total} patients in all; seven-digit ids allow {MOST_PATIENTS}")
        joints = self.prevalence != patients.Joints().prevalence or self.unlabelled is not None
        if self.kind == "chest" and joints:
            raise ValueError("prevalence and unlabelled are of knees and hips; for chests set chest.odds")
        if self.kind == "objects" and (joints or self.num_unlabelled_patients):
            raise ValueError("objects have their kind in their folder and no grade: give num_patients alone")
        if self.kind != "chest" and self.chest != ChestSettings():
            raise ValueError(f"'chest' is for kind 'chest', not '{self.kind}'")
        return self

    @property
    def second(self) -> Second | None:
        """The unlabelled cohort's own settings, None where it is the labelled one's."""
        return self.unlabelled or (Second() if self.kind == "hips" else None)

    def joints(self, patient: int) -> patients.Joints:
        """The settings by which the joints of patient 0, 1, ... are drawn."""
        own = self.second if patient >= self.num_patients else None
        return self if own is None else self.model_copy(update=dict(own))


@dataclass(frozen=True)
class _Picture:
    """One file, its row of the table, whether the table gives its label, and what draws it."""

    name: str
    cells: tuple[str, ...]
    labelled: bool
    draw: Callable[[], Any]  # a record with the picture as `image`


def run(config: Config, out: Run) -> str:
    """Draw what is missing in `out`; returns a one-line summary."""
    total = config.num_patients + config.num_unlabelled_patients
    pictures_of = {"chest": _chest, "objects": _object}.get(config.kind, _joint)
    people = [(number, number < config.num_patients) for number in range(total)]
    pictures = [picture for person in people for picture in pictures_of(config, *person)]
    joints = (*_COLUMNS, "cohort") if config.second is not None else _COLUMNS
    columns = {"chest": _NIH_COLUMNS, "objects": _OBJECT_COLUMNS}.get(config.kind, joints)
    rows, drawn = [",".join(columns)], 0
    with Meter("drawing", len(pictures), config.kind) as meter:
        for picture in pictures:
            if (out / picture.name).exists():
                meter.skip(1)
            else:
                (out / picture.name).parent.mkdir(parents=True, exist_ok=True)
                buffer = io.BytesIO()
                Image.fromarray(picture.draw().image).save(buffer, format="PNG", compress_level=3)
                out.write(picture.name, buffer.getvalue())
                meter.add(1)
                drawn += 1
            rows.append(",".join(picture.cells))
    out.write("table.csv", "\n".join(rows) + "\n")
    out.log("drawn", **{config.kind: drawn})
    without = sum(not picture.labelled for picture in pictures)
    unlabelled = f", {without} of them unlabelled" if without else ""
    what = "chest radiographs" if config.kind == "chest" else config.kind
    return f"{len(pictures)} {what} of {total} patients at {config.size} px{unlabelled}"


def _joint(config: Config, number: int, labelled: bool) -> Iterator[_Picture]:
    joints = config.joints(number)
    patient = patients.draw_patient(joints, number)
    cohort = (LABELLED if labelled else UNLABELLED,) if config.second is not None else ()
    for side in _SIDES:
        name = f"images/{patient.patient_id}{side}.png"
        kl = str(patient.grades[side]) if labelled else ""
        cells = (name, patient.patient_id, side, kl, patient.sex, str(patient.age), patient.site, *cohort)
        yield _Picture(name, cells, labelled, partial(drawer(config.kind), joints, number, side))


def _chest(config: Config, number: int, labelled: bool) -> Iterator[_Picture]:
    person = draw_person(config, config.chest, number)
    for follow_up in range(person.num_images):
        file = f"{person.patient_id}_{follow_up:03d}.png"
        found = findings_of(config, config.chest, number, follow_up)
        label = (SEPARATOR.join(found) or NO_FINDING) if labelled else ""
        spacing = f"{_CHEST_MM / config.size:.6g}"
        cells = (
            file, label, str(follow_up), person.patient_id, str(person.age), person.sex,
            view_of(config, number, follow_up), str(config.size), str(config.size), spacing, spacing,
        )  # fmt: skip
        draw = partial(draw_chest, config, config.chest, number, follow_up)
        yield _Picture(f"images/{file}", cells, labelled, draw)


def _object(config: Config, number: int, labelled: bool) -> Iterator[_Picture]:
    part, kind = object_of(number)
    patient = patients.patient_id(number)
    name = f"images/{part}/{kind}/{patient}.png"
    draw = partial(draw_object, config.size, config.seed, number)
    yield _Picture(name, (name, patient, kind), labelled, draw)


def drawer(kind: str) -> Callable[[patients.Joints, int, patients.Side], patients.Radiograph]:
    """What draws a joint of this kind."""
    return {"knees": draw_knee, "hips": draw_hip}[kind]
