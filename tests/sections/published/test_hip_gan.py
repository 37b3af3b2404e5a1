"""The hip GAN's numbers beside a study's: the paper's as printed and marked, ours from our files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from evaluated_study import write_manifest, write_results
from generator_records import write_explained, write_fidelity, write_search
from report_page import Balance, visible
from trabecula.errors import InputError
from trabecula.report import Config
from trabecula.run import execute
from trabecula.sections.formats import Table
from trabecula.sections.generators import read_explained, read_generators
from trabecula.sections.numbers import number
from trabecula.sections.published import TABLES
from trabecula.sections.published.paper import OURS, StudyFiles, read_paper
from trabecula.sections.published.searches import read_head_searches
from trabecula.sections.results import Results, read_results

TEXT = Path(__file__).parents[4] / "shared" / "papers" / "hip-gan.md"
PAPER = read_paper("hip-gan")


def table(name: str, results: Results, **files: Any) -> Table:
    published = PAPER.table(name)
    return TABLES[published.ours](PAPER, published, StudyFiles(results, **files))


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return read_results(write_results(tmp_path / "results"))


def texts(table: Table) -> list[list[str]]:
    return [[cell.plain.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in table.rows]


@pytest.mark.skipif(not TEXT.exists(), reason="the paper's text is not here")
def test_the_papers_numbers_stand_in_the_paper() -> None:
    text = re.sub(r"[\s$\\]+", " ", TEXT.read_text())
    for phrase in (
        "gets AUC of 0.72 vs the control which got an AUC of 0.68", "The AUC of this model is 0.734",
        "this was 0.727", "training set it is 47.855", "testing set it is 47.030", "gap is 0.824",
        "over 2024 fake images", "per 10 epochs", "200 epochs", "no neurons are more than 0.2 correlated",
        "From this set 50 models were sampled",
    ):  # fmt: skip
        assert phrase in text
    printed = {row.values[i] for row in PAPER.table("Figure 6").rows for i in (1, 2)}
    assert printed == {"0.72", "0.68", "0.734", "0.727"}
    assert PAPER.table("Section 5.2").rows[0].values == ("47.855", "47.030\ntest", "–", "0.824", "–")
    for row in PAPER.table("Table 1").rows:
        assert f"{row.label} [{', '.join(row.values)}]" in text
    rest = text[text.index("Layers Details") :]
    for row in PAPER.table("Table 2").rows:
        wanted = f"{row.label} {' '.join(row.values).replace('→', 'rightarrow') or '-'}"
        assert wanted in rest
        rest = rest[rest.index(wanted) + len(wanted) :]


def test_fine_tuning_shows_our_values_beside_the_papers(results: Results) -> None:
    rows = texts(table("Figure 6", results))
    assert rows[0] == [PAPER.mark, "the critic as it is (Figure 6)", "all", "0.72", "0.68", "+0.040", "1"]
    assert rows[1][3:6] == ["0.734", "0.727", "+0.007"]
    ours = [row for row in rows if row[0] == OURS]
    assert ours
    assert not any("resnet" in cell.lower() for row in ours for cell in row)
    row = next(
        r for r in results.summaries
        if (r["arm"], r["mode"], r["metric"], r["fraction"]) == ("critic-wgan_gp", "finetune", "auroc", 1.0)
    )  # fmt: skip
    assert any(number(row["value"]) in line[3] and line[2] == "100 %" for line in ours)
    assert all("probe" not in line[1] for line in ours)


def test_overfit_units_and_heads(results: Results, tmp_path: Path) -> None:
    generators = read_generators([write_fidelity(tmp_path / "f")])
    explained = read_explained([write_explained(tmp_path / "e")])
    searches = (
        write_search(tmp_path / "a", "critic-wgan_gp", (0.7, 0.6, 0.8)),
        write_search(tmp_path / "b", "critic-random", (0.6, 0.65, 0.5)),
    )
    overfit = texts(table("Section 5.2", results, generators=generators))
    assert overfit[0][2:4] == ["47.855", "47.030 test"]
    assert overfit[1] == [
        OURS, "Generator, 12,000 images", "6.000", "4.500 validation", "−3.000", "1.500", "0.167",
    ]  # fmt: skip
    units = texts(table("Section 7", results, explained=explained))
    assert [row[3] for row in units[1:]] == ["−0.310 act3", "+0.400 act3"]
    assert units[2][4] == "1 of 8"
    table_1 = {row[0]: row[2] for row in texts(table("Table 1", results, searches=searches))}
    assert table_1["Depth"] == "1: 4, 2: 2"
    assert table_1["Nonlinearity"] == "Tanh: 6, none: 2"
    assert table_1["Layer size"] == "16: 2, 32: 2, 64: 2, 128: 2"
    table_2 = table("Table 2", results, searches=searches)
    assert [row[1].text for row in table_2.rows][:6] == [
        "Linear features → 64", "BatchNorm1d 64", "Tanh", "Linear 64 → 128", "Dropout p = 0.2",
        "Linear 128 → 1",
    ]  # fmt: skip
    assert table_2.rows[0][0].text == "Linear 25088 → 64"
    (pair,) = texts(table("Same heads", results, searches=searches))
    assert pair == ["critic-wgan_gp", "critic-random", "10 %", "3", "2", "1"]


def test_what_was_not_run_is_said_and_the_paper_still_shown(results: Results) -> None:
    for name in ("Section 5.2", "Section 7"):
        rows = texts(table(name, results))
        assert rows[0][0] == PAPER.mark
        assert rows[1][1].startswith("not run")
    assert [row[2] for row in texts(table("Table 1", results))] == ["not run"] * 5
    assert len(table("Table 2", results).rows) == len(PAPER.table("Table 2").rows) == 13
    assert table("Same heads", results).rows == []


def test_searches_that_are_none_are_refused(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "a", "arm", (0.5,))
    (folder / "trials.csv").unlink()
    with pytest.raises(InputError, match=r"no trials\.csv"):
        read_head_searches([folder])
    (folder / "chosen.json").write_text(json.dumps({"arm": "x"}))
    (folder / "trials.csv").write_text("trial\n")
    with pytest.raises(InputError, match="does not say whose labels"):
        read_head_searches([folder])
    with pytest.raises(InputError, match="no such file"):
        read_head_searches([tmp_path])


def test_generators_and_the_paper_stand_in_the_page_when_given(tmp_path: Path) -> None:
    plain = Config(results=write_results(tmp_path / "results"), manifest=write_manifest(tmp_path / "data"))
    more = plain.model_copy(
        update={
            "fidelity": (write_fidelity(tmp_path / "f"),),
            "explained": (write_explained(tmp_path / "e"),),
            "searches": (write_search(tmp_path / "s", "critic-wgan_gp", (0.7, 0.6)),),
            "paper": "hip-gan",
        }
    )
    execute("report", more, tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    balance = Balance()
    balance.feed(page)
    assert (balance.wrong, balance.open) == ([], [])
    assert len(balance.ids) == len(set(balance.ids))
    text = visible(page)
    for phrase in ("0.734", "47.855", "Overfit gap of the critic", "12,000 images", "Linear 25088 → 64"):
        assert phrase in text
    assert text.count(PAPER.mark) > 5
    assert "no sign of copying" in text
    assert "SECRET" not in page  # which images fakes are near to is for the site alone
    assert page.count("data:image/png") == 1  # each picture once: a page is to be sent by mail
    written = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"hip_gan.md", "hip_gan.tex", "generator-overfit-gap-of-the-critic.svg"} < written
    for name in ("hip_gan.md", "hip_gan.tex"):
        assert "47.855" in (tmp_path / "out/tables" / name).read_text()
    execute("report", plain, tmp_path / "plain")
    without = (tmp_path / "plain/report.html").read_text()
    assert 'id="generator"' not in without
    assert PAPER.mark not in without
