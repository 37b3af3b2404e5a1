"""What a grade may change in a picture, of whatever joint: the signs, and nothing that a histogram sees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from trabecula.phantoms.hips import draw_hip
from trabecula.phantoms.knees import draw_knee
from trabecula.phantoms.patients import Joints, Radiograph, Side

Draw = Callable[[Joints, int, Side], Radiograph]
pytestmark = pytest.mark.parametrize("draw", [draw_knee, draw_hip])


def graded(draw: Draw, patient: int, **settings: float) -> list[Radiograph]:
    """The same joint with each grade from 0 to 4."""
    return [
        draw(Joints(**settings, prevalence=tuple(float(grade == other) for other in range(5))), patient, "L")
        for grade in range(5)
    ]


def test_without_effect_the_picture_does_not_know_the_grade(draw: Draw) -> None:
    """The planted null, exactly: other grades, same bytes."""
    for patient in range(4):
        films = graded(draw, patient, size=48, effect=0)
        assert [film.grade for film in films] == list(range(5))
        assert len({film.image.tobytes() for film in films}) == 1


def test_with_effect_each_grade_changes_the_picture_and_not_the_histogram(draw: Draw) -> None:
    for patient in range(4):
        images = [film.image for film in graded(draw, patient, size=64)]
        assert len({image.tobytes() for image in images}) == 5
        histograms = [np.bincount(image.ravel(), minlength=256) for image in images]
        assert all(np.array_equal(histograms[0], other) for other in histograms[1:])
