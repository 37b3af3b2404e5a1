"""Write make-believe patients to try, test and calibrate everything else on.

    images/1000001L.png ...     8-bit grey films, <patient_id><side>.png
    table.csv                   file, patient_id, side, kl, sex, age, site; no kl: an unlabelled knee

Patient ids have seven digits and start with 1, so that none can be taken for an OAI id.
"""

from __future__ import annotations

import io
from typing import Literal, Self

from PIL import Image
from pydantic import Field, model_validator

from trabecula.phantoms.knees import MOST_PATIENTS, Knee, Knees, Side, draw_knee, draw_patient
from trabecula.progress import Meter
from trabecula.run import Run

_COLUMNS = ("file", "patient_id", "side", "kl", "sex", "age", "site")
_SIDES: tuple[Side, Side] = ("L", "R")


class Config(Knees):
    """Settings of `trabecula phantom`."""

    kind: Literal["knees"] = "knees"
    """What is drawn."""
    num_unlabelled_patients: int = Field(0, ge=0)
    """Patients beyond `num_patients` whose grades the table leaves empty."""

    @model_validator(mode="after")
    def _ids_suffice(self) -> Self:
        total = self.num_patients + self.num_unlabelled_patients
        if total > MOST_PATIENTS:
            raise ValueError(f"{total} patients in all; seven-digit ids allow {MOST_PATIENTS}")
        return self


def run(config: Config, out: Run) -> str:
    """Draw what is missing in `out`; returns a one-line summary."""
    (out / "images").mkdir(exist_ok=True)
    total = config.num_patients + config.num_unlabelled_patients
    rows = [",".join(_COLUMNS)]
    drawn = 0
    with Meter("drawing", 2 * total, "knees") as meter:
        for number in range(total):
            patient = draw_patient(config, number)
            for side in _SIDES:
                name = f"images/{patient.patient_id}{side}.png"
                if (out / name).exists():
                    meter.skip(1)
                else:
                    out.write(name, _png(draw_knee(config, number, side)))
                    meter.add(1)
                    drawn += 1
                kl = str(patient.grades[side]) if number < config.num_patients else ""
                rows.append(
                    f"{name},{patient.patient_id},{side},{kl},{patient.sex},{patient.age},{patient.site}"
                )
    out.write("table.csv", "\n".join(rows) + "\n")
    out.log("drawn", knees=drawn)
    unlabelled = (
        f", {2 * config.num_unlabelled_patients} of them unlabelled" if total > config.num_patients else ""
    )
    return f"{2 * total} {config.kind} of {total} patients at {config.size} px{unlabelled}"


def _png(knee: Knee) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(knee.image).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
