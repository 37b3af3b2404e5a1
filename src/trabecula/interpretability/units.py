"""Which units of the last layers go with the label: a unit as a map's mean, and as each of its cells.

den Boer 2025, section 7, says that in the last three layers none is correlated with the label beyond 0.2,
and not which of the two a unit is. Both are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from trabecula.artifacts.explanation import UnitRow
from trabecula.artifacts.store import Store
from trabecula.data.batches import images_in_order
from trabecula.errors import InputError
from trabecula.interpretability.layers import as_maps, captured, check_layers, map_layers, stages
from trabecula.metrics.correlation import Correlations, CorrelationSums, max_p_value
from trabecula.nets.critic import Critic
from trabecula.nets.encoder import Encoder
from trabecula.progress import Meter

Kind = Literal["channel", "cell"]
Shape = tuple[int, int, int]
Activations = Callable[[], Iterator[dict[str, NDArray[np.float32]]]]
"""Gives batch after batch of {layer: (b, K, h, w)}, all images in the order of the labels, each time anew."""

PAPER_BOUND = 0.2
"""No unit of the paper's critic is correlated with the label beyond this (den Boer 2025, section 7)."""
SCORE = "score"
"""The critic's output, asked like a layer of one unit."""
_NUM_LAYERS = 3
_BATCH = 64
_MOST_SUMS = 1 << 25  # products of units and labels held at a time: 256 MiB
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def choose_shapes(encoder: Encoder, wanted: Sequence[str], critic: Critic | None) -> dict[str, Shape]:
    """Name -> (K, h, w) of the layers asked for, or of the last three stages and the critic's score.

    An InputError if there is no such layer, or the network has no maps.
    """
    check_layers(encoder.backbone, wanted)
    known = map_layers(encoder.backbone)
    names = list(wanted) or stages(encoder.backbone)[-_NUM_LAYERS:]
    if not names:
        raise InputError(f"{encoder.card.architecture} gives no maps, so there are no units to correlate")
    return {name: known[name] for name in names} | ({SCORE: (1, 1, 1)} if critic and not wanted else {})


@torch.inference_mode()
def activations_of(
    encoder: Encoder, critic: Critic | None, store: Store, rows: NDArray[np.int64], names: Sequence[str]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Activations of these layers on these rows of the store, batch after batch."""
    inner = [name for name in names if name != SCORE]
    with captured(encoder.backbone, inner) as outputs, Meter("units", len(rows), "images") as meter:
        for images in images_in_order(store, rows, encoder.mean.device, _BATCH):
            maps = encoder.backbone(encoder.normalise(images)).maps
            seen = {name: as_maps(encoder.backbone, outputs[name]) for name in inner}
            batch = {name: layer.float().cpu().numpy() for name, layer in seen.items()}
            if SCORE in names and critic is not None:
                batch[SCORE] = critic.output(maps.flatten(1))[..., None, None].cpu().numpy()
            yield batch
            meter.add(len(images))


@dataclass(frozen=True)
class _Channels:
    """Some channels of a layer, whose sums are held together."""

    layer: str
    kind: Kind
    first: int
    last: int
    units: int


def correlate(
    activations: Activations, shapes: dict[str, Shape], y: NDArray[Any], permuted: NDArray[np.float64]
) -> dict[tuple[str, Kind], Correlations]:
    """Correlations of every unit, by layer and kind; cells in the order channel, row, column.

    The network runs once, or more often where the sums would not fit the memory.
    """
    parts: dict[tuple[str, Kind], list[Correlations]] = {}
    for together in _passes(shapes, len(permuted) + 1):
        sums = [CorrelationSums(y, permuted) for _ in together]
        for batch in activations():
            for part, held in zip(together, sums, strict=True):
                held.add(_units(batch[part.layer], part))
        for part, held in zip(together, sums, strict=True):
            parts.setdefault((part.layer, part.kind), []).append(held.result())
    r = {key: np.concatenate([part.r for part in found]) for key, found in parts.items()}
    null = {key: np.maximum.reduce([part.null_max for part in found]) for key, found in parts.items()}
    return {key: Correlations(r[key], null[key]) for key in parts}


def _passes(shapes: dict[str, Shape], labels: int) -> list[list[_Channels]]:
    most = max(1, _MOST_SUMS // labels)
    passes: list[list[_Channels]] = [[]]
    for layer, (channels, height, width) in shapes.items():
        sizes: dict[Kind, int] = {"channel": 1, "cell": height * width}
        for kind, each in sizes.items():
            if kind == "cell" and each == 1:
                continue  # the one cell is the mean
            step = max(1, most // each)
            for first in range(0, channels, step):
                last = min(first + step, channels)
                part = _Channels(layer, kind, first, last, (last - first) * each)
                if passes[-1] and sum(p.units for p in passes[-1]) + part.units > most:
                    passes.append([])
                passes[-1].append(part)
    return passes


def _units(maps: NDArray[np.float32], part: _Channels) -> NDArray[np.float32]:
    """(b, K, h, w) -> (b, units)."""
    chosen = maps[:, part.first : part.last]
    if part.kind == "channel":
        chosen = chosen.mean((2, 3), dtype=np.float64)
    return np.asarray(chosen.reshape(len(chosen), -1), dtype=np.float32)


def summarise(found: dict[tuple[str, Kind], Correlations], shapes: dict[str, Shape]) -> tuple[UnitRow, ...]:
    """One row a layer and kind: the largest correlation, its place, and its p over all units of that kind."""
    rows = []
    for (layer, kind), correlations in found.items():
        family = np.maximum.reduce([other.null_max for (_, its), other in found.items() if its == kind])
        size = np.abs(correlations.r[np.isfinite(correlations.r)])
        best, largest, p, at = correlations.largest, None, None, None
        if best >= 0:
            largest = float(correlations.r[best])
            p = max_p_value(largest, family)
            place = np.unravel_index(best, shapes[layer]) if kind == "cell" else (best,)
            at = dict(zip(("channel", "row", "column"), map(int, place), strict=False))
        significant = (max_p_value(float(r), family) <= 0.05 for r in size[size >= np.quantile(family, 0.9)])
        rows.append(UnitRow(
            layer=layer, unit=kind, grid=shapes[layer][1:], num_units=len(correlations.r),
            num_constant=len(correlations.r) - len(size), largest=largest, at=at, p=p,
            num_above_paper=int((size > PAPER_BOUND).sum()), num_significant=sum(significant),
            quantiles={f"{q:g}": float(np.quantile(size, q)) for q in _QUANTILES} if len(size) else {},
            null_95=float(np.quantile(family, 0.95)),
        ))  # fmt: skip
    return tuple(rows)
