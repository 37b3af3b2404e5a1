"""`trabecula show`: the settings of a verb or objective, a run folder's card, a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trabecula.config import Record, describe, read_toml, suggest, to_toml
from trabecula.errors import InputError
from trabecula.grid.recipe import parse_recipe
from trabecula.objectives import TABLE, find
from trabecula.reporting.results_card import read_study
from trabecula.reporting.run_card import read_card
from trabecula.reporting.run_folder import RunCard
from trabecula.run import verb_module
from trabecula.verbs import VERBS

_LONG = 6  # entries of a list that are shown


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
        raise InputError(f"'{name}' is no verb, objective, run folder or recipe{suggest(name, known)}")


def print_settings(cls: type[Record], name: str) -> None:
    heading = " ".join((cls.__doc__ or "").split())
    table = Table("key", "type", "default", "meaning", title=f"{name}: {heading}" if heading else name)
    table.columns[0].overflow = table.columns[3].overflow = "fold"
    table.columns[0].no_wrap = True
    for row in describe(cls):
        table.add_row(*(text.replace("[", "\\[") for text in row))
    Console().print(table)


def print_run(folder: Path, settings: bool = False) -> None:
    """What a person reads of a run folder, or of a folder that an export or a snapshot left.

    Args:
        settings: the settings and the raw cards too.

    Raises:
        InputError: it is no run folder.
    """
    if (folder / "recipe.toml").exists():
        if (folder / "cells.json").exists():
            print_card(read_study(folder))
        if settings or not (folder / "cells.json").exists():
            print_recipe(folder / "recipe.toml")
        return
    card = read_card(folder)
    if card is None and not (folder / "config.json").exists():
        raise InputError(f"{folder}: is no run folder; it has no config.json")
    config = _read(folder / "config.json") if (folder / "config.json").exists() else {}
    if "verb" in config:
        done = folder / "DONE"
        print(f"{folder}: {config['verb']}, id {str(config.get('id', ''))[:8]}")
        print("DONE: " + done.read_text().strip() if done.exists() else "not finished; run its command again")
    else:
        print(folder)
    if card is not None:
        print_card(card)
    if card is None or settings:
        _print_raw(folder, config)
    else:
        print("all settings: trabecula show --settings " + str(folder))


def print_card(card: RunCard) -> None:
    """Lines of what and text, folded to the terminal's width, then the commands, which are not."""
    console = Console()
    title = Text(card.title)
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for what, text in card.lines:
        table.add_row(Text(what), Text(text))
    console.print()
    console.print(table)
    if card.commands:
        print("\nnext:")
        for command in card.commands:
            print(f"  {command}")
    print()


def _print_raw(folder: Path, config: dict[str, Any]) -> None:
    """Inputs, settings and cards as they are; long lists by their length."""
    provenance = folder / "provenance.json"
    if provenance.exists():
        for key, paths in _read(provenance).get("inputs", {}).items():
            print(f"{key}: {', '.join(paths) or 'not set'}")
    if config.get("settings"):
        print("\n[settings]\n" + to_toml(config["settings"], "settings.").strip())
    for card in sorted(folder.glob("*.json")):
        if card.name in ("config.json", "provenance.json"):
            continue
        values = _read(card)
        if isinstance(values, dict):
            print(f"\n[{card.name}]\n" + to_toml(_shortened(_unmarked(values)), f"{card.name}.").strip())


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def _unmarked(value: Any) -> Any:
    """Without patients' marks: how many there are is told."""
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
    """A recipe's stages with their settings, and its axes."""
    recipe = parse_recipe(read_toml(path), str(path))
    table = Table("stage", "verb", "settings", "axes", title=recipe.title or str(path))
    for stage in recipe.stages.values():
        axes = "\n".join(f"{axis.key}: {', '.join(axis.labels)}" for axis in stage.axes)
        cells = (stage.name, stage.verb, to_toml(stage.values).strip(), axes)
        table.add_row(*(text.replace("[", "\\[") for text in cells))
    Console().print(table)
    for axis in recipe.axes:
        print(f"axis {axis.name}: {', '.join(axis.labels)}")
    for label, reason in recipe.not_run.items():
        print(f"not run: {label}: {reason}")
    print(f"threads of each cell: {recipe.threads}")
