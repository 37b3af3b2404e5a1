"""Make-believe hips: what a grade draws, what tells it and what must not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from radiograph_readers import MODELS, Films, many, network_reads, out_of_fold, spectrum, statistics
from trabecula.phantoms.hips import HipAnatomy, HipSigns, draw_hip, render
from trabecula.phantoms.knees import draw_knee
from trabecula.phantoms.patients import Joints, draw_patient


@cache
def cohort() -> Films:
    return many(draw_hip, Joints(size=64, seed=5), 800)


def test_a_hip_depends_on_seed_patient_and_side_only() -> None:
    settings = Joints(size=48, seed=3)
    alone = draw_hip(settings, 7, "R")
    draw_hip(settings, 1, "L")
    more = draw_hip(Joints(size=48, seed=3, num_patients=9999), 7, "R")
    assert alone.image.shape == (48, 48)
    assert alone.image.dtype == np.uint8
    assert np.array_equal(alone.image, more.image)
    for other in (
        draw_hip(settings, 7, "L"),
        draw_hip(settings, 8, "R"),
        draw_hip(Joints(size=48, seed=4), 7, "R"),
        draw_knee(settings, 7, "R"),
    ):
        assert not np.array_equal(alone.image, other.image)
    assert alone.grade == draw_patient(settings, 7).grades["R"]


def test_signs_follow_the_scale() -> None:
    """Kellgren & Lawrence 1957: what each grade has more of than the one below it, on average."""
    mean = []
    for grade in range(5):
        signs = [HipSigns(np.random.default_rng(i), grade, 1.0) for i in range(400)]
        mean.append([
            np.mean([s.narrowing for s in signs]),
            np.mean([sum(x > 0 for x in s.osteophytes) for s in signs]),
            np.mean([max(s.osteophytes) for s in signs]),
            np.mean([s.sclerosis for s in signs]),
            np.mean([len(s.cysts) for s in signs]),
            np.mean([s.deformity for s in signs]),
        ])  # fmt: skip
    table = np.array(mean)
    assert np.all(table[0] == 0)
    assert np.all(np.diff(table, axis=0) >= 0)
    assert np.all(np.diff(table[:, :3], axis=0) > 0)  # narrowing and osteophytes from grade 1
    assert table[1, 3:].max() == 0
    assert table[2, 4:].max() == 0  # cysts and deformity from grade 3
    assert table[4, 0] > 0.85  # gross loss
    assert np.all(table[4, 3:] > table[3, 3:])


def test_the_head_moves_into_the_socket_where_the_load_is() -> None:
    """What was the dark space above a head is bone when all of it is lost; the pelvis stays where it is."""
    rng = np.random.default_rng
    anatomy = HipAnatomy(rng(1), rng(2), male=True)
    none, worn = HipSigns(rng(0), 0, 1.0), HipSigns(rng(0), 0, 1.0)
    worn.narrowing, worn.load = 1.0, 0.0
    healthy, lost = (render(anatomy, signs, 256, rng(3)) for signs in (none, worn))
    middle = int((anatomy.shift[0] + 1) * 128)
    surfaces = (anatomy.head + anatomy.space, anatomy.head)
    rows = slice(*(int((anatomy.shift[1] - surface * anatomy.scale + 1) * 128) for surface in surfaces))
    filled = [picture[rows, middle - 4 : middle + 5].mean() for picture in (healthy, lost)]
    assert filled[1] > filled[0] + 0.2
    assert np.array_equal(healthy[:20], lost[:20])  # the pelvis stays


def test_a_right_hip_mirrors_a_left_one() -> None:
    settings = Joints(size=48, marker=0, noise=0, effect=0)
    uneven = []
    for side in ("L", "R"):
        mean = np.mean([draw_hip(settings, p, side).image.astype(float) for p in range(60)], axis=0)
        uneven.append((mean - mean[:, ::-1]).ravel())
    assert np.corrcoef(*uneven)[0, 1] < -0.9


def test_the_femur_is_lateral_and_below() -> None:
    """A left hip's shaft stands below its head at the image's right; the pelvis is medial."""
    settings = Joints(size=64, marker=0, effect=0, noise=0)
    mean = np.mean([draw_hip(settings, p, "L").image.astype(float) for p in range(60)], axis=0)
    shaft, between = mean[54:62, 44:56].mean(), mean[54:62, 22:32].mean()
    above, pelvis = mean[8:16, 46:60].mean(), mean[2:10, 20:34].mean()
    assert shaft > between + 20
    assert pelvis > above + 20


def test_healthy_hips_differ_more_than_by_their_noise() -> None:
    """Shape, pose, texture and film vary: no hip's nearest other one is close to it."""
    films = many(draw_hip, Joints(size=48, effect=0, marker=0), 120)[0].reshape(120, -1).astype(float)
    films = (films - films.mean(1, keepdims=True)) / films.std(1, keepdims=True)
    alike = films @ films.T / films.shape[1] - 2 * np.eye(120)
    assert np.median(alike.max(axis=1)) < 0.9


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("describe", "most"), [(statistics, 0.60), (spectrum, 0.72)])
def test_no_global_statistic_gives_the_grade_away(describe, most: float, model: str) -> None:  # type: ignore[no-untyped-def]
    """AUROC of KL >= 2 over 800 hips of 400 patients, five folds by patient; SE about 0.02."""
    assert out_of_fold(describe, model, cohort()) < most


def test_a_small_network_reads_the_signs_of_many_hips_and_not_of_few() -> None:
    """500 labelled hips teach a small network KL >= 2, 50 do not: AUROC over 300 hips of other patients."""
    assert network_reads(cohort(), 500, epochs=30) > 0.85
    assert network_reads(cohort(), 50, epochs=60) < 0.80
