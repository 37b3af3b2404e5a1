"""report: the page says what the results say, needs no network, and names no patient."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trabecula.config import dump
from trabecula.errors import InputError
from trabecula.report import Config
from trabecula.reporting.provenance import without_paths
from trabecula.reporting.tables import tex
from trabecula.reporting.wording import (
    architecture_name,
    multiplier_interval,
    multiplier_value,
    number,
    probability,
    signed,
    span,
)
from trabecula.run import execute

ARCHITECTURES = ("timm:resnet18", "timm:resnet50", "critic")
NETWORKS = {"timm:resnet18": "resnet18", "timm:resnet50": "resnet50", "critic": "critic"}
OBJECTIVES = ("moco", "wgan_gp")
TASKS = ("kl >= 2", "joint_space & 5 %")
FRACTIONS = (0.01, 0.1, 1.0)
PATIENTS = {0.01: 23, 0.1: 231, 1.0: 2310}
SEEDS = (0, 1, 2)
GAINS = {0.01: 0.08, 0.1: 0.04, 1.0: 0.002}
NOT_ESTIMABLE = ("resnet50-moco", "finetune", 0.01)


def arms() -> list[dict[str, Any]]:
    rows = []
    for architecture in ARCHITECTURES:
        kinds = [("random", "none"), *(("pretrained", o) for o in OBJECTIVES)]
        if architecture == "timm:resnet18":
            kinds.insert(1, ("imagenet", "none"))
        for family, objective in kinds:
            tag = objective if family == "pretrained" else family
            pretrained = family == "pretrained"
            rows.append(
                {
                    "arm": f"{NETWORKS[architecture]}-{tag}", "architecture": architecture, "family": family,
                    "objective": objective, "images_seen": 200000 if pretrained else 0, "pretrain_seed": 0,
                    "num_patients_seen": 4100 if pretrained else 0,
                }
            )  # fmt: skip
    return rows


def level(arm: dict[str, Any], fraction: float, task: str, mode: str) -> float:
    value = 0.58 + 0.08 * FRACTIONS.index(fraction) + 0.02 * (task == TASKS[0]) + 0.015 * (mode == "finetune")
    gain = {"none": 0.0, "moco": 1.0, "wgan_gp": 0.5}[arm["objective"]] + 0.6 * (arm["family"] == "imagenet")
    value += 0.01 * ARCHITECTURES.index(arm["architecture"])
    return round(value + gain * GAINS[fraction], 4)


def grid() -> list[tuple[str, str, dict[str, Any], float]]:
    return [(t, m, a, f) for t in TASKS for m in ("probe", "finetune") for a in arms() for f in FRACTIONS]


def metrics() -> dict[str, Any]:
    rows = []
    for task, mode, arm, fraction in grid():
        gone = (arm["arm"], mode, fraction) == NOT_ESTIMABLE
        for metric in ("balanced_accuracy", "auroc"):
            value = level(arm, fraction, task, mode) - 0.03 * (metric != "auroc")
            head = {"task": task, "arm": arm["arm"], "architecture": arm["architecture"],
                    "family": arm["family"], "mode": mode, "fraction": fraction, "cohort": "all",
                    "stratum": "all", "metric": metric, "num_images": 640, "num_patients": 402,
                    "num_events": 131}  # fmt: skip
            note = "no patient of class 1 in 4 of 4 draws" if gone else ""
            total = {"seed": "all", "pretrain_seed": "all", "value": None if gone else value,
                     "low": None if gone else round(value - 0.047, 4),
                     "high": None if gone else round(value + 0.045, 4),
                     "sd_seeds": None if gone else 0.0123, "num_seeds": 3, "note": note}  # fmt: skip
            rows.append({**head, **total})
            if metric == "auroc" and arm["arm"] == "resnet18-moco":
                rows.append({**head, **total, "cohort": "MOST", "num_images": 211})
            for seed in SEEDS:
                rows.append({**head, **total, "seed": seed, "pretrain_seed": 0, "low": None, "high": None,
                             "value": None if gone else round(value + 0.01 * (seed - 1), 4),
                             "sd_seeds": None, "num_seeds": 1})  # fmt: skip
    return {"level": 0.95, "num_resamples": 2000, "rows": rows}


def comparisons() -> dict[str, Any]:
    pairs, multipliers = [], []
    of = {(a["architecture"], a["family"]): a for a in arms() if a["family"] != "pretrained"}
    for task, mode, arm, fraction in grid():
        for family in ("random", "imagenet"):
            baseline = of.get((arm["architecture"], family))
            if baseline is None or arm["family"] in ("random", family):
                continue
            gone = (arm["arm"], mode, fraction) == NOT_ESTIMABLE
            gap = round(level(arm, fraction, task, mode) - level(baseline, fraction, task, mode), 4)
            if arm["arm"] == "critic-wgan_gp" and family == "random":
                gap = -gap
            low, high = round(gap - 0.021, 4), round(gap + 0.019, 4)
            claim = "better" if low > 0 else "worse" if high < 0 else "none"
            head = {"task": task, "mode": mode, "fraction": fraction, "metric": "auroc", "arm": arm["arm"],
                    "baseline": baseline["arm"]}  # fmt: skip
            pairs.append(
                {
                    **head, "baseline_family": family, "same_architecture": True,
                    "difference": None if gone else gap, "low": None if gone else low,
                    "high": None if gone else high, "num_patients": 402,
                    "p": None if gone else 0.0011 if claim != "none" else 0.41,
                    "p_holm": None if gone else 0.0044 if claim != "none" else 0.82,
                    "num_seeds": 3, "claim": "none" if gone else claim,
                }
            )  # fmt: skip
            if family == "random":
                multipliers.append(multiplier(head, gone))
    pairs_first = sorted(pairs, key=lambda p: p["task"] != TASKS[0])
    reason = "no ImageNet arm in this study"
    not_run = [
        {"family": "imagenet", "architecture": "timm:resnet50", "reason": reason},
        {"family": "imagenet", "architecture": "critic", "reason": "no weights of this architecture"},
    ]
    return {"pairs": pairs_first, "label_multipliers": multipliers, "not_run": not_run}


def multiplier(head: dict[str, Any], gone: bool) -> dict[str, Any]:
    if gone:
        return {**head, "value": None, "low": None, "high": None, "censored": "", "note": "no value"}
    if head["fraction"] == 1.0:
        bounds = {"value": 1.0, "low": 0.8, "high": None, "censored": "above"}
        return {**head, **bounds, "note": "beyond the baseline's curve"}
    if head["fraction"] == 0.1:
        return {
            **head,
            "value": 10.0,
            "low": 2.4,
            "high": 10.0,
            "censored": "above",
            "note": "high is above the end of the baseline's curve",
        }
    end = "high is above the end of the baseline's curve"
    return {**head, "value": 3.21, "low": 1.84, "high": 10.0, "censored": "", "note": end}


def curves() -> dict[str, Any]:
    roc, reliability, learning = [], [], []
    fpr = np.linspace(0, 1, 21)
    for task, mode, arm, fraction in grid():
        if (arm["arm"], mode, fraction) == NOT_ESTIMABLE:
            continue
        head = {"task": task, "arm": arm["arm"], "mode": mode}
        power = 1 / (2.2 * level(arm, fraction, task, mode)) ** 3
        tpr = fpr**power
        low, high = np.clip(tpr - 0.06, 0, 1), np.clip(tpr + 0.06, 0, 1)
        roc.append({**head, "fraction": fraction, "class": "1", "fpr": fpr.round(4).tolist(),
                    "tpr": tpr.round(4).tolist(), "low": low.round(4).tolist(),
                    "high": high.round(4).tolist()})  # fmt: skip
        bins = [
            {"predicted": x, "observed": round(0.1 + 0.8 * x, 3), "low": round(0.8 * x, 3),
             "high": round(min(1.0, 0.2 + 0.8 * x), 3), "num_images": 64}
            for x in (0.1, 0.3, 0.5, 0.7, 0.9)
        ]  # fmt: skip
        bins.append({"predicted": None, "observed": None, "low": None, "high": None, "num_images": 0})
        reliability.append({**head, "fraction": fraction, "bins": bins})
    for task, mode in {(t, m): None for t, m, _, _ in grid()}:
        for arm in arms():
            points = []
            for fraction in FRACTIONS:
                value = level(arm, fraction, task, mode)
                gone = (arm["arm"], mode, fraction) == NOT_ESTIMABLE
                points.append({"fraction": fraction, "num_patients": PATIENTS[fraction],
                               "value": None if gone else value, "low": None if gone else value - 0.047,
                               "high": None if gone else value + 0.045,
                               "seeds": [] if gone else [value - 0.02, value, value + 0.025]})  # fmt: skip
            learning.append(
                {"task": task, "arm": arm["arm"], "mode": mode, "metric": "auroc", "points": points}
            )
    return {"roc": roc, "reliability": reliability, "learning": learning}


def flow() -> dict[str, Any]:
    def part(n: int) -> dict[str, Any]:
        return {"images": n * 2, "patients": n, "per_class": {"0": n, "1": n}}

    parts = {"train": part(2310), "val": part(577), "test": part(402)}
    exclusions = {"label missing": 321, "not eligible: side == 'L'": 88}
    tasks = {
        t: {"kind": "binary", "classes": ["0", "1"], "exclusions": exclusions, "parts": parts} for t in TASKS
    }
    subsets = [
        {"task": t, "fraction": f, "seed": s, "num_train_images": 2 * PATIENTS[f] - s,
         "num_train_patients": PATIENTS[f] - (s == 2 and f == 0.1), "num_val_images": PATIENTS[f] // 2,
         "num_val_patients": PATIENTS[f] // 4}
        for t in TASKS for f in FRACTIONS for s in SEEDS
    ]  # fmt: skip
    return {"tasks": tasks, "subsets": subsets, "arms": arms()}


FILES = {"metrics.json": metrics, "comparisons.json": comparisons, "curves.json": curves, "flow.json": flow}


def write_results(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, make in FILES.items():
        (folder / name).write_text(json.dumps(make()))
    return folder


def write_manifest(folder: Path) -> Path:
    folder.mkdir(parents=True)
    lines = [
        f"img-{i:03d},SECRETPATIENT{i // 2:03d},films/SECRETPATIENT{i // 2:03d}_{i}.png" for i in range(60)
    ]
    (folder / "manifest.csv").write_text("image_id,patient_id,path\n" + "\n".join(lines) + "\n")
    return folder / "manifest.csv"


def write_run(folder: Path, verb: str, seed: int) -> Path:
    folder.mkdir(parents=True)
    config = {"verb": verb, "settings": {"arm": "resnet18-moco", "seed": seed, "where": "/home/ann/SECRET/x"},
              "inputs": {"store": ["ab" * 32]}, "threads": 1, "id": f"{seed:02d}" * 32}  # fmt: skip
    machine = {"trabecula": "0.1.0", "python": "3.12.1", "platform": "Linux", "cpus": 8,
               "packages": {"torch": "2.9.0"}, "inputs": {"store": ["/home/ann/SECRET/store"]}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "provenance.json").write_text(json.dumps(machine))
    (folder / "DONE").write_text("done")
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("study")
    samples = np.random.default_rng(0).random((10, 1, 24, 24)).astype(np.float32)
    np.save(root / "samples.npy", samples)
    return Config(
        results=write_results(root / "results"),
        manifest=write_manifest(root / "data"),
        runs=(write_run(root / "r1", "probe", 1), write_run(root / "r0", "pretrain", 0)),
        samples=root / "samples.npy",
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
            f"initialisation of the same network; Holm-adjusted p {pair['p_holm']:.3f}: {ending}."
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
        assert shown in text
        assert f"| {shown} |" in markdown or f"| **{shown}** |" in markdown
    for row in metrics()["rows"]:
        if row["seed"] == "all" and row["value"] is not None:
            assert f"{number(row['value'])} ({number(row['sd_seeds'])})" in text


def test_missing_imagenet_arms_are_listed(page: str) -> None:
    text = visible(page)
    panels = len(TASKS) * 2
    assert text.count("ImageNet weights of ResNet-50: not run (no ImageNet arm in this study).") == panels
    assert text.count("ImageNet weights of critic: not run (no weights of this architecture).") == panels
    assert "ImageNet weights of ResNet-18: not run" not in text


def test_imagenet_is_listed_even_when_evaluate_says_nothing(study: Config, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(study.results, folder)
    (folder / "comparisons.json").write_text(json.dumps({**comparisons(), "not_run": []}))
    execute("report", Config(results=folder, manifest=study.manifest), tmp_path / "out")
    assert "ImageNet weights of ResNet-50: not run" in visible((tmp_path / "out/report.html").read_text())


def test_not_estimable_says_why(made: Path, page: str) -> None:
    assert "not estimable no patient of class 1 in 4 of 4 draws" in visible(page)
    assert "not estimable" in (made / "tables/results.tex").read_text()


def test_censored_multiplier_is_more_than(made: Path, page: str) -> None:
    assert "Like having 3.2× the labels (1.8× to more than 10×)." in visible(page)
    assert "more than 10×" in visible(page)
    assert r"more than 10$\times$" in (made / "tables/label_multipliers.tex").read_text()


@pytest.mark.parametrize(
    ("value", "low", "high", "censored", "note", "words", "bounds"),
    [
        (3.21, 1.84, 9.4, "", "", "3.2×", "1.8× to 9.4×"),
        (3.21, 1.84, 10.0, "", "high is above the end", "3.2×", "1.8× to more than 10×"),
        (10.0, 2.4, None, "above", "", "more than 10×", "2.4× to beyond the curve"),
        (0.1, 0.1, 0.6, "below", "low is below the end", "less than 0.1×", "less than 0.1× to 0.6×"),
        (None, None, None, "above", "", "more than the baseline's curve covers", "–"),
        (None, None, None, "", "not estimable", "not estimable", "–"),
    ],
)
def test_multiplier_words(
    value: float, low: float, high: float, censored: str, note: str, words: str, bounds: str
) -> None:
    row = {"value": value, "low": low, "high": high, "censored": censored, "note": note}
    assert multiplier_value(row) == words
    assert multiplier_interval(row) == bounds


def test_only_claims_are_bold(page: str) -> None:
    table = re.search(r"<caption>AUROC of kl &gt;= 2, linear probe.*?</table>", page, re.S)
    assert table is not None
    bold = re.findall(r"<strong>([^<]*)", table[0])
    better = [p for p in comparisons()["pairs"] if (p["task"], p["mode"], p["claim"], p["baseline_family"])
              == (TASKS[0], "probe", "better", "random")]  # fmt: skip
    values = {(r["arm"], r["fraction"]): f"{number(r['value'])} ({number(r['sd_seeds'])})"
              for r in metrics()["rows"] if (r["task"], r["mode"], r["metric"], r["seed"], r["cohort"])
              == (TASKS[0], "probe", "auroc", "all", "all")}  # fmt: skip
    assert sorted(bold) == sorted(values[p["arm"], p["fraction"]] for p in better)
    assert 0 < len(bold) < len(values)


def test_no_patient_and_no_path_in_any_file(made: Path) -> None:
    for path in [made / "report.html", *(made / "tables").iterdir()]:
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


def test_tex_escapes_each_special_character() -> None:
    assert tex("a_b & 5 % −0.1 <x> {y} \\ 3×") == (
        r"a\_b \& 5 \% $-$0.1 $<$x$>$ \{y\} \textbackslash{} 3$\times$"
    )


def test_same_inputs_give_the_same_bytes(study: Config, made: Path, tmp_path: Path) -> None:
    turned = Config(**{**dump(study), "runs": study.runs[::-1]})
    execute("report", turned, tmp_path / "again")
    files = ["report.html", *(f"tables/{p.name}" for p in (made / "tables").iterdir())]
    assert len(files) == 13
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--out /home/ann/knees/run1 -s a=1", "--out …/run1 -s a=1"),
        ("C:\\Users\\ann\\x.toml", "…/x.toml"),
        ("recipes/knees.toml --out=/data/x", "recipes/knees.toml --out=…/x"),
        ("~/runs/a", "…/a"),
        ("1/2 of them", "1/2 of them"),
    ],
)
def test_absolute_paths_are_shortened(text: str, shown: str) -> None:
    assert without_paths(text) == shown


def test_numbers_read_as_people_write_them() -> None:
    assert [number(-0.0004), number(0.5), number(None), signed(0.08, 2), signed(-0.08, 2)] == [
        "0.000", "0.500", "–", "+0.08", "−0.08",
    ]  # fmt: skip
    assert [probability(p) for p in (0.0004, 0.0044, 0.82, None)] == ["< 0.001", "0.004", "0.82", "–"]
    assert [span([3]), span([5, 3]), span([])] == ["3", "3 to 5", "–"]
