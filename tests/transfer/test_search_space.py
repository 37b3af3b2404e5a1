"""Search spaces: what they draw, what the papers' presets hold, and what they refuse."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import optuna
import pytest

from trabecula.artifacts.classifier import HiddenLayer
from trabecula.config import dump
from trabecula.errors import InputError
from trabecula.transfer.search_space import applied, merged, resolve, touched


def draws(space: Any, num: int, seed: int = 0) -> list[dict[str, Any]]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.draw(study.ask()) for _ in range(num)]


def test_table_1_has_the_paper_s_choices_layer_by_layer() -> None:
    _, space = resolve("table1", {}, {})
    heads = [values["head"] for values in draws(space, 300)]
    assert {len(head) for head in heads} == {1, 2, 3, 4}
    layers = [layer for head in heads for layer in head]
    for name, values in {
        "width": {16, 32, 64, 128}, "batch_norm": {False, True}, "dropout": {0.0, 0.2, 0.5},
        "nonlinearity": {"relu", "leaky_relu", "tanh", "sigmoid", "none"},
    }.items():  # fmt: skip
        counts = Counter(layer[name] for layer in layers)
        assert set(counts) == values
        assert min(counts.values()) > 0.6 * len(layers) / len(values)  # equally likely
    mixed = [head for head in heads if len({layer["nonlinearity"] for layer in head}) > 1]
    assert mixed  # layers of one head differ


def test_the_paper_s_best_head_lies_in_table_1() -> None:
    wanted = [(64, "tanh", True, 0.0), (128, "relu", True, 0.2), (16, "none", False, 0.5),
              (64, "relu", False, 0.5)]  # fmt: skip
    names = ("width", "nonlinearity", "batch_norm", "dropout")
    fixed = {"head.depth": 4} | {
        f"head.{i}.{name}": value
        for i, layer in enumerate(wanted)
        for name, value in zip(names, layer, strict=True)
    }
    tuning, space = resolve("table1", {}, {})
    head = applied(tuning, space.draw(optuna.trial.FixedTrial(fixed))).head
    assert head == tuple(HiddenLayer(**dict(zip(names, layer, strict=True))) for layer in wanted)


def test_ranges_hold_their_ends_and_are_logarithmic_where_told() -> None:
    space = resolve("none", {}, {
        "optimizer": {"lr": {"low": 1e-5, "high": 1e-1, "log": True}},  # as TOML reads a dotted key
        "epochs": {"low": 3, "high": 5}, "batch_size": {"low": 8, "high": 32, "step": 8},
        "optimizer.weight_decay": {"low": 0.0, "high": 1.0},
    })[1]  # fmt: skip
    found = draws(space, 400)
    assert {values["epochs"] for values in found} == {3, 4, 5}
    assert {values["batch_size"] for values in found} == {8, 16, 24, 32}
    rates = [values["optimizer.lr"] for values in found]
    assert 1e-5 <= min(rates) < max(rates) <= 1e-1
    assert sum(rate < 1e-3 for rate in rates) / 400 == pytest.approx(0.5, abs=0.1)
    assert sum(values["optimizer.weight_decay"] < 0.5 for values in found) / 400 == pytest.approx(
        0.5, abs=0.1
    )


def test_choices_may_be_words_or_whole_heads() -> None:
    layers = [{"width": 4}]
    space = resolve("none", {}, {"head": ["linear", layers], "class_weight": ["none", "balanced"]})[1]
    found = draws(space, 50)
    assert {json.dumps(values["head"]) for values in found} == {'"linear"', json.dumps(layers)}
    assert applied(resolve("rate", {}, {})[0], {"head": layers}).head == (HiddenLayer(width=4),)


def test_the_protocol_of_rajamohan() -> None:
    tuning, space = resolve("rajamohan", {"views": {"flip": 0.5}}, {"optimizer.peak": {"low": 1, "high": 3}})
    assert (tuning.select, tuning.optimizer.schedule, tuning.views.flip) == ("metric", "one_cycle", 0.5)
    found = draws(space, 200)
    assert {values["optimizer.name"] for values in found} == {"adam", "sgd", "adamw"}
    assert {values["optimizer.peak"] for values in found} == {1, 2, 3}  # what is given wins
    assert min(values["epochs"] for values in found) >= 10
    optimizer = applied(tuning, found[0]).optimizer
    assert optimizer.schedule == "one_cycle"
    assert optimizer.lr == found[0]["optimizer.lr"]
    kept = touched("rajamohan", {"views": {"flip": 0.5}}, space)
    assert kept == [
        "epochs", "patience", "select", "head_start", "optimizer", "class_weight", "views", "centre_crop",
    ]  # fmt: skip
    assert tuning.centre_crop == 224 / 256


def test_merging_goes_into_tables() -> None:
    old = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(old, {"a": {"b": 9}, "d": [4]}) == {"a": {"b": 9, "c": 2}, "d": [4]}
    assert old["d"] == 3
    tuning, _ = resolve("rate", {}, {})
    assert dump(applied(tuning, {})) == dump(tuning)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "nothing to search"),
        (
            {"optimzer.lr": [1e-3]},
            "'optimzer.lr' is not a setting that can be searched, did you mean 'optimizer'",
        ),
        ({"optimizer.rl": [1e-3]}, "unknown key 'optimizer.rl'; known: beta2_end, betas, .* lr, "),
        ({"select": ["loss", "metric"]}, "'select' is not a setting that can be searched"),
        ({"optimizer.lr": [1e-3, -1]}, "'optimizer.lr': Input should be greater than 0"),
        ({"optimizer.lr": {"low": 1e-3, "high": 1e-5}}, "low < high"),
        ({"optimizer.lr": {"low": 0.0, "high": 1e-5, "log": True}}, "above 0 where log"),
        ({"head": "table2"}, 'or "table1"'),
        ({"patience": 5}, "needs a list of values, a range"),
        ({"optimizer.peak": [1, 2]}, "belongs to schedule one_cycle"),
    ],
)
def test_what_can_t_be_searched_is_refused_before_anything_runs(space: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve("none", {}, space)


def test_values_that_exclude_each_other_may_be_searched_together() -> None:
    """Each needs another choice of the space: peak one_cycle, and one_cycle neither warm-up nor rmsprop."""
    space = {
        "optimizer.schedule": ["cosine", "one_cycle"],
        "optimizer.peak": {"low": 2.0, "high": 5.0},
        "optimizer.warmup": [0.1, 0.0],
        "optimizer.name": ["rmsprop", "adam"],
    }
    resolve("none", {}, space)
    base = {"optimizer": {"name": "rmsprop", "warmup": 0.1}}
    resolve("none", base, {**space, "optimizer.peak": [1.0, 2.0]})
    with pytest.raises(InputError, match="belongs to schedule one_cycle"):
        resolve("none", {}, {**space, "optimizer.schedule": ["cosine", "constant"]})
