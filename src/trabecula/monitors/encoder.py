"""Is an encoder learning anything? Measured while it is trained, whatever the method.

rank, rankme   how many directions the features of pool images use
spread         how far apart these features are, 1 without order, 0 where all are the same
knn            what an image's nearest neighbours among other patients say of its label

Only images of the training part are measured, those that are learned from but for neighbours; labels are
those of the training part. Features are float32 whatever the run computes in: rounding to bf16 makes a line
look like dozens of directions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from trabecula.artifacts.splits import in_hash_order
from trabecula.artifacts.store import to_float
from trabecula.data.pretraining_pool import Labelled, evenly
from trabecula.metrics.feature_quality import effective_rank, neighbour_accuracy, rankme, spread
from trabecula.monitors.monitor import Checked, Curve, Finding, Monitor, Watched
from trabecula.nets.devices import exact
from trabecula.nets.encoder import Encoder
from trabecula.objectives.objective import Objective

NUM_IMAGES, NUM_LABELLED, FEWEST = 256, 960, 16
"""Images whose features are measured, labelled images whose neighbours vote, and the least of either."""
SHARE, APART = 80, 16
"""A run of n images measures at most n / SHARE images of either kind at a time, and again only after
APART times as many images were trained on: less than 5 % of a training step's work on each image."""
NUM_NEIGHBOURS = 20
"""Neighbours that vote (Caron et al. 2021, arXiv 2104.14294, section 4.1)."""
ALIKE = 0.01
"""Spread below which features are all the same; those of fresh networks have more than 0.05."""
NARROW = 2.0
"""Effective rank below which features are on a line; those of fresh networks have more than 20."""
COLLAPSE = "encoder collapse"
"""Name of the finding."""
_BATCH = 64


class EncoderMonitor(Monitor):
    """Measures an objective's encoder, always on the same images; without labels no neighbours are asked."""

    def __init__(self, objective: Objective, watched: Watched) -> None:
        self.objective = objective.to(watched.device)  # training has not moved it yet
        self.store, self.device, labelled = watched.store, watched.device, watched.labelled
        most = max(FEWEST, watched.images // SHARE)
        self.rows = evenly(watched.pool, min(NUM_IMAGES, most))
        self.labelled = some_patients(labelled, min(NUM_LABELLED, most)) if labelled is not None else None
        self.apart = APART * (len(self.rows) + (len(self.labelled.rows) if self.labelled else 0))

    def start(self) -> dict[str, float]:
        return self.measure()

    def measure(self) -> dict[str, float]:
        """The measurements; the encoder is used as `embed` uses it, and stays as it was."""
        encoder = self.objective.products().get("encoder")
        if not isinstance(encoder, Encoder):
            return {}
        features = self._features(encoder, self.rows)
        sound = bool(np.isfinite(features).all())
        measures = {"rank": effective_rank, "rankme": rankme, "spread": spread}
        found = {name: of(features) if sound else math.nan for name, of in measures.items()}
        if self.labelled is not None and sound:
            known, features = self.labelled, self._features(encoder, self.labelled.rows)
            found["knn"] = neighbour_accuracy(features, known.y, known.patients, NUM_NEIGHBOURS)
        return {f"monitor/{name}": value for name, value in found.items()}

    def check(self, curve: Curve, last: bool) -> Checked:
        """Nothing where the check before is too near, but for the end, which is always measured."""
        before = max((point["images"] for point in curve if "monitor/rank" in point), default=0)
        if not last and curve[-1]["images"] - before < self.apart:
            return {}, []
        measured = self.measure()
        return measured, judge(measured, len(self.rows))

    @torch.no_grad()
    def _features(self, encoder: Encoder, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        was = encoder.training
        encoder.eval()
        parts = []
        for part in np.array_split(rows, -(-len(rows) // _BATCH)):
            images = to_float(self.store.read(part).to(self.device))
            with exact(), torch.autocast(self.device.type, enabled=False):
                parts.append(encoder(images).float().cpu())
        encoder.train(was)
        return torch.cat(parts).numpy()


def judge(measured: Mapping[str, float], num_images: int) -> list[Finding]:
    """What is wrong: an encoder whose features no longer differ between images."""
    if not measured:
        return []
    rank, apart = measured["monitor/rank"], measured["monitor/spread"]
    its_features = f"its features of {num_images} images are"
    if not (math.isfinite(rank) and math.isfinite(apart)):
        what = f"some of {its_features} not finite"
    elif apart < ALIKE:
        what = f"{its_features} almost identical (spread {apart:.1g}; random directions would have 1)"
    elif rank < NARROW and num_images > NARROW + 1:
        what = f"{its_features} all on one line (effective rank {rank:.2g}; the limit is {NARROW:g})"
    else:
        return []
    return [Finding(COLLAPSE, f"the encoder has collapsed: {what}", lasting=True)]


def some_patients(labelled: Labelled, num: int) -> Labelled:
    """Whole patients, in an order without meaning, as long as they have at most `num` images."""
    kept: set[str] = set()
    count = 0
    for patient in in_hash_order(sorted(set(labelled.patients)), 0):
        count += int((labelled.patients == patient).sum())
        if count > num and kept:
            break
        kept.add(patient)
    return labelled.where(np.isin(labelled.patients, sorted(kept)))
