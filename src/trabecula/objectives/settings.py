"""A method's settings: what is given over its defaults, and what the store and the task decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trabecula.artifacts.tasks import Task
from trabecula.config import Record, build, dump
from trabecula.data.views import Views
from trabecula.errors import InputError
from trabecula.objectives import find


def resolved(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of the method as plain values, so that a run's identity holds the defaults it had.

    Those that the task decides are left out, unless they are given.

    Raises:
        InputError: an unknown method or setting, or a value that it refuses.
    """
    values = dump(build(find(method).Config, dict(given), _where(method)))
    return {key: value for key, value in values.items() if key in given or key not in find(method).of_task}


def of_method(method: str, given: Mapping[str, Any], size: int, task: Task | None = None) -> Record:
    """The method's settings as it takes them: views of the store's size, and what the task decides.

    Raises:
        InputError: one that comes from the store or from the task is given otherwise.
    """
    of_task = find(method).of_task if task is not None else {}
    for key in of_task.keys() & given.keys():
        raise InputError(f"{_where(method)}: '{key}' comes from the task; leave it out")
    decided = {key: decide(task) for key, decide in of_task.items()} if task is not None else {}
    return _of_size(build(find(method).Config, {**decided, **given}, _where(method)), size, method)


def _of_size(settings: Record, size: int, method: str) -> Record:
    """With the size that views will have: the method's own where it has one, else that of the images."""
    side, changed = getattr(settings, "size", 0) or size, {}
    for key, value in settings:
        if isinstance(value, Views):
            if value.size not in (side, Views().size):
                raise InputError(
                    f"{_where(method)}: views have {side} px here, not {value.size}; leave {key}.size out"
                )
            changed[key] = value.model_copy(update={"size": side})
    return settings.model_copy(update=changed)


def _where(method: str) -> str:
    return f"settings of {method}"
