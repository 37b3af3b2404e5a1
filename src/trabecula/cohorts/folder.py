"""A folder of images, with what their paths and a table say of them.

A pattern is matched against each file's path below the root, written with '/':

    {name}      the shortest run of characters without '/'; becomes a column
    {name:7}    exactly seven characters
    *  **       any run without '/'; any run at all ("**/" also none)

so `{part}/{kl}/{patient_id:7}{side:1}.png` reads `train/3/1234567R.png`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from trabecula.artifacts.manifest import MISSING_FILE, SKIPPED_FILE
from trabecula.artifacts.rules import rows_have
from trabecula.cohorts import CohortSettings, FoundImages, joining
from trabecula.cohorts.joining import composed, without_suffix
from trabecula.config import suggest
from trabecula.errors import InputError
from trabecula.patient_ids import canonical, check_spellings, in_scientific_notation, rounded
from trabecula.spreadsheet import Sheet, read_sheet, row_numbers

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm"}
_KNOWN_AS = {
    "patient_id": ("patient_id", "patientid", "patient id", "patient", "subject_id", "subject"),
    "side": ("side", "laterality"),
    "image_id": ("image_id", "imageid", "image id"),
    "path": (
        "path", "file", "filename", "file_name", "file name", "image_path", "file_path", "image",
        "image index",
    ),
}  # fmt: skip
_SIDES = {
    "": "",
    **dict.fromkeys(("l", "left", "lt", "li", "links", "gauche", "izquierda", "izquierdo"), "L"),
    **dict.fromkeys(("r", "right", "rt", "re", "rechts", "droite", "droit", "derecha", "derecho"), "R"),
}
_WORDS = {"path": "file name"}
_FILE = "\0file"  # a column name no table has: the file's path below the root


class Folder(CohortSettings):
    """Any folder of images, with what their paths and a table say of them."""

    table: Path | None = None
    """A table (CSV, TSV or .xlsx) with a row per image, or per patient and side."""
    pattern: str = ""
    """What the paths below root say, such as `{part}/{kl}/{patient_id:7}{side:1}.png`."""
    columns: dict[str, str] = {}
    """The table's own column names by the manifest's: `columns.patient_id="ID"`, `columns.path="File"`. Of a
    table without a header their numbers from 1: `columns.path=2`."""

    def find_images(self) -> FoundImages:
        """The folder's images, with or without a pattern and a table; see the base class."""
        root, pattern = self.root, self.pattern
        if not root.is_dir():
            raise InputError(f"{root}: {'is a file, not a folder' if root.exists() else 'no such folder'}")
        files = list_files(root)
        if not files:
            raise InputError(f"{root}: holds no file; --root is the folder of the images")
        images, skipped = _match(root, files, pattern) if pattern else _by_folder(root, files)
        if pattern and "side" in images.columns:
            images["side"] = _sides_of_paths(images)
        found = FoundImages(images, skipped=skipped)
        _once(found, root)
        if skipped and pattern:
            found.notes.append(f"{len(skipped)} files do not match the pattern ({SKIPPED_FILE})")
        if self.table is not None:
            _join(found, self.table, self.columns, self.spellings_differ)
        _finish(found, root, alone=not pattern)
        return found


def list_files(root: Path) -> list[str]:
    """Every file below the root, hidden ones left out, as a sorted path with '/'.

    Linked folders are followed, but for those that lead back to a folder above.

    Raises:
        InputError: a folder that cannot be read.
    """
    return sorted(_files_below(root, "", (os.path.realpath(root),)))


def _files_below(folder: Path, before: str, above: tuple[str, ...]) -> Iterator[str]:
    """before: the folder's path below the root. above: the real paths of it and the folders above it."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except PermissionError:
        raise InputError(f"{folder}: the folder cannot be read; ask for the right to read it") from None
    for entry in found:
        if not entry.is_dir():
            yield before + entry.name
            continue
        real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
        if not any(one == real or one.startswith(real.rstrip(os.sep) + os.sep) for one in above):
            yield from _files_below(Path(entry.path), f"{before}{entry.name}/", (*above, real))


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A path pattern as a regular expression.

    Raises:
        InputError: an unbalanced brace, a wrong name, or one used twice.
    """
    parts, names = [], []
    for piece in re.split(r"(\{[^{}]*\}|\*\*/|\*\*|\*)", pattern):
        name = re.fullmatch(r"\{([A-Za-z_]\w*)(?::(\d+))?\}", piece)
        if name:
            names.append(name[1])
            parts.append(f"(?P<{name[1]}>[^/]{{{name[2]}}})" if name[2] else f"(?P<{name[1]}>[^/]+?)")
        elif piece in ("**/", "**", "*"):
            parts.append({"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}[piece])
        elif "{" in piece or "}" in piece:
            raise InputError(f"pattern '{pattern}': '{piece}' is not a {{name}} or {{name:length}}")
        else:
            parts.append(re.escape(piece))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"pattern '{pattern}': {{{twice[0]}}} is in it twice")
    return re.compile(composed("".join(parts)), re.S)


def _match(root: Path, files: list[str], pattern: str) -> tuple[pd.DataFrame, list[str]]:
    expression = compile_pattern(pattern)
    matches = [(file, expression.fullmatch(composed(file))) for file in files]
    rows = [{_FILE: file, **match.groupdict()} for file, match in matches if match]
    if not rows:
        raise InputError(f"{root}: no file matches the pattern '{pattern}'; {_first(files, pattern)}")
    taken = {"path", _FILE} & set(expression.groupindex)
    if taken:
        raise InputError(f"pattern '{pattern}': {{path}} is the file itself; choose another name")
    return pd.DataFrame(rows, dtype="str"), [file for file, match in matches if not match]


def _first(files: list[str], pattern: str) -> str:
    """The file that a pattern without a match should have matched."""
    images = [file for file in files if Path(file).suffix.lower() in IMAGE_SUFFIXES]
    first = (images or files)[0]
    deeper = first.count("/") > pattern.count("/") and "**" not in pattern
    hint = "; the files are in folders: begin the pattern with **/" if deeper else ""
    return f"the first {'image' if images else 'file'} is '{first}'{hint}"


def _by_folder(root: Path, files: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Image files by their suffix; where all lie one folder deep, the folder is the label."""
    images = [file for file in files if Path(file).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise InputError(
            f"{root}: holds no image file ({', '.join(sorted(IMAGE_SUFFIXES))}); for files of "
            "other names give a pattern"
        )
    table = pd.DataFrame({_FILE: images}, dtype="str")
    if all(file.count("/") == 1 for file in images):
        table["label"] = [file.split("/")[0] for file in images]
    return table, [file for file in files if file not in set(images)]


def _join(found: FoundImages, path: Path, columns: Mapping[str, str], differ: bool) -> None:
    """Put the table's columns beside the images; `differ`: ids are compared as they are written."""
    sheet = _read(path, columns)
    table, known = _named(sheet, columns), list(sheet.table.columns)  # the names as the file has them
    found.notes += sheet.notes
    if not len(table):
        raise InputError(f"{sheet.name}: holds no row, only a header")
    if "side" in table.columns:
        table["side"] = sides(table["side"], sheet.name, sheet.rows)
    if "patient_id" not in table.columns and "patient_id" not in found.table.columns:
        raise InputError(
            f"{sheet.name}: no column 'patient_id' (columns: {', '.join(known)}){_likely(known)}; name it "
            "with -s columns.patient_id=COLUMN"
        )
    match = _match_rows(found.table, table, sheet, differ)
    hint = ""
    if match.key == "patient_id" and "side" not in table.columns:
        hint = "; if each row is of one side, name the column that says it with -s columns.side=COLUMN "
        hint += f"(columns: {', '.join(known)})"
    table, merged = joining.one_row_an_image(match, table, sheet, hint)
    found.notes += [note for note in (match.note, merged) if note]
    if "patient_id" in table.columns and not differ:
        found.notes += _check_ids(table["patient_id"].tolist(), sheet)
    if max(match.rows) < 0:
        images, rows = match.of_images, match.of_table
        raise InputError(
            f"{sheet.name}: no row belongs to an image; by {_WORDS.get(match.key, match.key)} the images are "
            f"called '{images[0]}', the rows '{rows[0]}'{_zeros(images, rows)}"
        )
    found.missing = [(sheet.rows[row], match.of_table[row]) for row in match.without_image]
    joining.take(
        found, table.drop(columns=["path"], errors="ignore"), match, sheet, found.table[_FILE].tolist()
    )
    patients = found.table["patient_id"]  # those without are left out, with a note, later
    alone = sum(row < 0 and patient != "" for row, patient in zip(match.rows, patients, strict=True))
    if alone:
        found.notes.append(f"{alone} images have no row in the table and stay unlabelled")
    if found.missing:
        found.notes.append(f"{len(found.missing)} rows of the table have no file ({MISSING_FILE})")


def _read(path: Path, columns: Mapping[str, str]) -> Sheet:
    """The table; where `columns` gives numbers that are no names in its first row, that row is data."""
    if not columns or not all(given.isdecimal() for given in columns.values()):
        return read_sheet(path)
    whole = read_sheet(path, header=False)
    first = set(whole.table.iloc[0])
    return read_sheet(path) if set(columns.values()) <= first else whole


def _check_ids(ids: list[str], sheet: Sheet) -> list[str]:
    """Refuse ids of one patient in several spellings, or rounded ones in several rows; notes on others."""
    check_spellings(ids, [f"row {row}" for row in sheet.rows], sheet.name)
    shown = {patient: [] for patient in ids if in_scientific_notation(patient)}  # type: dict[str, list[int]]
    for row, patient in zip(sheet.rows, ids, strict=True):
        if patient in shown:
            shown[patient].append(row)
    how = (
        "a spreadsheet program rounds long numbers so; show the column as whole numbers there and save again"
    )
    for patient, rows in shown.items():
        if rounded(patient) and len(rows) > 1:
            numbers = row_numbers(rows)
            raise InputError(
                f"{sheet.name}: {numbers} the patient id '{patient}', in scientific notation and rounded: "
                f"they may be several patients; {how}"
            )
    if not shown:
        return []
    patient, rows = next(iter(shown.items()))
    many = f" and {len(shown) - 1} more are" if len(shown) > 1 else " is"
    return [f"patient id '{patient}' (row {rows[0]}){many} in scientific notation: {how}"]


def _named(sheet: Sheet, columns: Mapping[str, str]) -> pd.DataFrame:
    """The table under the manifest's column names."""
    known = [str(name) for name in sheet.table.columns]
    for wanted, given in columns.items():
        if given not in known:
            raise InputError(f"{sheet.name}: no column '{given}' (for {wanted}){suggest(given, known)}")
    renamed = {given: wanted for wanted, given in columns.items()}
    lower = {name.lower(): name for name in reversed(known)}
    for wanted, words in _KNOWN_AS.items():
        hits = [lower[word] for word in words if word in lower and lower[word] not in renamed]
        if wanted not in columns and hits:
            renamed[hits[0]] = wanted
    result = sheet.table.rename(columns=renamed)
    names = [str(name) for name in result.columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{sheet.name}: two columns would be called '{twice[0]}'; see the setting 'columns'")
    return result


def _likely(known: list[str]) -> str:
    guess = [name for name in known if re.search(r"pat(?!h)|subj|case|(^|_| )id$|pseudonym", name.lower())]
    return f", perhaps '{guess[0]}'" if guess else ""


def _zeros(of_images: list[str], of_table: list[str]) -> str:
    bare = {value.lstrip("0") for value in of_images}
    if any(value.lstrip("0") in bare for value in of_table):
        return "; they agree but for leading zeros: save the table with its ids as text"
    return ""


def _match_rows(images: pd.DataFrame, table: pd.DataFrame, sheet: Sheet, differ: bool) -> joining.Match:
    """Which row belongs to which image."""
    files = images[_FILE].tolist()
    if "path" in table.columns:
        return joining.by_path("path", files, table["path"].tolist(), sheet.name)
    if "image_id" in table.columns and "image_id" not in images.columns:
        return joining.by_path("image_id", files, table["image_id"].tolist(), sheet.name)
    shared = [name for name in ("patient_id", "side") if name in images.columns and name in table.columns]
    keys = ["image_id"] if "image_id" in table.columns else shared
    if keys and keys != ["side"]:
        of_images, of_table = ([*part[keys].itertuples(index=False, name=None)] for part in (images, table))
        form = canonical if keys == shared and not differ else composed
        return joining.by_value("+".join(keys), of_images, of_table, form)
    names = [str(name) for name in table.columns]
    good = [name for name in names if joining.names_files(files, table[name].tolist())]
    name = good[0] if good else "COLUMN"
    raise InputError(
        f"{sheet.name}: nothing says which row belongs to which image; name the column of file names with "
        f"-s columns.path={name}, or give a pattern with {{patient_id}}"
    )


def sides(cells: pd.Series[str], where: str, rows: Sequence[int] = ()) -> list[str]:
    """ "Right", "R", "1: Right", "left knee", "rechts", "gauche" ... as R and L; "" stays.

    Raises:
        InputError: another word, or a bare digit, whose meaning differs between data sets.
    """
    result = [_side(str(cell)) for cell in cells]
    bad = [row for row, side in enumerate(result) if side is None]
    if bad:
        values = ", ".join(repr(value) for value in sorted({str(cells.iloc[row]) for row in bad})[:5])
        raise InputError(
            f"{where}: {rows_have(bad, rows)} a side that is neither left nor right "
            f"({values}); write L or R (a bare 1 or 2 means different sides in different data sets)"
        )
    return [side or "" for side in result]


def _sides_of_paths(table: pd.DataFrame) -> list[str]:
    for file, cell in zip(table[_FILE], table["side"], strict=True):
        if _side(cell) is None:
            what = f"a side that is neither left nor right ('{cell}')"
            raise InputError(f"the path of '{file}' gives {what}; check the pattern")
    return [_side(cell) or "" for cell in table["side"]]


def _side(cell: str) -> str | None:
    word = re.sub(r"^\d+\s*[:=-]\s*", "", cell.strip().lower()).split(" ")[0].strip(".")
    return _SIDES.get(word)


def _finish(found: FoundImages, root: Path, alone: bool) -> None:
    """Patient ids, sides, image ids and paths for every image."""
    table = found.table
    files = table[_FILE].tolist()
    if "patient_id" not in table.columns:
        if not alone:
            raise InputError("the pattern gives no {patient_id}, and no table does: patients must be known")
        stems = [without_suffix(Path(composed(file)).name) for file in files]
        # equal names in two folders count as two patients
        table["patient_id"] = stems if len(set(stems)) == len(stems) else _image_names(files)
        found.notes.append(
            "no patient ids: each image counts as its own patient; give a pattern if that is wrong"
        )
    nameless = table["patient_id"] == ""
    if nameless.any():
        found.notes.append(f"{int(nameless.sum())} images of no known patient are left out ({SKIPPED_FILE})")
        found.skipped += [file for file, drop in zip(files, nameless, strict=True) if drop]
        found.keep(~nameless.to_numpy())
        table, files = found.table, found.table[_FILE].tolist()
    if "image_id" not in table.columns or (table["image_id"] == "").any():
        table["image_id"] = _image_ids(table, files)
    table["path"] = [str(root / file) for file in files]
    del table[_FILE]


def _once(found: FoundImages, root: Path) -> None:
    """Of a file that links give several paths keep the first.

    Raises:
        InputError: the paths of one file say different things.
    """
    table = found.table
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, file in enumerate(table[_FILE]):
        rows_of[os.path.realpath(root / file)].append(row)
    again = [rows for rows in rows_of.values() if len(rows) > 1]
    if not again:
        return
    said = [name for name in table.columns if name != _FILE]
    for rows in again:
        for name in said:
            values = list(dict.fromkeys(table[name].iloc[rows]))
            if len(values) > 1:
                cells = table[name].iloc[rows].tolist()
                first, second = (table[_FILE].iloc[rows[cells.index(value)]] for value in values[:2])
                raise InputError(
                    f"{root}: '{first}' and '{second}' are one file (by a link), and their paths say {name} "
                    f"'{values[0]}' and '{values[1]}'; remove a link, or give a pattern that only one matches"
                )
    first, second = (table[_FILE].iloc[row] for row in again[0][:2])
    found.notes.append(
        f"{sum(map(len, again)) - len(again)} paths are links to files that are there already, and are not "
        f"counted ('{second}' is '{first}')"
    )
    extra = {row for rows in again for row in rows[1:]}
    found.table = table[[row not in extra for row in range(len(table))]].reset_index(drop=True)


def _image_ids(table: pd.DataFrame, files: list[str]) -> list[str]:
    """patient+side, with month and view where images need them to differ, else the path."""
    ids = table["patient_id"] + (table["side"] if "side" in table.columns else "")
    for name in ("visit_month", "view"):
        if name in table.columns and not ids.is_unique:
            ids = ids + "_" + table[name]
    return [str(value) for value in ids] if ids.is_unique else _image_names(files)


def _image_names(files: list[str]) -> list[str]:
    """Paths without their endings; with them where two files differ in nothing else."""
    bare = [without_suffix(composed(file)) for file in files]
    return bare if len(set(bare)) == len(bare) else [composed(file) for file in files]
