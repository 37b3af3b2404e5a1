"""Heads in fine-tuning: the critic as it is, hidden layers, and what does not go together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from trabecula import finetune, predict, pretrain, split
from trabecula.artifacts.classifier import HiddenLayer
from trabecula.artifacts.store import to_float
from trabecula.data.batches import images_in_order
from trabecula.errors import InputError
from trabecula.nets.classifier import load_classifier
from trabecula.nets.encoder import load_critic
from trabecula.run import execute
from trabecula.transfer.fine_tuning import (
    FewLabels,
    Fitted,
    Material,
    Tuning,
    check,
    make_objective,
    read_material,
    tune,
)

CPU = torch.device("cpu")
DEEP = (
    HiddenLayer(width=6, nonlinearity="tanh", batch_norm=True, dropout=0.2),
    HiddenLayer(width=4, nonlinearity="none", dropout=0.5),
)


@pytest.fixture(scope="module")
def root(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tuning")
    parts = split.Config(manifest=hospital / "cohort", task="kl", train=0.5, val=0.25, test=0.25)
    execute("split", parts, root / "split")
    for name, settings in {
        "gan": {"objective": "wgan_gp", "images": 48, "splits": root / "split",
                "settings": {"critic_steps": 1, "latent": 8}},
        "random": {}, "mean": {"pool": "mean"},
    }.items():  # fmt: skip
        common = {
            "store": hospital / "store",
            "architecture": "critic",
            "batch_size": 8,
            "precision": "float32",
        }
        execute("pretrain", pretrain.Config(**common, **settings), root / name)
    return root


def few(hospital: Path, root: Path, encoder: str, task: str = "kl >= 1") -> dict[str, object]:
    return {
        "encoder": root / encoder, "store": hospital / "store", "manifest": hospital / "cohort",
        "splits": root / "split", "task": task,
    }  # fmt: skip


def material(hospital: Path, root: Path, encoder: str = "gan", task: str = "kl >= 1") -> Material:
    return read_material(FewLabels(**few(hospital, root, encoder, task)), seed=0)


@torch.no_grad()
def test_the_critic_starts_as_it_is(hospital: Path, root: Path) -> None:
    """Before training p(positive) is the sigmoid of the score that the GAN's critic gives."""
    known = material(hospital, root)
    objective = make_objective(Tuning(head="critic"), known, seed=3).eval()
    images = to_float(known.store.read(known.rows))
    scores = load_critic(root / "gan")(known.encoder.normalise(images))
    torch.testing.assert_close(objective.probabilities(objective(images))[:, 1], scores.sigmoid())
    assert not torch.equal(scores, torch.zeros_like(scores))


@torch.no_grad()
def test_a_standardised_critic_ranks_as_before(hospital: Path, root: Path) -> None:
    known = material(hospital, root)
    objective = make_objective(Tuning(head="critic"), known, seed=3)
    train = known.rows[known.subset.train]
    objective.prepare(images_in_order(known.store, train, CPU, 256, equal=True))
    images = to_float(known.store.read(train))
    ours = objective.eval()(images)[:, 1]
    scores = load_critic(root / "gan")(known.encoder.normalise(images))
    torch.testing.assert_close(
        ours, (scores - scores.mean()) / scores.std(correction=0), rtol=1e-3, atol=1e-3
    )


def test_the_control_has_a_random_output_layer_of_its_own_seed(hospital: Path, root: Path) -> None:
    known = material(hospital, root, "random")
    weights = [make_objective(Tuning(head="critic"), known, seed).head.output.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].shape == (1, known.encoder.card.num_features)


def test_nothing_of_the_critic_is_frozen_and_the_material_stays(hospital: Path, root: Path) -> None:
    known = material(hospital, root)
    before = {name: weight.clone() for name, weight in known.encoder.named_parameters()}
    start = make_objective(Tuning(head="critic"), known, 0)
    settings = Tuning(head="critic", images=48, batch_size=8, precision="float32", standardise=False)
    end, fitted = tune(settings, known, 0, CPU)
    moved = [not torch.equal(a, b) for a, b in zip(start.parameters(), end.parameters(), strict=True)]
    assert all(moved)
    assert fitted.images_spent == 48
    after = dict(known.encoder.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("encoder", "task", "message"),
    [
        ("gan", "kl", "a critic has one score"),
        ("mean", "kl >= 1", "needs a critic with pool 'flatten'"),
        ("copy", "kl >= 1", "no critic there"),
    ],
)
def test_what_is_no_critic_is_refused(
    hospital: Path, root: Path, tmp_path: Path, encoder: str, task: str, message: str
) -> None:
    if encoder == "copy":  # pretrained, and its output layer is lost
        encoder = str(tmp_path / "copy")
        (tmp_path / "copy").mkdir()
        for name in ("encoder.json", "encoder.safetensors"):
            (tmp_path / "copy" / name).write_bytes((root / "gan" / name).read_bytes())
    with pytest.raises(InputError, match=message):
        make_objective(Tuning(head="critic"), material(hospital, root, encoder, task), 0)


def test_batch_norm_in_the_head_counts_as_coupled(hospital: Path, root: Path) -> None:
    known = material(hospital, root)
    assert not make_objective(Tuning(), known, 0).batch_coupled
    assert make_objective(Tuning(head=DEEP), known, 0).batch_coupled


@pytest.mark.parametrize("head", ["critic", DEEP, ()], ids=["critic", "deep", "one logit"])
def test_a_classifier_with_any_head_is_read_back(
    hospital: Path, root: Path, tmp_path: Path, head: object
) -> None:
    config = finetune.Config(
        **few(hospital, root, "gan"), head=head, images=48, batch_size=8, class_weight="balanced",
        precision="float32", variant="other head",
    )  # fmt: skip
    execute("finetune", config, tmp_path / "fine")
    execute("predict", predict.Config(classifier=tmp_path / "fine", store=hospital / "store"), tmp_path / "p")
    old, new = (
        pd.read_csv(tmp_path / name / "predictions.csv", dtype={"image_id": str}).set_index("image_id")
        for name in ("fine", "p")
    )
    np.testing.assert_allclose(new.loc[old.index, "p_1"], old["p_1"], rtol=1e-5)
    assert set(old["mode"]) == {"finetune:other head"}
    assert load_classifier(tmp_path / "fine").card.head == head


def test_dropout_and_batch_norm_resume_bit_for_bit(
    hospital: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRABECULA_SAVE_S", "0")
    known = material(hospital, root)
    settings = Tuning(head=DEEP, images=64, every=8, batch_size=8, patience=50, precision="float32")
    whole, _ = tune(settings, known, 0, CPU, tmp_path / "whole.pt")

    class KilledError(Exception):
        pass

    def kill(checks: int, *_: float) -> bool:
        if checks == 4:
            raise KilledError
        return False

    with pytest.raises(KilledError):
        tune(settings, known, 0, CPU, tmp_path / "part.pt", kill)
    again, _ = tune(settings, known, 0, CPU, tmp_path / "part.pt")
    ended = again.state_dict()
    assert [k for k, v in whole.state_dict().items() if not torch.equal(v, ended[k])] == []


def test_epochs_count_passes_and_checks(hospital: Path, root: Path) -> None:
    """Den Boer's setting: at most so many epochs, a check after each, patience in epochs."""
    known = material(hospital, root)
    num = len(known.subset.train)
    seen: list[int] = []
    settings = Tuning(epochs=5, patience=50, batch_size=num, precision="float32")
    _, fitted = tune(settings, known, 0, CPU, should_stop=lambda checks, *_: bool(seen.append(checks)))
    assert seen == [1, 2, 3, 4, 5]
    assert fitted.images_spent == 5 * num


def test_batch_norm_needs_two_images(hospital: Path, root: Path) -> None:
    known = material(hospital, root)
    one = replace(known, subset=replace(known.subset, train=known.subset.train[:1]))
    with pytest.raises(InputError, match="two labelled training images"):
        make_objective(Tuning(head=DEEP), one, 0)


def test_a_run_that_stays_on_the_plateau_says_so(hospital: Path, root: Path, tmp_path: Path) -> None:
    notes = []
    for name, lr in (("still", 1e-12), ("moves", 1e-3)):
        config = finetune.Config(
            **few(hospital, root, "random"), optimizer={"lr": lr}, images=480, batch_size=12, patience=99,
            precision="float32", augment=False, keep=False, head_start="random",
        )  # fmt: skip
        said = execute("finetune", config, tmp_path / name)
        notes.append(pd.read_csv(tmp_path / name / "choices.csv", keep_default_na=False)["note"][0])
        assert ("stayed at chance" in said) == (name == "still")
    part = material(hospital, root).subset.record["train"]["per_class"]
    frequencies = np.array(list(part.values())) / sum(part.values())
    entropy = -(frequencies * np.log(frequencies)).sum()
    assert notes[0].endswith(f"of the class frequencies alone {entropy:.3g})")
    assert "chance" not in notes[1].replace("partly chance", "")


def test_one_class_alone_has_no_plateau() -> None:
    known = {
        "images_seen": 8, "loss": 0.1, "metric": 0.5, "points": 1, "images_spent": 8, "best_at": 8,
        "best_loss": 0.1,
    }  # fmt: skip
    assert not Fitted(**known, train_loss=0.01, constant_loss=0.0).stayed_at_chance
    assert Fitted(**known, train_loss=0.69, constant_loss=0.693).stayed_at_chance
    assert not Fitted(**known, train_loss=0.6, constant_loss=0.693).stayed_at_chance


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, True), ({"images_spent": 16}, False), ({"best_at": 0}, False), ({"points": 1}, False)],
)
def test_a_run_whose_last_check_of_several_is_best_was_best_at_its_end(
    changes: dict[str, int], expected: bool
) -> None:
    known = {"images_seen": 8, "best_at": 8, "images_spent": 8, "points": 2, **changes}
    fitted = Fitted(**known, loss=0.1, metric=0.5, best_loss=0.1, train_loss=0.3, constant_loss=0.7)
    assert fitted.best_at_end is expected


# ---- class weights


def relabelled(known: Material, y: np.ndarray) -> Material:
    return replace(known, labelled=replace(known.labelled, y=y), starts={})


def uneven(known: Material) -> Material:
    """The same images; in training and validation half of class 0, a third of class 1, a sixth of class 2."""
    y = known.labelled.y.copy()
    for part in (known.subset.train, known.subset.val):
        y[part] = np.repeat([0, 1, 2], [len(part) // 2, len(part) // 3, len(part) // 6])
    return relabelled(known, y)


def test_auto_weighs_classes_alike_from_three_on(hospital: Path, root: Path) -> None:
    grades = uneven(material(hospital, root, "random", "kl"))
    y = grades.labelled.y[grades.subset.train]
    for kind in ("multiclass", "ordinal"):
        known = replace(grades, task=grades.task.model_copy(update={"kind": kind}))
        weights = make_objective(Tuning(), known, 0).class_weights
        np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=y))
    np.testing.assert_allclose(weights, [2 / 3, 1, 2])
    assert make_objective(Tuning(class_weight="none"), grades, 0).class_weights is None
    rule = material(hospital, root, "random", "kl >= 2")
    assert rule.task.kind == "binary"
    assert make_objective(Tuning(), rule, 0).class_weights is None
    np.testing.assert_allclose(
        make_objective(Tuning(class_weight="balanced"), rule, 0).class_weights, [0.75, 1.5]
    )


@torch.no_grad()
@pytest.mark.parametrize("class_weight", ["auto", "none"])
def test_the_losses_of_training_and_validation_weigh_classes_alike(
    hospital: Path, root: Path, class_weight: str
) -> None:
    known = uneven(material(hospital, root, "random", "kl"))
    objective = make_objective(Tuning(class_weight=class_weight), known, 0).eval()
    for part in (known.subset.val, known.subset.train):
        y = known.labelled.y[part]
        logits = objective(to_float(known.store.read(known.rows[part])))
        each = -np.log(objective.probabilities(logits).double().numpy())[np.arange(len(y)), y]
        alike, as_they_come = np.mean([each[y == k].mean() for k in range(3)]), each.mean()
        assert abs(alike - as_they_come) > 0.001
        if part is known.subset.val:
            loss, *_ = check(objective, known.validation, CPU)
        else:
            loss = objective.loss(logits, torch.from_numpy(y)).item()
        assert loss == pytest.approx(alike if class_weight == "auto" else as_they_come, abs=1e-5)


# ---- from the probe


def by_brightness(known: Material) -> Material:
    """The same images, graded by their brightness, which a probe can learn."""
    means = known.store.read(known.rows).float().mean((1, 2, 3)).numpy()
    return relabelled(known, np.digitize(means, np.quantile(means, [1 / 3, 2 / 3])))


@pytest.mark.parametrize("select", ["loss", "metric"])
@pytest.mark.parametrize("lr", [1e-4, 10.0])
def test_nothing_worse_than_the_probe_comes_out_by_what_selects(
    hospital: Path, root: Path, select: str, lr: float
) -> None:
    """One step at the second rate destroys the network."""
    known = by_brightness(material(hospital, root, "random", "kl"))
    begun = make_objective(Tuning(), known, 0)
    known.probe_start("auto", 1.0, CPU).put_into(begun)
    start_loss, start_metric, _ = check(begun, known.validation, CPU)
    assert start_metric > 0.5
    images = 12 if lr == 10 else 48
    tuning = Tuning(
        images=images, every=12, batch_size=12, precision="float32", augment=False, select=select,
        optimizer={"lr": lr}, tolerance=0.0,
    )  # fmt: skip
    objective, fitted = tune(tuning, known, 0, CPU)
    loss, metric, _ = check(objective, known.validation, CPU)
    assert (loss, metric) == (pytest.approx(fitted.loss), fitted.metric)
    if select == "metric":
        assert metric >= start_metric
    if select == "loss" or metric == start_metric:
        assert loss <= start_loss + 1e-5
    if lr == 10:
        assert (fitted.images_seen, fitted.images_spent) == (0, 12)
