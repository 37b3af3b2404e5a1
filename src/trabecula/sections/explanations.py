"""Pictures of what `explain` found: Grad-CAM sheets, maximising images, climbs, unit correlations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trabecula.figures.charts import REFERENCE, STYLES, Chart, PlotAxis, Series, axis_around, count_ticks
from trabecula.figures.image_sheets import Heat, Pixels, Tile, TileRow, sheet

Record = Mapping[str, Any]

_UNITS = {"channel": ("mean of a map", -0.16), "cell": ("each cell of a map", 0.16)}  # words, place beside x
_PARTS = {"train": "training", "val": "validation"}
_SCALE = ("nothing", "most")
_ACROSS = 4  # tiles of a sheet side by side


def gradcam_files(record: Record, images: Pixels, heats: Heat) -> dict[str, bytes]:
    """File name -> PNG: one for each image, and gradcam.png with all of them.

    From the "gradcam" of explain.json, images (n, C, H, W) uint8, and maps (n, H, W), at least 0.
    """
    title, note = _gradcam_words(record)
    files, groups = dict[str, bytes](), dict[str, list[tuple[Tile, Tile]]]()
    for image, picture, heat in zip(record["images"], images, heats, strict=True):
        shown, empty = (heat / heat.max(), "") if heat.max() > 0 else (heat, "nothing speaks for it here")
        pair = Tile(picture, _reading(record, image)), Tile(picture, empty, shown)
        files[image["file"]] = sheet(title, note, [TileRow("", pair)], _SCALE)
        groups.setdefault(image["group"], []).append(pair)
    rows = []
    for group, pairs in groups.items():
        for start in range(0, len(pairs), _ACROSS):
            plain, mapped = zip(*pairs[start : start + _ACROSS], strict=True)
            rows += [TileRow("" if start else _group_heading(record, group), plain), TileRow("", mapped)]
    return files | {"gradcam.png": sheet(title, note, rows, _SCALE)}


def _gradcam_words(record: Record) -> tuple[str, str]:
    height, width = record["grid"]
    what = f"{record['task']}, class {record['target']}" if record["task"] else "the critic's score"
    note = (
        f"{what}. Layer {record['layer']}, {height} x {width} positions, enlarged to the image's size. "
        "Each image has a scale of its own."
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
    """maximise.png: each start's noise, what became of it, and a real image of median score.

    From the "maximise" of explain.json; starts and images (n, C, S, S), typical (C, S, S), all uint8.
    """
    shown = record["starts"][:_ACROSS]
    before = [Tile(starts[i], f"score {s['first']:.4g}") for i, s in enumerate(shown)]
    after = [Tile(images[i], f"score {s['score']:.4g}") for i, s in enumerate(shown)]
    reals = [real["quantiles"]["0.5"] for real in record["real"].values()]
    note = (
        f"{record['steps']} steps of gradient ascent from noise, pixels kept within black and white. The "
        f"images of the {' and '.join(_PARTS[part] for part in record['real'])} part score "
        f"{' and '.join(f'{value:.4g}' for value in reals)} at the median."
    )
    rows = [TileRow("Start: noise", before), TileRow("After the ascent", after)]
    rows.append(TileRow("For comparison: a real image of median score", [Tile(typical)]))
    return sheet(f"What {record['arm']} takes for most real", note, rows)


def climb_chart(record: Record) -> Chart:
    """The score over the steps of the ascent, with the band of real images."""
    steps, starts, series = record["steps"], record["starts"], []
    for style, (part, real) in zip(STYLES[2:], record["real"].items(), strict=False):
        low, middle, high = ([real["quantiles"][q]] for q in ("0.05", "0.5", "0.95"))
        name = f"{_PARTS[part]} images: median, 5 to 95 %"
        series.append(Series(style, (), middle, low, high, name, ("band", "line")))
    name = f"ascent from noise, {len(starts)} start{'s' * (len(starts) > 1)}"
    for climb in (start["climb"] for start in starts):
        series.append(Series(STYLES[0], range(len(climb)), climb, name=name, parts=("line",)))
    best = max(starts, key=lambda start: start["score"])
    title = "The critic's score on the way up"
    described = f"{title}. From {best['first']:.4g} to {best['score']:.4g} in {steps} steps"
    x = PlotAxis("step of the ascent", count_ticks(0, steps), (0, steps))
    return Chart(record["arm"], title, x, PlotAxis("critic's score"), series, described)


def units_chart(record: Record) -> Chart:
    """Absolute correlations of units with the label, layer by layer, against chance and the paper's bound."""
    rows = [row for row in record["rows"] if row["largest"] is not None]
    top = max([abs(row["largest"]) for row in rows] + [row["null_95"] for row in rows] + [record["paper"]])
    layers = list(dict.fromkeys(row["layer"] for row in record["rows"]))
    bound = f"den Boer 2025: none above {record['paper']:g}"
    series = [Series("diagonal", y=[record["paper"]], parts=("line",), label=bound)]
    places = [layers.index(row["layer"]) + _UNITS[row["unit"]][1] for row in rows]
    for style, (kind, (words, _)) in zip(STYLES, _UNITS.items(), strict=False):
        mine = [(x, row) for x, row in zip(places, rows, strict=True) if row["unit"] == kind]
        low, high = ([row["quantiles"][q] for _, row in mine] for q in ("0.05", "0.95"))
        name = f"{words}: largest, and 5 to 95 %"
        largest = [abs(row["largest"]) for _, row in mine]
        if mine:
            series.append(Series(style, [x for x, _ in mine], largest, low, high, name, ("whisker", "mark")))
    chance, name = [row["null_95"] for row in rows], "the largest by chance, 95 %"
    series.append(Series(REFERENCE, places, chance, name=name, parts=("dash",), width=0.26))
    best = max(rows, key=lambda row: abs(row["largest"]), default=None)
    title = f"Units that go with {record['task']}"
    words = f"Largest {best['largest']:.3f} in {best['layer']}" if best else "No unit ever changes"
    note = (
        f"{record['num_images']:,} images of {record['num_patients']:,} training and validation patients; "
        f"chance by exchanging patients' labels {record['permutations']:,} times."
    )
    grids = {row["layer"]: f"{row['grid'][0]} × {row['grid'][1]}" for row in record["rows"]}
    ticks = [(i, f"{layer}\n{grid}") for i, (layer, grid) in enumerate(grids.items())]
    x_axis = PlotAxis("layer, and its positions", ticks, (-0.6, len(layers) - 0.4))
    y_axis = axis_around("|correlation| with label", (0, top * 1.05))
    return Chart(record["arm"], title, x_axis, y_axis, series, f"{title}. {words}", note)
