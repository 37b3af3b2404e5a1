"""`trabecula show`: the settings of a verb or objective, a run folder's card, a recipe."""

from __future__ import annotations

import json
import shutil
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from trabecula.artifacts.run_record import (
    CONFIG_FILE,
    DONE_FILE,
    PROVENANCE_FILE,
    is_started,
    read_provenance,
    read_run,
    run_id,
    summary_of,
)
from trabecula.config import WITHOUT_DEFAULT, Record, describe, inline, read_toml, suggest
from trabecula.errors import InputError
from trabecula.objectives import TABLE, find
from trabecula.recipe import leaves, not_run_lines, parse_recipe
from trabecula.run import verb_module
from trabecula.summaries.run_card import RunCard, read_card, read_study
from trabecula.verbs import VERBS

_LONG = 6  # entries of a list that are shown
_NEAR = 20  # names in a folder that are looked through, or listed, for one that was not found
_LONG_PAIR = 50  # characters of `key = value`: longer ones may be folded in the value
_FIXED = "\N{NO-BREAK SPACE}"
_WIDEST = 100  # characters of a line of prose


def print_names() -> None:
    """What can be shown."""
    print("verbs:      " + ", ".join(VERBS))
    print("objectives: " + ", ".join(TABLE))
    print("or a run folder, or a recipe.toml")


def print_subject(name: str, settings: bool = False) -> None:
    """Print what `name` is: a verb, an objective, a run folder or a recipe.

    Args:
        settings: of a run folder, its settings and the raw cards too.

    Raises:
        InputError: it is none of them.
    """
    path = Path(name)
    if name in VERBS or ("." in name and not path.exists() and "/" not in name and path.suffix != ".toml"):
        print_settings(verb_module(name).Config, name)
    elif name in TABLE:
        print_settings(find(name).Config, name)
    elif path.is_dir():
        print_run(path, settings)
    elif path.is_file() and path.suffix == ".toml":
        print_recipe(path)
    else:
        known = [*VERBS, *TABLE]
        if path.with_name(f"{path.name}.toml").is_file():
            raise InputError(f"'{name}': no such file or folder, did you mean '{name}.toml'?")
        if "/" in name or path.suffix == ".toml":
            near = sorted(other.name for other in path.parent.glob("*") if not other.name.startswith("."))
            meant = suggest(path.name, near)
            meant = meant if "?" in meant or len(near) <= _NEAR else ""
            raise InputError(f"'{name}': no such file or folder{meant}")
        raise InputError(f"'{name}' is no verb, objective, run folder or recipe{suggest(name, known)}")


def print_settings(cls: type[Record], name: str) -> None:
    """Each setting as one writes it in TOML or after -s, its type, and below it what it means.

    What a group of settings has in common with an earlier one, two views say, is printed once.
    """
    heading = " ".join((cls.__doc__ or "").split())
    _print_folded(f"{name}: {heading}" if heading else name)
    rows = describe(cls)
    if name in TABLE and rows:
        example = next((row for row in rows if row[2] not in WITHOUT_DEFAULT), rows[0])
        _print_folded(
            f"In a recipe's stage, or with -s, they are keys of pretrain's `settings`, for example "
            f"-s settings.{example[0]}={example[2]}"
        )
    first_keys: dict[tuple[str, str, str], str] = {}
    group = None
    for key, kind, default, meaning in rows:
        prefix, _, last = key.rpartition(".")
        first = first_keys.setdefault((last, kind, meaning), key)
        if prefix != group:
            group = prefix
            print()
        value, comment = f" = {default}", kind if first == key else f"as {first}"
        if default in WITHOUT_DEFAULT:
            value, comment = "", f"{comment}; {default}"
        line = Text.assemble((key, "bold"), value, (f"  # {comment}", "dim"))
        _console().print(line, soft_wrap=True)
        if first == key:
            _print_folded(meaning, indent=4)


def _console() -> Console:
    """Colours on a terminal only; no text is taken for markup."""
    return Console(markup=False, highlight=False, emoji=False)


def _print_folded(text: str, indent: int = 0, hanging: int = 0) -> None:
    for line in _folded(text, indent, hanging):
        print(line)


def _folded(text: str, indent: int = 0, hanging: int = 0) -> list[str]:
    """Lines no wider than the terminal, nor than the eye follows; a long path stays whole, to be copied.

    Args:
        hanging: how much further than the first the other lines are indented.
    """
    lines = textwrap.wrap(
        text.strip(),
        max(min(shutil.get_terminal_size().columns, _WIDEST), indent + hanging + 24),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_FIXED, " ") for line in lines]


def print_run(folder: Path, settings: bool = False) -> None:
    """What a person reads of a run folder, or of a folder that an export or a snapshot left.

    Args:
        settings: the settings and the raw cards too.

    Raises:
        InputError: it is no run folder.
    """
    if (folder / "recipe.toml").exists():
        if (folder / "cells.json").exists():
            print_card(_in_one_line_a_file(read_study(folder), folder))
        if settings or not (folder / "cells.json").exists():
            print_recipe(folder / "recipe.toml")
        return
    card = read_card(folder)
    if card is None and not is_started(folder):
        inside = sorted(
            inner for inner in folder.glob("*/") if is_started(inner) or (inner / "cells.json").exists()
        )
        which = f"; there are {', '.join(map(str, inside[:_NEAR]))}" if inside else ""
        raise InputError(f"{folder}: is not a run folder; it has no {CONFIG_FILE}{which}")
    run = read_run(folder) if run_id(folder) else None
    if run is not None:
        print(f"{folder}: {run.verb}, id {str(run_id(folder))[:8]}")
        summary = summary_of(folder)
        state = "not finished; run its command again" if summary is None else f"{DONE_FILE}: {summary}"
        _print_folded(state, hanging=4)
    else:
        print(folder)
    if card is not None:
        print_card(card)
    if card is None or settings:
        _print_raw(folder, run.settings if run else {})
    else:
        print("all settings: trabecula show --settings " + str(folder))


def _in_one_line_a_file(card: RunCard, folder: Path) -> RunCard:
    """A study's card on which what was not run is listed once for each missing file."""
    not_run = _read(folder / "cells.json").get("not_run") or {}
    lines = [("not run", text) for text in not_run_lines(read_toml(folder / "recipe.toml"), not_run)]
    at = [what for what, _ in card.lines].index("not run") if lines else 0
    kept = [line for line in card.lines if line[0] != "not run"]
    return replace(card, lines=[*kept[:at], *lines, *kept[at:]])


def print_card(card: RunCard) -> None:
    """Lines of what and text, folded to the terminal's width, then the commands, which are not."""
    console = _console()
    print()
    for line in _folded(card.title):
        console.print(Text(line, "bold"), soft_wrap=True)
    column = max((len(what) for what, _ in card.lines), default=0) + 3
    for what, text in card.lines:
        indent = column + len(text) - len(text.lstrip())
        first, *others = _folded(text, indent) or [""]
        console.print(
            Text.assemble((f" {what}".ljust(column), "dim"), first[column:].rstrip()), soft_wrap=True
        )
        for line in others:
            print(line)
    if card.commands:
        print("\nnext:")
        for command in card.commands:
            print(f"  {command}")
    print()


def _print_raw(folder: Path, settings: dict[str, Any]) -> None:
    """Inputs, settings and cards as they are; long lists by their length."""
    for key, paths in read_provenance(folder).get("inputs", {}).items():
        if paths:
            more = f" and {len(paths) - _LONG} more" if len(paths) > _LONG else ""
            _print_folded(f"{key}: {', '.join(paths[:_LONG])}{more}", hanging=4)
    if settings:
        _print_values("settings", settings)
    for card in sorted(folder.glob("*.json")):
        if card.name in (CONFIG_FILE, PROVENANCE_FILE):
            continue
        values = _read(card)
        if isinstance(values, dict):
            _print_values(card.name, _shortened(_unmarked(values)))


def _print_values(heading: str, values: dict[str, Any]) -> None:
    """`key = value` lines, dotted as after -s; what is not set and empty tables are left out."""
    print(f"\n[{heading}]")
    for pair in _pairs(values):
        _print_folded(pair, hanging=4)


def _pairs(values: Any) -> list[str]:
    """`key = value` of what is set; no line ends beside the "=", nor within a short value."""
    pairs = [f"{key} = {inline(value)}" for key, value in leaves(values) if value is not None]
    return [pair.replace(" ", _FIXED, 2 if len(pair) > _LONG_PAIR else -1) for pair in pairs]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def _unmarked(value: Any) -> Any:
    """Without patients' marks: only their number."""
    if isinstance(value, dict):
        return {
            key: f"{len(inner)} marks" if key == "patients" and isinstance(inner, list) else _unmarked(inner)
            for key, inner in value.items()
        }
    return value


def _shortened(value: Any) -> Any:
    """Long lists by their length, nested tables whole."""
    if isinstance(value, dict):
        return {key: _shortened(inner) for key, inner in value.items()}
    if isinstance(value, list) and (len(value) > _LONG or any(isinstance(item, dict) for item in value)):
        return f"{len(value)} entries"
    return value


def print_recipe(path: Path) -> None:
    """A recipe's stages with their settings, and its axes with what each of their values sets."""
    recipe = parse_recipe(read_toml(path), str(path))
    console = _console()
    for line in _folded(recipe.title or str(path)):
        console.print(Text(line, "bold"), soft_wrap=True)
    for stage in recipe.stages.values():
        verb = "" if stage.verb == stage.name else f"  # {stage.verb}"
        console.print(Text.assemble(f"\nstage {stage.name}", (verb, "dim")), soft_wrap=True)
        for pair in _pairs(stage.values):
            _print_folded(pair, 4, 4)
        for axis in stage.axes:
            _print_folded(f"axis {axis.name.removeprefix(stage.name + '.')}: {', '.join(axis.labels)}", 4, 4)
    for axis in recipe.axes:
        print(f"\naxis {axis.name}")
        for label, changes in zip(axis.labels, axis.values, strict=True):
            sets = {name: ", ".join(_pairs(settings)) for name, settings in changes.items() if settings}
            print(f"    {label}{'' if sets else ': the stages as they are'}")
            for name, settings in sets.items():
                _print_folded(f"{name}: {settings}", 8, 4)
    print()
    for line in not_run_lines(recipe.values, recipe.not_run):
        _print_folded(f"not run: {line}", hanging=4)
    print(f"threads of each cell: {recipe.threads}")
