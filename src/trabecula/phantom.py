"""Write make-believe patients to try, test and calibrate everything else on.

    images/1000001L.png ...     8-bit grey films, <patient_id><side>.png
    table.csv                   file, patient_id, side, kl, sex, age, site[, cohort]; no kl: unlabelled

Patient ids have seven digits and start with 1, so that none can be taken for an OAI id.

Hips come from two cohorts, as CHECK and the OAI differ: a labelled one, and an unlabelled one that is
healthier, less sharp and of other brightness. Knees are of one hospital unless `unlabelled` is given.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Literal, Self

from PIL import Image
from pydantic import Field, model_validator

from trabecula.config import Record
from trabecula.phantoms.hips import draw_hip
from trabecula.phantoms.knees import draw_knee
from trabecula.phantoms.patients import (
    MOST_PATIENTS,
    Joints,
    Radiograph,
    Shares,
    Side,
    check_shares,
    draw_patient,
)
from trabecula.progress import Meter
from trabecula.run import Run

_COLUMNS = ("file", "patient_id", "side", "kl", "sex", "age", "site")
_SIDES: tuple[Side, Side] = ("L", "R")
LABELLED, UNLABELLED = "check-like", "oai-like"
"""Names of the two cohorts in the column `cohort`."""


class Second(Record):
    """How the cohort of the unlabelled patients differs from the labelled one."""

    prevalence: Shares = (0.62, 0.22, 0.10, 0.05, 0.01)
    """Share of its joints with grade 0 to 4: the OAI's hips are healthier than CHECK's."""
    blur: float = Field(2.2, ge=0, le=5)
    """Its films' blur, in the place of the labelled cohort's."""
    brightness: float = Field(0.7, ge=-3, le=3)
    """Its films' brightness, in the place of the labelled cohort's."""

    @model_validator(mode="after")
    def _prevalence_is_a_distribution(self) -> Self:
        check_shares(self.prevalence)
        return self


class Config(Joints):
    """Settings of `trabecula phantom`."""

    kind: Literal["knees", "hips"] = "knees"
    """What is drawn."""
    num_unlabelled_patients: int = Field(0, ge=0)
    """Patients beyond `num_patients` whose grades the table leaves empty."""
    unlabelled: Second | None = None
    """The unlabelled patients as a cohort of their own: hips are that by default, knees are not."""

    @model_validator(mode="after")
    def _ids_suffice(self) -> Self:
        total = self.num_patients + self.num_unlabelled_patients
        if total > MOST_PATIENTS:
            raise ValueError(f"{total} patients in all; seven-digit ids allow {MOST_PATIENTS}")
        return self

    @property
    def second(self) -> Second | None:
        """The unlabelled cohort's own settings, None where it is the labelled one's."""
        return self.unlabelled or (Second() if self.kind == "hips" else None)

    def joints(self, patient: int) -> Joints:
        """The settings by which the joints of patient 0, 1, ... are drawn."""
        own = self.second if patient >= self.num_patients else None
        return self if own is None else self.model_copy(update=dict(own))


def run(config: Config, out: Run) -> str:
    """Draw what is missing in `out`; returns a one-line summary."""
    (out / "images").mkdir(exist_ok=True)
    total = config.num_patients + config.num_unlabelled_patients
    cohorts = config.second is not None
    rows = [",".join((*_COLUMNS, "cohort") if cohorts else _COLUMNS)]
    drawn = 0
    with Meter("drawing", 2 * total, config.kind) as meter:
        for number in range(total):
            joints, labelled = config.joints(number), number < config.num_patients
            patient = draw_patient(joints, number)
            for side in _SIDES:
                name = f"images/{patient.patient_id}{side}.png"
                if (out / name).exists():
                    meter.skip(1)
                else:
                    out.write(name, _png(drawer(config.kind)(joints, number, side)))
                    meter.add(1)
                    drawn += 1
                kl = str(patient.grades[side]) if labelled else ""
                cells = [name, patient.patient_id, side, kl, patient.sex, str(patient.age), patient.site]
                rows.append(",".join(cells + [LABELLED if labelled else UNLABELLED] * cohorts))
    out.write("table.csv", "\n".join(rows) + "\n")
    out.log("drawn", **{config.kind: drawn})
    unlabelled = (
        f", {2 * config.num_unlabelled_patients} of them unlabelled" if total > config.num_patients else ""
    )
    return f"{2 * total} {config.kind} of {total} patients at {config.size} px{unlabelled}"


def drawer(kind: str) -> Callable[[Joints, int, Side], Radiograph]:
    """What draws a joint of this kind."""
    return {"knees": draw_knee, "hips": draw_hip}[kind]


def _png(film: Radiograph) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(film.image).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
