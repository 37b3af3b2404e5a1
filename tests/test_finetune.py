"""finetune and predict: few labels, early stopping, threshold, and the classifier on another store."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch

from searched_study import labelled, written
from trabecula import embed, finetune, predict, prepare, pretrain, probe, split
from trabecula.artifacts.splits import read_splits
from trabecula.artifacts.store import Store, to_float
from trabecula.artifacts.tasks import Task
from trabecula.data.batches import Stream, images_in_order
from trabecula.errors import InputError, RunError
from trabecula.nets.classifier import load_classifier
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.classify import Classify, ClassifyConfig
from trabecula.objectives.objective import Setting
from trabecula.run import execute
from trabecula.transfer import few_labels, fine_tuning
from trabecula.transfer.few_labels import thresholds
from trabecula.transfer.fine_tuning import Check, Validation, fit


@pytest.fixture(scope="module")
def tuned(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tuned")
    execute(
        "split",
        split.Config(manifest=hospital / "cohort", task="kl", train=0.5, val=0.25, test=0.25),
        root / "split",
    )
    execute("pretrain", pretrain.Config(store=hospital / "store", architecture="critic"), root / "encoder")
    execute("finetune", config(hospital, root), root / "finetune")
    return root


def config(hospital: Path, root: Path, **settings: object) -> finetune.Config:
    values = {
        "encoder": root / "encoder", "store": hospital / "store", "manifest": hospital / "cohort",
        "splits": root / "split", "task": "kl >= 1", "images": 96, "batch_size": 8, "every": 16,
        "precision": "float32", "head_start": "random",
    }  # fmt: skip
    return finetune.Config(**{**values, **settings})


def test_predictions_are_of_validation_and_test_and_carry_no_label(tuned: Path) -> None:
    table = pd.read_csv(tuned / "finetune" / "predictions.csv", dtype={"image_id": str})
    assert list(table.columns) == [
        "image_id", "task", "cohort", "arm", "mode", "fraction", "seed", "pretrain_seed", "split",
        "p_0", "p_1",
    ]  # fmt: skip
    parts = read_splits(tuned / "split")
    for name, rows in table.groupby("split"):
        assert set(rows["image_id"].str[:3]) == set(parts.patients(str(name)))
    assert set(table["split"]) == {"val", "test"}
    np.testing.assert_allclose(table["p_0"] + table["p_1"], 1, atol=1e-6)
    choice = pd.read_csv(tuned / "finetune" / "choices.csv").iloc[0]
    assert 0 < choice["threshold"] < 1
    assert choice["num_train_patients"] == len(parts.patients("train"))


def test_a_run_again_gives_the_same_bytes(hospital: Path, tuned: Path, tmp_path: Path) -> None:
    execute("finetune", config(hospital, tuned), tmp_path / "again")
    for name in ("predictions.csv", "choices.csv", "classifier.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tuned / "finetune" / name).read_bytes()


def test_the_classifier_predicts_the_same_on_the_store_it_knows(
    hospital: Path, tuned: Path, tmp_path: Path
) -> None:
    execute(
        "predict", predict.Config(classifier=tuned / "finetune", store=hospital / "store"), tmp_path / "p"
    )
    new = pd.read_csv(tmp_path / "p" / "predictions.csv", dtype={"image_id": str, "called": str}).set_index(
        "image_id"
    )
    old = pd.read_csv(tuned / "finetune" / "predictions.csv", dtype={"image_id": str}).set_index("image_id")
    np.testing.assert_allclose(new.loc[old.index, "p_1"], old["p_1"], rtol=1e-5)
    threshold = pd.read_csv(tuned / "finetune" / "choices.csv")["threshold"][0]
    assert (new["called"] == (new["p_1"] >= threshold).astype(int).astype(str)).all()
    assert len(new) == 24
    own = predict.Config(classifier=tuned / "finetune", store=hospital / "store", splits=tuned / "split")
    execute("predict", own, tmp_path / "own")
    tested = pd.read_csv(tmp_path / "own" / "predictions.csv", dtype={"image_id": str})
    assert set(tested["image_id"].str[:3]) == set(read_splits(tuned / "split").patients("test"))


def test_probes_predict_the_same_on_the_features_they_know(
    hospital: Path, tuned: Path, tmp_path: Path
) -> None:
    execute("embed", embed.Config(encoder=tuned / "encoder", store=hospital / "store"), tmp_path / "features")
    common = {"features": tmp_path / "features", "manifest": hospital / "cohort", "splits": tuned / "split"}
    for task in ("kl >= 1", "kl"):
        folder = tmp_path / task.replace(" ", "")
        learned = probe.Config(**common, task=task, fractions=(0.5, 1.0), seeds=(0, 1))
        execute("probe", learned, folder)
        told = execute(
            "predict",
            predict.Config(classifier=folder, features=tmp_path / "features"),
            folder.with_suffix(".p"),
        )
        assert told.startswith("4 classifiers")
        key = ["image_id", "fraction", "seed"]
        new, old = (
            pd.read_csv(path / "predictions.csv", dtype={"image_id": str}).set_index(key)
            for path in (folder.with_suffix(".p"), folder)
        )
        columns = [name for name in old if name.startswith("p_")]
        np.testing.assert_allclose(new.loc[old.index, columns], old[columns], rtol=1e-3, atol=1e-6)
    execute(
        "pretrain",
        pretrain.Config(store=hospital / "store", architecture="critic", seed=9),
        tmp_path / "other",
    )
    execute("embed", embed.Config(encoder=tmp_path / "other", store=hospital / "store"), tmp_path / "foreign")
    with pytest.raises(InputError, match="made with other weights"):
        execute("predict", predict.Config(classifier=folder, features=tmp_path / "foreign"), tmp_path / "no")
    pooled = embed.Config(encoder=tuned / "encoder", store=hospital / "store", pool="mean")
    execute("embed", pooled, tmp_path / "pooled")  # at 32 px as many features as flatten gives
    with pytest.raises(InputError, match="made with other pool"):
        execute("predict", predict.Config(classifier=folder, features=tmp_path / "pooled"), tmp_path / "no2")


def test_without_a_test_part_only_validation_is_predicted(
    hospital: Path, tuned: Path, tmp_path: Path
) -> None:
    whole = split.Config(manifest=hospital / "cohort", task="kl", train=0.6, val=0.4, test=0)
    execute("split", whole, tmp_path / "split")
    execute("finetune", config(hospital, tuned, splits=tmp_path / "split"), tmp_path / "finetune")
    table = pd.read_csv(tmp_path / "finetune" / "predictions.csv")
    assert set(table["split"]) == {"val"}
    assert list(table.columns)[-2:] == ["p_0", "p_1"]


def test_a_store_prepared_otherwise_is_refused(hospital: Path, tuned: Path, tmp_path: Path) -> None:
    execute(
        "prepare", prepare.Config(manifest=hospital / "cohort", size=32, flip_side="L"), tmp_path / "other"
    )
    said = r"{}: flip_side is \"L\", wanted \"R\"; prepare"
    with pytest.raises(InputError, match=said.format("classifier 'critic-random'")):
        execute(
            "predict", predict.Config(classifier=tuned / "finetune", store=tmp_path / "other"), tmp_path / "p"
        )
    with pytest.raises(InputError, match=said.format("encoder 'critic-random'")):
        execute("finetune", config(hospital, tuned, store=tmp_path / "other"), tmp_path / "f")


def test_nothing_is_frozen(tuned: Path) -> None:
    from trabecula.nets.encoder import load_encoder

    start = dict(load_encoder(tuned / "encoder").backbone.net.named_parameters())
    end = dict(load_classifier(tuned / "finetune").encoder.backbone.net.named_parameters())
    assert [name for name in start if torch.equal(start[name], end[name])] == []


def looked(loss: float, metric: float, *each: float) -> Check:
    """A look at the four images of four patients, by default of one loss each."""
    return Check(loss, metric, np.array(each or [loss] * 4))


def test_the_latest_checkpoint_that_is_not_worse_by_more_than_noise_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third look is above the second by 1.0 standard errors, the fourth by 3.0."""
    lowest, d = np.array([0.4, 0.5, 0.6, 0.5]), np.array([-1.0, 1.0, -1.0, 1.0])
    unit = d.std(ddof=1) / 2  # one standard error
    losses = [np.full(4, 0.7), lowest, lowest + 0.1 * (d + 1.0 * unit), lowest + 0.1 * (d + 3.0 * unit)]
    for tolerance, kept in ((0.0, 16), (0.9, 16), (1.1, 24), (2.0, 24), (3.1, 32)):
        told = iter([Check(each.mean(), 0.5, each) for each in losses])
        weights = {}

        def scripted(objective: Classify, *_: object, told=told, weights=weights) -> Check:
            weights[8 * (len(weights) + 1)] = objective.head.output.weight.detach().clone()
            return next(told)

        monkeypatch.setattr(fine_tuning, "check", scripted)
        objective = Classify(ClassifyConfig(), make_encoder("critic", 1, 32), Setting(24, 8, 0))
        stream = Stream(store, np.arange(24), 8, seed=0, fields={"labels": np.arange(24) % 2})
        patients = np.array(["a", "b", "c", "d"])
        validation = Validation(store, np.arange(4), np.array([0, 1, 0, 1]), patients)
        fitted = fit(
            objective, stream, validation, images=32, every=8, patience=9, select="loss",
            precision="float32", tolerance=tolerance,
        )  # fmt: skip
        assert (fitted.images_seen, fitted.best_at) == (kept, 16)
        assert fitted.best_loss == pytest.approx(0.5)
        assert fitted.loss == pytest.approx(losses[kept // 8 - 1].mean())
        assert torch.equal(objective.head.output.weight, weights[kept])


def test_the_best_checkpoint_is_restored_and_patience_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses 3, 2, 2.5, 2.6 under patience 2: stop at the fourth look, keep the weights of the second."""
    told = iter([(3.0, 0.5), (2.0, 0.5), (2.5, 0.9), (2.6, 0.9), (0.0, 1.0)])
    weights = []

    def scripted(objective: Classify, *_: object) -> Check:
        weights.append(objective.head.output.weight.detach().clone())
        return looked(*next(told))

    monkeypatch.setattr(fine_tuning, "check", scripted)
    objective = Classify(ClassifyConfig(), make_encoder("critic", 1, 32), Setting(24, 8, 0))
    stream = Stream(store, np.arange(24), 8, seed=0, fields={"labels": np.arange(24) % 2})
    validation = Validation(store, np.arange(4), np.array([0, 1, 0, 1]), np.array(["a", "b", "c", "d"]))
    options = {"images": 800, "every": 8, "patience": 2, "precision": "float32"}
    fitted = fit(objective, stream, validation, select="loss", **options)
    assert (fitted.images_seen, fitted.points) == (16, 4)
    assert torch.equal(objective.head.output.weight, weights[1])
    assert not torch.equal(weights[1], weights[3])


@pytest.mark.parametrize(("select", "kept"), [("loss", 8), ("metric", 0)])
def test_the_start_is_a_checkpoint_by_what_selects(
    store: Store, monkeypatch: pytest.MonkeyPatch, select: Literal["loss", "metric"], kept: int
) -> None:
    """The first check has a better loss than the start and a worse metric; both are worse later."""
    told = iter([(0.7, 0.8), (0.5, 0.7), (0.9, 0.75), (0.9, 0.6)])
    weights = {}

    def scripted(objective: Classify, *_: object) -> Check:
        weights[8 * len(weights)] = objective.head.output.weight.detach().clone()
        return looked(*next(told))

    monkeypatch.setattr(fine_tuning, "check", scripted)
    objective = Classify(ClassifyConfig(), make_encoder("critic", 1, 32), Setting(24, 8, 0))
    stream = Stream(store, np.arange(24), 8, seed=0, fields={"labels": np.arange(24) % 2})
    validation = Validation(store, np.arange(4), np.array([0, 1, 0, 1]), np.array(["a", "b", "c", "d"]))
    options = {"images": 24, "every": 8, "patience": 9, "precision": "float32"}
    fitted = fit(objective, stream, validation, select=select, keep_start=True, **options)
    assert (fitted.images_seen, fitted.images_spent, fitted.points) == (kept, 24, 3)
    assert torch.equal(objective.head.output.weight, weights[kept])
    assert not torch.equal(weights[0], weights[8])


@pytest.mark.parametrize(
    ("task", "select", "lr", "kept"),
    [("kl", "loss", 10.0, True), ("kl", "metric", 10.0, True), ("kl >= 1", "loss", 1e-4, False)],
)
def test_a_start_that_no_checkpoint_betters_is_kept_and_told(
    hospital: Path, tuned: Path, tmp_path: Path, task: str, select: str, lr: float, kept: bool
) -> None:
    """Images graded by their brightness, which a probe learns; a step at the high rate destroys it."""
    store, table = Store.open(hospital / "store"), labelled(hospital)
    means = pd.Series(store.read(np.arange(24)).float().mean((1, 2, 3)).numpy(), store.index["image_id"])
    table["kl"] = pd.qcut(means[table["image_id"]], 3, labels=list("012")).astype(str).to_numpy()
    manifest = written(table, tmp_path / "bright")
    settings = {"images": 12 if kept else 48, "every": 12, "batch_size": 12, "augment": False, "keep": False}
    learned = config(
        hospital, tuned, **settings, manifest=manifest, task=task, select=select, head_start="auto",
        optimizer={"lr": lr},
    )  # fmt: skip
    said = execute("finetune", learned, tmp_path / "out")
    choice = pd.read_csv(tmp_path / "out" / "choices.csv", keep_default_na=False).iloc[0]
    note = "no checkpoint was better on validation than the probe it started from"
    assert (note in choice["note"], note in said) == (kept, kept)
    assert bool(choice["images_seen"] == 0) == kept
    if kept:  # what is predicted is what the probe predicts
        known = fine_tuning.read_material(learned, 0)
        start = known.probe_start("auto", 1.0, torch.device("cpu"))
        rows = pd.read_csv(tmp_path / "out" / "predictions.csv", dtype={"image_id": str})
        p = rows[rows["split"] == "val"].set_index("image_id")[["p_0", "p_1", "p_2"]]
        ids = known.labelled.image_ids[known.subset.val]
        np.testing.assert_allclose(p.loc[ids], np.exp(start.log_p), atol=1e-4)


@pytest.mark.parametrize("select", ["loss", "metric"])
def test_a_loss_that_is_no_number_is_never_the_best(
    store: Store, monkeypatch: pytest.MonkeyPatch, select: Literal["loss", "metric"]
) -> None:
    """Also not at the first look, which is the best so far; and all looks without one are no answer."""
    nan, validation = (
        float("nan"),
        Validation(store, np.arange(4), np.array([0, 1, 0, 1]), np.array(["a", "b", "c", "d"])),
    )
    options = {"images": 800, "every": 8, "patience": 2, "precision": "float32", "select": select}

    def fitted(*looks: tuple[float, float]) -> fine_tuning.Fitted:
        told = iter(looks)
        monkeypatch.setattr(fine_tuning, "check", lambda *_: looked(*next(told)))
        objective = Classify(ClassifyConfig(), make_encoder("critic", 1, 32), Setting(24, 8, 0))
        stream = Stream(store, np.arange(24), 8, seed=0, fields={"labels": np.arange(24) % 2})
        return fit(objective, stream, validation, **options)

    found = fitted((nan, 0.9), (3.0, 0.5), (nan, 1.0), (2.0, 0.6), (nan, nan), (nan, nan))
    assert (found.images_seen, found.loss, found.points) == (32, 2.0, 6)
    with pytest.raises(RunError, match="not finite at any of 3 checks"):
        fitted((nan, nan), (nan, 0.5), (nan, 0.9), (0.1, 1.0))


def test_a_run_that_was_best_at_its_last_check_is_told(
    hospital: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after a single check, and not where the rate falls to 0 by design."""
    falling = itertools.count(1)
    monkeypatch.setattr(fine_tuning, "check", lambda *_: looked(1 / next(falling), 0.5))
    notes = []
    for images, schedule in ((16, "constant"), (48, "constant"), (48, "cosine")):
        optimizer = {"name": "adam", "lr": 1e-4, "schedule": schedule}
        execute(
            "finetune",
            config(hospital, tuned, images=images, optimizer=optimizer),
            tmp_path / str(len(notes)),
        )
        notes.append(str(pd.read_csv(tmp_path / str(len(notes)) / "choices.csv")["note"].iloc[0]))
    told = "best on validation at the end of its budget (48 images)"
    assert [told in note for note in notes] == [False, True, False]


def test_measure_is_the_loss_and_metric_of_plain_images(store: Store) -> None:
    objective = Classify(ClassifyConfig(), make_encoder("critic", 1, 32), Setting(24, 8, 0))
    y = np.arange(24) % 2
    validation = Validation(store, np.arange(24), y, np.arange(24).astype(str))
    loss, metric, _ = fine_tuning.check(objective, validation, torch.device("cpu"))
    with torch.no_grad():
        logits = objective(to_float(store.read(np.arange(24))))
    from sklearn.metrics import log_loss, roc_auc_score

    p = logits.softmax(1)[:, 1].numpy()
    assert loss == pytest.approx(log_loss(y, p), rel=1e-5)
    assert metric == pytest.approx(roc_auc_score(y, p))


def test_thresholds_fall_back_where_validation_has_one_class() -> None:
    task = Task(name="t", positive="kl >= 2")
    p = np.array([[0.2, 0.8], [0.6, 0.4]])
    assert thresholds(task, np.array([1, 0]), p)[1] == ""
    assert thresholds(task, np.array([1, 1]), p) == (
        (0.5,),
        "validation has one class only (1): threshold 0.5",
    )
    labels = Task(name="m", kind="multilabel", labels=("a", "b"))
    values, note = thresholds(labels, np.array([[1, 0], [0, -1]]), p)
    assert len(values) == 2
    assert values[0] == pytest.approx(0.2)  # the positive scores below the negative: all are called
    assert note == "validation has one class only (b): threshold 0.5"


def test_balanced_weights() -> None:
    assert few_labels.balanced_weights(np.array([0, 0, 0, 1]), 2) == pytest.approx([4 / 6, 2.0])
    findings = np.array([[1, 1], [0, 1], [0, -1], [0, 0]])
    assert few_labels.balanced_weights(findings, 2) == pytest.approx([3.0, 0.5])


def test_the_kept_classifier_holds_the_scale_of_its_features(tuned: Path) -> None:
    head = load_classifier(tuned / "finetune").head
    assert len(head.scale.unique()) == 1
    assert head.scale[0] != 1
    assert head.centre.abs().max() > 0


@pytest.mark.parametrize("architecture", ["critic", "timm:resnet10t", "torchvision:squeezenet1_0"])
def test_every_arms_head_starts_on_features_of_one_scale(store: Store, architecture: str) -> None:
    encoder = make_encoder(architecture, 1, 32)
    objective = Classify(ClassifyConfig(), encoder, Setting(24, 8, 0))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    rows = np.arange(len(store))
    objective.prepare(images_in_order(store, rows, torch.device("cpu"), 256, equal=True))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    with torch.no_grad():  # as in a training step
        seen = objective.train().encoder(to_float(store.read(rows))) - objective.head.centre
    assert (seen / objective.head.scale).square().mean().item() == pytest.approx(1, abs=1e-3)
