"""What a failed cell takes along: its arms, or the stage of a cell of no arm, and what needs one of theirs.

An arm is whole or left out, so that no arm is judged by those of its runs that ended well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trabecula.config import build, dump, inputs
from trabecula.grid.cells import Cell, Identities, Plan, folder_of, make_cell


def without_failed(study: Plan, failed: Collection[str]) -> tuple[Plan, dict[str, str]]:
    """The plan of what is whole without the failed cells, and what it leaves out: arm or stage -> reason.

    A list of cells goes on with those that are left. A config whose inputs changed learns what is missing:
    in `incomplete`, if it has that field, the incomplete arms (name, architecture, family, reason), in
    `not_run` the reason of each arm and stage. A reason names a stage and its arms, never an error's text,
    which may hold patients and paths.
    """
    gone, left_out = _gone(study, failed)
    reasons = {name: reason for (_, name), reason in left_out.items()}
    arms = {name: reason for (kind, name), reason in left_out.items() if kind == "arm" and name in study.arms}
    incomplete = [{**study.arms[name], "reason": reason} for name, reason in arms.items()]
    identify, old = Identities(), {cell.folder: cell.id for cell in study.cells}
    new: dict[str, Cell] = {}  # id in the study -> cell
    for cell in study.cells:
        if cell.id in gone:
            continue
        config, changes = cell.config, dict[str, Any]()
        for key, paths in inputs(config).items():
            now = [there for path in paths if (there := _moved(path, old, new))]
            if now != paths:
                changes[key] = now[0] if isinstance(getattr(config, key), Path) else now
        if changes:
            missing = {"incomplete": incomplete, "not_run": {**getattr(config, "not_run", {}), **reasons}}
            changes |= {key: value for key, value in missing.items() if key in type(config).model_fields}
            config = build(type(config), {**dump(config), **changes}, cell.name)
        needs = tuple(new[need].id for need in cell.needs if need in new)
        new[cell.id] = make_cell(replace(cell, config=config, needs=needs), study.recipe.threads, identify)
    stages = {name: tuple(new[c.id] for c in cells if c.id in new) for name, cells in study.stages.items()}
    return replace(study, cells=tuple(new.values()), stages=stages), reasons


def _moved(path: Path, old: Mapping[Path, str], new: Mapping[str, Cell]) -> Path | None:
    """Where an input is now; None of a cell that is left out."""
    folder = folder_of(path, old)
    if folder is None:
        return path
    return new[old[folder]].folder / path.relative_to(folder) if old[folder] in new else None


def _gone(study: Plan, failed: Collection[str]) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """(id -> reason) of the cells that are left out, and the same of ("arm" or "stage", its name)."""
    by_folder = {cell.folder: cell.id for cell in study.cells}
    gone: dict[str, str] = {}
    left_out: dict[tuple[str, str], str] = {}
    known = -1
    while known < len(gone):
        known = len(gone)
        for cell in study.cells:
            parts = [("arm", name) for name in sorted(cell.arms)] or [("stage", cell.stage)]
            if cell.id in failed:
                of = f" of {' and '.join(sorted(cell.arms))}" if cell.arms else ""
                reasons = [f"{cell.stage}{of} failed"]
            else:
                reasons = [gone[need] for need in _indispensable(cell, by_folder, gone)]
                reasons += [left_out[part] for part in parts if part in left_out]
            if reasons:
                gone.setdefault(cell.id, reasons[0])
                for part in parts:
                    left_out.setdefault(part, gone[cell.id])
    return gone, left_out


def _indispensable(cell: Cell, by_folder: Mapping[Path, str], gone: Collection[str]) -> Iterator[str]:
    """What is gone of the cells it can't do without: those outside lists, and all of a list that it needs."""
    for key, paths in inputs(cell.config).items():
        folders = [folder_of(path, by_folder) for path in paths]
        lost = [by_folder[folder] for folder in folders if folder and by_folder[folder] in gone]
        required = type(cell.config).model_fields[key].is_required()
        if isinstance(getattr(cell.config, key), Path) or (required and len(lost) == len(paths)):
            yield from lost
