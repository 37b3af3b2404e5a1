"""Tasks: what is to be predicted, from which columns of a manifest, for which of its rows."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import model_validator

from trabecula.artifacts.label_values import counted, first_spellings, missing_codes, same
from trabecula.artifacts.rules import cells_of, of_images, parse_rule, rows_have
from trabecula.config import Record, suggest
from trabecula.errors import InputError

if TYPE_CHECKING:
    from trabecula.artifacts.manifest import Manifest

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_BETWEEN, _NEGATIVE = "|", "No Finding"  # of a column that names findings, in NIH ChestX-ray14


class Task(Record):
    """What is predicted, from which columns, for which rows."""

    name: str = ""
    """The task's name; in tasks.json and in a recipe its key."""
    kind: Literal["binary", "multiclass", "multilabel", "ordinal"] = "binary"
    """binary, multiclass, multilabel (several findings at once) or ordinal (classes in order)."""
    labels: tuple[str, ...] = ()
    """The manifest's columns that hold the label: one, or for multilabel one a finding (or one that names
    them, see `separator`)."""
    positive: str = ""
    """Binary: the rule of the positive class, such as `kl >= 2`; empty: the label column holds 0 and 1."""
    classes: tuple[str, ...] = ()
    """The label's values in order; others are an error. Needed but for binary, whose rule may cover all.
    With `separator`: the findings."""
    separator: str = ""
    """Multilabel with one label column that names the findings that are there: what stands between them, such
    as "|" in "Effusion|Mass"."""
    negative: str = _NEGATIVE
    """With `separator`: what the column says where none of them is there."""
    ignored: tuple[str, ...] = ()
    """With `separator`: names that may stand in the column and are not asked for."""
    eligible: str = ""
    """Rule on the manifest's columns: rows where it does not hold are left out, and counted."""
    missing: Literal["exclude", "negative"] = "exclude"
    """What an empty label means: left out (multilabel: that finding is masked), or negative."""
    uncertain: Literal["exclude", "negative", "positive"] = "exclude"
    """What the uncertain value means: left out (multilabel: masked), negative, or positive."""
    uncertain_value: str = "-1"
    """The label value that says "uncertain" (CheXpert's convention is -1)."""

    @model_validator(mode="after")
    def _coherent(self) -> Task:
        if not self.labels and not (self.kind == "binary" and self.positive):
            raise ValueError("'labels' must name at least one column of the manifest")
        if self.kind in ("binary", "multiclass", "ordinal") and len(self.labels) > 1:
            raise ValueError(f"a {self.kind} task has one label column, not {len(self.labels)}")
        if self.kind in ("multiclass", "ordinal"):
            if len(self.classes) < 2:
                raise ValueError(f"a {self.kind} task needs two classes or more in 'classes'")
            if (self.missing, self.uncertain) != ("exclude", "exclude"):
                raise ValueError(
                    f"a {self.kind} task has no negative class: missing and uncertain must be exclude"
                )
        if self.separator or self.ignored:
            self._names_findings()
        elif twice := _twice(self.classes):
            raise ValueError(f"'classes': {twice}")
        if self.positive and self.kind != "binary":
            raise ValueError("'positive' is a rule of binary tasks only")
        for rule in (self.positive, self.eligible):
            if rule:
                parse_rule(rule)
        return self

    def _names_findings(self) -> None:
        """Refuse a task whose one column could not name its findings."""
        if not self.separator or self.kind != "multilabel" or len(self.labels) != 1:
            raise ValueError(
                "'separator' and 'ignored' are of a multilabel task whose one label column names the findings"
            )
        names = (*self.classes, self.negative, *self.ignored)
        twice = _twice(names)
        if not self.classes or twice or any(self.separator in name for name in names):
            wrong = twice or "they hold none, or one with the separator in it"
            raise ValueError(f"'classes' must list the findings that the column may name: {wrong}")
        if self.uncertain != "exclude":
            raise ValueError("a column that names findings says nothing uncertain: uncertain must be exclude")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the outputs: ("0", "1") for binary, the classes, or the findings."""
        if self.kind == "binary":
            return ("0", "1")
        return self.labels if self.kind == "multilabel" and not self.separator else self.classes

    @property
    def num_outputs(self) -> int:
        """Width of a prediction: 2 for binary, the number of classes, or of findings."""
        return len(self.class_names)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every manifest column that decides the label."""
        return self.labels or parse_rule(self.positive).columns


@dataclass(frozen=True)
class Truth:
    """The labelled rows of a manifest under one task.

    `image_ids`, `patient_ids`: (n,) text. `y`: (n,) class index, or (n, L) for multilabel with 1 present,
    0 absent, -1 masked. `rows`: (n,) positions in the manifest. `exclusions`: rows left out, by reason.
    """

    image_ids: npt.NDArray[np.str_]
    patient_ids: npt.NDArray[np.str_]
    y: Ints
    class_names: tuple[str, ...]
    exclusions: dict[str, int]
    rows: Ints

    def __len__(self) -> int:
        return len(self.image_ids)

    def at(self, rows: npt.NDArray[np.integer[Any] | np.bool_]) -> Truth:
        """These labelled rows alone."""
        ids, patients = self.image_ids[rows], self.patient_ids[rows]
        return replace(self, image_ids=ids, patient_ids=patients, y=self.y[rows], rows=self.rows[rows])

    def among(self, images: Container[str], where: Path, lost_because: str) -> Truth:
        """The rows whose image is one of `images`, of which there must be some; the others are exclusions."""
        keep = np.array([image in images for image in self.image_ids], dtype=bool)
        if not keep.any():
            raise InputError(f"{where}: has none of the labelled images; does it belong to this manifest?")
        exclusions = self.exclusions | ({} if keep.all() else {lost_because: int((~keep).sum())})
        return replace(self.at(keep), exclusions=exclusions)


def _twice(names: Sequence[str]) -> str:
    """What is wrong, in words, where a name is one before it, but for case and blanks; "" where none is."""
    first = first_spellings(names)
    bad = [name for i, name in enumerate(names) if name in names[:i] or first[name] != name]
    if not bad:
        return ""
    again = first[bad[0]] != bad[0]
    return f"'{bad[0]}' is the same value as '{first[bad[0]]}'" if again else f"'{bad[0]}' stands twice"


def find_task(spec: str, manifest: Manifest) -> Task:
    """The task of that name in tasks.json, or one from a shorthand.

    `kl >= 2` (a rule) is a binary task; `kl` (a column) has that column's values as its classes, and is
    binary where they are 0 and 1 or true and false. Spellings of a value that differ in case or blanks are
    one class, named by the commonest. A column in which "|" stands between names, such as NIH's
    `Finding Labels`, is a multilabel task of the names in it, each as it is spelled first.
    """
    spec = " ".join(spec.split())
    if spec in manifest.tasks:
        return manifest.tasks[spec]
    if re.fullmatch("`[^`]+`", spec) and spec not in manifest.table.columns:
        spec = spec.strip("`")
    if spec in manifest.table.columns:
        cells = manifest.table[spec].tolist()
        if any(_BETWEEN in cell for cell in cells):
            names = [name.strip() for cell in cells for name in cell.split(_BETWEEN)]
            found = sorted(set(first_spellings([_NEGATIVE, *names]).values()) - {"", _NEGATIVE})
            return Task(
                name=spec, kind="multilabel", labels=(spec,), separator=_BETWEEN, classes=tuple(found)
            )
        counts = counted(cells)
        values = [value for value in counts if value != "-1"]
        if codes := missing_codes(counts):
            bad = [i for i, cell in enumerate(cells) if same(cell, codes[0])]
            raise InputError(
                f"{manifest.path}: column '{spec}' is {codes[0]} in {counts[codes[0]]} rows, far from its "
                "other values; if it means that the value is not known, empty these cells; if it is a class, "
                f"define the task with its classes{of_images(manifest.table, bad)}"
            )
        if len(values) < 2:
            raise InputError(
                f"{manifest.path}: column '{spec}' holds {len(values)} class; a task needs two or more"
            )
        if values == ["0", "1"]:
            return Task(name=spec, kind="binary", labels=(spec,))
        return Task(name=spec, kind="multiclass", labels=(spec,), classes=tuple(values))
    if re.search(r"[<>=]|\bin\b", spec):
        for column in parse_rule(spec).columns:
            cells_of(manifest.table, column, f"{manifest.path}: task '{spec}'")
        return Task(name=spec, kind="binary", positive=spec)
    known = [*manifest.tasks, *(str(name) for name in manifest.table.columns)]
    raise InputError(f"{manifest.path}: no task or column '{spec}'{suggest(spec, known)}")


def truth(task: Task, manifest: Manifest) -> Truth:
    """The rows that carry a label under the task, in the manifest's order; of two classes at least."""
    table, where = manifest.table, f"{manifest.path_named(task.columns)}: task '{task.name}'"
    named = manifest.rows_named(task.columns)
    exclusions: dict[str, int] = {}
    keep = np.ones(len(table), dtype=bool)
    if task.eligible:
        rule = parse_rule(task.eligible)
        keep = rule.holds(table, where=where, rows=manifest.rows_named(rule.columns))
        rule.check_codes(table, True, where, kept=keep)
        exclusions[f"not eligible ({task.eligible})"] = int((~keep).sum())
    if task.kind == "multilabel":
        if task.separator:
            y = _named(task, table, keep, where, named)
        else:
            y = np.stack([_finding(task, name, table, keep, where, named) for name in task.labels], axis=1)
        masked = (y < 0).all(axis=1)
        exclusions["no finding labelled"] = int((keep & masked).sum())
        keep &= ~masked
    else:
        y, reasons = _classes(task, table, keep, where, named)
        exclusions |= {reason: int((keep & rows).sum()) for reason, rows in reasons.items()}
        keep &= y >= 0
    rows = np.flatnonzero(keep)
    _check_classes(y[rows], task, where)
    return Truth(
        image_ids=np.array(table["image_id"].to_numpy()[rows], dtype=str),
        patient_ids=np.array(table["patient_id"].to_numpy()[rows], dtype=str),
        y=y[rows],
        class_names=task.class_names,
        exclusions={reason: count for reason, count in exclusions.items() if count},
        rows=rows.astype(np.int64),
    )


def _classes(
    task: Task, table: pd.DataFrame, keep: Mask, where: str, rows: Sequence[int]
) -> tuple[Ints, dict[str, Mask]]:
    """Class index of every row, -1 where it has none, and where each reason for that applies."""
    columns = {name: cells_of(table, name, where) for name in task.columns}
    cells = list(zip(*columns.values(), strict=True))
    empty = np.array([not all(row) for row in cells])
    uncertain = np.array([any(_is_uncertain(task, cell) for cell in row) for row in cells]) & ~empty
    certain = keep & ~empty & ~uncertain
    for name in task.labels:  # at most one
        if task.classes or not task.positive:
            y = _index(
                columns[name], task.classes or ("0", "1"), certain, table, rows, f"{where}: column '{name}'"
            )
    if task.positive:
        rule = parse_rule(task.positive)
        y = np.where(certain, rule.holds(table, certain, where, rows), -1)
        rule.check_codes(table, certain, where)
    _fill(task, y, empty, uncertain)
    return y, {
        "label missing": empty & (y < 0),
        f"label uncertain ({task.uncertain_value})": uncertain & (y < 0),
    }


def _fill(task: Task, y: Ints, empty: Mask, uncertain: Mask) -> None:
    """What the task takes an empty and an uncertain label for."""
    if task.missing == "negative":
        y[empty] = 0
    if task.uncertain != "exclude":
        y[uncertain] = int(task.uncertain == "positive")


def _is_uncertain(task: Task, cell: str) -> bool:
    return same(cell, task.uncertain_value) and not any(same(cell, name) for name in task.classes)


def _index(
    cells: Sequence[str],
    allowed: Sequence[str],
    check: Mask,
    table: pd.DataFrame,
    rows: Sequence[int],
    where: str,
) -> Ints:
    """Position of each cell among the allowed values, -1 elsewhere; problems only where `check`."""
    place = {cell: next((i for i, name in enumerate(allowed) if same(cell, name)), -1) for cell in set(cells)}
    y = np.array([place[cell] for cell in cells], dtype=np.int64)
    bad = np.flatnonzero(check & (y < 0)).tolist()
    if bad:
        values = ", ".join(repr(value) for value in sorted({cells[i] for i in bad})[:5])
        raise InputError(
            f"{where}: {rows_have(bad, rows)} a label outside the task ({values}); "
            f"allowed: {', '.join(allowed)}{of_images(table, bad)}"
        )
    return np.where(check, y, -1)


def _finding(task: Task, name: str, table: pd.DataFrame, keep: Mask, where: str, rows: Sequence[int]) -> Ints:
    """One column of a multilabel task: 1 present, 0 absent, -1 masked."""
    cells = cells_of(table, name, where)
    empty = np.array([not cell for cell in cells])
    uncertain = np.array([same(cell, task.uncertain_value) for cell in cells]) & ~empty
    y = _index(cells, ("0", "1"), keep & ~empty & ~uncertain, table, rows, f"{where}: column '{name}'")
    _fill(task, y, empty, uncertain)
    return y


def _named(task: Task, table: pd.DataFrame, keep: Mask, where: str, rows: Sequence[int]) -> Ints:
    """(n, L) of a column that names the findings that are there: 1 named, 0 not, -1 where it is empty."""
    cells = cells_of(table, task.labels[0], where)
    split = {cell: [name.strip() for name in cell.split(task.separator)] for cell in dict.fromkeys(cells)}
    known = {*task.classes, *task.ignored}
    given = (*task.classes, task.negative, *task.ignored)
    shown = first_spellings([*given, *(name for names in split.values() for name in names)])
    parts = {cell: {shown[name] for name in names} for cell, names in split.items() if cell}
    unknown = {cell: sorted(names - known) for cell, names in parts.items() if names != {task.negative}}
    bad = [i for i, cell in enumerate(cells) if keep[i] and unknown.get(cell)]
    if bad:
        values = sorted({name for i in bad for name in unknown[cells[i]]})
        start = f"{where}: column '{task.labels[0]}': {rows_have(bad, rows)} "
        if values == [task.negative]:
            raise InputError(f"{start}'{task.negative}' beside a finding{of_images(table, bad)}")
        found = ", ".join(map(repr, values[:5])) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
        raise InputError(
            f"{start}a finding outside the task ({found}); known: {', '.join(task.classes)}; name those that "
            f"are not asked for in 'ignored'{of_images(table, bad)}"
        )
    row = {cell: [int(name in names) for name in task.classes] for cell, names in parts.items()}
    row[""] = [0 if task.missing == "negative" else -1] * len(task.classes)
    return np.array([row[cell] for cell in cells], dtype=np.int64)


def _check_classes(y: Ints, task: Task, where: str) -> None:
    if not len(y):
        raise InputError(f"{where}: no row has a label; look at columns {', '.join(task.columns)}")
    if task.kind == "multilabel":
        columns = zip(task.class_names, y.T, strict=True)
        flat = [name for name, labels in columns if len(np.unique(labels[labels >= 0])) < 2]
        # of a list of names some may be nobody's; a column of its own was filled in for nothing
        if len(flat) == y.shape[1] or (flat and not task.separator):
            raise InputError(
                f"{where}: finding {', '.join(flat)} has one class only; remove it from the task"
            )
        return
    present = np.unique(y)
    if len(present) < 2:
        only = task.class_names[int(present[0])]
        raise InputError(f"{where}: every labelled row is of class {only}; a task needs two classes")
