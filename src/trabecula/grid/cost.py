"""What a study will cost, as far as its settings say it: trainings, images, trials; never hours.

Hours are told from cells that this study has finished, by `forecast.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trabecula.grid.cells import Cell


def costs(cells: Sequence[Cell]) -> dict[str, str]:
    """Stage -> what its cells are to do, for the stages of which the settings tell.

    An image counts as seen each time it is drawn. Stopping early may spare some: then it says at most.
    """
    stages: dict[str, list[Cell]] = {}
    for cell in cells:
        stages.setdefault(cell.stage, []).append(cell)
    found = {}
    for stage, own in stages.items():
        tell = _TELLERS.get(own[0].verb)
        if tell is not None:
            found[stage] = tell([cell.config for cell in own])
    return found


def is_untrained(cell: Cell) -> bool:
    """Whether it makes an encoder without pretraining, which takes seconds where the others take hours."""
    return cell.verb == "pretrain" and _learns_nothing(cell.config)


def _learns_nothing(config: Any) -> bool:
    return bool(config.objective == "none" or config.images == 0)


def _pretraining(configs: Sequence[Any]) -> str:
    trained = [config for config in configs if not _learns_nothing(config)]
    rest = len(configs) - len(trained)
    parts = []
    if trained:
        images = sum(config.images for config in trained)
        parts.append(f"{_counted(len(trained), 'pretraining')}, {images:,} images seen in all")
    if rest:
        parts.append(f"{_counted(rest, 'encoder')} without pretraining")
    return "; ".join(parts)


def _probes(configs: Sequence[Any]) -> str:
    number = 0
    for config in configs:
        tasks = 1 if isinstance(config.task, str) else len(config.task)
        number += tasks * len(config.fractions) * len(config.seeds)
    return f"{_counted(number, 'linear probe')}, {_range([c.num_strengths for c in configs])} strengths each"


def _searches(configs: Sequence[Any]) -> str:
    trials = sum(config.trials for config in configs)
    pruned = ", some ended early" if any(config.pruner != "none" for config in configs) else ""
    searches = f"{len(configs):,} search{'es' * (len(configs) != 1)}"
    return f"{searches}, {_counted(trials, 'trial')} in all, a fine-tuning each{pruned}"


def _finetunings(configs: Sequence[Any]) -> str:
    parts = [_counted(len(configs), "fine-tuning")]
    given = [config for config in configs if config.chosen is None]
    images = sum(config.images for config in given if not config.epochs)
    epochs = [config.epochs for config in given if config.epochs]
    if images:
        parts.append(f"at most {images:,} images seen in all")
    if epochs:
        parts.append(f"at most {_range(epochs)} passes over the labelled images each")
    if len(given) < len(configs):
        parts.append("as long as their search chooses")
    return ", ".join(parts)


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


_TELLERS: dict[str, Callable[[Sequence[Any]], str]] = {
    "pretrain": _pretraining,
    "probe": _probes,
    "search": _searches,
    "finetune": _finetunings,
}
