"""The contract every method keeps, so that one loop trains them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from trabecula.artifacts.encoder import EncoderCard
from trabecula.artifacts.tasks import Task
from trabecula.config import Record, build, dump
from trabecula.data.batches import Batch
from trabecula.data.views import Views
from trabecula.errors import InputError
from trabecula.nets.encoder import Encoder
from trabecula.objectives.optim import Optimizer
from trabecula.random_numbers import RowRandom, mix

_HEAVY = 20_000_000  # weights that a CPU feels

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Update:
    """One move of one group's weights, asked for by a step.

    loss: scalar, differentiable in the group's weights; scalars: what to log besides.
    """

    group: str
    loss: Tensor
    scalars: Mapping[str, Tensor] = field(default_factory=dict)


Steps = Generator[Update]
"""What a step is: it is driven from yield to yield by the loop."""
Batches = Sequence[Batch]
"""What a step is given: fresh ones, as many as its objective says."""


@dataclass(frozen=True)
class Picture:
    """Images for a person to look at.

    note: what is seen; rows: heading -> images (n, C, H, W) in [0, 1], side by side.
    """

    title: str
    note: str
    rows: Mapping[str, Tensor]


@dataclass(frozen=True)
class Group:
    """Weights that move together, and how."""

    weights: Sequence[nn.Parameter]
    optimizer: Optimizer


class Product(Protocol):
    """A network that is kept when training ends, such as an encoder or a generator."""

    def save(self, folder: Path, card: EncoderCard, images: int) -> None:
        """Write it into a folder that exists, with what is known of this training.

        images: seen in this training so far, without those of an encoder it started from.
        """


@dataclass(frozen=True)
class Setting:
    """What an objective may need to know of the run it is in."""

    num_images: int
    batch_size: int
    seed: int

    def check_batch(self, method: str) -> None:
        """Refuse what a method whose rows mix cannot learn from, with what would do."""
        if self.num_images < 2:
            raise InputError(
                f"{method}: the pool holds one image, and a batch needs two or more; give it more images: "
                "another store, more pool_cohorts, a larger pool_fraction or fewer held-out patients"
            )
        if self.batch_size < 2:
            raise InputError(f"{method}: a batch of one image has no statistics; -s batch_size=2 or more")
        if self.batch_size > self.num_images:
            raise InputError(
                f"{method}: a batch of {self.batch_size} is larger than the pool of {self.num_images} "
                f"images, so the same image would be in it twice; -s batch_size={self.fitting} would do "
                "(in a study: the same key of the arm's pretrain)"
            )

    @property
    def fitting(self) -> int:
        """The batch size, or the largest power of two that the pool has images for."""
        return min(self.batch_size, 1 << (self.num_images.bit_length() - 1))

    @contextmanager
    def seeded(self, name: str) -> Iterator[None]:
        """Initial weights are drawn within it, by the run's seed; the global random numbers stay."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.seed, name))
            yield


class Objective(nn.Module):
    """A method: its nets, its loss and its step.

    A subclass names its settings in `Config`, builds its nets in `__init__(config, encoder, setting)`
    and writes `step` in the paper's order. State across steps is in registered buffers only;
    random numbers come from `batch.random` only.

    config: as given, its views of the size that they have here.
    encoder: what is kept by default; a method sets it, or overrides `products`.
    """

    Config: ClassVar[type[Record]]
    config: Any
    encoder: Encoder
    group: ClassVar[str] = "all"
    """What its weights are called in the log, if they are one group."""
    rate_batch: ClassVar[int] = 256
    """Images a batch for which the rate of `optimizer` is; a setting `scale_lr` multiplies it for others."""
    fields: ClassVar[tuple[str, ...]] = ()
    """What its batches carry beside images: names of `data.batches.FIELDS`."""
    trains_encoder: ClassVar[bool] = True
    """Whether the encoder learns and is kept; a method that trains none may use it as it is."""
    monitors: ClassVar[tuple[str, ...]] = ("encoder",)
    """What is measured while it trains: names of the table in `monitors/__init__.py`."""
    of_task: ClassVar[Mapping[str, Callable[[Task], Any]]] = {}
    """For a method with the field labels: settings that the task decides, and how."""
    batches: int = 1
    """Fresh batches per step."""
    batch_coupled: bool = False
    """True where the loss of one row depends on the other rows: it cannot be accumulated."""
    zero_gradients: ClassVar[Mapping[str, str]] = {}
    """Weights whose gradient is zero by mathematics: pattern of names -> reason."""
    tiny: ClassVar[Mapping[str, Any]] = {}
    """Settings at which the method runs on a few dozen images; the contract tests use them."""
    architectures: ClassVar[tuple[str, ...]] = ("critic", "timm:resnet10t")
    """Small networks that it can train: the contract tests take the first, and all in two processes."""

    def __init__(self, config: Record, encoder: Encoder, setting: Setting) -> None:
        super().__init__()
        if self.batch_coupled:
            setting.check_batch(self.name())
        self.config, self.batch_size = _with_size(config, encoder.card.size), setting.batch_size

    @classmethod
    def name(cls) -> str:
        """What the method is called in settings: the name of its file."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def resolved(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every setting as a plain value, so that a run's identity holds the defaults it had.

        Those that the task decides are left out, unless they are given.

        Raises:
            InputError: an unknown setting, or a value that it refuses.
        """
        values = dump(build(cls.Config, given, f"settings of {cls.name()}"))
        return {key: value for key, value in values.items() if key in given or key not in cls.of_task}

    @classmethod
    def settings(cls, given: Mapping[str, Any], size: int, task: Task | None = None) -> Record:
        """The settings as the method takes them: views of the store's size, and what the task decides.

        Raises:
            InputError: one that comes from the store or from the task is given otherwise.
        """
        where = f"settings of {cls.name()}"
        decided = {key: decide(task) for key, decide in cls.of_task.items()} if task is not None else {}
        for key in decided.keys() & given.keys():
            raise InputError(f"{where}: '{key}' comes from the task; leave it out")
        config = build(cls.Config, {**decided, **given}, where)
        made = _with_size(config, size)
        for key, value in config:
            side = getattr(made, key).size if isinstance(value, Views) else None
            if side and value.size not in (side, Views().size):
                raise InputError(
                    f"{where}: views have {side} px here, not {value.size}; leave {key}.size out"
                )
        return made

    def groups(self) -> dict[str, Group]:
        """The weights by optimizer; a weight may be in two groups. By default all that learn are one."""
        optimizer = self.config.optimizer
        if getattr(self.config, "scale_lr", False):
            rate = optimizer.lr * self.batch_size / self.rate_batch
            optimizer = optimizer.model_copy(update={"lr": rate})
        return {self.group: Group([w for w in self.parameters() if w.requires_grad], optimizer)}

    def products(self) -> Mapping[str, Product]:
        """What is kept when training ends, by name: "encoder", "generator", ..."""
        return {"encoder": self.encoder}

    def prepare(self, images: Iterable[Tensor]) -> None:
        """Look once at images of the pool before training begins.

        images: parts (B, C, H, W) in [0, 1], read when they are asked for.
        """

    def samples(self, num: int, seed: int) -> Tensor | None:  # noqa: ARG002
        """(num, C, S, S) uint8 images that it makes, for a person to look at; None where it makes none."""
        return None

    def pictures(self, images: Tensor, random: RowRandom) -> dict[str, Picture]:  # noqa: ARG002
        """What a person should see when training ends, by name.

        images: (B, C, H, W) uint8 or uint16, some of those it was trained on.
        """
        return {}

    def step(self, batches: Batches, progress: float) -> Steps:
        """Yield an `Update` wherever weights should move; each loss is computed after the last yield.

        Never yield inside a `with`. progress: part of the budget spent, 0 to 1.
        """
        raise NotImplementedError


def _with_size(config: R, size: int) -> R:
    """With the size that views will have: the method's own where it has one, else that of the images."""
    side = {"size": getattr(config, "size", 0) or size}
    views = {key: value.model_copy(update=side) for key, value in config if isinstance(value, Views)}
    return config.model_copy(update=views)


def outweighed(objective: Objective, encoder: Encoder) -> str:
    """What to know on a CPU if most of a step goes into weights that do not stay, as of wide projectors."""
    kept = {id(weight) for weight in encoder.parameters()}
    thrown = sum(w.numel() for w in objective.parameters() if w.requires_grad and id(w) not in kept)
    stays = sum(w.numel() for w in encoder.parameters())
    if not objective.trains_encoder or thrown <= max(_HEAVY, 4 * stays):
        return ""
    return (
        f"{objective.name()} trains {thrown / 1e6:,.0f} million weights beside the encoder's "
        f"{stays / 1e6:,.1f} million, and on a CPU they may take most of the time; "
        f"`trabecula show {objective.name()}` lists their widths"
    )


@torch.no_grad()
def ema(average: nn.Module, module: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * module, weights only: norm statistics stay its own."""
    for mean, weight in zip(average.parameters(), module.parameters(), strict=True):
        mean.lerp_(weight.detach(), 1 - decay)


def rising(start: float, progress: float) -> float:
    """A decay of `ema` that goes from `start` to 1 by half a cosine over the budget, progress 0 to 1
    (Grill et al. 2020, arXiv 2006.07733, section 3.2)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
