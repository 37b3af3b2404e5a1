"""A pretraining: the loop, measured on the way, and what is kept of it in the run's folder.

training.json    start, points (the curve), findings
snapshots/       of the products, as of so many images
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from trabecula.artifacts.encoder import EncoderCard
from trabecula.artifacts.generator import SAMPLES_FILE
from trabecula.artifacts.predictions import snapshot_name
from trabecula.artifacts.training import write_training
from trabecula.data.batches import Stream
from trabecula.figures.image_sheets import picture_file
from trabecula.files import write_atomically
from trabecula.monitors.monitor import Monitor
from trabecula.nets.devices import Precision
from trabecula.objectives.objective import Objective
from trabecula.progress import Meter
from trabecula.random_numbers import RowRandom, mix
from trabecula.run import Run
from trabecula.train.checkpoint import CHECKPOINT
from trabecula.train.loop import train

NUM_SAMPLES = 64
"""Images drawn from a generator for a person to look at."""


def train_and_keep(
    objective: Objective,
    stream: Stream,
    monitors: Sequence[Monitor],
    card: EncoderCard,
    out: Run,
    *,
    images: int,
    every: int,
    snapshots: int,
    precision: Precision,
    accumulate: int,
) -> tuple[int, str]:
    """Train; measure at each point; write products, snapshots and training.json. The checkpoint stays.

    card: of the encoder before this training, with the patients of this pool in it.
    Gives the images seen, and warnings for the summary of the run.
    """
    memory: dict[str, Any] = {"curve": [], "findings": {}}
    start = _finite({name: value for monitor in monitors for name, value in monitor.start().items()})
    out.log("start", **start)
    with Meter(f"pretraining {objective.name()}", images, "images") as meter:
        stream.drawn = meter.reach
        for point in train(
            objective, stream, images=images, every=every, precision=precision, accumulate=accumulate,
            checkpoint=out / CHECKPOINT, memory=memory,
        ):  # fmt: skip
            losses = [f"{name} {value:.3g}" for name, value in point.scalars.items() if "loss" in name]
            meter.reach(point.images, " ".join(losses))
            curve, seen = memory["curve"], point.images
            before = curve[-1]["images"] if curve else 0
            curve.append({"images": seen, **point.scalars})
            _check(monitors, memory, point.last, out)
            if snapshots and seen // snapshots > before // snapshots:
                name = snapshot_name(card.name, seen)  # an arm of its own: so are its predictions
                _keep(objective, out / "snapshots" / f"{seen:09d}", card, name, seen)
            out.log("point", **curve[-1])
    curve, found = memory["curve"], memory["findings"].values()
    seen = int(curve[-1]["images"]) if curve else 0
    _keep(objective, out.path, card, card.name, seen)
    findings = [{key: finding[key] for key in ("name", "text", "first", "last")} for finding in found]
    write_training(out.path, start, curve, findings)
    lasting = [finding["text"] for finding in found if finding["lasting"] and finding["last"] == seen]
    return seen, "".join(f"; warning: {text}" for text in lasting)


def _keep(objective: Objective, folder: Path, card: EncoderCard, name: str, images: int) -> None:
    """Write what an objective has made so far."""
    folder.mkdir(parents=True, exist_ok=True)
    now = card.model_copy(update={"name": name, "images_seen": card.images_seen + images})
    for product in objective.products().values():
        product.save(folder, now, images)


def draw(objective: Objective, images: Tensor, seed: int, out: Run) -> None:
    """Write what the method has to show of these images of the pool, and some images that it makes."""
    random = RowRandom(mix(seed, "pictures"), len(images), slice(0, len(images)), images.device)
    for name, picture in objective.eval().pictures(images, random).items():
        rows = {heading: shown.float().cpu().numpy() for heading, shown in picture.rows.items()}
        out.write(f"{name}.png", picture_file(picture.title, picture.note, rows))
    if (samples := objective.samples(NUM_SAMPLES, seed)) is not None:
        write_atomically(out / SAMPLES_FILE, samples.numpy())


def _check(monitors: Sequence[Monitor], memory: dict[str, Any], last: bool, out: Run) -> None:
    """Measure at a point; a finding is reported once, on the terminal and in the log, and kept."""
    point, findings, measured, found = memory["curve"][-1], memory["findings"], {}, []
    for monitor in monitors:
        values, wrong = monitor.check(memory["curve"], last)
        measured.update(values)
        found += wrong
    point.update(_finite(measured))
    for finding in found:
        seen, what = point["images"], {"name": finding.name, "text": finding.text}
        if finding.name not in findings:
            print(f"warning: at {seen:,} images {finding.text}", file=sys.stderr, flush=True)
            out.log("finding", images=seen, **what)
        first = findings.get(finding.name, {"first": seen})["first"]
        findings[finding.name] = {**what, "first": first, "last": seen, "lasting": finding.lasting}


def _finite(measured: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in measured.items() if math.isfinite(value)}
