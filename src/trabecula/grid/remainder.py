"""What is left of a study in which cells failed: the arms that are whole, and what needs no other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trabecula.artifacts.results import IncompleteArm
from trabecula.config import inputs
from trabecula.grid.cells import Cell, Identities, Plan, make_cell
from trabecula.grid.recipe import Axis, Recipe, leaves
from trabecula.nets.backbone import resolve

Place = tuple[str, frozenset[tuple[str, str]]]  # (a stage, no axes), or ("", an arm: values of its axes)


def without(study: Plan, failed: Collection[str]) -> tuple[Plan, dict[str, str]]:
    """The plan of what is whole without the cells that failed, and what it leaves out, with the reason.

    A reason names a stage and its arms, never an error's text: that may hold patients and paths, and what a
    report says, and its id, must not hang on these.

    An arm is whole or left out, so that no arm is judged by the runs that happened to end well: a failed
    cell takes along all cells of its arm, whatever their values of other axes; one of no arm, its stage.
    What needs a cell that is gone goes too; a list of cells goes on with those that are left, and its verb is
    told what was not run.

    Args:
        failed: ids of cells.
    """
    gone, left_out = _gone(study, failed)
    incomplete = _incomplete(study, gone)
    identify, cells, moved = Identities(), [], dict[Path, Path]()
    by_folder = {cell.folder: cell for cell in study.cells}
    new_ids: dict[str, str] = {}
    for cell in study.cells:
        if cell.id in gone:
            continue
        changes: dict[str, Any] = {}
        for key, paths in _inputs(cell):
            kept = [path for path in paths if not _ids([path], by_folder) & gone.keys()]
            now = [_moved(path, moved) for path in kept]
            if now != paths:
                changes[key] = now[0] if isinstance(getattr(cell.config, key), Path) else tuple(now)
        if changes and "not_run" in type(cell.config).model_fields:
            changes["not_run"] = {**getattr(cell.config, "not_run"), **left_out}  # noqa: B009
        if changes and "incomplete" in type(cell.config).model_fields:
            changes["incomplete"] = (*getattr(cell.config, "incomplete"), *incomplete)  # noqa: B009
        needs = [new_ids[need] for need in cell.needs if need not in gone]
        config = cell.config.model_copy(update=changes)
        made = make_cell(replace(cell, config=config, needs=tuple(needs)), study.recipe.threads, identify)
        new_ids[cell.id], moved[cell.folder] = made.id, made.folder
        cells.append(made)
    stages = {name: tuple(cell for cell in cells if cell.stage == name) for name in study.stages}
    places = {new_ids[cell_id]: at for cell_id, at in study.places.items() if cell_id in new_ids}
    return replace(study, cells=tuple(cells), stages=stages, places=places), left_out


def _gone(study: Plan, failed: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """(cell id -> reason) of all that goes with the failed ones, (arm or stage -> reason)."""
    by_folder = {cell.folder: cell for cell in study.cells}
    gone = {cell.id: _failure(study, cell) for cell in study.cells if cell.id in failed}
    places = dict[Place, str]()
    while True:
        for cell in study.cells:
            for place in _places(study, cell) if cell.id in gone else ():
                places.setdefault(place, gone[cell.id])
        more = {}
        for cell in study.cells:
            if cell.id in gone:
                continue
            reasons = [gone[need] for need in _indispensable(cell, by_folder, gone)]
            among = [_reason(place, places) for place in _places(study, cell)]
            if reasons or all(among):
                more[cell.id] = (reasons or among)[0]
        if not more:
            return gone, {_label(place): why for place, why in places.items()}
        gone |= more


def _incomplete(study: Plan, gone: Mapping[str, str]) -> list[IncompleteArm]:
    """The planned arms whose encoders are gone with a failed cell, as their cards would have them."""
    arms: dict[str, IncompleteArm] = {}
    for cell in study.cells:
        config: Any = cell.config
        if cell.verb == "pretrain" and cell.id in gone:
            family = config.init if config.objective == "none" else "pretrained"
            label = config.init if config.objective == "none" else config.objective
            name = config.arm or f"{config.architecture.rpartition(':')[2]}-{label}"
            architecture = resolve(config.architecture) if family == "random" else config.architecture
            arms.setdefault(name, IncompleteArm(
                name=name, architecture=architecture, family=family, reason=gone[cell.id]
            ))  # fmt: skip
    return list(arms.values())


def _failure(study: Plan, cell: Cell) -> str:
    """ "pretrain of critic-wgan_gp failed"."""
    arms = dict.fromkeys(_label(place) for place in _places(study, cell) if not place[0])
    return f"{cell.stage}{' of ' if arms else ''}{' and '.join(arms)} failed"


def _places(study: Plan, cell: Cell) -> list[Place]:
    """The arms a cell belongs to, or its stage; a cell that several coordinates share stands at several."""
    of_arms = _axes_of_arms(study.recipe)
    found = []
    for stage, at in study.places[cell.id]:
        values = frozenset((axis, label) for axis, label in at.items() if axis in of_arms)
        found.append(("" if values else stage, values))
    return found


def _axes_of_arms(recipe: Recipe) -> set[str]:
    """The named axes that tell encoders apart: those that set more than seeds of a stage that pretrains.

    Where no stage pretrains: the first named axis that sets more than seeds.
    """
    pretraining = {
        name for name, stage in recipe.stages.items() if stage.verb.rpartition(".")[2] == "pretrain"
    }
    differing = [(axis.name, _set_by(axis)) for axis in recipe.axes if _set_by(axis)]
    of_arms = {name for name, stages in differing if stages & pretraining}
    return of_arms or {name for name, _ in differing[:1]}


def _set_by(axis: Axis) -> set[str]:
    """The stages of which a named axis sets more than seeds."""
    keys = ((stage, key) for value in axis.values for stage in value for key, _ in leaves(value[stage]))
    return {stage for stage, key in keys if key and key.rpartition(".")[2] != "seed"}


def _label(place: Place) -> str:
    """An arm's name, as in the recipe; of what belongs to no arm, the stage's."""
    stage, values = place
    return " ".join(label for _, label in sorted(values)) or stage


def _reason(place: Place, places: Mapping[Place, str]) -> str:
    """Why a place is gone; "" if it is not."""
    stage, values = place
    for (gone_stage, gone_values), why in places.items():
        if gone_stage == stage and gone_values <= values:
            return why
    return ""


def _indispensable(cell: Cell, by_folder: Mapping[Path, Cell], gone: Mapping[str, str]) -> Iterator[str]:
    """What is gone of the cells without which this one can't be: single ones, and the last of a list."""
    for key, paths in _inputs(cell):
        ids = _ids(paths, by_folder)
        single = isinstance(getattr(cell.config, key), Path)
        needed = type(cell.config).model_fields[key].is_required()
        if single or (needed and len(ids) == len(paths) and ids <= gone.keys()):
            yield from (one for one in ids if one in gone)


def _inputs(cell: Cell) -> list[tuple[str, list[Path]]]:
    return [(key, paths) for key, paths in inputs(cell.config).items() if paths]


def _ids(paths: Iterable[Path], by_folder: Mapping[Path, Cell]) -> set[str]:
    """The cells in whose folders these paths lie."""
    return {by_folder[at].id for path in paths for at in (path, *path.parents) if at in by_folder}


def _moved(path: Path, moved: Mapping[Path, Path]) -> Path:
    """A path in a cell's folder, in the folder that the cell has now."""
    for folder in (path, *path.parents):
        if folder in moved:
            return moved[folder] / path.relative_to(folder)
    return path
