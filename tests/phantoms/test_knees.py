"""Make-believe knees: what a grade draws, what tells it and what must not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from pydantic import ValidationError

from radiograph_readers import MODELS, many, network_reads, out_of_fold, spectrum, statistics
from trabecula.errors import InputError
from trabecula.phantoms.curves import AXIS
from trabecula.phantoms.knees import KneeAnatomy, KneeSigns, draw_knee, femur_surface, tibia_surface
from trabecula.phantoms.patients import Joints, draw_patient
from trabecula.phantoms.radiograph import MOST_PATIENTS


@cache
def cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return many(draw_knee, Joints(size=64, seed=5), 800)


def test_a_knee_depends_on_seed_patient_and_side_only() -> None:
    settings = Joints(size=48, seed=3)
    alone = draw_knee(settings, 7, "R")
    draw_knee(settings, 1, "L")
    more = draw_knee(Joints(size=48, seed=3, num_patients=9999), 7, "R")
    assert alone.image.shape == (48, 48)
    assert alone.image.dtype == np.uint8
    assert np.array_equal(alone.image, more.image)
    others = [
        draw_knee(settings, 7, "L"),
        draw_knee(settings, 8, "R"),
        draw_knee(Joints(size=48, seed=4), 7, "R"),
    ]
    for other in others:
        assert not np.array_equal(alone.image, other.image)


def test_every_setting_that_varies_the_film_is_heeded() -> None:
    plain = draw_knee(Joints(size=64), 2, "L").image
    for change in ({"noise": 0}, {"blur": 0}, {"noise": 3}, {"blur": 4}):
        assert not np.array_equal(plain, draw_knee(Joints(size=64, **change), 2, "L").image), change
    changed = [
        np.mean(
            draw_knee(Joints(size=64, marker=1), p, "L").image
            != draw_knee(Joints(size=64, marker=0), p, "L").image
        )
        for p in range(5)
    ]
    assert min(changed) > 0


def test_prevalence_and_resemblance_of_the_two_knees() -> None:
    settings = Joints()
    patients = [draw_patient(settings, p) for p in range(4000)]
    grades = np.array([[p.grades["L"], p.grades["R"]] for p in patients])
    shares = np.bincount(grades.ravel(), minlength=5) / grades.size
    assert np.allclose(shares, settings.prevalence, atol=0.02)
    # ICC(1), Shrout & Fleiss 1979: between and within mean squares, two knees a patient
    between = 2 * np.var(grades.mean(axis=1), ddof=1)
    within = np.mean((grades[:, 0] - grades[:, 1]) ** 2) / 2
    assert (between - within) / (between + within) == pytest.approx(0.5, abs=0.05)


def test_another_prevalence_is_followed() -> None:
    settings = Joints(prevalence=(0.0, 0.5, 0.0, 0.5, 0.0))
    grades = [g for p in range(1000) for g in draw_patient(settings, p).grades.values()]
    assert set(grades) == {1, 3}
    assert np.mean(np.array(grades) == 3) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("prevalence", [(0.5, 0.5, 0.5, 0, 0), (1.2, -0.2, 0, 0, 0)])
def test_shares_that_are_none_are_refused(prevalence: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="five shares that sum to 1"):
        Joints(prevalence=prevalence)


def test_ids_cannot_be_real_ones_and_patients_have_bounds() -> None:
    assert draw_patient(Joints(), 0).patient_id == "1000001"
    assert draw_patient(Joints(), MOST_PATIENTS - 1).patient_id == "1999999"
    for patient in (-1, MOST_PATIENTS):
        with pytest.raises(InputError, match="phantoms have patients"):
            draw_patient(Joints(), patient)


def test_table_says_nothing_about_the_grade() -> None:
    """Correlations of independent columns stay within 4 standard errors of 0."""
    patients = [draw_patient(Joints(seed=1), p) for p in range(3000)]
    grade = np.array([p.grades["L"] for p in patients], float)
    columns = {
        "sex": [p.sex == "F" for p in patients],
        "age": [p.age for p in patients],
        **{site: [p.site == site for p in patients] for site in "ABC"},
    }
    for name, values in columns.items():
        assert abs(np.corrcoef(grade, np.array(values, float))[0, 1]) < 4 / 3000**0.5, name
        assert np.std(np.array(values, float)) > 0, name


def test_signs_follow_the_scale() -> None:
    """Kellgren & Lawrence 1957: what each grade has more of than the one below it, on average."""
    mean = []
    for grade in range(5):
        signs = [KneeSigns(np.random.default_rng(i), grade, 1.0) for i in range(400)]
        mean.append([
            np.mean([max(s.narrowing) for s in signs]),
            np.mean([sum(x > 0 for x in s.osteophytes) for s in signs]),
            np.mean([max(s.osteophytes) for s in signs]),
            np.mean([max(s.sclerosis) for s in signs]),
            np.mean([abs(s.varus) for s in signs]),
        ])  # fmt: skip
    table = np.array(mean)
    assert np.all(table[0] == 0)
    assert np.all(np.diff(table, axis=0) >= 0)
    assert np.all(np.diff(table[:, :3], axis=0) > 0)  # narrowing and osteophytes from grade 1
    assert table[1, 3:].max() == 0  # no sclerosis, no deformity in grade 1
    assert table[4, 0] > 0.8  # marked narrowing
    narrowed = [KneeSigns(np.random.default_rng(i), 3, 1.0).narrowing for i in range(400)]
    assert np.mean([m > lateral for m, lateral in narrowed]) == pytest.approx(0.7, abs=0.08)
    assert max(min(pair) / max(pair) for pair in narrowed) < 0.5  # one compartment first


def test_narrowing_is_in_the_bones() -> None:
    """The space between the two drawn surfaces is the healthy one less the lost share."""
    rng = np.random.default_rng
    anatomy = KneeAnatomy(rng(1), rng(2), male=True)
    healthy = KneeSigns(rng(0), 0, 1.0)
    worn = KneeSigns(rng(0), 3, 1.0)
    for side in (0, 1):
        at = np.argmin(np.abs(AXIS - anatomy.condyles[side][0]))
        before, after = (
            tibia_surface(anatomy, s).values[at] - femur_surface(anatomy, s).values[at]
            for s in (healthy, worn)
        )
        lost = anatomy.gap[side] * worn.narrowing[side]
        assert before - after == pytest.approx(lost - 0.5 * worn.depression[side], abs=0.01)


def test_a_right_knee_mirrors_a_left_one() -> None:
    """What is lateral in the mean left knee is lateral, at the other edge, in the right one."""
    settings = Joints(size=48, marker=0, noise=0, effect=0)
    uneven = []
    for side in ("L", "R"):
        mean = np.mean([draw_knee(settings, p, side).image.astype(float) for p in range(60)], axis=0)
        uneven.append((mean - mean[:, ::-1]).ravel())
    assert np.corrcoef(*uneven)[0, 1] < -0.6


def test_the_fibula_is_lateral() -> None:
    """Below the joint a left knee is brighter beside the tibia on its lateral side, image right."""
    settings = Joints(size=64, marker=0, effect=0)
    lower = np.mean([draw_knee(settings, p, "L").image[54:].astype(float) for p in range(60)], axis=0)
    assert lower[:, 54:62].mean() > lower[:, 2:10].mean() + 5


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("describe", "most"), [(statistics, 0.60), (spectrum, 0.66)])
def test_no_global_statistic_gives_the_grade_away(describe, most: float, model: str) -> None:  # type: ignore[no-untyped-def]
    """AUROC of KL >= 2 over 800 knees of 400 patients, five folds by patient; SE about 0.02."""
    assert out_of_fold(describe, model, cohort()) < most


def test_a_small_network_reads_the_signs() -> None:
    """500 labelled knees teach a small network KL >= 2: AUROC over 300 knees of 150 other patients."""
    assert network_reads(cohort(), 500, epochs=30) > 0.85
