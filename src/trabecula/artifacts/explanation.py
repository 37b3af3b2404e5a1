"""What `explain` found in a network: Grad-CAM, images that raise a critic's score, units and the label.

explain.json    every number; the pictures beside it are drawn from them
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from trabecula.config import Record, build, dump
from trabecula.errors import InputError
from trabecula.files import read_json, write_json

_FILE, _MADE_BY = "explain.json", "`trabecula explain`"

CamMethod = Literal["gradcam", "hirescam"]


class ExplainedArm(Record):
    """The network that was explained: its arm, and its pretraining."""

    arm: str
    images_seen: int = 0
    pretrain_seed: int = 0


class CamImage(Record):
    """One image and its map."""

    image_id: str
    file: str  # the picture, in the folder of explain.json
    group: str  # why it is shown: "highest" or "lowest" in the validation part, or "named"
    value: float  # probability of the class, or the critic's score
    label: str  # the true class, "" where it is not known
    peak: float  # largest value of the map
    share: float  # part of the image in which the map is above half of its maximum


class GradCam(ExplainedArm):
    """Grad-CAM of one class, or of a critic's score."""

    task: str  # "" for a critic
    target: str  # the class, "" for a critic
    method: CamMethod
    layer: str
    grid: tuple[int, int]  # rows and columns of the layer's maps
    images: tuple[CamImage, ...]


class ScoreDistribution(Record):
    """A critic's scores of real images."""

    num: int
    mean: float
    sd: float
    quantiles: dict[str, float]


class Ascent(Record):
    """The way of one image of noise up the critic's score."""

    first: float
    score: float  # the highest score
    step: int  # the step at which it was reached
    above_real: float  # per cent of the real images below it
    climb: tuple[float, ...]  # the score before the first step and after each


class Maximised(ExplainedArm):
    """Images that raise a critic's score most."""

    steps: int
    rate: float
    real: dict[str, ScoreDistribution]  # by part: train, val
    starts: tuple[Ascent, ...]


class UnitRow(Record):
    """Correlations of the units of one layer and kind with the label."""

    layer: str
    unit: Literal["channel", "cell"]  # the mean of a map, or each of its cells
    grid: tuple[int, int]  # rows and columns of the layer's maps
    num_units: int
    num_constant: int  # units that are the same for every image
    largest: float | None  # the correlation that is largest in size; none where every unit is constant
    at: dict[str, int] | None  # its place: channel, and for a cell row and column
    p: float | None  # its p-value over all units of that kind
    num_above_paper: int  # units beyond the bound of den Boer 2025
    num_significant: int
    quantiles: dict[str, float]  # of the correlations' sizes
    null_95: float  # 95 % quantile of the largest correlation under permuted labels


class UnitCorrelations(ExplainedArm):
    """Units of the last layers and the label."""

    task: str
    num_images: int
    num_patients: int
    permutations: int
    paper: float  # the bound of den Boer 2025, section 7
    rows: tuple[UnitRow, ...]


class Explanation(Record):
    """The content of explain.json: each part that was asked for."""

    format: int = 1
    store: str = ""  # id of the images' store
    gradcam: GradCam | None = None
    maximise: Maximised | None = None
    units: UnitCorrelations | None = None


def write_explanation(folder: Path, explanation: Explanation) -> None:
    """Write explain.json."""
    write_json(folder / _FILE, dump(explanation))


def read_explanation(folder: Path) -> dict[str, Any]:
    """The parts that explain.json holds, checked, as plain values."""
    values = dump(build(Explanation, read_json(folder / _FILE, _MADE_BY), str(folder / _FILE)))
    held = {key: value for key, value in values.items() if value is not None}
    if not held.keys() & {"gradcam", "maximise", "units"}:
        raise InputError(f"{folder / _FILE}: holds nothing; write it again with {_MADE_BY}")
    return held
