"""Make-believe anteroposterior hip radiographs with a Kellgren-Lawrence grade whose signs are drawn.

Grades: Kellgren & Lawrence, Ann Rheum Dis 1957;16:494, table of the hip: 0 none, 1 doubtful,
2 minimal (definite narrowing and osteophytes, slight sclerosis), 3 moderate (marked narrowing, some
sclerosis and cysts, deformity), 4 severe (gross loss of joint space, marked deformity, large
osteophytes).

Coordinates: u to lateral, v downwards, both in half image widths, the origin in the centre of the
socket.
"""

from __future__ import annotations

import numpy as np

from trabecula.phantoms.hip_anatomy import draw_anatomy, draw_signs
from trabecula.phantoms.hip_render import render
from trabecula.phantoms.patients import Joint, Joints, Radiograph, Side, take_film
from trabecula.phantoms.shapes import Floats


def draw_hip(settings: Joints, patient: int, side: Side) -> Radiograph:
    """Draw one hip; a function of the settings, the patient's number and the side only."""
    return take_film(settings, patient, side, _attenuation)


def _attenuation(joint: Joint, size: int, rng: np.random.Generator) -> Floats:
    anatomy = draw_anatomy(joint.shared, joint.own, joint.male)
    signs = draw_signs(joint.signs, joint.grade, joint.effect)
    return render(anatomy, signs, size, rng)
