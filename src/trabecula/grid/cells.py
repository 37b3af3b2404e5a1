"""The plan of a study: every cell of a recipe, one verb call each, its id known before it runs."""

from __future__ import annotations

import copy
import functools
import itertools
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trabecula.artifacts.run_record import is_done
from trabecula.config import Record, build, inputs, leaves, put, suggest
from trabecula.errors import InputError
from trabecula.recipe import EVERY, Axis, Recipe, find_references, is_reference, read_reference
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
    """Every cell of a recipe, in an order in which they can run; nothing is run, nor written into `folder`.

    `notify` is called with the step that begins: networks are built and inputs read, which may take a while.
    An InputError names the cell whose setting, reference or file is wrong.
    """
    return _Planner(recipe, folder / "cells", notify).plan()


class Identities:
    """`run.identity`, also of artifacts that are yet to be made."""

    def __init__(self) -> None:
        self.made: dict[Path, str] = {}  # folder of a cell -> its id
        self._of_what_is_there = functools.cache(identity)

    def __call__(self, path: Path) -> str:
        folder = folder_of(path, self.made)
        if folder is None:
            return self._of_what_is_there(path)
        return "/".join((self.made[folder], *path.relative_to(folder).parts))


def folder_of(path: Path, folders: Container[Path]) -> Path | None:
    """The one of these folders in which a path is."""
    return next((folder for folder in (path, *path.parents) if folder in folders), None)


def make_cell(draft: Cell, threads: int, identify: Identities) -> Cell:
    """A cell with the id that its settings and inputs give it; its folder is beside the draft's.

    The folder is named by the coordinates: of a named axis the label, of a stage's own the key and the label.
    """
    cell_id = recorded(draft.verb, draft.config, threads, identify).id
    places = [(axis.rpartition("."), label) for axis, label in draft.coordinates.items()]
    labels = "-".join(f"{key}{label}" if stage else label for (stage, _, key), label in places)
    slug = re.sub(r"[^A-Za-z0-9._+-]+", "_", labels)[:60].strip("-._")
    name = "-".join(part for part in (draft.stage, slug, cell_id[:8]) if part)
    made = replace(draft, id=cell_id, folder=draft.folder.parent / name)
    identify.made[made.folder] = cell_id
    return made


@dataclass
class _Place:
    """One combination of a stage's axes, and what its settings refer to."""

    stage: str
    coordinates: Mapping[str, str]
    needs: dict[str, None] = field(default_factory=dict)  # ids, in order
    arms: frozenset[str] = frozenset()


class _Planner:
    def __init__(self, recipe: Recipe, cells_folder: Path, notify: Callable[[str], None]) -> None:
        self.recipe, self.cells_folder, self.notify = recipe, cells_folder, notify
        self.references = find_references(recipe)  # stages in running order
        self.verbs: dict[str, Any] = {}  # stage -> its verb's module
        self.found: dict[str, list[tuple[Mapping[str, str], Cell]]] = {}  # stage -> (coordinates, cell)
        self.by_id: dict[str, Cell] = {}
        self.arms: dict[str, Mapping[str, Any]] = {}
        self.arm_axis = ""  # the axis whose values are the arms, where no verb of the recipe says its arm
        self.identify = Identities()

    def plan(self) -> Plan:
        for stage in self.recipe.stages.values():
            self.notify(f"loading {stage.verb}")
            try:
                self.verbs[stage.name] = verb_module(stage.verb)
            except InputError as error:
                raise InputError(f"{self.recipe.where}: [stages.{stage.name}]: {error}") from None
        if not any(hasattr(verb, "arm") for verb in self.verbs.values()):
            self.arm_axis = next((axis.name for axis in self.recipe.axes if _sets_more_than_seeds(axis)), "")
        every = [*self.recipe.axes, *(axis for stage in self.recipe.stages.values() for axis in stage.axes)]
        axes: dict[str, list[Axis]] = {}  # those along which a stage varies, in the recipe's order
        for name, its in self.references.items():
            self.notify(f"stage {name}")
            used = {a.name for needed, pins in its.single.items() for a in axes[needed] if a.name not in pins}
            axes[name] = [axis for axis in every if axis.name in used or name in axis.values[0]]
            self.found[name] = []
            points = (zip(axis.labels, axis.values, strict=True) for axis in axes[name])
            for point in itertools.product(*points):
                self._plan_cell(name, axes[name], point)
        stages = {name: tuple({c.id: c for _, c in self.found[name]}.values()) for name in self.references}
        return Plan(self.recipe, tuple(self.by_id.values()), stages, self.arms)

    def _plan_cell(self, name: str, axes: Sequence[Axis], point: Sequence[tuple[str, Any]]) -> None:
        coordinates = {axis.name: label for axis, (label, _) in zip(axes, point, strict=True)}
        at = " at " + ", ".join(f"{k}={v}" for k, v in coordinates.items()) if coordinates else ""
        where = f"{self.recipe.where}: [stages.{name}]{at}"
        place = _Place(name, coordinates)
        values = self._values(name, axes, point)
        resolved = {key: self._resolve(value, place, f"{where}: '{key}'") for key, value in values.items()}
        config = build(self.verbs[name].Config, resolved, where)
        for key, value in values.items():
            if resolved[key] is not value and key not in inputs(config):
                raise InputError(f"{where}: '{key}' is not a file or folder, so it can't be a reference (@)")
        verb, made = self.verbs[name], self.identify.made
        arms = place.arms | {label for axis, label in coordinates.items() if axis == self.arm_axis}
        try:
            if hasattr(verb, "arm"):
                arm = verb.arm(config)
                self.arms[arm["name"]], arms = arm, frozenset({arm["name"]})
            verb_name, folder = self.recipe.stages[name].verb, self.cells_folder / name
            draft = Cell(name, verb_name, config, "", folder, tuple(place.needs), coordinates, arms)
            cell = make_cell(draft, self.recipe.threads, self.identify)
            if hasattr(verb, "check") and not cell.done:
                folders = {key: folder_of(paths[0], made) for key, paths in inputs(config).items() if paths}
                makers = {key: self.by_id[made[folder]].config for key, folder in folders.items() if folder}
                verb.check(config, makers)  # of inputs that are yet to be made: the settings of their cells
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        cell = self.by_id.setdefault(cell.id, cell)  # two coordinates may be one computation
        self.found[name].append((coordinates, cell))

    def _values(self, name: str, axes: Sequence[Axis], point: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """The stage's settings at one point of the grid, references not yet resolved."""
        values: dict[str, Any] = copy.deepcopy(dict(self.recipe.stages[name].values))
        by: dict[str, str] = {}  # which axis set a key
        for axis, (_, changes) in zip(axes, point, strict=True):
            for key, value in changes.get(name, {}).items():
                if key in by:
                    axes_of = f"axes '{by[key]}' and '{axis.name}'"
                    raise InputError(f"{self.recipe.where}: {axes_of} both set {name}.{key}")
                by[key] = axis.name
                put(values, key, value, f"{self.recipe.where}: axis '{axis.name}' sets '{key}', but")
        for key in ("title", "command", "not_run"):
            given = getattr(self.recipe, key)
            if given and key in self.verbs[name].Config.model_fields:
                values.setdefault(key, given)
        return values

    def _resolve(self, value: Any, place: _Place, where: str) -> Any:
        """References as paths; the cells they stand for go into the place's needs."""
        if isinstance(value, list) and any(map(is_reference, value)):
            resolved: dict[Any, None] = {}  # in order, each once
            for item in value:
                paths = self._listed(item, place, where) if is_reference(item) else [item]
                resolved.update(dict.fromkeys(paths))
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

    def _listed(self, reference: str, place: _Place, where: str) -> list[str]:
        """The paths that a reference inside a list stands for."""
        named = read_reference(reference, where)
        names = self.references[place.stage].every if named.stage == EVERY else [named.stage]
        found = [cell for name in names for cell in self._matching(name, place, named.pins, where)]
        place.needs.update(dict.fromkeys(cell.id for cell in found))
        return [str(cell.folder / named.inside) for cell in found]

    def _matching(self, stage: str, place: _Place, pins: Mapping[str, str], where: str) -> list[Cell]:
        """The cells of a stage at the pins, and at the place's coordinates on the other axes of both."""
        for axis, label in pins.items():
            labels = list(dict.fromkeys(theirs[axis] for theirs, _ in self.found[stage] if axis in theirs))
            if label not in labels:
                what = f"'{stage}' has no {axis} '{label}'" if labels else f"'{stage}' has no axis '{axis}'"
                raise InputError(f"{where}: stage {what}{suggest(label, labels) if labels else ''}")
        at = {**place.coordinates, **pins}
        found = self.found[stage]
        return [
            cell for its, cell in found if all(at.get(axis, label) == label for axis, label in its.items())
        ]


def _sets_more_than_seeds(axis: Axis) -> bool:
    keys = [key for value in axis.values for changes in value.values() for key in changes]
    return any(key.rpartition(".")[2] != "seed" for key in keys)
