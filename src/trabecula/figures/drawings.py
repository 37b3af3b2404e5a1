"""The page's figures as SVG files of their own: title, legend and plain colours, for a paper or a slide."""

from __future__ import annotations

import base64
import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from trabecula.figures.plots import WIDTH, Figure, Group

_TITLE, _ROW = 38, 16  # px above the plot under a title of one line; px of one legend row
_TITLE_LETTERS = 42  # a line of the title, which is bold
_NOTE_LETTERS = 54  # a line of the note


def style_sheet(name: str) -> str:
    return (
        resources.files("trabecula.figures" if name == "figure.css" else "trabecula.sections") / name
    ).read_text(encoding="utf-8")


def png_uri(data: bytes) -> str:
    """A PNG file as a data URI, to stand in a page."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def figure_files(drawn: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, str]:
    """File name -> SVG of every panel; `names` is what arms are called."""
    rules = style_sheet("figure.css")
    files: dict[str, str] = {}
    for figures in drawn:
        for kind in ("learning", "snapshots", "roc", "reliability"):
            for group in figures.get(kind, ()):
                for figure in group.figures:
                    name = _free(f"{kind}-{_slug(group.title)}-{_slug(figure.title)}", files)
                    files[f"{name}.svg"] = _standalone(group, figure, names, rules)
    return files


def _standalone(group: Group, figure: Figure, names: Mapping[str, str], rules: str) -> str:
    legend = [(names[arm.name], arm.style) for arm in figure.arms]
    return standalone(group.title, figure.title, figure.svg, legend, rules=rules)


def standalone(
    heading: str,
    title: str,
    svg: str,
    legend: Sequence[tuple[str, str]],
    note: str = "",
    rules: str = "",
) -> str:
    """A figure with its headings, legend (name, style) and note in one SVG file.

    Variables of the style sheet are written out: few programs but browsers know them.
    """
    found = re.search(r'viewBox="0 0 \d+ (\d+)"[^>]*aria-label="([^"]*)">(.*)</svg>', svg, re.S)
    if not found:
        raise ValueError("a figure without a viewBox")
    height, label, body = int(found[1]), found[2], found[3]
    lines = textwrap.wrap(note, _NOTE_LETTERS)
    titles = textwrap.wrap(title, _TITLE_LETTERS)
    top = _TITLE + 14 * (len(titles) - 1)
    below = top + height + _ROW * len(legend) + 6
    total = below + (_ROW * len(lines) + 4 if lines else 0)
    styles = [style for _, style in legend] + re.findall(r"\barm-\w+", body)
    sheet = plain_rules(rules or style_sheet("figure.css"), styles)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" width="{WIDTH}" height="{total}" '
        f'viewBox="0 0 {WIDTH} {total}" role="img" aria-label="{label}">',
        f"<style>{sheet}</style>",
        f'<text x="4" y="14">{escape(heading)}</text>',
        *(
            f'<text x="4" y="{29 + 14 * i}" style="font-weight:bold">{escape(line)}</text>'
            for i, line in enumerate(titles)
        ),
        f'<g transform="translate(0 {top})">{body}</g>',
    ]
    for i, (name, style) in enumerate(legend):
        y = top + height + _ROW * i + 6
        parts.append(f'<path class="line {style}" d="M46 {y}h26"/>')
        parts.append(f'<circle class="mark {style}" cx="59" cy="{y}" r="3.2"/>')
        parts.append(f'<text x="79" y="{y + 4}">{escape(name)}</text>')
    for i, line in enumerate(lines):
        parts.append(f'<text x="4" y="{below + _ROW * i + 10}">{escape(line)}</text>')
    return "".join([*parts, "</svg>\n"])


def plain_rules(sheet: str, styles: Sequence[str]) -> str:
    """The sheet's rules for these arms, with light colours in place of variables."""
    values = dict(re.findall(r"--(\w+): (#\w+)", sheet))
    arms = {
        name: dict(re.findall(r"--(c|dash): ([^;]+);", body))
        for name, body in re.findall(r"\.(arm-\w+) \{([^}]*)\}", sheet)
    }
    rules = []
    for selector, body in re.findall(r"^\.((?!arm-)[\w ]+) \{([^}]*)\}", sheet, re.M):
        if "var(--c)" not in body:
            rules.append(f".{selector}{{{body}}}")
            continue
        for style in dict.fromkeys(styles):
            own = body.replace("var(--c)", arms[style]["c"])
            own = own.replace("var(--dash, none)", arms[style].get("dash", "none"))
            rules.append(f".{selector}.{style}{{{own}}}")
    return re.sub(r"var\(--(\w+)\)", lambda m: values[m[1]], "".join(rules))


def free_name(title: str, taken: Mapping[str, str]) -> str:
    """A file's name without its ending, made of a title, that is not taken yet."""
    return _free(_slug(title), taken)


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def _free(name: str, taken: Mapping[str, str]) -> str:
    number, free = 2, name
    while f"{free}.svg" in taken:
        free, number = f"{name}-{number}", number + 1
    return free
