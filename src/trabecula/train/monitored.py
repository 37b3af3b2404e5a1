"""A training that is measured on the way: its curve and its findings, on the terminal and in the log."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from trabecula.data.batches import Stream
from trabecula.monitors.monitor import Monitor
from trabecula.nets.devices import Precision
from trabecula.objectives.objective import Objective
from trabecula.progress import Meter
from trabecula.run import Run
from trabecula.train.checkpoint import CHECKPOINT
from trabecula.train.loop import Point, train


def train_monitored(
    objective: Objective,
    stream: Stream,
    monitors: Sequence[Monitor],
    out: Run,
    *,
    images: int,
    every: int,
    precision: Precision,
    accumulate: int,
    at_point: Callable[[int, int], None],
) -> tuple[dict[str, Any], list[str]]:
    """Train, and measure at each point; the checkpoint stays in the run's folder.

    Args:
        at_point: called after each with the images seen until the point before, and until this one.

    Returns:
        The content of training.json (start, points, findings), and what was still wrong at the end and
        belongs into the summary of the run.
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
            meter.reach(point.images, _losses(point))
            curve = memory["curve"]
            before = curve[-1]["images"] if curve else 0
            curve.append({"images": point.images, **point.scalars})
            _check(monitors, memory, point.last, out)
            at_point(before, point.images)
            out.log("point", **curve[-1])
    found, curve = memory.get("findings", {}).values(), memory["curve"]
    warnings = [f["text"] for f in found if f.get("lasting") and f["last"] == curve[-1]["images"]]
    findings = [{key: f[key] for key in ("name", "text", "first", "last")} for f in found]
    return {"start": start, "points": curve, "findings": findings}, warnings


def _check(monitors: Sequence[Monitor], memory: dict[str, Any], last: bool, out: Run) -> None:
    """Measure at a point; a finding is reported once, on the terminal and in the log, and kept."""
    point, findings = memory["curve"][-1], memory.setdefault("findings", {})
    measured, found = {}, []
    for monitor in monitors:
        values, wrong = monitor.check(memory["curve"], last)
        measured.update(values)
        found += wrong
    point.update(_finite(measured))
    for finding in found:
        known = findings.get(finding.name)
        if known is None:
            print(f"warning: at {point['images']:,} images {finding.text}", file=sys.stderr, flush=True)
            out.log("finding", images=point["images"], name=finding.name, text=finding.text)
        first = known["first"] if known else point["images"]
        findings[finding.name] = {
            "name": finding.name, "text": finding.text, "first": first, "last": point["images"],
            "lasting": finding.lasting,
        }  # fmt: skip


def _finite(measured: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in measured.items() if math.isfinite(value)}


def _losses(point: Point) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in point.scalars.items() if "loss" in name)
