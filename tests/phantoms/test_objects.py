"""Objects: balanced kinds in Imagenette's folders, told apart by outline, read as grey or in colour."""

from __future__ import annotations

from collections import Counter
from colorsys import rgb_to_hsv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trabecula import cohort, phantom, prepare
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.errors import InputError
from trabecula.phantoms.objects import KINDS, _surface, draw_object, object_of
from trabecula.run import execute


def test_kinds_are_balanced_in_both_parts() -> None:
    places = Counter(object_of(number) for number in range(200))
    assert {part for part, _ in places} == {"train", "val"}
    assert all(places["train", kind] == 14 and places["val", kind] == 6 for kind in KINDS)


def test_an_object_is_a_function_of_size_seed_and_number() -> None:
    first = draw_object(32, 0, 5)
    assert first.image.shape == (32, 32, 3)
    assert first.kind == object_of(5)[1]
    assert (first.image == draw_object(32, 0, 5).image).all()
    assert (first.image != draw_object(32, 1, 5).image).any()
    assert np.ptp(first.image.astype(int), axis=2).max() > 20  # it has colour


def test_outlines_differ_and_are_neither_empty_nor_whole() -> None:
    along = np.linspace(-1.3, 1.3, 80, dtype=np.float32)
    u, v = np.meshgrid(along, along)
    masks = {kind: draw(u, v) > 0 for kind, draw in KINDS.items()}
    assert all(0.05 < mask.mean() < 0.5 for mask in masks.values())
    assert not any(mask[0].any() or mask[:, 0].any() for mask in masks.values())  # all within the frame
    names = list(masks)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            assert (masks[one] != masks[other]).mean() > 0.05, (one, other)


def test_most_of_a_kind_share_a_hue_and_no_kind_owns_it() -> None:
    rng, place = np.random.default_rng(0), np.zeros((1, 1), dtype=np.float32)
    for habit in (0, 3, 6):  # plain ones
        hues = [rgb_to_hsv(*_surface(place, place, habit, rng)[0, 0])[0] for _ in range(300)]
        near = np.abs((np.array(hues) - habit / 10 + 0.5) % 1 - 0.5) < 0.1
        assert 0.6 < near.mean() < 0.85


def test_a_folder_as_imagenettes_is_read_each_file_a_patient(tmp_path: Path) -> None:
    drawn = phantom.Config(kind="objects", num_patients=40, size=32)
    assert execute("phantom", drawn, tmp_path / "objects").startswith("40 objects")
    root = tmp_path / "objects" / "images"
    assert sorted(path.name for path in root.iterdir()) == ["train", "val"]
    given = cohort.Config(root=root, pattern="{part}/{object}/{patient_id}.*", prefix="natural-")
    execute("cohort", given, tmp_path / "cohort")
    manifest = read_manifest(tmp_path / "cohort")
    assert manifest.table["patient_id"].nunique() == 40
    assert set(manifest.table["object"]) == set(KINDS)
    bare = execute("cohort", cohort.Config(root=root), tmp_path / "bare")  # any folder, without a pattern
    assert "40 images of 40 patients; no patient ids: each image counts as its own patient" in bare
    execute("prepare", prepare.Config(manifest=tmp_path / "cohort", size=32), tmp_path / "grey")
    execute("prepare", prepare.Config(manifest=tmp_path / "cohort", size=32, channels=3), tmp_path / "colour")
    grey, colour = (Store.open(tmp_path / name) for name in ("grey", "colour"))
    for row in (0, 17, 39):
        image = Image.open(manifest.resolve(row))
        assert (grey.read([row])[0, 0].numpy() == np.asarray(image.convert("L"))).all()  # luminance
        assert (colour.read([row])[0].numpy() == np.moveaxis(np.asarray(image), 2, 0)).all()


def test_objects_take_no_grades() -> None:
    for settings in ({"prevalence": [1, 0, 0, 0, 0]}, {"num_unlabelled_patients": 3}):
        with pytest.raises(InputError, match="no grade: give num_patients alone"):
            build(phantom.Config, {"kind": "objects", **settings}, "phantom")
