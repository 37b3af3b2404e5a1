"""The plan of a study: every cell of a recipe, one verb call each, its id known before it runs."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trabecula.artifacts.run_record import is_done
from trabecula.config import Record, build, inputs, put, suggest
from trabecula.errors import InputError
from trabecula.recipe import (
    EVERY,
    Axis,
    Recipe,
    find_references,
    is_reference,
    leaves,
    read_reference,
    run_order,
)
from trabecula.run import identity, recorded, verb_module


@dataclass(frozen=True)
class Cell:
    """One verb call of a study."""

    stage: str
    verb: str
    config: Record
    id: str  # what `execute` will record as the run's id
    folder: Path
    needs: tuple[str, ...]  # ids of the cells whose artifacts it reads
    coordinates: Mapping[str, str]  # axis name -> label
    arms: frozenset[str] = frozenset()  # names of the arms it belongs to

    @property
    def done(self) -> bool:
        return is_done(self.folder)

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass(frozen=True)
class Plan:
    """The cells of a study.

    A cell whose verb has `arm(config)` makes an arm and belongs to it. Any other cell belongs to the arms of
    the cells that it refers to outside lists. A reference pinned to another arm than the cell's own adds
    none: what is fine-tuned with another arm's settings stays its own arm.
    """

    recipe: Recipe
    cells: tuple[Cell, ...]  # a cell comes after the cells it needs
    stages: Mapping[str, tuple[Cell, ...]]  # in running order
    arms: Mapping[str, Mapping[str, Any]]  # name -> what `arm(config)` says: name, architecture, family


def plan(recipe: Recipe, folder: Path, notify: Callable[[str], None] = lambda _: None) -> Plan:
    """Every cell of a recipe, in an order in which they can run; nothing is run or written.

    Args:
        folder: the study's folder; cells are in `folder/cells`.
        notify: called with the step that begins: networks are built and inputs read, which may take a while.

    Raises:
        InputError: a setting, a reference or a file of any cell is wrong.
    """
    return _Planner(recipe, folder / "cells", notify).plan()


class Identities:
    """`run.identity`, also of artifacts that are yet to be made."""

    def __init__(self) -> None:
        self.made: dict[Path, str] = {}  # folder of a cell -> its id
        self._known: dict[Path, str] = {}

    def __call__(self, path: Path) -> str:
        folder = folder_of(path, self.made)
        if folder is not None:
            return "/".join((self.made[folder], *path.relative_to(folder).parts))
        if path not in self._known:
            self._known[path] = identity(path)
        return self._known[path]


def folder_of(path: Path, folders: Container[Path]) -> Path | None:
    """The one of these folders in which a path is."""
    return next((folder for folder in (path, *path.parents) if folder in folders), None)


def make_cell(draft: Cell, threads: int, identify: Identities) -> Cell:
    """A cell with the id that its settings and inputs give it; its folder is beside the draft's."""
    cell_id = recorded(draft.verb, draft.config, threads, identify).id
    name = "-".join(part for part in (draft.stage, _slug(draft.coordinates), cell_id[:8]) if part)
    made = replace(draft, id=cell_id, folder=draft.folder.parent / name)
    identify.made[made.folder] = cell_id
    return made


@dataclass
class _Place:
    """One combination of a stage's axes, and what its settings refer to."""

    stage: str
    coordinates: Mapping[str, str]
    where: str
    needs: dict[str, None] = field(default_factory=dict)  # ids, in order
    arms: frozenset[str] = frozenset()


class _Planner:
    def __init__(self, recipe: Recipe, cells_folder: Path, notify: Callable[[str], None]) -> None:
        self.recipe, self.cells_folder, self.notify = recipe, cells_folder, notify
        self.references = find_references(recipe)
        self.verbs: dict[str, Any] = {}  # stage -> its verb's module
        self.found: dict[str, list[tuple[Mapping[str, str], Cell]]] = {}  # stage -> (coordinates, cell)
        self.by_id: dict[str, Cell] = {}
        self.arms: dict[str, Mapping[str, Any]] = {}
        self.arm_axis = ""  # the axis whose values are the arms, where no verb of the recipe says its arm
        self.identify = Identities()

    def plan(self) -> Plan:
        order = run_order(self.recipe, self.references)
        for stage in self.recipe.stages.values():
            self.notify(f"loading {stage.verb}")
            try:
                self.verbs[stage.name] = verb_module(stage.verb)
            except InputError as error:
                raise InputError(f"{self.recipe.where}: [stages.{stage.name}]: {error}") from None
        if not any(hasattr(verb, "arm") for verb in self.verbs.values()):
            self.arm_axis = next((axis.name for axis in self.recipe.axes if _sets_more_than_seeds(axis)), "")
        axes: dict[str, list[Axis]] = {}
        for name in order:
            self.notify(f"stage {name}")
            axes[name] = self._axes_of(name, axes)
            self.found[name] = []
            for point in itertools.product(
                *(zip(axis.labels, axis.values, strict=True) for axis in axes[name])
            ):
                self._plan_cell(name, axes[name], point)
        stages = {name: tuple({c.id: c for _, c in self.found[name]}.values()) for name in order}
        return Plan(self.recipe, tuple(self.by_id.values()), stages, self.arms)

    def _axes_of(self, name: str, known: Mapping[str, list[Axis]]) -> list[Axis]:
        """The axes along which a stage varies, in the recipe's order."""
        single = self.references[name].single
        used = {axis.name for needed in single for axis in known[needed] if axis.name not in single[needed]}
        every = [*self.recipe.axes, *(axis for stage in self.recipe.stages.values() for axis in stage.axes)]
        return [axis for axis in every if axis.name in used or name in axis.values[0]]

    def _plan_cell(self, name: str, axes: Sequence[Axis], point: Sequence[tuple[str, Any]]) -> None:
        coordinates = {axis.name: label for axis, (label, _) in zip(axes, point, strict=True)}
        at = " at " + ", ".join(f"{k}={v}" for k, v in coordinates.items()) if coordinates else ""
        where = f"{self.recipe.where}: [stages.{name}]{at}"
        place = _Place(name, coordinates, where)
        values = self._values(name, axes, [changes.get(name, {}) for _, changes in point])
        resolved, referring = {}, []
        for key, value in values.items():
            before = len(place.needs)
            resolved[key] = self._resolve(value, place, f"{where}: '{key}'")
            if resolved[key] != value or len(place.needs) > before:
                referring.append(key)
        config = build(self.verbs[name].Config, resolved, where)
        for key in referring:
            if key not in inputs(config):
                raise InputError(f"{where}: '{key}' is not a file or folder, so it can't be a reference (@)")
        try:
            cell = self._cell(place, config)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        self.found[name].append((coordinates, cell))

    def _values(
        self, name: str, axes: Sequence[Axis], changes: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The stage's settings at one point of the grid, references not yet resolved."""
        values: dict[str, Any] = copy.deepcopy(dict(self.recipe.stages[name].values))
        by: dict[str, str] = {}  # which axis set a key
        for axis, change in zip(axes, changes, strict=True):
            for key, value in change.items():
                if key in by:
                    raise InputError(
                        f"{self.recipe.where}: axes '{by[key]}' and '{axis.name}' both set {name}.{key}"
                    )
                by[key] = axis.name
                put(values, key, value, f"{self.recipe.where}: axis '{axis.name}' sets '{key}', but")
        for key in ("title", "command", "not_run"):
            given = getattr(self.recipe, key)
            if given and key in self._config_of(name, values).model_fields:
                values.setdefault(key, given)
        return values

    def _config_of(self, name: str, values: Mapping[str, Any]) -> type[Record]:
        try:
            found: type[Record] = self.verbs[name].Config.of_kind(values)
        except InputError as error:
            raise InputError(f"{self.recipe.where}: [stages.{name}]: {error}") from None
        return found

    def _resolve(self, value: Any, place: _Place, where: str) -> Any:
        """References as paths; the cells they stand for go into the place's needs."""
        if isinstance(value, list):
            resolved: dict[Any, None] = {}
            if not any(is_reference(item) for item in value):
                return value
            for item in value:
                if not is_reference(item):
                    resolved[item] = None
                    continue
                named = read_reference(item, where)
                names = self.references[place.stage].every if named.stage == EVERY else [named.stage]
                found = [c for each in names for c in self._matching(each, place, named.pins, where)]
                place.needs.update(dict.fromkeys(cell.id for cell in found))
                resolved.update(dict.fromkeys(str(cell.folder / named.inside) for cell in found))
            return list(resolved)
        if isinstance(value, Mapping) and any(is_reference(leaf) for _, leaf in leaves(value)):
            raise InputError(f"{where}: a reference (@) can't be in a group of settings")
        if not is_reference(value):
            return value
        named = read_reference(value, where)
        if named.stage == EVERY:
            raise InputError(f'{where}: write ["@*"], in a list, for all stages')
        cell = self._matching(named.stage, place, named.pins, where)[0]
        unpinned = self._matching(named.stage, place, {}, where)
        place.needs[cell.id] = None
        place.arms |= cell.arms.intersection(*(other.arms for other in unpinned))
        return str(cell.folder / named.inside)

    def _matching(self, stage: str, place: _Place, pins: Mapping[str, str], where: str) -> list[Cell]:
        """The cells of a stage at the pins, and at the place's coordinates on the other axes of both."""
        for axis, label in pins.items():
            labels = list(dict.fromkeys(theirs[axis] for theirs, _ in self.found[stage] if axis in theirs))
            if label not in labels:
                what = f"'{stage}' has no {axis} '{label}'" if labels else f"'{stage}' has no axis '{axis}'"
                raise InputError(f"{where}: stage {what}{suggest(label, labels) if labels else ''}")
        at = {**place.coordinates, **pins}
        return [
            cell
            for theirs, cell in self.found[stage]
            if all(at.get(name, label) == label for name, label in theirs.items())
        ]

    def _cell(self, place: _Place, config: Record) -> Cell:
        verb = self.verbs[place.stage]
        arms = (
            place.arms | {place.coordinates[self.arm_axis]}
            if self.arm_axis in place.coordinates
            else place.arms
        )
        if hasattr(verb, "arm"):
            made = verb.arm(config)
            self.arms[made["name"]], arms = made, frozenset({made["name"]})
        name, folder = self.recipe.stages[place.stage].verb, self.cells_folder / place.stage
        draft = Cell(place.stage, name, config, "", folder, tuple(place.needs), place.coordinates, arms)
        cell = make_cell(draft, self.recipe.threads, self.identify)
        if hasattr(verb, "check") and not cell.done:
            verb.check(config, self._made(config))
        return self.by_id.setdefault(cell.id, cell)  # two coordinates may be one computation

    def _made(self, config: Record) -> dict[str, Record]:
        """An input's name -> the settings of the cell that is to make it."""
        made = self.identify.made
        folders = {key: folder_of(paths[0], made) for key, paths in inputs(config).items() if paths}
        return {key: self.by_id[made[folder]].config for key, folder in folders.items() if folder}


def _sets_more_than_seeds(axis: Axis) -> bool:
    keys = [key for value in axis.values for changes in value.values() for key in changes]
    return any(key.rpartition(".")[2] != "seed" for key in keys)


def _slug(coordinates: Mapping[str, str]) -> str:
    """Coordinates as part of a folder's name: named axes by label, own axes by key and label."""
    parts = [
        f"{name.rpartition('.')[2]}{label}" if "." in name else label for name, label in coordinates.items()
    ]
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", "-".join(parts))[:60].strip("-._")
