"""A recipe's cells: stages times axes, each cell one verb call whose id is known before it runs.

    [stages.finetune]                       a stage: settings of one verb
    encoder = "@pretrain"                   reference: the cell of that stage at the same coordinates
    chosen = "@search[arm=moco]"            reference: the same, but at this value of an axis
    axes.seed = [0, 1, 2]                   its own axis, over one of its keys
    [axes.arm.moco]                         a named axis: each value sets keys of one or more stages
    pretrain.objective = "moco"

A stage varies along its own axes, the named axes that set its keys, and every axis of the stages
it refers to outside a list. Inside a list a reference takes all cells of a stage.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trabecula.config import assign, read_toml, suggest
from trabecula.errors import InputError

_NOT_SETTINGS = ("verb", "axes")
_SKIP = "skip_if_missing"
_REFERENCE = re.compile(r"@([^/\[\]]+)(?:\[([^\]]*)\])?(?:/(.*))?")
EVERY = "*"  # "@*": every stage that does not itself wait for this one


@dataclass(frozen=True)
class Axis:
    """One dimension of a study: a named axis (stage "") or one key of one stage."""

    stage: str
    key: str  # the axis's name, or the stage's dotted settings key
    labels: tuple[str, ...]
    values: tuple[Any, ...]  # of a named axis: {stage: {key: value}}

    @property
    def name(self) -> str:
        return f"{self.stage}.{self.key}" if self.stage else self.key


@dataclass(frozen=True)
class Stage:
    name: str
    verb: str
    values: Mapping[str, Any]
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Recipe:
    """A recipe as read: stages in its order, named axes, and the axis values left out."""

    title: str
    threads: int
    stages: Mapping[str, Stage]
    axes: tuple[Axis, ...]
    not_run: Mapping[str, str] = field(default_factory=dict)  # value of an axis -> reason
    values: Mapping[str, Any] = field(default_factory=dict)  # the TOML, overrides applied
    command: str = ""  # what makes the study again
    where: str = "recipe"


def read_recipe(path: Path, assignments: Sequence[str] = ()) -> Recipe:
    """Read a recipe; `-s` assignments set its keys, `prepare.size=96` short for `stages.prepare.size=96`.

    Raises:
        InputError: not TOML, an unknown part or stage, an axis without values, a cycle.
    """
    _check_path(path)
    values = read_toml(path)
    stages = values.get("stages", {})
    expanded = [_expand(text, stages) for text in assignments]
    for text in expanded:
        _check_axis(text, values.get("axes", {}))
    recipe = parse_recipe(assign(values, expanded), str(path))
    shown = path.name if path.is_absolute() else path.as_posix()
    words = ["trabecula", "study", shown, *(word for text in assignments for word in ("-s", text))]
    return replace(recipe, command=shlex.join(words))


def _check_path(path: Path) -> None:
    """A recipe's path, mistyped: which is meant."""
    if path.is_dir():
        inside = path / "recipe.toml"
        what = f"give {inside}" if inside.exists() else f"give a recipe{_named(sorted(path.glob('*.toml')))}"
        raise InputError(f"{path}: is a folder; {what}")
    if not path.exists():
        known = sorted({*path.parent.glob("*.toml"), *Path("recipes").glob("*.toml")})
        by_name = {file.stem: file for file in known}
        stem = path.name.removesuffix(".toml")
        close = difflib.get_close_matches(stem, list(by_name), n=1, cutoff=0.6)
        meant = f", did you mean '{by_name[close[0]]}'?" if close else _named(known)
        raise InputError(f"{path}: no such file{meant}")


def _named(recipes: Sequence[Path]) -> str:
    return f"; there are {', '.join(map(str, recipes))}" if recipes else ""


def _expand(text: str, stages: Mapping[str, Any]) -> str:
    first = text.partition("=")[0].strip().split(".")[0]
    if first in stages:
        return f"stages.{text.strip()}"
    parts = ("title", "threads", "stages", "axes")
    near = difflib.get_close_matches(first, [*stages, *parts], cutoff=0.75)
    if first not in parts and not near and "." not in text.partition("=")[0]:
        known = ", ".join(stages)
        raise InputError(f"-s {text}: whose? write -s STAGE.{text.strip()}, STAGE being one of {known}")
    if first not in parts:
        raise InputError(f"-s {text}: unknown stage '{first}'{suggest(first, [*stages, *parts])}")
    return text


def _check_axis(text: str, axes: Any) -> None:
    """A mistyped value of a named axis would else be one more arm, beside the one that was meant."""
    part, _, rest = text.partition("=")[0].strip().partition(".")
    name, _, rest = rest.partition(".")
    label = rest.partition(".")[0]
    known = axes.get(name) if part == "axes" and isinstance(axes, Mapping) else None
    if label and isinstance(known, Mapping) and label not in known:
        raise InputError(
            f"-s {text}: axis '{name}' has no value '{label}'{suggest(label, list(known))}; new values are "
            "written into the recipe"
        )


def parse_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Check a recipe's own form; the settings of its verbs are checked by `plan`."""
    unknown = sorted(values.keys() - {"title", "threads", "stages", "axes"})
    if unknown:
        parts = ["title", "threads", "stages", "axes"]
        raise InputError(f"{where}: unknown part '{unknown[0]}'{suggest(unknown[0], parts)}")
    tables = values.get("stages", {})
    if not isinstance(tables, Mapping) or not tables:
        raise InputError(f"{where}: has no stages; add one, for example [stages.phantom]")
    threads = values.get("threads", 1)
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise InputError(f"{where}: 'threads' is a whole number from 1 up (got {threads!r})")
    named = _table(values.get("axes", {}), f"{where}: 'axes'")
    axes, not_run = [], {}
    for name, table in named.items():
        axis, left_out = _named_axis(name, table, list(tables), where)
        axes.append(axis)
        not_run.update(left_out)
    return Recipe(
        title=str(values.get("title", "")),
        threads=threads,
        stages={name: _stage(name, table, where) for name, table in tables.items()},
        axes=tuple(axes),
        not_run=not_run,
        values=values,
        where=where,
    )


def _table(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{what} is a table (got {value!r})")
    return value


def _stage(name: str, table: Any, where: str) -> Stage:
    table = _table(table, f"{where}: [stages.{name}]")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"{where}: stage '{name}': use letters, digits, - and _ in a stage's name")
    axes = []
    own = _table(table.get("axes", {}), f"{where}: stages.{name}.axes")
    for key, entries in _lists(own, where, name):
        if not entries:
            raise InputError(f"{where}: stages.{name}.axes.{key} has no values")
        axes.append(Axis(name, key, tuple(_label(entry) for entry in entries), tuple(entries)))
    values = {key: value for key, value in table.items() if key not in _NOT_SETTINGS}
    for axis in axes:
        if _has(values, axis.key):
            raise InputError(
                f"{where}: stages.{name}.{axis.key} is set and also an axis; "
                f"keep one (from the command line: -s '{name}.axes.{axis.key}=[...]')"
            )
    return Stage(name, str(table.get("verb", name)), values, tuple(axes))


def _lists(table: Mapping[str, Any], where: str, stage: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _lists(value, where, stage, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield prefix + key, value
        else:
            raise InputError(
                f"{where}: stages.{stage}.axes.{prefix}{key} is a list of values (got {value!r})"
            )


def _label(value: Any) -> str:
    if isinstance(value, Mapping):
        return "+".join(f"{key}-{_label(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return "+".join(_label(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _has(values: Mapping[str, Any], key: str) -> bool:
    first, _, rest = key.partition(".")
    if first not in values:
        return False
    return not rest or not isinstance(values[first], Mapping) or _has(values[first], rest)


def _named_axis(name: str, table: Any, stages: Sequence[str], where: str) -> tuple[Axis, dict[str, str]]:
    table = _table(table, f"{where}: [axes.{name}]")
    if name in stages:
        raise InputError(f"{where}: axis '{name}' has the name of a stage; rename it")
    kept: dict[str, Mapping[str, Any]] = {}
    not_run: dict[str, str] = {}
    touched: dict[str, Mapping[str, Any]] = {}
    for label, overrides in table.items():
        overrides = _table(overrides, f"{where}: [axes.{name}.{label}]")
        needed = overrides.get(_SKIP)
        overrides = {key: value for key, value in overrides.items() if key != _SKIP}
        for stage, settings in overrides.items():
            if stage not in stages:
                raise InputError(
                    f"{where}: [axes.{name}.{label}]: unknown stage '{stage}'{suggest(stage, stages)}"
                )
            settings = _table(settings, f"{where}: axes.{name}.{label}.{stage}")
            for key in _NOT_SETTINGS:
                if key in settings:
                    raise InputError(f"{where}: axes.{name}.{label}.{stage}.{key} can't vary along an axis")
            touched[stage] = {}
        if needed is not None and not Path(str(needed)).exists():
            not_run[label] = f"{needed} is not there"
        else:
            kept[label] = overrides
    if not kept:
        reason = "; ".join(f"{label}: {why}" for label, why in not_run.items()) or "it is empty"
        raise InputError(f"{where}: axis '{name}' has no value to run ({reason})")
    # Values that set nothing in a stage still vary it: the stage's own settings are one of the arms.
    values = tuple({**touched, **overrides} for overrides in kept.values())
    return Axis("", name, tuple(kept), values), not_run


def told_not_run(values: Mapping[str, Any], not_run: Mapping[str, str]) -> list[str]:
    """What was left out, a line for each missing file: the arms that read it, and those that go with them.

    An arm that waits for a file without reading it is a control of one that does: random weights, say, of
    a network that is there only to be compared with ImageNet's.

    Args:
        values: the recipe's TOML.
        not_run: value of an axis -> reason.
    """
    arms: dict[str, list[tuple[str, bool]]] = {}  # reason -> (arm, whether it reads the file)
    tables: dict[str, Any] = {}
    for table in (values.get("axes") or {}).values():
        tables.update(table)
    for label, reason in not_run.items():
        changes = dict(tables.get(label) or {})
        needed = changes.pop(_SKIP, None)
        reads = needed is None or any(value == needed for _, value in leaves(changes))
        arms.setdefault(reason, []).append((label, reads))
    lines = []
    for reason, found in arms.items():
        readers = [label for label, reads in found if reads]
        controls = [label for label, reads in found if not reads] if readers else []
        line = f"{', '.join(readers or [label for label, _ in found])}: {reason}"
        if controls:
            line += f"; left out with it: {'its control' if len(controls) == 1 else 'its controls'} "
            line += ", ".join(controls)
        lines.append(line)
    return lines


@dataclass(frozen=True)
class Reference:
    """`@stage[axis=label]/inside`; `pins` and `inside` may be empty."""

    stage: str
    pins: Mapping[str, str]  # axis -> label: there, whatever the referring cell's own coordinates
    inside: str


@dataclass(frozen=True)
class References:
    single: Mapping[str, frozenset[str]]  # stages named outside lists -> axes that every naming pins
    every: tuple[str, ...]  # stages that "@*" stands for
    listed: tuple[str, ...]  # stages named inside lists, "@*" expanded


def references(recipe: Recipe, name: str) -> References:
    single, listed = _named_in(recipe, name)
    every: tuple[str, ...] = ()
    if EVERY in listed:
        every = tuple(other for other in recipe.stages if other not in _waiting(recipe, name))
        listed = [other for other in listed if other != EVERY] + list(every)
    return References(single, every, tuple(dict.fromkeys(listed)))


def _named_in(recipe: Recipe, name: str) -> tuple[dict[str, frozenset[str]], list[str]]:
    """The stages that a stage names outside and inside lists, anywhere in its settings or axes."""
    stage = recipe.stages[name]
    single: dict[str, frozenset[str]] = {}
    listed: list[str] = []
    settings: list[Any] = [stage.values]
    settings += [value for axis in stage.axes for value in axis.values]
    settings += [value.get(name, {}) for axis in recipe.axes for value in axis.values]
    for key, value in ((k, v) for one in settings for k, v in leaves(one)):
        for item in value if isinstance(value, list) else [value]:
            if not is_reference(item):
                continue
            named = read_reference(item, f"{recipe.where}: [stages.{name}]: '{key}'")
            if named.stage != EVERY and named.stage not in recipe.stages:
                raise InputError(
                    f"{recipe.where}: [stages.{name}]: '{key}' refers to an unknown stage "
                    f"'{named.stage}'{suggest(named.stage, list(recipe.stages))}"
                )
            if isinstance(value, list):
                listed.append(named.stage)
            else:
                pinned = frozenset(named.pins)
                single[named.stage] = single.get(named.stage, pinned) & pinned
    return single, listed


def _waiting(recipe: Recipe, name: str) -> set[str]:
    """The stage itself and all that wait for it by name; other users of "@*" also."""
    named = {other: _named_in(recipe, other) for other in recipe.stages}
    waiting = {name} | {other for other, (_, listed) in named.items() if EVERY in listed}
    while True:
        more = {o for o, (single, listed) in named.items() if waiting & {*single, *listed}} - waiting
        if not more:
            return waiting
        waiting |= more


def run_order(recipe: Recipe, references: Mapping[str, References]) -> list[str]:
    """Stages so that each stands after those it needs, otherwise in the recipe's order."""
    order: list[str] = []
    left = dict.fromkeys(recipe.stages)
    while left:
        ready = [
            name for name in left if not left.keys() & {*references[name].single, *references[name].listed}
        ]
        if not ready:
            raise InputError(f"{recipe.where}: stages wait for each other: {_cycle(left, references)}")
        order.append(ready[0])
        del left[ready[0]]
    return order


def _cycle(left: Mapping[str, None], references: Mapping[str, References]) -> str:
    path = [next(iter(left))]
    while path[-1] not in path[:-1]:
        needed = (*references[path[-1]].single, *references[path[-1]].listed)
        path.append(next(name for name in needed if name in left))
    return " -> ".join(path[path.index(path[-1]) :])


def is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("@")


def read_reference(text: str, where: str) -> Reference:
    """Read `@stage`, `@stage/inside`, `@stage[axis=label]` or `@stage[axis=label, axis=label]/inside`.

    Raises:
        InputError: it is written otherwise.
    """
    found = _REFERENCE.fullmatch(text)
    pins = [part.partition("=") for part in (found[2] or "").split(",") if part.strip()] if found else []
    if found is None or not all(sign and axis.strip() and label.strip() for axis, sign, label in pins):
        raise InputError(
            f"{where}: '{text}' is no reference; write @stage, @stage/part or @stage[axis=label]/part"
        )
    return Reference(found[1], {axis.strip(): label.strip() for axis, _, label in pins}, found[3] or "")


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(values, Mapping):
        yield prefix, values
        return
    for key, value in values.items():
        yield from leaves(value, f"{prefix}.{key}" if prefix else key)
