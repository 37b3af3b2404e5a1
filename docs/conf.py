"""Sphinx configuration; the settings pages are generated from the code's own docstrings."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

from trabecula import __version__
from trabecula.config import Record, describe
from trabecula.objectives import TABLE, find
from trabecula.verbs import VERBS

project = "Trabecula"
release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"Trabecula {__version__}"
exclude_patterns = ["_build"]


def page(title: str, text: str, settings: type[Record]) -> str:
    """A generated page: the module's docstring and the table of settings."""
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for key, kind, default, meaning in describe(settings):
        cells = (f"`{key}`", kind, f"`{default}`", meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return f"# {title}\n\n{inspect.cleandoc(text)}\n\n" + "\n".join(rows) + "\n"


def generate(folder: Path) -> None:
    """Write a page for each objective and each verb."""
    folder.mkdir(exist_ok=True)
    for name in TABLE:
        method = find(name)
        text = sys.modules[method.__module__].__doc__ or ""
        (folder / f"{name}.md").write_text(page(name, text, method.Config))
    for verb in VERBS:
        module = importlib.import_module(f"trabecula.{verb}")
        text = f"```text\n{(module.__doc__ or '').strip()}\n```"
        (folder / f"verb-{verb}.md").write_text(page(f"trabecula {verb}", text, module.Config))


generate(Path(__file__).parent / "methods")
