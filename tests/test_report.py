"""report: the page says what the results say, needs no network, and names no patient."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import probed_study
from evaluated_study import (
    ARCHITECTURES,
    FILES,
    NETWORKS,
    NOT_ESTIMABLE,
    OBJECTIVES,
    TASKS,
    comparisons,
    flow,
    metrics,
    write_manifest,
    write_results,
    write_run,
    write_store,
)
from trabecula.config import dump
from trabecula.errors import InputError
from trabecula.report import Config
from trabecula.reporting import tables, verdict
from trabecula.reporting.results import read_results
from trabecula.reporting.wording import (
    architecture_name,
    number,
    signed,
)
from trabecula.run import execute


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("study")
    samples = np.random.default_rng(0).random((10, 1, 24, 24)).astype(np.float32)
    np.save(root / "samples.npy", samples)
    return Config(
        results=write_results(root / "results"),
        manifest=write_manifest(root / "data"),
        store=write_store(root / "store"),
        runs=tuple(
            write_run(root / f"r{i}", verb, i) for i, verb in enumerate(("probe", "pretrain", "probe"))
        ),
        samples=(root / "samples.npy",),
        title="Does <pretraining> pay?",
        command="trabecula study /home/ann/SECRET/knees.toml --out runs",
    )


@pytest.fixture(scope="module")
def made(study: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "report"
    execute("report", study, out)
    return out


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    return (made / "report.html").read_text()


def visible(page: str) -> str:
    """The page's text as a reader sees it, spaces folded."""

    class Text(HTMLParser):
        parts: list[str]
        skipping = False

        def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
            self.skipping = tag == "style"

        def handle_data(self, data: str) -> None:
            if not self.skipping:
                self.parts.append(data)

    parser = Text()
    parser.parts = []
    parser.feed(page)
    return " ".join(" ".join(parser.parts).replace("\N{NO-BREAK SPACE}", " ").split())


class Balance(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"{tag} at {self.getpos()}")


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


def test_verdict_numbers_are_those_of_the_results(page: str) -> None:
    text = visible(page)
    values = {(r["task"], r["mode"], r["arm"], r["fraction"]): r for r in metrics()["rows"]
              if r["seed"] == "all" and r["metric"] == "auroc" and r["cohort"] == "all"}  # fmt: skip
    checked = 0
    for pair in comparisons()["pairs"]:
        key = (pair["task"], pair["mode"], pair["arm"], pair["fraction"])
        first = 0.1 if (pair["arm"], pair["mode"], 0.01) == NOT_ESTIMABLE else 0.01
        if pair["baseline_family"] != "random" or pair["fraction"] != first:
            continue
        row = values[key]
        mode = {"probe": "linear probe", "finetune": "fine-tuning"}[pair["mode"]]
        drawn = "23" if first == 0.01 else "230 to 231"
        ending = {"better": "it paid", "worse": "it did worse", "none": "no difference shown"}[pair["claim"]]
        if pair["arm"].endswith("imagenet") and pair["claim"] == "better":
            ending = "better"
        signed2 = f"{pair['difference']:+.2f} ({pair['low']:.2f} to {pair['high']:.2f})".replace("-", "−")
        wanted = (
            f"AUROC of {pair['task']} by {mode} with {first * 100:.0f} % of labels "
            f"({drawn} training patients) "
            f"{row['value']:.2f} (95 % CI {row['low']:.2f} to {row['high']:.2f}), {signed2} against random "
            f"initialisation of the same network; Holm-adjusted p {pair['p_holm']:.3f}: {ending} ."
        )
        if pair["claim"] == "none":
            wanted = wanted.replace(f"p {pair['p_holm']:.3f}", f"p {pair['p_holm']:.2f}")
        network = architecture_name({v: k for k, v in NETWORKS.items()}[pair["arm"].split("-")[0]])
        assert re.search(re.escape(network) + r": " + re.escape(wanted), text), wanted
        checked += 1
    assert checked == len(TASKS) * 2 * (len(ARCHITECTURES) * len(OBJECTIVES) + 1)


def test_verdict_tally_counts_claims_against_random(page: str) -> None:
    pairs = [
        p for p in comparisons()["pairs"] if p["baseline_family"] == "random" and "imagenet" not in p["arm"]
    ]
    gone = sum(p["difference"] is None for p in pairs)
    counts = {
        c: sum(p["claim"] == c and p["difference"] is not None for p in pairs)
        for c in ("better", "none", "worse")
    }
    assert gone == 2
    paid, none, worse = counts["better"], counts["none"], counts["worse"]
    wanted = f"▲ {paid} paid = {none} no difference shown ▼ {worse} did worse ? {gone} not estimable"
    assert wanted in visible(page)


def test_every_difference_and_value_stands_in_the_tables(made: Path, page: str) -> None:
    text, markdown = visible(page), (made / "tables/comparisons.md").read_text()
    for pair in comparisons()["pairs"]:
        shown = "–" if pair["difference"] is None else signed(pair["difference"])
        assert shown in text or pair["difference"] is None
        assert f"| {shown} |" in markdown or f"| **{shown}** |" in markdown
    for row in metrics()["rows"]:
        if row["seed"] == "all" and row["value"] is not None:
            assert f"{number(row['value'])} ({number(row['sd_seeds'])})" in text


def test_every_row_has_as_many_cells_as_its_table_has_columns(page: str) -> None:
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        head, *rows = re.findall(r"<tr.*?</tr>", table, re.S)
        widths = {len(re.findall(r"<t[hd]\b", row)) for row in rows}
        assert widths == {len(re.findall(r"<th\b", head))}, re.search(r"<caption>[^<]*", table)


def test_cohort_flow_counts_and_names_no_file(page: str) -> None:
    text = visible(page)
    assert "Manifest 60 images of 30 patients" in text
    assert "Rejected when prepared 3 files 2: damaged file: the file 1: … pixels wide" in text
    assert "Store 30 images" in text
    assert "label missing 321 not eligible: side == 'L' 88" in text
    assert "test 402 804 402 402" in text
    drawn = "10 % of 2,310 training and 577 validation patients 230 to 231 patients, 460 to 462 images"
    assert drawn in text


def test_pictures_are_the_first_by_image_id(study: Config, page: str) -> None:
    assert study.store
    sheets = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    assert len(sheets) == 2
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheets[0]))).convert("L"), dtype=float)
    stored = np.load(study.store / "images-00000.npy")[29, 0]  # img-000 stands last in the store
    tile = sheet[:112, :112].reshape(8, 14, 8, 14).mean(axis=(1, 3))
    assert np.corrcoef(tile.ravel(), stored.ravel().astype(float))[0, 1] > 0.9
    assert sheet.shape[0] == 3 * 116 - 4  # 24 pictures, eight across


def test_what_was_left_out_is_said(study: Config, tmp_path: Path) -> None:
    left = {"imagenet": "weights are not there", "mae": "/home/SECRET/mae is not there"}
    execute("report", Config(results=study.results, manifest=study.manifest, not_run=left), tmp_path / "out")
    text = visible((tmp_path / "out/report.html").read_text())
    assert "Left out of this study: imagenet (weights are not there); mae (…/mae is not there)." in text


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


def test_without_its_control_a_network_has_no_verdict(study: Config, tmp_path: Path) -> None:
    """Random weights trained in another way are held against nothing, and nothing against them."""
    root = tmp_path / "results"
    arms = ("critic-random-augmented", "critic-wgan_gp")
    probed_study.write_study(root, [probed_study.score(arm, 0.7, 0.6, 0.8) for arm in arms])
    lost = {"family": "random", "architecture": "critic", "reason": "train of critic-random failed"}
    told = json.loads((root / "comparisons.json").read_text()) | {"not_run": [lost]}
    (root / "comparisons.json").write_text(json.dumps(told))
    results = read_results(root)
    assert results.control("critic") is None
    assert tables.results_tables(results, results.panels[0])
    said = execute("report", Config(results=root, manifest=study.manifest), tmp_path / "out")
    assert "0 of 0 comparisons" in said
    assert "critic: train of critic-random failed" in said
    text = visible((tmp_path / "out/report.html").read_text())
    why = "AUROC of kl2 by fine-tuning: not compared (the control of this network was not run: train of"
    assert f"WGAN-GP pretraining of critic: {why} critic-random failed)." in text
    assert f"Random initialisation (critic-random-augmented) of critic: {why}" in text
    pairs = [probed_study.pair("critic-wgan_gp", "critic-random-augmented", 0.05, "better")]
    (root / "comparisons.json").write_text(json.dumps(told | {"pairs": pairs}))
    assert verdict.against_random(read_results(root)) == []


def test_an_upper_bound_alone_is_said_to_be_one(study: Config, tmp_path: Path) -> None:
    root = tmp_path / "results"
    arms = ("critic-random", "critic-wgan_gp")
    probed_study.write_study(root, [probed_study.score(arm, 0.7, 0.6, 0.8) for arm in arms])
    told = json.loads((root / "flow.json").read_text())
    told["arms"][1]["labels"] = "kl2"
    (root / "flow.json").write_text(json.dumps(told))
    said = execute("report", Config(results=root, manifest=study.manifest), tmp_path / "out")
    assert said.endswith("(the only pretraining learned from labels: an upper bound is not counted)")


def test_the_manual_names_the_sections_with_pictures() -> None:
    root = Path(__file__).parents[1]
    template = (root / "src/trabecula/reporting/page.html.j2").read_text()
    sections = re.findall(r'<section id="(\w+)".*?<h2 [^>]*>([^<:]+).*?</section>', template, re.DOTALL)
    bodies = re.findall(r'<section id="\w+".*?(?=<section id=|</main>)', template, re.DOTALL)
    assert len(sections) == len(bodies) == 13
    shown = [title for (_, title), body in zip(sections, bodies, strict=True)
             if "<img" in body or "sheets(" in body]  # fmt: skip
    manual = (root / "docs/concepts/report.md").read_text()
    (said,) = re.findall(r"The pictures of the sections (.*) are images of patients", manual)
    assert re.findall(r"\*\*([^*]+)\*\*", said) == shown


def test_missing_imagenet_arms_are_listed(page: str) -> None:
    text = visible(page)
    panels = len(TASKS) * 2
    assert text.count("ImageNet weights of ResNet-50: not run (no ImageNet arm in this study).") == panels
    assert "ImageNet weights of critic: not run" not in text  # no such weights can exist
    assert "ImageNet weights of ResNet-18: not run" not in text


def test_imagenet_is_listed_even_when_evaluate_says_nothing(study: Config, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(study.results, folder)
    lacking = {"family": "random", "architecture": "critic", "reason": "it was not made"}
    told = {**comparisons(), "pairs": [], "not_run": [lacking]}
    (folder / "comparisons.json").write_text(json.dumps(told))
    said = execute("report", Config(results=folder, manifest=study.manifest), tmp_path / "out")
    assert said.endswith("0 of 0 comparisons with random initialisation say that pretraining paid "
                         "(critic: it was not made)")  # fmt: skip
    assert "ImageNet weights of ResNet-50: not run" in visible((tmp_path / "out/report.html").read_text())


def test_not_estimable_says_why(made: Path, page: str) -> None:
    assert "not estimable no patient of class 1 in 4 of 4 draws" in visible(page)
    assert "not estimable" in (made / "tables/results.tex").read_text()


def test_censored_multiplier_is_more_than(made: Path, page: str) -> None:
    assert "Like having 3.2× the labels (1.8× to 9.4×)." in visible(page)
    assert "Like having more than 10× the labels (at least 2.4×)." in visible(page)
    assert "it did worse . Like having 0.45× the labels (at most 0.93×)." in visible(page)
    assert r"more than 10$\times$" in (made / "tables/label_multipliers.tex").read_text()


@pytest.mark.parametrize("task", TASKS)
def test_only_claims_against_random_are_bold(page: str, task: str) -> None:
    table = re.search(
        rf"<caption>AUROC of {re.escape(html.escape(task))}, linear probe.*?</table>", page, re.S
    )
    assert table is not None
    bold = re.findall(r"<strong>([^<]*)", table[0])
    better = [p for p in comparisons()["pairs"] if (p["task"], p["mode"], p["claim"], p["baseline_family"])
              == (task, "probe", "better", "random")]  # fmt: skip
    values = {(r["arm"], r["fraction"]): f"{number(r['value'])} ({number(r['sd_seeds'])})"
              for r in metrics()["rows"] if (r["task"], r["mode"], r["metric"], r["seed"], r["cohort"])
              == (task, "probe", "auroc", "all", "all")}  # fmt: skip
    assert sorted(bold) == sorted(values[p["arm"], p["fraction"]] for p in better)
    assert 0 < len(bold) < len(values)


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
    summary = execute(
        "report", Config(results=study.results, manifest=study.manifest.parent), tmp_path / "out"
    )
    text = visible((tmp_path / "out/report.html").read_text())
    assert "No store and no samples were given." in text
    assert "60 images of 30 patients" in text
    assert (
        "of 36 comparisons" not in summary
    )  # two tasks, two modes, three networks, two objectives, three fractions
    assert "of 72 comparisons with random initialisation" in summary


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
        ("metrics.json", "[]", "holds no JSON object"),
        ("metrics.json", '{"level": 0.95, "rows": []}', "holds no row"),
        (
            "comparisons.json",
            '{"pairs": [{}], "label_multipliers": [], "not_run": []}',
            r"pairs\[0\] has no 'task'",
        ),
        ("curves.json", '{"roc": []}', "has no list 'reliability'"),
        ("flow.json", '{"subsets": [], "arms": []}', "has no table 'tasks'"),
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


def test_a_folder_that_is_no_run_is_refused(study: Config, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"config\.json: no such file"):
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


def test_an_arm_keeps_one_colour(page: str) -> None:
    for label, style in (("MoCo pretraining", "arm-0"), ("WGAN-GP pretraining", "arm-1")):
        found = re.findall(rf'class="line (arm-\w+)"[^>]*/><circle[^>]*/></svg>{label}</li>', page)
        assert set(found) == {style}
    assert len(re.findall(r"--arm0:", page)) == 2  # light and dark
