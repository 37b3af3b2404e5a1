"""Linear probes: logistic regressions on features, at a path of strengths, the strength chosen on validation.

`probe` predicts with what comes out; fine-tuning may start from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from trabecula.artifacts.tasks import Task
from trabecula.config import Record
from trabecula.metrics.classification import auroc_macro, balanced_accuracy
from trabecula.transfer.few_labels import ClassWeight, balanced_weights, is_balanced
from trabecula.transfer.logistic import Problem, StrengthPath, solve, standardisation

_TIE = 1e-6  # validation log-losses closer than the solver's tolerance are equal
_PIECE = 5  # strengths solved between two looks at the validation scores


class ProbeSettings(Record):
    """How a linear probe is fitted and its strength chosen."""

    num_strengths: int = Field(50, ge=1)
    """Length of the path, evenly spaced in the logarithm of C (as many settings as a search of 50 trials)."""
    strength_range: tuple[float, float] = (1e-5, 1e5)
    """Smallest and largest C; a small C is a strong penalty ||W||^2 / (2 C) beside the summed loss."""
    patience: int = Field(10, ge=0)
    """Strengths in a row without a better validation score, from the strongest penalty on, after which weaker
    ones are not tried; 0: all are. A multi-label task tries all."""
    standardise: bool = True
    """Whether features get mean 0 and standard deviation 1 on each few-label training part."""
    class_weight: ClassWeight = "auto"
    """balanced: each class weighs as much as the others in the loss, whatever its number of images. auto:
    balanced for three or more classes, whose arms are compared by balanced accuracy and kappa; none for
    binary and multi-label tasks, compared by AUROC."""
    select: Literal["log_loss", "balanced_accuracy", "auroc"] = "log_loss"
    """What chooses C on the few-label validation part; the others are coarse where it has 6 patients. The
    log-loss weighs classes alike where training does."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        low, high = self.strength_range
        if not 0 < low <= high:
            raise ValueError(f"strength_range {low:g}, {high:g}: must be above 0 and rise")
        return self

    @property
    def strengths(self) -> NDArray[np.float64]:
        """(P,) ascending C: the strongest penalty first."""
        return np.geomspace(*self.strength_range, self.num_strengths)


@dataclass(frozen=True)
class ProbeData:
    """Features (n, D) and labels (n,), or (n, L) with -1 where masked, of training and validation images."""

    train: Tensor
    y: NDArray[np.int64]
    val: Tensor
    y_val: NDArray[np.int64]


@dataclass
class FittedProbe:
    """Solutions at the strengths that were tried; a multi-label task has one path a finding."""

    mean: Tensor  # (D,)
    std: Tensor  # (D,)
    problems: list[Problem]
    single: bool  # whether the outputs are classes, not findings
    paths: list[StrengthPath] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)  # on validation, higher is better
    select: str = "log_loss"

    @property
    def index(self) -> int:
        """The best strength on validation, the strongest penalty of equally good ones."""
        return int(np.flatnonzero(np.array(self.scores) >= max(self.scores) - _TIE)[0])

    @property
    def strength(self) -> float:
        """The chosen C."""
        return float(self.paths[0].strengths[self.index])

    @property
    def not_converged(self) -> int:
        """Solutions that the solver gave up on."""
        return sum(int((~path.converged).sum()) for path in self.paths)

    def log_probabilities(self, features: Tensor, paths: Sequence[StrengthPath] = ()) -> Tensor:
        """(m, D) -> (P, m, K), or of findings (P, m, L, 2), absent and present; the chosen strength's."""
        x = (features.double() - self.mean) / self.std
        of = paths or [path.only(self.index) for path in self.paths]
        values = [path.log_probabilities(x) for path in of]
        return values[0] if self.single else torch.stack(values, 2)

    def probabilities(self, features: Tensor) -> NDArray[np.float64]:
        """(m, D) -> (m, K), or of findings (m, L), at the chosen strength."""
        p = self.log_probabilities(features)[0].exp().cpu().numpy()
        return np.asarray(p if self.single else p[..., 1])

    def tensors(self) -> dict[str, Tensor]:
        """weight (K, D), bias (K,), mean (D,), std (D,) of the chosen strength, float64."""
        pairs = [path.weights(self.index) for path in self.paths]
        if self.single:
            weight, bias = pairs[0]
        else:
            weight = torch.stack([w[1] - w[0] for w, _ in pairs])
            bias = torch.stack([b[1] - b[0] for _, b in pairs])
        return {"weight": weight, "bias": bias, "mean": self.mean, "std": self.std}


def fit_probes(settings: ProbeSettings, task: Task, sets: Sequence[ProbeData]) -> list[FittedProbe]:
    """Fit a probe to each set, all together, from the strongest penalty to the weakest that is worth it."""
    balanced = is_balanced(settings.class_weight, task)
    probes = [_unsolved(settings, task, data, balanced) for data in sets]
    going = list(zip(probes, sets, strict=True))
    patience = settings.patience if task.kind != "multilabel" else 0
    strengths = settings.strengths
    size = _PIECE if patience else len(strengths)
    for piece in (strengths[i : i + size] for i in range(0, len(strengths), size)):
        problems = [problem for probe, _ in going for problem in probe.problems]
        solved = iter(
            solve(problems, list(piece), after=[path for probe, _ in going for path in probe.paths])
        )
        for probe, data in going:
            new = list(islice(solved, len(probe.problems)))
            probe.scores += _scores(probe, probe.log_probabilities(data.val, new), data.y_val, balanced)
            known = zip(probe.paths, new, strict=True) if probe.paths else ()
            probe.paths = [path.extended(weaker) for path, weaker in known] or new
        going = [(p, d) for p, d in going if not patience or len(p.scores) - 1 - p.index < patience]
        if not going:
            break
    return probes


def _unsolved(settings: ProbeSettings, task: Task, data: ProbeData, balanced: bool) -> FittedProbe:
    """One problem of classes, or one a finding on the images where it is labelled."""
    features, multilabel = data.train.double(), task.kind == "multilabel"
    mean, std = torch.zeros_like(features[0]), torch.ones_like(features[0])
    if settings.standardise:
        mean, std = standardisation(features)
    x = (features - mean) / std
    problems = list(_problems(x, data.y, 2 if multilabel else task.num_outputs, balanced))
    return FittedProbe(mean, std, problems, not multilabel, select=settings.select)


def _problems(x: Tensor, y: NDArray[np.int64], num_classes: int, balanced: bool) -> Iterator[Problem]:
    for column in y.T if y.ndim == 2 else y[None]:
        rows = np.flatnonzero(column >= 0)
        known, labels = (torch.from_numpy(values).to(x.device) for values in (rows, column[rows]))
        weights = None
        if balanced:
            weights = torch.from_numpy(balanced_weights(column[rows], num_classes)).to(x.device)[labels]
        yield Problem(x if len(known) == len(x) else x[known], labels, num_classes, weights)


def _scores(probe: FittedProbe, log_p: Tensor, y: NDArray[np.int64], balanced: bool) -> list[float]:
    """Of each strength; where validation leaves the metric undefined, by log-loss from now on."""
    values = log_p.cpu().numpy()
    scores = [validation_score(one, y, probe.select, balanced) for one in values]
    if not np.isfinite(scores).all():
        probe.select = "log_loss"
        scores = [validation_score(one, y, probe.select, balanced) for one in values]
    return scores


def validation_score(log_p: NDArray[np.float64], y: NDArray[np.int64], select: str, balanced: bool) -> float:
    """Higher is better; NaN where validation cannot say. Of findings the mean.

    Args:
        log_p: (m, K), or (m, L, 2) for findings. y: (m,), or (m, L) with -1 where masked.
        balanced: whether the log-loss weighs all classes alike.
    """
    if y.ndim == 2:
        known = [(k, y[:, k] >= 0) for k in range(y.shape[1])]
        each = np.array(
            [validation_score(log_p[on, k], y[on, k], select, balanced) for k, on in known if on.any()]
        )
        return float(each[np.isfinite(each)].mean()) if np.isfinite(each).any() else np.nan
    if select == "log_loss":
        # a class that training lacks has p = 0 at every strength: finite, so that the rest decides
        gains = np.maximum(log_p[np.arange(len(y)), y], np.log(1e-15))
        weights = 1 / np.bincount(y)[y] if balanced else np.ones(len(y))
        return float((gains * weights).sum() / weights.sum()) if len(y) else np.nan
    metric = balanced_accuracy if select == "balanced_accuracy" else auroc_macro
    return float(metric(y, np.exp(log_p))[0])
