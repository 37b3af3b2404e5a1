"""`trabecula show`: the settings of a verb or objective, a run folder's card, a recipe."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from trabecula.artifacts import run_record
from trabecula.artifacts.run_record import CONFIG_FILE, is_started, run_id
from trabecula.config import WITHOUT_DEFAULT, Record, describe, inline, leaves, read_toml, suggest
from trabecula.errors import InputError
from trabecula.files import read_json
from trabecula.objectives import TABLE, find
from trabecula.recipe import not_run_lines, parse_recipe
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
    """Print what `name` is: a verb, an objective, a run folder or a recipe; an InputError if it is none.

    Of a run folder, `settings` adds the settings and the raw cards.
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
    elif path.with_name(f"{path.name}.toml").is_file():
        raise InputError(f"'{name}': no such file or folder, did you mean '{name}.toml'?")
    elif "/" in name or path.suffix == ".toml":
        near = sorted(other.name for other in path.parent.glob("*") if not other.name.startswith("."))
        meant = suggest(path.name, near)
        meant = meant if "?" in meant or len(near) <= _NEAR else ""
        raise InputError(f"'{name}': no such file or folder{meant}")
    else:
        known = suggest(name, [*VERBS, *TABLE])
        raise InputError(f"'{name}' is no verb, objective, run folder or recipe{known}")


def print_settings(cls: type[Record], name: str) -> None:
    """Each setting as one writes it in TOML or after -s, its type, and below it what it means.

    What a group of settings has in common with an earlier one, two views say, is printed once.
    """
    heading = " ".join((cls.__doc__ or "").split())
    _print_folded(f"{name}: {heading}" if heading else name)
    rows = describe(cls)
    if name in TABLE and rows:
        key, _, default, _ = next((row for row in rows if row[2] not in WITHOUT_DEFAULT), rows[0])
        where = "In a recipe's stage, or with -s, they are keys of pretrain's `settings`"
        _print_folded(f"{where}, for example -s settings.{key}={default}")
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
        _print_styled((key, "bold"), value, (f"  # {comment}", "dim"))
        if first == key:
            _print_folded(meaning, indent=4)


def _print_styled(*parts: str | tuple[str, str]) -> None:
    """One line of texts and (text, style); colours on a terminal only, and no text is taken for markup."""
    console = Console(markup=False, highlight=False, emoji=False)
    console.print(Text.assemble(*parts), soft_wrap=True)


def _print_folded(text: str, indent: int = 0, hanging: int = 0) -> None:
    print("\n".join(_folded(text, indent, hanging)))


def _folded(text: str, indent: int = 0, hanging: int = 0) -> list[str]:
    """Lines no wider than the terminal, nor than the eye follows; a long path stays whole, to be copied.

    All but the first line are indented by `hanging` more.
    """
    width = max(min(shutil.get_terminal_size().columns, _WIDEST), indent + hanging + 24)
    wrapper = textwrap.TextWrapper(
        width, " " * indent, " " * (indent + hanging), break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_FIXED, " ") for line in wrapper.wrap(text.strip())]


def print_run(folder: Path, settings: bool = False) -> None:
    """What a person reads of a run folder, or of a folder that an export or a snapshot left."""
    if (folder / "recipe.toml").exists():
        if (folder / "cells.json").exists():
            print_card(read_study(folder))
        if settings or not (folder / "cells.json").exists():
            print_recipe(folder / "recipe.toml")
        return
    card = read_card(folder)
    if card is None and not is_started(folder):
        runs = [one for one in sorted(folder.glob("*/")) if is_started(one) or (one / "cells.json").exists()]
        which = f"; there are {', '.join(map(str, runs[:_NEAR]))}" if runs else ""
        raise InputError(f"{folder}: is not a run folder; it has no {CONFIG_FILE}{which}")
    run = run_record.read_run(folder) if run_id(folder) else None
    print(folder if run is None else f"{folder}: {run.verb}, id {str(run_id(folder))[:8]}")
    if run is not None:
        summary = run_record.summary_of(folder)
        done = f"{run_record.DONE_FILE}: {summary}"
        _print_folded("not finished; run its command again" if summary is None else done, hanging=4)
    if card is not None:
        print_card(card)
    if card is None or settings:
        _print_raw(folder, run.settings if run else {})
    else:
        print("all settings: trabecula show --settings " + str(folder))


def print_card(card: RunCard) -> None:
    """Lines of what and text, folded to the terminal's width, then the commands, which are not."""
    print()
    for line in _folded(card.title):
        _print_styled((line, "bold"))
    column = max((len(what) for what, _ in card.lines), default=0) + 3
    for what, text in card.lines:
        indent = column + len(text) - len(text.lstrip())
        first, *others = _folded(text, indent) or [""]
        _print_styled((f" {what}".ljust(column), "dim"), first[column:].rstrip())
        for line in others:
            print(line)
    if card.commands:
        print("\n  ".join(["\nnext:", *card.commands]))
    print()


def _print_raw(folder: Path, settings: dict[str, Any]) -> None:
    """Inputs, settings and cards as they are; long lists by their length."""
    for key, paths in run_record.read_provenance(folder).get("inputs", {}).items():
        if paths:
            more = f" and {len(paths) - _LONG} more" if len(paths) > _LONG else ""
            _print_folded(f"{key}: {', '.join(paths[:_LONG])}{more}", hanging=4)
    shown = {"settings": settings} if settings else {}
    for card in sorted(folder.glob("*.json")):
        if card.name not in (CONFIG_FILE, run_record.PROVENANCE_FILE):
            shown[card.name] = _shortened(read_json(card, "the run's own command"))
    for heading, values in shown.items():
        print(f"\n[{heading}]")
        for pair in _pairs(values):
            _print_folded(pair, hanging=4)


def _pairs(values: Any) -> list[str]:
    """`key = value`, dotted as after -s, of what is set; no line ends at the "=", nor in a short value."""
    pairs = [f"{key} = {inline(value)}" for key, value in leaves(values) if value is not None]
    return [pair.replace(" ", _FIXED, 2 if len(pair) > _LONG_PAIR else -1) for pair in pairs]


def _shortened(value: Any, key: str = "") -> Any:
    """Nested tables whole, long lists by their length, of patients' marks only the number."""
    if isinstance(value, dict):
        return {name: _shortened(inner, name) for name, inner in value.items()}
    if isinstance(value, list) and key == "patients":
        return f"{len(value)} marks"
    if isinstance(value, list) and (len(value) > _LONG or any(isinstance(item, dict) for item in value)):
        return f"{len(value)} entries"
    return value


def print_recipe(path: Path) -> None:
    """A recipe's stages with their settings, and its axes with what each of their values sets."""
    recipe = parse_recipe(read_toml(path), str(path))
    for line in _folded(recipe.title or str(path)):
        _print_styled((line, "bold"))
    for stage in recipe.stages.values():
        verb = "" if stage.verb == stage.name else f"  # {stage.verb}"
        _print_styled(f"\nstage {stage.name}", (verb, "dim"))
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
