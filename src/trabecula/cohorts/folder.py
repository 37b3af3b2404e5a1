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
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from trabecula.artifacts.manifest import MISSING_FILE, SKIPPED_FILE
from trabecula.cohorts import CohortSettings, FoundImages
from trabecula.config import suggest
from trabecula.errors import InputError
from trabecula.spreadsheet import read_table, row_numbers

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
_FILE = "\0file"  # a column name no table has: the file's path below the root


class Folder(CohortSettings):
    """Any folder of images, with what their paths and a table say of them."""

    table: Path | None = None
    """A table (CSV, TSV or .xlsx) with a row per image, or per patient and side."""
    pattern: str = ""
    """What the paths below root say, such as `{part}/{kl}/{patient_id:7}{side:1}.png`."""
    columns: dict[str, str] = {}
    """The table's own column names by the manifest's: `columns.patient_id="ID"`, `columns.path="File"`."""

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
        if skipped and pattern:
            found.notes.append(f"{len(skipped)} files do not match the pattern ({SKIPPED_FILE})")
        if self.table is not None:
            _join(found, self.table, self.columns)
        _finish(found, root, alone=not pattern)
        return found


def list_files(root: Path) -> list[str]:
    """Every file below the root, hidden ones left out, as a sorted path with '/'."""
    files = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        files += [(below / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(files)


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
    return re.compile("".join(parts), re.S)


def _match(root: Path, files: list[str], pattern: str) -> tuple[pd.DataFrame, list[str]]:
    expression = compile_pattern(pattern)
    matches = [(file, expression.fullmatch(file)) for file in files]
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


def _join(found: FoundImages, path: Path, columns: Mapping[str, str]) -> None:
    """Put the table's columns beside the images."""
    whole = read_table(path)
    table, known = _named(whole, path, columns), list(whole.columns)  # the names as the file has them
    if not len(table):
        raise InputError(f"{path}: holds no row, only a header")
    images = found.table
    if "side" in table.columns:
        table["side"] = sides(table["side"], str(path))
    if "patient_id" not in table.columns and "patient_id" not in images.columns:
        raise InputError(
            f"{path}: no column 'patient_id' (columns: {', '.join(known)}){_likely(known)}; name it with "
            "-s columns.patient_id=COLUMN"
        )
    key, of_images, of_table = _keys(images, table, path)
    place: dict[str, int] = {}
    repeated: dict[str, list[int]] = {}
    for row, value in enumerate(of_table):
        if value in place:
            repeated.setdefault(value, [place[value] + 2]).append(row + 2)
        place.setdefault(value, row)
    if repeated:
        value, rows = next(iter(repeated.items()))
        more = f" (and {len(repeated) - 1} more)" if len(repeated) > 1 else ""
        hint = ""
        if key == "patient_id" and "side" not in table.columns:
            hint = "; if each row is of one side, name the column that says it with -s columns.side=COLUMN "
            hint += f"(columns: {', '.join(known)})"
        raise InputError(f"{path}: {key} '{value}' is in rows {', '.join(map(str, rows))}{more}{hint}")
    rows_of_images = [place.get(value, -1) for value in of_images]
    if max(rows_of_images) < 0:
        raise InputError(
            f"{path}: no row belongs to an image; by {key} the images are called '{of_images[0]}', "
            f"the rows '{of_table[0]}'{_zeros(of_images, of_table)}"
        )
    used = set(rows_of_images)
    found.missing = [(row + 2, value) for row, value in enumerate(of_table) if row not in used]
    _take(found, table.drop(columns=["path"], errors="ignore"), rows_of_images, path)
    patients = found.table["patient_id"]  # those without are left out, with a note, later
    alone = sum(row < 0 and patient != "" for row, patient in zip(rows_of_images, patients, strict=True))
    if alone:
        found.notes.append(f"{alone} images have no row in the table and stay unlabelled")
    if found.missing:
        found.notes.append(f"{len(found.missing)} rows of the table have no file ({MISSING_FILE})")


def _named(table: pd.DataFrame, path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """The table under the manifest's column names."""
    known = [str(name) for name in table.columns]
    for wanted, given in columns.items():
        if given not in known:
            raise InputError(f"{path}: no column '{given}' (for {wanted}){suggest(given, known)}")
    renamed = {given: wanted for wanted, given in columns.items()}
    lower = {name.lower(): name for name in reversed(known)}
    for wanted, words in _KNOWN_AS.items():
        hits = [lower[word] for word in words if word in lower and lower[word] not in renamed]
        if wanted not in columns and hits:
            renamed[hits[0]] = wanted
    result = table.rename(columns=renamed)
    names = [str(name) for name in result.columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: two columns would be called '{twice[0]}'; see the setting 'columns'")
    return result


def _likely(known: list[str]) -> str:
    guess = [name for name in known if re.search(r"pat(?!h)|subj|case|(^|_| )id$|pseudonym", name.lower())]
    return f", perhaps '{guess[0]}'" if guess else ""


def _zeros(of_images: list[str], of_table: list[str]) -> str:
    bare = {value.lstrip("0") for value in of_images}
    if any(value.lstrip("0") in bare for value in of_table):
        return "; they agree but for leading zeros: save the table with its ids as text"
    return ""


def _keys(images: pd.DataFrame, table: pd.DataFrame, path: Path) -> tuple[str, list[str], list[str]]:
    """What joins images and rows: the key's name, and its value for each image and each row."""
    files = list(images[_FILE])
    if "path" in table.columns:
        cells = [cell.replace("\\", "/").removeprefix("./") for cell in table["path"]]
        kinds = [
            ("path", lambda p: p),
            ("file name", lambda p: Path(p).name),
            ("file name without suffix", lambda p: Path(p).stem),
        ]
        options = [(key, [*map(short, files)], [*map(short, cells)]) for key, short in kinds]
        best = max(options, key=lambda option: len(set(option[2]) & set(option[1])))
        key, names, rows = best if set(best[1]) & set(best[2]) else options[1]
        if key != "path":
            _unique(names, files, path)
        return key, names, rows
    if "image_id" in table.columns:
        stems = list(images["image_id"]) if "image_id" in images.columns else [Path(f).stem for f in files]
        _unique(stems, files, path)
        return "image_id", stems, list(table["image_id"])
    if "patient_id" in images.columns and "patient_id" in table.columns:
        shared = ["patient_id"] + (["side"] if "side" in images.columns and "side" in table.columns else [])
        join = [[" ".join(row) for row in part[shared].to_numpy().tolist()] for part in (images, table)]
        return "+".join(shared), join[0], join[1]
    raise InputError(
        f"{path}: nothing says which row belongs to which image; name the column of file names with "
        "-s columns.path=COLUMN, or give a pattern with {patient_id}"
    )


def _unique(names: list[str], files: list[str], path: Path) -> None:
    count = Counter(names)
    twice = [file for name, file in zip(names, files, strict=True) if count[name] > 1]
    if twice:
        raise InputError(
            f"{path}: names files without their folders, but '{twice[0]}' and '{twice[1]}' share a name; "
            "write the path below the root in the table"
        )


def _take(found: FoundImages, table: pd.DataFrame, rows: list[int], path: Path) -> None:
    for name in table.columns:
        cells = table[name].tolist()
        values = [cells[row] if row >= 0 else "" for row in rows]
        if name not in found.table.columns:
            found.table[name] = pd.Series(values, dtype="str")
            continue
        for row, file, old, new in zip(rows, found.table[_FILE], found.table[name], values, strict=True):
            if new and new != old:
                where = f"the path of '{file}' says '{old}'"
                raise InputError(f"{path}: row {row + 2} says {name} '{new}', {where}")


def sides(cells: pd.Series[str], where: str) -> list[str]:
    """ "Right", "R", "1: Right", "left knee", "rechts", "gauche" ... as R and L; "" stays.

    Raises:
        InputError: another word, or a bare digit, whose meaning differs between data sets.
    """
    result = [_side(str(cell)) for cell in cells]
    bad = [row for row, side in enumerate(result) if side is None]
    if bad:
        values = ", ".join(repr(value) for value in sorted({str(cells.iloc[row]) for row in bad})[:5])
        raise InputError(
            f"{where}: {row_numbers([row + 2 for row in bad])} a side that is neither left nor right "
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
        stems = [Path(file).stem for file in files]
        # equal names in two folders count as two patients
        table["patient_id"] = stems if len(set(stems)) == len(stems) else _without_suffix(files)
        found.notes.append(
            "no patient ids: each image counts as its own patient; give a pattern if that is wrong"
        )
    nameless = table["patient_id"] == ""
    if nameless.any():
        found.notes.append(f"{int(nameless.sum())} images of no known patient are left out ({SKIPPED_FILE})")
        found.skipped += [file for file, drop in zip(files, nameless, strict=True) if drop]
        found.table = table = table[~nameless].reset_index(drop=True)
        files = table[_FILE].tolist()
    if "image_id" not in table.columns or (table["image_id"] == "").any():
        table["image_id"] = _image_ids(table, files)
    table["path"] = [str(root / file) for file in files]
    del table[_FILE]


def _image_ids(table: pd.DataFrame, files: list[str]) -> list[str]:
    """patient+side, with month and view where images need them to differ, else the path."""
    ids = table["patient_id"] + (table["side"] if "side" in table.columns else "")
    for name in ("visit_month", "view"):
        if name in table.columns and not ids.is_unique:
            ids = ids + "_" + table[name]
    return [str(value) for value in ids] if ids.is_unique else _without_suffix(files)


def _without_suffix(files: list[str]) -> list[str]:
    """Paths without their endings; with them where two files differ in nothing else."""
    bare = [file.removesuffix(Path(file).suffix) for file in files]
    return bare if len(set(bare)) == len(bare) else files
