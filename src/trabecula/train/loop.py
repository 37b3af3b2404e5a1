"""The one training loop.

    for point in train(objective, stream, images=..., every=..., checkpoint=path, memory=memory):
        ...  # weights in place: evaluate, stop early, remember the best in `memory`

A step yields `Update(group, loss)` each time weights should move; the loop moves them. What a consumer
decides between points goes into `memory`, which travels in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trabecula import distributed
from trabecula.data.batches import Batch, Stream
from trabecula.errors import InputError, RunError
from trabecula.kernels.linear import use_product_linears
from trabecula.nets.devices import Precision, autocast, precision_on
from trabecula.nets.norm import use_global_batch_norm
from trabecula.objectives.objective import Group, Objective, Steps, Update
from trabecula.stopping import Stopped, stop_later
from trabecula.train.checkpoint import Checkpoint, seconds_between
from trabecula.train.crowding import Crowding
from trabecula.train.memory import kept_memory


@dataclass(frozen=True)
class Point:
    """A stop on the way, with the weights in place.

    images: seen so far; an image counts each time it is drawn.
    scalars: means since the last point: "<group>/loss", "<group>/norm" and what the method logs.
    """

    images: int
    scalars: dict[str, float]
    last: bool


@dataclass
class _Means:
    """Means since they were last taken; name -> sum, which stays on the device until then, and count."""

    sums: dict[str, tuple[Tensor, int]] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        value = value.detach().float()
        total, count = self.sums.get(name, (None, 0))
        self.sums[name] = value if total is None else total + value, count + 1

    def take(self) -> dict[str, float]:
        means = {name: float(total) / count for name, (total, count) in sorted(self.sums.items())}
        self.sums.clear()
        return means


def train(
    objective: Objective,
    stream: Stream,
    *,
    images: int,
    every: int,
    precision: Precision = "auto",
    accumulate: int = 1,
    checkpoint: str | Path | None = None,
    save_s: float | None = None,
    memory: dict[str, Any] | None = None,
) -> Iterator[Point]:
    """Train until `images` are seen; yield a Point about every `every` images and at the end.

    The checkpoint is written after the consumer has handled a point, so what it put into `memory`
    (plain values and tensors) is in it; at most one in `save_s` seconds (by default $TRABECULA_SAVE_S or 30).
    Training goes on from one that is there. Ctrl-C or SIGTERM ends it after the present step, with one of it.

    Raises:
        InputError: accumulation with a loss that mixes rows, or batches without a field it learns from.
        RunError: a loss or a gradient is not finite; the last checkpoint stays.
        Stopped: by a signal; says from how many images the same call goes on.
    """
    if accumulate > 1 and objective.batch_coupled:
        raise InputError(
            f"accumulate={accumulate}: the loss of {type(objective).__name__} mixes the rows of a batch "
            "(or its nets have batch norm), so parts of a batch would give another result; use accumulate=1"
        )
    missing = [name for name in objective.fields if name not in stream.fields]
    if missing:
        raise InputError(
            f"{objective.name()} learns from images with {' and '.join(missing)}, and these batches carry "
            f"{', '.join(stream.fields) or 'images alone'}; choose another objective, or give them"
        )
    objective.to(stream.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    use_product_linears(objective)
    if distributed.world_size() > 1:
        use_global_batch_norm(objective)
    groups = objective.groups()
    optimizers = {name: group.optimizer.make(group.weights) for name, group in groups.items()}
    step_images = objective.batches * stream.batch_size
    num_steps, point_steps = -(-images // step_images), max(every // step_images, 1)
    means, memory = _Means(), memory if memory is not None else {}
    seconds, used = seconds_between() if save_s is None else save_s, precision_on(stream.device, precision)
    file = Path(checkpoint) if checkpoint is not None else None
    kept = Checkpoint(file, seconds, objective, optimizers, memory, used, means.sums)
    step, crowding = kept.resume(stream.device), Crowding(stream.device)
    with kept_memory(), _stoppable(kept, step_images) as asked:
        while step < num_steps and not memory.get("stopped"):
            objective.train()
            batches = [stream.batch(step * objective.batches + i) for i in range(objective.batches)]
            _one_step(objective, groups, optimizers, batches, step, num_steps, precision, accumulate, means)
            step += 1
            crowding.look()
            if step % point_steps == 0 or step == num_steps:
                yield Point(step * step_images, means.take(), step == num_steps)
                kept.save(step)
            if distributed.any_rank(asked(), stream.device):
                kept.save(step, now=True)
                raise KeyboardInterrupt


@contextmanager
def _stoppable(kept: Checkpoint, step_images: int) -> Iterator[Callable[[], bool]]:
    """`stop_later`, and whatever stops the loop says from where it will go on."""
    try:
        with stop_later() as asked:
            yield asked
    except KeyboardInterrupt:
        raise Stopped(f"{kept.step * step_images:,} images" if kept.step else "the start") from None


def _one_step(
    objective: Objective,
    groups: dict[str, Group],
    optimizers: dict[str, torch.optim.Optimizer],
    batches: Sequence[Batch],
    step: int,
    num_steps: int,
    precision: Precision,
    accumulate: int,
    means: _Means,
) -> None:
    """Drive one step: with accumulation, the parts' steps advance side by side from yield to yield."""
    device = batches[0].images.device
    parts = [batch.split(accumulate) for batch in batches] if accumulate > 1 else [[b] for b in batches]
    runs = [objective.step(part, step / num_steps) for part in zip(*parts, strict=True)]
    while (first := _advance(runs[0], device, precision)) is not None:
        name = first.group
        group, optimizer = groups[name], optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        for run in runs:
            update = first if run is runs[0] else _advance(run, device, precision)
            if update is None or update.group != name:
                raise RuntimeError(f"{type(objective).__name__}: parts of a batch took different paths")
            if not torch.isfinite(update.loss):
                raise RunError(
                    f"step {step}: the loss of '{name}' is {update.loss.item()}; lower the learning rate, or "
                    "try precision=float32 (any earlier checkpoint is kept)"
                )
            (update.loss / accumulate).backward(inputs=list(group.weights))
            means.add(f"{name}/loss", update.loss)
            for key, value in update.scalars.items():
                means.add(key, value)
        distributed.average_gradients(group.weights)
        means.add(f"{name}/norm", _clip(group, step, name))
        for settings in optimizer.param_groups:
            settings.update(group.optimizer.at(step, num_steps, settings.get("lr_scale", 1.0)))
        optimizer.step()
    for run in runs[1:]:
        run.close()  # what follows the last yield ran once, in the first part


def _advance(run: Steps, device: torch.device, precision: Precision) -> Update | None:
    """Run a step up to its next yield, in the run's precision."""
    grad = torch.is_grad_enabled()
    with autocast(device, precision):
        cast = torch.is_autocast_enabled(device.type)
        update = next(run, None)
        if torch.is_grad_enabled() != grad or torch.is_autocast_enabled(device.type) != cast:
            raise RuntimeError("a step yielded inside a `with`: close it before the yield")
    return update


def _clip(group: Group, step: int, name: str) -> Tensor:
    """Clip the group's gradients as it says; gives their norm before."""
    norm = nn.utils.get_total_norm([w.grad for w in group.weights if w.grad is not None])
    if not torch.isfinite(norm):
        raise RunError(
            f"step {step}: the gradient of '{name}' is not finite; lower the learning rate, or set clip_norm "
            "(any earlier checkpoint is kept)"
        )
    if group.optimizer.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(group.weights, group.optimizer.clip_norm, norm)
    if group.optimizer.clip_value is not None:
        nn.utils.clip_grad_value_(group.weights, group.optimizer.clip_value)
    return norm
