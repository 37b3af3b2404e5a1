"""Pictures of what `explain` found: Grad-CAM sheets, maximising images, climbs, unit correlations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trabecula.figures.charts import REFERENCE, STYLES, Chart, level
from trabecula.figures.heatmaps import Heat, Pixels, Row, Tile, sheet
from trabecula.figures.plots import Axes, ticks
from trabecula.sections.wording import short_count

Record = Mapping[str, Any]

_UNITS = {"channel": "mean of a map", "cell": "each cell of a map"}
_SCALE = ("nothing", "most")
_ACROSS = 4  # tiles of a sheet side by side


def film(image: npt.NDArray[Any]) -> Pixels:
    """(C, H, W) uint8 or uint16 -> uint8."""
    return (np.right_shift(image, 8) if image.dtype == np.uint16 else image).astype(np.uint8)


def gradcam_files(record: Record, films: Pixels, heats: Heat) -> dict[str, bytes]:
    """File name -> PNG: one for each image, and gradcam.png with all of them.

    Args:
        record: the "gradcam" of explain.json.
        films: (n, C, H, W) uint8.
        heats: (n, H, W), at least 0.
    """
    title, note = _gradcam_words(record)
    pairs = []
    for image, picture, heat in zip(record["images"], films, heats, strict=True):
        shown = heat / heat.max() if heat.max() > 0 else heat
        empty = "" if heat.max() > 0 else "nothing speaks for it here"
        pairs.append((Tile(picture, _reading(record, image)), Tile(picture, empty, shown)))
    files = {
        image["file"]: sheet(title, note, [Row("", pair)], _SCALE)
        for image, pair in zip(record["images"], pairs, strict=True)
    }
    rows = []
    for group in dict.fromkeys(image["group"] for image in record["images"]):
        chosen = [
            pair for image, pair in zip(record["images"], pairs, strict=True) if image["group"] == group
        ]
        for start in range(0, len(chosen), _ACROSS):
            part = chosen[start : start + _ACROSS]
            heading = _group_heading(record, group) if not start else ""
            rows += [Row(heading, [a for a, _ in part]), Row("", [b for _, b in part])]
    return files | {"gradcam.png": sheet(title, note, rows, _SCALE)}


def _gradcam_words(record: Record) -> tuple[str, str]:
    height, width = record["grid"]
    what = f"{record['task']}, class {record['target']}" if record["task"] else "the critic's score"
    note = (
        f"{what}. Layer {record['layer']}, {height} x {width} positions, drawn out to the film's size. "
        "Each film has a scale of its own."
    )
    method = {"gradcam": "Grad-CAM", "hirescam": "HiResCAM"}[record["method"]]
    return f"{method} of {record['arm']}", note


def _reading(record: Record, image: Record) -> str:
    value = f"p = {image['value']:.3f}" if record["task"] else f"score {image['value']:.4g}"
    return f"{value}, truly {image['label']}" if image["label"] else value


def _group_heading(record: Record, group: str) -> str:
    what = "probability" if record["task"] else "score"
    return {"highest": f"Highest {what} in the validation part", "lowest": f"Lowest {what}"}.get(group, "")


def maximise_file(record: Record, starts: Pixels, images: Pixels, typical: Pixels) -> bytes:
    """maximise.png: each start's noise, what became of it, and a real film of median score.

    Args:
        record: the "maximise" of explain.json.
        starts, images: (n, C, S, S) uint8.
        typical: (C, S, S) uint8.
    """
    number = min(len(record["starts"]), _ACROSS)
    shown = record["starts"][:number]
    before = [Tile(starts[i], f"score {s['first']:.4g}") for i, s in enumerate(shown)]
    after = [Tile(images[i], f"score {s['score']:.4g}") for i, s in enumerate(shown)]
    reals = [real["quantiles"]["0.5"] for real in record["real"].values()]
    note = (
        f"{record['steps']} steps of gradient ascent from noise, pixels kept within black and white. The "
        f"films of the {' and '.join(_PARTS[part] for part in record['real'])} part score "
        f"{' and '.join(f'{value:.4g}' for value in reals)} at the median."
    )
    rows = [
        Row("Start: noise", before),
        Row("After the ascent", after),
        Row("For comparison: a real film of median score", [Tile(typical)]),
    ]
    return sheet(f"What {record['arm']} takes for most real", note, rows)


_PARTS = {"train": "training", "val": "validation"}


def climb_chart(record: Record) -> Chart:
    """The score over the steps of the ascent, with the band of real images."""
    curves = [start["climb"] for start in record["starts"]]
    reals = [real["quantiles"] for real in record["real"].values()]
    ends = [v for curve in curves for v in curve] + [real[q] for real in reals for q in ("0.05", "0.95")]
    y_ticks = ticks(min(ends), max(ends))
    steps = record["steps"]
    axes = Axes(
        (0, steps), (y_ticks[0], y_ticks[-1]), "step of the ascent", "critic's score",
        [(x, (short_count(x),)) for x in ticks(0, steps) if x <= steps], y_ticks,
    )  # fmt: skip
    legend = []
    for style, (part, real) in zip(STYLES[2:], record["real"].items(), strict=False):
        low, middle, high = (real["quantiles"][q] for q in ("0.05", "0.5", "0.95"))
        axes.band([(0, low, high), (steps, low, high)], style)
        axes.line([(0, middle), (steps, middle)], style)
        legend.append((f"{_PARTS[part]} films: median, 5 to 95 %", style))
    for curve in curves:
        axes.line(list(enumerate(curve)), STYLES[0])
    legend.append((f"ascent from noise, {len(curves)} start{'s' * (len(curves) > 1)}", STYLES[0]))
    best = max(record["starts"], key=lambda start: start["score"])
    described = f"From {best['first']:.4g} to {best['score']:.4g} in {steps} steps"
    title = "The critic's score on the way up"
    return Chart(record["arm"], title, axes.svg(title, described), legend)


def units_chart(record: Record) -> Chart:
    """Absolute correlations of units with the label, layer by layer, against chance and the paper's bound."""
    rows = [row for row in record["rows"] if row["largest"] is not None]
    top = max([abs(row["largest"]) for row in rows] + [row["null_95"] for row in rows] + [record["paper"]])
    y_ticks = ticks(0, top * 1.05)
    layers = list(dict.fromkeys(row["layer"] for row in record["rows"]))
    axes = Axes(
        (-0.6, len(layers) - 0.4), (0, y_ticks[-1]), "layer, and its positions", "|correlation| with label",
        [(i, (layer, _grid(record, layer))) for i, layer in enumerate(layers)], y_ticks,
    )  # fmt: skip
    level(axes, record["paper"], f"den Boer 2025: none above {record['paper']:g}")
    for row in rows:
        x = layers.index(row["layer"]) + (-0.16 if row["unit"] == "channel" else 0.16)
        style = STYLES[0] if row["unit"] == "channel" else STYLES[1]
        axes.whisker(x, row["quantiles"]["0.05"], row["quantiles"]["0.95"], style)
        axes.mark(x, abs(row["largest"]), style)
        axes.line([(x - 0.13, row["null_95"]), (x + 0.13, row["null_95"])], REFERENCE)
    kinds = [kind for kind in _UNITS if any(row["unit"] == kind for row in rows)]
    legend = [(f"{_UNITS[kind]}: largest, and 5 to 95 %", STYLES[list(_UNITS).index(kind)]) for kind in kinds]
    legend.append(("the largest by chance, 95 %", REFERENCE))
    best = max(rows, key=lambda row: abs(row["largest"]), default=None)
    described = f"Largest {best['largest']:.3f} in {best['layer']}" if best else "No unit ever changes"
    note = (
        f"{record['num_images']:,} images of {record['num_patients']:,} training and validation patients; "
        f"chance by exchanging patients' labels {record['permutations']:,} times."
    )
    title = f"Units that go with {record['task']}"
    return Chart(record["arm"], title, axes.svg(title, described), legend, note)


def _grid(record: Record, layer: str) -> str:
    height, width = next(row["grid"] for row in record["rows"] if row["layer"] == layer)
    return f"{height} × {width}"
