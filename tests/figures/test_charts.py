"""Charts: what is drawn where, and as files of their own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from evaluated_study import ARCHITECTURES, TASKS, write_results
from trabecula.figures import charts
from trabecula.figures.charts import (
    Chart,
    PlotAxis,
    Series,
    chart_file,
    chart_files,
    count_ticks,
    interval_bar,
    plain_rules,
    round_ticks,
    style_sheet,
    tick_text,
)  # fmt: skip
from trabecula.sections.curves import learning_curves, reliability_plots, roc_curves
from trabecula.sections.results import read_results


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    results = read_results(write_results(tmp_path_factory.mktemp("study") / "results"))
    groups = []
    for p in results.panels:
        groups += [g for m in ("auroc", "balanced_accuracy") if (g := learning_curves(results, p, m))]
        groups += [*roc_curves(results, p), *reliability_plots(results, p)]
    return chart_files([chart for group in groups for chart in group.charts])


def test_figures_stand_alone(files: dict[str, str]) -> None:
    learning = len(TASKS) * 2 * len(ARCHITECTURES)
    assert len(files) == learning + 2 * 3 * learning  # ROC and reliability for each of three fractions
    for name, text in files.items():
        assert re.fullmatch(r"[a-z0-9-]+\.svg", name)
        assert "var(" not in text
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []
        words = {e.text for e in ElementTree.fromstring(text).iter() if e.tag.endswith("text")}
        assert "random initialisation" in words


def test_an_arm_has_its_colour_in_every_file(files: dict[str, str]) -> None:
    colours = re.findall(r"\.line\.arm-0\{[^}]*stroke: (#\w+)", "".join(files.values()))
    light = re.search(r"--arm0: (#\w+)", style_sheet())
    assert light
    assert set(colours) == {light[1]}
    assert "stroke-dasharray: 5 3" in plain_rules(style_sheet(), ["arm-random"])


def test_every_class_in_a_figure_has_a_rule(files: dict[str, str]) -> None:
    for name, text in files.items():
        used = {word for words in re.findall(r'class="([^"]*)"', text) for word in words.split()}
        assert {word for word in used if f".{word}" not in text} == set(), name


def test_alike_titles_keep_their_own_files(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path / "results"))
    group = learning_curves(results, results.panels[0], "auroc")
    assert group is not None
    assert len(chart_files(group.charts * 2)) == 2 * len(ARCHITECTURES)


def test_equal_scores_are_read_off_an_axis_that_ends_at_one(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path / "results"))
    curves = [
        replace(curve, points=[replace(p, value=1.0, low=None, high=None, seeds=(), num_patients=4)
                               for p in curve.points])
        for curve in results.curves.learning
    ]  # fmt: skip
    results = replace(results, curves=replace(results.curves, learning=curves))
    group = learning_curves(results, results.panels[0], "auroc")
    assert group is not None
    assert "All label fractions drew as many patients, so no curve" in group.caption
    labels = [float(x) for x in re.findall(r">(\d(?:\.\d+)?)</text>", group.charts[0].svg)]
    assert max(x for x in labels if x < 4) == 1.0
    assert 0.95 in labels


def chart(*series: Series, x: PlotAxis | None = None, y: PlotAxis | None = None, note: str = "") -> Chart:
    wide = PlotAxis("x", [(0, "0"), (10, "10")])
    return Chart("Heading", "Title", x or wide, y or PlotAxis("y"), series, "In <words>", note)


def circles(svg: str, kind: str) -> list[tuple[float, float]]:
    found = re.findall(rf'<circle class="{kind} arm-0" cx="([\d.]+)" cy="([\d.]+)"', svg)
    return [(float(x), float(y)) for x, y in found]


def test_points_that_are_not_known_are_left_out() -> None:
    values = [1.0, None, 3.0, float("nan")]
    series = Series(
        "arm-0", [1, 2, 3, 4], values, values, [2.0, 4.0, None, 5.0], "Arm", ("line", "whisker", "mark")
    )
    svg = chart(series).svg
    assert len(circles(svg, "mark")) == 2
    assert svg.count('class="whisker arm-0"') == 1
    (line,) = re.findall(r'<polyline class="line arm-0" points="([^"]+)"', svg)
    assert len(line.split()) == 2
    assert "nan" not in svg


def test_axes_are_linear_or_logarithmic() -> None:
    series = Series("arm-0", [1, 10, 100], [0.0, 0.5, 1.0], parts=("mark",))
    ticks = [(1, "1"), (100, "100")]
    for log, share in ((False, 9 / 99), (True, 0.5)):
        (a, top), (b, middle), (c, bottom) = circles(
            chart(series, x=PlotAxis("x", ticks, log=log)).svg, "mark"
        )
        assert (b - a) / (c - a) == pytest.approx(share, abs=1e-3)
        assert middle == pytest.approx((top + bottom) / 2, abs=0.1)
        assert top > bottom  # 0 is below 1


def test_bands_are_below_lines_and_lines_below_marks() -> None:
    one = Series("arm-0", [0, 5], [1.0, 2.0], [0.5, 1.5], [1.5, 2.5], "One", ("mark", "line", "band"))
    two = Series("arm-1", [0, 5], [1.0, 1.0], [0.5, 0.5], [1.5, 1.5], "Two", ("band", "line", "mark"))
    drawn = re.findall(r'class="(band|line|mark) arm-\d"', chart(one, two).svg)
    assert drawn == ["band"] * 2 + ["line"] * 2 + ["mark"] * 4


def test_a_constant_lies_across_the_frame_with_its_label() -> None:
    band = Series("arm-0", (), [0.5], [0.4], [0.6], "Real", ("band", "line"))
    bound = Series("diagonal", y=[0.2], parts=("line",), label="none above 0.2 & more")
    svg = chart(band, bound).svg
    ends = re.findall(r'<polyline class="(?:line arm-0|diagonal)" points="46.0,([\d.]+) 292.0,([\d.]+)"', svg)
    assert len(ends) == 2
    assert all(left == right for left, right in ends)
    assert len(re.findall(r'<polygon class="band arm-0"', svg)) == 1
    assert ">none above 0.2 &amp; more</text>" in svg


def test_columns_start_at_zero_and_shifts_are_in_px() -> None:
    columns = Series("arm-0", [2, 4], [0.5, 1.0], parts=("column",), width=1.0)
    svg = chart(columns, y=PlotAxis("y", [(0, "0"), (1, "1")])).svg
    heights = [float(h) for h in re.findall(r'<rect class="column arm-0"[^>]* height="([\d.]+)"', svg)]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    mark = Series("arm-0", [5], [0.5], parts=("mark",))
    moved = Series("arm-0", [5], [0.5], parts=("ring",), shift=7)
    svg = chart(mark, moved).svg
    assert circles(svg, "ring")[0][0] == pytest.approx(circles(svg, "mark")[0][0] + 7)


def test_tick_labels_do_not_run_into_each_other() -> None:
    ticks = [(x, f"label {x}") for x in (0.0, 0.1, 5.0, 10.0)]
    svg = chart(Series("arm-0", [1], [1.0]), x=PlotAxis("x", ticks)).svg
    assert re.findall(r">label ([\d.]+)</text>", svg) == ["0.0", "5.0", "10.0"]
    assert svg.count('class="axis"') == len(ticks) + 1


def test_a_file_has_title_description_legend_and_note_and_is_the_same_bytes() -> None:
    one = chart(Series("arm-0", [1, 2], [1.0, 2.0], name="One & only"), note="A note. " * 20)
    text = chart_file(one)
    tree = ElementTree.fromstring(text)
    assert tree.attrib["role"] == "img"
    title, described = tree[0], tree[1]
    assert tree.attrib["aria-labelledby"] == f"{title.attrib['id']} {described.attrib['id']}"
    assert (title.text, described.text) == ("Heading: Title", "In <words>")
    words = [element.text for element in tree.iter() if element.tag.endswith("text")]
    assert "One & only" in words
    assert sum("A note." in str(word) for word in words) > 1  # in lines
    assert text == chart_file(one)
    assert 'aria-label="In &lt;words&gt;"' in one.svg


def test_ticks_are_round_and_enclose_the_values() -> None:
    assert round_ticks(0.52, 0.79) == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]
    assert round_ticks(3.0, 3.0)[0] <= 3.0 <= round_ticks(3.0, 3.0)[-1]
    assert count_ticks(0, 2) == [(0, "0"), (1, "1"), (2, "2")]
    assert [label for _, label in count_ticks(4_000, 12_000)] == ["4k", "6k", "8k", "10k", "12k"]
    assert [tick_text(v) for v in (0.25, -10, 12_800)] == ["0.25", "−10", "12.8k"]


def test_an_interval_bar_ends_at_its_edges() -> None:
    bar = interval_bar((0.1, -0.4, 9.0), 0.5, "arm-0")
    assert re.findall(r"M([\d.]+) 8H([\d.]+)", bar) == [("15.2", "116.0")]
    assert interval_bar((0.1, None, 0.2), 0.5, "arm-0") == ""


def test_drawing_knows_nothing_of_what_it_draws() -> None:
    root = Path(charts.__file__).parent
    imports = [
        re.findall(r"^\s*(?:from|import) (trabecula[\w.]*)", p.read_text(), re.M) for p in root.glob("*.py")
    ]
    assert {name for names in imports for name in names} == set()
