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

_NOT_SAID = "(fill in)"


def metric_rows(path: Path, arm: str, seed: int) -> tuple[list[MetricRow], float]:
    """An arm's summary rows of `evaluate`: all cohorts, no strata, all seeds; and the intervals' level.

    Args:
        seed: of the encoder's pretraining. Rows over several pretrainings, this one's among them, stay, and
            their note says so.

    Raises:
        InputError: no metrics.json there, none of this arm, or only of its encoders of other seeds.
    """
    metrics = read_metrics(path)
    rows = [row for row in metrics.rows if (row.cohort, row.stratum) == ("all", "all")]
    own = [row for row in rows if row.arm == arm and row.seed == "all"]
    if not own:
        known = ", ".join(sorted({row.arm for row in rows})) or "none"
        raise InputError(
            f"{path}: no metrics of arm '{arm}' (it has {known}); leave metrics out, or name another"
        )
    behind = [(row, _pretrain_seeds(row, rows)) for row in own]
    kept = [_of_several(row, len(seeds)) for row, seeds in behind if seed in seeds]
    if not kept:
        others = " and ".join(map(str, sorted(set().union(*(seeds for _, seeds in behind)))))
        raise InputError(
            f"{path}: its metrics of arm '{arm}' are of pretraining seed {others}, this encoder is of seed "
            f"{seed}; leave metrics out, or name its own"
        )
    return kept, metrics.level


def _pretrain_seeds(row: MetricRow, rows: Sequence[MetricRow]) -> set[int]:
    """Of the encoders behind a summary row."""
    same = ("task", "arm", "mode", "fraction", "metric")
    found = (other.pretrain_seed for other in rows if all(other[key] == row[key] for key in same))
    return {seed for seed in found if isinstance(seed, int)}


def _of_several(row: MetricRow, num: int) -> MetricRow:
    if num == 1:
        return row
    notes = f"mean over encoders of {num} pretraining seeds, this one among them", row.note
    return replace(row, note="; ".join(filter(None, notes)))


def metric_table(rows: Sequence[MetricRow], level: float) -> Table:
    """A line a metric: value with its interval, images, patients, seeds."""
    columns = ("Task", "By", "Labels", "Metric", "Value", "Images", "Patients", "Seeds")
    cells = [
        (
            Entry(row.task), Entry(mode_name(row.mode)), Entry(share(row.fraction)),
            Entry(metric_name(row.metric)),
            Entry(number(row.value), interval(row.low, row.high), row.note),
            Entry(count(row.num_images)), Entry(count(row.num_patients)), Entry(count(row.num_seeds)),
        )
        for row in rows
    ]  # fmt: skip
    note = (
        f"Of the test part, with {level * 100:.4g} % intervals over patients. Labels: the part of the "
        "training labels that was used. Fine-tuning: of a classifier that began with these weights."
    )
    return Table("Test metrics", columns, cells, note, heads=4)


def describe_start(card: Row) -> str:
    """ "MoCo v2 pretraining of a ResNet-18", "ResNet-18 with ImageNet weights"."""
    network = architecture_name(str(card["architecture"]))
    if card.get("objective", "none") != "none":
        return f"{network}, pretrained with {title(str(card['objective']))}"
    return f"{network} with {FAMILY_NAMES.get(str(card['family']), str(card['family']))}, no pretraining"


def data_lines(card: Row) -> list[str]:
    """What the encoder has seen, as counts; no patient is named."""
    if not card.get("images_seen"):
        return ["It has seen no images in pretraining here."]
    patients = len(card.get("patients") or ())
    of = f" of {patients:,} patients" if patients else ""
    lines = [f"{card['images_seen']:,} images seen{of}, each counted every time it was drawn."]
    if card.get("pool_cohorts"):
        lines.append(f"Cohorts: {', '.join(card['pool_cohorts'])}.")
    if card.get("pool_fraction", 1) < 1:
        lines.append(f"{share(card['pool_fraction'])} of the pool's patients.")
    taught = taught_by(card)
    lines.append(f"It learned from the {taught}." if taught else "No labels were used.")
    return lines


def readme(
    card: Row,
    code: Sequence[tuple[str, str]],
    impossible: Sequence[str],
    licence: str,
    metrics: tuple[Sequence[MetricRow], float] | None,
    warnings: Sequence[str] = (),
) -> str:
    """The README.md of an encoder's folder.

    Args:
        card: of the encoder, its patients included: they are counted, and no more.
        code: (heading, program) for each way to use it.
        impossible: one line for each way that there is not.
        licence: an SPDX name, or "" to be filled in.
        metrics: of `metric_rows`.
        warnings: what was found wrong in its training.
    """
    parts = [
        _front(licence, timm=any("timm" in heading for heading, _ in code)),
        f"# {card['name']}\n\nAn image encoder: {describe_start(card)}. It turns an image into "
        f"{card['num_features']:,} features. Made with Trabecula {card['version']}.",
        "\n\n".join(["## Use", _input(card), *map(_program, code), *impossible]),
        "## Training data\n\n" + "\n".join(data_lines(card)) + "\n\n"
        + _prepared(card.get("prepared") or {}) + f"\n\nWhose images, where and when taken: {_NOT_SAID}.",
        _training(card, warnings),
        "## Intended use\n\nResearch: features for probes, a start for fine-tuning, retrieval. Features say "
        "nothing by themselves; a classifier on them needs its own labels and its own test.",
        _limits(card),
        _metrics(metrics),
        f"## Licence\n\n{licence or _NOT_SAID}",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _front(licence: str, timm: bool) -> str:
    lines = ["---", f"license: {licence.lower() or 'unknown'}", "pipeline_tag: image-feature-extraction"]
    lines += ["library_name: timm"] if timm else []
    return "\n".join([*lines, "tags:", "- medical-imaging", "- trabecula", "---"])


def _program(one: tuple[str, str]) -> str:
    heading, text = one
    return f"{heading}\n\n```python\n{text}\n```"


def _input(card: Row) -> str:
    kind = {1: "grey", 3: "RGB"}.get(int(card["channels"]), f"{card['channels']}-channel")
    mean, std = (", ".join(f"{value:.4g}" for value in card[key]) for key in ("mean", "std"))
    return (
        f"Input: {kind} images of {card['size']} x {card['size']} px as float32 in [0, 1], normalised with "
        f"mean ({mean}) and standard deviation ({std}). Prepare them as the training images were prepared."
    )


def _prepared(settings: Mapping[str, Any]) -> str:
    if not settings:
        return "How its images were prepared is not recorded."
    listed = ", ".join(
        f"{key} {value}" for key, value in sorted(settings.items()) if value not in (None, "", [], {})
    )
    return f"Images were prepared with: {listed}."


def _training(card: Row, warnings: Sequence[str]) -> str:
    lines = [f"Objective: {card.get('objective', 'none')}; seed {card.get('seed', 0)}; batch size "
             f"{card.get('batch_size') or 'not recorded'}."]  # fmt: skip
    if card.get("weights"):
        lines.append(f"Started from: {card['weights']}.")
    lines += [f"Warning from its training: {text}." for text in warnings]
    return "## Training\n\n" + "\n".join(lines)


def _limits(card: Row) -> str:
    lines = [
        "Not a medical device, and not tested for any clinical use.",
        f"Made for images of {card['size']} px prepared as above: others give other features.",
        "Other scanners, hospitals, ages or projections than those of its training images were not "
        "tested unless a table below says so.",
        "Features can hold what is not disease: markers, borders, exposure, site. Test for shortcuts.",
    ]
    if card.get("labels"):
        lines.append("It learned from labels: scores on those labels are an upper bound for methods without.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _metrics(metrics: tuple[Sequence[MetricRow], float] | None) -> str:
    if metrics is None:
        return f"## Metrics\n\nNone were given at export: {_NOT_SAID}."
    return "## Metrics\n\n" + to_markdown([metric_table(*metrics)]).strip()
