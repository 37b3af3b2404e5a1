"""What a search may draw: spaces over the settings of fine-tuning, and the spaces of the papers.

{"optimizer.lr": {low = 1e-5, high = 1e-2, log = true}}     a range; whole numbers where both ends are
{"optimizer.name": ["adam", "sgd"]}                         a choice
{"head": "table1"}                                          the heads of den Boer 2025, Table 1
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, Self

import optuna
from pydantic import model_validator

from trabecula.config import Record, build, dump, suggest
from trabecula.errors import InputError
from trabecula.transfer.fine_tuning import Tuning

Preset = Literal["none", "table1", "rate", "rajamohan"]

TABLE_1: dict[str, tuple[Any, ...]] = {
    "width": (16, 32, 64, 128),
    "nonlinearity": ("relu", "leaky_relu", "tanh", "sigmoid", "none"),
    "batch_norm": (False, True),
    "dropout": (0.0, 0.2, 0.5),
}
"""Den Boer 2025, Table 1, for each layer; none is added, as its best head (Table 2) has such a layer."""
DEPTHS = (1, 2, 3, 4)
_HEAD_SPACE = "table1"
_AT_ONCE = 3  # other settings that a value may need: `peak` one_cycle, and that no warm-up and no rmsprop
_NOT_SEARCHED = ("select", "precision")  # trials are compared by the one, and the other changes only digits


class SearchRange(Record):
    """Numbers from low to high, both included."""

    low: int | float
    """The smallest."""
    high: int | float
    """The largest."""
    log: bool = False
    """Whether orders of magnitude are equally likely, not values."""
    step: int | float | None = None
    """Distance of two values; for whole numbers 1."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0) or (self.log and self.step is not None):
            raise ValueError("a range needs low < high, above 0 where log = true, and there no step")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


Part = SearchRange | tuple[Any, ...] | str


@dataclass(frozen=True)
class SearchSpace:
    """Dotted settings, each with what it may be."""

    parts: Mapping[str, Part]

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """Values of one trial by dotted setting."""
        return {key: _drawn(trial, key, part) for key, part in self.parts.items()}

    def edges(self) -> Iterator[dict[str, Any]]:
        """One setting at a time at each end of its range, or at each of its choices."""
        for key, part in self.parts.items():
            if isinstance(part, SearchRange):
                yield from ({key: part.low}, {key: part.high})
            elif isinstance(part, tuple):
                yield from ({key: value} for value in part)


_RATES = {"low": 1e-5, "high": 1e-2, "log": True}
_PRESETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {}),
    "table1": ({"head_start": "random", "tolerance": 0.0}, {"head": _HEAD_SPACE}),
    "rate": ({}, {"optimizer.lr": _RATES, "optimizer.warmup": [0.0, 0.05, 0.1], "patience": [5, 10, 20]}),
    # Rajamohan et al. 2026, arXiv 2603.24903v1, C.4; every range inferred: the text lost them.
    "rajamohan": (
        {
            "select": "metric", "patience": 50, "optimizer": {"schedule": "one_cycle"}, "centre_crop": 0.875,
            "head_start": "random", "class_weight": "none",
        },
        {
            "optimizer.name": ["adam", "sgd", "adamw"], "optimizer.lr": _RATES,
            "optimizer.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
            "epochs": {"low": 10, "high": 50}, "optimizer.peak": {"low": 1, "high": 10},
        },
    ),
}  # fmt: skip


def resolve(preset: str, settings: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[Tuning, SearchSpace]:
    """The settings that a search starts from, and its space; what is given wins over the preset.

    Raises:
        InputError: a setting that fine-tuning does not have, a value it refuses, or nothing to search.
    """
    fixed, parts = _PRESETS[preset]
    tuning = build(Tuning, merged(fixed, settings), "settings of the search")
    whole = SearchSpace({key: _part(key, part) for key, part in {**parts, **dict(flat(space))}.items()})
    if not whole.parts:
        raise InputError("search: there is nothing to search; set a preset, or 'space'")
    edges = list(whole.edges())
    for values in edges:
        _check_edge(tuning, values, edges)
    return tuning, whole


def _check_edge(tuning: Tuning, values: dict[str, Any], edges: list[dict[str, Any]]) -> None:
    """A value that fine-tuning takes with the settings as they are, or with others of its group in the space.

    `peak` needs one_cycle, which may be a choice of the same space: draws that do not go together are
    trials marked as invalid, not the end of the search.
    """
    try:
        applied(tuning, values)
    except InputError:
        (own,) = values
        group = own.partition(".")[0]
        others = [edge for edge in edges for key in edge if key != own and key.partition(".")[0] == group]
        for count in range(1, min(_AT_ONCE, len(others)) + 1):
            for chosen in combinations(others, count):
                with suppress(InputError):
                    applied(tuning, {key: value for edge in (*chosen, values) for key, value in edge.items()})
                    return
        raise


def applied(tuning: Tuning, values: Mapping[str, Any]) -> Tuning:
    """Settings with these dotted ones in their place.

    Raises:
        InputError: a setting or value that fine-tuning does not take.
    """
    result = dump(tuning)
    for key, nested in values.items():
        for name in reversed(key.split(".")):
            nested = {name: nested}
        result = merged(result, nested)
    return build(Tuning, result, "space of the search")


def touched(preset: str, settings: Mapping[str, Any], space: SearchSpace) -> list[str]:
    """The top-level settings that a search fixes or searches, in the order of `Tuning`."""
    names = {*_PRESETS[preset][0], *settings, *(key.partition(".")[0] for key in space.parts)}
    return [name for name in Tuning.model_fields if name in names]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables put together, the second's values in the place of the first's."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def flat(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Parts by dotted key; TOML reads `optimizer.lr = ...` as a table in a table."""
    for key, part in space.items():
        if isinstance(part, Mapping) and "low" not in part and "high" not in part:
            yield from flat(part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", part


def _part(key: str, part: Any) -> Part:
    first = key.partition(".")[0]
    if first in _NOT_SEARCHED or first not in Tuning.model_fields:
        known = [name for name in Tuning.model_fields if name not in _NOT_SEARCHED]
        raise InputError(f"space: '{key}' is not a setting that can be searched{suggest(first, known)}")
    if isinstance(part, Mapping):
        return build(SearchRange, part, f"space: {key}")
    if key == "head" and part == _HEAD_SPACE:
        return _HEAD_SPACE
    if isinstance(part, list | tuple) and part:
        return tuple(part)
    raise InputError(
        f"space: '{key}' needs a list of values, a range such as {{low = 1e-5, high = 1e-2, log = true}}"
        + (f', or "{_HEAD_SPACE}"' if key == "head" else "")
        + f" (got {part!r})"
    )


def _drawn(trial: optuna.Trial, key: str, part: Part) -> Any:
    if isinstance(part, tuple):
        # As text: a storage keeps plain values only, and a choice may be a list of layers.
        return json.loads(str(trial.suggest_categorical(key, [json.dumps(value) for value in part])))
    if isinstance(part, str):
        return [
            {name: trial.suggest_categorical(f"head.{i}.{name}", values) for name, values in TABLE_1.items()}
            for i in range(trial.suggest_categorical("head.depth", DEPTHS))
        ]
    if part.whole:
        step = 1 if part.step is None else int(part.step)
        return trial.suggest_int(key, int(part.low), int(part.high), step=step, log=part.log)
    return trial.suggest_float(key, float(part.low), float(part.high), step=part.step, log=part.log)
