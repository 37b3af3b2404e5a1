"""Linear probing then fine-tuning: the start is the probe, and nothing worse on validation comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from trabecula import finetune, pretrain, split
from trabecula.errors import InputError
from trabecula.nets.encoder import make_encoder
from trabecula.objectives.classify import Classify
from trabecula.run import execute
from trabecula.transfer import fine_tuning
from trabecula.transfer.fine_tuning import (
    FewLabels,
    Material,
    Tuning,
    check,
    is_below,
    make_objective,
    read_material,
    tune,
)
from trabecula.transfer.probe_start import below, features_of, started

CPU = torch.device("cpu")
FEW_STEPS = {"images": 16, "batch_size": 8, "every": 8, "precision": "float32", "augment": False}


@pytest.fixture(scope="module")
def root(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("start")
    parts = split.Config(manifest=hospital / "cohort", task="kl", train=0.5, val=0.25, test=0.25)
    execute("split", parts, root / "split")
    for name in ("critic", "timm:resnet18"):
        config = pretrain.Config(store=hospital / "store", architecture=name)
        execute("pretrain", config, root / name.removeprefix("timm:"))
    return root


def few(hospital: Path, root: Path, encoder: str, task: str) -> dict[str, object]:
    return {
        "encoder": root / encoder, "store": hospital / "store", "manifest": hospital / "cohort",
        "splits": root / "split", "task": task,
    }  # fmt: skip


def material(hospital: Path, root: Path, encoder: str = "critic", task: str = "kl") -> Material:
    return read_material(FewLabels(**few(hospital, root, encoder, task)), seed=0)


def begun(known: Material) -> Classify:
    """Encoder and head before training."""
    objective = make_objective(Tuning(), known, 0)
    known.probe_start("auto", 1.0, CPU).put_into(objective)
    return objective


@pytest.mark.parametrize("encoder", ["critic", "resnet18"])
@pytest.mark.parametrize(("task", "weight"), [("kl", "balanced"), ("kl >= 1", None)])
def test_the_network_begins_as_the_probe_of_its_features(
    hospital: Path, root: Path, encoder: str, task: str, weight: str | None
) -> None:
    """Before any step its probabilities are scikit-learn's, at the chosen strength, on its own features."""
    known = material(hospital, root, encoder, task)
    start = known.probe_start("auto", 1.0, CPU)
    objective = begun(known)
    train, val = known.subset.train, known.subset.val
    x, new = (features_of(objective.encoder.eval(), known.images(part, CPU, 1.0)) for part in (train, val))
    mean, std = x.mean(0), x.std(0, correction=0)
    std = torch.where(std > 1e-7 * mean.abs(), std, 1.0)
    model = LogisticRegression(C=start.probe.strength, class_weight=weight, tol=1e-12, max_iter=20_000)
    model.fit(((x - mean) / std).numpy(), known.labelled.y[train])
    expected = model.predict_proba(((new - mean) / std).numpy())
    with torch.no_grad():
        images = torch.cat(list(known.images(val, CPU, 1.0)))
        ours = objective.eval().probabilities(objective(images)).numpy()
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_batch_norms_begin_with_the_statistics_of_the_labelled_images(hospital: Path, root: Path) -> None:
    known = material(hospital, root, "resnet18")
    objective = begun(known)
    norm = next(part for part in objective.modules() if isinstance(part, nn.BatchNorm2d))
    assert norm.momentum == 0.1
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        objective.eval()(torch.cat(list(known.images(known.subset.train, CPU, 1.0))))
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-5)
    untouched = next(p for p in known.encoder.modules() if isinstance(p, nn.BatchNorm2d)).running_mean
    assert not untouched.any()  # the encoder itself stays as it was


def test_statistics_where_single_images_leave_none() -> None:
    """At 32 px the last maps of a ResNet are single positions: a batch of one image has no variance there."""
    encoder = make_encoder("timm:resnet10t", 1, 32)
    images = torch.rand(5, 1, 32, 32)
    in_parts, whole = (started(encoder, images.split(size)) for size in (2, 5))
    last = [[m for m in e.modules() if isinstance(m, nn.BatchNorm2d)][-1] for e in (in_parts, whole)]
    assert all(norm.running_mean.any() for norm in last)
    assert not torch.equal(last[0].running_mean, last[1].running_mean)  # a mean over batches of 2 and 3
    alone = started(encoder, images[:1].split(1))
    for norm in (m for m in alone.modules() if isinstance(m, nn.BatchNorm2d)):
        assert not norm.running_mean.any()


def test_what_comes_out_is_never_worse_on_validation_than_the_probe(hospital: Path, root: Path) -> None:
    known = material(hospital, root)
    start_loss, *_ = check(begun(known), known.validation, CPU)
    for lr in (1e-4, 1.0):  # the second destroys it
        objective, fitted = tune(Tuning(**FEW_STEPS, optimizer={"lr": lr}, tolerance=0), known, 0, CPU)
        loss, *_ = check(objective, known.validation, CPU)
        assert loss == pytest.approx(fitted.loss)
        assert loss <= start_loss + 1e-6
    assert fitted.images_seen == 0
    assert not fitted.stayed_at_chance


def test_training_goes_on_from_the_probe(hospital: Path, root: Path) -> None:
    known = material(hospital, root)
    objective, fitted = tune(Tuning(**FEW_STEPS, optimizer={"lr": 1e-4}, patience=9), known, 0, CPU)
    assert fitted.images_spent == 16
    assert fitted.points == 2
    if fitted.images_seen:
        before, after = (dict(net.named_parameters()) for net in (known.encoder, objective.encoder))
        assert all(not torch.equal(before[name], after[name]) for name in before)


def test_a_class_that_training_lacks_starts_below_the_others(hospital: Path, root: Path) -> None:
    known = material(hospital, root)
    y = np.where(known.labelled.y == 2, 1, known.labelled.y)
    lacking = known.__class__(
        **{
            **vars(known),
            "labelled": known.labelled.__class__(**{**vars(known.labelled), "y": y}),
            "starts": {},
        }
    )
    bias = begun(lacking).head.output.bias.detach()
    assert torch.isfinite(bias).all()
    assert float(bias[2]) < float(bias[:2].min())


def test_other_heads_start_at_random_and_are_refused_a_probe(hospital: Path, root: Path) -> None:
    known = material(hospital, root)
    layers = [{"width": 4}]
    tune(Tuning(**FEW_STEPS, head=layers), known, 0, CPU)
    assert not known.starts
    with pytest.raises(InputError, match="head_start 'probe' is the start of a linear head"):
        tune(Tuning(**FEW_STEPS, head=layers, head_start="probe"), known, 0, CPU)


def test_a_random_head_that_ends_below_the_probe_is_reported(
    hospital: Path, root: Path, tmp_path: Path
) -> None:
    config = finetune.Config(
        **few(hospital, root, "critic", "kl"), **FEW_STEPS, head_start="random", keep=False,
        optimizer={"name": "sgd", "lr": 0.01, "clip_norm": 1.0},
    )  # fmt: skip
    execute("finetune", config, tmp_path / "out")
    note = str(pd.read_csv(tmp_path / "out" / "choices.csv")["note"].iloc[0])
    known = material(hospital, root)
    objective, fitted = tune(config, known, 0, CPU)
    assert fitted.images_seen > 0
    assert ("worse on validation than a linear probe of its start" in note) == _is_worse(known, objective)
    start = known.probe_start("auto", 1.0, CPU)
    perfect = replace(start, log_p=np.log(np.eye(3) + 1e-9)[known.validation.y])
    assert is_below(begun(known), known, config, perfect, CPU)  # about log 3 for each image


@pytest.mark.parametrize(("task", "alike"), [("kl", True), ("kl >= 1", False)])
def test_below_the_probe_weighs_classes_as_the_validation_loss_does(
    hospital: Path, root: Path, monkeypatch: pytest.MonkeyPatch, task: str, alike: bool
) -> None:
    known = material(hospital, root, task=task)
    start = known.probe_start("auto", 1.0, CPU)
    labels = known.labelled.y.copy()
    labels[known.subset.val[0]] = 1 - labels[known.subset.val[0]]  # classes of unequal size
    known = replace(known, labelled=replace(known.labelled, y=labels))
    y = known.validation.y
    losses, given = np.linspace(0.1, 2.0, len(y)), []
    monkeypatch.setattr(fine_tuning, "validation_losses", lambda *_: (losses, None))
    monkeypatch.setattr(fine_tuning, "below", lambda *arrays: bool(given.extend(arrays)))
    is_below(make_objective(Tuning(), known, 0), known, Tuning(), start, CPU)
    weights = (1 / np.bincount(y))[y] if alike else np.ones(len(y))
    of_probe = -start.log_p[np.arange(len(y)), y]
    np.testing.assert_allclose(given[0], losses * weights / weights.mean())
    np.testing.assert_allclose(given[1], of_probe * weights / weights.mean())
    assert np.ptp(np.bincount(y)) > 0  # else both weigh the same


def _is_worse(known: Material, objective: nn.Module) -> bool:
    """By hand: two standard errors of the differences of patients, classes alike."""
    y, val = known.labelled.y[known.subset.val], known.subset.val
    with torch.no_grad():
        images = torch.cat(list(known.images(val, CPU, 1.0)))
        p = objective.eval().probabilities(objective(images)).double().numpy()  # type: ignore[operator]
    start = np.exp(known.probe_start("auto", 1.0, CPU).log_p)
    rows = np.arange(len(y))
    weights = (1 / np.bincount(y))[y]
    d = np.log(start[rows, y] / p[rows, y]) * weights / weights.mean()
    table = pd.DataFrame({"patient": known.labelled.patient_ids[val], "d": d})
    each = table.groupby("patient")["d"].mean()
    return bool(each.mean() > 2 * each.sem())


def test_below_is_more_than_two_standard_errors() -> None:
    patients = np.array(["a", "a", "b", "c", "d"])
    start = np.ones(5)
    assert below(start + 0.5, start, patients) is True
    assert below(start + np.array([1.0, -1.0, 0.1, -0.1, 0.05]), start, patients) is False
    assert below(start - 0.5, start, patients) is False
    assert below(start[:2] + 1, start[:2], patients[:2]) is False  # one patient shows no spread
