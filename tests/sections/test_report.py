"""report: whole and well formed, needs no network, names no patient, refuses what is no result."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

import knee_ssl_study
import probed_study
from evaluated_study import FILES, comparisons, flow, metrics, write_store
from generator_records import write_explained
from report_page import Balance, visible
from trabecula.config import dump
from trabecula.errors import InputError
from trabecula.report import Config, page_sections
from trabecula.run import execute
from trabecula.sections import tables
from trabecula.sections.results import read_results


def test_counts_and_levels_stand_beside_numbers_and_curves(page: str) -> None:
    text = visible(page)
    over = "95 % intervals (402 test patients)."
    for what in ("Bands are", "Bands are pointwise", "Whiskers are"):
        assert f"{what} {over}" in text
    assert "Bands are intervals" not in text
    assert "Every value: 640 test images · 131 positive · 402 patients · 3 seeds." in text
    assert "Every difference: 402 test patients · 3 seeds." in text
    assert "p 0.0011, Holm 0.0044" in text
    assert "p 0.41, Holm 0.82" in text


def test_p_is_said_once_where_adjusting_changes_nothing(tmp_path: Path) -> None:
    scores = [probed_study.score(arm, 0.7, 0.6, 0.8) for arm in ("critic-random", "critic-wgan_gp")]
    pair = probed_study.pair("critic-wgan_gp", "critic-random", 0.1, "better", p=0.0031, p_holm=0.0031)
    results = read_results(probed_study.write_study(tmp_path / "results", scores, [pair]))
    table = tables.comparison_grid(results, results.panels[0], "auroc", 1.0)
    assert table.rows[0][-1].small == "p\N{NO-BREAK SPACE}0.0031"
    assert table.title.endswith("fine-tuning, against random initialisation")
    assert table.columns == ("Network", "Initialisation", "25\N{NO-BREAK SPACE}% of labels")


def test_page_is_well_formed(page: str) -> None:
    balance = Balance()
    balance.feed(page)
    assert balance.wrong == []
    assert balance.open == []
    assert len(balance.ids) == len(set(balance.ids))


def test_page_asks_nothing_of_the_network(page: str) -> None:
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page) == []
    assert re.findall(r"<(?:script|link|iframe|object|embed)\b|@import|url\(", page) == []
    assert all(src.startswith("data:") for src in re.findall(r'\bsrc="([^"]*)', page))
    assert "default-src 'none'" in page


def test_the_page_names_no_folder_of_missing_weights(study: Config, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(study.results, folder)
    why = "/home/ann/SECRET/resnet50.safetensors is not there"
    lacking = {"family": "imagenet", "architecture": "timm:resnet50", "reason": why}
    (folder / "comparisons.json").write_text(json.dumps({**comparisons(), "not_run": [lacking]}))
    execute("report", Config(results=folder, manifest=study.manifest), tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert "SECRET" not in page
    assert "ImageNet weights of ResNet-50: not run (…/resnet50.safetensors is not there)." in visible(page)


def test_the_manual_names_the_sections_with_pictures(study: Config, tmp_path: Path) -> None:
    store = write_store(tmp_path / "store")
    more = {
        "explained": (write_explained(tmp_path / "explained"),),
        "runs": knee_ssl_study.write_runs(tmp_path / "runs", knee_ssl_study.MASKS, store),
    }
    shown = []
    for paper in ("hip-gan", "knee-ssl"):
        config = study.model_copy(update={**more, "paper": paper})
        sections = page_sections(read_results(config.results), config)
        assert [section.anchor for section in sections] == [
            "verdict", "results", "comparisons", "curves", "generator", "paper", "pretraining", "pictures",
            "flow", "provenance", "reading",
        ]  # fmt: skip
        shown += [s.link for s in sections if any("picture" in block.kind for block in s.blocks)]
    manual = (Path(__file__).parents[2] / "docs/concepts/report.md").read_text()
    (said,) = re.findall(r"The pictures of the sections (.*) are images of patients", manual)
    assert re.findall(r"\*\*([^*]+)\*\*", said) == list(dict.fromkeys(shown))


def test_no_patient_and_no_path_in_any_file(made: Path) -> None:
    for path in [made / "report.html", *(made / "tables").iterdir(), *(made / "figures").iterdir()]:
        assert "SECRET" not in path.read_text(), path.name


def test_csv_carries_raw_numbers(made: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((made / "tables/results.csv").read_text())))
    wanted = metrics()["rows"]
    assert len(rows) == len(wanted)
    for row, want in zip(rows, wanted, strict=True):
        assert row["value"] == ("" if want["value"] is None else repr(want["value"]))
        assert row["seed"] == str(want["seed"])
    assert len((made / "tables/fractions.csv").read_text().splitlines()) == 1 + len(flow()["subsets"])


def test_latex_is_escaped_and_balanced(made: Path) -> None:
    for name in ("results", "comparisons", "label_multipliers", "fractions"):
        text = (made / f"tables/{name}.tex").read_text()
        body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
        assert body.count(r"\begin{table}") == body.count(r"\end{table}") > 0
        assert body.count(r"\toprule") == body.count(r"\bottomrule") == body.count(r"\begin{tabular}")
        assert re.findall(r"(?<!\\)[%_#]", body) == []
        captions = [line for line in body.splitlines() if line.startswith(r"\caption")]
        assert all("&" not in caption.replace(r"\&", "") for caption in captions)
        for block in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", body, re.S):
            lines = [line for line in block[1].splitlines() if line.endswith(r"\\")]
            assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(block[0])}


def test_same_inputs_give_the_same_bytes(study: Config, made: Path, tmp_path: Path) -> None:
    turned = Config(**{**dump(study), "runs": study.runs[::-1]})
    execute("report", turned, tmp_path / "again")
    files = [
        str(p.relative_to(made)) for kind in ("*.html", "tables/*", "figures/*") for p in made.glob(kind)
    ]
    assert len(files) == 1 + 12 + len(list((made / "figures").iterdir()))
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (made / name).read_bytes(), name


def test_optional_inputs_may_be_absent(study: Config, tmp_path: Path) -> None:
    execute("report", Config(results=study.results, manifest=study.manifest.parent), tmp_path / "out")
    text = visible((tmp_path / "out/report.html").read_text())
    assert "No store and no samples were given." in text
    assert "60 images of 30 patients" in text


def test_the_last_line_says_better_and_worse_and_what_is_not_told(study: Config, tmp_path: Path) -> None:
    told = execute("report", study, tmp_path / "out")
    kinds = Counter(
        "gone" if p["difference"] is None else p["claim"]
        for p in comparisons()["pairs"]
        if p["baseline_family"] == "random" and "imagenet" not in p["arm"]
    )
    # two tasks, two modes, three networks, two objectives, three fractions
    assert kinds.total() == 72
    assert min(kinds[kind] for kind in ("better", "worse", "none", "gone")) > 0
    assert told == (
        f"report.html: 72 comparisons with random initialisation: {kinds['better']} better, "
        f"{kinds['worse']} worse, {kinds['none']} with no difference shown, {kinds['gone']} not estimable; "
        f"{kinds['better'] + kinds['worse']} claims are for these 3 trained networks of each arm only, "
        "not for new ones"
    )
    assert "72 comparisons of a pretrained network with the same network" in visible(
        (tmp_path / "out/report.html").read_text()
    )


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_one_line(study: Config, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "results"
    shutil.copytree(study.results, folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file; it is written by") as caught:
        execute("report", Config(results=folder, manifest=study.manifest), tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", "{", "not valid JSON"),
        ("metrics.json", "[]", "is not a JSON object"),
        ("metrics.json", '{"level": 0.95, "alpha": 0.01, "rows": []}', "has no rows"),
        ("metrics.json", '{"level": 0.95, "rows": []}', "has no 'alpha'"),
        ("metrics.json", '{"version": 99}', "is of version 99, this trabecula reads 2"),
        (
            "comparisons.json",
            '{"pairs": [{}], "label_multipliers": [], "not_run": []}',
            r"pairs\[0\] has no 'task'",
        ),
        ("curves.json", '{"roc": []}', "has no 'reliability'"),
        ("flow.json", '{"subsets": [], "arms": []}', "has no 'tasks'"),
        (
            "flow.json",
            '{"tasks": [], "subsets": [], "arms": []}',
            "tasks: Input should be a valid dictionary",
        ),
        ("flow.json", '{"tasks": {}, "subsets": [], "arms": [3]}', r"arms\[0\]: Input should be a dict"),
    ],
)
def test_broken_file_is_one_line(
    study: Config, tmp_path: Path, name: str, content: str, message: str
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(study.results, folder)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        execute("report", Config(results=folder, manifest=study.manifest), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_value_of_another_kind_is_named_by_its_place(study: Config, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(study.results, folder)
    curves = json.loads((folder / "curves.json").read_text())
    curves["roc"][0]["low"] = 3
    (folder / "curves.json").write_text(json.dumps(curves))
    with pytest.raises(InputError, match=r"curves\.json: roc\[0\]\.low: Input should be .*; write it again"):
        read_results(folder)


def test_a_folder_that_is_no_run_is_refused(study: Config, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"is not a run folder; it has no config\.json"):
        execute(
            "report",
            Config(results=study.results, manifest=study.manifest, runs=(tmp_path / "empty",)),
            tmp_path / "out",
        )


def test_page_serves_dark_print_phone_and_screen_readers(page: str) -> None:
    assert "@media print" in page
    assert "@page" in page
    assert "@media screen and (prefers-color-scheme: dark)" in page
    assert "@media (max-width: 640px)" in page
    assert re.search(r'<meta name="viewport"', page)
    plots = re.findall(r"<svg[^>]*>", page)
    assert plots
    assert all("aria-label=" in svg or 'aria-hidden="true"' in svg for svg in plots)
    assert all(re.search(r'alt="[^"]+"', img) for img in re.findall(r"<img[^>]*>", page))
    assert page.count("<table>") == page.count("<caption>") > 0
    assert "Does &lt;pretraining&gt; pay?" in page
