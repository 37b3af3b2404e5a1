"""Make-believe chests: how common findings are, where their signs lie, what tells them and what must not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from radiograph_readers import MODELS, spectrum, statistics, trained
from trabecula.errors import InputError
from trabecula.phantoms import chest
from trabecula.phantoms.chest import draw_chest, draw_person, findings_of, radiograph_with, shadow, view_of
from trabecula.phantoms.chest_anatomy import LEFT, RIGHT, SIDES, ChestAnatomy, Lung
from trabecula.phantoms.chest_findings import FINDINGS, NIH_IMAGES, ChestSettings, prevalence
from trabecula.phantoms.patients import stream
from trabecula.phantoms.radiograph import MOST_PATIENTS, Pictures
from trabecula.phantoms.shapes import frame

NAMES = tuple(FINDINGS)
USUAL = ChestSettings()


@cache
def many() -> NDArray[np.bool_]:
    """(patients, 2, findings) of the first two films of patients."""
    settings = Pictures(seed=3)
    found = [[findings_of(settings, USUAL, p, film) for film in (0, 1)] for p in range(12_000)]
    return np.array([[[name in one for name in NAMES] for one in films] for films in found])


def test_findings_are_as_common_as_in_nih() -> None:
    """Within four standard errors of 24,000 films, two of a patient counted as one."""
    share = many().mean(axis=(0, 1))
    for name, found in zip(NAMES, share, strict=True):
        wanted = FINDINGS[name].images / NIH_IMAGES
        assert abs(found - wanted) < 4 * (wanted / 12_000) ** 0.5, name
    none = 1 - many().any(axis=2).mean()
    assert 0.45 < none < 0.60  # 60,361 of 112,120 in NIH


@pytest.mark.parametrize(
    "pair",
    [
        ("Atelectasis", "Effusion"), ("Cardiomegaly", "Effusion"), ("Edema", "Pneumonia"), ("Mass", "Nodule"),
        ("Emphysema", "Pneumothorax"), ("Consolidation", "Effusion"), ("Infiltration", "Edema"),
        ("Fibrosis", "Pleural_Thickening"),
    ],
)  # fmt: skip
def test_what_comes_together_in_nih_comes_together_here(pair: tuple[str, str]) -> None:
    one, other = (many()[:, :, NAMES.index(name)] for name in pair)
    assert (one & other).mean() > 1.4 * one.mean() * other.mean()


def test_a_hernia_comes_alone_as_often_as_chance_has_it() -> None:
    assert FINDINGS["Hernia"].loads == (0.0,) * 5
    one, other = (many()[:, :, NAMES.index(name)].ravel() for name in ("Cardiomegaly", "Emphysema"))
    assert (one & other).mean() < 1.2 * one.mean() * other.mean()


def test_chronic_findings_last_and_acute_ones_pass() -> None:
    """Of the films after one with a finding, how many have it."""

    def again(name: str) -> float:
        first, second = many()[:, :, NAMES.index(name)].T
        return float(second[first].mean())

    assert min(again("Cardiomegaly"), again("Emphysema")) > 0.35
    assert max(again("Pneumonia"), again("Edema")) < 0.25
    assert again("Infiltration") < 2.2 * prevalence("Infiltration", 1.0)
    assert again("Cardiomegaly") > 2 * again("Edema")


def test_odds_make_findings_more_common() -> None:
    for name in NAMES:
        assert prevalence(name, 1.0) == pytest.approx(FINDINGS[name].images / NIH_IMAGES)
        share = prevalence(name, 4.0)
        assert share / (1 - share) == pytest.approx(4 * prevalence(name, 1.0) / (1 - prevalence(name, 1.0)))
    rich = [len(findings_of(Pictures(), ChestSettings(odds=6), p, 0)) for p in range(300)]
    none = [len(findings_of(Pictures(), ChestSettings(odds=0), p, 0)) for p in range(300)]
    assert np.mean(rich) > 2
    assert max(none) == 0


def test_patients_have_one_film_or_several() -> None:
    numbers = np.array([draw_person(Pictures(), ChestSettings(images=3), p).num_images for p in range(3000)])
    assert numbers.mean() == pytest.approx(3, abs=0.2)
    assert numbers.min() == 1
    assert numbers.max() > 8
    assert {draw_person(Pictures(), ChestSettings(images=1), p).num_images for p in range(50)} == {1}
    assert draw_person(Pictures(), USUAL, 0).patient_id == "1000001"
    with pytest.raises(InputError, match="phantoms have patients 0 to"):
        draw_person(Pictures(), USUAL, MOST_PATIENTS)


def test_nothing_in_the_table_knows_the_findings() -> None:
    settings = Pictures(seed=3)
    people = [draw_person(settings, USUAL, p) for p in range(3000)]
    columns = {
        "sex": [p.sex == "F" for p in people],
        "age": [p.age for p in people],
        "films": [p.num_images for p in people],
        "view": [view_of(settings, p, 0) == "AP" for p in range(3000)],
    }
    for name in ("Effusion", "Infiltration", "Mass"):
        has = many()[:3000, 0, NAMES.index(name)].astype(float)
        for column, values in columns.items():
            assert abs(np.corrcoef(has, np.array(values, float))[0, 1]) < 4.5 / 3000**0.5, (name, column)


def test_a_film_is_a_function_of_seed_patient_and_number() -> None:
    settings = Pictures(size=40, seed=3)
    one = draw_chest(settings, USUAL, 7, 0)
    draw_chest(settings, USUAL, 1, 1)
    again = draw_chest(Pictures(size=40, seed=3, num_patients=9999), ChestSettings(images=9), 7, 0)
    assert one.image.shape == (40, 40)
    assert one.image.dtype == np.uint8
    assert np.array_equal(one.image, again.image)
    assert one.findings == again.findings
    assert not np.array_equal(one.image, draw_chest(settings, USUAL, 7, 1).image)
    assert not np.array_equal(one.image, draw_chest(settings, USUAL, 8, 0).image)
    assert not np.array_equal(one.image, draw_chest(Pictures(size=40, seed=4), USUAL, 7, 0).image)


def test_without_effect_the_picture_does_not_know_the_findings() -> None:
    """The planted null, exactly: other findings, same bytes."""
    for patient in range(3):
        films = [
            radiograph_with(Pictures(size=40, effect=0), USUAL, patient, 0, found)
            for found in ((), NAMES, NAMES[:3])
        ]
        assert len({film.image.tobytes() for film in films}) == 1


def test_every_finding_changes_the_picture_and_none_the_histogram() -> None:
    for patient in range(2):
        films = [
            radiograph_with(Pictures(size=48), USUAL, patient, 0, found)
            for found in ((), *((name,) for name in NAMES))
        ]
        assert len({film.image.tobytes() for film in films}) == 1 + len(NAMES)
        histograms = [np.bincount(film.image.ravel(), minlength=256) for film in films]
        assert all(np.array_equal(histograms[0], other) for other in histograms[1:])


def test_one_finding_moves_no_other() -> None:
    """What a mass adds to a shadow is the same, be there a hernia or not."""
    settings = Pictures(size=48)
    alone, both, hernia, none = (
        shadow(settings, 5, 0, found, True, "PA")
        for found in (("Mass",), ("Mass", "Hernia"), ("Hernia",), ())
    )
    np.testing.assert_allclose(both - hernia, alone - none, atol=2e-5)


def test_a_lasting_finding_stays_where_it_is() -> None:
    """The mass of one patient is at one place in the lung on all films, another patient's is elsewhere."""

    def place(patient: int, number: int) -> NDArray[np.floating]:
        settings = Pictures(size=32)
        added = np.abs(
            shadow(settings, patient, number, ("Mass",), True, "PA")
            - shadow(settings, patient, number, (), True, "PA")
        )
        rows, columns = np.indices(added.shape)
        return np.array([(added * rows).sum(), (added * columns).sum()]) / added.sum() / 32 - 1

    of = [[place(patient, number) for number in (0, 1)] for patient in range(8)]
    moved = [float(np.hypot(*(one - other))) for one, other in of]
    apart = [float(np.hypot(*(of[p][0] - of[p + 1][0]))) for p in range(7)]
    assert np.median(moved) < 0.15
    assert np.median(apart) > 0.3


# Where at least the given part of what a finding changes lies: (lowest v, highest v, a from, a to).
PLACES = {
    "Atelectasis": (-0.3, 1.0, 0.0, 0.95, 0.85),
    "Cardiomegaly": (-0.3, 0.75, 0.0, 0.65, 0.85),
    "Effusion": (-0.2, 1.0, 0.0, 0.9, 0.9),
    "Infiltration": (-0.8, 0.8, 0.0, 0.9, 0.95),
    "Mass": (-0.8, 0.7, 0.05, 0.85, 0.95),
    "Nodule": (-0.8, 0.7, 0.05, 0.85, 0.95),
    "Pneumonia": (-0.8, 0.8, 0.0, 0.9, 0.95),
    "Pneumothorax": (-0.9, 0.6, 0.1, 0.9, 0.9),
    "Consolidation": (-0.8, 0.8, 0.0, 0.9, 0.95),
    "Edema": (-0.7, 0.75, 0.0, 0.9, 0.95),
    "Emphysema": (-1.0, 1.0, 0.0, 0.95, 0.9),
    "Fibrosis": (-0.9, 0.9, 0.0, 0.9, 0.9),
    "Pleural_Thickening": (-0.9, 0.8, 0.08, 0.9, 0.9),
    "Hernia": (0.0, 0.8, 0.0, 0.4, 0.9),
}


@pytest.mark.parametrize("finding", NAMES)
def test_what_a_finding_changes_lies_where_its_sign_should_be(finding: str) -> None:
    """The same chest with and without it, before blur and noise: only those places differ much."""
    low, high, near, far, least = PLACES[finding]
    for patient in range(6):
        settings = Pictures(size=48)
        bare, signed = (shadow(settings, patient, 0, found, True, "PA") for found in ((), (finding,)))
        shape, pose = (stream(0, patient, chest._ANATOMY, *key) for key in ((), (1,)))
        anatomy = ChestAnatomy(shape, pose, True)
        u, v = frame(96, anatomy.shift, anatomy.scale, anatomy.rotation)
        changed = np.abs(signed - bare)
        assert changed.max() > 0.08, patient
        here = (v > low) & (v < high) & (np.abs(u) > near) & (np.abs(u) < far)
        assert changed[here].sum() > least * changed.sum(), patient
        if finding in ("Mass", "Nodule", "Effusion", "Consolidation", "Pneumonia"):
            lungs = [Lung(anatomy, side, u, v) for side in SIDES]
            inside = sum(lung.depth * (np.sign(u) == lung.side) > -0.03 for lung in lungs)
            assert (signed - bare)[inside > 0].sum() > 0.85 * changed.sum(), patient  # denser, in a lung


def test_signs_of_size_have_the_size() -> None:
    """Nodules are smaller than masses, a big heart is wider, emphysema lowers the diaphragm."""
    settings = Pictures(size=48)
    area = {}
    for name in ("Mass", "Nodule"):
        added = [
            np.abs(shadow(settings, p, 0, (name,), True, "PA") - shadow(settings, p, 0, (), True, "PA"))
            for p in range(10)
        ]
        area[name] = np.mean([(one > 0.4 * one.max()).mean() for one in added])
    assert area["Mass"] > 2.5 * area["Nodule"]

    def changed(strengths: dict[str, float], collapsed: int) -> ChestAnatomy:
        anatomy = ChestAnatomy(np.random.default_rng(0), np.random.default_rng(1), True)
        anatomy.change(strengths, collapsed)
        return anatomy

    anatomy, large = changed({}, RIGHT), changed({"Cardiomegaly": 1.0}, RIGHT)
    thorax = 2 * Lung(anatomy, RIGHT, *frame(8, (0, 0), 1, 0)).wall.at(0.3)
    assert 2 * anatomy.heart[2] / thorax < 0.5 < 2 * large.heart[2] / thorax  # the cardiothoracic ratio
    open_ = changed({"Emphysema": 1.0}, RIGHT)
    assert min(np.subtract(open_.domes, anatomy.domes)) > 0.05
    collapsed = changed({"Atelectasis": 1.0}, LEFT)
    assert collapsed.domes[1] < anatomy.domes[1]
    assert collapsed.domes[0] == anatomy.domes[0]


READ = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Pneumothorax",
    "Consolidation",
    "Edema",
)


@cache
def cohort(num_patients: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One film each of patients in whom findings are common: images, and (n, findings)."""
    own, settings = ChestSettings(odds=5), Pictures(size=size, seed=5)
    films = [draw_chest(settings, own, p, 0) for p in range(num_patients)]
    found = np.array([[name in film.findings for name in NAMES] for film in films])
    return np.stack([film.image for film in films]), found


@pytest.mark.parametrize(("describe", "most"), [(statistics, 0.56), (spectrum, 0.77)])
def test_no_global_statistic_gives_the_findings_away(describe, most: float) -> None:  # type: ignore[no-untyped-def]
    """Macro AUROC over findings of 400 films, five folds."""
    images, found = cohort(400, 48)
    features = np.stack([describe(image) for image in images])
    areas = []
    for column in found.T[[NAMES.index(name) for name in READ]].astype(int):
        p = cross_val_predict(
            MODELS["logistic"](),
            features,
            column,
            groups=np.arange(400),
            cv=GroupKFold(5),
            method="predict_proba",
        )
        areas.append(roc_auc_score(column, p[:, 1]))
    assert np.mean(areas) < most


def network_reads(num_train: int, num_images: int, epochs: int) -> list[float]:
    """AUROC of each finding in READ of a small network taught by the first films, over the last 500."""
    import torch

    images, found = cohort(num_images, 64)
    x = torch.from_numpy(images.copy()).float().div(255).unsqueeze(1)  # (n, 1, S, S)
    x = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)
    y = torch.from_numpy(found[:, [NAMES.index(name) for name in READ]].astype(np.float32))
    scores = trained(x[:num_train], y[:num_train], epochs)(x[-500:]).numpy()
    return [roc_auc_score(y[-500:, k], scores[:, k]) for k in range(len(READ))]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_small_network_reads_the_signs_of_many_films_better_than_of_few() -> None:
    """Macro AUROC over 500 films of other patients: 2,000 labelled films teach more than 100 do."""
    few, many_ = network_reads(100, 2500, epochs=60), network_reads(2000, 2500, epochs=15)
    assert min(many_) > 0.70
    assert np.mean(many_) > 0.87
    assert 0.65 < np.mean(few) < np.mean(many_) - 0.08
