"""The plan of a study: every cell of a recipe, one verb call each, its id known before it runs."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trabecula.config import Record, build, inputs, suggest
from trabecula.errors import InputError
from trabecula.grid.foresight import check_places, foresee
from trabecula.grid.recipe import (
    EVERY,
    Axis,
    Recipe,
    References,
    Stage,
    is_reference,
    leaves,
    read_reference,
    references,
    run_order,
)
from trabecula.run import identity, recorded, verb_module


@dataclass(frozen=True)
class Cell:
    """One verb call of a study."""

    stage: str
    verb: str
    config: Record
    id: str  # what `execute` will record in the cell's config.json
    folder: Path
    needs: tuple[str, ...]  # ids of the cells whose artifacts it reads
    coordinates: Mapping[str, str]  # axis name -> label

    @property
    def done(self) -> bool:
        return (self.folder / "DONE").exists()

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    cells: tuple[Cell, ...]  # a cell stands after the cells it needs
    stages: Mapping[str, tuple[Cell, ...]]  # in running order
    places: Mapping[
        str, tuple[tuple[str, Mapping[str, str]], ...]
    ]  # cell id -> stages, coordinates: all of it


def plan(recipe: Recipe, folder: Path, told: Callable[[str], None] | None = None) -> Plan:
    """Every cell of a recipe, in an order in which they can run; nothing is run or written.

    Args:
        folder: the study's folder; cells lie in `folder/cells`.
        told: hears what is being done, for it may take a while: networks are built, inputs read.

    Raises:
        InputError: a setting, a reference or a file of any cell is wrong.
    """
    return _Planner(recipe, folder, told or (lambda _: None)).plan()


class Identities:
    """`run.identity`, also of artifacts that are yet to be made."""

    def __init__(self) -> None:
        self.made: dict[Path, str] = {}  # folder of a cell -> its id
        self._known: dict[Path, str] = {}

    def __call__(self, path: Path) -> str:
        for folder in (path, *path.parents):
            if folder in self.made:
                return "/".join((self.made[folder], *path.relative_to(folder).parts))
        if path not in self._known:
            self._known[path] = identity(path)
        return self._known[path]


def make_cell(cell: Cell, threads: int, identify: Identities) -> Cell:
    """A cell with the id and the folder that its settings and inputs give it, beside the folder it has."""
    cell_id = recorded(cell.verb, cell.config, threads, identify).id
    name = "-".join(part for part in (cell.stage, _slug(cell.coordinates), cell_id[:8]) if part)
    made = replace(cell, id=cell_id, folder=cell.folder.parent / name)
    identify.made[made.folder] = cell_id
    return made


class _Planner:
    def __init__(self, recipe: Recipe, folder: Path, told: Callable[[str], None]) -> None:
        self.recipe, self.told = recipe, told
        self.cells_folder = folder / "cells"
        self.named: dict[str, References] = {}
        self.configs: dict[str, type[Record]] = {}
        self.found: dict[str, list[tuple[dict[str, str], Cell]]] = {}  # stage -> (coordinates, cell)
        self.by_id: dict[str, Cell] = {}
        self.identify = Identities()

    def plan(self) -> Plan:
        for stage in self.recipe.stages.values():
            self.named[stage.name] = references(self.recipe, stage.name)
        order = run_order(self.recipe, self.named)
        for stage in self.recipe.stages.values():
            self.told(f"loading {stage.verb}")
            try:
                self.configs[stage.name] = verb_module(stage.verb).Config
            except InputError as error:
                raise InputError(f"{self.recipe.where}: [stages.{stage.name}]: {error}") from None
        axes: dict[str, list[Axis]] = {}
        for name in order:
            axes[name] = self._axes_of(name, axes)
            self._plan_stage(self.recipe.stages[name], axes[name])
        stages = {name: tuple({c.id: c for _, c in self.found[name]}.values()) for name in order}
        places: dict[str, list[tuple[str, dict[str, str]]]] = defaultdict(list)
        for name, found in self.found.items():
            for coordinates, cell in found:
                places[cell.id].append((name, coordinates))
        every = {cell_id: tuple(at) for cell_id, at in places.items()}
        return Plan(self.recipe, tuple(self.by_id.values()), stages, every)

    def _axes_of(self, name: str, known: Mapping[str, list[Axis]]) -> list[Axis]:
        """The axes along which a stage varies, in the recipe's order."""
        single = self.named[name].single
        used = {axis.name for needed in single for axis in known[needed] if axis.name not in single[needed]}
        used |= {axis.name for axis in self.recipe.axes if name in axis.values[0]}
        used |= {axis.name for axis in self.recipe.stages[name].axes}
        own = [axis for stage in self.recipe.stages.values() for axis in stage.axes]
        return [axis for axis in (*self.recipe.axes, *own) if axis.name in used]

    def _plan_stage(self, stage: Stage, axes: list[Axis]) -> None:
        self.found[stage.name] = []
        self.told(f"stage {stage.name}")
        for positions in itertools.product(*(range(len(axis.labels)) for axis in axes)):
            coordinates = {axis.name: axis.labels[i] for axis, i in zip(axes, positions, strict=True)}
            where = f"{self.recipe.where}: [stages.{stage.name}]"
            if coordinates:
                where += " at " + ", ".join(f"{k}={v}" for k, v in coordinates.items())
            needs: dict[str, None] = {}
            resolved: dict[str, Any] = {}
            referring = []
            for key, value in self._values(stage, axes, positions).items():
                before = len(needs)
                resolved[key] = self._resolve(value, stage.name, coordinates, needs, f"{where}: '{key}'")
                if resolved[key] != value or len(needs) > before:
                    referring.append(key)
            check_places(stage.verb, resolved, where)
            config = build(self.configs[stage.name], resolved, where)
            for key in referring:
                if key not in inputs(config):
                    raise InputError(f"{where}: '{key}' is no file or folder, so it can't be a reference (@)")
            self.found[stage.name].append((coordinates, self._cell(stage, config, needs, coordinates, where)))

    def _values(self, stage: Stage, axes: list[Axis], positions: tuple[int, ...]) -> dict[str, Any]:
        """The stage's settings at one point of the grid, references not yet resolved."""
        values: dict[str, Any] = _copied(stage.values)
        by: dict[str, str] = {}  # which axis set a key
        for axis, i in zip(axes, positions, strict=True):
            if axis.stage == stage.name:
                changes = {axis.key: axis.values[i]}
            elif not axis.stage:
                changes = dict(leaves(axis.values[i].get(stage.name, {})))
            else:
                continue
            for key, value in changes.items():
                if key in by:
                    raise InputError(
                        f"{self.recipe.where}: axes '{by[key]}' and '{axis.name}' both set {stage.name}.{key}"
                    )
                by[key] = axis.name
                _set(values, key, value, f"{self.recipe.where}: axis '{axis.name}'")
        fields = self.configs[stage.name].model_fields
        if "title" in fields and self.recipe.title:
            values.setdefault("title", self.recipe.title)
        if "command" in fields and self.recipe.command:
            values.setdefault("command", self.recipe.command)
        if "not_run" in fields and self.recipe.not_run:
            values.setdefault("not_run", dict(self.recipe.not_run))
        return values

    def _resolve(
        self, value: Any, stage: str, coordinates: Mapping[str, str], needs: dict[str, None], where: str
    ) -> Any:
        """References as paths; the ids of their cells go into `needs`."""
        if isinstance(value, list):
            resolved: dict[Any, None] = {}
            if not any(is_reference(item) for item in value):
                return value
            for item in value:
                if not is_reference(item):
                    resolved[item] = None
                    continue
                named = read_reference(item, where)
                names = self.named[stage].every if named.stage == EVERY else [named.stage]
                found = [c for each in names for c in self._matching(each, coordinates, named.pins, where)]
                needs.update(dict.fromkeys(cell.id for cell in found))
                resolved.update(dict.fromkeys(str(cell.folder / named.inside) for cell in found))
            return list(resolved)
        if isinstance(value, Mapping) and any(is_reference(leaf) for _, leaf in leaves(value)):
            raise InputError(f"{where}: a reference (@) can't stand in a group of settings")
        if not is_reference(value):
            return value
        named = read_reference(value, where)
        if named.stage == EVERY:
            raise InputError(f'{where}: write ["@*"], in a list, for all stages')
        cell = self._matching(named.stage, coordinates, named.pins, where)[0]
        needs[cell.id] = None
        return str(cell.folder / named.inside)

    def _matching(
        self, stage: str, coordinates: Mapping[str, str], pins: Mapping[str, str], where: str
    ) -> list[Cell]:
        """The cells of a stage at the pins, and at these coordinates where both have another axis."""
        for axis, label in pins.items():
            labels = list(dict.fromkeys(theirs[axis] for theirs, _ in self.found[stage] if axis in theirs))
            if label not in labels:
                what = f"'{stage}' has no {axis} '{label}'" if labels else f"'{stage}' has no axis '{axis}'"
                raise InputError(f"{where}: stage {what}{suggest(label, labels) if labels else ''}")
        at = {**coordinates, **pins}
        return [
            cell
            for theirs, cell in self.found[stage]
            if all(at.get(name, label) == label for name, label in theirs.items())
        ]

    def _cell(
        self, stage: Stage, config: Record, needs: Mapping[str, None], coordinates: dict[str, str], where: str
    ) -> Cell:
        draft = Cell(
            stage.name, stage.verb, config, "", self.cells_folder / stage.name, tuple(needs), coordinates
        )
        try:
            cell = make_cell(draft, self.recipe.threads, self.identify)
            if not cell.done:
                foresee(stage.verb, config, self._made(config))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        return self.by_id.setdefault(cell.id, cell)  # two coordinates may be one computation

    def _made(self, config: Record) -> dict[str, Record]:
        """An input's name -> the settings of the cell that is to make it."""
        found = {}
        for key, paths in inputs(config).items():
            for folder in (at for path in paths[:1] for at in (path, *path.parents)):
                if folder in self.identify.made:
                    found[key] = self.by_id[self.identify.made[folder]].config
        return found


def _copied(values: Any) -> Any:
    return {key: _copied(value) for key, value in values.items()} if isinstance(values, Mapping) else values


def _set(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"{where} sets '{key}', but '{parent}' is a value, not a group of settings")
    values[last] = value


def _slug(coordinates: Mapping[str, str]) -> str:
    """Coordinates as part of a folder's name: named axes by label, own axes by key and label."""
    parts = [
        f"{name.rpartition('.')[2]}{label}" if "." in name else label for name, label in coordinates.items()
    ]
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", "-".join(parts))[:60].strip("-._")
