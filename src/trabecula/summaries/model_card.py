"""The README.md of a model that leaves: what it is, how to use it, its data, its limits, its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trabecula.artifacts.results import MetricRow, read_metrics
from trabecula.comparison.arms import taught_by
from trabecula.errors import InputError
from trabecula.objectives import title
from trabecula.sections.formats import Entry, Table, to_markdown
from trabecula.sections.names import FAMILY_NAMES, architecture_name, metric_name, mode_name
from trabecula.sections.numbers import count, interval, number, share

Row = Mapping[str, Any]
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def metric_rows(path: Path, arm: str, seed: int) -> tuple[list[MetricRow], float]:
    """An arm's summary rows of `evaluate`: all cohorts, no strata, all seeds; and the intervals' level.

    `seed` is that of the encoder's pretraining: an InputError if none of these rows is of it. Rows over
    several pretrainings, this one's among them, stay, and their note says so.
    """
    metrics = read_metrics(path)
    rows = [row for row in metrics.rows if (row.cohort, row.stratum) == ("all", "all")]
    own = [row for row in rows if row.arm == arm and row.seed == "all"]
    if not own:
        known = f"(it has {', '.join(sorted({row.arm for row in rows})) or 'none'})"
        raise InputError(f"{path}: no metrics of arm '{arm}' {known}; leave metrics out, or name another")
    behind = [(row, _pretrain_seeds(row, rows)) for row in own]
    kept = [_noted(row, len(seeds)) for row, seeds in behind if seed in seeds]
    if not kept:
        others = " and ".join(map(str, sorted(set().union(*(seeds for _, seeds in behind)))))
        which = f"of pretraining seed {others}, this encoder is of seed {seed}"
        raise InputError(f"{path}: metrics of arm '{arm}' are {which}; leave metrics out, or name its own")
    return kept, metrics.level


def _pretrain_seeds(row: MetricRow, rows: Sequence[MetricRow]) -> set[int]:
    """Of the encoders behind a summary row."""
    same = ("task", "arm", "mode", "fraction", "metric")
    found = (other.pretrain_seed for other in rows if all(other[key] == row[key] for key in same))
    return {seed for seed in found if isinstance(seed, int)}


def _noted(row: MetricRow, num: int) -> MetricRow:
    several = f"mean over encoders of {num} pretraining seeds, this one among them" if num > 1 else ""
    return replace(row, note="; ".join(filter(None, (several, row.note))))


def metric_table(rows: Sequence[MetricRow], level: float) -> Table:
    """A line a metric: value with its interval, images, patients, seeds."""
    columns = ("Task", "By", "Labels", "Metric", "Value", "Images", "Patients", "Seeds")
    cells = []
    for row in rows:
        what = (row.task, mode_name(row.mode), share(row.fraction), metric_name(row.metric))
        value = Entry(number(row.value), interval(row.low, row.high), row.note)
        sizes = (count(row.num_images), count(row.num_patients), count(row.num_seeds))
        cells.append((*map(Entry, what), value, *map(Entry, sizes)))
    note = (
        f"Of the test part, with {level * 100:.4g} % intervals over patients. Labels: what was used of "
        "the training labels. Fine-tuning: of a classifier that began with these weights."
    )
    return Table("Test metrics", columns, cells, note, heads=4)


def describe_start(card: Row) -> str:
    """ "MoCo v2 pretraining of a ResNet-18", "ResNet-18 with ImageNet weights"."""
    network, family = architecture_name(card["architecture"]), card["family"]
    if card["objective"] != "none":
        return f"{network}, pretrained with {title(card['objective'])}"
    return f"{network} with {FAMILY_NAMES.get(family, family)}, no pretraining"


def image_kind(channels: int) -> str:
    return {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")


def describe_pixels(card: Row) -> tuple[str, str, str]:
    """An encoder's kind of images, their mean and their standard deviation."""
    mean, std = (", ".join(f"{value:.4g}" for value in card[key]) for key in ("mean", "std"))
    return image_kind(card["channels"]), mean, std


def readme(
    card: Row,
    code: Sequence[tuple[str, str]],
    impossible: Sequence[str],
    licence: str,
    metrics: tuple[Sequence[MetricRow], float] | None,
    warnings: Sequence[str] = (),
) -> str:
    """The README.md of an encoder's folder.

    card: of the encoder, its patients included: they are counted, and no more. code: (heading, program) for
    each way to use it; impossible: one line for each way that there is not. licence: an SPDX name, or "" to
    be filled in. metrics: of `metric_rows`. warnings: what was found wrong in its training.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trabecula", "summaries"), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    kind, mean, std = describe_pixels(card)
    settings = (f"{key} {value}" for key, value in sorted(card["prepared"].items()) if value not in _EMPTY)
    tables = [metric_table(*metrics)] if metrics else []
    return environment.get_template("readme.md.j2").render(
        card=card, code=code, impossible=impossible, licence=licence, warnings=warnings,
        count=count, share=share, start=describe_start(card), taught=taught_by(card),
        timm=any("timm" in heading for heading, _ in code), pixels={"kind": kind, "mean": mean, "std": std},
        prepared=", ".join(settings), metrics=to_markdown(tables).strip(),
    )  # fmt: skip
