"""Generators and critics in the report: what `fidelity` and `explain` found, as figures.

Reads fidelity.json and explain.json; computes no statistic. What a file does not hold is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trabecula.artifacts.explanation import read_explanation
from trabecula.artifacts.fidelity import read_fidelity
from trabecula.figures.charts import REFERENCE, STYLES, Chart, PlotAxis, Series, count_ticks
from trabecula.figures.image_sheets import png_uri
from trabecula.sections.explanations import climb_chart, units_chart
from trabecula.sections.numbers import count, interval, number, present
from trabecula.sections.section import Block, PagePicture, Section

Row = Mapping[str, Any]

_NEEDED = {
    "points": ("images", "set", "metric", "value"),
    "critic": ("images", "train", "val", "fake", "gap", "relative_gap"),
}
_SETS = {
    "train": "against training images", "val": "against held-out validation images",
    "test": "against test images",
}  # fmt: skip
_DISTANCES = {"fd": ("frechet", "Fréchet distance"), "kid": ("kernel", "kernel distance")}
_MEMORISED = {
    "share_near": "fakes nearer to a training image than 95 % of held-out images are; 0.05 without copying",
    "nearer": "chance that a fake is nearer than a held-out image; 0.5 without copying",
    "copying": "C_T (Meehan 2020); 0 without copying, far below 0 is copying",
    "authenticity": "authenticity of the fakes",
    "held_out_authenticity": "authenticity of held-out images",
}
_PICTURES = {
    "gradcam.png": "Where the score of single images comes from",
    "maximise.png": "The images that raise the critic's score most",
}
_ALT = "; its title and captions are in the picture"
_ENDS = ("value", "low", "high")
_SMALL = 0.05  # below it a tick's label would run into the axis' name


@dataclass(frozen=True)
class GeneratorQuality:
    """One generator's quality over training."""

    name: str
    note: str
    charts: list[Chart]
    facts: list[tuple[str, str]]  # of the memorisation audit
    record: Row


@dataclass(frozen=True)
class ExplainedNetwork:
    """One network looked into: its charts, and its pictures by file name."""

    name: str
    charts: list[Chart]
    pictures: dict[str, PagePicture]
    record: Row


def generator_section(
    generators: Sequence[GeneratorQuality], explained: Sequence[ExplainedNetwork], elsewhere: Sequence[str]
) -> Section | None:
    """None where there is nothing; pictures of the file names `elsewhere` are in another section."""
    if not generators and not explained:
        return None
    blocks = []
    for one in generators:
        blocks.append(Block("heading", f"{one.name}: generated images against real ones"))
        blocks += [Block("note", one.note)] if one.note else []
        blocks.append(Block("charts", one.charts))
        blocks += [Block("subheading", "Memorisation"), Block("facts", one.facts)] if one.facts else []
    for network in explained:
        shown = [picture for file, picture in network.pictures.items() if file not in elsewhere]
        blocks += [Block("heading", f"{network.name}: what it sees"), Block("charts", network.charts)]
        blocks.append(Block("folded_pictures", shown))
    return Section("generator", "Generator", "Generator", blocks)


def read_generators(folders: Sequence[Path]) -> list[GeneratorQuality]:
    """Read the folders that `fidelity` wrote."""
    records = [read_fidelity(folder, _NEEDED) for folder in folders]
    named = zip(_names(records, "Generator"), records, strict=True)
    return [GeneratorQuality(name, _protocol(r), _charts(name, r), _facts(r), r) for name, r in named]


def read_explained(folders: Sequence[Path]) -> list[ExplainedNetwork]:
    """Read the folders that `explain` wrote."""
    records = [read_explanation(folder) for folder in folders]
    first = [next(r[part] for part in ("units", "maximise", "gradcam") if r.get(part)) for r in records]
    found = []
    for folder, record, name in zip(folders, records, _names(first, "Network"), strict=True):
        charts = [climb_chart({**record["maximise"], "arm": name})] if record.get("maximise") else []
        charts += [units_chart({**record["units"], "arm": name})] if record.get("units") else []
        pictures = {
            file: PagePicture(caption, caption + _ALT, png_uri((folder / file).read_bytes()))
            for file, caption in _PICTURES.items()
            if (folder / file).exists()
        }
        found.append(ExplainedNetwork(name, charts, pictures, record))
    return found


def _names(records: Sequence[Row], kind: str) -> list[str]:
    """A name for each: its arm; of several with one arm also its seed and images, at last a number."""
    names = [str(r.get("arm") or kind) for r in records]
    seeds = [f"seed {r['pretrain_seed']}" if "pretrain_seed" in r else "" for r in records]
    images = [f"{count(r['images_seen'])} images" if "images_seen" in r else "" for r in records]
    for more in (seeds, images, [f"number {k}" for k in range(1, len(names) + 1)]):
        twice = [names.count(name) > 1 and bool(word) for name, word in zip(names, more, strict=True)]
        names = [f"{n}, {w}" if t else n for n, w, t in zip(names, more, twice, strict=True)]
    return names


def _protocol(record: Row) -> str:
    """How the distances were measured, in one sentence."""
    parts = [f"Extractor: {record['extractor']}"] if isinstance(record.get("extractor"), str) else []
    plain = {
        key: value
        for key, value in (record.get("protocol") or {}).items()
        if key not in ("extractor", "frechet", "kernel")  # in other words of the page
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }
    parts += [f"{key.replace('_', ' ')}: {_short(value)}" for key, value in plain.items()]
    sizes = sorted({row.get("num_fakes") for row in record.get("points") or [] if row.get("num_fakes")})
    if sizes and "num" not in plain:
        parts.append(f"images: {' or '.join(count(n) for n in sizes)} of each kind")
    return "; ".join(parts)


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def _facts(record: Row) -> list[tuple[str, str]]:
    """The memorisation audit: its finding, then its measures with what they are without copying."""
    memorised = record.get("memorisation") or {}
    words = {key: text for key, text in _MEMORISED.items() if memorised.get(key) is not None}
    found = [("finding", str(memorised["finding"]))] if memorised.get("finding") else []
    return found + [(text, _fact(memorised[key])) for key, text in words.items()]


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return f"{number(value['value'])} ({interval(value['low'], value['high'])})"
    return number(value) if isinstance(value, float) else str(value)


def _charts(name: str, record: Row) -> list[Chart]:
    metrics = dict.fromkeys(row["metric"] for row in record.get("points") or [])
    charts = [chart for metric in metrics if (chart := distance_chart(name, record, metric))]
    critic = sorted(record.get("critic") or [], key=lambda row: row["images"])
    if critic:
        charts += [_scores_chart(name, critic)]
        charts += [gap_chart(name, critic, key) for key in ("gap", "relative_gap")]
    return charts


def _metric_title(record: Row, metric: str) -> str:
    """What a metric is called: a distance is FID or KID in the features of the original Inception alone."""
    if metric not in _DISTANCES:
        return metric.replace("_", " ")
    key, words = _DISTANCES[metric]
    name = (record.get("protocol") or {}).get(key, "")
    return f"{words} ({name})" if name else words


def distance_chart(name: str, record: Row, metric: str) -> Chart | None:
    """One metric over training, against each set of real images, with the floor between two sets of reals."""
    rows = [r for r in record["points"] if r["metric"] == metric and present(r["value"])]
    drawn = {s: sorted((r for r in rows if r["set"] == s), key=lambda r: r["images"]) for s in _SETS}
    floor = [r for r in rows if r["set"] == "floor"]
    points = [r for course in drawn.values() for r in course]
    if not points:
        return None
    name_of_metric = _metric_title(record, metric)
    ends = [v for r in (*points, *floor) for k in _ENDS if (v := r.get(k)) is not None and present(v)]
    unit = 1e-3 if max(map(abs, ends)) < _SMALL else 1.0
    series = []
    for style, (kind, course) in zip(STYLES, drawn.items(), strict=False):
        if course:
            scaled = [{**r, **{k: r[k] / unit for k in _ENDS if r.get(k) is not None}} for r in course]
            series.append(Series.of_rows(scaled, "images", style, _SETS[kind]))
    if floor:
        y = [floor[0]["value"] / unit]
        series.append(Series(REFERENCE, y=y, name="between two sets of real images", parts=("line",)))
    held_out = drawn["val"] or points
    title = f"{name_of_metric[0].upper()}{name_of_metric[1:]}"
    described = f"{title}. From {number(held_out[0]['value'])} to {number(held_out[-1]['value'])}"
    label = name_of_metric.partition(" (")[0] + " × 1,000" * (unit < 1)
    return Chart(name, title, _images_axis([r["images"] for r in points]), PlotAxis(label), series, described)


def _images_axis(images: Sequence[float]) -> PlotAxis:
    low, high = min(images), max(images)
    room = 0.04 * (high - low or max(high, 1))
    return PlotAxis("real images seen in training", count_ticks(low, high, room), (low - room, high + room))


def _scores_chart(name: str, critic: Sequence[Row]) -> Chart:
    names = {"train": "training images", "val": "held-out validation images", "fake": "generated images"}
    images = [r["images"] for r in critic]
    series = [
        Series(style, images, [r[key] for r in critic], name=words)
        for style, (key, words) in zip(STYLES, names.items(), strict=False)
    ]
    title, last = "What the critic scores", critic[-1]
    described = f"{title}. At the end training {number(last['train'])}, validation {number(last['val'])}"
    return Chart(name, title, _images_axis(images), PlotAxis("mean score"), series, described)


def gap_chart(name: str, critic: Sequence[Row], key: str) -> Chart:
    """The critic's "gap" or "relative_gap" over training; `critic` in order."""
    known = [r for r in critic if present(r[key])]
    relative = key == "relative_gap"
    title = "Overfit gap, by the distance of real and fake" if relative else "Overfit gap of the critic"
    label = "gap / (real − fake)" if relative else "training − validation score"
    ends = {"low": None, "high": None} if relative else {}  # the interval is of the gap itself
    gap = Series.of_rows([{**r, **ends} for r in known], "images", STYLES[0], value=key)
    zero = Series("zero", y=[0.0], parts=("line",))
    described = f"{title}. At the end {number(known[-1][key])}" if known else f"{title}. Not known"
    x = _images_axis([r["images"] for r in critic])
    return Chart(name, title, x, PlotAxis(label), [zero, gap], described)
