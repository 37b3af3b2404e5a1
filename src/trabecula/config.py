"""Settings: frozen records, TOML recipes, `-s key=value`, and the words that describe them.

Every setting is declared once, as a field of a `Record` with a docstring under it. The same text
is the command line's help, `trabecula show` and the docs page.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from trabecula.errors import InputError
from trabecula.files import read_json

WITHOUT_DEFAULT = ("needed", "not set")
"""What `describe` says in the place of a default: the user must give it, or may leave it away."""

_LONGEST_NUMBER = 10  # characters, beyond which a default is shown in six digits


class Record(BaseModel):
    """A frozen group of settings; unknown keys are refused.

    A group within a group changes what it names and keeps the other defaults of that place: a learning
    rate alone leaves a method its optimizer. Only one that names another kind (`name`) starts anew.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier versions, by which name they go now."""

    @model_validator(mode="before")
    @classmethod
    def _over_defaults(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        fields = {k: cls.model_fields[k].default for k in values if k in cls.model_fields}
        return {**values, **{k: _over(default, values[k]) for k, default in fields.items()}}

    @classmethod
    def of_kind(cls, values: Mapping[str, Any]) -> type[Self]:  # noqa: ARG003
        """The record that these values are of; one whose other settings depend on a kind overrides this."""
        return cls


def _over(default: Any, given: Any) -> Any:
    """What is given for a setting, over its default where both are groups of one kind."""
    if not (isinstance(default, Record) and isinstance(given, Mapping)):
        return given
    whole: dict[str, Any] = {k: getattr(default, k) for k in type(default).model_fields}
    if given.get("name", whole.get("name")) != whole.get("name"):
        return given
    return {**whole, **{k: _over(whole.get(k), value) for k, value in given.items()}}


R = TypeVar("R", bound=Record)


class NoEffectOnResult:
    """Marks a setting on which no result depends, so that it is no part of a run's identity.

    Written into the type: `workers: Annotated[int, NoEffectOnResult()] = 1`. It counts on a verb's own
    settings, not within a group of them.
    """


def build(cls: type[R], values: Mapping[str, Any], where: str) -> R:
    """A record of plain values; an InputError names every problem, of a mistyped key the likely one."""
    try:
        cls = cls.of_kind(values)
        return cls.model_validate(dict(values))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except ValidationError as error:
        problems = "; ".join(_problem(cls, detail) for detail in error.errors())
        raise InputError(f"{where}: {problems}") from None


def read_record(cls: type[R], path: Path, made_by: str) -> R:
    """Read a record from a JSON file that the command `made_by` wrote; an InputError says what is wrong."""
    return build(cls, read_json(path, made_by), str(path))


def _problem(cls: type[Record], detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        owner = _owner(cls, detail["loc"])
        known = sorted(owner.model_fields) if owner else []
        last = str(detail["loc"][-1])
        above = key.removesuffix(last)
        if owner and last in owner.renamed:
            return f"'{key}' is now called '{above}{owner.renamed[last]}'"
        inner = [row[0] for row in describe(owner) if row[0].endswith(f".{last}")] if owner else []
        if inner:
            return f"unknown key '{key}'; is it " + " or ".join(f"'{above}{name}'" for name in inner) + "?"
        return f"unknown key '{key}'" + suggest(last, known)
    if detail["type"] == "missing":
        return f"'{key}' is needed and not set"
    message = detail["msg"].removeprefix("Value error, ")
    value = "" if isinstance(detail["input"], dict) else f" (got {detail['input']!r})"
    named = not key or message.startswith(f"{key} of ")  # a group whose owner has spoken for it
    return message if named else f"'{key}': {message}{value}"


def _owner(cls: type[Record], loc: Sequence[int | str]) -> type[Record] | None:
    """The record a nested key would belong to."""
    owner: type[Record] | None = cls
    for part in loc[:-1]:
        field = owner.model_fields.get(str(part)) if owner else None
        owner = next(filter(_is_record, _flatten(field.annotation)), None) if field else None
    return owner


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Record)


def _flatten(annotation: Any) -> list[Any]:
    """The types an annotation is made of: `tuple[Path, ...] | None` gives [Path, ..., NoneType]."""
    if get_origin(annotation) is None:
        return [annotation]
    return [leaf for part in get_args(annotation) for leaf in _flatten(part)]


def suggest(word: str, known: Sequence[str]) -> str:
    """The tail of an error about an unknown word: ", did you mean 'x'?" or the list of known ones."""
    folded = {name.casefold(): name for name in reversed(known)}
    close = difflib.get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.6)
    if close:
        return f", did you mean '{folded[close[0]]}'?"
    return f"; known: {', '.join(known)}" if known else ""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; an InputError says that it is missing, or the line that is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, a TOML file is needed") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None


def assign(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `-s a.b=value` to plain values; the value is read as TOML, else as a string."""
    result = copy.deepcopy(values)
    for text in assignments:
        key, sign, raw = (part.strip() for part in text.partition("="))
        if not sign or not key:
            raise InputError(f"-s {text}: write key=value, for example -s size=64")
        try:
            value = tomllib.loads(f"value = {raw}")["value"]
        except tomllib.TOMLDecodeError:
            value = raw
        put(result, key, value, f"-s {text}:")
    return result


def put(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a dotted key of plain values; an InputError that begins with `where` if it goes through a value."""
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"{where} '{parent}' is a value, not a group of settings")
    values[last] = value


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested tables."""
    if not isinstance(values, Mapping):
        yield prefix, values
        return
    for key, value in values.items():
        yield from leaves(value, f"{prefix}.{key}" if prefix else key)


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Plain values as TOML text: values first, then the tables; None (not set) is left out."""
    tables = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in values.items() if value is not None and name not in tables}
    lines = [f"{_key(name)} = {inline(value)}" for name, value in plain.items()]
    for name, value in tables.items():
        head = f"{prefix}{_key(name)}"
        body = to_toml(value, f"{head}.")
        only_tables = value and all(isinstance(inner, Mapping) for inner in value.values())
        lines += [] if only_tables else ["", f"[{head}]"]
        lines += [body.strip("\n")] if body.strip() else []
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    bare = name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    return name if bare else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def inline(value: Any) -> str:
    """A value as TOML has it on the right of a `=`."""
    if isinstance(value, Mapping):
        pairs = (f"{_key(k)} = {inline(v)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)  # numbers (inf and nan too), dates and times


def dump(record: Record) -> dict[str, Any]:
    """A record as plain JSON values; paths as text."""
    return record.model_dump(mode="json")


def digest(value: Any) -> str:
    """sha256 of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def inputs(record: Record) -> dict[str, list[Path]]:
    """The files and folders a verb reads: every field typed `Path`, `Path | None` or a tuple of them."""
    found: dict[str, list[Path]] = {}
    for name, field in type(record).model_fields.items():
        if Path in _flatten(field.annotation):
            value = getattr(record, name)
            paths = [value] if isinstance(value, Path) else list(value or ())
            found[name] = [path for path in paths if isinstance(path, Path)]
    return found


def without_effect(record: Record) -> set[str]:
    """The settings of a verb that are marked as deciding no result."""
    marks = {name: field.metadata for name, field in type(record).model_fields.items()}
    return {name for name, its in marks.items() if any(isinstance(mark, NoEffectOnResult) for mark in its)}


def describe(
    cls: type[Record], prefix: str = "", given: Record | None = None
) -> list[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every setting, nested ones by their dotted key.

    A default is written as in TOML, long fractions in six digits; one of `WITHOUT_DEFAULT` if there is none.
    Where a record is `given`, as a field of this type has it by default, its values are the defaults.
    """
    rows = []
    for name, field in cls.model_fields.items():
        key = f"{prefix}{name}"
        required = given is None and field.is_required()
        value = getattr(given, name) if given else field.get_default(call_default_factory=True)
        if _is_record(field.annotation):
            rows += describe(field.annotation, f"{key}.", value if isinstance(value, Record) else None)  # type: ignore[arg-type]
        else:
            meaning = " ".join((field.description or "").split())
            default = WITHOUT_DEFAULT[1] if value is None else inline(_readable(value))
            shown = WITHOUT_DEFAULT[0] if required else default
            rows.append((key, type_name(field.annotation), shown, meaning))
    return rows


def _readable(value: Any) -> Any:
    """Numbers as people write them: 1.33333 for a third more than one."""
    if isinstance(value, Record):
        return _readable(dump(value))
    if isinstance(value, Mapping):
        return {key: _readable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(item) for item in value]
    if isinstance(value, float) and len(repr(value)) > _LONGEST_NUMBER:
        return float(f"{value:.6g}")
    return str(value) if isinstance(value, Path) else value


def type_name(annotation: Any) -> str:
    """A type as a reader writes it: `list of integer`, `one of "a", "b"`."""
    plain = {int: "integer", float: "number", str: "text", bool: "true/false", Path: "path"}
    if annotation in plain:
        return plain[annotation]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in args if part is not type(None))
    if origin in (tuple, list):
        return f"list of {type_name(args[0])}"
    if origin is dict:
        return "table" if args[1] is Any else f"table of {type_name(args[1])}"
    if origin is Literal:
        return "one of " + ", ".join(json.dumps(arg) for arg in args)
    return getattr(annotation, "__name__", str(annotation))
