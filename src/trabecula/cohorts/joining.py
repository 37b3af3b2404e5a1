"""Which row of a table belongs to which image: by path, by image id or by patient.

Paths are compared from their ends, because tables are written on other machines: `D:\\study\\a\\7.dcm` in a
table is the image `a/7.png` below the root, if it is the only one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from trabecula.artifacts.label_values import same
from trabecula.artifacts.manifest import Origin
from trabecula.cohorts import FoundImages
from trabecula.errors import InputError
from trabecula.patient_ids import canonical, check_spellings
from trabecula.spreadsheet import IMAGE_SUFFIX, Sheet

Parts = tuple[str, ...]
_OF_BOX = re.compile(
    r"b(ounding)?[ _-]?box.+|bbox|[xywh]\]?|[xy][ _-]?(min|max|center|c|[012])|(box[ _-])?(width|height)|"
    r"left|top|right|bottom"
)  # columns of a box in an image; the manifest's own `box` and `page` are others


@dataclass(frozen=True)
class Match:
    """How images and rows were joined.

    `key`: by what. `of_images`, `of_table`: what each image and row says of it. `rows`: of each image its
    row, -1 if it has none. `places`: of each row its image, -1 if there is none. `note`: what to say of it.
    """

    key: str
    of_images: list[str]
    of_table: list[str]
    rows: list[int]
    places: list[int]
    note: str = ""

    @property
    def without_image(self) -> list[int]:
        """The rows that belong to no image."""
        return [row for row, place in enumerate(self.places) if place < 0]


def composed(text: str) -> str:
    """Text with composed letters (NFC): macOS and some archives take "é" apart in the names of files."""
    return unicodedata.normalize("NFC", text)


def without_suffix(path: str) -> str:
    """A path without the ending of an image; other text behind a dot belongs to the name."""
    return IMAGE_SUFFIX.sub("", path)


def by_value(
    key: str,
    of_images: Sequence[tuple[str, ...]],
    of_table: Sequence[tuple[str, ...]],
    form: Callable[[str], str] = composed,
) -> Match:
    """Join by values that images and rows have, the first compared in a `form`; images may share a row."""
    images = [(form(first), *others) for first, *others in of_images]
    rows = [(form(first), *others) for first, *others in of_table]
    place = {value: image for image, value in reversed([*enumerate(images)])}
    row_of = {value: row for row, value in reversed([*enumerate(rows)])}
    found = [row_of.get(value, -1) for value in images]
    pairs = [(of_table[row][0], ours[0]) for row, ours in zip(found, of_images, strict=True) if row >= 0]
    other = [(theirs, ours) for theirs, ours in pairs if composed(theirs) != composed(ours)]
    note = ""
    if other:
        note = f"{len(other)} images are joined by another spelling of {key.split('+')[0]} "
        note += f"('{other[0][0]}' in the table is '{other[0][1]}')"
    said = [[" ".join(value) for value in values] for values in (of_images, of_table)]
    return Match(key, said[0], said[1], found, [place.get(value, -1) for value in rows], note)


def by_path(key: str, files: list[str], cells: list[str], table: str) -> Match:
    """Join by the files that a table names, by the way of writing under which most rows have an image.

    files: paths below the root. cells: the table's. table: its name in messages.

    Raises:
        InputError: the table names files without their folders, and several have the name.
    """
    ways: tuple[tuple[str, Callable[[str], str], bool], ...] = (
        ("", str, False),
        ("by the ends of their paths", str, True),
        ("without the endings of their names", without_suffix, False),
        ("by the ends of their paths, without endings", without_suffix, True),
        ("by the ends of their paths, without endings and capitals", _small, True),
    )
    places, note = [-1] * len(cells), ""
    shared: tuple[int, int] | None = None
    for how, form, ends in ways:
        images = [_parts(form(composed(file))) for file in files]
        rows = [_parts(form(_clean(cell))) for cell in cells]
        found, unclear = _by_ends(images, rows) if ends else (_by_whole(images, rows), None)
        if form is str or not _joined(places):
            shared = shared or unclear
        if _joined(found) > _joined(places):
            places, note = found, how
    if shared and min(places) < 0:
        one, other = (files[image] for image in shared)
        raise InputError(
            f"{table}: names files without their folders, but '{one}' and '{other}' share a name; "
            "write the path below the root in the table"
        )
    row_of = [-1] * len(files)
    for row, image in enumerate(places):
        if image >= 0 and row_of[image] < 0:
            row_of[image] = row
    return Match(key, files, cells, row_of, places, _said(note, places, files, cells))


def names_files(files: list[str], cells: list[str]) -> bool:
    """Whether most cells of a column name an image."""
    names = set().union(*(_plain_names(composed(file)) for file in files))
    return 2 * sum(_clean(cell) in names for cell in cells) > len(cells)


def _said(how: str, places: Sequence[int], files: Sequence[str], cells: Sequence[str]) -> str:
    """The note on paths of a table that are not written as the files' are."""
    pairs = [(cell, files[image]) for cell, image in zip(cells, places, strict=True) if image >= 0]
    other = [(cell, file) for cell, file in pairs if _clean(cell) not in _plain_names(composed(file))]
    if not how or not other:
        return ""
    return f"{len(other)} rows are joined to images {how} ('{other[0][0]}' is '{other[0][1]}')"


def _plain_names(file: str) -> set[str]:
    """What a table usually calls a file: its path or its name, with the ending or without."""
    name = file.rsplit("/", 1)[-1]
    return {file, name, without_suffix(file), without_suffix(name)}


def _joined(places: Sequence[int]) -> int:
    return len(set(places) - {-1})


def _small(path: str) -> str:
    return without_suffix(path).casefold()


def _clean(cell: str) -> str:
    """A path of a table with '/', without './' before it."""
    return composed(cell).replace("\\", "/").removeprefix("./")


def _parts(path: str) -> Parts:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _by_whole(images: Sequence[Parts], rows: Sequence[Parts]) -> list[int]:
    """Rows that name the whole path below the root, unless two images have it."""
    count = Counter(images)
    place = {parts: image for image, parts in enumerate(images) if count[parts] == 1}
    return [place.get(parts, -1) for parts in rows]


def _by_ends(images: Sequence[Parts], rows: Sequence[Parts]) -> tuple[list[int], tuple[int, int] | None]:
    """The image of each row by the longest common end of their paths, and two images that share an end.

    Only where one path is the end of the other. If that holds for no row at all, the folders have other
    names: then any longest common end will do that one row and one image alone have.
    """
    ends: dict[Parts, list[int]] = defaultdict(list)
    for image, parts in enumerate(images):
        for start in range(len(parts)):
            ends[parts[start:]].append(image)
    found, loose = [-1] * len(rows), [-1] * len(rows)
    used: Counter[Parts] = Counter()
    longest: list[Parts] = []
    unclear = None
    for row, parts in enumerate(rows):
        start = next((start for start in range(len(parts)) if parts[start:] in ends), len(parts))
        end = parts[start:]
        some = ends.get(end, [])
        whole = [image for image in some if images[image] == end]
        longest.append(end)
        used[end] += 1
        if start and not whole:  # both paths go on, with other folders
            loose[row] = some[0] if len(some) == 1 else -1
        elif len(whole or some) == 1:
            found[row] = (whole or some)[0]
        elif some:
            unclear = unclear or (some[0], some[1])
    if not _joined(found):
        return [image if used[end] == 1 else -1 for image, end in zip(loose, longest, strict=True)], unclear
    exact = {image for image, parts in zip(found, rows, strict=True) if image >= 0 and images[image] == parts}
    keep = [image not in exact or images[image] == parts for image, parts in zip(found, rows, strict=True)]
    return [image if kept else -1 for image, kept in zip(found, keep, strict=True)], unclear


def one_row_an_image(match: Match, table: pd.DataFrame, sheet: Sheet, hint: str) -> tuple[pd.DataFrame, str]:
    """The table without the columns in which several rows of one image may differ, of boxes, and a note.

    hint: the tail of the message where they differ in others.

    Raises:
        InputError: they differ in other columns; with the rows and these columns.
    """
    rows_of: dict[object, list[int]] = defaultdict(list)
    for row, (place, value) in enumerate(zip(match.places, match.of_table, strict=True)):
        rows_of[place if place >= 0 else composed(value)].append(row)
    several = [rows for rows in rows_of.values() if len(rows) > 1]
    boxes: set[str] = set()
    for rows in several:
        names = [
            str(name) for name in table.columns if name != "path" and table[name].iloc[rows].nunique() > 1
        ]
        others = [name for name in names if not _OF_BOX.fullmatch(name.casefold())]
        if others:
            raise _differ(rows, others, match, table, sheet, hint, len(several) - 1)
        boxes |= set(names)
    if not several:
        return table, ""
    parts = [name for name in map(str, table.columns) if _OF_BOX.fullmatch(name.casefold())] if boxes else []
    left = f" but for their boxes ({', '.join(parts)}), which are left out" if boxes else ""
    note = f"{len(several)} images have several rows that agree{left}; each image is taken once"
    return table.drop(columns=parts), note


def _differ(
    rows: list[int], names: list[str], match: Match, table: pd.DataFrame, sheet: Sheet, hint: str, more: int
) -> InputError:
    """The error on rows of one image that say different things."""
    value = match.of_table[rows[0]]
    if "patient_id" in names and len(set(map(canonical, table["patient_id"].iloc[rows]))) == 1:
        places = [f"row {sheet.rows[row]}" for row in rows]
        check_spellings(table["patient_id"].iloc[rows].tolist(), places, sheet.name)
    many = f" (and {more} more)" if more else ""
    cells = list(dict.fromkeys(table[names[0]].iloc[rows]))
    said = (
        f"they differ in '{names[0]}' ({', '.join(map(repr, cells[:3]))}{' ...' if len(cells) > 3 else ''})"
    )
    remedy = (
        "the table needs one row an image: write several findings into one cell, such as A|B, or into a "
        "column for each"
    )
    numbers_said = ", ".join(str(sheet.rows[row]) for row in rows)
    return InputError(
        f"{sheet.name}: {match.key} '{value}' is in rows {numbers_said}{many}{hint}; {said}; {remedy}"
    )


def take(found: FoundImages, table: pd.DataFrame, match: Match, sheet: Sheet, files: list[str]) -> None:
    """Put the columns of the table beside the images, and where they came from.

    Raises:
        InputError: the path of an image says another thing than its row.
    """
    new = []
    for name in map(str, table.columns):
        cells = table[name].tolist()
        values = [cells[row] if row >= 0 else "" for row in match.rows]
        if name not in found.table.columns:
            found.table[name] = pd.Series(values, dtype="str")
            new.append(name)
            continue
        equal = _one_patient if name == "patient_id" else same
        for row, file, old, value in zip(match.rows, files, found.table[name], values, strict=True):
            if value and not equal(value, old):
                where = f"the path of '{file}' says '{old}'"
                raise InputError(f"{sheet.name}: row {sheet.rows[row]} says {name} '{value}', {where}")
    rows = tuple(sheet.rows[row] if row >= 0 else 0 for row in match.rows)
    found.origin = Origin(sheet.name, rows, frozenset(new))


def _one_patient(one: str, other: str) -> bool:
    return canonical(one) == canonical(other)
