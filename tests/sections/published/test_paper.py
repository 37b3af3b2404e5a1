"""A paper is added by its data file: here Table 1 of Mustafa (histopathology, distances of generators)."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluated_study import write_results
from generator_records import write_fidelity
from trabecula.errors import InputError
from trabecula.sections.generators import read_generators
from trabecula.sections.published import BLOCKS, TABLES, published_section
from trabecula.sections.published.paper import StudyFiles, read_paper
from trabecula.sections.results import read_results

FILE = """
name = "Histo RL-EO"
title = "Histo RL-EO: the paper's tables, and this study's"
mark = "Mustafa (paper)"
intro = "Numbers marked so are the paper's own."
[[blocks]]
table = "Table 1"
[[tables]]
name = "Table 1"
title = "Table 1: FID by generator"
ours = "generators"
places = ["points.fd.test", "points.fd.val"]
columns = ["Whose", "Generator", "FID", "FID of validation images"]
heads = 2
missing = "no fidelity folder was given"
rows = [
  { label = "WGAN-GP", values = ["376.57", "–"] },
  { label = "Our Solution", values = ["44.04", "–"] },
]
"""


def test_a_paper_of_generators_needs_a_data_file_alone(tmp_path: Path) -> None:
    (tmp_path / "histo_rleo.toml").write_text(FILE)
    results = read_results(write_results(tmp_path / "results"))
    generators = read_generators([write_fidelity(tmp_path / "fidelity")])
    (table,) = (
        block.content
        for block in published_section("histo-rleo", StudyFiles(results, generators), tmp_path).blocks
        if block.kind == "table"
    )
    assert [[cell.plain for cell in row] for row in table.rows] == [
        ["Mustafa (paper)", "WGAN-GP", "376.57", "–"],
        ["Mustafa (paper)", "Our Solution", "44.04", "–"],
        ["this study", "Generator, 12,000 images", "37.000", "38.000 [36.000 to 40.000]"],
    ]
    bare = published_section("histo-rleo", StudyFiles(results), tmp_path)
    assert bare.blocks[-1].content.rows[-1][1].plain == "not run no fidelity folder was given"


def test_a_mistyped_key_of_a_data_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "typed.toml").write_text(FILE.replace("heads = 2", "haeds = 2"))
    with pytest.raises(InputError, match=r"typed\.toml: .*haeds") as caught:
        read_paper("typed", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["hip-gan", "knee-ssl"])
def test_what_a_data_file_names_is_there(name: str) -> None:
    paper = read_paper(name)
    assert {block.show for block in paper.blocks} <= {"", *BLOCKS}
    assert {table.ours for table in paper.tables} <= {"arms", *TABLES}
    names = [table.name for table in paper.tables]
    assert len(names) == len(set(names))
    assert {block.table for block in paper.blocks} <= {"", *names}
