"""The knee paper's numbers beside a study's: the paper's as printed and marked, ours from our files."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evaluated_study import write_manifest, write_results, write_store
from generator_records import write_chosen
from knee_ssl_study import (
    CHESTS,
    DOMAINS,
    FRACTIONS,
    KNEES,
    MASKS,
    METHODS,
    OBJECTS,
    SIZES,
    arm,
    level,
    write_runs,
    write_spectrum,
    write_study,
)
from report_page import Balance, visible
from trabecula.errors import InputError
from trabecula.figures.charts import Chart
from trabecula.report import Config
from trabecula.run import execute
from trabecula.sections.formats import Table
from trabecula.sections.published import BLOCKS, published_section
from trabecula.sections.published.arms import ArmTable, arm_tables
from trabecula.sections.published.figures import drawn
from trabecula.sections.published.paper import StudyFiles, read_paper
from trabecula.sections.results import Results, read_results

TEXT = Path(__file__).parents[4] / "shared" / "papers" / "knee-ssl.md"
PAPER = read_paper("knee-ssl")
TABLES = [table for table in PAPER.tables if table.ours == "arms"]
MARK = "(paper)"


@dataclass
class Beside:
    """What stands beside the paper, part by part."""

    study: StudyFiles

    @property
    def parts(self) -> list[ArmTable]:
        return arm_tables(PAPER, self.study)

    @property
    def figures(self) -> list[tuple[str, str, list[Chart]]]:
        return [(figure.name, figure.text, charts) for figure, charts in drawn(PAPER, self.study)]

    def words(self, name: str) -> list[str]:
        return [block.content for block in BLOCKS[name](PAPER, self.study)]

    @property
    def searches(self) -> Table:
        (block,) = BLOCKS["searches"](PAPER, self.study)
        assert isinstance(block.content, Table)
        return block.content


def beside(
    results: Results, runs: Sequence[Path] = (), store: Path | None = None, **more: Sequence[Path]
) -> Beside:
    return Beside(StudyFiles(results, runs=runs, store=store, **more))  # type: ignore[arg-type]


def texts(table: Table) -> list[list[str]]:
    return [[cell.plain.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in table.rows]


def section(
    folder: Path,
    arms: Sequence[Mapping[str, Any]],
    asked: Mapping[str, Any] = KNEES,
    modes: Sequence[str] = ("probe", "finetune"),
    spectra: Sequence[Path] = (),
) -> Beside:
    store = write_store(folder / "store")
    results = read_results(write_study(folder / "results", arms, asked, modes))
    return beside(results, write_runs(folder / "runs", arms, store, asked), store, spectra=spectra)


def names(found: Beside) -> list[str]:
    return [part.name for part in found.parts] + [name for name, _, _ in found.figures]


@pytest.mark.skipif(not TEXT.exists(), reason="the paper's text is not here")
def test_the_papers_numbers_stand_in_the_paper() -> None:
    text = TEXT.read_text()
    rows = [
        "| " + " | ".join([line.label, *(printed or "-" for printed in line.values)]) + " |"
        for table in TABLES
        for line in table.rows
    ]
    assert [row for row in rows if row not in text] == []
    assert len(rows) == 6 + 3 + 9 + 7 + 6
    for phrase in (
        "57,325 extracted bilateral knee joint radiographs", "10 independent random seeds", "50 trials",
        "Full (1.2M) to 58k resulted in negligible degradation (e.g., 0.648 vs. 0.627 at 10% data)",
        "from 6k to 58k also yielded minimal gains (e.g., 0.627 vs. 0.636 at 10% data)",
        "(0.844) with just 10% labeled data", "93.0% of the pretraining data was estimated to be KL Grade 3",
        "even when 60% of the image was masked",
    ):  # fmt: skip
        assert phrase in text


def test_each_printed_row_fits_its_columns() -> None:
    for table in TABLES:
        for line in table.rows:
            assert len(line.values) == len(table.columns)
    table_3, table_a1 = PAPER.table("Table 3"), PAPER.table("Table A.1")
    moco = table_3.rows[2]
    assert table_3.value(moco, "finetune", 0.1) == (0.636, 0.012)
    assert table_3.value(moco, "probe", 0.1) == (0.422, None)  # printed without an SD
    assert table_a1.value(table_a1.rows[-1], "probe", 0.1) is None


def test_table_3_has_this_studys_arms_and_then_the_papers(tmp_path: Path) -> None:
    found = section(tmp_path, METHODS)
    assert names(found) == ["Table 3, kl"]
    table = found.parts[0].values
    assert [c.replace("\N{NO-BREAK SPACE}", " ") for c in table.columns] == [
        "Network", "Approach", "FT, 1 %", "LP, 1 %", "FT, 5 %", "LP, 5 %", "FT, 10 %", "LP, 10 %",
    ]  # fmt: skip
    rows = texts(table)
    ours = [row for row in rows if MARK not in row[0]]
    assert [row[:2] for row in ours] == [
        ["ResNet-18", "Random"], ["ResNet-18", "ImageNet"], ["ResNet-18", "MoCo"],
        ["ResNet-18", "Barlow Twins"], ["critic", "Random"],
    ]  # fmt: skip
    assert ours[2][2:] == [
        "0.410 (0.012) [0.380 to 0.440]", "0.310 (0.012) [0.280 to 0.340]", "–", "–",
        "0.460 (0.012) [0.430 to 0.490]", "0.360 (0.012) [0.330 to 0.390]",
    ]  # fmt: skip
    paper = rows[len(ours) :]
    assert [row[0] for row in paper] == [f"ResNet-34 {MARK}"] * 6
    assert paper[2][1:] == [
        "MoCo (Knee)", "0.475 (0.050)", "0.368 †", "0.606 (0.010)", "0.411 †", "0.636 (0.012)", "0.422 †",
    ]  # fmt: skip
    assert "This study: 804 test images · 402 patients · 10 seeds." in table.note
    assert all(row[1].style for row in table.rows[: len(ours)])
    assert not any(row[1].style for row in table.rows[len(ours) :])
    assert table.num_published == len(paper)
    assert not any(cell.strong for row in table.rows[len(ours) :] for cell in row)
    bold = {row[1].text for row in table.rows if row[2].strong}
    assert bold == {"ImageNet", "MoCo"}  # by the comparison with the random arm, not by the highest value


def test_differences_are_to_the_random_and_the_imagenet_arm_of_the_network(tmp_path: Path) -> None:
    found = section(tmp_path, METHODS)
    rows = texts(found.parts[0].differences)
    assert [row[1:3] for row in rows] == [
        ["ImageNet", "Random"], ["MoCo", "Random"], ["MoCo", "ImageNet"],
        ["Barlow Twins", "Random"], ["Barlow Twins", "ImageNet"],
    ]  # fmt: skip
    assert rows[1][3] == "+0.060 [0.040 to 0.080]"
    note = found.parts[0].differences.note.replace("\N{NO-BREAK SPACE}", " ")
    assert "p < 0.001, Holm 0.0012; worth 3.2× (at least 1.8×)" in note
    assert not any("paper" in cell for row in rows for cell in row)


def test_the_spread_over_label_seeds_and_of_choices_is_shown(tmp_path: Path) -> None:
    found = section(tmp_path, METHODS)
    table = found.parts[0].spread
    rows = {row[1]: row for row in texts(table)[:4]}
    assert rows["MoCo"][2] == "0.365 to 0.455 images seen 100 to 190"
    assert rows["MoCo"][3] == "0.265 to 0.355 strength 1e-05 to 1e+04"
    note = table.note.replace("\N{NO-BREAK SPACE}", " ")
    assert "1 %: 6 validation and 23 training patients; 10 %: 58" in note
    assert "With 1 % of labels: few validation patients" in note
    single = read_results(write_study(tmp_path / "one", METHODS, seeds=(0,)))
    assert beside(single).parts[0].spread.rows == []


@pytest.mark.parametrize(
    ("arms", "asked", "wanted"),
    [
        (METHODS, CHESTS, ["Table 4, findings"]),
        (DOMAINS, KNEES, ["Table A.1, kl"]),
        (DOMAINS, CHESTS, ["Table A.2, findings"]),
        (MASKS, KNEES, ["Table B.1, kl"]),
        ((*METHODS, *MASKS), KNEES, ["Table 3, kl", "Table B.1, kl"]),
        (METHODS[:1], KNEES, []),
        (SIZES[:4], KNEES, ["Table 3, kl", "Figure 3"]),
        (SIZES, KNEES, ["Table A.1, kl", "Figure 2", "Figure 3"]),
        (SIZES, OBJECTS, ["Figure 4"]),
    ],
    ids=[
        "chests",
        "domains",
        "domains-chests",
        "masks",
        "both",
        "random-alone",
        "own-sizes",
        "sizes",
        "objects",
    ],
)
def test_what_is_shown_follows_from_what_the_study_has(
    tmp_path: Path, arms: Any, asked: Any, wanted: list[str]
) -> None:
    assert names(section(tmp_path, arms, asked)) == wanted


def test_domains_are_told_by_the_stores_that_encoders_learned_from(tmp_path: Path) -> None:
    rows = texts(section(tmp_path, DOMAINS).parts[0].values)
    assert [row[1] for row in rows[:5]] == [
        "Random", "ImageNet", "MoCo", "MoCo, cross-domain", "MoCo, mixed-domain",
    ]  # fmt: skip
    assert rows[3][2].startswith("0.360")
    assert [row[1] for row in rows[10:]] == [
        "Chest MoCo", "Chest ViCReg", "Knee+Chest MoCo", "Knee+Chest ViCReg",
    ]  # fmt: skip
    assert rows[10][2:4] == ["0.283 (0.064)", "–"]


def test_masked_autoencoders_stand_by_the_share_that_is_hidden(tmp_path: Path) -> None:
    table = section(tmp_path, MASKS).parts[0].values
    rows = texts(table)
    assert [row[1] for row in rows[:4]] == ["Random", "ImageNet", "MAE 0.25", "MAE 0.5"]
    assert rows[1][2:] == ["not run", "not run", "–", "–", "not run", "not run"]
    assert rows[4][:3] == ["ViT-Small (paper)", "Imgnet-pret", "0.489 (0.052)"]
    assert [row[1].style for row in table.rows[:5]] == ["arm-random", "arm-imagenet", "arm-1", "arm-0", ""]


def test_columns_that_the_paper_has_not_come_first_and_a_shared_note_is_said_once(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "results", METHODS, modes=("probe",))
    for name in ("metrics", "comparisons", "flow"):
        text = (folder / f"{name}.json").read_text()
        text = text.replace('"fraction": 0.01', '"fraction": 0.25').replace(
            '"fraction": 0.1,', '"fraction": 0.5,'
        )
        (folder / f"{name}.json").write_text(text.replace('"note": ""', '"note": "left out: Hernia"'))
    table = beside(read_results(folder)).parts[0].values
    assert [c.replace("\N{NO-BREAK SPACE}", " ") for c in table.columns[2:5]] == [
        "LP, 25 %",
        "LP, 50 %",
        "FT, 1 %",
    ]
    assert "All of this study's: left out: Hernia." in table.note
    assert not any("Hernia" in cell.plain for row in table.rows for cell in row)


def test_a_figure_has_a_line_a_share_of_labels_and_random_at_the_left(tmp_path: Path) -> None:
    found = section(tmp_path, SIZES)
    (_, natural, _), (_, own, charts) = found.figures
    assert "0.627 from 58k images and 0.648 from all" in natural
    assert "0.627 from 6k images and 0.636 from 58k" in own
    assert [chart.title for chart in charts] == [
        "kl, linear probe: MoCo of ResNet-18 on images like the task's own",
        "kl, fine-tuning: MoCo of ResNet-18 on images like the task's own",
    ]
    svg = charts[0].svg
    for label in ("none", "500", "1,000", "4,000"):
        assert f">{label}</text>" in svg
    lines = re.findall(r'<polyline class="line (arm-\d)" points="([^"]+)"', svg)
    assert [style for style, _ in lines] == ["arm-0", "arm-1"]
    for _, points in lines:
        x, y = zip(*((float(v) for v in point.split(",")) for point in points.split()), strict=True)
        assert list(x) == sorted(x)
        assert list(y) == sorted(y, reverse=True)  # more images, a higher score, further up
        assert len(x) == 3
    rings = re.findall(r'<circle class="ring (arm-\d)" cx="([\d.]+)"', svg)
    assert [style for style, _ in rings] == ["arm-0", "arm-1"]
    assert max(float(x) for _, x in rings) < float(lines[0][1].split(",")[0])
    assert svg.count('class="whisker') == 2 * 4
    assert [name.partition(" (")[0].replace("\N{NO-BREAK SPACE}", " ") for name, _ in charts[0].legend] \
        == ["1 % of labels", "10 % of labels"]  # fmt: skip
    value = level(SIZES[1], "probe", FRACTIONS[0])
    assert f"{value:.3f} from 500 images" in svg


def test_rings_are_told_of_only_where_they_are_drawn(tmp_path: Path) -> None:
    section(tmp_path, SIZES)
    (results,) = (path.parent for path in tmp_path.rglob("metrics.json"))
    metrics = json.loads((results / "metrics.json").read_text())
    for row in metrics["rows"]:
        if row["arm"] == "r18-random":
            row["value"] = None
    (results / "metrics.json").write_text(json.dumps(metrics))
    runs = sorted(path.parent for path in tmp_path.rglob("training.json"))
    charts = [c for *_, some in beside(read_results(results), runs).figures for c in some]
    assert charts
    assert all('circle class="ring' not in chart.svg and "Rings" not in chart.note for chart in charts)


def test_the_spectrum_is_drawn_beside_the_one_share_the_paper_gives(tmp_path: Path) -> None:
    found = section(tmp_path, METHODS, spectra=[write_spectrum(tmp_path / "spectrum")])
    ((name, text, charts),) = found.figures
    (chart,) = charts
    assert name == "Figure 5"
    assert "93\N{NO-BREAK SPACE}% of the hospital's knees" in text
    heights = [float(h) for h in re.findall(r'<rect class="column arm-0"[^>]* height="([\d.]+)"', chart.svg)]
    assert len(heights) == 5
    assert heights.index(max(heights)) == 3
    assert heights[3] / heights[4] == pytest.approx(0.91 / 0.05, rel=0.02)
    assert chart.svg.count('class="mark arm-random"') == 1
    assert [name for name, _ in chart.legend][-1] == f"{PAPER.mark}, another pool"
    assert chart.note.startswith("1,000 images of 400 patients.")
    assert "Warning: 91% of the images are called 3." in chart.note
    (tmp_path / "spectrum/spectrum.json").write_text('{"audits": [{"task": "kl"}]}')
    with pytest.raises(InputError, match="an audit has no 'arm'"):
        _ = section(tmp_path / "broken", METHODS, spectra=[tmp_path / "spectrum"]).figures
    with pytest.raises(InputError, match="no such file"):
        _ = section(tmp_path / "none", METHODS, spectra=[tmp_path]).figures


def test_what_searches_chose_is_shown_with_how_many_patients_chose_it(tmp_path: Path) -> None:
    results = read_results(write_study(tmp_path / "results", METHODS))
    for name, rate in (("r18-moco", 3.21e-4), ("r18-random", 1e-3), ("gone", 1.0)):
        (tmp_path / name).mkdir()
        optimizer = {"name": "adamw", "lr": rate, "weight_decay": 1e-5, "peak": 3}
        write_chosen(
            tmp_path / name, arm=name, task="kl", fraction=0.01, metric=0.4123, num_trials=6, num_pruned=2,
            settings={"epochs": 14, "optimizer": optimizer},
        )  # fmt: skip
    folders = [tmp_path / name for name in ("r18-moco", "gone", "r18-random")]
    found = beside(results, searches=folders)
    assert [row[1:] for row in texts(found.searches)] == [
        [name, "1 %", "kl", "1000", "6 (2 pruned)", "6", "0.412", "adamw", rate, "1e-05", "14", "3"]
        for name, rate in (("random initialisation", "0.001"), ("MoCo pretraining", "0.00032"))
    ]
    written, _ = published_section("knee-ssl", found.study).files["knee_ssl"]
    assert written[-1] == found.searches
    (tmp_path / "gone/chosen.json").write_text("{}")
    with pytest.raises(InputError, match=r"chosen\.json: does not say whose labels"):
        _ = beside(results, searches=folders).searches


def test_random_probes_are_held_against_one_predicted_class(tmp_path: Path) -> None:
    (paper,) = (block.text for block in PAPER.blocks if block.show == "random_probes")
    assert "exactly 0.200 with every share" in paper
    (ours,) = section(tmp_path / "a", (*METHODS[:4],)).words("random_probes")
    assert ours.replace("\N{NO-BREAK SPACE}", " ") == (
        "This study's probes of random networks, kl, where one predicted class gives 0.200: ResNet-18 0.250 "
        "(0.220 to 0.280) with 1 % of labels, 0.300 (0.270 to 0.330) with 10 % of labels. Of these 2 "
        "intervals 2 lie above 0.200."
    )
    low = (arm("r18-random", gain=-0.045), METHODS[2])  # 0.205 (0.175 to 0.235) with 1 %, seed 4 at 0.200
    (ours,) = section(tmp_path / "b", low).words("random_probes")
    ours = ours.replace("\N{NO-BREAK SPACE}", " ")
    assert "(0.175 to 0.235) with 1 % of labels, 1 of 10 label seeds at exactly 0.200, 0.255" in ours
    assert ours.endswith("Of these 2 intervals 1 lies above 0.200.")
    assert section(tmp_path / "c", METHODS, modes=("finetune",)).words("random_probes") == []
    folder = write_study(tmp_path / "e", METHODS[:4])
    metrics, pairs = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "comparisons")
    )
    for row in (*metrics["rows"], *pairs["pairs"]):
        row["low"] = row["high"] = row["p"] = row["p_holm"] = None
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "comparisons.json").write_text(json.dumps(pairs))
    found = beside(read_results(folder))
    assert found.words("random_probes")[0].endswith(
        "0.300 (no interval) with 10\N{NO-BREAK SPACE}% of labels."
    )
    assert all("worth" not in cell.small for row in found.parts[0].differences.rows for cell in row)
    assert section(tmp_path / "d", METHODS, CHESTS).words("random_probes") == []


def test_what_the_files_lack_is_said_in_a_line(tmp_path: Path) -> None:
    assert section(tmp_path / "a", METHODS).words("lacking") == []
    only = section(tmp_path / "b", METHODS, modes=("finetune",)).words("lacking")
    assert only == ["Table 3, kl: this study has no linear probe."]
    folder = write_study(tmp_path / "c", METHODS)
    record = json.loads((folder / "metrics.json").read_text())
    for row in record["rows"]:
        row["metric"] = "quadratic_kappa"
    (folder / "metrics.json").write_text(json.dumps(record))
    found = beside(read_results(folder))
    assert found.parts == []
    assert found.words("lacking") == [
        "the results have no balanced accuracy of kl, by which the paper scores.",
        "No run folder of a pretraining with its log was given (--runs), so whose images, and how many, each "
        "encoder learned from is not known.",
    ]
    binary = beside(read_results(write_results(tmp_path / "d")))
    assert binary.words("lacking")[0].startswith("This study has no arm but random ones on grades")


def test_page_and_tables_hold_the_papers_part(tmp_path: Path) -> None:
    arms, store = (*METHODS, *MASKS), write_store(tmp_path / "store")
    plain = Config(
        results=write_study(tmp_path / "results", arms),
        manifest=write_manifest(tmp_path / "data"),
        store=store,
        runs=write_runs(tmp_path / "runs", arms, store),
    )
    spectra = (write_spectrum(tmp_path / "spectrum"),)
    more = plain.model_copy(update={"paper": "knee-ssl", "spectra": spectra})
    execute("report", more, tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    balance = Balance()
    balance.feed(page)
    assert (balance.wrong, balance.open) == ([], [])
    assert len(balance.ids) == len(set(balance.ids))
    text = visible(page)
    assert '<a href="#paper">Knee SSL</a>' in page
    assert "Table 3: image-only pretraining on knees, by balanced accuracy; kl" in text
    assert "arXiv 2603.24903, version 1" in text
    assert "no test compares the two" in text
    assert (
        text.count("With 1 % of labels: few validation patients: what is chosen on them is partly chance")
        >= 2
    )
    assert page.count('class="theirs"') + page.count('class="first theirs"') == 6 + 6
    assert "SECRET" not in page
    tables = tmp_path / "out/tables"
    assert (
        "| ResNet-34 (paper) | MoCo (Knee) | 0.475 (0.050) | 0.368 † |"
        in (tables / "knee_ssl.md").read_text()
    )
    latex = (tables / "knee_ssl.tex").read_text()
    assert r"0.368 \dag{}" in latex
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 6
    rows = list(csv.DictReader(io.StringIO((tables / "knee_ssl.csv").read_text())))
    ours = next(r for r in rows if (r["arm"], r["mode"], r["fraction"]) == ("r18-moco", "probe", "0.01"))
    assert (ours["value"], ours["difference_to_random"], ours["p_holm_to_imagenet"]) == (
        "0.31",
        "0.06",
        "0.0012",
    )
    assert sum(row["whose"] == PAPER.mark for row in rows) == 6 * 6 + 6 * 6
    assert (tmp_path / "out/figures/figure-5-this-study-kl-by-r18-imagenet-seed-0.svg").exists()
    execute("report", plain, tmp_path / "plain")
    without = (tmp_path / "plain/report.html").read_text()
    assert MARK not in without
    assert not (tmp_path / "plain/tables/knee_ssl.md").exists()
