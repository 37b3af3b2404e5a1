"""search: trials and the best of them, pairs of arms, and what finetune makes of the choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from searched_study import QUICK, config, labelled, of_part, rows, start, written
from trabecula import finetune
from trabecula.artifacts.search_result import read_chosen
from trabecula.artifacts.splits import read_splits
from trabecula.errors import InputError, RunError
from trabecula.run import execute
from trabecula.transfer import trials as searching
from trabecula.transfer.fine_tuning import Fitted, validation_losses


@pytest.fixture(scope="module")
def root(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(hospital, tmp_path_factory.mktemp("search"))


def test_the_best_trial_is_chosen_and_no_test_patient_is_predicted(
    hospital: Path, root: Path, tmp_path: Path
) -> None:
    said = execute("search", config(hospital, root), tmp_path / "s")
    trials, chosen = rows(tmp_path / "s"), read_chosen(tmp_path / "s")
    losses = [float(row["loss"]) for row in trials]
    assert (chosen.by, chosen.trial, chosen.num_trials) == ("loss", int(np.argmin(losses)), 4)
    best = trials[chosen.trial]
    assert chosen.settings["optimizer"]["lr"] == float(best["optimizer.lr"])
    assert chosen.settings["patience"] == int(best["patience"])
    assert set(chosen.settings) == {"images", "every", "batch_size", "precision", "optimizer", "patience"}
    assert chosen.images == sum(int(row["images_spent"]) for row in trials)
    assert f"trial {chosen.trial} of 4 is best by validation loss" in said
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert names == {
        "config.json",
        "provenance.json",
        "log.jsonl",
        ".lock",
        "DONE",
        "trials.csv",
        "chosen.json",
    }


def test_random_draws_the_same_heads_for_every_arm(hospital: Path, root: Path, tmp_path: Path) -> None:
    heads = []
    for arm in (0, 1):
        settings = {"encoder": root / f"encoder{arm}", "preset": "table1", "space": {}, "sampler": "random"}
        execute("search", config(hospital, root, trials=3, **settings), tmp_path / str(arm))
        heads.append([row["head"] for row in rows(tmp_path / str(arm))])
    assert heads[0] == heads[1]
    assert len(set(heads[0])) == 3
    losses = [row["loss"] for arm in (0, 1) for row in rows(tmp_path / str(arm))]
    assert len(set(losses)) == 6


def test_the_median_pruner_waits_and_prunes(
    hospital: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripted losses: after five good trials a bad one ends at its sixth check, the first that may."""
    checks: list[int] = []

    def scripted(*_: Any, should_stop: Any, **__: Any) -> Any:
        loss = 0.1 if len(checks) < 5 else 0.9
        for check in range(1, 10):
            if should_stop(check, loss, 0.5):
                break
        checks.append(check)
        return None, Fitted(8, loss, 0.5, 8, loss, check, 8 * check, 0.1, 0.7, check < 9)

    monkeypatch.setattr(searching, "tune", scripted)
    said = execute("search", config(hospital, root, trials=7, pruner="median"), tmp_path / "s")
    assert checks == [9, 9, 9, 9, 9, 6, 6]
    assert [row["state"] for row in rows(tmp_path / "s")] == ["complete"] * 5 + ["pruned"] * 2
    assert ", 2 pruned; few patients in val" in said


def test_a_trial_that_diverges_is_an_answer(
    hospital: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = searching.tune

    def diverging(tuning: Any, *args: Any, **options: Any) -> Any:
        if tuning.patience == 1:
            raise RunError("step 3: the loss of 'all' is nan")
        return real(tuning, *args, **options)

    monkeypatch.setattr(searching, "tune", diverging)
    said = execute("search", config(hospital, root, trials=6, sampler="random"), tmp_path / "s")
    states = {row["patience"]: row["state"] for row in rows(tmp_path / "s")}
    assert states == {"1": "diverged", "2": "complete"}
    assert "diverged" in said
    assert {row["note"] for row in rows(tmp_path / "s") if row["patience"] == "1"} == {
        "step 3: the loss of 'all' is nan"
    }
    only = config(hospital, root, space={"patience": [1]}, trials=2)
    with pytest.raises(RunError, match="none of 2 trials completed: step 3"):
        execute("search", only, tmp_path / "none")


def test_settings_that_do_not_go_together_are_a_trial(hospital: Path, root: Path, tmp_path: Path) -> None:
    """one_cycle and warm-up exclude each other; each goes with the other value of the other."""
    space = {"optimizer.schedule": ["constant", "one_cycle"], "optimizer.warmup": [0.0, 0.2]}
    wanted = config(hospital, root, space=space, trials=8, sampler="random")
    said = execute("search", wanted, tmp_path / "s")
    table = rows(tmp_path / "s")
    drawn = {(r["optimizer.schedule"], float(r["optimizer.warmup"])): r["state"] for r in table}
    assert drawn[("one_cycle", 0.2)] == "invalid"
    assert {state for pair, state in drawn.items() if pair != ("one_cycle", 0.2)} == {"complete"}
    invalid = [row for row in table if row["state"] == "invalid"]
    assert {(row["images_spent"], "one_cycle rises by itself" in row["note"]) for row in invalid} == {
        ("0", True)
    }
    assert read_chosen(tmp_path / "s").num_invalid == len(invalid)
    assert f"{len(invalid)} invalid" in said


def test_a_search_of_invalid_settings_alone_ends_in_one_line(
    hospital: Path, root: Path, tmp_path: Path
) -> None:
    space = {"head": ["critic"], "patience": [1, 2]}
    wanted = config(hospital, root, task="kl", space=space, trials=3)
    for _ in range(2):
        with pytest.raises(InputError, match="none of 3 trials had settings that go together; the last: "):
            execute("search", wanted, tmp_path / "s")


def test_an_input_that_is_no_setting_ends_the_search_and_not_for_ever(
    hospital: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise InputError("images-00000.npy: is cut short")

    wanted = config(hospital, root, trials=1)
    with monkeypatch.context() as patch:
        patch.setattr(searching, "tune", broken)
        with pytest.raises(InputError, match="is cut short"):
            execute("search", wanted, tmp_path / "s")
    execute("search", wanted, tmp_path / "s")
    assert [row["state"] for row in rows(tmp_path / "s")] == ["complete"]


def test_without_an_estimable_metric_the_loss_chooses(hospital: Path, root: Path, tmp_path: Path) -> None:
    """A validation part of one class has no AUROC."""
    metric = {**QUICK, "select": "metric"}
    execute("search", config(hospital, root, settings=metric, trials=2), tmp_path / "metric")
    assert read_chosen(tmp_path / "metric").by == "metric"
    table = labelled(hospital)
    table.loc[of_part(table, root, "val"), "kl"] = "2"
    flat = config(hospital, root, settings=metric, trials=2, manifest=written(table, tmp_path / "flat"))
    execute("search", flat, tmp_path / "loss")
    chosen = read_chosen(tmp_path / "loss")
    assert (chosen.by, chosen.metric) == ("loss", None)


def tuned(hospital: Path, root: Path, out: Path, **settings: Any) -> Path:
    common = {"store": hospital / "store", "manifest": hospital / "cohort", "splits": root / "split"}
    values = {**common, "encoder": root / "encoder0", "task": "kl >= 1", **settings}
    execute("finetune", finetune.Config(**values), out)
    return out


def test_finetune_takes_what_was_chosen_also_another_arm(hospital: Path, root: Path, tmp_path: Path) -> None:
    execute("search", config(hospital, root, preset="table1", space={}, trials=2), tmp_path / "s")
    chosen = read_chosen(tmp_path / "s")
    control = {"encoder": root / "encoder1", "augment": False}
    by_search = tuned(hospital, root, tmp_path / "a", chosen=tmp_path / "s", **control)
    by_hand = tuned(hospital, root, tmp_path / "b", **chosen.settings, **control)
    assert (by_search / "predictions.csv").read_bytes() == (by_hand / "predictions.csv").read_bytes()
    used = json.loads((by_search / "settings.json").read_text())
    assert used["head"] == chosen.settings["head"]
    assert used["augment"] is False
    assert json.loads((by_search / "config.json").read_text())["inputs"]["chosen"] == [
        json.loads((tmp_path / "s" / "config.json").read_text())["id"]
    ]
    with pytest.raises(InputError, match="seed 1000: the search itself used the labels of this seed"):
        tuned(hospital, root, tmp_path / "c", chosen=tmp_path / "s", seed=1000)
    with pytest.raises(InputError, match="no such file; it is written by `trabecula search`"):
        tuned(hospital, root, tmp_path / "d", chosen=root / "encoder0")


def test_settings_that_a_test_patient_chose_are_refused(
    hospital: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels of train and val chose; under other splits one of these patients is a test patient."""
    execute("search", config(hospital, root, trials=1), tmp_path / "s")
    of = dict(read_splits(root / "split").of)
    chosen = read_chosen(tmp_path / "s")
    assert len(chosen.patients) == sum(part != "test" for part in of.values())
    assert not set(of) & set((tmp_path / "s/chosen.json").read_text().split('"'))

    def splits(name: str, parts: dict[str, str]) -> Path:
        file = tmp_path / f"{name}.csv"
        file.write_text("\n".join(["patient_id,split", *(f"{p},{part}" for p, part in parts.items())]) + "\n")
        return file

    for part in ("train", "val"):
        patient = next(p for p in of if of[p] == part)
        moved = splits(f"moved-{part}", {**of, patient: "test"})
        with pytest.raises(
            InputError, match=f"patient '{patient}' of the test part had labels in the search"
        ):
            tuned(hospital, root, tmp_path / part, chosen=tmp_path / "s", splits=moved)
    swapped = {p: {"train": "val", "val": "train"}.get(part, part) for p, part in of.items()}
    tuned(hospital, root, tmp_path / "fine", chosen=tmp_path / "s", splits=splits("swapped", swapped))
    with pytest.raises(InputError, match="task 'kl': the settings were chosen for task 'kl >= 1'"):
        tuned(hospital, root, tmp_path / "task", chosen=tmp_path / "s", task="kl")
    monkeypatch.setenv("TRABECULA_SITE_KEY", "of another site")
    with pytest.raises(InputError, match="TRABECULA_SITE_KEY"):
        tuned(hospital, root, tmp_path / "key", chosen=tmp_path / "s")
    values = json.loads((tmp_path / "s/chosen.json").read_text())
    (tmp_path / "chosen.json").write_text(json.dumps({k: v for k, v in values.items() if k != "patients"}))
    with pytest.raises(InputError, match="does not say whose labels the search had; search again"):
        tuned(hospital, root, tmp_path / "old", chosen=tmp_path / "chosen.json")


def test_tasks_of_several_classes_are_searched_too(hospital: Path, root: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "select": "metric"}
    wanted = config(hospital, root, task="kl", preset="table1", space={}, settings=settings, trials=2)
    execute("search", wanted, tmp_path / "s")
    chosen = read_chosen(tmp_path / "s")
    assert chosen.by == "metric"
    assert chosen.metric == max(float(row["metric"]) for row in rows(tmp_path / "s"))
    with pytest.raises(InputError, match="not 3 classes"):
        execute("search", config(hospital, root, task="kl", space={"head": ["critic"]}), tmp_path / "no")


@pytest.mark.parametrize("task", ["kl", "kl >= 2"])
def test_a_trial_weighs_classes_as_fine_tuning_does(
    hospital: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Alike where there are three; of a rule as the images come, though its two are not equally frequent."""
    table = labelled(hospital)
    for part in ("train", "val"):
        at = np.flatnonzero(of_part(table, root, part))
        table.loc[at, "kl"] = np.repeat(list("012"), [len(at) // 2, len(at) // 3, len(at) // 6])
    real, expected = searching.tune, []

    def checked(tuning: Any, material: Any, *args: Any, **options: Any) -> Any:
        objective, fitted = real(tuning, material, *args, **options)
        y = material.labelled.y[material.subset.train]
        if task == "kl":
            weights = compute_class_weight("balanced", classes=np.arange(3), y=y)
            np.testing.assert_allclose(objective.class_weights, weights)
        else:
            assert objective.class_weights is None
        each, _ = validation_losses(objective, material.validation, torch.device("cpu"))
        of_class = [each[material.validation.y == k] for k in range(material.task.num_outputs)]
        assert len({len(losses) for losses in of_class}) > 1
        expected.append(np.mean([losses.mean() for losses in of_class]) if task == "kl" else each.mean())
        return objective, fitted

    monkeypatch.setattr(searching, "tune", checked)
    manifest = written(table, tmp_path / "uneven")
    execute("search", config(hospital, root, task=task, manifest=manifest, trials=1), tmp_path / "s")
    assert [float(row["loss"]) for row in rows(tmp_path / "s")] == pytest.approx(expected, rel=1e-4)
