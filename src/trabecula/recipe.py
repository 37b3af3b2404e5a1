"""A recipe: stages times axes, read and checked; the settings of its verbs are checked by `cells.plan`.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from trabecula.config import Record, assign, build, leaves, read_toml, suggest
from trabecula.errors import InputError
from trabecula.packages import extras, has_extra

_NOT_SETTINGS = ("verb", "axes")
_SKIP = "skip_if_missing"
_EXTRA = re.compile(r"trabecula\[(.*)\]")  # of the package, as pip names it
_REFERENCE = re.compile(r"@([^/\[\]]+)(?:\[([^\]]*)\])?(?:/(.*))?")
EVERY = "*"  # "@*": every stage that does not itself wait for this one


class _RecipeFile(Record):
    """The parts of a recipe's TOML."""

    title: str = ""
    threads: int = Field(1, ge=1, strict=True)
    stages: dict[str, dict[str, Any]] = {}
    axes: dict[str, dict[str, dict[str, Any]]] = {}


@dataclass(frozen=True)
class Axis:
    """One dimension of a study: a named axis, or one key of one stage (named STAGE.KEY)."""

    name: str
    labels: tuple[str, ...]
    values: tuple[Mapping[str, Mapping[str, Any]], ...]  # of each label: stage -> {dotted key: value}


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
    """Read a recipe; `-s` assignments set its keys, `prepare.size=96` short for `stages.prepare.size=96`."""
    _check_path(path)
    values = read_toml(path)
    recipe = parse_recipe(assign(values, [_expand(text, values) for text in assignments]), str(path))
    shown = path.name if path.is_absolute() else path.as_posix()
    words = ["trabecula", "study", shown, *(word for text in assignments for word in ("-s", text))]
    return replace(recipe, command=shlex.join(words))


def _check_path(path: Path) -> None:
    """Of a mistyped path: say which recipe may be meant."""
    if path.is_dir():
        inside = path / "recipe.toml"
        what = inside if inside.exists() else f"a recipe{_listed(sorted(path.glob('*.toml')))}"
        raise InputError(f"{path}: is a folder; give {what}")
    if not path.exists():
        known = sorted({*path.parent.glob("*.toml"), *Path("recipes").glob("*.toml")})
        by_name = {file.stem: file for file in known}
        close = difflib.get_close_matches(path.name.removesuffix(".toml"), list(by_name), n=1, cutoff=0.6)
        meant = f", did you mean '{by_name[close[0]]}'?" if close else _listed(known)
        raise InputError(f"{path}: no such file{meant}")


def _listed(recipes: Sequence[Path]) -> str:
    return f"; there are {', '.join(map(str, recipes))}" if recipes else ""


def _expand(text: str, values: Mapping[str, Any]) -> str:
    """An assignment with its whole key; a mistyped value of a named axis would become one more arm."""
    key = text.partition("=")[0].strip()
    first, name, label, *_ = [*key.split("."), "", ""]
    stages, axes, parts = values.get("stages", {}), values.get("axes"), list(_RecipeFile.model_fields)
    if first in stages:
        return f"stages.{text.strip()}"
    if first not in parts:
        if "." not in key and not difflib.get_close_matches(first, [*stages, *parts], cutoff=0.75):
            which = f"write -s STAGE.{text.strip()}, STAGE one of {', '.join(stages)}"
            raise InputError(f"-s {text}: of which stage? {which}")
        raise InputError(f"-s {text}: unknown stage '{first}'{suggest(first, [*stages, *parts])}")
    known = axes.get(name) if first == "axes" and isinstance(axes, Mapping) else None
    if label and isinstance(known, Mapping) and label not in known:
        meant = f"{suggest(label, list(known))}; new values are written into the recipe"
        raise InputError(f"-s {text}: axis '{name}' has no value '{label}'{meant}")
    return text


def parse_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Read the TOML of a recipe as `read_recipe` does."""
    file = build(_RecipeFile, values, where)
    if not file.stages:
        raise InputError(f"{where}: has no stages; add one, for example [stages.phantom]")
    not_run: dict[str, str] = {}
    axes = tuple(_named_axis(*axis, list(file.stages), not_run, where) for axis in file.axes.items())
    stages = {name: _stage(name, table, where) for name, table in file.stages.items()}
    return Recipe(file.title, file.threads, stages, axes, not_run, values, where=where)


def _stage(name: str, table: Mapping[str, Any], where: str) -> Stage:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"{where}: stage '{name}': use letters, digits, - and _ in a stage's name")
    values = {key: value for key, value in table.items() if key not in _NOT_SETTINGS}
    at, axes = f"{where}: stages.{name}", []
    if not isinstance(table.get("axes", {}), Mapping):
        raise InputError(f"{at}.axes is a table of lists (got {table['axes']!r})")
    for key, entries in leaves(table.get("axes", {})):
        if not isinstance(entries, list):
            raise InputError(f"{at}.axes.{key} is a list of values (got {entries!r})")
        if not entries:
            raise InputError(f"{at}.axes.{key} has no values")
        given = [f"{other}." for other, _ in leaves(values)]
        if any(other.startswith(f"{key}.") or f"{key}.".startswith(other) for other in given):
            keep = f"keep one (from the command line: -s '{name}.axes.{key}=[...]')"
            raise InputError(f"{at}.{key} is set and also an axis; {keep}")
        labels = tuple(_label(entry) for entry in entries)
        axes.append(Axis(f"{name}.{key}", labels, tuple({name: {key: entry}} for entry in entries)))
    return Stage(name, str(table.get("verb", name)), values, tuple(axes))


def _label(value: Any) -> str:
    if isinstance(value, Mapping):
        return "+".join(f"{key}-{_label(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return "+".join(_label(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _named_axis(
    name: str, table: Mapping[str, Any], stages: Sequence[str], not_run: dict[str, str], where: str
) -> Axis:
    """An axis over the values whose files are there; the reasons for the others go into `not_run`."""
    if name in stages:
        raise InputError(f"{where}: axis '{name}' has the name of a stage; rename it")
    kept: dict[str, dict[str, dict[str, Any]]] = {}
    varied: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for label, changes in table.items():
        settings = {stage: given for stage, given in changes.items() if stage != _SKIP}
        for stage, given in settings.items():
            at = f"{where}: axes.{name}.{label}"
            if stage not in stages:
                raise InputError(f"{at}: unknown stage '{stage}'{suggest(stage, stages)}")
            if not isinstance(given, Mapping):
                raise InputError(f"{at}.{stage} is a table (got {given!r})")
            if fixed := [key for key in _NOT_SETTINGS if key in given]:
                raise InputError(f"{at}.{stage}.{fixed[0]} can't vary along an axis")
            varied[stage] = {}
        if lack := _lacking(changes.get(_SKIP)):
            missing[label] = lack
        else:
            kept[label] = {stage: dict(leaves(given)) for stage, given in settings.items()}
    if not kept:
        reason = "; ".join(f"{label}: {why}" for label, why in missing.items()) or "it is empty"
        raise InputError(f"{where}: axis '{name}' has no value to run ({reason})")
    not_run.update(missing)
    # A value that sets nothing in a stage still varies it: the stage's own settings are one of the arms.
    return Axis(name, tuple(kept), tuple({**varied, **settings} for settings in kept.values()))


def _lacking(needed: object) -> str:
    """Why an arm is skipped whose `skip_if_missing` names a file or an extra; "" where it is not."""
    if needed is None:
        return ""
    if extra := _EXTRA.fullmatch(str(needed)):
        if (name := extra[1]) not in extras():
            known = suggest(name, [*extras()]) or "; after an update, install Trabecula again"
            raise InputError(f"{_SKIP} = '{needed}': there is no extra '{name}'{known}")
        return "" if has_extra(name) else f"{needed} is not installed: python -m pip install '{needed}'"
    return "" if Path(str(needed)).exists() else f"{needed} is not there"


def not_run_lines(values: Mapping[str, Any], not_run: Mapping[str, str]) -> list[str]:
    """A line for each reason in `not_run`: the arms that read the missing file, then their controls.

    A control names the file or extra in `skip_if_missing` and does not read it: random weights of a network,
    say, that is in the study only to be compared with ImageNet's. `values`: the recipe's TOML.
    """
    changes = {label: table for axis in (values.get("axes") or {}).values() for label, table in axis.items()}
    lines = []
    for reason in dict.fromkeys(not_run.values()):
        arms = [label for label, why in not_run.items() if why == reason]
        readers = [label for label in arms if _reads_file(changes.get(label, {}))] or arms
        controls = [label for label in arms if label not in readers]
        left = f"; left out with it: its control{'s' * (len(controls) > 1)} " if controls else ""
        lines.append(f"{', '.join(readers)}: {reason}{left}{', '.join(controls)}")
    return lines


def _reads_file(changes: Mapping[str, Any]) -> bool:
    needed = changes.get(_SKIP)
    if needed is None or _EXTRA.fullmatch(str(needed)):
        return needed is None or any(value == "package" for _, value in leaves(changes))
    return [value for _, value in leaves(changes)].count(needed) > 1


@dataclass(frozen=True)
class Reference:
    """`@stage[axis=label]/inside`; `pins` and `inside` may be empty."""

    stage: str
    pins: Mapping[str, str]  # axis -> label, whatever the referring cell's own coordinates
    inside: str


@dataclass(frozen=True)
class References:
    """The stages that a stage refers to."""

    single: Mapping[str, frozenset[str]]  # outside lists -> axes that every reference to it pins
    every: tuple[str, ...]  # stages that "@*" stands for


def find_references(recipe: Recipe) -> dict[str, References]:
    """Stage -> what it refers to, in running order: after what it needs, otherwise in the recipe's order."""
    named = {name: _named_in(recipe, name) for name in recipe.stages}
    with_every = {name for name, (_, listed) in named.items() if EVERY in listed}
    found, needs = {}, {}
    for name, (single, listed) in named.items():
        waiting = {name} | with_every  # the stage itself, those that need it, and other users of "@*"
        while more := {o for o, (one, many) in named.items() if waiting & {*one, *many}} - waiting:
            waiting |= more
        every = tuple(o for o in recipe.stages if o not in waiting) if name in with_every else ()
        found[name] = References(single, every)
        needs[name] = [*single, *(other for other in listed if other != EVERY), *every]
    return {name: found[name] for name in _running_order(needs, recipe.where)}


def _named_in(recipe: Recipe, name: str) -> tuple[dict[str, frozenset[str]], list[str]]:
    """The stages that a stage names outside and inside lists, anywhere in its settings or axes."""
    stage = recipe.stages[name]
    single: dict[str, frozenset[str]] = {}
    listed: list[str] = []
    settings = [stage.values]
    settings += [value.get(name, {}) for axis in (*stage.axes, *recipe.axes) for value in axis.values]
    for key, value in (leaf for one in settings for leaf in leaves(one)):
        for item in filter(is_reference, value if isinstance(value, list) else [value]):
            where = f"{recipe.where}: [stages.{name}]: '{key}'"
            named = read_reference(item, where)
            if named.stage != EVERY and named.stage not in recipe.stages:
                meant = suggest(named.stage, list(recipe.stages))
                raise InputError(f"{where} refers to an unknown stage '{named.stage}'{meant}")
            if isinstance(value, list):
                listed.append(named.stage)
            else:
                pinned = frozenset(named.pins)
                single[named.stage] = single.get(named.stage, pinned) & pinned
    return single, listed


def _running_order(needs: Mapping[str, Sequence[str]], where: str) -> list[str]:
    left, order = list(needs), list[str]()
    while left:
        ready = next((name for name in left if not {*left} & {*needs[name]}), None)
        if ready is None:
            path = left[:1]
            while path[-1] not in path[:-1]:
                path.append(next(name for name in needs[path[-1]] if name in left))
            cycle = " -> ".join(path[path.index(path[-1]) :])
            raise InputError(f"{where}: stages wait for each other: {cycle}")
        order.append(ready)
        left.remove(ready)
    return order


def is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("@")


def read_reference(text: str, where: str) -> Reference:
    """Read `@stage`, `@stage/inside`, `@stage[axis=label]` or `@stage[axis=label, axis=label]/inside`."""
    found = _REFERENCE.fullmatch(text)
    pins = [part.partition("=") for part in (found[2] or "").split(",") if part.strip()] if found else []
    if found is None or not all(sign and axis.strip() and label.strip() for axis, sign, label in pins):
        forms = "@stage, @stage/part or @stage[axis=label]/part"
        raise InputError(f"{where}: '{text}' is not a reference; write {forms}")
    return Reference(found[1], {axis.strip(): label.strip() for axis, _, label in pins}, found[3] or "")
