"""The protocol: no choice sees the test part, every arm has the same budget, counts are on record."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from searched_study import config, labelled, of_part, rows, start, written
from trabecula import embed, evaluate, finetune, prepare, pretrain, probe, search
from trabecula.artifacts.search_result import read_chosen
from trabecula.recipe import read_recipe
from trabecula.run import execute
from trabecula.study import make_plan


@pytest.fixture(scope="module")
def root(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(hospital, tmp_path_factory.mktemp("search"))


def shuffled(hospital: Path, root: Path, out: Path) -> Path:
    """A manifest whose test patients have each other's labels, and not one of them its own."""
    table = labelled(hospital)
    tested = of_part(table, root, "test")
    table.loc[tested, "kl"] = [str((int(kl) + 1) % 3) for kl in table.loc[tested, "kl"]]
    return written(table, out)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_no_choice_depends_on_a_test_label(hospital: Path, root: Path, tmp_path: Path, sampler: str) -> None:
    settings = {"sampler": sampler, "pruner": "median", "trials": 12 if sampler == "tpe" else 3}
    other = shuffled(hospital, root, tmp_path / "other")
    execute("search", config(hospital, root, **settings), tmp_path / "a")
    execute("search", config(hospital, root, manifest=other, **settings), tmp_path / "b")
    for name in ("trials.csv", "chosen.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    ids = [json.loads((tmp_path / name / "config.json").read_text())["id"] for name in "ab"]
    assert ids[0] != ids[1]  # they were two searches


def test_under_the_paper_s_protocol_too_no_choice_depends_on_a_test_label(
    hospital: Path, root: Path, tmp_path: Path
) -> None:
    """Rajamohan et al. 2026, C.4: TPE, median pruner after 5 epochs, one cycle, the centre evaluated."""
    other = shuffled(hospital, root, tmp_path / "other")
    small = pretrain.Config(store=hospital / "store", architecture="critic:4-8")
    execute("pretrain", small, tmp_path / "encoder")
    settings = {
        "encoder": tmp_path / "encoder", "preset": "rajamohan", "pruner": "median", "trials": 7, "task": "kl",
        "settings": {"batch_size": 8, "precision": "float32", "views": {"flip": 0.5}},
        "space": {"epochs": {"low": 6, "high": 7}},
    }  # fmt: skip
    execute("search", config(hospital, root, **settings), tmp_path / "a")
    execute("search", config(hospital, root, manifest=other, **settings), tmp_path / "b")
    for name in ("trials.csv", "chosen.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    trials, chosen = rows(tmp_path / "a"), read_chosen(tmp_path / "a")
    assert len({row["optimizer.name"] for row in trials}) > 1
    assert {int(row["epochs"]) for row in trials} <= {6, 7}
    images = {row["state"]: int(row["images_spent"]) // 12 for row in trials}  # passes of 12 images
    assert images.get("pruned", 6) >= 6  # five epochs are free
    assert chosen.by == "metric"
    kept = chosen.settings
    assert (kept["centre_crop"], kept["views"]["flip"]) == (0.875, 0.5)
    assert kept["optimizer"]["schedule"] == "one_cycle"


def test_a_validation_label_does_count(hospital: Path, root: Path, tmp_path: Path) -> None:
    """The test above can fail: with a validation label changed the trials' losses differ."""
    table = labelled(hospital)
    at = table.index[of_part(table, root, "val")][0]
    table.loc[at, "kl"] = "0" if table.loc[at, "kl"] != "0" else "1"
    other = written(table, tmp_path / "other")
    execute("search", config(hospital, root, trials=1), tmp_path / "a")
    execute("search", config(hospital, root, trials=1, manifest=other), tmp_path / "b")
    assert rows(tmp_path / "a")[0]["loss"] != rows(tmp_path / "b")[0]["loss"]


def studied(hospital: Path, root: Path, out: Path, manifest: Path) -> dict[str, str]:
    """From films to an evaluation as a study goes; what each verb said."""
    labels = {"manifest": manifest, "splits": root / "split"}
    store, few = {"store": out / "store"}, {"task": "kl >= 1", **labels}
    moco = {"dim": 8, "queue": 8, "bn_rows": 4, "optimizer": {"name": "sgd", "lr": 0.1}}
    trained = {"architecture": "critic:4-8", "objective": "moco", "settings": moco, "images": 32,
               "batch_size": 4, "splits": root / "split", "precision": "float32"}  # fmt: skip
    encoder, chosen = {"encoder": out / "encoder"}, {"chosen": out / "search", "fraction": 0.7}
    quick = {"images": 96, "every": 8, "batch_size": 8, "patience": 12, "precision": "float32"}
    space = {"optimizer.lr": {"low": 1e-5, "high": 1e-1, "log": True}}
    whole = config(hospital, root, trials=12, pruner="median", fraction=0.7, settings=quick, space=space)
    judged = {"predictions": (out / "probe", out / "tuned"), "encoders": (out / "encoder",)}
    said = {}
    for name, verb, settings in (
        ("store", prepare, {"manifest": manifest, "size": 32}),
        ("encoder", pretrain, {**trained, **store}),
        ("features", embed, {**encoder, **store}),
        ("probe", probe, {"features": out / "features", "fractions": (0.5, 1.0), "seeds": (0, 1), **few}),
        ("search", search, {**dict(whole), **store, **labels, **encoder}),
        ("tuned", finetune, {**encoder, **chosen, **store, **few}),
        ("results", evaluate, {**judged, "num_resamples": 100, **store, **labels}),
    ):
        said[name] = execute(verb.__name__.rpartition(".")[2], verb.Config(**settings), out / name)
    return said


def predicted(folder: Path, part: str) -> str:
    table = pd.read_csv(folder / "predictions.csv", dtype=str)
    return table[table["split"] == part].to_csv()


def test_nothing_before_the_evaluation_sees_a_test_label_or_a_test_image(
    hospital: Path, root: Path, tmp_path: Path
) -> None:
    """Of test patients neither a label nor a picture is its own: weights and choices are the same bytes."""
    table = labelled(hospital)
    told = studied(hospital, root, tmp_path / "a", written(table, tmp_path / "own"))
    tested = of_part(table, root, "test")
    table.loc[tested, "kl"] = [str((int(kl) + 1) % 3) for kl in table.loc[tested, "kl"]]
    table.loc[tested, "path"] = (
        table.loc[tested, "path"].to_numpy().take(range(1, tested.sum() + 1), mode="wrap")
    )
    again = studied(hospital, root, tmp_path / "b", written(table, tmp_path / "exchanged"))
    for name, file in (
        ("encoder", "encoder.safetensors"), ("probe", "choices.csv"), ("probe", "probe.safetensors"),
        ("search", "trials.csv"), ("search", "chosen.json"), ("tuned", "choices.csv"),
        ("tuned", "classifier.safetensors"),
    ):  # fmt: skip
        assert (tmp_path / "a" / name / file).read_bytes() == (tmp_path / "b" / name / file).read_bytes(), (
            file
        )
    assert {name: told[name] for name in ("search", "tuned", "probe")} == {
        name: again[name] for name in ("search", "tuned", "probe")
    }
    for name in ("probe", "tuned"):
        assert predicted(tmp_path / "a" / name, "val") == predicted(tmp_path / "b" / name, "val")
        assert predicted(tmp_path / "a" / name, "test") != predicted(tmp_path / "b" / name, "test")
    metrics = [(tmp_path / side / "results" / "metrics.json").read_text() for side in "ab"]
    assert metrics[0] != metrics[1]  # here, and only here
    states = {row["state"] for row in rows(tmp_path / "a" / "search")}
    assert states == {"complete", "pruned"}


def test_counts_of_labels_are_on_record_and_few_validation_patients_are_told(
    hospital: Path, root: Path, tmp_path: Path
) -> None:
    """Asked for: 70 % of 6 and 3 patients. Drawn: what keeps every class, which is more here."""
    said = studied(hospital, root, tmp_path, hospital / "cohort")
    logs = {}
    for name in ("search", "tuned"):
        events = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        (logs[name],) = [event for event in events if event["event"] == "subset"]
        assert (logs[name]["train"]["requested_patients"], logs[name]["val"]["requested_patients"]) == (4, 2)
        assert sum(logs[name]["train"]["per_class"].values()) == logs[name]["train"]["images"]
        num_val = logs[name]["val"]["patients"]
        assert f"few patients in val ({num_val}): what is chosen on them is partly chance" in said[name]
    choice = pd.read_csv(tmp_path / "tuned" / "choices.csv").iloc[0]
    for part in ("train", "val"):
        for unit in ("patients", "images"):
            assert choice[f"num_{part}_{unit}"] == logs["tuned"][part][unit]
    assert "few patients in val" in choice["note"]
    assert read_chosen(tmp_path / "search").num_val_patients == logs["search"]["val"]["patients"]
    assert said["probe"].endswith("4 chosen on fewer than 10 validation patients, partly by chance")
    subsets = json.loads((tmp_path / "results" / "flow.json").read_text())["subsets"]
    assert {subset["note"] for subset in subsets} == {
        "few validation patients: what is chosen on them is partly chance"
    }


RECIPES = Path(__file__).parent.parent / "recipes"
SEARCHING = [path for path in sorted(RECIPES.glob("*.toml")) if 'verb = "search"' in path.read_text()
             or "[stages.search]" in path.read_text()]  # fmt: skip


@pytest.mark.parametrize("recipe", SEARCHING, ids=lambda path: path.stem)
def test_in_every_recipe_all_arms_have_the_same_budget_of_search(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials, sampler, pruner, space and seed; and no reported seed is one that a search used."""
    monkeypatch.chdir(tmp_path)
    read = read_recipe(recipe)
    for file in re.findall(r"weights = \"([^\"]+)\"", recipe.read_text()):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    drawn = str(read.stages["cohort"].values.get("root", "")).startswith("@")
    plan = make_plan(recipe, tmp_path / "study", [] if drawn else [f"cohort.root={tmp_path}"])
    budgets: dict[tuple[str, float], set[str]] = {}
    for cell in plan.cells:
        if isinstance(cell.config, search.Config):
            one = cell.config
            spent = (one.trials, one.sampler, one.pruner, one.preset, one.settings, one.space, one.seed)
            budgets.setdefault((cell.stage, one.fraction), set()).add(repr(spent))
    assert budgets
    assert {key: len(found) for key, found in budgets.items()} == dict.fromkeys(budgets, 1)
    searched = {cell.config.seed for cell in plan.cells if isinstance(cell.config, search.Config)}
    reported = {
        cell.config.seed
        for cell in plan.cells
        if isinstance(cell.config, finetune.Config) and cell.config.chosen is not None
    }
    assert reported
    assert not searched & reported
