"""Generators in the report: drawn are the numbers of fidelity.json and explain.json, in their places."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from generator_records import explain_record, fidelity_record, write_explained, write_fidelity
from trabecula.errors import InputError
from trabecula.figures.charts import Chart, chart_file
from trabecula.sections.explanations import climb_chart, units_chart
from trabecula.sections.generators import distance_chart, read_explained, read_generators


def marks(chart: Chart, style: str) -> list[tuple[float, float]]:
    found = re.findall(rf'<circle class="mark {style}" cx="([\d.]+)" cy="([\d.]+)"', chart.svg)
    return [(float(x), float(y)) for x, y in found]


def test_distances_are_drawn_where_they_are() -> None:
    record = fidelity_record()
    chart = distance_chart("gan", record, "fd")
    assert chart is not None
    assert [name for name, _ in chart.legend] == [
        "against training images", "against held-out validation images", "against test images",
        "between two sets of real images",
    ]  # fmt: skip
    train, val, test = (marks(chart, f"arm-{k}") for k in range(3))
    assert (len(train), len(val), len(test)) == (3, 3, 1)
    assert [x for x, _ in train] == sorted(x for x, _ in train)
    # Pixels go linearly with values: 60, 40, 30 against training images.
    (_, a), (_, b), (_, c) = train
    assert (b - a) / (c - b) == pytest.approx((60 - 40) / (40 - 30), rel=0.01)
    assert val[-1][1] < train[-1][1]  # a greater distance stands higher
    assert 'class="line arm-random"' in chart.svg  # the floor
    assert distance_chart("gan", {**record, "points": record["points"][-1:]}, "fd") is None


def test_a_folder_becomes_charts_and_facts(tmp_path: Path) -> None:
    (one,) = read_generators([write_fidelity(tmp_path / "f")])
    titles = [chart.title for chart in one.charts]
    assert titles == [
        "Fréchet distance (FD[random_conv])", "Recall", "What the critic scores", "Overfit gap of the critic",
        "Overfit gap, by the distance of real and fake",
    ]  # fmt: skip
    assert one.facts == [
        ("finding", "no sign of copying"), ("authenticity of the fakes", "0.910 (0.800 to 0.950)"),
    ]  # fmt: skip
    assert "Extractor: random_conv" in one.note
    (seen,) = read_explained([write_explained(tmp_path / "e")])
    assert [chart.title for chart in seen.charts] == [
        "The critic's score on the way up",
        "Units that go with kl2",
    ]
    assert list(seen.pictures) == ["maximise.png"]
    for chart in (*one.charts, *seen.charts):
        drawing = chart_file(chart)
        assert drawing.startswith("<svg")
        assert "nan" not in chart.svg
        for kind, style in set(re.findall(r'class="(line|mark|band|whisker) (arm-\w+)"', drawing)):
            assert f".{kind}.{style}{{" in drawing  # without its rule a line is a black shape


def test_several_of_one_arm_are_told_apart(tmp_path: Path) -> None:
    twice = read_generators([write_fidelity(tmp_path / "a"), write_fidelity(tmp_path / "b")])
    assert [one.name for one in twice] == ["Generator, number 1", "Generator, number 2"]
    folders = [write_explained(tmp_path / name) for name in ("c", "d", "e")]
    for seed, folder in zip((0, 0, 1), folders, strict=True):
        record = explain_record()
        for part in ("maximise", "units"):
            record[part] |= {"pretrain_seed": seed, "images_seen": 100 + len(folder.name) * ord(folder.name)}
        (folder / "explain.json").write_text(json.dumps(record))
    names = [one.name for one in read_explained(folders)]
    assert names == [
        "critic-wgan_gp, seed 0, 199 images",
        "critic-wgan_gp, seed 0, 200 images",
        "critic-wgan_gp, seed 1",
    ]
    assert read_explained(folders)[2].charts[0].heading == "critic-wgan_gp, seed 1"


def test_small_distances_are_drawn_in_thousandths() -> None:
    record = fidelity_record()
    small = {
        **record,
        "points": [{**p, "value": p["value"] / 1e5, "low": None, "high": None} for p in record["points"]],
    }
    chart, large = distance_chart("gan", small, "fd"), distance_chart("gan", record, "fd")
    assert chart is not None
    assert large is not None
    assert "Fréchet distance × 1,000" in chart.svg
    assert "×" not in large.svg


def test_climb_and_units_say_the_numbers() -> None:
    record = explain_record()
    climb = climb_chart(record["maximise"])
    assert climb.svg.count('class="line arm-0"') == 2
    assert "From -1 to 9 in 2 steps" in climb.svg
    units = units_chart(record["units"])
    assert "den Boer 2025: none above 0.2" in units.svg
    assert len(marks(units, "arm-0")) == 2
    assert len(marks(units, "arm-1")) == 1
    assert "12 images of 6 training and validation patients" in units.note


@pytest.mark.parametrize("part", ["points", "critic"])
def test_a_file_that_lacks_a_key_is_refused(part: str, tmp_path: Path) -> None:
    folder = write_fidelity(tmp_path / "f")
    record: dict[str, Any] = json.loads((folder / "fidelity.json").read_text())
    del record[part][0]["images"]
    (folder / "fidelity.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=f"{part} has no 'images'"):
        read_generators([folder])
    with pytest.raises(InputError, match=r"explain\.json: no such file"):
        read_explained([folder])
    (folder / "explain.json").write_text("{}")
    with pytest.raises(InputError, match="holds nothing"):
        read_explained([folder])
