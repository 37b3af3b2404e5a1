"""Labelled patients per class, from the draw to the report, beside parts of the labels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import predicted_study
from searched_study import config as search_config
from searched_study import start
from trabecula import embed, evaluate, finetune, probe, report
from trabecula.config import build
from trabecula.errors import InputError
from trabecula.run import execute

ARMS = ("resnet-random", "resnet-moco")


@pytest.fixture(scope="module")
def root(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(hospital, tmp_path_factory.mktemp("shots"))


def test_probes_of_shots_are_of_so_many_patients_of_each_class(
    hospital: Path, root: Path, tmp_path: Path
) -> None:
    execute("embed", embed.Config(encoder=root / "encoder0", store=hospital / "store"), tmp_path / "f")
    few = {
        "features": tmp_path / "f", "manifest": hospital / "cohort", "splits": root / "split",
        "task": "kl >= 1", "seeds": (0, 1), "num_strengths": 3,
    }  # fmt: skip
    assert build(probe.Config, {**few, "shots": [1]}, "probe").budgets == (-1.0,)
    assert build(probe.Config, {**few, "shots": [1], "fractions": [0.5]}, "probe").budgets == (-1.0, 0.5)
    assert build(probe.Config, few, "probe").budgets == (0.01, 0.05, 0.1)
    assert build(probe.Config, {**few, "shots": 5}, "probe").budgets == (-5.0,)
    for wrong, said in (
        ({"fractions": []}, "give fractions or shots"),
        ({"shots": [0]}, "shots"),
        ({"fractions": [-5]}, "fraction -5.0: must be"),
        ({"fractions": [float("-inf")]}, "fraction -inf"),
        ({"shots": [5, 5]}, "'shots' has 5 twice"),
        ({"fractions": [0.1, 0.1]}, "'fractions' has 0.1 twice"),
        ({"seeds": [0, 0]}, "'seeds' has 0 twice"),
    ):
        with pytest.raises(InputError, match=said):
            build(probe.Config, {**few, **wrong}, "probe")
    execute("probe", build(probe.Config, {**few, "shots": [1]}, "probe"), tmp_path / "p")
    choices = pd.read_csv(tmp_path / "p" / "choices.csv")
    assert choices["fraction"].tolist() == [-1, -1]
    assert choices["num_train_patients"].tolist() == choices["num_val_patients"].tolist() == [2, 2]
    with pytest.raises(InputError, match=r"99 labelled patients per class: train has .* of '0', train"):
        execute("probe", build(probe.Config, {**few, "shots": [99]}, "probe"), tmp_path / "refused")


def test_fine_tunings_and_searches_take_shots(hospital: Path, root: Path, tmp_path: Path) -> None:
    few = {
        "encoder": root / "encoder0", "store": hospital / "store", "manifest": hospital / "cohort",
        "splits": root / "split", "task": "kl >= 1", "images": 16, "every": 8, "batch_size": 4,
        "precision": "float32", "shots": 1,
    }  # fmt: skip
    with pytest.raises(InputError, match="fraction and shots exclude each other: give one of them"):
        build(finetune.Config, {**few, "fraction": 0.5}, "finetune")
    said = execute("finetune", build(finetune.Config, few, "finetune"), tmp_path / "t")
    assert "kl >= 1, 1 patient per class, seed 0: stopped at" in said
    assert pd.read_csv(tmp_path / "t" / "choices.csv")["fraction"].tolist() == [-1]
    assert set(pd.read_csv(tmp_path / "t" / "predictions.csv")["fraction"]) == {-1}
    said = execute("search", search_config(hospital, root, shots=1, trials=1), tmp_path / "s")
    assert "1 patient per class: trial 0 of 1 is best" in said
    assert json.loads((tmp_path / "s" / "chosen.json").read_text())["fraction"] == -1


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Evaluations of parts of the labels alone, and of 5 and 10 patients per class beside them."""
    root, _ = predicted_study.make_study(tmp_path_factory.mktemp("both"))
    for arm in ARMS:
        for name in ("predictions.csv", "choices.csv"):
            path = root / f"predictions-{arm}" / name
            table = pd.read_csv(path, dtype={"threshold": "str"})
            shots = table.assign(fraction=table["fraction"].map({0.1: -5, 1.0: -10}))
            if name == "choices.csv":
                shots["num_train_patients"] = -2 * shots["fraction"]
            (root / f"shots-{arm}").mkdir(exist_ok=True)
            shots.to_csv(root / f"shots-{arm}" / name, index=False)
    wanted = predicted_study.config_of(root, ARMS)
    execute("evaluate", wanted, root / "parts")
    more = [*wanted.predictions, *(root / f"shots-{arm}" for arm in ARMS)]
    both = build(evaluate.Config, {**wanted.model_dump(), "predictions": more}, "test")
    execute("evaluate", both, root / "both")
    return root, root / "parts", root / "both"


def rows(folder: Path, file: str, key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / file).read_text())[key]
    return found


def test_shots_and_parts_of_the_labels_do_not_touch_each_other(evaluated: tuple[Path, Path, Path]) -> None:
    """The same scores give the same numbers under either key; families and curves are of one kind."""
    _, parts, both = evaluated
    twin = {-5.0: 0.1, -10.0: 1.0}
    for file, key in (("metrics.json", "rows"), ("comparisons.json", "pairs")):
        alone, together = rows(parts, file, key), rows(both, file, key)
        assert [row for row in together if row["fraction"] > 0] == alone
        shots = [{**row, "fraction": twin[row["fraction"]]} for row in together if row["fraction"] < 0]
        assert len(shots) == len(alone)
        assert all(row in alone for row in shots)
    alone = rows(parts, "comparisons.json", "label_multipliers")
    together = rows(both, "comparisons.json", "label_multipliers")
    assert [row for row in together if row["fraction"] > 0] == alone
    assert {row["fraction"] for row in together} == {-5, -10, 0.1, 1}
    (curve,) = [
        one for one in rows(both, "curves.json", "learning")
        if (one["task"], one["arm"], one["metric"]) == ("oa", "resnet-moco", "auroc")
    ]  # fmt: skip
    assert [(p["fraction"], p["num_patients"]) for p in curve["points"]] == [
        (-5, 10), (-10, 20), (0.1, 6), (1, 60)
    ]  # fmt: skip


def test_the_report_has_columns_and_curves_of_patients_per_class(
    evaluated: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    root, _, both = evaluated
    execute("report", report.Config(results=both, manifest=root / "hospital"), tmp_path / "r")
    page = (tmp_path / "r" / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    page = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    assert "labelled patients per class (log scale)" in page
    assert "share of labels" in page
    table = (tmp_path / "r" / "tables" / "results.md").read_text().replace("\N{NO-BREAK SPACE}", " ")
    order = ["5 patients per class", "10 patients per class", "10 % of labels", "100 % of labels"]
    for name in ("comparisons.md", "label_multipliers.md", "fractions.md"):
        text = (tmp_path / "r" / "tables" / name).read_text().replace("\N{NO-BREAK SPACE}", " ")
        assert 0 < text.index("5 per class") < text.index("10 per class") < text.index("10 %"), name
    heads = next(line for line in table.splitlines() if order[0] in line)
    places = [heads.index(name) for name in order]
    assert places == sorted(places)
    for wrong in ("-500", "−500", "per class of", "-5 "):
        assert wrong not in page, wrong
