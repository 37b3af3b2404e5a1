"""Make-believe frontal knee radiographs with a Kellgren-Lawrence grade whose signs are drawn.

Grades: Kellgren & Lawrence, Ann Rheum Dis 1957;16:494, table of the knee: 0 none, 1 doubtful,
2 minimal (definite osteophytes), 3 moderate (definite narrowing, some sclerosis), 4 severe (marked
narrowing, severe sclerosis, definite deformity).

Coordinates: u towards the fibula (lateral), v downwards, both in half image widths, the origin
between the condyles on the joint line.
"""

from __future__ import annotations

import numpy as np

from trabecula.phantoms.knee_anatomy import draw_anatomy, draw_signs
from trabecula.phantoms.knee_render import render
from trabecula.phantoms.patients import Joint, Joints, Radiograph, Side, take_film
from trabecula.phantoms.shapes import Floats


def draw_knee(settings: Joints, patient: int, side: Side) -> Radiograph:
    """Draw one knee; a function of the settings, the patient's number and the side only."""
    return take_film(settings, patient, side, _attenuation)


def _attenuation(joint: Joint, size: int, rng: np.random.Generator) -> Floats:
    anatomy = draw_anatomy(joint.shared, joint.own, joint.male)
    signs = draw_signs(joint.signs, joint.grade, joint.effect)
    return render(anatomy, signs, size, rng)
