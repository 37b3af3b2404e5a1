"""Features, labels and parts of one arm of a finished study, for scripts that fit their own classifiers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trabecula.artifacts.features import read_features
from trabecula.artifacts.manifest import read_manifest
from trabecula.artifacts.splits import Splits, read_splits
from trabecula.artifacts.tasks import Task, Truth, find_task, truth


@dataclass(frozen=True)
class EmbeddedArm:
    """x: (n, D) features of the n labelled images."""

    x: NDArray[np.float64]
    task: Task
    labelled: Truth
    splits: Splits

    def rows(self, part: str) -> NDArray[np.int64]:
        """Those of the labelled images that are of a part."""
        return np.flatnonzero(self.splits.rows(part, self.labelled.patient_ids))


def cell(study: Path, pattern: str) -> Path:
    """The folder of the one cell of this stage and arm.

    Raises:
        SystemExit: none, or several, such as those of earlier settings.
    """
    found = [path for path in study.glob(f"cells/{pattern}-*") if re.fullmatch("[0-9a-f]{8}", path.name[-8:])]
    found = [path for path in found if path.name[:-9] == pattern]
    if len(found) != 1:
        raise SystemExit(f"{study}: {len(found)} cells '{pattern}' ({', '.join(p.name for p in found)})")
    return found[0]


def read_arm(study: Path, arm: str, task: str) -> EmbeddedArm:
    """Read what `cohort`, `split` and `embed` wrote."""
    features = read_features(cell(study, f"embed-{arm}"))
    manifest = read_manifest(cell(study, "cohort"))
    found = find_task(task, manifest)
    labelled = truth(found, manifest).among(features.row_of, study, "without features")
    x = features.values[[features.row_of[i] for i in labelled.image_ids]].astype(np.float64)
    return EmbeddedArm(x, found, labelled, read_splits(cell(study, "split")))
